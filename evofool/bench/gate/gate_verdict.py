"""The verdict of a gate: what each check found, for the shell, for CI systems and for their readers."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evofool.bench.gate.junit import Case, Outcome
from evofool.bench.gate.junit import junit as xml
from evofool.text import visible

Status = Literal["informs", "passes", "fails", "invalid"]
_EXIT: dict[Status, int] = {"informs": 0, "passes": 0, "fails": 1, "invalid": 2}
_OUTCOMES: dict[Status, Outcome] = {
    "informs": "skipped",
    "passes": "passed",
    "fails": "failure",
    "invalid": "error",
}


@dataclass(frozen=True)
class Check:
    """One check of a target. "informs": it does not decide. "invalid": it could not be evaluated.

    message: what was found, or why it is invalid. figures: by name, the numbers of the message; None where there is no such
    number, as for a budget that is too small. arm: the arm that was checked, or "". seconds: what its cells took. image: a
    PNG of the worst image that was found, which image_text describes.
    """

    name: str
    status: Status
    message: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    arm: str = ""
    seconds: float = 0.0
    image: Path | None = None
    image_text: str = ""


@dataclass(frozen=True)
class GateVerdict:
    """All checks of one target, and the seconds that they took. notes: for the reader.

    headline: of the benchmark, in short lines for a console; details: the same with all conditions, for files. Both are
    empty where there is none.
    """

    target: str
    checks: Sequence[Check]
    seconds: float
    notes: Sequence[str] = ()
    headline: Sequence[str] = ()
    details: str = ""

    @property
    def status(self) -> Status:
        """The worst of all that decide: invalid, then fails, then passes. Invalid if none decides."""
        found = [check.status for check in self.checks if check.status != "informs"]
        return max(found, key=_EXIT.__getitem__, default="invalid")

    @property
    def exit_status(self) -> int:
        """0: all pass; 1: any fails; 2: any is invalid, whatever the others are."""
        return _EXIT[self.status]


def junit(verdict: GateVerdict) -> str:
    """JUnit XML: a check that fails is a failure, one that is invalid an error, one that does not decide is skipped."""
    cases = [Case(c.name, _OUTCOMES[c.status], c.message, "\n".join(_lines(c)), c.seconds, c.image) for c in verdict.checks]
    if all(check.status == "informs" for check in verdict.checks):
        cases.append(Case("checks", "error", "nothing was checked"))
    return xml("evofool gate", f"evofool.gate.{verdict.target}", cases, verdict.seconds, "\n".join(_said(verdict)))


def markdown(verdict: GateVerdict) -> str:
    """A heading and a table, as GitHub's step summaries and GitLab's comments show them; all text is escaped."""
    n = len(verdict.checks)
    rows = [
        f"| {_cell(c.name)} | {_shown(c.status)} | {_cell(c.message)} | {'<br>'.join(map(_cell, _lines(c)[1:]))} |"
        for c in verdict.checks
    ]
    head = f"### evofool gate: {_cell(verdict.target)} {_shown(verdict.status)}"
    table = ["| check | | what was found | figures |", "|---|---|---|---|", *rows] if rows else ["Nothing was checked."]
    notes = [f"- {_cell(note)}" for note in verdict.notes]
    last = f"{n} check{'s' * (n != 1)} in {verdict.seconds:.1f} s"
    first = [_cell(verdict.details), ""] if verdict.details else []
    return "\n".join([head, "", *first, *table, "", *notes, *[""][: len(notes)], last, ""])


def _said(verdict: GateVerdict) -> list[str]:
    """The headline with its conditions, and the notes."""
    return [verdict.details, *verdict.notes] if verdict.details else list(verdict.notes)


def metrics(verdict: GateVerdict) -> str:
    """OpenMetrics text, as GitLab's metrics reports show it: the exit status, and each figure with its target and check."""
    names = sorted({name for check in verdict.checks for name in check.figures})
    target = _metric_label(verdict.target)
    lines = ["# TYPE evofool_gate_exit_status gauge", f'evofool_gate_exit_status{{target="{target}"}} {verdict.exit_status}']
    for name in names:
        lines.append(f"# TYPE evofool_gate_{name} gauge")
        for check in verdict.checks:
            if (value := check.figures.get(name)) is not None:
                labels = f'target="{target}",check="{_metric_label(check.arm or check.name)}"'
                lines.append(f"evofool_gate_{name}{{{labels}}} {value:.6g}")
    return "\n".join([*lines, "# EOF", ""])


def _metric_label(text: str) -> str:
    return visible(" ".join(text.split())).replace("\\", "\\\\").replace('"', '\\"')


def _shown(status: Status) -> str:
    return f"**{status}**" if _EXIT[status] else status


def _lines(check: Check) -> list[str]:
    """What was found, then a line for each figure, and one for the image."""
    figures = [f"{name}: {'none' if value is None else f'{value:.6g}'}" for name, value in check.figures.items()]
    image = [f"{check.image_text}: {check.image}"] if check.image else []
    return [check.message, *figures, *image]


def _cell(text: str) -> str:
    """Text escaped for one line of a Markdown table."""
    flat = " ".join(text.split())
    for special in "\\`*_[]|":
        flat = flat.replace(special, f"\\{special}")
    return html.escape(visible(flat), quote=False)
