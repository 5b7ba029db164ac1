"""What people see in a whole archive: the share that they recognise, beside what shuffled classes give."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from evofool.quiz.bounds import above_chance, sensitivity, sensitivity_of_choice, t_interval, wilson
from evofool.quiz.dawid_skene import Estimate, agreement, estimate
from evofool.quiz.materials import OPTIONS, permutation
from evofool.quiz.names import Names
from evofool.quiz.tally import PRESETS, Answers
from evofool.quiz.verdicts import ALPHA, Verdict, Word
from genomes.random import Key

SHUFFLES = 999
_SHUFFLE = Key(seed=2015, batch=0)
RATERS_FOR_INTERVAL = 5


def archive_summary(verdicts: Sequence[Verdict], answers: Answers, names: Names) -> dict[str, Any]:
    """Plain values. verdicts: on the images of interest, as those classes that they are elites of.

    Verdicts are on pairs of image and class, from the first raters at a preset number. All shares are of trials, and count
    every answer of all raters to these images. A trial is one rater and one image: an image that is the elite of several
    classes is one trial, and a hit if the rater gives it any of them. An uncoded name is no hit.

    - pairs; judged, those with PRESETS[0] raters; counts of each verdict on them.
    - images; recognised: of the images judged, those recognised as one of their classes at least, with Wilson's interval.
    - raters: how many named any of the images. per_rater: the share of hits of each, by naming; its mean, from 5 raters on
      with Student's interval over raters (unless all are equal), because the trials of one rater are not independent.
    - named: hits over all trials, and what is expected if the images swap their classes at random: the mean, the 95th
      percentile, and p, the share of SHUFFLES (and the archive itself) that give as much.
    - choice: the same of choices that had one of the image's classes among their options (_choice). naming_d_prime: hits
      against the times that the same classes were named for images that are not of them (_naming).
    - dawid_skene: of elites that were judged, how many show one of their classes by that estimate, and agree with their
      verdicts; None with too little to go on.
    - unrecognised_by_chance: how many false "unrecognised" are to be expected at most among the pairs judged.
    """
    judged = [verdict for verdict in verdicts if verdict.answered >= PRESETS[0]]
    counts = {word.name.lower(): sum(verdict.word is word for verdict in judged) for word in Word}
    recognised = {verdict.image for verdict in judged if verdict.word is Word.RECOGNISED}
    own = _own_classes(verdicts, answers)
    per_rater = _per_rater(own, answers)
    return {
        "pairs": len(verdicts),
        "images": len(own),
        "judged": len(judged),
        "counts": counts,
        "recognised": _share(len(recognised), len({verdict.image for verdict in judged})),
        "raters": len(per_rater["shares"]),
        "per_rater": per_rater,
        "named": _named(own, answers, names),
        "choice": _choice(own, answers, names),
        "naming_d_prime": _naming(own, answers),
        "dawid_skene": _estimated(own, {verdict.image for verdict in judged}, recognised, answers, names),
        "unrecognised_by_chance": ALPHA * len(judged),
        "level_for_all": ALPHA / max(1, len(judged)),
    }


def _own_classes(verdicts: Sequence[Verdict], answers: Answers) -> dict[int, frozenset[int]]:
    """By the number of each image among the answers, the classes that it is an elite of."""
    number = {image: i for i, image in enumerate(answers.images)}
    found: dict[int, set[int]] = {}
    for verdict in verdicts:
        found.setdefault(number[verdict.image], set()).add(verdict.class_id)
    return {i: frozenset(classes) for i, classes in found.items()}


def _estimated(
    own: Mapping[int, frozenset[int]], judged: Set[str], recognised: Set[str], answers: Answers, names: Names
) -> dict[str, Any] | None:
    found = estimate(answers, names)
    if found is None:
        return None
    rows = [row for row, i in enumerate(found.images) if i in own and answers.images[i] in judged]
    some = Estimate(tuple(found.images[row] for row in rows), found.shares[rows], found.accuracy)
    classes = [own[i] for i in some.images]
    return agreement(some, classes, [answers.images[i] in recognised for i in some.images], names)


def _share(hits: int, of: int) -> dict[str, Any]:
    low, high = wilson(hits, of)
    return {"hits": hits, "of": of, "share": hits / of if of else None, "low": low, "high": high}


def _per_rater(own: Mapping[int, frozenset[int]], answers: Answers) -> dict[str, Any]:
    hits, of = [0] * len(answers.raters), [0] * len(answers.raters)
    for i, classes in own.items():
        for r, found in answers.names[i].items():
            of[r] += 1
            hits[r] += not classes.isdisjoint(found or ())
    shares = [hit / n for hit, n in zip(hits, of, strict=True) if n]
    known = len(shares) >= RATERS_FOR_INTERVAL and np.ptp(shares) > 1e-9  # equal shares say nothing about their spread
    low, high = t_interval(shares) if known else (None, None)
    return {"mean": float(np.mean(shares)) if shares else None, "low": low, "high": high, "shares": shares}


def _named(own: Mapping[int, frozenset[int]], answers: Answers, names: Names) -> dict[str, Any]:
    """The share of trials whose name is one of the image's classes; shuffled: the same over permutations.

    A permutation gives each image all the classes of another one, so that each class stays at as many images. shuffled is
    None without trials.
    """
    of = sum(len(answers.names[i]) for i in own)
    classes = np.zeros((len(own), len(names.labels)), bool)
    image, named, starts = list[int](), list[int](), list[int]()
    for row, (i, wanted) in enumerate(own.items()):
        classes[row, list(wanted)] = True
        for found in answers.names[i].values():
            if found:  # a name may mean several classes: a trial is a range of `image` and `named`
                starts.append(len(image))
                image += [row] * len(found)
                named += sorted(found)
    at, given = np.array(image, np.int64), np.array(named, np.int64)

    def hits(order: np.ndarray) -> int:
        return int(np.logical_or.reduceat(classes[order[at], given], starts).sum()) if starts else 0

    told = hits(np.arange(len(own)))
    if not of:
        return {**_share(told, of), "shuffled": None}
    shuffled = np.array([hits(np.array(permutation(_SHUFFLE.at(row), len(own)))) for row in range(SHUFFLES)])
    p = (1 + int((shuffled >= told).sum())) / (1 + SHUFFLES)
    by_chance = {"mean": float(shuffled.mean() / of), "high": float(np.quantile(shuffled, 0.95) / of), "p": p}
    return {**_share(told, of), "shuffled": by_chance}


def _choice(own: Mapping[int, frozenset[int]], answers: Answers, names: Names) -> dict[str, Any] | None:
    """The share of choices that are one of the image's classes, of those that had one among their options.

    chance: the mean share of the options that are classes of the image; above_chance is the share that remains when guesses
    are taken off. d_prime: of the trials whose options (as many as `options`) had one class of the image and no more, since
    the model of Hacker & Ratcliff has one right option; None without such trials.
    """
    options = min(len(names.nameable), OPTIONS)
    hits = of = single_hits = single_of = 0
    chance = 0.0
    for i, classes in own.items():
        for choice, offered in answers.choices[i].values():
            right = len(classes.intersection(offered))
            if right:
                hit, single = choice in classes, right == 1 and len(offered) == options
                hits, of, chance = hits + hit, of + 1, chance + right / len(offered)
                single_hits, single_of = single_hits + (hit and single), single_of + single
    if not of:
        return None
    chance /= of
    return {
        **_share(hits, of),
        "options": options,
        "chance": chance,
        "above_chance": above_chance(hits / of, chance) if chance < 1 else None,
        "d_prime": sensitivity_of_choice((single_hits + 0.5) / (single_of + 1), options)
        if single_of and options > 1
        else None,
    }


def _naming(own: Mapping[int, frozenset[int]], answers: Answers) -> float | None:
    """d' of naming: a hit is a trial whose name is one of the image's classes.

    A false alarm is a name that would have been a hit for another image of the archive. For each different set of classes of
    an image, those that are not of them are noise and the elites of none of these classes, now or when they were shown.
    None if nothing was named, where the two corrections alone would make a number.
    """
    sets = list(dict.fromkeys(own.values()))
    holds = np.zeros((len(sets), 1 + max((c for classes in sets for c in classes), default=0)), bool)
    for row, wanted in enumerate(sets):
        holds[row, list(wanted)] = True

    def any_of(classes: frozenset[int]) -> np.ndarray:
        """(sets,) bool: which sets have one of these classes."""
        return np.asarray(holds[:, [c for c in classes if c < holds.shape[1]]].any(axis=1))

    hits = of = alarms = others = 0
    for i, by_name in enumerate(answers.names):
        classes = own.get(i, frozenset[int]())
        foreign = ~any_of(classes | answers.classes[i])
        others += int(foreign.sum()) * len(by_name)
        of += len(by_name) if classes else 0
        for found in by_name.values():
            if found:
                hits += not classes.isdisjoint(found)
                alarms += int((any_of(found) & foreign).sum())
    for _, found in answers.noise_names:
        others += len(sets)
        alarms += int(any_of(found or frozenset()).sum())
    return sensitivity(hits, of, alarms, others) if of and others and hits + alarms else None
