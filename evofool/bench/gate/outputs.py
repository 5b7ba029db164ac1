"""The files that a gate writes for CI systems: they are there from its first moment on."""

from dataclasses import dataclass
from pathlib import Path

from evofool.bench.gate.gate_verdict import Check, GateVerdict, junit, markdown
from evofool.errors import RecipeError, StoreError


@dataclass(frozen=True)
class GateOutputs:
    """xml: JUnit, written anew. summary: Markdown, which is added to what is there. None: not asked for."""

    xml: Path | None = None
    summary: Path | None = None

    def begin(self, target: str) -> None:
        """See that both can be written; whatever kills the gate from now on, the XML says that it came to no end.

        StoreError if one cannot be written, RecipeError if both are one.
        """
        if self._one:
            raise RecipeError(f"--junit and --markdown both name {self.xml}")
        for path in (self.xml, self.summary):
            if path is not None:
                _write(path, "", "a")
        self._write_xml(GateVerdict(target, [Check("evaluation", "invalid", "the gate did not come to its end")], 0.0))

    def end(self, verdict: GateVerdict) -> list[str]:
        """Write both, the XML alone where they are one; in words, what could not be."""
        faults = []
        for action in (self._write_xml, self._add_summary):
            try:
                action(verdict)
            except StoreError as error:
                faults.append(str(error))
        return faults

    @property
    def _one(self) -> bool:
        return self.xml is not None and self.summary is not None and self.xml.resolve() == self.summary.resolve()

    def _write_xml(self, verdict: GateVerdict) -> None:
        if self.xml is not None:
            _write(self.xml, junit(verdict), "w")

    def _add_summary(self, verdict: GateVerdict) -> None:
        if self.summary is not None and not self._one:
            _write(self.summary, markdown(verdict), "a")


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None
