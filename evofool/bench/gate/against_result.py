"""A gate for CI: has a target become easier to fool than it was in an earlier result?"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evofool.bench.arms import ARMS, SURROGATE, refuse_unknown
from evofool.bench.bench import run_bench
from evofool.bench.calibration import LEVELS
from evofool.bench.compare import ComparableResult, compare, read_result, refuse_other_classes
from evofool.bench.gate.gate_folder import gate_folder, mark_verdict_given
from evofool.bench.gate.gate_verdict import Check, GateVerdict
from evofool.bench.plan import BenchRecipe, parse
from evofool.bench.real import DIGITS, RealImages, classes_without, real_images, sha256, with_progress
from evofool.bench.surrogate_stage import usable_surrogates
from evofool.errors import ImageError, Interrupted, RecipeError
from evofool.sweep.runner import OnProgress, reporter
from evofool.targets import Target
from evofool.targets import target as load_target

EASIER = 0.75  # times the queries of before: the lower bound has to be at least this
RANK = "margin"


def against(
    spec: str,
    last: Mapping[str, Any],
    images: str | None,
    folder: Path,
    on_progress: OnProgress = lambda _: False,
    workers: int = 0,
    surrogates: Sequence[str] = (),
) -> GateVerdict:
    """Measure a target by the protocol of a result, and compare the two: a check for each arm that searches.

    An arm fails where the lower bound of its paired Q50 ratio, now over then, is below EASIER: then it is not shown that
    the target takes at least three quarters of the queries that it took. The same target gives a ratio of exactly 1.

    last: the JSON. images: its labelled real images; None for the digits that it was measured on. surrogates: where those of
    the arm of that name are now; by default where the result says. folder: has a benchmark for each version of the target
    and each protocol, which the same call continues. What cannot be compared is refused
    before anything is measured, with RecipeError, TargetError, ImageError or StoreError.
    Interrupted if on_progress returns True.
    """
    began = time.perf_counter()
    before = read_result(last, "the earlier result")
    target = load_target(spec, folder / "target")
    source = images or (DIGITS if before.images.source == DIGITS else None)
    if source is None:
        raise RecipeError(f"the result was measured on real images of {before.images.source}: name them by --images DIR")
    wanted, notes, checks = _arms(before, target)
    if SURROGATE in wanted:
        surrogates = surrogates or [network.name for network in before.surrogates]
        checks += _other_surrogates(before, target, surrogates)
    elif surrogates:
        raise RecipeError(f"--surrogate is for results with the arm {SURROGATE}, which this one does not have")
    if checks:
        return GateVerdict(target.name, checks, time.perf_counter() - began, notes)
    recipe = _recipe(before, wanted, spec, source, workers, surrogates)
    _refuse_other_images(before, target, with_progress(real_images(source, target), reporter(on_progress)))
    work_folder = gate_folder(folder, _name(target, recipe), target)
    outcome = run_bench(recipe, work_folder, on_progress)
    if outcome.interrupted:
        raise Interrupted
    mark_verdict_given(work_folder, target)
    (now,) = outcome.results.values()
    faults = [flag["message"] for flag in now["flags"] if flag["level"] == "invalid"]
    if not now["valid"]:
        checks = [Check("evaluation", "invalid", "; ".join(faults) or "no arm has a valid cell")]
    else:
        checks, more = _checks(before, now, last, wanted)
        notes += more
    notes += [flag["message"] for flag in now["flags"] if flag["level"] != "invalid"]
    return GateVerdict(now["target"]["name"], checks, time.perf_counter() - began, notes)


def _arms(before: ComparableResult, target: Target) -> tuple[list[str], list[str], list[Check]]:
    """(arms to measure, notes on those left out, checks that are invalid already).

    An arm that one side cannot have while the other has it makes the gate invalid; one that neither has does not.
    """
    refuse_unknown(before.protocol.arms)
    wanted, notes, checks = [], [], []
    for arm in before.protocol.arms:
        earlier = before.scores.arms.get(arm)
        can = ARMS[arm].kind != "white" or target.differentiable
        if ARMS[arm].kind == "floor":
            continue
        if earlier is None:
            notes.append(f"{arm}: left out, as it was before")
        elif earlier.seeds and can:
            wanted.append(arm)
        elif earlier.seeds:
            message = f"it needs gradients, which {target.name} does not give, and the earlier target gave them"
            checks.append(Check(_title(arm), "invalid", message))
        elif can:
            reason = "; ".join(sorted({*earlier.invalid.values()})) or "it has no seed"
            checks.append(
                Check(_title(arm), "invalid", f"it is not valid in the earlier result, so measure that again: {reason}")
            )
        else:
            notes.append(f"{arm}: left out; it needs gradients, and neither had them")
    if not wanted and not checks:
        raise RecipeError(
            f"the earlier result has no arm that searches ({', '.join(before.protocol.arms)}), and nothing to compare"
        )
    return wanted, notes, checks


def _other_surrogates(before: ComparableResult, target: Target, specs: Sequence[str]) -> list[Check]:
    """An invalid check where these are not the surrogates of before."""
    networks, _ = usable_surrogates(specs, target)
    if [network.fingerprint() for network in networks] == [network.fingerprint for network in before.surrogates]:
        return []
    then = ", ".join(network.name for network in before.surrogates)
    message = (
        f"{', '.join(specs)} are not the surrogates of before, {then} (labels, preprocessing or weights differ): name those "
        "by --surrogate, in the same order"
    )
    return [Check(_title(SURROGATE), "invalid", message)]


def _recipe(
    before: ComparableResult, arms: list[str], spec: str, source: str, workers: int, surrogates: Sequence[str]
) -> BenchRecipe:
    """The benchmark that measures a target as the result was measured."""
    protocol = before.protocol
    if protocol.rank != RANK or protocol.levels != LEVELS:
        raise RecipeError(
            f"the earlier result is of another protocol: rank {protocol.rank}, levels {protocol.levels}; this evofool has "
            f"rank {RANK}, levels {LEVELS}"
        )
    first, number = protocol.seeds[0], len(protocol.seeds)
    if protocol.seeds != tuple(range(first, first + number)):
        raise RecipeError(f"the earlier result has seeds {list(protocol.seeds)}, which do not follow one another")
    declared = before.images.declared_top1
    data: dict[str, Any] = {
        "name": "gate",
        "images": source,
        "targets": [{"target": spec} | ({} if declared is None else {"top1": declared})],
        "arms": arms,
        "budgets": protocol.budgets,
        "seeds": number,
        "first_seed": first,
        "format": protocol.format,
        "arm": {arm: {"set": changes} for arm, changes in protocol.settings.items() if arm in arms},
        "surrogates": surrogates if SURROGATE in arms else (),
        "workers": workers,
    }
    return parse(data, "the protocol of the earlier result")


def _refuse_other_images(before: ComparableResult, target: Target, real: RealImages) -> None:
    """RecipeError for other classes, ImageError for other pixels than those of before."""
    refuse_other_classes(
        (target.name, "before"),
        (target.labels, before.target.labels),
        (classes_without(real, target), before.images.classes_without_images),
    )
    seen = sha256(real)
    if seen != before.images.sha256:
        shape = "" if target.shape == before.target.shape else f", in {target.shape} where it was {before.target.shape}"
        raise ImageError(
            f"the real images in {real.source} are not those of before, as the target sees them (SHA-256 "
            f"{seen[:12]}..., before {before.images.sha256[:12]}...{shape}), so thresholds would be of others. "
            "Bring those back, or measure the earlier target on these"
        )


def _name(target: Target, recipe: BenchRecipe) -> str:
    """Of the folder: one for each version of a target and each protocol."""
    protocol = hashlib.sha256(json.dumps(recipe.fixed(), sort_keys=True).encode()).hexdigest()
    return f"against-{target.fingerprint()[:12]}-{protocol[:8]}"


def _checks(
    before: ComparableResult, now: Mapping[str, Any], last: Mapping[str, Any], arms: list[str]
) -> tuple[list[Check], list[str]]:
    """(a check of each arm, notes of the comparison)."""
    arms_now = now["scores"]["arms"]
    checks, whole = [], []
    for arm in arms:
        lost = [seed for seed in before.scores.arms[arm].seeds if seed not in arms_now.get(arm, {}).get("seeds", ())]
        if lost:
            reasons = arms_now.get(arm, {}).get("invalid", {})
            reason = "; ".join(sorted({*reasons.values()})) or "it was not measured"
            message = f"{len(lost)} of {len(before.scores.arms[arm].seeds)} seeds could not be measured: {reason}"
            checks.append(Check(_title(arm), "invalid", message))
        else:
            whole.append(arm)
    if not whole:
        return checks, []
    compared = compare(now, last)
    checks += [compared_check(arm, compared["arms"][arm]) for arm in whole]
    return checks, compared["notes"]


def compared_check(arm: str, row: Mapping[str, Any]) -> Check:
    """The check of an arm, from its row of `compare`, now against before.

    Censoring by the budget: if every seed is censored now, the target is not shown to be easier, and the arm passes. If
    seeds were censored before and are not now, the ratio has no lower bound, and the arm fails. If both happen the ratio
    has no bound at all, which is invalid; so is a single pair.
    """
    ratio, pairs, (now, then) = row["q50_ratio"], len(row["seeds"]), row["censored"]
    name, within = _title(arm), f"within {row['queries']:,} queries"
    figures = {"q50_ratio": ratio["value"], "low": ratio["low"], "high": ratio["high"], "pairs": float(ratio["number"])}
    if now == pairs:
        were = "neither now nor before" if then == pairs else f"in no seed now, before in {pairs - then} of {pairs}"
        return Check(name, "passes", f"half of the classes are not accepted {within}, {were}", figures)
    if ratio["value"] is None:
        message = (
            f"half of the classes are not accepted {within} in {now} of {pairs} seeds now and in {then} before (other "
            "seeds), so the ratio has no bound: measure both with more queries"
        )
        return Check(name, "invalid", message, figures)
    bound = {"=": "", ">=": "at least ", "<=": "at most "}[ratio["bound"]]
    limits = " to ".join("unbounded" if ratio[k] is None else f"{ratio[k]:.2f}" for k in ("low", "high"))
    left = pairs - ratio["number"]
    message = (
        f"it takes {bound}{ratio['value']:.2f} times the queries of before (95%: {limits}; {ratio['number']} "
        f"pair{'s' * (ratio['number'] != 1)} of seeds"
        + (f", {left} more are not done {within}, neither now nor before)" if left else ")")
    )
    if row["same"]:
        return Check(name, "passes", f"{message}: every class as before", figures)
    if ratio["number"] < 2:
        return Check(
            name, "invalid", f"{message}: a single pair has no interval; use more seeds, or a larger budget", figures
        )
    if ratio["low"] is not None and ratio["low"] >= EASIER:
        return Check(name, "passes", message, figures)
    if ratio["low"] is None:
        hint = "; that may be chance, or the end of the budget: use more queries" if ratio["high"] >= EASIER else ""
    else:
        hint = (
            "" if ratio["high"] is not None and ratio["high"] < 1 else "; that may be chance: more seeds narrow the interval"
        )
    return Check(name, "fails", f"{message}: at least {EASIER:g} is not shown{hint}", figures)


def _title(arm: str) -> str:
    return f"{arm}: Q50 against before"
