"""Simulated raters: functions that answer a quiz, for tests of the protocol. What they answer is no verdict of people.

Their sessions are of kind "simulated", and a store keeps them in a file of their own (evofool/quiz/store.py).
"""

from collections.abc import Sequence
from typing import Literal, get_args

from evofool.quiz.materials import permutation
from evofool.quiz.names import Names
from evofool.quiz.schema import CHOICE, NOTHING_OF_THESE, Answer, Trial
from genomes.random import Key, integers

Kind = Literal["perfect", "sees nothing", "random", "always 8", "8 for elites", "lazy"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""perfect: gives every image its class, noise none. sees nothing: the same for real images, and nothing for any other.
random: some class for everything. always 8: the class 8, or the last one, for everything. 8 for elites: passes the checks,
because only elites get an 8. lazy: as random, within 300 ms."""

_SLOW_MS, _FAST_MS = 1500.0, 120.0


def answers(kind: Kind, trials: Sequence[Trial], names: Names, seed: int, began: float = 0.0) -> list[Answer]:
    """The answers of one simulated rater to all trials, in order; the same for the same seed. began: seconds since 1970."""
    found, at = [], began
    for trial in trials:
        rt_ms = (_FAST_MS if kind == "lazy" else _SLOW_MS) + float(integers(Key(seed, trial.n, 1), 100, 1)[0])
        at += rt_ms / 1000
        seen = _seen(kind, trial, names, Key(seed, trial.n, 0))
        if trial.block == CHOICE:
            found.append(Answer(n=trial.n, chosen=NOTHING_OF_THESE if seen is None else seen, rt_ms=rt_ms, at=at))
        else:
            found.append(Answer(n=trial.n, answer="" if seen is None else names.labels[seen], rt_ms=rt_ms, at=at))
    return found


def _seen(kind: Kind, trial: Trial, names: Names, key: Key) -> int | None:
    """The class that the rater gives to an image; None for nothing."""
    classes = list(trial.options) or list(names.nameable)
    shown = [c for c in trial.classes if c in classes]
    eight = names.labels.index("8") if "8" in names.labels else names.nameable[-1]
    eight_if_offered = eight if eight in classes else None
    elite = trial.kind in ("elite", "repeat")
    if kind in ("random", "lazy"):
        return classes[permutation(key, len(classes))[0]]
    if kind == "always 8" or (kind == "8 for elites" and elite):
        return eight_if_offered
    if kind == "sees nothing" and elite:
        return None
    return shown[0] if shown else None
