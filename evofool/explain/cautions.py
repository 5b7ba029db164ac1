"""What heads an explanation: the warnings of its target, and that a decision is close."""

from collections.abc import Iterable

import numpy as np

from evofool.explain.phrases import confidence_text
from evofool.scores import confidence
from evofool.targets import Target
from evofool.targets.redaction import without_folders

CLOSE = 1.25  # times the confidence of a next class; below it the network hardly tells the two apart
_GUESS = 1.5  # times the odds of 1/K; below it no class is clearly preferred
_NAMED = 3  # close classes that are named


def warnings_of(target: Target, others: Iterable[str] = ()) -> list[str]:
    """The target's notes as they are now (a black box adds some while it responds), and others: each once, no folders."""
    return list(dict.fromkeys(map(without_folders, [*target.details.get("notes", ()), *others])))


def doubts(target: Target, log_odds: np.ndarray) -> list[str]:
    """Why the class that the target gives an image is doubtful; [] where it is not. log_odds: (K,).

    It is close where the next class has more than 1 / 1.25 of the confidence, and no class is preferred where the odds of
    the first, p / (1 - p), are less than 1.5 times those of 1/K. Neither depends on the class that is explained.
    Of labels that do not exclude each other none is given to the image where the highest confidence is below 1/2.
    """
    if target.multilabel:
        highest = float(log_odds.max())
        return (
            [] if highest > 0 else [f"{target.name} gives it none of its labels: the highest has {confidence_text(highest)}"]
        )
    order = np.argsort(-log_odds, kind="stable")
    p = np.asarray(confidence(log_odds[order]))
    classes = len(p)
    found = []
    if log_odds[order[0]] < np.log(_GUESS) - np.log(classes - 1):
        found.append(
            f"{target.name} prefers no class clearly: its highest confidence is {confidence_text(log_odds[order[0]])}, and "
            f"equal confidences in its {classes:,} classes would be {1 / classes:.6f}"
        )
    close = int((p * CLOSE > p[0]).sum())
    if close > 1:
        named = [f"{target.labels[c]} {confidence_text(log_odds[c])}" for c in order[: min(close, _NAMED)].tolist()]
        more = f" and {close - _NAMED:,} more" if close > _NAMED else ""
        apart = "this from its second choice" if close == 2 else f"its first {close:,} choices apart"
        tie = "; of equal confidences the first class counts" if p[0] == p[1] else ""
        found.append(f"{target.name} hardly tells {apart}: {', '.join(named)}{more} (confidences){tie}")
    return found
