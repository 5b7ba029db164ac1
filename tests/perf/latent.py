"""Elites out of codes beside elites out of CPPNs, both of the bundled LeNet: how near to real digits, at equal confidence.

python -m tests.perf.latent --seeds 10:15 [--picture docs/latent.png] [--set encoding.sigma=0.5 ...]

Both recipes stop when every class is at 0.9999. Prints, by seed and recipe, the evaluations until all ten classes were at
0.99 and until the end, and CPU seconds; then by digit the medians over seeds of three percentiles, of elites at 0.99 or
more: nearest_own_shape, nearest_real by HOG and by pixels. All are against digits that the decoder was not trained on (the
held-out half). --set: changes of mnist-latent.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evofool import recipe as recipes
from evofool.bench.real import real_images
from evofool.image_metrics.metrics import ImageMetrics
from evofool.image_metrics.names import HOG, OWN_SHAPE, PIXELS
from evofool.image_metrics.own_shape import OwnShape
from evofool.printer import print_lines
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target as load

RECIPES = ("mnist-latent", "mnist-cppn")
MEASURES = (OWN_SHAPE, HOG, PIXELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="10:15", help="the first one, and the one after the last")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(*map(int, args.seeds.split(":")))
    target = load("lenet")
    real = real_images("digits", target)
    metrics = ImageMetrics.of(target, real)
    shape = OwnShape(real.some(np.arange(len(real))), real.classes, metrics.held_out_rows)
    values = {name: np.full((len(seeds), 10, len(MEASURES)), np.nan) for name in RECIPES}
    flags = dict.fromkeys(RECIPES, 0)
    shown: dict[str, list[np.ndarray]] = {}
    for row, seed in enumerate(seeds):
        for name in RECIPES:
            changes = [f"search.seed={seed}", *(args.changes if name == RECIPES[0] else [])]
            with tempfile.TemporaryDirectory() as home:
                began = time.process_time()
                with Run.start(recipes.load(name, changes), Path(home) / "run", load("lenet")) as run:
                    run.advance()
                took = time.process_time() - began
                with StoredRun(Path(home) / "run") as stored:
                    elites = stored.elites()
                    at_99 = next((int(r["evaluations"]) for r in stored.rows() if r["at_99"] == 10), None)
                    print_lines(
                        f"{name}, seed {seed}: all at 0.99 after {at_99}, ended after {stored.evaluations}, {took:.1f} CPU s"
                    )
                images, classes = np.stack([e.image for e in elites]), np.array([e.row.class_id for e in elites])
                sure = np.array([e.confidence >= 0.99 for e in elites])
                found = metrics(images)
                found[OWN_SHAPE], own = shape(images, classes)
                flags[name] += int(own[sure].sum())
                for k, measure in enumerate(MEASURES):
                    values[name][row, classes[sure], k] = found[measure][sure]
                if row == 0:
                    shown[name] = list(images)
    for k, measure in enumerate(MEASURES):
        medians = {name: np.nanmedian(values[name][:, :, k], axis=0) for name in RECIPES}
        for name in RECIPES:
            whole = np.nanmedian(values[name][:, :, k])
            print_lines(f"{measure}, {name}: {' '.join(f'{v:5.0f}' for v in medians[name])}; median {whole:.0f}")
        less, same = ((op(medians[RECIPES[0]], medians[RECIPES[1]])).sum() for op in (np.less, np.equal))
        print_lines(f"{measure}: lower for codes on {less} of 10 digits, equal on {same}")
    total = len(seeds) * 10
    print_lines(f"shape of their class, of {total}: {', '.join(f'{name} {count}' for name, count in flags.items())}")
    if args.picture:
        _draw(shown, args.picture)


def _draw(shown: dict[str, list[np.ndarray]], path: Path) -> None:
    """The elites of the first seed, a recipe a row, enlarged three times."""
    from evofool.images import save_png

    rows = [
        np.concatenate([np.pad(image, ((0, 0), (2, 2), (2, 2)), constant_values=255) for image in shown[n]], 2)
        for n in RECIPES
    ]
    save_png(np.concatenate(rows, 1).repeat(3, 1).repeat(3, 2), path)


if __name__ == "__main__":
    main()
