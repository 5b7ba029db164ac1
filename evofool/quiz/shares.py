"""What people see in a whole archive: the share that they recognise, beside what shuffled classes give."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from evofool.quiz.bounds import above_chance, sensitivity, sensitivity_of_choice, t_interval, wilson
from evofool.quiz.materials import permutation
from evofool.quiz.names import Names
from evofool.quiz.tally import PRESETS, Answers, tally
from evofool.quiz.verdicts import ALPHA, Verdict, Word
from genomes.random import Key

SHUFFLES = 999
_SHUFFLE = Key(seed=2015, batch=0)
RATERS_FOR_INTERVAL = 5


def archive_summary(verdicts: Sequence[Verdict], answers: Answers, names: Names) -> dict[str, Any]:
    """Plain values. verdicts: on the images of interest, as those classes that they are elites of.

    - counts of each verdict, and the share recognised of those with PRESETS[0] raters, with Wilson's interval.
    - per_rater: the share of the trials of one rater in which they named the image as its class; its mean, from 5 raters on
      with Student's interval over raters (unless all are equal), because the trials of one rater are not independent.
    - named: the same over all trials, and what is expected if the classes are shuffled over the images: the mean, the 95th
      percentile, and p, the share of SHUFFLES (and the archive itself) that give as much.
    - choice: the share that chose the class, above chance, and d'. naming_d_prime: hits against the times that a class was
      named for images that are not of it.
    - unrecognised_by_chance: how many false "unrecognised" are to be expected at most among those judged.
    """
    judged = [verdict for verdict in verdicts if verdict.answered >= PRESETS[0]]
    counts = {word.name.lower(): sum(verdict.word is word for verdict in judged) for word in Word}
    named, of = sum(v.named for v in verdicts), sum(v.raters for v in verdicts)
    return {
        "pairs": len(verdicts),
        "judged": len(judged),
        "counts": counts,
        "recognised": _share(counts["recognised"], len(judged)),
        "raters": len(answers.raters),
        "per_rater": _per_rater(verdicts, answers),
        "named": {**_share(named, of), "shuffled": _shuffled(verdicts, answers, names)},
        "choice": _choice(verdicts),
        "naming_d_prime": _naming(verdicts, answers, names),
        "unrecognised_by_chance": ALPHA * len(judged),
        "level_for_all": ALPHA / max(1, len(judged)),
    }


def _share(hits: int, of: int) -> dict[str, Any]:
    low, high = wilson(hits, of)
    return {"hits": hits, "of": of, "share": hits / of if of else None, "low": low, "high": high}


def _per_rater(verdicts: Sequence[Verdict], answers: Answers) -> dict[str, Any]:
    number = {image: i for i, image in enumerate(answers.images)}
    hits, of = [0] * len(answers.raters), [0] * len(answers.raters)
    for verdict in verdicts:
        for r, found in answers.names[number[verdict.image]].items():
            of[r] += 1
            hits[r] += verdict.class_id in (found or ())
    shares = [hit / n for hit, n in zip(hits, of, strict=True) if n]
    known = len(shares) >= RATERS_FOR_INTERVAL and np.ptp(shares) > 1e-9  # equal shares say nothing about their spread
    low, high = t_interval(shares) if known else (None, None)
    return {"mean": float(np.mean(shares)) if shares else None, "low": low, "high": high, "shares": shares}


def _shuffled(verdicts: Sequence[Verdict], answers: Answers, names: Names) -> dict[str, Any] | None:
    """Of the share of names that are the class, over permutations of the classes of the verdicts; None without names."""
    t, number = tally(answers, names), {image: i for i, image in enumerate(answers.images)}
    images = np.array([number[v.image] for v in verdicts], np.int64)
    classes = np.array([v.class_id for v in verdicts], np.int64)
    of = int(t.raters[images].sum())
    if not of:
        return None
    own = int(t.named[images, classes].sum())
    orders = [permutation(_SHUFFLE.at(row), len(classes)) for row in range(SHUFFLES)]
    hits = np.array([t.named[images, classes[order]].sum() for order in orders])
    p = (1 + int((hits >= own).sum())) / (1 + SHUFFLES)
    return {"mean": float(hits.mean() / of), "high": float(np.quantile(hits, 0.95) / of), "p": p}


def _choice(verdicts: Sequence[Verdict]) -> dict[str, Any] | None:
    chosen, offered = sum(v.chosen for v in verdicts), sum(v.offered for v in verdicts)
    if not offered:
        return None
    options = round(1 / verdicts[0].chance)
    share = chosen / offered
    return {
        **_share(chosen, offered),
        "options": options,
        "above_chance": above_chance(share, options) if options > 1 else None,
        "d_prime": sensitivity_of_choice((chosen + 0.5) / (offered + 1), options) if options > 1 else None,
    }


def _naming(verdicts: Sequence[Verdict], answers: Answers, names: Names) -> float | None:
    """d' of naming: a hit is a name that is the class, a false alarm a class that is named for an image that is not of it.

    Classes are those of the verdicts; noise and the elites of other classes are the images that are not of them.
    """
    classes = sorted({v.class_id for v in verdicts})
    hits, of = sum(v.named for v in verdicts), sum(v.raters for v in verdicts)
    alarms = others = 0
    given: list[tuple[frozenset[int] | None, Collection[int]]] = [(found, ()) for _, found in answers.noise_names]
    for own, by_name in zip(answers.classes, answers.names, strict=True):
        given += [(found, own) for found in by_name.values()]
    for found, shown in given:
        others += sum(c not in shown for c in classes)
        alarms += sum(c in (found or ()) and c not in shown for c in classes)
    # Without a single name the two corrections alone would make a number.
    return sensitivity(hits, of, alarms, others) if of and others and hits + alarms else None
