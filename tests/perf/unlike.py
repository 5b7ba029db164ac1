"""Digits from CPPNs that may not have the shape of their class: the price in evaluations, and what the images are like.

python -m tests.perf.unlike FOLDER [--seeds 0:10] [--picture docs/unlike.png] [--set search.keep=1 ...]

Runs `mnist-cppn`, and `mnist-cppn-unlike` with search.unlike "shape>95" and "others>90", on the bundled LeNet, until every
class is at 0.9999 or 100,000 evaluations, into FOLDER (runs that are there already are read). --set: changes of all three.
Prints:

- by setting, evaluations until the first digit, the median digit and all digits were at 0.99 and at 0.9999: medians over
  seeds and ranges, counted in whole batches; CPU seconds of the search; images turned away by class;
- of the elites at 0.99 or more, how many lie, for their own class, within the percentile 95 of held-out real digits: by
  shape (nearest_own_shape, which the constraint is about), by the pixels of the same normalised ink in the nearer polarity,
  and by the features of another network (tests.perf.digit_networks:batch_norm_3, trained on the other half of the digits);
  the same shares of held-out real digits of the class (95 by construction) and of another class, for scale;
- by HOG and pixels the medians of the distance to the nearest real digit of any class (evofool measure).

--rates N: instead, evaluations per CPU second of N seeds, the settings alternating, each with 12,000 evaluations.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from evofool import recipe as recipes
from evofool.bench.network_features import NetworkFeatures
from evofool.bench.real import real_images
from evofool.image_metrics.metrics import ImageMetrics
from evofool.image_metrics.names import HOG, PIXELS
from evofool.image_metrics.own_shape import OwnShape, normalised
from evofool.printer import print_lines
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target as load

VARIANTS = {
    "mnist-cppn": "mnist-cppn",
    "shape>95": "mnist-cppn-unlike",
    "others>90": "mnist-cppn-unlike",
}
"""By name the recipe; the name of one with a constraint is the constraint."""
LEVELS = (0.99, 0.9999)
NETWORK = "python:tests.perf.digit_networks:batch_norm_3"
SAME = 95.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0:10", help="the first one, and the one after the last")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--rates", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.rates:
        rates(args.folder, args.rates, args.changes)
        return
    seeds = range(*map(int, args.seeds.split(":")))
    folders = {(name, seed): args.folder / f"{name}-{seed}" for name in VARIANTS for seed in seeds}
    for (name, seed), folder in folders.items():
        search(name, seed, folder, args.changes)
    for name in VARIANTS:
        print_prices(name, [folders[name, seed] for seed in seeds])
    elites = {name: sure_elites([folders[name, seed] for seed in seeds]) for name in VARIANTS}
    print_likeness(elites)
    if args.picture:
        draw([[folders[name, seed] for seed in seeds[:3]] for name in VARIANTS], args.picture)


def search(name: str, seed: int, folder: Path, changes: list[str]) -> float:
    """Run a recipe unless it has ended; returns CPU seconds of the search alone."""
    if (folder / "run.db").exists():
        with StoredRun(folder) as stored:
            if stored.meta.finished:
                return 0.0
        opened = Run.resume(folder)
    else:
        own = [] if name == VARIANTS[name] else [f"search.unlike={name}"]
        opened = Run.start(recipes.load(VARIANTS[name], [f"search.seed={seed}", *own, *changes]), folder, load("lenet"))
    with opened as run:
        began = time.process_time()
        run.advance()
        took = time.process_time() - began
        done = run.strategy.evaluations
    print_lines(f"{name}, seed {seed}: {done:,} evaluations, {took:.1f} CPU s")
    return took


def reached(folder: Path, level: float) -> np.ndarray:
    """(10,) float64: after how many evaluations each class was at this confidence; inf: never."""
    needed = np.log(level / (1 - level))
    found = np.full(10, np.inf)
    with StoredRun(folder) as stored:
        size = stored.recipe.search.batch
        for change in stored.store.cell_history():
            if change.log_odds >= needed:
                found[change.cell] = min(found[change.cell], (change.batch + 1) * size)
    return found


def print_prices(name: str, folders: list[Path]) -> None:
    """Print evaluations until digits were sure, and what was turned away."""
    for level in LEVELS:
        digits = np.array([reached(folder, level) for folder in folders])
        columns = {"first": digits.min(1), "median": np.median(digits, axis=1), "all": digits.max(1)}
        text = "; ".join(f"{k} {np.median(v):,.0f} ({v.min():,.0f} to {v.max():,.0f})" for k, v in columns.items())
        print_lines(f"{name}, {level}: {text}; all by seed {digits.max(1).tolist()}")
        last = digits.argmax(1).tolist()
        print_lines(f"  the last digit, by seed: {last}")
    away, evaluations = np.zeros(10, int), 0
    for folder in folders:
        with StoredRun(folder) as stored:
            evaluations += stored.evaluations
            if stored.meta.unlike:
                away += stored.meta.unlike.turned_away
    print_lines(f"  turned away, by class: {away.tolist()}, {away.sum()} of {evaluations:,} evaluations x 10 classes")


def sure_elites(folders: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 1, 28, 28) and classes (N,) of the elites at 0.99 or more."""
    found = []
    for folder in folders:
        with StoredRun(folder) as stored:
            found += [(elite.image, elite.row.class_id) for elite in stored.elites() if elite.confidence >= LEVELS[0]]
    return np.stack([image for image, _ in found]), np.array([c for _, c in found])


def print_likeness(elites: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Print how near elites are to real digits, by measures that the constraint does not know too."""
    target = load("lenet")
    real = real_images("digits", target)
    metrics = ImageMetrics.of(target, real)
    images, labels = real.some(np.arange(len(real))), real.classes
    held = np.zeros(len(images), bool)
    held[metrics.held_out_rows] = True
    shape = OwnShape(images, labels, metrics.held_out_rows)
    features = NetworkFeatures(load(NETWORK))
    of_class = {"pixels of the ink": ink_points, f"features of {NETWORK}": lambda x: features(x)[:, None]}
    others = (images[held], (labels[held] + 1) % 10)
    sets = {**elites, "held-out digits": (images[held], labels[held]), "held-out digits, as the next class": others}
    for name, (drawn, classes) in sets.items():
        percentiles, flags = shape(drawn, classes)
        print_lines(f"{name}: {len(drawn)} images")
        print_lines(f"  own shape: {near(percentiles, classes)}; flagged (no class nearer): {flags.sum()}")
        for what, points in of_class.items():
            values = own_percentiles(points(images[~held]), labels[~held], (points(images[held]), labels[held]),
                                     (points(drawn), classes))  # fmt: skip
            print_lines(f"  {what}: {near(values, classes)}")
        found = metrics(drawn)
        print_lines("  nearest of any class: " + "; ".join(f"{m} median {np.median(found[m]):.0f}" for m in (HOG, PIXELS)))


def near(percentiles: np.ndarray, classes: np.ndarray) -> str:
    count = (percentiles <= SAME).sum()
    by_class = [int((percentiles[classes == c] <= SAME).sum()) for c in range(10)]
    return (
        f"{count} of {len(classes)} within {SAME:.0f}, by class {by_class}, median percentile {np.median(percentiles):.0f}"
    )


def ink_points(images: np.ndarray) -> np.ndarray:
    """float32 (B, 2, 784): the pixels of the normalised ink of images and of their negatives."""
    inks = [[normalised(image), normalised(255 - image)] for image in images]
    return np.array(inks, np.float32).reshape(len(images), 2, -1) / 255


def own_percentiles(
    reference: np.ndarray, labels: np.ndarray, held: tuple[np.ndarray, np.ndarray], drawn: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """As OwnShape's percentiles, of points (B, P, D): of each image the nearest of its P points counts, of a real one the
    first."""
    values = np.zeros(len(drawn[1]))
    for c in range(10):
        real = reference[labels == c, 0].astype(float)
        distance = lambda points, real=real: np.array([min(np.square(real - p).sum(1).min() for p in x) for x in points])  # noqa: E731
        scale, mine = np.sort(distance(held[0][held[1] == c])), drawn[1] == c
        values[mine] = 100.0 * np.searchsorted(scale, distance(drawn[0][mine]), "right") / len(scale)
    return values


def rates(folder: Path, number: int, changes: list[str]) -> None:
    """Print evaluations per CPU second with and without the constraint."""
    budget = ["stop.evaluations=12000", "stop.confidence="]
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    search("mnist-cppn", 99, folder / "warm", budget)
    for seed in range(100, 100 + number):
        for name in VARIANTS:
            took = search(name, seed, folder / f"{name}-{seed}", [*budget, *changes])
            found[name].append(12000 / took)
    medians = {name: float(np.median(values)) for name, values in found.items()}
    for name, median in medians.items():
        print_lines(f"{name}: {median:,.0f} evaluations per CPU second, {median / medians['mnist-cppn']:.3f} of mnist-cppn")


def draw(folders: list[list[Path]], path: Path) -> None:
    """The elites of runs, a run a row, enlarged twice; the runs of the settings with a gap between them."""
    from evofool.images import save_png

    rows: list[np.ndarray] = []
    for of_recipe in folders:
        for folder in of_recipe:
            with StoredRun(folder) as stored:
                images = [elite.image for elite in stored.elites()]
            rows.append(np.concatenate([np.pad(x, ((0, 0), (2, 2), (2, 2)), constant_values=255) for x in images], 2))
        rows.append(np.full_like(rows[-1][:, :12], 255))
    save_png(np.concatenate(rows[:-1], 1).repeat(2, 1).repeat(2, 2), path)


if __name__ == "__main__":
    main()
