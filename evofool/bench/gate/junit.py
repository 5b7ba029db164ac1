"""JUnit XML, as GitHub, GitLab and Jenkins read it: one suite of test cases with their outcomes."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from evofool.text import visible_lines

# Characters that XML 1.0 cannot contain, not even escaped: control characters, lone surrogates, two non-characters.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


Outcome = Literal["passed", "skipped", "failure", "error"]


class Case(NamedTuple):
    """A test case. "skipped": it decides nothing; "failure": what was tested does not hold; "error": it was not tested."""

    name: str
    outcome: Outcome
    message: str  # why it did not pass
    output: str = ""  # shown beside it
    seconds: float = 0.0
    attachment: Path | None = None


def junit(suite: str, group: str, cases: Sequence[Case], seconds: float, output: str = "") -> str:
    """The XML of a suite. group: the class name that readers list its cases under; output: shown beside all of them.

    An attachment is named in the output of its case, as GitLab and Jenkins read it: [[ATTACHMENT|PATH]], below the folder
    of the process if it lies there. Characters that are not printable are escaped, and others that XML lacks are dropped.
    """
    count = {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": str(sum(case.outcome == "error" for case in cases)),
        "time": f"{seconds:.3f}",
    }
    root = ET.Element("testsuites", {"name": _clean(suite), **count})
    skipped = str(sum(case.outcome == "skipped" for case in cases))
    inside = ET.SubElement(root, "testsuite", {"name": _clean(suite), **count, "skipped": skipped})
    for case in cases:
        about = {"classname": _clean(group), "name": _clean(case.name), "time": f"{case.seconds:.3f}"}
        element = ET.SubElement(inside, "testcase", about)
        if case.outcome != "passed":
            # Some readers show the attribute alone, others the text alone.
            reason = ET.SubElement(element, case.outcome, {"message": _clean(case.message), "type": case.outcome})
            reason.text = _clean(case.message)
        if text := _output(case):
            ET.SubElement(element, "system-out").text = _clean(text)
    if output:
        ET.SubElement(inside, "system-out").text = _clean(output)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _output(case: Case) -> str:
    lines = [case.output] if case.output else []
    if path := case.attachment:
        # CI systems look for it from the folder that the job began in.
        lines.append(f"[[ATTACHMENT|{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}]]")
    return "\n".join(lines)


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("", visible_lines(text))
