"""The measure nearest_own_shape_percentile on elites of digits, and on drawings made of digits.

    python -m tests.perf.own_shape                                     # flags by digit and by kind of drawing, and AUC
    python -m tests.perf.own_shape --sheets DIR                        # numbered images to be named blind; measures nothing
    python -m tests.perf.own_shape --names tests/perf/own_shape_names/seeds-0.csv         # and AUC by names that were given
    python -m tests.perf.own_shape --seeds 100:112 --names tests/perf/own_shape_names/seeds-100.csv

Elites are those of `mnist-cppn` on the bundled LeNet, 12 seeds. The measure compares with the 2,500 digits of the held-out
half, as `evofool measure --images digits` does. Drawings are made from digits of the other half, 20 of each class, which the
measure has not seen, by filters that leave a digit readable; some of them are on the sheets.

--sheets writes sheet-N.png with elites, drawings and noise in an order drawn from a seed, without their classes. Whoever
names them writes a CSV, number,name,sure with a digit or nothing as the name, and 1 or 0, before the measure is computed.
The order is drawn again from the seed, so no key lies beside the sheets. The names in tests/perf/own_shape_names are those
of one machine rater; no person took part.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from evofool import recipe as recipes
from evofool.bench.real import real_images
from evofool.image_metrics.metrics import ImageMetrics
from evofool.image_metrics.own_shape import OwnShape
from evofool.images import save_png
from evofool.printer import print_lines
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target as load
from evofool.targets.digits import training_half

EACH = 20  # drawings of each kind of each class
ON_SHEETS, NOISE = 40, 20  # drawings, and images of noise, among the elites
COLUMNS, ROWS, FACTOR = 6, 5, 5  # of a sheet, and how much its images are enlarged
FINE = 4  # drawings are made at this number of pixels a pixel
Drawing = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Named(NamedTuple):
    """Images uint8 (B, 1, 28, 28), and the class (B,) that each is measured as."""

    images: np.ndarray
    classes: np.ndarray


class Measured(NamedTuple):
    """percentiles and flags (B,) of the elites, and the percentiles of the drawings by kind."""

    percentiles: np.ndarray
    flags: np.ndarray
    of_drawings: dict[str, np.ndarray]


Order = list[tuple[str, int]]
"""Of the images of the sheets: "elite", a kind of drawing or "noise", and the row there."""


def strokes(radius: float) -> Drawing:
    """Strokes thicker by the radius in pixels, or thinner if it is below 0, but never gone."""

    def draw(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        depth = ndimage.distance_transform_edt(_ink(digit)) - ndimage.distance_transform_edt(~_ink(digit))
        wanted = depth > -radius * FINE
        ridge = (depth > 0) & (depth >= ndimage.maximum_filter(depth, 5)) & (depth > 1.5)
        return _small((wanted | ndimage.binary_dilation(ridge, iterations=2)) * 255.0)

    return draw


def outline(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    depth = ndimage.distance_transform_edt(_ink(digit)) - ndimage.distance_transform_edt(~_ink(digit))
    return _small((np.abs(depth - 0.5) < FINE / 2) * 255.0)


def negative(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255.0 - digit


def two_levels(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(digit > 127, 255.0, 0.0)


def grey(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 90.0 + digit * (70.0 / 255.0)


def rotated(degrees: float) -> Drawing:
    return lambda digit, rng: ndimage.rotate(digit.astype(float), degrees * rng.choice([-1, 1]), reshape=False, order=1)


def small(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At six tenths of its size, somewhere."""
    side = 17
    out = np.zeros((28, 28))
    top, left = rng.integers(0, 28 - side, 2)
    out[top : top + side, left : left + side] = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BOX))
    return out


def dashed(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One row or column of four is missing."""
    lines = np.arange(28) % 4 == rng.integers(4)
    return np.where(lines[:, None] if rng.random() < 0.5 else lines, 0.0, digit)


def ground(level: float) -> Drawing:
    """Over stripes between black and the level."""

    def draw(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle, length, phase = rng.uniform(0, np.pi), rng.uniform(4, 9), rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[:28, :28]
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
        return np.maximum(digit, (0.5 + 0.5 * wave) * level)

    return draw


def grain(sigma: float) -> Drawing:
    return lambda digit, rng: digit + rng.normal(0, sigma, digit.shape)


KINDS: dict[str, Drawing] = {
    "as it is": lambda digit, rng: digit,
    "thin strokes": strokes(-0.8),
    "thick strokes": strokes(0.8),
    "outline": outline,
    "negative": negative,
    "black and white": two_levels,
    "grey on grey": grey,
    "turned by 10 degrees": rotated(10),
    "turned by 20 degrees": rotated(20),
    "small, off the centre": small,
    "dashed": dashed,
    "on faint stripes (35%)": ground(90),
    "on strong stripes (65%)": ground(165),
    "with some grain (sigma 30)": grain(30),
    "with strong grain (sigma 70)": grain(70),
}


def _ink(digit: np.ndarray) -> np.ndarray:
    side = 28 * FINE
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)) > 110


def _small(fine: np.ndarray) -> np.ndarray:
    return fine.reshape(28, FINE, 28, FINE).mean((1, 3))


def drawings() -> dict[str, Named]:
    """By kind EACH drawings of each class, of different digits than those of the other kinds as far as there are enough."""
    images, labels = training_half()
    found = {}
    for k, (kind, draw) in enumerate(KINDS.items()):
        rng = np.random.default_rng([2015, k])
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == c), EACH, replace=False) for c in range(10)])
        drawn = np.stack([draw(images[row, 0], rng) for row in rows])
        found[kind] = Named(drawn.round().clip(0, 255).astype(np.uint8)[:, None], labels[rows])
    return found


def evolved(seeds: Sequence[int]) -> Named:
    """The elites of `mnist-cppn`, a run after the other, in the order of classes."""
    images = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as home:
            with Run.start(recipes.load("mnist-cppn", [f"search.seed={seed}"]), Path(home) / "run", load("lenet")) as run:
                run.advance()
            with StoredRun(Path(home) / "run") as stored:
                elites = stored.elites()
                least = min(elite.confidence for elite in elites)
                print_lines(f"seed {seed}: {stored.evaluations:,} evaluations, least confidence {least:.6f}")
                images += [elite.image for elite in elites]
    return Named(np.stack(images), np.tile(np.arange(10), len(seeds)))


def shuffled(elites: Named, drawn: dict[str, Named], seed: int) -> tuple[np.ndarray, Order]:
    """The images of the sheets, and what they are."""
    rng = np.random.default_rng(1907 + seed)
    every = [(kind, row) for kind, part in drawn.items() for row in range(len(part.classes))]
    picked = [every[k] for k in rng.choice(len(every), ON_SHEETS, replace=False)]
    noise = rng.integers(0, 256, (NOISE, 1, 28, 28)).astype(np.uint8)
    noise[NOISE // 2 :] = [
        ndimage.zoom(rng.uniform(0, 255, (1, 7, 7)), (1, 4, 4), order=1) for _ in range(NOISE - NOISE // 2)
    ]
    items = [("elite", row) for row in range(len(elites.classes))] + picked + [("noise", row) for row in range(NOISE)]
    items = [items[k] for k in rng.permutation(len(items))]
    sources = {"elite": elites.images, "noise": noise, **{kind: part.images for kind, part in drawn.items()}}
    images = np.stack([sources[kind][row] for kind, row in items])
    return images, items


def write_sheets(images: np.ndarray, folder: Path) -> None:
    """Sheets of COLUMNS x ROWS images, enlarged; sheet 0 begins with image 0, and images are numbered by rows."""
    folder.mkdir(parents=True, exist_ok=True)
    count = COLUMNS * ROWS
    for sheet, begin in enumerate(range(0, len(images), count)):
        part = images[begin : begin + count].repeat(FACTOR, 2).repeat(FACTOR, 3)
        tiles = np.full((count, 1, 28 * FACTOR + 12, 28 * FACTOR + 12), 128, np.uint8)
        tiles[: len(part), :, 6:-6, 6:-6] = part
        side = tiles.shape[-1]
        whole = tiles.reshape(ROWS, COLUMNS, side, side).transpose(0, 2, 1, 3).reshape(1, ROWS * side, COLUMNS * side)
        save_png(whole, folder / f"sheet-{sheet}.png")
        print_lines(f"sheet-{sheet}.png: images {begin} to {begin + len(part) - 1}, {COLUMNS} in a row")


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """The share of pairs in which the first is lower; ties count half."""
    return float((np.less.outer(low, high) + 0.5 * np.equal.outer(low, high)).mean())


def interval(low: np.ndarray, high: np.ndarray) -> str:
    """The AUC and its 95% interval over 2,000 bootstrap samples of the images of both sides."""
    rng = np.random.default_rng(0)
    values = [auc(rng.choice(low, len(low)), rng.choice(high, len(high))) for _ in range(2000)]
    return f"{auc(low, high):.3f} ({np.quantile(values, 0.025):.3f} to {np.quantile(values, 0.975):.3f})"


def own_shape() -> OwnShape:
    """The measure as `evofool measure --images digits` makes it."""
    target = load("lenet")
    real = real_images("digits", target)
    return OwnShape(real.some(np.arange(len(real))), real.classes, ImageMetrics.of(target, real).held_out_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:12", help="the first one, and the one after the last")
    parser.add_argument("--sheets", type=Path, help="write the sheets here, and measure nothing")
    parser.add_argument("--names", type=Path, help="a CSV of names: number,name,sure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(*map(int, args.seeds.split(":")))
    elites, drawn = evolved(seeds), drawings()
    images, order = shuffled(elites, drawn, seeds.start)
    if args.sheets:
        write_sheets(images, args.sheets)
        return
    measure = own_shape()
    percentiles, flags = measure(*elites)
    print_lines("", "Elites by class: flagged, median percentile")
    for c in range(10):
        mine = elites.classes == c
        print_lines(f"{c}: {flags[mine].sum()} of {mine.sum()}, {np.median(percentiles[mine]):.0f}")
    print_lines(f"all: {flags.sum()} of {len(flags)}")
    print_lines("", "Drawings by kind: flagged; flagged as another class; AUC against all elites")
    other = np.random.default_rng(1).integers(1, 10, EACH * 10)
    of_drawings = {}
    for kind, part in drawn.items():
        of_drawings[kind], seen = measure(*part)
        wrong = measure(part.images, (part.classes + other) % 10)[1]
        auc_here = interval(of_drawings[kind], percentiles)
        print_lines(f"{kind}: {seen.sum()} of {len(seen)}; {wrong.sum()} of {len(wrong)}; {auc_here}")
    together = np.concatenate(list(of_drawings.values())[1:])
    print_lines(f"all but the first: {interval(together, percentiles)}")
    if args.names:
        with args.names.open(newline="", encoding="utf-8") as lines:
            named = {int(row["number"]): (row["name"].strip(), row["sure"].strip() == "1") for row in csv.DictReader(lines)}
        _print_names(named, order, elites, drawn, Measured(percentiles, flags, of_drawings))


def _print_names(
    named: dict[int, tuple[str, bool]], order: Order, elites: Named, drawn: dict[str, Named], found: Measured
) -> None:
    """How well the rater did on drawings and noise, and the measure of the elites by what the rater saw."""
    kinds = [kind for kind, _ in order]
    right = sum(named[k][0] == str(drawn[kind].classes[row]) for k, (kind, row) in enumerate(order) if kind in drawn)
    noise = sum(named[k][0].isdigit() for k, kind in enumerate(kinds) if kind == "noise")
    print_lines("", f"Named right: {right} of {ON_SHEETS} drawings; named as a digit: {noise} of {NOISE} images of noise")
    seen = np.full(len(elites.classes), "not", dtype="<U6")
    for k, (kind, row) in enumerate(order):
        if kind == "elite" and named[k][0] == str(elites.classes[row]):
            seen[row] = "surely" if named[k][1] else "weakly"
    for word in ("surely", "weakly", "not"):
        mine = seen == word
        count = np.bincount(elites.classes[mine], minlength=10)
        by_class = ", ".join(f"{c}: {count[c]}" for c in range(10) if count[c])
        print_lines(f"{word} named as their class: {mine.sum()} elites ({by_class}), flagged {(found.flags & mine).sum()}")
    unseen = found.percentiles[seen == "not"]
    print_lines(
        "AUC against the elites not named as their class:",
        f"surely named elites {interval(found.percentiles[seen == 'surely'], unseen)}",
        f"surely or weakly named ones {interval(found.percentiles[seen != 'not'], unseen)}",
        *(f"{kind}: {interval(own, unseen)}" for kind, own in found.of_drawings.items()),
        f"all drawings but the first kind: {interval(np.concatenate(list(found.of_drawings.values())[1:]), unseen)}",
    )


if __name__ == "__main__":
    main()
