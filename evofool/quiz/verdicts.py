"""What people see in an image, as it follows from their answers: recognised, taken for another class, unrecognised, or open.

Verdicts are derived, for a pair of image and class, and never stored or typed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from evofool.quiz.bounds import below, exceeds, lower_bound, upper_bound
from evofool.quiz.names import Names
from evofool.quiz.tally import PRESETS, Answers, Tally, tally

ALPHA = 0.05
"""The most false verdicts of each kind, by image, at a preset number of raters."""
LOOK_LEVEL = ALPHA / 4
"""Of a test for recognition: ALPHA / 2, since names and choices are both looked at, and half of that, which keeps the error
near ALPHA over all four looks at PRESETS together. At chance 0.1 it asks for as many hits as ALPHA / 2 does."""
UNRECOGNISED_BELOW = 0.25
"""The share of people who would name the class, or would choose it without guessing."""


VERDICT_COLUMNS = {
    "verdict": "string",
    "verdict_raters": "int64",
    "verdict_named": "int64",
    "verdict_chosen": "int64",
    "verdict_offered": "int64",
}
"""The columns of tables that say what people see, with their types; empty of an image that nobody was asked about."""


class Word(IntEnum):
    OPEN = 0
    RECOGNISED = 1
    TAKEN = 2
    UNRECOGNISED = 3


@dataclass(frozen=True)
class Verdict:
    """Of an image as one class: the counts that it was derived from, and what it would take if it is open.

    raters: those counted, the first ones in the order in which they ended; answered: all that answered. taken_for: classes,
    the most often given first. named, chosen: as the class, of `raters` and of `offered`. named_base, chosen_base: how often
    the same raters give the class to images that are not of it.
    """

    image: str
    class_id: int
    word: Word
    taken_for: tuple[int, ...]
    raters: int
    answered: int
    named: int
    uncoded: int
    chosen: int
    offered: int
    named_base: float
    chosen_base: float
    chance: float

    def text(self, labels: Sequence[str]) -> str:
        """As in "recognised", "taken for 8", "unrecognised (under 25% of people)", "open"."""
        if self.word is Word.TAKEN:
            return f"taken for {' or '.join(labels[c] for c in self.taken_for)}"
        return {
            Word.RECOGNISED: "recognised",
            Word.UNRECOGNISED: f"unrecognised (under {UNRECOGNISED_BELOW:.0%} of people)",
            Word.OPEN: "open",
        }[self.word]

    def counts(self) -> str:
        """As in "named by 3 of 5, chosen by 4 of 5"."""
        uncoded = f" ({self.uncoded} to be coded)" if self.uncoded else ""
        return f"named by {self.named} of {self.raters}{uncoded}, chosen by {self.chosen} of {self.offered}"

    def with_counts(self, labels: Sequence[str]) -> str:
        """As in "recognised: named by 3 of 5, chosen by 4 of 5"."""
        return f"{self.text(labels)}: {self.counts()}"

    def missing(self) -> str:
        """What an open verdict lacks; "" for another one."""
        if self.word is not Word.OPEN:
            return ""
        more = [number for number in PRESETS if number > self.answered]
        if self.uncoded and self.answered >= PRESETS[0]:
            return f"{self.uncoded} of its names have to be coded"
        return f"{more[0] - self.answered} more raters" if more else f"{PRESETS[-1]} raters do not agree"

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """Plain values, for JSON. The bounds are one-sided, at 95%."""
        return {
            "image": self.image,
            "class": self.class_id,
            "label": labels[self.class_id],
            "verdict": self.word.name.lower() if self.word is not Word.TAKEN else "taken for",
            "taken_for": [labels[c] for c in self.taken_for],
            "raters": self.raters,
            "answered": self.answered,
            "named": self.named,
            "named_low": lower_bound(self.named, self.raters, ALPHA),
            "named_high": upper_bound(self.named + self.uncoded, self.raters, ALPHA),
            "named_base": self.named_base,
            "uncoded": self.uncoded,
            "chosen": self.chosen,
            "offered": self.offered,
            "chosen_low": lower_bound(self.chosen, self.offered, ALPHA),
            "chosen_high": upper_bound(self.chosen, self.offered, ALPHA),
            "chosen_base": self.chosen_base,
            "chance": self.chance,
            "missing": self.missing(),
        }


def verdict_columns(verdict: Verdict | None, labels: Sequence[str]) -> dict[str, Any]:
    """VERDICT_COLUMNS of a table's row; all None for None."""
    if verdict is None:
        return dict.fromkeys(VERDICT_COLUMNS)
    values = verdict.text(labels), verdict.raters, verdict.named, verdict.chosen, verdict.offered
    return dict(zip(VERDICT_COLUMNS, values, strict=True))


def words(t: Tally) -> np.ndarray:
    """(..., K) int64 of Word: what is to be said of each image as an elite of each class.

    Recognised: more people name it so, or choose it, than chance and than the same raters give this class to other images.
    Taken for another class: the same for that, at a level divided by the number of other classes. Unrecognised: both the
    names and the choices are significantly fewer than UNRECOGNISED_BELOW of people would give, also if every uncoded name
    were the class. A choice is guessed by those who see nothing. In this order: who takes an image for something else
    recognises something.
    """
    own, taken = seen(t, LOOK_LEVEL), seen_as_another(t)
    some_other = (taken.sum(axis=-1, keepdims=True) - taken) > 0
    share, least = UNRECOGNISED_BELOW, UNRECOGNISED_BELOW + (1 - UNRECOGNISED_BELOW) * t.chance
    enough = (t.raters >= PRESETS[0])[..., None]
    fewer = below(t.named + t.uncoded[..., None], t.raters[..., None], share, ALPHA)
    fewer &= below(t.chosen, t.offered, least, ALPHA) & enough
    return np.select([own, some_other, fewer], [Word.RECOGNISED, Word.TAKEN, Word.UNRECOGNISED], Word.OPEN)


def seen(t: Tally, level: float) -> np.ndarray:
    """(..., K) bool: which classes people see in an image, each test of names and of choices at this level."""
    named = exceeds(t.named, t.raters[..., None], np.maximum(t.named_base, t.chance), level)
    chosen = exceeds(t.chosen, t.offered, np.maximum(t.chosen_base, t.chance), level)
    return np.asarray((named | chosen) & (t.raters >= PRESETS[0])[..., None])


def seen_as_another(t: Tally) -> np.ndarray:
    """(..., K) bool: the classes that an image is taken for, unless it is an elite of them."""
    return seen(t, LOOK_LEVEL / max(1, t.named.shape[-1] - 1))


def derive(answers: Answers, names: Names) -> dict[tuple[str, int], Verdict]:
    """By image and class, the verdict on every image that was shown, as one of the classes that it was an elite of."""
    return {
        (verdict.image, verdict.class_id): verdict
        for verdict in judged(answers, names, {i: sorted(own) for i, own in enumerate(answers.classes)})
    }


def judged(answers: Answers, names: Names, classes: Mapping[int, Sequence[int]]) -> list[Verdict]:
    """The verdicts on images, by number, as these classes. Names belong to the image: they count for whatever it holds."""
    t = tally(answers, names)
    word, taken = words(t), seen_as_another(t)
    found = list[Verdict]()
    for i, wanted in classes.items():
        for c in wanted:
            given = (t.named + t.chosen)[i]
            others = sorted((int(d) for d in np.flatnonzero(taken[i]) if d != c), key=lambda d: (-given[d], d))
            found.append(
                Verdict(
                    image=answers.images[i],
                    class_id=c,
                    word=Word(int(word[i, c])),
                    taken_for=tuple(others) if word[i, c] == Word.TAKEN else (),
                    raters=int(t.raters[i]),
                    answered=len(answers.names[i]),
                    named=int(t.named[i, c]),
                    uncoded=int(t.uncoded[i]),
                    chosen=int(t.chosen[i, c]),
                    offered=int(t.offered[i, c]),
                    named_base=float(t.named_base[i, c]),
                    chosen_base=float(t.chosen_base[i, c]),
                    chance=t.chance,
                )
            )
    return found
