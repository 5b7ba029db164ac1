"""The classifiers of a benchmark, each under a name of its own; those that it trains are trained first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from evofool.bench.plan import BenchRecipe, TargetPart
from evofool.export import file_name

NETWORKS = "networks"


@dataclass(frozen=True)
class Entry:
    """A row of a benchmark: one classifier. defence and copy: of one that is trained, else "" and 0."""

    name: str
    spec: str
    group: str = ""
    defends: str = ""
    top1: float | None = None
    defence: str = ""
    copy: int = 0
    epochs: int | None = None


def entries(recipe: BenchRecipe, folder: Path) -> list[Entry]:
    """All of a recipe's, in its order. Their names are different: of equal ones the later have -2, -3 ... added."""
    named: dict[str, Entry] = {}
    for entry in (entry for part in recipe.targets for entry in _of(part, folder)):
        names = (entry.name if k == 1 else f"{entry.name}-{k}" for k in count(1))
        name = next(name for name in names if name not in named)
        named[name] = replace(entry, name=name)
    return list(named.values())


def network(entry: Entry, folder: Path) -> Path:
    """The weights file of a classifier that is trained."""
    name = f"{entry.defence}-{entry.copy}"
    return folder / NETWORKS / name / f"{name}.safetensors"


def train(job: Mapping[str, Any], say: Callable[[Mapping[str, Any]], bool] = lambda told: False) -> str:
    """Train one, unless its file is there: job has folder, defence, copy and epochs."""
    from evofool.bench.retraining.training import trained

    say({"training": job["defence"]})
    return str(trained(Path(job["folder"]), job["defence"], job["copy"], epochs=job["epochs"]))


def _of(part: TargetPart, folder: Path) -> list[Entry]:
    if part.target is not None:
        name = part.name or file_name(part.target.partition("?")[0]).lower()
        return [Entry(name, part.target, part.group, part.defends, part.top1)]
    assert part.train is not None
    name = part.name or part.train
    trained = [
        Entry(f"{name}-{copy + 1}", "", part.group or name, part.defends, part.top1, part.train, copy, part.epochs)
        for copy in range(part.copies)
    ]
    return [replace(one, spec=f"lenet?weights={network(one, folder).absolute()}") for one in trained]
