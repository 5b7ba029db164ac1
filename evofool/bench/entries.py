"""The classifiers of a benchmark, each under a name of its own; those that it trains are trained first."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evofool.bench.plan import BenchRecipe, TargetPart
from evofool.errors import Interrupted

NETWORKS = "networks"


@dataclass(frozen=True)
class Entry:
    """A row of a benchmark: one classifier. defence, copy, epochs: of one that is trained, else "", 0 and 0."""

    name: str
    spec: str
    group: str = ""
    defends: str = ""
    top1: float | None = None
    defence: str = ""
    copy: int = 0
    epochs: int = 0


def entries(recipe: BenchRecipe, folder: Path, pinned: Mapping[str, str] | None = None) -> list[Entry]:
    """All of a recipe's, in its order, under different names: of equal ones the later have -2, -3 ... added.

    pinned: the specs by name of targets that have cells. They keep these names whatever else goes or comes; a name that the
    recipe itself gives stands, whoever had it before.
    """
    judged = {part.defends for part in recipe.targets}
    alone = [(part, entry) for part in recipe.targets for entry in _of(part, folder, judged)]
    given = {entry.name for part, entry in alone if _is_named(part)}
    found: dict[str, Entry] = {}
    for part, entry in alone:
        others = () if _is_named(part) else {*(pinned or {}), *given}
        name = _name(entry, found, pinned or {}, others)
        found[name] = replace(entry, name=name)
    return list(found.values())


def _is_named(part: TargetPart) -> bool:
    """Whether the recipe itself gives the name."""
    return part.target is None or bool(part.name)


def network(entry: Entry, folder: Path) -> Path:
    """The weights file of a classifier that is trained, in a folder of its own."""
    return folder / NETWORKS / f"{entry.defence}-{entry.copy}-{entry.epochs}" / f"{entry.defence}-{entry.copy}.safetensors"


def train(job: Mapping[str, Any], on_progress: Callable[[Mapping[str, Any]], bool] = lambda told: False) -> str | None:
    """Train one, unless its file is there: job has folder, defence, copy and epochs. None if interrupted."""
    from evofool.bench.retraining.training import trained

    def heed(done: int, epochs: int) -> None:
        if on_progress({"training": job["defence"], "epochs": done}):
            raise Interrupted

    try:
        return str(trained(Path(job["folder"]), job["defence"], job["copy"], epochs=job["epochs"], progress=heed))
    except Interrupted:
        return None


def _of(part: TargetPart, folder: Path, judged: Collection[str]) -> list[Entry]:
    """The entries of a part, named as they would be if they were alone."""
    if part.target is not None:
        # One that is alone is in no group, unless it is compared as one.
        group = part.group or (part.family if part.defends or part.family in judged else "")
        return [Entry(part.called, part.target, group, part.defends, part.top1)]
    assert part.train is not None
    trained = [
        Entry(f"{part.called}-{k + 1}", "", part.family, part.defends, part.top1, part.train, k, part.each_epochs)
        for k in range(part.copies)
    ]
    return [replace(one, spec=f"lenet?weights={network(one, folder).absolute()}") for one in trained]


def _name(entry: Entry, taken: Collection[str], pinned: Mapping[str, str], others: Collection[str]) -> str:
    """The first free name that the spec had before; else the first that is not one of others."""
    names = [entry.name, *(f"{entry.name}-{k}" for k in range(2, len(taken) + len(others) + 2))]
    free = [name for name in names if name not in taken]
    own = [name for name in free if pinned.get(name) == entry.spec]
    return (own + [name for name in free if name not in others])[0]
