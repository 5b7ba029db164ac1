"""The job of a cell of a benchmark, in values that can be sent to a worker and stored in the cell's folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CellJob:
    """One cell: a target, an arm and a seed, and the folder that its run is written to.

    target: a spec. fingerprint: of that target, "" if it is not checked. queries: the budget of all classes together.
    classes: the numbers of the classes that are attacked, ascending. changes: --set of the arm. format: the number format
    that a search ranks by. rank: "margin" or "log_odds".
    """

    folder: Path
    target: str
    arm: str
    seed: int
    queries: int
    classes: tuple[int, ...]
    changes: tuple[str, ...] = ()
    format: str = "float32"
    rank: str = "margin"
    fingerprint: str = ""

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "CellJob":
        """The job that to_dict has written."""
        tuples = {"classes": tuple(record["classes"]), "changes": tuple(record["changes"])}
        return cls(**{**record, **tuples, "folder": Path(record["folder"])})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and other processes."""
        return asdict(self) | {"folder": str(self.folder), "classes": list(self.classes), "changes": list(self.changes)}

    @property
    def identity(self) -> dict[str, Any]:
        """The part that a cell's results depend on: all but the folder and how the target is addressed."""
        return {key: value for key, value in self.to_dict().items() if key not in ("folder", "target")}
