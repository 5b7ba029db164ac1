"""The retraining loop of Nguyen 2015, section 3.5: train, evolve fooling images, train again with these as a class, ..."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evofool.bench.json_file import read_json, write_json
from evofool.bench.retraining.training import (
    DEFENCES,
    is_trained,
    network_metadata,
    refuse_unknown_defence,
    save_network,
    seed_of,
    train,
)
from evofool.errors import RecipeError, StoreError
from evofool.recipe import Recipe, load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target, target
from evofool.targets.digits import LABELS, training_half

SCHEMA, VERSION = "evofool.retrain", 1
FILE = "retrain.json"
SHEET = "elites.png"  # of each run
_GROWS = ("iterations", "runs")  # what may change of a plan that has begun
_TRAINING, _EVOLUTION = 0, 1  # what a seed is for

OnProgress = Callable[[str], bool]
"""Called with a line of progress; returns True to stop the work."""


@dataclass(frozen=True)
class RetrainingPlan:
    """runs: independent repetitions, each of `iterations` networks. evolutions: searches against each network, of so many
    evaluations. share: of fooling images in what a network is shown, by repeating them; that of the paper's networks rose
    from 6,000 in 66,000 to 20,000 in 80,000 [recalled]. changes: of the recipe, as --set has them.
    """

    iterations: int = 5
    runs: int = 1
    defence: str = "reject-class"
    share: float = 0.1
    evolutions: int = 3
    evaluations: int = 5_000
    encoding: str = "cppn"
    seed: int = 0
    epochs: int = 36
    changes: tuple[str, ...] = ()

    def check(self) -> None:
        """RecipeError, naming the fault, for what cannot be done."""
        refuse_unknown_defence(self.defence)
        if self.defence == "none":
            raise RecipeError(f"retraining needs a defence: {', '.join(d for d in DEFENCES if d != 'none')}")
        if self.encoding not in ("cppn", "direct"):
            raise RecipeError(f'there is no encoding "{self.encoding}" of digits; there are cppn and direct')
        if not 0 < self.share < 1:
            raise RecipeError(
                f"--fooling-share {self.share:g} has to lie between 0 and 1, exclusive: it is a share of the training set"
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
        """Of one evolution: the shipped recipe of the encoding, with a fixed number of evaluations, in float32."""
        fixed = ["stop.confidence=", f"stop.evaluations={self.evaluations}", "compute.format=float32"]
        shipped = load(f"mnist-{self.encoding}", [*fixed, f"search.seed={seed}"])
        return shipped.changed(self.changes, "--set")


class Stopped(Exception):
    """on_progress returned True; what is finished is kept."""


def retrain(plan: RetrainingPlan, folder: Path, on_progress: OnProgress = lambda text: False) -> None:
    """Do what is left to do of a plan in its folder; raises Stopped as soon as on_progress returns True.

    Networks and runs that are there are not made again, so work that was killed at any point ends with the same bits. The
    folder: run-R/iteration-I/network.safetensors and evolution-E, an ordinary run. RecipeError if another plan has begun
    there; more iterations and runs are the same one.
    """
    plan.check()
    begin(plan, folder)
    for run in range(1, plan.runs + 1):
        for iteration in range(1, plan.iterations + 1):
            where = f"run {run} of {plan.runs}, network {iteration} of {plan.iterations}"
            place = iteration_folder(folder, run, iteration)
            weights = make_network(plan, folder, run, iteration, _prefixed(on_progress, f"{where}: "))
            attacked: Target | None = None
            for evolution in range(1, plan.evolutions + 1):
                home = place / f"evolution-{evolution}"
                if not finished(home):
                    attacked = attacked or target(f"lenet?weights={weights.absolute()}")
                    recipe = plan.recipe(seed_of(plan.seed, _EVOLUTION, run << 40 | iteration << 20 | evolution))
                    evolve(
                        recipe,
                        home,
                        attacked,
                        _prefixed(on_progress, f"{where}: evolution {evolution} of {plan.evolutions}, "),
                    )
                if not (home / SHEET).exists():
                    draw_sheet(home)


def _prefixed(on_progress: OnProgress, before: str) -> OnProgress:
    return lambda text: on_progress(before + text)


def begin(plan: RetrainingPlan, folder: Path) -> None:
    """Note the plan in the folder's file, or see that it is the one that began there."""
    path = folder / FILE
    ours = asdict(plan) | {"changes": list(plan.changes)}
    if not path.exists():
        write_json(path, {"schema": SCHEMA, "version": VERSION, "plan": ours, "iterations": []})
        return
    theirs = read_json(path, SCHEMA, VERSION, "take another --out")["plan"]
    for key, value in ours.items():
        if key not in _GROWS and theirs.get(key) != value:
            raise RecipeError(
                f"{folder} holds a retraining with {key} = {theirs.get(key)!r}, asked for is {value!r}; only "
                f"{' and '.join(_GROWS)} may change: take another --out"
            )


def iteration_folder(folder: Path, run: int, iteration: int) -> Path:
    return folder / f"run-{run}" / f"iteration-{iteration}"


def make_network(plan: RetrainingPlan, folder: Path, run: int, iteration: int, on_progress: OnProgress) -> Path:
    """Weights of one network: the first sees digits alone, each later one the fooling images of all before it too."""
    path = iteration_folder(folder, run, iteration) / "network.safetensors"
    seed = seed_of(plan.seed, _TRAINING, run << 40 | iteration << 20)
    defence = "none" if iteration == 1 else plan.defence
    metadata = network_metadata(
        seed, defence, plan.epochs, f"fooling images of {iteration - 1} networks before it", plan.share
    )
    if is_trained(path, metadata):
        return path

    def progress(done: int, epochs: int) -> None:
        if on_progress(f"epoch {done} of {epochs}"):
            raise Stopped("stopped while a network was trained")

    fooling = None if iteration == 1 else fooling_images(folder, run, iteration - 1, plan.evolutions)
    images, labels = training_half()
    made = train(seed, defence, images, labels, fooling=fooling, share=plan.share, epochs=plan.epochs, progress=progress)
    save_network(made, path, metadata)
    return path


def fooling_images(folder: Path, run: int, iterations: int, evolutions: int) -> np.ndarray:
    """uint8 (M, 1, 28, 28): those that the networks up to this one were fooled by, all different, oldest first."""
    homes = [
        iteration_folder(folder, run, i) / f"evolution-{e}"
        for i in range(1, iterations + 1)
        for e in range(1, evolutions + 1)
    ]
    seen: dict[bytes, np.ndarray] = {}
    for home in homes:
        with StoredRun(home) as stored:
            for image in champions(stored):
                seen.setdefault(image.tobytes(), image)
    if not seen:
        raise RecipeError(f"{folder}: nothing has fooled network {iterations} of run {run}; more --evaluations may")
    return np.stack(list(seen.values()))


def champions(stored: StoredRun) -> np.ndarray:
    """uint8 (M, C, H, W): every image that was the best of a digit at some time, and was called that digit, by birth."""
    births = sorted({c.birth for c in stored.store.cell_history() if c.margin > 0 and c.cell // stored.niches < len(LABELS)})
    packed = stored.store.genomes(births)
    return stored.encoding.render(stored.unpack([packed[birth] for birth in births]))


def evolve(recipe: Recipe, home: Path, attacked: Target, on_progress: OnProgress) -> None:
    """Begin or go on with a run until its recipe ends it."""
    begun = (home / "run.db").exists()
    with Run.resume(home, recipe, attacked) if begun else Run.start(recipe, home, attacked) as run:
        if run.advance(lambda r: on_progress(f"{r.strategy.evaluations:,} evaluations")) is None:
            raise Stopped("stopped during an evolution")


def finished(home: Path) -> bool:
    if not (home / "run.db").exists():
        return False
    with StoredRun(home) as stored:
        return stored.meta.finished is not None


def draw_sheet(home: Path) -> None:
    from evofool.pages.sheet import Tile, contact_sheet

    with StoredRun(home) as stored:
        tiles = [Tile(e.image, e.label, e.confidence, log_odds=e.row.log_odds) for e in stored.elites()]
        title = f"{home.parent.parent.name}, {home.parent.name}, {home.name}: {stored.evaluations:,} evaluations"
    path = home / SHEET
    try:
        contact_sheet(tiles, title=title).save(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None
