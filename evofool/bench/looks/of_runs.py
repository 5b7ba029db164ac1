"""Runs whose elites' images are looked at: what they come to is kept in the run, and read back of many."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.looks.looks import AT_ONCE, PIXELS, Looks
from evofool.errors import ImageError, TargetError
from evofool.images import decode_png
from evofool.run.store import EliteRow, Measure, Store
from evofool.run.stored import StoredRun
from evofool.targets import Target


def judge_run(folder: Path, looks: Looks, say: Callable[[str], None] | None = None) -> int:
    """Write into a run what its elites' images look like; returns how many of them were looked at.

    An elite that has all the figures, against the same real images, is passed over. Figures of one elite rest on one set of
    real images: those against others go, also of a space that is not looked at now. The run is locked meanwhile, as by any
    that writes it; what has been written is kept if it is broken off. TargetError if the network of the features is the
    one that the run attacked, ImageError if the images are of another shape.
    """
    with Store.open(folder, write=True) as store:
        with StoredRun(folder) as stored:
            if stored.shape != looks.shape:
                raise ImageError(f"{folder} has images of shape {stored.shape}, and these real ones are {looks.shape}")
            fingerprint = stored.meta["target"]["fingerprint"]
            if looks.network is not None and looks.network.fingerprint() == fingerprint:
                raise TargetError(
                    f"{looks.network.name}: that is the network that {folder} attacked; features have to be another one's"
                )
            rows = [elite.row for elite in stored.elites()]
        known = store.references()
        wanted = {(name, looks.references.get(name, "")) for name in looks.names if name != "bytes_per_pixel"}
        stale = {row.cell: [m.name for m in row.measures if _rests_on_others(m, looks, known)] for row in rows}
        todo = [row for row in rows if stale[row.cell] or not wanted <= {(m.name, m.reference) for m in row.measures}]
        cells: dict[bytes, list[int]] = {}  # by picture: one that holds many cells is looked at once
        for row in todo:
            cells.setdefault(row.png, []).append(row.cell)
        pictures = list(cells)
        for begin in range(0, len(pictures), AT_ONCE):
            part = pictures[begin : begin + AT_ONCE]
            figures = looks(np.stack([decode_png(png, f"{folder}, cell {cells[png][0]}") for png in part]))
            store.measure(
                [
                    (cell, Measure(name, float(figures[name][k]), reference))
                    for k, png in enumerate(part)
                    for cell in cells[png]
                    for name, reference in sorted(wanted)
                ],
                looks.told,
                [(cell, name) for png in part for cell in cells[png] for name in stale[cell]],
            )
            if say:
                say(f"{begin + len(part):,} of {len(pictures):,} images of {folder}")
        return len(todo)


def replaced_by(folder: Path, looks: Looks) -> list[dict[str, Any]]:
    """What judge_run would replace: by the references of the figures that rest on other real images, what they stand for."""
    with StoredRun(folder) as stored:
        known = stored.store.references()
        rows = [elite.row for elite in stored.elites()]
    keys = {m.reference for row in rows for m in row.measures if _rests_on_others(m, looks, known)}
    return [what for key, what in known.items() if key in keys]


def _rests_on_others(measure: Measure, looks: Looks, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a figure compares with real images that are not those of looks."""
    of = known.get(measure.reference, {}).get("real", measure.reference)
    return bool(measure.reference) and of != looks.references[PIXELS]


def seen_by(stored: StoredRun) -> Target:
    """What a run's classifier takes as an image, so that real ones can be read as it sees them; it cannot be asked."""

    def unasked(images: np.ndarray) -> np.ndarray:
        raise TargetError(f"{stored.folder}: its classifier is not loaded, and is asked nothing")

    told = stored.meta["target"]
    return Target(told["name"], stored.labels, stored.shape, unasked, told["details"])


def of_runs(folders: Iterable[Path]) -> dict[str, np.ndarray]:
    """By name (n,) float64, the figures that are stored of runs' elites; those that were not measured are left out."""
    found: dict[str, list[float]] = {}
    for folder in folders:
        with StoredRun(folder) as stored:
            for row in (elite.row for elite in stored.elites()):
                for name, value in figures_of(row).items():
                    found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def figures_of(row: EliteRow) -> dict[str, float]:
    """What is stored of an elite's image, by name."""
    return {**{m.name: m.value for m in row.measures}, "bytes_per_pixel": row.bytes_per_pixel}
