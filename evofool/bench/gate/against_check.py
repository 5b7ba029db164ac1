"""The check of an arm: is it shown that a target takes fewer queries than before, or (strict) that it does not?"""

from collections.abc import Callable

import numpy as np

from evofool.bench.gate import log_ratio
from evofool.bench.gate.against_arms import title
from evofool.bench.gate.gate_verdict import Check, Status
from evofool.bench.gate.log_ratio import LogPairs

MARGIN = 0.75  # times the queries of before: a target that takes fewer has become easier to fool
CONFIDENCE = 0.95  # one-sided


def arm_check(arm: str, pairs: LogPairs, *, decides: bool, strict: bool, confidence: float) -> Check:
    """The check of an arm, from its queries now and in N earlier results.

    By default it fails if it is shown, with the confidence, that the target takes less than MARGIN times the queries of
    before and, if N is at least 2, also fewer than one more training of the same kind would. A strict check passes only if
    it is shown that the target takes at least MARGIN times as many. Both pass if no seed reaches the classes in the middle
    within the budget now, and if N is 1 and all queries are equal. Fewer than two seeds are invalid. An arm that does not
    decide has status "informs" instead.
    """
    trainings, seeds, classes = pairs.before.shape
    figures: dict[str, float | None] = {"seeds": float(seeds), "classes": float(classes), "trainings": float(trainings)}
    shares = [1 - float(np.isnan(queries).mean()) for queries in (pairs.now, pairs.before)]
    figures |= {"accepted_now": shares[0], "accepted_before": shares[1]}

    def check(status: Status, message: str) -> Check:
        if decides:
            return Check(title(arm), status, message, figures)
        return Check(title(arm), "informs", f"does not decide: {message}", figures)

    of = f"{seeds} seed{'s' * (seeds != 1)}, {classes} classes" + (f", {trainings} trainings" if trainings > 1 else "")
    if trainings == 1 and np.array_equal(pairs.now, pairs.before[0], equal_nan=True):
        return check("passes", f"every class takes as many queries as before ({of})")
    if seeds < 2:
        return check("invalid", "a single seed has no interval: measure both with more seeds")
    value, bound = log_ratio.estimate(pairs)
    if bound in (">=", "unknown"):
        accepted = f"{shares[0]:.0%} of classes and seeds are, {shares[1]:.0%} were before"
        return check("passes", f"most classes are not accepted within {pairs.budget:,} queries now: {accepted}")
    figures["ratio"] = value
    message = f"a class takes {'at most ' if bound == '<=' else ''}{value:.2f} times the queries of before"
    with_trainings = strict and trainings > 1
    low, high = log_ratio.limits(pairs, MARGIN, confidence, with_trainings)
    figures |= {"low": low, "high": high}
    texts = ["unlimited" if limit is None else f"{limit:.2f}" for limit in (low, high)]
    message += f" ({100 * confidence:.4g}% limits {texts[0]} and {texts[1]}; {of})"
    if strict:
        shown = log_ratio.shown_above(pairs, MARGIN, confidence)
        return check("passes" if shown else "fails", f"{message}: at least {MARGIN:g} is {'' if shown else 'not '}shown")
    return _default(pairs, message, confidence, check, figures)


def became_easier(pairs: LogPairs, confidence: float = CONFIDENCE, margin: float = MARGIN) -> bool:
    """Whether a default gate fails: it is shown that the target takes less than `margin` times the queries of before.

    With several earlier results it also has to be shown that it takes fewer than one more such training.
    """
    if not log_ratio.shown_below(pairs, margin, confidence):
        return False
    return len(pairs.before) == 1 or log_ratio.shown_beyond_trainings(pairs, confidence)


def _default(
    pairs: LogPairs,
    message: str,
    confidence: float,
    check: Callable[[Status, str], Check],
    figures: dict[str, float | None],
) -> Check:
    fails = became_easier(pairs, confidence)
    if not log_ratio.shown_below(pairs, MARGIN, confidence):
        figures["found"] = found = log_ratio.detectable(pairs, MARGIN, confidence)
        hint = f"; {found:.2f} would be found in {log_ratio.POWER:.0%} of cases"
        return check("passes", f"{message}: less than {MARGIN:g} is not shown{hint}")
    message += f": less than {MARGIN:g} is shown"
    if len(pairs.before) > 1:
        figures["retrained"] = retrained = log_ratio.retrained_low(pairs, confidence)
        message += (
            f", and one more such training would take at least {retrained:.2f} times the queries"
            if fails
            else f", but one more such training may take as little as {retrained:.2f} times the queries"
        )
    return check("fails" if fails else "passes", message)
