"""The retraining loop of Nguyen 2015, section 3.5: train, evolve fooling images, train again with these, and so on."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evofool.bench.retraining.training import (
    WITH_OUTLIERS,
    is_trained,
    network_metadata,
    refuse_unknown_defence,
    save_network,
    seed_of,
    train,
)
from evofool.errors import RecipeError, StoreError
from evofool.images import save_picture
from evofool.json_file import read_json, write_json
from evofool.recipe import Recipe, load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target, target
from evofool.targets.digits import training_half
from evofool.targets.labels import is_rejection

SCHEMA, VERSION = "evofool.retrain", 2
FILE = "retrain.json"
SHEET = "elites.png"  # of each run
_GROWS = ("iterations", "repeats")  # keys that may change after a plan has begun
_TRAINING, _EVOLUTION = 0, 1  # keys of seeds

OnProgress = Callable[[str], bool]
"""Called with a line of progress; returns True to stop the work."""


@dataclass(frozen=True)
class RetrainingPlan:
    """The settings of a retraining.

    repeats: independent repetitions, each of `iterations` networks. searches: against each network, each with `evaluations`
    evaluations. fooling_share: of fooling images among the images that a network is trained on, reached by repeating them;
    in the paper it rose from 6,000 in 66,000 to 20,000 in 80,000 [recalled]. changes: KEY=VALUE changes of the recipe, as
    for --set.
    """

    iterations: int = 5
    repeats: int = 1
    defence: str = "reject-class"
    fooling_share: float = 0.1
    searches: int = 3
    evaluations: int = 5_000
    encoding: str = "cppn"
    seed: int = 0
    epochs: int = 36
    changes: tuple[str, ...] = ()

    def check(self) -> None:
        """RecipeError, with the reason, for a plan that cannot be carried out."""
        refuse_unknown_defence(self.defence)
        if self.defence not in WITH_OUTLIERS:
            raise RecipeError(
                f"--defence {self.defence}: retraining adds fooling images to the training set, which only "
                f"{' and '.join(WITH_OUTLIERS)} learn from. Choose one of these, or measure such a network with "
                f'train = "{self.defence}" in [[targets]] of a bench recipe'
            )
        if self.encoding not in ("cppn", "direct"):
            raise RecipeError(f'there is no encoding "{self.encoding}" of digits; there are cppn and direct')
        if not 0 < self.fooling_share < 1:
            raise RecipeError(
                f"--fooling-share {self.fooling_share:g} has to lie between 0 and 1, exclusive: a share of the training set"
            )
        for change in self.changes:
            key = change.partition("=")[0].strip()
            if key == "search.seed":
                raise RecipeError(f"--set {change}: each search has a seed of its own; --seed N keys them all")
            if key.partition(".")[0] not in ("search", "stop", "encoding", "compute", "niches", "save"):
                raise RecipeError(
                    f"--set {change}: only search.*, stop.*, encoding.*, niches.*, compute.* and save.* are free"
                )
        self.recipe(0)

    def recipe(self, seed: int) -> Recipe:
        """The recipe of one evolution: the shipped one of the encoding, with a fixed number of evaluations, in float32."""
        fixed = ["stop.confidence=", f"stop.evaluations={self.evaluations}", "compute.format=float32"]
        shipped = load(f"mnist-{self.encoding}", [*fixed, f"search.seed={seed}"])
        return shipped.changed(self.changes, "--set")


class Stopped(Exception):
    """on_progress returned True. Finished work is kept."""


def retrain(plan: RetrainingPlan, folder: Path, on_progress: OnProgress = lambda text: False) -> None:
    """Carry out a plan in its folder, or continue it. Raises Stopped as soon as on_progress returns True.

    Existing networks and runs are not made again, so work that was killed at any point ends with the same bits. The
    folder has run-R/iteration-I/network.safetensors and run-R/iteration-I/evolution-E, an ordinary run. RecipeError if the
    folder has another plan; only iterations and repeats may change.
    """
    plan.check()
    begin(plan, folder)
    for run in range(1, plan.repeats + 1):
        for iteration in range(1, plan.iterations + 1):
            prefix = f"repeat {run} of {plan.repeats}, network {iteration} of {plan.iterations}"
            network_folder = iteration_folder(folder, run, iteration)
            weights = make_network(plan, folder, run, iteration, _prefixed(on_progress, f"{prefix}: "))
            attacked: Target | None = None
            for evolution in range(1, plan.searches + 1):
                run_folder = network_folder / f"evolution-{evolution}"
                if not finished(run_folder):
                    attacked = attacked or target(f"lenet?weights={weights.absolute()}")
                    recipe = plan.recipe(seed_of(plan.seed, _EVOLUTION, run << 40 | iteration << 20 | evolution))
                    evolve(
                        recipe,
                        run_folder,
                        attacked,
                        _prefixed(on_progress, f"{prefix}: search {evolution} of {plan.searches}, "),
                    )
                if not (run_folder / SHEET).exists():
                    draw_sheet(run_folder)


def _prefixed(on_progress: OnProgress, before: str) -> OnProgress:
    return lambda text: on_progress(before + text)


def begin(plan: RetrainingPlan, folder: Path) -> None:
    """Write the plan to the folder's file. If there is one already, RecipeError unless the plans agree."""
    path = folder / FILE
    new = asdict(plan) | {"changes": list(plan.changes)}
    if not path.exists():
        write_json(path, {"schema": SCHEMA, "version": VERSION, "plan": new, "iterations": []})
        return
    stored = read_json(path, SCHEMA, VERSION, "take another --out").get("plan")
    if not isinstance(stored, dict):
        raise StoreError(f"{path} is damaged: it has no plan; take another --out")
    for key, value in new.items():
        if key not in _GROWS and stored.get(key) != value:
            raise RecipeError(
                f"{folder} has a retraining with {key} = {stored.get(key)!r}, and this plan has {value!r}; only "
                f"{' and '.join(_GROWS)} may change: take another --out"
            )


def iteration_folder(folder: Path, run: int, iteration: int) -> Path:
    return folder / f"run-{run}" / f"iteration-{iteration}"


def make_network(plan: RetrainingPlan, folder: Path, run: int, iteration: int, on_progress: OnProgress) -> Path:
    """Train one network, unless it exists; its file. The first is trained on digits only, each later one also on the fooling
    images of all earlier networks of its run."""
    path = iteration_folder(folder, run, iteration) / "network.safetensors"
    seed = seed_of(plan.seed, _TRAINING, run << 40 | iteration << 20)
    defence = "none" if iteration == 1 else plan.defence
    metadata = network_metadata(
        seed, defence, plan.epochs, f"fooling images of {iteration - 1} networks before it", plan.fooling_share
    )
    if is_trained(path, metadata):
        return path

    def progress(done: int, epochs: int) -> None:
        if on_progress(f"epoch {done} of {epochs}"):
            raise Stopped("stopped while a network was trained")

    fooling = None if iteration == 1 else fooling_images(folder, run, iteration - 1, plan.searches)
    images, labels = training_half()
    made = train(
        seed, defence, images, labels, fooling=fooling, share=plan.fooling_share, epochs=plan.epochs, progress=progress
    )
    save_network(made, path, metadata)
    return path


def fooling_images(folder: Path, run: int, iterations: int, evolutions: int) -> np.ndarray:
    """uint8 (M, 1, 28, 28): the distinct images that fooled the first `iterations` networks of a run, oldest first."""
    run_folders = [
        iteration_folder(folder, run, i) / f"evolution-{e}"
        for i in range(1, iterations + 1)
        for e in range(1, evolutions + 1)
    ]
    seen: dict[bytes, np.ndarray] = {}
    for run_folder in run_folders:
        with StoredRun(run_folder) as stored:
            for image in champions(stored):
                seen.setdefault(image.tobytes(), image)
    if not seen:
        raise RecipeError(
            f"{folder}: no image has fooled the networks up to {iterations} of run {run}; try more --evaluations"
        )
    return np.stack(list(seen.values()))


def champions(stored: StoredRun) -> np.ndarray:
    """uint8 (M, C, H, W): by birth, every image that was at some time the elite of a class and was classified as it."""
    return stored.encoding.render(stored.genomes(champion_births(stored)))


def champion_births(stored: StoredRun) -> list[int]:
    """The births of these images, ascending; those of rejection classes are left out."""
    rejects = [is_rejection(label) for label in stored.labels]
    history = stored.store.cell_history()
    return sorted({change.birth for change in history if change.margin > 0 and not rejects[change.cell // stored.niches]})


def evolve(recipe: Recipe, run_folder: Path, attacked: Target, on_progress: OnProgress) -> None:
    """Start or continue a run until its recipe ends it."""
    exists = (run_folder / "run.db").exists()
    with Run.resume(run_folder, recipe, attacked) if exists else Run.start(recipe, run_folder, attacked) as run:
        if run.advance(lambda r: on_progress(f"{r.strategy.evaluations:,} evaluations")) is None:
            raise Stopped("stopped during an evolution")


def finished(run_folder: Path) -> bool:
    if not (run_folder / "run.db").exists():
        return False
    with StoredRun(run_folder) as stored:
        return stored.meta.finished is not None


def draw_sheet(run_folder: Path) -> None:
    from evofool.pages.sheet import Tile, contact_sheet

    with StoredRun(run_folder) as stored:
        tiles = [Tile(e.image, e.label, e.confidence, log_odds=e.row.log_odds) for e in stored.elites()]
        title = f"{', '.join(run_folder.parts[-3:])}: {stored.evaluations:,} evaluations"
    save_picture(contact_sheet(tiles, title=title), run_folder / SHEET)
