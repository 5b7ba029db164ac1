"""What the scripts of findings share: images and networks of a built set, searches, tables, and verdicts on statements."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from evofool.bench.cell import run_cell
from evofool.bench.cell_job import CellJob
from evofool.bench.manifest import CELLS
from evofool.errors import StoreError
from evofool.fooling_set.prepare import RANK
from evofool.printer import print_lines
from evofool.recipe import Recipe
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.scores import confidence, log_odds
from evofool.targets import Target

UNDEFENDED = tuple(f"undefended-{k}" for k in range(1, 6))
DEFENDED = tuple(f"defended-{k}" for k in range(1, 6))
FOOLS = 0.99
ENCODINGS = ("direct", "cppn", "canvas", "latent")
ATTACKS = ("apgd", "fourier")
ARMS = (*ENCODINGS, *ATTACKS)
"""Those of the digits in the set."""
SEEDS = range(3)
"""Those of the cells of the set."""


class Images(NamedTuple):
    """Images of runs. pixels: uint8 (n, C, H, W). classes: int64 (n,), those that they were made for. own: float64 (n,), the
    confidence in these by the classifier that they were made for.
    """

    pixels: np.ndarray
    classes: np.ndarray
    own: np.ndarray

    def fooling(self) -> "Images":
        """Those that fool their own classifier."""
        return Images(*(part[self.own >= FOOLS] for part in self))


def elites(folders: Iterable[Path]) -> Images:
    """The elites of runs, one run after the other, each by class."""
    found = []
    for folder in folders:
        with StoredRun(folder) as stored:
            found += [(elite.image, elite.row.class_id, elite.confidence) for elite in stored.elites()]
    pixels, classes, own = zip(*found, strict=True)
    return Images(np.stack(pixels), np.array(classes, np.int64), np.array(own, np.float64))


def cells_of(built: Path, names: Iterable[str], arms: Iterable[str], seeds: Iterable[int] = SEEDS) -> list[Path]:
    """The folders of the set's runs of these classifiers by these arms. built: the folder of `evofool set build`."""
    return [built / CELLS / name / f"{arm}-{seed}" for name in names for arm in arms for seed in seeds]


def network_of(built: Path, name: str) -> Target:
    """The classifier that a name of the set stands for. TargetError if its cells were made for another one."""
    (folder,) = cells_of(built, [name], ["cppn"], [0])
    with StoredRun(folder) as stored:
        return stored.own_target()


def confidences(target: Target, images: Images) -> np.ndarray:
    """float64 (n,), n >= 1: the target's confidence in the class that each image was made for."""
    parts = [target.logits(images.pixels[at : at + 256]) for at in range(0, len(images.pixels), 256)]
    found = log_odds(np.concatenate(parts), target.multilabel)
    return np.asarray(confidence(found[np.arange(len(found)), images.classes]))


def share_fooled(target: Target, images: Images) -> float:
    """The share of images that the target gives a confidence of FOOLS or more in the class that they were made for.

    NaN of no images.
    """
    return float((confidences(target, images) >= FOOLS).mean()) if len(images.own) else np.nan


def search_as_cell(target: Target, arm: str, seed: int, folder: Path, queries: int = 3_000) -> Path:
    """Search for all classes as the set does for a cell, unless the folder has this very search; the folder.

    StoreError if its images do not score what was stored.
    """
    every, fingerprint = tuple(range(len(target.labels))), target.fingerprint()
    job = CellJob(folder.absolute(), target.name, arm, seed, queries, every, rank=RANK, fingerprint=fingerprint)
    record = run_cell(job.to_dict())
    if record is None or record["faults"]:
        raise StoreError(f"{folder}: {'; '.join(record['faults']) if record else 'interrupted'}")
    return folder


def reached(folder: Path) -> int:
    """The number of classes of which a run has an image that fools its classifier."""
    with StoredRun(folder) as stored:
        return sum(elite.confidence >= FOOLS for elite in stored.listed())


def print_table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Print a Markdown table, numbers to the right. head: of all columns, also that of the rows' names."""
    print_lines("", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}")
    print_lines(*(f"| {' | '.join((name, *cells))} |" for name, cells in rows.items()), "")


def search(recipe: Recipe, folder: Path, target: Target) -> None:
    """Run a recipe in a folder to its end; a run that is there is continued, and left as it is if it has ended."""
    if not (folder / "run.db").exists():
        opened = Run.start(recipe, folder, target)
    else:
        with StoredRun(folder) as stored:
            if stored.meta.finished:
                return
        opened = Run.resume(folder, recipe, target, trust=True)
    with opened as run:
        run.advance()


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of n >= 2 independent values, and the limits of Student's t interval for it; of equal values, no width."""
    found = np.asarray(values, np.float64)
    half = student.ppf((1 + confidence) / 2, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return float(found.mean()), float(found.mean() - half), float(found.mean() + half)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments `set` and `out` that most of these scripts have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="the folder in which the set is built")
    parser.add_argument("out", type=Path, help="a folder for runs; those that it has are not made again")
    return parser


def judge(
    number: int,
    what: str,
    values: Sequence[float],
    *,
    above: float | None = None,
    below: float | None = None,
    shown: Callable[[float], float] = float,
) -> str:
    """Print the interval of a statement's number and its verdict, which is returned: held, refuted or not shown.

    values: one for each network or seed. above, below: the limit; one of them is given. An interval that contains the limit,
    or is nothing but the limit, shows nothing; nor does NaN. shown: from the scale of values and limit to the one that is
    printed, ascending, for example math.exp for logarithms.
    """
    if (above is None) == (below is None):
        raise ValueError("give one limit")
    mean, low, high = interval(values)
    limit = above if below is None else below
    assert limit is not None
    on_side, on_other = (low > limit, high < limit) if below is None else (high < limit, low > limit)
    verdict = "held" if on_side else "refuted" if on_other else "not shown"
    a, b, c, d = (shown(value) for value in (mean, low, high, limit))
    side = "above" if below is None else "below"
    each = ", ".join(f"{shown(value):.3g}" for value in values)
    print_lines(f"{number}. {what}: {a:.3g} [{b:.3g}, {c:.3g}], stated {side} {d:.3g}: {verdict.upper()} ({each})")
    return verdict
