"""The job of a cell of a benchmark, in values that can be sent to a worker and stored in the cell's folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evofool.ascend.approximation import GradientSource


class JobSurrogate(NamedTuple):
    """A network whose gradients the arm `surrogate` uses: a spec, and the fingerprint that it has to have."""

    spec: str
    fingerprint: str


@dataclass(frozen=True)
class CellJob:
    """One cell: a target, an arm and a seed, and the folder that its run is written to.

    target: a spec. fingerprint: of that target, "" if it is not checked. queries: the budget of all classes together.
    classes: the numbers of the classes that are attacked, ascending. changes: --set of the arm. format: the number format
    that a search ranks by. rank: "margin" or "log_odds". surrogates: of the arm of that name, none for the others.
    gradients: what a white-box arm climbs instead of the target's own. features: the file of real_features.RealFeatures
    that images are compared with, "" if there is none. queries_per_image: of the target.
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
    surrogates: tuple[JobSurrogate, ...] = ()
    gradients: GradientSource | None = None
    features: str = ""
    queries_per_image: int = 1

    @property
    def images(self) -> int:
        """How many images the budget is enough for."""
        return self.queries // self.queries_per_image

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "CellJob":
        """The job that to_dict has written."""
        tuples = {"classes": tuple(record["classes"]), "changes": tuple(record["changes"])}
        surrogates = tuple(JobSurrogate(*network) for network in record.get("surrogates", ()))
        gradients = GradientSource(**record["gradients"]) if record.get("gradients") else None
        networks = {"surrogates": surrogates, "gradients": gradients}
        return cls(**{**record, **tuples, **networks, "folder": Path(record["folder"])})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and other processes."""
        lists = {
            "classes": list(self.classes),
            "changes": list(self.changes),
            "surrogates": list(map(list, self.surrogates)),
        }
        return asdict(self) | {"folder": str(self.folder)} | lists

    @property
    def identity(self) -> dict[str, Any]:
        """The part that a cell's results depend on: all but the folder and how networks and files are addressed."""
        unset = ["gradients"] * (self.gradients is None) + ["queries_per_image"] * (self.queries_per_image == 1)
        unnamed = "folder", "target", "surrogates", "features", *unset
        own = {key: value for key, value in self.to_dict().items() if key not in unnamed}
        return own | ({"surrogates": [network.fingerprint for network in self.surrogates]} if self.surrogates else {})
