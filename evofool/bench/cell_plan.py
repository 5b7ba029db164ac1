"""Which cells a target of a benchmark needs: one for each arm and seed, and those against its detectors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evofool.bench.arms import SURROGATE, is_applicable
from evofool.bench.cell_job import CellJob
from evofool.bench.detector_stage import FittedDetectors, fit_detectors
from evofool.bench.gradient_stage import ArmGradients, choose_gradients
from evofool.bench.manifest import CELLS
from evofool.bench.plan import BenchRecipe
from evofool.bench.prepare import PreparedTarget
from evofool.bench.surrogate_stage import ArmSurrogates, choose_surrogates
from evofool.targets import is_black_box
from evofool.targets import target as load_target


@dataclass(frozen=True)
class CellPlan:
    """The cells of a target. guarded: by the name of a detector, the cells of the target that it guards.

    detectors: None unless the recipe has detectors. surrogates: none without the arm of that name. gradients: of the
    white-box arms. warnings: for the user.
    """

    prepared: PreparedTarget
    cells: tuple[CellJob, ...]
    guarded: dict[str, tuple[CellJob, ...]]
    detectors: FittedDetectors | None
    surrogates: ArmSurrogates
    gradients: ArmGradients
    warnings: tuple[str, ...]

    @property
    def all_cells(self) -> tuple[CellJob, ...]:
        """All cells, the guarded ones last."""
        return (*self.cells, *(job for jobs in self.guarded.values() for job in jobs))


def plan_cells(
    recipe: BenchRecipe, prepared: PreparedTarget, folder: Path, report: Callable[[str], None] = lambda message: None
) -> CellPlan:
    """The cells of a target, below folder/cells; the recipe's detectors are fitted to it, since some cells attack them.

    report is called with what is being done, and what it raises passes through.
    """
    target = prepared.target
    surrogates = ArmSurrogates()
    if SURROGATE in recipe.arms:
        surrogates = choose_surrogates(recipe.surrogates, prepared, folder, report)
    gradients = choose_gradients(target, recipe.arms, recipe.budget, len(prepared.classes), recipe.settings(), prepared.real)
    cells_folder = (folder / CELLS / prepared.name).absolute()
    warnings: list[str] = [*surrogates.warnings]

    def job(arm: str, seed: int, name: str, spec: str, fingerprint: str) -> CellJob:
        changes = tuple(recipe.changes(arm))
        return CellJob(
            cells_folder / name,
            spec,
            arm,
            seed,
            recipe.budget,
            prepared.classes,
            changes,
            recipe.format,
            fingerprint=fingerprint,
            surrogates=surrogates.networks if arm == SURROGATE else (),
            gradients=gradients.of(arm),
            features=str(prepared.features.file.absolute()) if prepared.features.file and spec == target.name else "",
            queries_per_image=target.queries_per_image,
        )

    arms = [arm for arm in recipe.arms if is_applicable(arm, target) and arm not in gradients.left_out]
    if SURROGATE in arms and not surrogates.networks:
        arms.remove(SURROGATE)
        warnings.append(f"{SURROGATE}: none of the named networks can be a surrogate of this target; left out")
    if left_out := [arm for arm in recipe.arms if not is_applicable(arm, target)]:
        warnings.append(f"{', '.join(left_out)}: need gradients, and this target gives none; left out")
    if gradients.masked:
        warnings.insert(0, gradients.message(recipe.arms))
    fingerprint = target.fingerprint()
    cells = [job(arm, seed, f"{arm}-{seed}", target.name, fingerprint) for arm in arms for seed in recipe.each_seed]
    detectors = fit_detectors(recipe.detectors, prepared, folder) if recipe.detectors else None
    guarded: dict[str, tuple[CellJob, ...]] = {}
    if recipe.detectors and detectors:
        warnings += detectors.warnings
        arm = recipe.detectors.arm
        for name, spec in detectors.guarded.items():
            fingerprint = load_target(spec).fingerprint()
            guarded[name] = tuple(
                job(arm, seed, f"{arm}-against-{name}-{seed}", spec, fingerprint) for seed in recipe.each_seed
            )
    if is_black_box(target.name):
        warnings.append(
            "a black box: its calibration and each of its cells keep bills of their own, and max_requests is the cap of each"
        )
    return CellPlan(prepared, tuple(cells), guarded, detectors, surrogates, gradients, tuple(warnings))
