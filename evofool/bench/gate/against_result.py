"""A gate for CI: has a target become easier to fool than it was in an earlier result?"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.acceptance import LEVELS
from evofool.bench.arms import SURROGATE
from evofool.bench.bench import run_bench
from evofool.bench.calibration import scored_classes
from evofool.bench.compare import (
    ComparableResult,
    differences,
    read_result,
    refuse_other_answers,
    refuse_other_classes,
    refuse_other_protocol,
)
from evofool.bench.gate.against_arms import (
    ArmChoice,
    attacks_classes_apart,
    choose_arms,
    title,
    without_masked,
)
from evofool.bench.gate.against_check import CONFIDENCE, arm_check
from evofool.bench.gate.arm_cells import with_cells
from evofool.bench.gate.earlier import EarlierResults, queries, read_earlier
from evofool.bench.gate.gate_folder import gate_folder, mark_verdict_given
from evofool.bench.gate.gate_verdict import Check, GateVerdict
from evofool.bench.gate.log_ratio import LogPairs
from evofool.bench.gate.strict import refuse_few
from evofool.bench.headline import FOOLED, headline_details, headline_lines
from evofool.bench.plan import BenchRecipe, parse
from evofool.bench.real import DIGITS, RealImages, real_images, sha256, with_progress
from evofool.bench.surrogate_stage import usable_surrogates
from evofool.errors import ImageError, Interrupted, RecipeError
from evofool.sweep.runner import OnProgress, reporter
from evofool.targets import Target
from evofool.targets import target as load_target

RANK = "margin"


@dataclass(frozen=True)
class AgainstRule:
    """How the target is compared.

    strict: it passes only if it is shown that it did not become easier to fool; otherwise it fails only if it is shown that
    it did. arms: those that are measured, all of which decide; if none are named, all are measured and the default ones
    decide.
    """

    strict: bool = False
    arms: Sequence[str] = ()


def against(
    spec: str,
    last: Sequence[Mapping[str, Any]],
    images: str | None,
    folder: Path,
    rule: AgainstRule = AgainstRule(),
    on_progress: OnProgress = lambda _: False,
    workers: int = 0,
    surrogates: Sequence[str] = (),
) -> GateVerdict:
    """Measure a target by the protocol of earlier results, and compare: a check for each arm that searches (arm_check).

    last: the JSON of one result, or of several trainings of a network, whose differences are then allowed for.
    images: their labelled real images; None for the digits that they were measured on. surrogates: the specs of the
    surrogates now; by default those of the result. folder: has a benchmark for each version of the target and each
    protocol, which the same call continues. RecipeError, TargetError, ImageError or StoreError, before anything is measured,
    for results that cannot be compared, and for a strict gate with too few seeds or trainings. Interrupted if on_progress
    returns True.
    """
    began = time.perf_counter()
    given = read_earlier(last)
    target = load_target(spec, folder / "target")
    answers = int(target.details.get("average", 1))
    earlier = given if given.first.target.average == answers else given.averaged(answers)
    before = earlier.first
    source = images or (DIGITS if before.images.source == DIGITS else None)
    if source is None:
        raise RecipeError(f"the result was measured on real images of {before.images.source}: name them by --images DIR")
    refuse_other_answers((target.name, "before"), (target.details, before.target.model_dump()))
    choice = choose_arms(earlier, target, rule.arms)
    if SURROGATE in choice.measured:
        surrogates = surrogates or [network.name for network in before.surrogates]
        if message := _other_surrogates(before, target, surrogates):
            choice.leave_out(SURROGATE, message)
    elif surrogates:
        raise RecipeError(f"--surrogate is for results with the arm {SURROGATE}, which this one does not have")
    if not choice.measured and not choice.checks:
        raise RecipeError(f"no arm of the earlier result can be measured: {'; '.join(choice.notes)}")
    notes = [*choice.notes, _question(earlier, rule.strict)]
    if earlier is not given:
        then = given.first.target.average
        notes.append(
            f"an answer is the mean of {answers} now and of {then} before: the budget, and the queries of before, are "
            f"{answers / then:g} times as many here, so that images are compared"
        )
    if len(earlier) == 2:
        notes.append("two trainings hardly tell how much trainings differ, so that little can be shown: give at least three")
    if choice.checks:
        return GateVerdict(target.name, choice.checks, time.perf_counter() - began, notes)
    if rule.strict:
        notes += refuse_few(earlier, choice.deciding)
    recipe = _recipe(before, choice.measured, spec, source, workers, surrogates)
    _refuse_other_images(before, target, with_progress(real_images(source, target), reporter(on_progress)))
    work_folder = gate_folder(folder, _name(target, recipe), target)
    outcome = run_bench(recipe, work_folder, on_progress)
    if outcome.interrupted:
        raise Interrupted
    mark_verdict_given(work_folder, target)
    ((name, now),) = outcome.results.items()
    faults = [flag["message"] for flag in now["flags"] if flag["level"] == "invalid"]
    if not now["valid"]:
        checks = [Check("evaluation", "invalid", "; ".join(faults) or "no arm has a valid cell")]
    else:
        measured = read_result(now, "the result now")
        refuse_other_protocol(measured, before)
        notes += [note for each in earlier.results for note in differences(measured, each) if note not in notes]
        before_measured = len(choice.notes)
        choice = without_masked(choice, measured, earlier)
        notes += choice.notes[before_measured:]
        if rule.strict:
            notes += [note for note in refuse_few(earlier, choice.deciding) if note not in notes]
        compared = {arm: _check(arm, measured, earlier, choice, rule.strict) for arm in choice.measured}
        cells = outcome.cells[name]
        checks = [*choice.checks]
        checks += [with_cells(check, arm, list(cells.get(arm, {}).values()), work_folder) for arm, check in compared.items()]
    notes += [flag["message"] for flag in now["flags"] if flag["level"] != "invalid"]
    lines, details = ([*headline_lines(now), FOOLED], headline_details(now)) if now["scores"]["headline"] else ([], "")
    return GateVerdict(now["target"]["name"], checks, time.perf_counter() - began, notes, lines, details)


def _other_surrogates(before: ComparableResult, target: Target, specs: Sequence[str]) -> str:
    """What is wrong if these are not the surrogates of before, or ""."""
    networks, _ = usable_surrogates(specs, target)
    if [network.fingerprint() for network in networks] == [network.fingerprint for network in before.surrogates]:
        return ""
    then = ", ".join(network.name for network in before.surrogates)
    return (
        f"{', '.join(specs)} are not the surrogates of before, {then} (labels, preprocessing or weights differ): name those "
        "by --surrogate, in the same order"
    )


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
        "classes": protocol.classes,
        "seeds": number,
        "first_seed": first,
        "format": protocol.format,
        "arm": {arm: {"set": changes} for arm in arms if (changes := protocol.changes(arm))},
        "surrogates": surrogates if SURROGATE in arms else (),
        "workers": workers,
    }
    return parse(data, "the protocol of the earlier result")


def _refuse_other_images(before: ComparableResult, target: Target, real: RealImages) -> None:
    """RecipeError for other classes, ImageError for other pixels than those of before."""
    labels, most = np.array(target.labels), before.protocol.classes
    refuse_other_classes(
        (target.name, "before"),
        (target.labels, before.target.labels),
        (labels[~scored_classes(real.classes, len(labels), most)].tolist(), before.images.unscored),
        "" if most is None else f"; of all classes {most:,} are scored, chosen by the order of the labels: keep that order",
    )
    seen = sha256(real)
    if seen != before.images.sha256 and not real.files:
        raise ImageError(
            f"the earlier result was measured on the real images of a folder called {before.images.source}, and the "
            f"built-in digits are others (SHA-256 {seen[:12]}..., before {before.images.sha256[:12]}...): name that "
            "folder by --images DIR"
        )
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


def _check(arm: str, now: ComparableResult, earlier: EarlierResults, choice: ArmChoice, strict: bool) -> Check:
    seeds, found = earlier.seeds(arm), now.scores.arms.get(arm)
    lost = [seed for seed in seeds if found is None or seed not in found.seeds]
    decides = arm in choice.deciding
    if lost:
        reason = "; ".join(sorted({*found.invalid.values()})) if found else ""
        message = f"{len(lost)} of {len(seeds)} seeds could not be measured: {reason or 'they were not measured'}"
        return Check(title(arm), "invalid" if decides else "informs", message if decides else f"does not decide: {message}")
    apart = attacks_classes_apart(arm, earlier.gradients(arm) | {now.scores.arms[arm].gradients})
    pairs = LogPairs(queries(now, arm, seeds, earlier.labels), earlier.queries(arm, seeds), now.budget, apart)
    # Any deciding arm can fail a default gate, so they share its error; a strict one passes only where all of them do.
    confidence = CONFIDENCE if strict else 1 - (1 - CONFIDENCE) / max(1, len(choice.deciding))
    return arm_check(arm, pairs, decides=decides, strict=strict, confidence=confidence)


def _question(earlier: EarlierResults, strict: bool) -> str:
    """Which question the verdict answers."""
    asked = f"is it shown that the target {'did not become' if strict else 'became'} easier to fool than"
    if len(earlier) > 1:
        chance = "in spite of the differences between them" if strict else "by more than trainings differ by chance"
        return f"{asked} the {len(earlier)} earlier trainings, {chance}?"
    return (
        f"{asked} this one earlier network? A network that is trained again differs by chance, and a single result cannot "
        "tell by how much: give several trainings (--against A.json B.json C.json) to allow for that"
    )
