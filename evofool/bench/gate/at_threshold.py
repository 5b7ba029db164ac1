"""A gate for CI: is a target too easily fooled at the acceptance threshold that it is deployed with?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evofool import scores
from evofool.bench.acceptance_rule import AcceptanceRule
from evofool.bench.arms import ARMS, CLIMBED, SURROGATE, all_changes, refuse_small, refuse_unknown
from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.cell import is_done, read_record
from evofool.bench.cell_job import CellJob, JobSurrogate
from evofool.bench.gate.arm_cells import with_cells
from evofool.bench.gate.gate_folder import gate_folder, mark_verdict_given
from evofool.bench.gate.gate_verdict import Check, GateVerdict
from evofool.bench.gradient_stage import choose_gradients
from evofool.bench.interval import format_limits
from evofool.bench.real import real_images, with_progress
from evofool.bench.scheduler import run_cells
from evofool.bench.statistics import share_interval
from evofool.bench.surrogate_stage import refuse_surrogates, usable_surrogates
from evofool.errors import Interrupted, RecipeError
from evofool.machine import torch_threads
from evofool.run.stored import StoredRun
from evofool.sweep.folder import locked_folder
from evofool.sweep.runner import OnProgress, Workers, reporter
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.labels import is_rejection
from evofool.targets.validation import validate

KEPT = 0.5  # of real images: a rule that rejects everything cannot be fooled


@dataclass(frozen=True)
class GateAttacks:
    """The attacks of a gate: arms, queries of each cell over all classes, the number of seeds, and the surrogates' specs."""

    arms: Sequence[str]
    budget: int
    seeds: int
    surrogates: Sequence[str] = ()


def threshold(
    spec: str,
    accept: AcceptanceRule,
    attacks: GateAttacks,
    *,
    max_fooled: float,
    folder: Path,
    images: str | None = None,
    on_progress: OnProgress = lambda _: False,
    workers: int = 0,
) -> GateVerdict:
    """Attack a target, and measure in how many classes it accepts an image by the rule that it is deployed with.

    A rejection class (targets.labels.is_rejection) is neither attacked nor counted: an image in it fools nobody. An arm
    fails if the mean share over seeds is above `max_fooled`. Without real images nothing is calibrated. With them, a
    check gives the share of the correctly classified ones that the rule accepts; below KEPT nothing is attacked. Searches
    rank as the rule does. Arms that need gradients are left out if the target gives none. RecipeError if no arm is left that
    attacks, or if the budget is too small for the classes. Interrupted if on_progress returns True.
    """
    began = time.perf_counter()
    _refuse_arms(attacks.arms)
    refuse_surrogates(attacks.surrogates, attacks.arms)
    target = load_target(spec, folder / "target")
    usable, surrogates, notes = _usable(attacks, target)
    classes = tuple(c for c, label in enumerate(target.labels) if not is_rejection(label))
    refuse_small(usable, attacks.budget, len(classes), target.name, per_image=target.queries_per_image)

    def verdict(*checks: Check) -> GateVerdict:
        return GateVerdict(target.name, checks, time.perf_counter() - began, notes)

    rank, fingerprint = "margin" if accept.kind == "margin" else "log_odds", target.fingerprint()
    work_folder = gate_folder(folder, f"accept-{fingerprint[:12]}-{rank}-{attacks.budget}", target)
    if target.counts_persist:
        target.ignore_cache()  # its answers to an earlier gate may be outdated
    with locked_folder(work_folder, "gate"):
        with torch_threads(1):
            checked = validate(target, 32, probe=True)  # as many images as calibrate scores at once
            notes += checked.notes
            if checked.faults:
                return verdict(Check("validation", "invalid", "; ".join(checked.faults)))
            real, kept = None, []
            if images is not None:
                real = with_progress(real_images(images, target), reporter(on_progress))
                kept.append(_kept(accept, calibrate(target, real, keep=work_folder / "real-images.answers"), target.name))
        if any(check.status == "invalid" for check in kept):
            return verdict(*kept)
        gradients = choose_gradients(target, usable, attacks.budget, len(classes), real=real)
        notes += [gradients.message(usable)] if gradients.masked else []
        usable = [arm for arm in usable if arm not in gradients.left_out]
        if all(ARMS[arm].kind == "floor" for arm in usable):
            message = (
                f"{gradients.message(gradients.left_out)}; no other arm attacks: raise --budget, or add one of the others"
            )
            return verdict(*kept, *(Check(arm, "fails", message, arm=arm) for arm in gradients.left_out))
        jobs = [
            CellJob(
                work_folder / f"{arm}-{seed}",
                target.name,
                arm,
                seed,
                attacks.budget,
                classes,
                all_changes(arm, ()),
                rank=rank,
                fingerprint=fingerprint,
                surrogates=surrogates if arm == SURROGATE else (),
                gradients=gradients.of(arm),
                queries_per_image=target.queries_per_image,
            )
            for arm in usable
            for seed in range(attacks.seeds)
        ]
        outcome = run_cells(jobs, work_folder, Workers(workers), on_progress)
        if outcome.interrupted:
            raise Interrupted
        checks = []
        for arm in usable:
            cells = [(job, failure) for job, failure in zip(jobs, outcome.failures, strict=True) if job.arm == arm]
            check = _fooled(arm, cells, accept, max_fooled)
            checks.append(with_cells(check, arm, [job.folder for job, _ in cells], work_folder))
        mark_verdict_given(work_folder, target)
    return verdict(*kept, *checks)


def _refuse_arms(arms: Sequence[str]) -> None:
    refuse_unknown(arms)
    if len({*arms}) != len(arms):
        raise RecipeError(f"an arm is named twice: {', '.join(arms)}")
    if all(ARMS[arm].kind == "floor" for arm in arms):
        raise RecipeError(
            f"--arms {','.join(arms)}: none of them attacks; add some of "
            + ", ".join(arm for arm, row in ARMS.items() if row.kind != "floor")
        )


def _usable(attacks: GateAttacks, target: Target) -> tuple[list[str], tuple[JobSurrogate, ...], list[str]]:
    """(the arms that the target can be attacked by, its surrogates, notes on what is left out)."""
    networks, notes = usable_surrogates(attacks.surrogates, target)
    blind = [arm for arm in attacks.arms if ARMS[arm].kind == "white" and not target.differentiable]
    alone = [arm for arm in attacks.arms if arm == SURROGATE and not networks]
    left = [arm for arm in attacks.arms if arm not in (*blind, *alone)]
    if all(ARMS[arm].kind == "floor" for arm in left):
        why = [f"{target.name} gives no gradients, needed by {', '.join(blind)}"] if blind else []
        why += [f"none of the named networks can be a surrogate of {target.name}"] if alone else []
        raise RecipeError(
            f"{', '.join(why)}, and no other arm attacks: "
            "add some of " + ", ".join(arm for arm, row in ARMS.items() if row.kind in ("search", "black"))
        )
    notes += [f"{arm}: left out; it needs gradients, which {target.name} does not give" for arm in blind]
    notes += [f"{arm}: left out; none of the named networks can be a surrogate of {target.name}" for arm in alone]
    return left, tuple(JobSurrogate(network.name, network.fingerprint()) for network in networks), notes


def _kept(accept: AcceptanceRule, calibration: Calibration, who: str) -> Check:
    """Whether the rule accepts real images."""
    name = "real images"
    if faults := calibration.faults(who):
        return Check(name, "invalid", "; ".join(faults))
    rows, classes = np.arange(len(calibration.classes)), calibration.classes
    margins = scores.margin(calibration.logits)[rows, classes]
    kept = accept.accepts(scores.log_odds(calibration.logits)[rows, classes], margins)[calibration.correct]
    share = float(kept.mean())
    message = f"{accept} keeps {share:.3f} of {len(kept):,} real images that are classified correctly"
    if share < KEPT:
        return Check(name, "invalid", f"{message}: a rule that rejects most of them is useless", {"kept": share})
    return Check(name, "passes", message, {"kept": share})


def _fooled(arm: str, cells: Sequence[tuple[CellJob, str]], accept: AcceptanceRule, max_fooled: float) -> Check:
    """The check of an arm. cells: each with why it failed, or ""."""
    counts = []
    for job, failure in cells:
        record = read_record(job.folder) if is_done(job) else None
        if failure or record is None:
            return Check(arm, "invalid", f"seed {job.seed}: {failure or 'it is not done'}")
        if record["faults"]:
            message = f"seed {job.seed}: its saved images do not score what was stored: {record['faults'][0]}"
            return Check(arm, "invalid", message)
        with StoredRun(job.folder) as stored:
            rows = [elite.row for elite in stored.listed()]
        accepted = accept.accepts(np.array([row.log_odds for row in rows]), np.array([row.margin for row in rows]))
        counts.append(int(accepted.sum()))
    job, seeds = cells[0][0], len(cells)
    classes = len(job.classes)
    share = sum(counts) / (classes * seeds)  # of integers: a mean of rounded shares can exceed them
    interval = share_interval([count / classes for count in counts], None, classes)
    limits = format_limits(interval.to_dict(), lambda share: f"{share:.0%}")
    limits = limits and f" (95%: {limits})"
    climbed = f" {CLIMBED[job.gradients.kind]}" if job.gradients else ""
    message = (
        f"{share * classes:.4g} of {classes:,} classes ({share:.0%}) are fooled{climbed} at {accept} "
        f"within {job.queries:,} queries, over {seeds} seed{'s' * (seeds != 1)}{limits}; "
        f"at most {100 * max_fooled:.4g}% are allowed"
    )
    figures = {"share": share, "low": interval.low, "high": interval.high, "max_fooled": max_fooled}
    return Check(arm, "passes" if share <= max_fooled else "fails", message, figures)
