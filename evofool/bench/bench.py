"""A benchmark: targets x arms x seeds, each cell an ordinary run; an interrupted benchmark continues with the same call.

Each stage takes the objects of the one before and makes new ones: entries -> prepare (PreparedTarget or InvalidTarget) ->
plan_cells (CellPlan) -> run_cells -> collect_cells (CollectedCells) -> score_target (ScoredTarget) -> JSON and report.
"""

from pathlib import Path

from threadpoolctl import threadpool_limits

from evofool.bench.cell_plan import CellPlan, plan_cells
from evofool.bench.entries import entries, training_jobs, weights_file
from evofool.bench.finish import BenchOutcome, finish
from evofool.bench.manifest import Manifest, open_manifest
from evofool.bench.plan import BenchRecipe
from evofool.bench.prepare import InvalidTarget, PreparedTarget, prepare
from evofool.bench.real import DIGITS
from evofool.bench.scheduler import run_cells, train_networks
from evofool.bench.surrogate_stage import refuse_surrogates
from evofool.cluster.settings import RayOptions
from evofool.errors import Interrupted, RecipeError, TargetError
from evofool.machine import torch_threads
from evofool.sweep.runner import OnProgress, Workers, WorkProgress, reporter
from evofool.sweep.status import StatusFile
from evofool.targets import check_spec
from evofool.targets import target as load_target


def run_bench(recipe: BenchRecipe, folder: Path, on_progress: OnProgress = lambda progress: False) -> BenchOutcome:
    """Run a benchmark in a folder, or continue it there; write results, tables and the report.

    A cell that is done is not run again. A target that cannot be measured (its validation fails, the real images do not fit
    it, its weights have changed since the folder was created) is marked invalid and left out of every figure; the others
    are measured. RecipeError or StoreError where nothing can be started.
    """
    with open_manifest(recipe, folder) as manifest, StatusFile(folder) as status:

        def report(progress: WorkProgress) -> bool:
            if not progress.total:
                status.message(progress.message)
            return on_progress(progress)

        try:
            prepared = _prepare_all(recipe, manifest, report, status)
            # One thread: their number changes the last bits of what detectors are fitted to.
            with torch_threads(1), threadpool_limits(1):
                targets = [
                    target if isinstance(target, InvalidTarget) else plan_cells(recipe, target, folder, reporter(report))
                    for target in prepared
                ]
            plans = [target for target in targets if isinstance(target, CellPlan)]
            cells = [job for plan in plans for job in plan.all_cells]
            outcome = run_cells(cells, folder, _workers(recipe), report, status)
            if outcome.interrupted:
                raise Interrupted
            failures = {job.folder: failure for job, failure in zip(cells, outcome.failures, strict=True)}
            with torch_threads(1):
                return finish(recipe, targets, failures, folder, reporter(report))
        except Interrupted:
            status.state = "interrupted"
            return BenchOutcome(folder, {}, {}, True, ())


def _prepare_all(
    recipe: BenchRecipe, manifest: Manifest, on_progress: OnProgress, status: StatusFile
) -> list[PreparedTarget | InvalidTarget]:
    """Train the networks that are missing, and prepare every target."""
    folder = manifest.folder
    refuse_surrogates(recipe.surrogates, recipe.arms)
    _refuse_missing(recipe)
    listed = entries(recipe, folder, manifest.pinned())
    manifest.set_names(listed)
    jobs = training_jobs(listed, folder)
    trained = train_networks(jobs, folder, _workers(recipe), on_progress, status) if jobs else None
    if trained and trained.interrupted:
        raise Interrupted
    failures = trained.failures if trained else ()
    untrained = {job["folder"]: failure for job, failure in zip(jobs, failures, strict=True) if failure}
    prepared: list[PreparedTarget | InvalidTarget] = []
    for number, entry in enumerate(listed, 1):
        where = f"{entry.name} ({number} of {len(listed)})"
        fault = untrained.get(str(weights_file(entry, folder).parent)) if entry.defence else None
        reporter(on_progress)(where)
        if fault:
            prepared.append(InvalidTarget(entry, fault))
        else:
            prepared.append(prepare(recipe, entry, manifest, reporter(on_progress, f"{where}: ")))
    return prepared


def _workers(recipe: BenchRecipe) -> Workers:
    return Workers(recipe.workers, RayOptions(**recipe.ray.model_dump()))


def _refuse_missing(recipe: BenchRecipe) -> None:
    """RecipeError for a target, folder or network that is needed, perhaps only at the end, and does not exist."""
    for part in recipe.targets:
        if part.target is not None:
            try:
                check_spec(part.target)
            except TargetError as error:
                raise RecipeError(f"targets: {error}") from None
    if recipe.images != DIGITS and not Path(recipe.images).is_dir():
        raise RecipeError(f"images: there is no folder {recipe.images} of labelled real images (or write {DIGITS})")
    if recipe.detectors and recipe.detectors.fit not in (None, DIGITS) and not Path(recipe.detectors.fit or "").is_dir():
        raise RecipeError(f"detectors.fit: there is no folder {recipe.detectors.fit} of real images")
    if recipe.image_metrics and recipe.image_metrics.network:
        try:
            load_target(recipe.image_metrics.network)
        except TargetError as error:
            raise RecipeError(f"image_metrics.network: {error}") from None
