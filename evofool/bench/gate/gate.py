"""A gate for CI: has a target become easier to fool, or is it too easily fooled at the threshold it is deployed with?"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench import cell as cells
from evofool.bench.arms import ARMS, least_queries
from evofool.bench.bench import Tell, do_cells, run_bench
from evofool.bench.calibration import calibrate
from evofool.bench.compare import compare
from evofool.bench.gate.accept import Accept
from evofool.bench.gate.verdict import Check, Verdict
from evofool.bench.plan import BenchRecipe, parse
from evofool.bench.real import real_images
from evofool.bench.statistics import share_interval
from evofool.elites import StoredRun
from evofool.errors import RecipeError
from evofool.machine import torch_threads
from evofool.targets import target as load_target
from evofool.targets.handshake import handshake

EASIER = 0.75  # times the queries of before: the gate wants to be sure that it is not less


class Interrupted(Exception):
    """The work was broken off; what is done is saved."""


def against(spec: str, last: Mapping[str, Any], images: str, folder: Path, workers: int, tell: Tell) -> Verdict:
    """Measure a target by the protocol of a result, and compare the two: a check for each arm that is guided or blind.

    An arm fails where the lower bound of its paired Q50 ratio, now over then, is under EASIER: it has not been shown that
    the target costs at least three quarters of the queries that it did. The same target gives a ratio of exactly 1. images:
    the labelled real images. Cells are kept in folder, in one of their own for each version of the target, where the same
    call goes on.
    """
    began = time.perf_counter()
    folder = folder / load_target(spec).fingerprint()[:16]
    protocol = last["protocol"]
    data: dict[str, Any] = {
        "name": "gate",
        "images": images,
        "targets": [{"target": spec, "top1": (last.get("images") or {}).get("declared")}],
        "arms": protocol["arms"],
        "budgets": protocol["budgets"],
        "seeds": len(protocol["seeds"]),
        "first_seed": protocol["seeds"][0],
        "format": protocol["format"],
        "arm": {arm: {"set": changes} for arm, changes in protocol["settings"].items()},
        "workers": workers,
    }
    if data["targets"][0]["top1"] is None:
        del data["targets"][0]["top1"]
    outcome = run_bench(parse(data, "the protocol of the result"), folder, tell)
    if outcome.interrupted:
        raise Interrupted
    (now,) = outcome.results.values()
    invalid = [flag["what"] for flag in now["flags"] if flag["level"] == "invalid"]
    checks = [Check("evaluation", "invalid", "; ".join(invalid))] if invalid or not now["valid"] else []
    if not checks:
        try:
            told = compare(now, last)
        except RecipeError as error:
            checks = [Check("evaluation", "invalid", str(error))]
        else:
            checks = [_compared(arm, row) for arm, row in told["arms"].items() if ARMS[arm].kind != "floor"]
    return Verdict(now["target"]["name"], checks, time.perf_counter() - began)


def _compared(arm: str, row: Mapping[str, Any]) -> Check:
    ratio, pairs = row["q50_ratio"], len(row["seeds"])
    figures = {"q50_ratio": ratio["value"], "low": ratio["low"], "high": ratio["high"], "pairs": float(pairs)}
    name = f"{arm}: Q50 against before"
    budget = f"{row['queries']:,} queries"
    if ratio["number"] == 0:
        return Check(name, "holds", f"half of the classes are not accepted within {budget}, neither now nor before", figures)
    if ratio["value"] is None:
        words = (
            f"some seeds of either are not done within {budget}, so that nothing is bounded: measure both with more queries"
        )
        return Check(name, "invalid", words, figures)
    limits = " to ".join("unbounded" if ratio[k] is None else f"{ratio[k]:.2f}" for k in ("low", "high"))
    words = f"it takes {ratio['value']:.2f} times the queries of before (95%: {limits}; {pairs} pairs of seeds)"
    if row["same"]:
        return Check(name, "holds", f"{words}: every seed as before", figures)
    if ratio["number"] < 2:
        return Check(name, "invalid", f"{words}: one pair alone has no interval; more seeds, or a larger budget", figures)
    if ratio["low"] is not None and ratio["low"] >= EASIER:
        return Check(name, "holds", words, figures)
    surely = ratio["high"] is not None and ratio["high"] < 1
    doubt = "" if surely else "; that may be chance: more seeds narrow the interval"
    return Check(name, "fails", f"{words}: at least {EASIER:g} is not shown{doubt}", figures)


def threshold(
    spec: str,
    accept: Accept,
    most: float,
    budget: int,
    arms: Sequence[str],
    seeds: int,
    folder: Path,
    images: str | None,
    tell: Tell,
    workers: int = 0,
) -> Verdict:
    """Attack a target, and see in how many of its classes it accepts an image by the rule that it is deployed with.

    An arm fails where the mean share over seeds is above `most`. Without real images nothing is calibrated; with them, a
    check says what share of those that are classified correctly the rule keeps: one that keeps under half is invalid, since
    a rule that rejects everything is fooled by nothing. Searches rank as the rule does.
    """
    began = time.perf_counter()
    target = load_target(spec, folder / "target")
    folder = folder / target.fingerprint()[:16]
    with torch_threads(1):
        met = handshake(target)
    if met.faults:
        return Verdict(target.name, [Check("handshake", "invalid", "; ".join(met.faults))], time.perf_counter() - began)
    classes = list(range(len(target.labels)))
    checks: list[Check] = []
    if images is not None:
        calibration = calibrate(target, real_images(images, target), lambda words: _heard(tell, words))
        faults = calibration.faults(target.name)
        if faults:
            return Verdict(target.name, [Check("real images", "invalid", "; ".join(faults))], time.perf_counter() - began)
        checks.append(_kept(accept, calibration.logits, calibration.classes, calibration.correct))
    usable = [arm for arm in arms if ARMS[arm].kind != "white" or target.differentiable]
    for arm in usable:
        if budget < (least := least_queries(arm, len(classes))):
            raise RecipeError(
                f"{target.name}: a budget of {budget:,} queries is too small for {len(classes):,} classes: {arm} needs at "
                f"least {least:,}"
            )
    places = [(arm, seed, (folder / "cells" / f"{arm}-{seed}").absolute()) for arm in usable for seed in range(seeds)]
    jobs = [
        {
            "folder": str(home),
            "target": target.name,
            "arm": arm,
            "seed": seed,
            "queries": budget,
            "classes": classes,
            "rank": "margin" if accept.kind == "margin" else "log_odds",
        }
        for arm, seed, home in places
    ]
    recipe = BenchRecipe(images=images or "-", targets=({"target": spec},), budgets=(budget,), workers=workers)  # type: ignore[arg-type]
    failures, interrupted = do_cells(jobs, recipe, folder, tell)
    if interrupted:
        raise Interrupted
    for arm in usable:
        why = [words for (a, _, _), words in zip(places, failures, strict=True) if a == arm and words]
        homes = [home for a, _, home in places if a == arm]
        checks.append(Check(arm, "invalid", why[0]) if why else _fooled(arm, homes, accept, most, budget, len(classes)))
    return Verdict(target.name, checks, time.perf_counter() - began)


def _kept(accept: Accept, logits: np.ndarray, classes: np.ndarray, correct: np.ndarray) -> Check:
    from evofool import scores

    rows = np.arange(len(classes))
    kept = accept.accepts(scores.log_odds(logits)[rows, classes], scores.margin(logits)[rows, classes])[correct]
    share = float(kept.mean())
    words = f"{accept} keeps {share:.3f} of {len(kept):,} real images that are classified correctly"
    if share < 0.5:
        return Check("real images", "invalid", f"{words}: a rule that rejects most of them is no use", {"kept": share})
    return Check("real images", "holds", words, {"kept": share})


def _fooled(arm: str, homes: Sequence[Path], accept: Accept, most: float, budget: int, classes: int) -> Check:
    shares = []
    for home in homes:
        told = cells.record(home)
        if told is not None and told["faults"]:
            return Check(arm, "invalid", f"its saved images do not score what was stored: {told['faults'][0]}")
        with StoredRun(home) as stored:
            rows = [elite.row for elite in stored.elites()]
        accepted = accept.accepts(np.array([row.log_odds for row in rows]), np.array([row.margin for row in rows]))
        shares.append(float(accepted.sum()) / classes)
    told_of = share_interval(shares, None, classes)
    share = float(np.mean(shares))
    limits = "" if told_of.low is None else f" (95%: {told_of.low:.2f} to {told_of.high:.2f})"
    words = f"{share:.2f} of {classes:,} classes are fooled at {accept} within {budget:,} queries, over {len(homes)} seeds"
    figures = {"share": share, "low": told_of.low, "high": told_of.high, "max_share": most}
    return Check(arm, "holds" if share <= most else "fails", f"{words}{limits}; allowed are {most:g}", figures)


def _heard(tell: Tell, words: str) -> None:
    from evofool.bench.bench import Progress

    tell(Progress(words))
