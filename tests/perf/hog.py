"""How near do images that are made from HOG alone come to photographs?

    python -m tests.perf.hog --photographs DIR      learns from 60% of a folder, measures on windows of the rest
    python -m tests.perf.hog --ship                 writes the small model that evofool brings along

The first command prints for each method, also by the shipped model, the means of NCC and of the HOG distance, the median
sharpness and the milliseconds a window, and the bounds. NCC is the correlation of pixels, sharpness the gradient energy over
the photograph's at equal contrast, HOG distance how far the inverse's own HOG is from the photograph's. A nearest neighbour
by HOG among the learned windows is shown too. The shipped model is learned from photographs of scikit-image that are in the
public domain or CC0.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from skimage import data

from evofool.explain.hog_file import SHIPPED, save_model, shipped_model
from evofool.explain.hog_inversion import METHODS, invert_windows, likeness
from evofool.explain.hog_model import (
    PATCH_UNIT,
    HogModel,
    LearningSettings,
    learn,
    reduced,
    sampled_windows,
    training_photographs,
    unit,
)
from evofool.targets.photos import image_files

FREE = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "retina", "rocket"),
)
"""Photographs of scikit-image in the public domain, CC0 or without known restrictions, by its own documentation."""
_SHIPPED = LearningSettings(windows=6000, atoms=256, rank=96, exemplars=False)


def nearest(windows: np.ndarray, model: HogModel) -> np.ndarray:
    """The learned window with the most similar features."""
    scores = unit(windows - model.mean) @ unit(model.exemplars.astype(np.float32)).T
    return model.patches[scores.argmax(1)].astype(np.float32) / PATCH_UNIT


def print_row(name: str, made: Callable[[], np.ndarray], originals: np.ndarray) -> tuple[float, float, float]:
    began = time.process_time()
    found = made()
    each = 1000 * (time.process_time() - began) / len(originals)
    typical = likeness(found, originals).typical()
    assert typical is not None
    print(f"{name:<22}" + "".join(f"{value:>8.3f}" for value in typical) + f"{each:>9.2f}{len(originals):>7}", flush=True)
    return typical


def measure(folder: Path, settings: LearningSettings, held_out: int, by_direct: int) -> None:
    files = image_files(folder)
    order = np.random.default_rng(settings.seed).permutation(len(files)).tolist()
    split = round(0.6 * len(files))
    began = time.process_time()
    model = learn(list(training_photographs([files[k] for k in order[:split]])), settings, on_progress=print)
    print(f"learned in {time.process_time() - began:.0f} s of one core")
    windows, patches = sampled_windows(
        list(training_photographs([files[k] for k in order[split:]])), held_out, settings.seed
    )
    print(f"{'method':<22}{'NCC':>8}{'sharp':>8}{'HOG':>8}{'ms':>9}{'windows':>7}")
    found = {}
    for method in METHODS:
        count = by_direct if method == "direct" else len(windows)
        # Spaced, so that these windows are not all of the first photographs.
        some = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)
        found[method] = print_row(method, lambda m=method, k=some: invert_windows(windows[k], m, model), patches[some])  # type: ignore[misc]
    print_row("nearest neighbour", lambda: nearest(windows, model), patches)
    for method in ("paired", "ridge"):
        print_row(f"{method}, shipped", lambda m=method: invert_windows(windows, m, shipped_model()), patches)  # type: ignore[misc]
    for what, held in (
        ("NCC of paired at least 0.50", found["paired"][0] >= 0.5),
        ("NCC of paired above elda's", found["paired"][0] > found["elda"][0]),
    ):
        print(f"{what}: {'held' if held else 'MISSED'}")


def ship() -> None:
    images = []
    for name in FREE:
        photograph = getattr(data, name)()
        photograph = photograph[None] if photograph.ndim == 2 else photograph[..., :3].transpose(2, 0, 1)
        # Whole and by quarters, so that windows show things at two sizes; mirrored too.
        high, wide = (side // 2 for side in photograph.shape[1:])
        parts = [photograph, *(photograph[:, y : y + high, x : x + wide] for y in (0, high) for x in (0, wide))]
        for part in (reduced(np.ascontiguousarray(part)) for part in parts):
            images += [part, np.ascontiguousarray(part[:, :, ::-1])]
    model = learn(images, _SHIPPED, source="scikit-image: " + ", ".join(FREE), on_progress=print)
    save_model(replace(model, photographs=len(FREE)), SHIPPED)
    print(f"{SHIPPED}: {SHIPPED.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, help="a folder of photographs")
    parser.add_argument("--ship", action="store_true", help="write the shipped model")
    parser.add_argument("--windows", type=int, default=LearningSettings.windows, help="learned from")
    parser.add_argument("--atoms", type=int, default=LearningSettings.atoms)
    parser.add_argument("--penalty", type=float, default=LearningSettings.penalty)
    parser.add_argument("--held-out", type=int, default=400, help="windows to measure on")
    parser.add_argument("--direct", type=int, default=48, help="windows inverted by direct optimisation, which is slow")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.ship:
        ship()
    if args.photographs:
        settings = LearningSettings(windows=args.windows, atoms=args.atoms, penalty=args.penalty, seed=args.seed)
        measure(args.photographs, settings, args.held_out, args.direct)


if __name__ == "__main__":
    main()
