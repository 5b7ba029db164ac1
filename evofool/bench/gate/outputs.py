"""The files that a gate writes for CI systems; they exist from its start."""

from dataclasses import dataclass
from pathlib import Path

from evofool.bench.gate.gate_verdict import Check, GateVerdict, junit, markdown
from evofool.errors import RecipeError, StoreError


@dataclass(frozen=True)
class GateOutputs:
    """xml: JUnit, overwritten. summary: Markdown, appended to an existing file. None: not written."""

    xml: Path | None = None
    summary: Path | None = None

    def begin(self, target: str) -> None:
        """Check that both can be written; if the gate is killed from now on, the XML says that it did not finish.

        StoreError if one cannot be written, RecipeError if both are the same file.
        """
        if self._same_file:
            raise RecipeError(f"--junit and --markdown both name {self.xml}")
        for path in (self.xml, self.summary):
            if path is not None:
                _write(path, "", "a")
        self._write_xml(GateVerdict(target, [Check("evaluation", "invalid", "the gate did not finish")], 0.0))

    def end(self, verdict: GateVerdict) -> list[str]:
        """Write both, only the XML if they are the same file; messages on what could not be written."""
        faults = []
        for action in (self._write_xml, self._add_summary):
            try:
                action(verdict)
            except StoreError as error:
                faults.append(str(error))
        return faults

    @property
    def _same_file(self) -> bool:
        return self.xml is not None and self.summary is not None and self.xml.resolve() == self.summary.resolve()

    def _write_xml(self, verdict: GateVerdict) -> None:
        if self.xml is not None:
            _write(self.xml, junit(verdict), "w")

    def _add_summary(self, verdict: GateVerdict) -> None:
        if self.summary is not None and not self._same_file:
            _write(self.summary, markdown(verdict), "a")


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None
