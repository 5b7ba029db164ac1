"""The headline of a benchmark: how many classes are fooled within 100 queries a class, by at least one attack of a suite.

The union over the suite is taken class by class, within a seed, as AutoAttack takes the worst case over its attacks image by
image (Croce & Hein 2020, arXiv 2003.01690). The second figure, how many real images the best images reach, still
differs between classifiers where all classes are fooled; tests/perf/ranking.py has compared it with others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np

from evofool.bench import statistics
from evofool.bench.arms import arm_title
from evofool.bench.interval import Interval, format_limits, format_queries
from evofool.targets.kinds import queries_per_image

SUITE = ("canvas", "square", "apgd")
"""The attacks. They differ in kind: evolution, in which all classes share every image; random search by squares and gradient
ascent, for one class at a time. The first two need outputs only. docs/protocol.md has the reasons.
"""
_SCHEDULED = ("square", "apgd")  # their schedules depend on the budget
PER_CLASS = 100  # queries of each attack for a class
CONFIDENCE = 0.95
_EQUAL = 1e-12  # seeds that differ by less are equal up to rounding


class ArmAcceptance(NamedTuple):
    """What an arm has reached in the n scored classes, under one acceptance score.

    seeds: S. at: (S, n) float64, after how many queries, counted over all classes, each was accepted; NaN where never.
    replicates: (R, S, n), the same with thresholds from each of R bootstrap samples of the real images. reached: (S, n), the
    share of real images whose value is at most that of the best image within queries_per_class; reached_replicates:
    (R, S, n), the same with bootstrap samples. The samples are the same for all arms.
    """

    seeds: Sequence[int]
    at: np.ndarray
    replicates: np.ndarray
    reached: np.ndarray
    reached_replicates: np.ndarray


def queries_per_class(budget: int, classes: int) -> int:
    """The queries a class within which the headline counts: PER_CLASS, or fewer where the budget has fewer."""
    return min(PER_CLASS, budget // classes)


def headline(
    accepted: Mapping[str, Mapping[str, ArmAcceptance]], classes: int, budget: int, left_out: Mapping[str, str]
) -> dict[str, Any] | None:
    """scores.headline of a result. None where the budget is below one query a class, or no seed has all arms.

    accepted: by acceptance score and arm, of the arms of the suite that were measured; other arms are not looked at. An arm
    may lack a score: the share under it is then that of the others, which is no higher than with this arm.
    classes: n, how many are scored. budget: of each arm, over all classes. left_out: by arm of the suite that was not
    measured, the reason.

    The share of a seed is that of classes which at least one arm has fooled within min(PER_CLASS, budget // n) queries a
    class. The value is the mean over the seeds that all arms have, under the acceptance score for which it is greatest: the
    easiest, of equals the first. Of m scores each has limits at 1 - 0.05 / m, and those of the easiest are the highest lower
    and the highest upper limit. They contain the greatest true share whenever all m intervals contain theirs: in at least
    95% of cases (Bonferroni), whichever score turns out to be the easiest.

    "reached", the second figure: the mean over classes of the share of real images whose value is at most that of the best
    image of any arm. "queries": the geometric mean over classes of the queries a class until any arm has fooled it, where a
    class that is not fooled counts as the most queries. Of several scores the easiest of this figure, which "score" names,
    with limits of the same kind.
    """
    per_class = queries_per_class(budget, classes)
    suites = {score: {name: arms[name] for name in SUITE if name in arms} for score, arms in accepted.items()}
    suites = {score: suite for score, suite in suites.items() if suite}
    seeds = _common_seeds([arm for suite in suites.values() for arm in suite.values()])
    if not seeds or not per_class:
        return None
    confidence = 1 - (1 - CONFIDENCE) / len(suites)
    by_score = {score: _figures(suite, seeds, per_class, confidence) for score, suite in suites.items()}
    easiest = max(by_score, key=lambda score: by_score[score]["value"])
    figures = by_score[easiest]
    return {
        "queries_per_class": per_class,
        "attack_queries_per_class": budget / classes,
        "classes": classes,
        "arms": [name for name in SUITE if any(name in suite for suite in suites.values())],
        "left_out": dict(left_out),
        "seeds": seeds,
        "score": easiest,
        "value": figures["value"],
        **_limits(by_score.values(), max),
        "per_seed": figures["per_seed"],
        "reached": _easiest({score: row["reached"] for score, row in by_score.items()}, max),
        "queries": _easiest({score: row["queries"] for score, row in by_score.items()}, min),
        "by_score": by_score,
    }


def _easiest(rows: Mapping[str, Mapping[str, Any]], easiest: Callable[..., Any]) -> dict[str, Any]:
    """The row of the easiest score, of equals the first, with its name and with the limits of the easiest."""
    score = easiest(rows, key=lambda score: rows[score]["value"])
    return {"score": score, **rows[score], **_limits(rows.values(), easiest)}


def _figures(suite: Mapping[str, ArmAcceptance], seeds: Sequence[int], per_class: int, confidence: float) -> dict[str, Any]:
    """The share of classes that any arm fools, and the queries that a class takes, under one acceptance score."""
    arms = list(suite.values())
    rows = [[list(arm.seeds).index(seed) for seed in seeds] for arm in arms]
    at = np.fmin.reduce([arm.at[row] for arm, row in zip(arms, rows, strict=True)])
    replicates = np.fmin.reduce([arm.replicates[:, row] for arm, row in zip(arms, rows, strict=True)])
    classes, most = at.shape[-1], per_class * at.shape[-1]
    shares, share_replicates = (at <= most).mean(axis=-1), (replicates <= most).mean(axis=-1)
    interval = statistics.share_interval(shares, share_replicates, classes, confidence)
    reached = np.max([arm.reached[row] for arm, row in zip(arms, rows, strict=True)], axis=0).mean(axis=-1)
    reached_replicates = np.max([arm.reached_replicates[:, row] for arm, row in zip(arms, rows, strict=True)], axis=0)
    # Equal seeds do not show how far seeds differ. Each class then counts as an outcome, which gives a bound near 0 and 1.
    outcomes = None if np.ptp(reached) > _EQUAL else classes
    of_real = statistics.share_interval(reached, reached_replicates.mean(axis=-1), outcomes, confidence)
    return {
        "arms": [name for name in SUITE if name in suite],
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "per_seed": shares.tolist(),
        # Of the mean share, since thresholds are estimates.
        "threshold_variance": float(share_replicates.mean(axis=1).var(ddof=1)),
        "reached": {"value": of_real.value, "low": of_real.low, "high": of_real.high, "per_seed": reached.tolist()},
        "queries": _queries(at, replicates, per_class, interval, confidence),
    }


def _queries(at: np.ndarray, replicates: np.ndarray, per_class: int, fooled: Interval, confidence: float) -> dict[str, Any]:
    """The queries that a class takes: their mean over seeds and its limits; fooled: the interval of the share of classes.

    A seed in which no class is fooled is censored, and then there is a low limit only. If all are, `low` follows from the
    upper limit of the share: as many classes would be fooled by the first query. Other equal seeds give no limits.
    """
    means = _mean_queries(at, per_class)
    found = statistics.queries_interval(
        means.tolist(), per_class, _mean_queries(replicates, per_class), confidence, whole=False
    )
    low, high, censored = found.low, found.high, means >= per_class * (1 - _EQUAL)
    if censored.all():
        most = at.shape[-1] * per_class
        low, high = None if fooled.high is None else per_class * most**-fooled.high, None
    elif np.ptp(np.log10(means)) < _EQUAL:
        low, high = None, None
    elif high is not None:
        high = None if censored.any() else min(high, per_class)
    return {"value": found.value, "low": low, "high": high, "per_seed": means.tolist()}


def _mean_queries(at: np.ndarray, per_class: int) -> np.ndarray:
    """(...): the geometric mean of the queries a class, of at (..., n); a class that is not fooled counts as per_class."""
    each = np.fmin(at / at.shape[-1], per_class)
    return np.minimum(10 ** np.log10(each).mean(axis=-1), per_class)


def _limits(rows: Iterable[Mapping[str, Any]], easiest: Callable[[list[float]], float]) -> dict[str, float | None]:
    """The limits of the easiest of several figures, whichever it is; None where there is none, as with one seed.

    A lower limit of one figure is one of the highest of all; an upper limit has to be above all. Of the lowest, the reverse.
    """
    listed, of_any = list(rows), "low" if easiest is max else "high"
    found = {limit: [row[limit] for row in listed if row[limit] is not None] for limit in ("low", "high")}
    return {
        limit: easiest(known) if known and (limit == of_any or len(known) == len(listed)) else None
        for limit, known in found.items()
    }


def _common_seeds(arms: Sequence[ArmAcceptance]) -> list[int]:
    first, *others = [list(arm.seeds) for arm in arms] or [[]]
    return [seed for seed in first if all(seed in seeds for seeds in others)]


FOOLED = "Fooled: an image is assigned to the class, and reaches the threshold that 95% of real images reach."
"""What the headline means by fooled, in one line."""


def headline_lines(result: Mapping[str, Any]) -> list[str]:
    """The headline of a result in at most two short lines: the plain sentence, and what a class takes on average.

    FOOLED explains it. headline_details has all conditions.
    """
    lead, *_ = headline_sentences(result)
    row = (result["scores"].get("headline") if result["valid"] else None) or {}
    means = [f"takes {queries_text(row)} queries"] if "queries" in row else []
    means += [f"has an image rated as high as {reached_text(row)} of real images"] if "reached" in row else []
    return [lead, *([f"On average a class {', and '.join(means)}."] if means else [])]


def headline_details(result: Mapping[str, Any]) -> str:
    """The headline of a result with all conditions, as sentences. Plain text, whatever the result has."""
    return " ".join([*headline_sentences(result), second_sentence(result)]).rstrip()


def headline_sentences(result: Mapping[str, Any]) -> list[str]:
    """The headline of a result in sentences: the plain one, or the reason that there is none; then its conditions."""
    if not result["valid"]:
        return ["Not measured: the evaluation is invalid."]
    if "headline" not in result["scores"]:
        return ["The result has no headline: it was written by an earlier evofool."]
    row = result["scores"]["headline"]
    if row is None:
        seeds = {name: arm["seeds"] for name, arm in result["scores"]["arms"].items() if name in SUITE and arm["seeds"]}
        if len(seeds) > 1 and not set.intersection(*map(set, seeds.values())):
            return [f"No headline: no seed is valid for all of {', '.join(seeds)}."]
        return [f"No headline: none of {', '.join(SUITE)} was measured with at least one query a class."]
    classes, queries = row["classes"], row["queries_per_class"]
    count, known = _count(row["value"], classes), result["target"]["classes"]
    of = f"{classes:,} classes" if known == classes else f"{classes:,} scored classes (the target has {known:,})"
    scored = result["scores"]["arms"]
    arms = [arm_title(name, scored.get(name, {})) for name in row["arms"]]
    by = f"{', '.join(arms[:-1])} or {arms[-1]}" if len(arms) > 1 else arms[0]
    within = f"{queries:,} {'query' if queries == 1 else 'queries'} a class{_images_text(queries, result['target'])}"
    sentence = f"Of {of}, {fooled_text(row)} {'is' if count == '1' else 'are'} fooled within {within} by {by}."
    scores = list(row["by_score"])
    easiest = (
        f"Images are rated by {len(scores)} acceptance scores ({', '.join(scores)}), each with a threshold of its own; the "
        f"one under which most classes are fooled counts: {row['score']}."
    )
    return [sentence, FOOLED, *([easiest] if len(scores) > 1 else []), *_caveats(row)]


def second_sentence(result: Mapping[str, Any]) -> str:
    """The second figure of a result, and the queries that a class takes, in sentences; "" where it has neither."""
    row = (result["scores"].get("headline") if result["valid"] else None) or {}
    said = []
    if "reached" in row:
        text = f"the best image of a class is rated no lower than {reached_text(row)} of real images."
        said.append(_under(row, "reached", text))
    if "queries" in row:
        arms = row["by_score"].get(row["queries"].get("score"), {}).get("arms", row["arms"])
        each = f" of each of the {len(arms)} attacks" if len(arms) > 1 else ""
        text = (
            f"a class takes {queries_text(row)} queries{each} until it is fooled: the geometric mean, where a class that is "
            f"not fooled counts as {row['queries_per_class']:,}."
        )
        said.append(_under(row, "queries", text))
    return " ".join(said)


def _under(row: Mapping[str, Any], figure: str, text: str) -> str:
    """The text as a sentence, with the easiest score of a figure if there are several; an older result does not name it."""
    score = row[figure].get("score") if len(row["by_score"]) > 1 else None
    return f"Under {score}, {text}" if score else text[0].upper() + text[1:]


def _images_text(queries: int, target: Mapping[str, Any]) -> str:
    """ " (6.25 images of 16 queries each)" if an image takes several queries, as with average=N; else ""."""
    each = queries_per_image(target)
    if each == 1:
        return ""
    images = f"{queries / each:.3g}"
    return f" ({images} {'image' if images == '1' else 'images'} of {each:,} queries each)"


def fooled_text(row: Mapping[str, Any]) -> str:
    """The number of classes of a headline with its limits: "8.4 (7.6 to 9.1)"."""
    classes = row["classes"]
    return _with_limits(row, lambda share: _count(share, classes), classes, 0 if classes >= 100 else 1)


def reached_text(row: Mapping[str, Any]) -> str:
    """The share of real images than which the best images are rated no lower, with its limits: "96% (95% to 97%)"."""
    return _with_limits(row["reached"], lambda share: f"{_count(share, 100)}%", 100, 0, "%")


def queries_text(row: Mapping[str, Any]) -> str:
    """The queries a class of a headline with their limits: "7.2 (6.1 to 8.5)"."""
    return _with_limits(row["queries"], format_queries)


def _with_limits(
    row: Mapping[str, Any], number: Callable[[float], str], of: float = 1, digits: int | None = None, unit: str = ""
) -> str:
    """The value with "(low to high)", "(at least low)" or "(at most high)".

    A limit is multiplied by `of` and rounded outward, so that what is printed holds as well: to `digits` digits, or to those
    of format_queries.
    """

    def outward(limit: float, rounded: Callable[[float], int]) -> str:
        places = digits if digits is not None else 0 if limit >= 10 else 1
        # 1e-6: 0.7 * 10 is a little more than 7.
        steps = rounded(limit * of * 10**places + (1e-6 if rounded is floor else -1e-6))
        text = f"{steps / 10**places:,.{places}f}"
        return (text if digits is None else text.removesuffix(".0")) + unit

    low, high = row["low"], row["high"]
    texts = {"low": None if low is None else outward(low, floor), "high": None if high is None else outward(high, ceil)}
    limits = format_limits(texts, str)
    return f"{number(row['value'])}{limits and f' ({limits})'}"


def _caveats(row: Mapping[str, Any]) -> list[str]:
    """What is not as the protocol has it."""
    said = []
    if row["queries_per_class"] < PER_CLASS:
        said.append(f"The budget allows no more queries than that; the protocol has {PER_CLASS}.")
    scheduled = [arm for arm in row["arms"] if arm in _SCHEDULED]
    if row["attack_queries_per_class"] >= row["queries_per_class"] + 1 and scheduled:
        planned = f"{row['attack_queries_per_class']:,.0f} queries a class"
        said.append(
            f"{' and '.join(scheduled)} ran with {planned}, and may fool more with {row['queries_per_class']:,} alone."
        )
    if row["left_out"]:
        listed = "; ".join(f"{arm}: {reason}" for arm, reason in row["left_out"].items())
        said.append(f"Not measured: {listed}.")
    lacking = {
        score: [arm for arm in row["arms"] if arm not in figures.get("arms", row["arms"])]
        for score, figures in row["by_score"].items()
    }
    said += [
        f"Under {score} there are no records of {' and '.join(arms)}, so the figures under it are lower bounds."
        for score, arms in lacking.items()
        if arms
    ]
    if row["low"] is None and row["high"] is None:
        said.append("One seed, so there is no interval.")
    return said


def _count(share: float, classes: int) -> str:
    """A mean number of classes: "8.4" of ten, "93" of a hundred; only none is written 0, and only all are written as all."""
    number, digits = share * classes, 0 if classes >= 100 else 1
    least = 10.0**-digits
    if 0 < number < least / 2:
        return f"<{least:g}"
    if classes - least / 2 <= number < classes:
        return f">{classes - least:,g}"
    return f"{number:,.{digits}f}".removesuffix(".0")
