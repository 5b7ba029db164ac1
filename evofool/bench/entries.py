"""The classifiers of a benchmark, each under its own name; those that the benchmark trains are trained first."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evofool.bench.plan import BenchRecipe, TargetPart
from evofool.errors import Interrupted

NETWORKS = "networks"


@dataclass(frozen=True)
class Entry:
    """One classifier of a benchmark. defence, copy, epochs: of one that is trained, else "", 0 and 0.

    stated_defence: what the recipe says of the defence, for results.
    """

    name: str
    spec: str
    group: str = ""
    defends: str = ""
    top1: float | None = None
    defence: str = ""
    copy: int = 0
    epochs: int = 0
    stated_defence: str = ""


def entries(recipe: BenchRecipe, folder: Path, pinned: Mapping[str, str] | None = None) -> list[Entry]:
    """All classifiers of a recipe, in its order, under different names: of equal names the later ones get -2, -3 ... added.

    pinned: the specs by name of targets that have cells. They keep these names whatever other targets are added or removed;
    a name from the recipe is always kept.
    """
    defended = {part.defends for part in recipe.targets}
    unnamed = [(part, entry) for part in recipe.targets for entry in _of_part(part, folder, defended)]
    given = {entry.name for part, entry in unnamed if _is_named(part)}
    found: dict[str, Entry] = {}
    for part, entry in unnamed:
        reserved = () if _is_named(part) else {*(pinned or {}), *given}
        name = _free_name(entry, found, pinned or {}, reserved)
        found[name] = replace(entry, name=name)
    return list(found.values())


def _is_named(part: TargetPart) -> bool:
    """Whether the recipe itself gives the name."""
    return part.target is None or bool(part.name)


def weights_file(entry: Entry, folder: Path) -> Path:
    """The weights file of a classifier that is trained, in a folder of its own."""
    return folder / NETWORKS / f"{entry.defence}-{entry.copy}-{entry.epochs}" / f"{entry.defence}-{entry.copy}.safetensors"


def train(job: Mapping[str, Any], on_progress: Callable[[Mapping[str, Any]], bool] = lambda report: False) -> str | None:
    """Train one network, unless its file exists; its path. job has folder, defence, copy and epochs.

    None if on_progress returned True, which interrupts the training.
    """
    from evofool.bench.retraining.training import trained

    def report(done: int, epochs: int) -> None:
        if on_progress({"done": done}):
            raise Interrupted

    try:
        return str(trained(Path(job["folder"]), job["defence"], job["copy"], epochs=job["epochs"], progress=report))
    except Interrupted:
        return None


def training_jobs(listed: Collection[Entry], folder: Path) -> list[dict[str, Any]]:
    """The jobs of `train`, for the entries whose networks are not there yet."""
    return [
        {
            "folder": str(weights_file(entry, folder).parent),
            "defence": entry.defence,
            "copy": entry.copy,
            "epochs": entry.epochs,
        }
        for entry in listed
        if entry.defence and not weights_file(entry, folder).is_file()
    ]


def _of_part(part: TargetPart, folder: Path, defended: Collection[str]) -> list[Entry]:
    """The entries of a part, with the names that they would have without the other parts."""
    if part.target is not None:
        # A single target is in no group, unless it is compared as one.
        group = part.group or (part.family if part.defends or part.family in defended else "")
        return [Entry(part.called, part.target, group, part.defends, part.top1, stated_defence=part.defence)]
    assert part.train is not None
    trained = [
        Entry(f"{part.called}-{k + 1}", "", part.family, part.defends, part.top1, part.train, k, part.each_epochs)
        for k in range(part.copies)
    ]
    return [
        replace(entry, spec=f"lenet?weights={weights_file(entry, folder).absolute()}", stated_defence=part.defence)
        for entry in trained
    ]


def _free_name(entry: Entry, taken: Collection[str], pinned: Mapping[str, str], reserved: Collection[str]) -> str:
    """The first free name that is pinned to this spec; else the first free one that is not reserved."""
    names = [entry.name, *(f"{entry.name}-{k}" for k in range(2, len(taken) + len(reserved) + 2))]
    free = [name for name in names if name not in taken]
    before = [name for name in free if pinned.get(name) == entry.spec]
    return (before + [name for name in free if name not in reserved])[0]
