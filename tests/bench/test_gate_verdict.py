"""A gate's outputs: exit statuses, XML that a parser reads back, Markdown whose table keeps its columns."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from evofool.bench.gate.gate_verdict import Check, GateVerdict, Status, junit, markdown, metrics
from evofool.bench.gate.junit import Case
from evofool.bench.gate.junit import junit as xml
from evofool.text import visible_lines

PASSED = Check("share accepted", "passes", "0.3 of the classes, at most 0.5 may be", {"share": 0.3, "q50": None})
FAILED = Check("against last.json", "fails", "easier to fool: Q50 <fell> & fell\nto 0.5x", {"ratio": 0.5, "low": 0.41})
INVALID = Check("real images", "invalid", "0 of 10 classes have any")


STATUSES = ("informs", "passes", "fails", "invalid")


@pytest.mark.parametrize("statuses", [s for n in (1, 2, 3) for s in product(STATUSES, repeat=n)])
def test_the_worst_check_decides_the_exit_status(statuses: tuple[Status, ...]) -> None:
    verdict = GateVerdict("net", [Check("c", status, "") for status in statuses], 0.0)
    slow = 2 if "invalid" in statuses or {*statuses} == {"informs"} else 1 if "fails" in statuses else 0
    assert verdict.exit_status == slow
    root = ET.fromstring(junit(verdict))
    assert bool(int(root.attrib["failures"]) or int(root.attrib["errors"])) == (slow > 0), "CI sees it the same way"


def test_a_gate_without_checks_is_invalid() -> None:
    nothing = GateVerdict("net", [], 0.0)
    assert nothing.exit_status == 2
    assert ET.fromstring(junit(nothing)).attrib["errors"] == "1"
    assert "Nothing was checked" in markdown(nothing)


def test_the_xml_has_the_verdict() -> None:
    root = ET.fromstring(junit(GateVerdict("nets/my-net.onnx", [PASSED, FAILED, INVALID], 12.3456)))
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    for element in (root, suite):
        assert {k: element.attrib[k] for k in ("tests", "failures", "errors", "time")} == {
            "tests": "3", "failures": "1", "errors": "1", "time": "12.346",
        }  # fmt: skip
    cases = list(suite)
    assert [case.attrib["name"] for case in cases] == ["share accepted", "against last.json", "real images"]
    assert {case.attrib["classname"] for case in cases} == {"evofool.gate.nets/my-net.onnx"}
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["failure", "system-out"], ["error", "system-out"],
    ]  # fmt: skip
    assert cases[1][0].attrib["message"] == cases[1][0].text == FAILED.message
    assert cases[0][0].text == "0.3 of the classes, at most 0.5 may be\nshare: 0.3\nq50: none"


def test_a_check_that_does_not_decide_is_skipped_in_the_xml() -> None:
    (suite,) = ET.fromstring(junit(GateVerdict("net", [PASSED, Check("cppn", "informs", "does not decide: it fell")], 1.0)))
    assert {key: suite.attrib[key] for key in ("tests", "skipped", "failures", "errors")} == {
        "tests": "2", "skipped": "1", "failures": "0", "errors": "0",
    }  # fmt: skip
    (skipped,) = suite.iter("skipped")
    assert skipped.attrib["message"] == "does not decide: it fell"
    assert "| cppn | informs | does not decide: it fell |" in markdown(
        GateVerdict("net", [PASSED, Check("cppn", "informs", "does not decide: it fell")], 1.0)
    )


def test_the_xml_has_the_time_and_the_worst_image_of_each_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = Check("apgd", "fails", "fell", seconds=12.3456, image=tmp_path / "g" / "worst.png", image_text="the worst: 3")
    elsewhere = replace(found, image=tmp_path.parent / "worst.png")
    first, second, third = ET.fromstring(junit(GateVerdict("net", [found, elsewhere, PASSED], 20.0))).iter("testcase")
    assert [case.attrib["time"] for case in (first, second, third)] == ["12.346", "12.346", "0.000"]
    outputs = [case.findtext("system-out") or "" for case in (first, second, third)]
    assert outputs[0] == f"fell\nthe worst: 3: {tmp_path / 'g' / 'worst.png'}\n[[ATTACHMENT|g/worst.png]]"
    assert f"[[ATTACHMENT|{tmp_path.parent / 'worst.png'}]]" in outputs[1], "not below the folder of the process"
    assert "ATTACHMENT" not in outputs[2]


def test_the_metrics_are_open_metrics_text_that_a_parser_reads_back() -> None:
    checks = [PASSED, FAILED, Check('a "b"\\c\nd', "passes", "", {"ratio": 1.25}, arm=""), replace(FAILED, arm="apgd")]
    text = metrics(GateVerdict('net "1"', checks, 1.0))
    assert text.endswith("# EOF\n")
    sample = re.compile(r'(\w+)\{target="((?:[^"\\]|\\.)*)"(?:,check="((?:[^"\\]|\\.)*)")?\} (\S+)')
    found = [sample.fullmatch(line) for line in text.splitlines() if not line.startswith("#")]
    assert {match[2] for match in found if match} == {r"net \"1\""}
    assert [(match[1], match[3], float(match[4])) for match in found if match] == [
        ("evofool_gate_exit_status", None, 1.0),
        ("evofool_gate_low", "against last.json", 0.41),
        ("evofool_gate_low", "apgd", 0.41),
        ("evofool_gate_ratio", "against last.json", 0.5),
        ("evofool_gate_ratio", r"a \"b\"\\c d", 1.25),
        ("evofool_gate_ratio", "apgd", 0.5),
        ("evofool_gate_share", "share accepted", 0.3),
    ]
    assert len(found) == 7


def test_characters_that_xml_lacks_are_escaped_or_dropped_and_all_others_come_back() -> None:
    nasty = "".join(map(chr, [*range(0x300), 0xD800, 0xDFFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF])) + "]]>&amp;'\"<!--"
    text = xml("s", nasty, [Case(nasty, "error", nasty, nasty)], 0.0)
    text.encode()  # no lone surrogate
    case = ET.fromstring(text)[0][0]

    def allowed(c: str) -> bool:
        """XML 1.0, section 2.2."""
        return c in "\t\n\r" or 0x20 <= ord(c) <= 0xD7FF or 0xE000 <= ord(c) <= 0xFFFD or ord(c) >= 0x10000

    kept = "".join(filter(allowed, visible_lines(nasty)))
    assert case.attrib == {"classname": kept, "name": kept, "time": "0.000"}
    assert case[0].attrib["message"] == kept
    assert case[0].text == kept.replace("\r", "\n"), "a parser reads a carriage return in text as the end of a line"


def test_the_markdown_is_a_table_that_no_text_can_break() -> None:
    odd = Check("a|b `c`", "fails", "x | y\n| z <script>\\|", {"low|high": 1 / 3})
    text = markdown(GateVerdict("my_net", [PASSED, odd, INVALID], 1.0))
    assert text.startswith("### evofool gate: my\\_net **invalid**\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    # A bar after an odd number of backslashes is text.
    bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows]
    assert set(bars) == {5}
    assert "<script>" not in text
    assert "| share accepted | passes | 0.3 of the classes, at most 0.5 may be | share: 0.3<br>q50: none |" in rows


def test_notes_are_in_the_outputs() -> None:
    verdict = GateVerdict("net", [PASSED], 1.0, ["apgd: left out", "a <b> | c"])
    (suite,) = ET.fromstring(junit(verdict))
    assert suite.findtext("system-out") == "apgd: left out\na <b> | c"
    assert "\n\n- apgd: left out\n- a &lt;b&gt; \\| c\n\n1 check in 1.0 s\n" in markdown(verdict)
    assert ET.fromstring(junit(GateVerdict("net", [PASSED], 1.0)))[0].find("system-out") is None


def test_the_headline_comes_first() -> None:
    verdict = GateVerdict("net", [PASSED], 1.0, ["a note"], ["Short."], "Of 10 classes, 9 are fooled.")
    lines = markdown(verdict).splitlines()
    assert lines[1:4] == ["", "Of 10 classes, 9 are fooled.", ""]
    assert lines[4].startswith("| check |")
    assert ET.fromstring(junit(verdict))[0].findtext("system-out") == "Of 10 classes, 9 are fooled.\na note"
