"""Statements of docs/findings.md: the interval of a number, and whether it lies on the stated side of a limit."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from evofool.printer import print_lines
from evofool.recipe import Recipe
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target

UNDEFENDED = tuple(f"undefended-{k}" for k in range(1, 6))
DEFENDED = tuple(f"defended-{k}" for k in range(1, 6))
FOOLS = 0.99


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

    values: one for each network or seed. above, below: the limit; one of them is given. shown: from the scale of values and
    limit to the one that is printed, ascending, for example math.exp for logarithms.
    """
    if (above is None) == (below is None):
        raise ValueError("give one limit")
    mean, low, high = interval(values)
    limit = above if below is None else below
    assert limit is not None
    on_side, on_other = (low > limit, high <= limit) if below is None else (high < limit, low >= limit)
    verdict = "held" if on_side else "refuted" if on_other else "not shown"
    a, b, c, d = (shown(value) for value in (mean, low, high, limit))
    side = "above" if below is None else "below"
    each = ", ".join(f"{shown(value):.3g}" for value in values)
    print_lines(f"{number}. {what}: {a:.3g} [{b:.3g}, {c:.3g}], stated {side} {d:.3g}: {verdict.upper()} ({each})")
    return verdict
