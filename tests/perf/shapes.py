"""Does saliency point at what the network looks at? Textured shapes pasted onto photographs, whose masks are known.

    python -m tests.perf.shapes                     about 3 minutes of a core

A small network learns to distinguish eight shapes on some of scikit-image's photographs. Images are then made over other
photographs, saliency and graph cut are taken for the class that the network gives, and compared with the true mask. The
sanity check is that of Adebayo 2018: networks with random weights have to rank pixels otherwise, by their gradients and by
magnitudes. Magnitudes of any network share what maxima and borders do to a gradient, and follow edges, so their correlation
is not quite 0 and an untrained network points at shapes more often than chance; two networks trained apart reach 0.66 (and
0.03 by gradients, whose signs are each network's own: that row alone means little).
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from skimage import data
from skimage.draw import polygon2mask
from skimage.transform import resize
from torch import nn
from torch.nn import functional as F

from evofool.explain.saliency import Averaging, gradient, saliency
from evofool.explain.segmentation import segment
from evofool.images import quantise
from evofool.targets import Target

SIDE = 64
SHAPES = ("disc", "square", "triangle", "star", "cross", "crescent", "ring", "bar")
HELD_OUT = ("astronaut", "chelsea", "coffee", "rocket")
TRAINED_ON = (
    *("brick", "camera", "cell", "clock", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry"),
    *("microaneurysms", "moon", "page", "retina", "stereo_motorcycle", "text"),
)
BACKGROUND = 0.6  # quantile below which no shape is: they cover a ninth of an image (chosen over TRAINED_ON)
THRESHOLDS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.93, 0.95, 0.97)
BLURS = (0.0, 0.015, 0.03, 0.045, 0.06, 0.08)  # of the side: thresholds get the blur that suits them too
UNTRAINED = 3  # networks of random weights
SLACK = 2  # pixels around the shape that count as pointing at it: its outline distinguishes it from others


class Row(NamedTuple):
    """A measurement: what, the bound it has to keep, what was seen, whether it was kept."""

    name: str
    bound: str
    figure: str
    held: bool | None  # None: it has no bound


def rows(seed: int = 0, count: int = 300, epochs: int = 14) -> list[Row]:
    """Train a network on this seed's shapes and measure `count` images over the photographs that it has not seen."""
    target = trained(seed, epochs)
    images, masks, shapes = scenes(count, photographs(HELD_OUT), np.random.default_rng([seed, 1]))
    given = target.logits(images).argmax(1)
    right = float((given == shapes).mean())
    heat = saliency(target, images, given, averaging=Averaging("crops"))
    cut = mean([iou(segment(i, h, background=BACKGROUND), m) for i, h, m in zip(images, heat, masks, strict=True)])
    best, how = best_threshold(heat, masks)
    near = ndimage.binary_dilation(masks, np.ones((1, 3, 3)), iterations=SLACK)
    pointed = pointing(heat, near)

    untrained = [as_target(network(seed + 1000 + k)) for k in range(UNTRAINED)]
    lost = mean([pointing(saliency(t, images, given, averaging=Averaging("crops")), near) for t in untrained])
    slope = gradient(target, images, given)
    theirs = [gradient(t, images, given) for t in untrained]
    signed = mean([rank_correlation(slope, t) for t in theirs])
    magnitude = mean([rank_correlation(np.abs(slope).max(1), np.abs(t).max(1)) for t in theirs])
    return [
        Row("network right on held-out photographs", ">= 0.85", f"{right:.3f}", right >= 0.85),
        Row("mask IoU of saliency + graph cut", ">= 0.38", f"{cut:.3f}", cut >= 0.38),
        Row("... over the best threshold's", ">= 1.4", f"{cut / best:.2f} ({best:.3f}: {how})", cut >= 1.4 * best),
        Row(
            "pointing game",
            ">= 0.60",
            f"{pointed:.3f} (chance {near.mean():.3f}, untrained networks {lost:.3f})",
            pointed >= 0.60,
        ),
        Row("rank correlation, untrained: gradients", "|mean| <= 0.10", f"{signed:+.3f}", abs(signed) <= 0.10),
        Row("... magnitudes", "|mean| <= 0.25", f"{magnitude:+.3f}", abs(magnitude) <= 0.25),
    ]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of each image's values, their mean over images."""
    return mean([float(spearmanr(x.ravel(), y.ravel())[0]) for x, y in zip(a, b, strict=True)])


def pointing(heat: np.ndarray, near: np.ndarray) -> float:
    """The share of images whose highest saliency lies on or near the shape."""
    return mean([float(n.ravel()[h.argmax()]) for h, n in zip(heat, near, strict=True)])


def best_threshold(heat: np.ndarray, masks: np.ndarray) -> tuple[float, str]:
    """The mean IoU of the largest part above the quantile and blur that suit these very images best, and which they are."""
    found = []
    for blur in BLURS:
        smooth = [ndimage.gaussian_filter(h, blur * SIDE) if blur else h for h in heat]
        for q in THRESHOLDS:
            score = mean([iou(largest(s >= np.quantile(s, q)), m) for s, m in zip(smooth, masks, strict=True)])
            found.append((score, f"quantile {q}, blur {blur}"))
    return max(found)


def largest(mask: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return parts == 1 + np.bincount(parts[mask])[1:].argmax()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def trained(seed: int, epochs: int, per_epoch: int = 4032, batch: int = 64) -> Target:
    """A network that has seen every image once: each epoch makes new ones."""
    photos = photographs(TRAINED_ON)
    rng = np.random.default_rng([seed, 0])
    net = network(seed).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=epochs * (per_epoch // batch))
    for _ in range(epochs):
        images, _, shapes = scenes(per_epoch, photos, rng, recolour=True)
        for x, y in zip(torch.from_numpy(images).split(batch), torch.from_numpy(shapes).split(batch), strict=True):
            optimiser.zero_grad()
            F.cross_entropy(net(x.float() / 255), y).backward()
            optimiser.step()
            schedule.step()
    return as_target(net)


def as_target(net: nn.Module) -> Target:
    return Target.from_module(net, SHAPES, (3, SIDE, SIDE), name="shapes")


def network(seed: int) -> nn.Sequential:
    """Untrained: four convolutions, the mean over places, one linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for c, d in pairwise((3, 16, 32, 64, 96)):
            # Pooled first, so that the rest is a quarter of the work.
            layers += [nn.Conv2d(c, d, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(d), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, len(SHAPES)))


def photographs(names: tuple[str, ...], side: int = 224) -> list[np.ndarray]:
    """float32 (side, side, 3) on [0, 1], the centres of scikit-image's photographs; those it would download are left out."""
    found = []
    for name in names:
        try:
            loaded = getattr(data, name)()
        except Exception as error:  # no pooch, no network
            print(f"without {name}: {type(error).__name__}")
            continue
        picture = np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)
        picture = picture[..., None].repeat(3, 2) if picture.ndim == 2 else picture[..., :3]
        height, width = picture.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        cut = picture[top : top + short, left : left + short]
        found.append(resize(cut / 255.0, (side, side), anti_aliasing=True).astype(np.float32))
    return found


def scenes(
    count: int, photos: list[np.ndarray], rng: np.random.Generator, recolour: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 images (count, 3, SIDE, SIDE), bool masks (count, SIDE, SIDE) of the shape in each, and which it is (count,).

    recolour mixes the photographs' colours at random: most that there are to train on are grey or of one hue.
    """
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    masks = np.empty((count, SIDE, SIDE), bool)
    shapes = rng.integers(0, len(SHAPES), count)
    for n, shape in enumerate(shapes):
        photo = photos[rng.integers(len(photos))]
        top, left = rng.integers(0, len(photo) - SIDE, 2)
        scene = photo[top : top + SIDE, left : left + SIDE].copy()
        if recolour:
            mixing = rng.permutation(np.eye(3)) + rng.normal(0, 0.3, (3, 3))
            scene = (scene @ mixing + rng.uniform(-0.3, 0.3, 3)).clip(0, 1)
        radius = rng.uniform(10, 20)
        y, x = rng.uniform(radius, SIDE - radius, 2)
        mask = masks[n] = drawn(SHAPES[shape], y, x, radius, rng.uniform(0, 2 * np.pi))
        behind = scene[mask].mean(0)
        colour = rng.random(3)
        while np.abs(colour - behind).sum() <= 0.5:
            colour = rng.random(3)
        texture = 1 + 0.15 * rng.standard_normal((SIDE // 4, SIDE // 4)).repeat(4, 0).repeat(4, 1)
        scene[mask] = (colour * texture[..., None])[mask].clip(0, 1)
        images[n] = quantise(ndimage.gaussian_filter(scene, (0.6, 0.6, 0)).transpose(2, 0, 1))
    return images, masks, shapes


def drawn(shape: str, y: float, x: float, radius: float, angle: float) -> np.ndarray:
    """The bool (SIDE, SIDE) mask of a shape about (y, x)."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    square = (rows - y) ** 2 + (columns - x) ** 2
    disc = square < radius**2
    off = 0.55 * radius
    bite = (rows - y - off * np.cos(angle)) ** 2 + (columns - x - off * np.sin(angle)) ** 2 < (0.8 * radius) ** 2
    third = 1 / 3
    outlines: dict[str, Callable[[], np.ndarray]] = {
        "square": lambda: _corners(4),
        "triangle": lambda: _corners(3),
        "star": lambda: _corners(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None],
        "cross": lambda: np.concatenate(
            [np.array([(1, -third), (1, third), (third, third)]) @ _turn(k * np.pi / 2) for k in range(4)]
        ),
        "bar": lambda: np.array([(-1, -0.4), (1, -0.4), (1, 0.4), (-1, 0.4)]),
    }
    if shape == "disc":
        return disc
    if shape == "crescent":
        return disc & ~bite
    if shape == "ring":
        return disc & (square > off**2)
    return polygon2mask((SIDE, SIDE), outlines[shape]() * radius @ _turn(angle) + (y, x))


def _corners(count: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        began = time.process_time()
        measured = rows(seed)
        print(f"seed {seed}, {time.process_time() - began:.0f} s of one core")
        for row in measured:
            print(f"  {row.name:<42}{row.bound:<16}{row.figure:<54}{'held' if row.held else 'MISSED'}")


if __name__ == "__main__":
    main()
