"""What raters said, counted for each image and class, with how often the same raters say it of other images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.errors import StoreError
from evofool.quiz.materials import OPTIONS
from evofool.quiz.names import Names
from evofool.quiz.raters import person, standing
from evofool.quiz.schema import CHOICE, Answer, Record, Trial

PRESETS = (5, 8, 13, 20)
"""The numbers of raters at which verdicts are derived. Looking after each rater would raise the errors."""


@dataclass(frozen=True)
class Tally:
    """Counts for images and K classes; arrays whose axes before the last, ..., may be any.

    uncoded: names that no rule matches and nobody has coded. offered: the choices that had the class among their options.
    named_base, chosen_base: how often the same raters give the class to images that are not of it. chance: of one option;
    names have to exceed it too, since with ten classes or fewer a name may be a guess as well.
    """

    raters: np.ndarray  # (...,) int64
    named: np.ndarray  # (..., K) int64, as are the other counts
    uncoded: np.ndarray  # (...,)
    chosen: np.ndarray  # (..., K)
    offered: np.ndarray  # (..., K)
    named_base: np.ndarray  # (..., K) float64
    chosen_base: np.ndarray  # (..., K)
    chance: float


@dataclass(frozen=True)
class Answers:
    """The answers of the raters that count, by image and by rater, each rater's first answer to an image.

    A rater who takes part twice is one rater. images: of elites. classes: those that each image was an elite of. names: by
    image, of each rater (by number, in the order in which their sessions ended), the classes named, None if uncoded;
    choices: the class chosen, and the options.
    """

    raters: tuple[str, ...]
    images: tuple[str, ...]
    classes: tuple[frozenset[int], ...]
    names: tuple[dict[int, frozenset[int] | None], ...]
    choices: tuple[dict[int, tuple[int, tuple[int, ...]]], ...]
    noise_names: tuple[tuple[int, frozenset[int] | None], ...]  # (rater, classes)
    noise_choices: tuple[tuple[int, int, tuple[int, ...]], ...]  # (rater, chosen, options)
    unread: tuple[str, ...]  # the different texts that wait for a code


def count_answers(records: Sequence[Record], names: Names) -> Answers:
    """The answers of those sessions that count, in the order in which these ended.

    StoreError for a session about classes that these labels do not have.
    """
    for record in records:
        asked = {c for trial in record.trials for c in (*trial.classes, *trial.options)}
        if max(asked, default=0) >= len(names.labels):
            raise StoreError(
                f"session {record.session.id} is about class {max(asked):,}, and there are {len(names.labels)} classes; it "
                "belongs to a run of another classifier"
            )
    ended = [(record.end.at, record.session.id, record) for record in records if record.end is not None]
    counted = [record for *_, record in sorted(ended, key=lambda item: item[:2]) if standing(record, names).counts]
    raters = {name: k for k, name in enumerate(dict.fromkeys(_person(record) for record in counted))}
    found: dict[str, tuple[set[int], dict[int, frozenset[int] | None], dict[int, tuple[int, tuple[int, ...]]]]] = {}
    noise_names, noise_choices = [], []
    for record in counted:
        rater = raters[_person(record)]
        for trial, answer in record.pairs:
            if trial.kind == "noise":
                if trial.block == CHOICE:
                    noise_choices.append((rater, answer.chosen, trial.options))
                else:
                    noise_names.append((rater, names.classes(answer.answer)))
            elif trial.kind == "elite":
                classes, named, chosen = found.setdefault(trial.image, (set(), {}, {}))
                classes.update(trial.classes)
                if trial.block == CHOICE:
                    chosen.setdefault(rater, (answer.chosen, trial.options))
                else:
                    named.setdefault(rater, names.classes(answer.answer))
    return Answers(
        raters=tuple(raters),
        images=tuple(found),
        classes=tuple(frozenset(classes) for classes, _, _ in found.values()),
        names=tuple(named for _, named, _ in found.values()),
        choices=tuple(chosen for *_, chosen in found.values()),
        noise_names=tuple(noise_names),
        noise_choices=tuple(noise_choices),
        unread=uncoded_texts(records, names),
    )


def uncoded_texts(records: Sequence[Record], names: Names) -> tuple[str, ...]:
    """The different texts of people who finished that nobody has coded, also of those who wait for that to count."""
    pairs = [pair for record in records if record.end is not None for pair in record.pairs]
    texts = (answer.answer for trial, answer in pairs if _is_uncoded(trial, answer, names))
    return tuple(sorted(dict.fromkeys(texts)))


def preset(raters: int) -> int:
    """The number of raters, of so many, whose answers a verdict is derived from: the largest of PRESETS, or 0."""
    return max((number for number in PRESETS if number <= raters), default=0)


def tally(answers: Answers, names: Names) -> Tally:
    """(I, K) counts of the answers' images, of the first raters of each: as many as `preset`, or all if there are fewer."""
    number, classes, raters = len(answers.images), len(names.labels), len(answers.raters)
    voters = np.zeros((number, raters), bool)
    named, chosen, offered = (np.zeros((number, classes), np.int64) for _ in range(3))
    uncoded = np.zeros(number, np.int64)
    others = _Others(raters, classes)
    for i, (own, by_name, by_choice) in enumerate(zip(answers.classes, answers.names, answers.choices, strict=True)):
        first = list(by_name)[: preset(len(by_name)) or len(by_name)]
        voters[i, first] = True
        for r, found in by_name.items():
            others.elite_name(r, found, own)
            if r in first:
                uncoded[i] += found is None
                named[i, list(found or ())] += 1
        for r, (choice, options) in by_choice.items():
            others.elite_choice(r, choice, options, own)
            if r in first:
                offered[i, list(options)] += 1
                if choice >= 0:
                    chosen[i, choice] += 1
    for r, found in answers.noise_names:
        others.noise_name(r, found)
    for r, choice, options in answers.noise_choices:
        others.noise_choice(r, choice, options)
    own_class = np.zeros((number, classes), bool)
    for i, own in enumerate(answers.classes):
        own_class[i, list(own)] = True
    chance = 1 / min(len(names.nameable), OPTIONS)
    count = voters.sum(axis=1)
    return Tally(
        raters=count,
        named=named,
        uncoded=uncoded,
        chosen=chosen,
        offered=offered,
        named_base=others.base(voters, "names", named, np.broadcast_to(count[:, None], named.shape), own_class, chance),
        chosen_base=others.base(voters, "choices", chosen, offered, own_class, chance),
        chance=chance,
    )


def base_rate(hits: np.ndarray, trials: np.ndarray, chance: float) -> np.ndarray:
    """How often raters give a class to images that are not of it, with one hit in 1 / chance trials added.

    So without any trial it is chance, and it is never 0.
    """
    return np.asarray((hits + 1) / (trials + 1 / chance))


class _Others:
    """By rater and class, how often the class was given to noise and to elites of other classes, of how many trials."""

    def __init__(self, raters: int, classes: int) -> None:
        self._hits = {key: np.zeros((raters, classes), np.int64) for key in _SOURCES}
        self._trials = {key: np.zeros((raters, classes), np.int64) for key in _SOURCES}

    def elite_name(self, rater: int, found: frozenset[int] | None, own: frozenset[int]) -> None:
        self._add("names", "elite", rater, found or frozenset(), None, own)

    def elite_choice(self, rater: int, choice: int, options: tuple[int, ...], own: frozenset[int]) -> None:
        self._add("choices", "elite", rater, frozenset({choice} - {-1}), options, own)

    def noise_name(self, rater: int, found: frozenset[int] | None) -> None:
        self._add("names", "noise", rater, found or frozenset(), None, frozenset())

    def noise_choice(self, rater: int, choice: int, options: tuple[int, ...]) -> None:
        self._add("choices", "noise", rater, frozenset({choice} - {-1}), options, frozenset())

    def _add(
        self,
        what: str,
        source: str,
        rater: int,
        found: frozenset[int],
        options: tuple[int, ...] | None,
        own: frozenset[int],
    ) -> None:
        trials = self._trials[what, source][rater]
        if options is None:
            trials += 1
            trials[list(own)] -= 1
        else:
            trials[[c for c in options if c not in own]] += 1
        self._hits[what, source][rater, list(found - own)] += 1

    def base(
        self, voters: np.ndarray, what: str, hits: np.ndarray, trials: np.ndarray, own: np.ndarray, chance: float
    ) -> np.ndarray:
        """(I, K): the larger rate of noise and of the other elites, of those who voted on the image.

        They are not pooled: who says nothing of noise and "8" of everything else would seem to say it half as often. hits,
        trials: of the image itself, which are not among its others.
        """
        rates = []
        for source in ("noise", "elite"):
            gave, of = (voters.astype(np.int64) @ counts[what, source] for counts in (self._hits, self._trials))
            if source == "elite":
                gave, of = gave - np.where(own, 0, hits), of - np.where(own, 0, trials)
            rates.append(base_rate(gave, of, chance))
        return np.maximum(*rates)


_SOURCES = [(what, source) for what in ("names", "choices") for source in ("noise", "elite")]


def _person(record: Record) -> str:
    """The same for two sessions of one rater."""
    return person(record.session.rater) or record.session.id


def _is_uncoded(trial: Trial, answer: Answer, names: Names) -> bool:
    return trial.block != CHOICE and names.classes(answer.answer) is None
