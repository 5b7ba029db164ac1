"""DeepDream on photographs: how much more a layer answers, against noise of the same size, and what octaves are for.

    python -m tests.perf.dreams                     about half a minute on a core

Without octaves, at equal passes, the layer answers more still; what octaves add is change of low frequency, at scales that
people see.
"""

import argparse
import time

import numpy as np
import torch

from evofool.explain.dream import DreamSettings, dream, energies
from evofool.images import quantise
from evofool.targets import target
from tests.perf.shapes import Row, photographs

LAYERS = ("_blocks.4", "_blocks.10")
DREAMT = ("astronaut", "chelsea", "coffee", "rocket", "retina")
OCTAVES, ITERATIONS = 4, 10
LOW = 1 / 16  # cycles a pixel


def rows(seed: int = 0) -> list[Row]:
    """EfficientNet-Lite0 on five photographs, two layers; energies and changes are those of the 8-bit images."""
    found = target("efficientnet-lite0")
    images = quantise(np.stack(photographs(DREAMT)).transpose(0, 3, 1, 2))
    measured = []
    for layer in LAYERS:
        before = energies(found, images, layer)
        settings = DreamSettings(octaves=OCTAVES, iterations=ITERATIONS)
        dreamt = [next(dream(found, x, layer, settings=settings, seed=seed)) for x in images]
        settings = DreamSettings(octaves=1, iterations=OCTAVES * ITERATIONS)
        once = [next(dream(found, x, layer, settings=settings, seed=seed)) for x in images]
        gained = energies(found, np.stack(dreamt), layer) / before
        noised = energies(found, noise(images, np.stack(dreamt), seed), layer) / before
        low, low_once = (np.array([low_share(x, y) for x, y in zip(images, ys, strict=True)]) for ys in (dreamt, once))
        untransformed = energies(found, np.stack(once), layer) / before
        measured += [
            Row(
                f"{layer}: energy, least of the photos",
                ">= 1.5x",
                f"{gained.min():.2f}x {_all(gained)}",
                gained.min() >= 1.5,
            ),
            Row(
                f"{layer}: sign noise as large, most", "<= 1.1x", f"{noised.max():.2f}x {_all(noised)}", noised.max() <= 1.1
            ),
            Row(
                f"{layer}: low frequencies' share of the change",
                "> without octaves",
                f"{low.mean():.3f} over {low_once.mean():.3f} {_all(low / low_once)} (without: {untransformed.mean():.2f}x)",
                bool((low > low_once).all()),
            ),
        ]
    return measured


def noise(images: np.ndarray, dreamt: np.ndarray, seed: int) -> np.ndarray:
    """The images with every pixel changed by the dream's mean change, up or down at random."""
    size = np.abs(dreamt.astype(float) - images).mean((1, 2, 3), keepdims=True)
    return quantise((images + size * np.random.default_rng(seed).choice([-1.0, 1.0], images.shape)) / 255)


def low_share(before: np.ndarray, after: np.ndarray) -> float:
    """Of the power of the change of uint8 images (C, H, W), the share of frequencies up to LOW."""
    power = np.abs(np.fft.fft2(after.astype(float) - before)) ** 2
    frequency = np.hypot(np.fft.fftfreq(before.shape[1])[:, None], np.fft.fftfreq(before.shape[2])[None])
    return float(power[:, frequency <= LOW].sum() / power.sum())


def _all(values: np.ndarray) -> str:
    return f"[{' '.join(f'{v:.2f}' for v in values)}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    for row in rows(args.seed):
        print(f"{row.name:<50}{row.bound:<20}{row.figure:<76}{'held' if row.held else 'MISSED'}", flush=True)
    print(f"{time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
