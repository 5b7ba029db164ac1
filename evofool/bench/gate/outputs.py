"""The files that a gate writes for CI systems; they exist from its start."""

from dataclasses import dataclass
from pathlib import Path

from evofool.bench.gate.gate_verdict import Check, GateVerdict, junit, markdown, metrics
from evofool.errors import RecipeError, StoreError
from evofool.whole_file import write_whole


@dataclass(frozen=True)
class GateOutputs:
    """xml: JUnit, overwritten. summary: Markdown, appended to an existing file. figures: OpenMetrics text, overwritten.

    None: not written.
    """

    xml: Path | None = None
    summary: Path | None = None
    figures: Path | None = None

    def begin(self, target: str) -> None:
        """Check that all can be written. If the gate is killed from now on, the XML and the figures say so.

        StoreError if one cannot be written, RecipeError if two are the same file.
        """
        named = [
            (option, path)
            for option, path in (("--junit", self.xml), ("--markdown", self.summary), ("--metrics", self.figures))
            if path is not None
        ]
        for k, (option, path) in enumerate(named):
            for other, another in named[:k]:
                if path.resolve() == another.resolve():
                    raise RecipeError(f"{other} and {option} both name {path}")
        for _, path in named:
            _append(path, "")
        unfinished = GateVerdict(target, [Check("evaluation", "invalid", "the gate did not finish")], 0.0)
        self._write_xml(unfinished)
        self._write_figures(unfinished)

    def end(self, verdict: GateVerdict) -> list[str]:
        """Write all, of equal paths only the first; messages on what could not be written."""
        faults = []
        for action in (self._write_xml, self._add_summary, self._write_figures):
            try:
                action(verdict)
            except StoreError as error:
                faults.append(str(error))
        return faults

    def _write_xml(self, verdict: GateVerdict) -> None:
        if self.xml is not None:
            write_whole(self.xml, junit(verdict))

    def _add_summary(self, verdict: GateVerdict) -> None:
        if self.summary is not None and not _same(self.summary, self.xml):
            _append(self.summary, markdown(verdict))

    def _write_figures(self, verdict: GateVerdict) -> None:
        if self.figures is not None and not (_same(self.figures, self.xml) or _same(self.figures, self.summary)):
            write_whole(self.figures, metrics(verdict))


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and path.resolve() == other.resolve()


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None
