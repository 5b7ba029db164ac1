"""Statements 1 to 8 of docs/findings.md: which images of a set fool classifiers that they were not made for.

python -m tests.perf.findings.transfer SET

SET: the folder of the set that `evofool set build set-1` wrote, with lenet-caffe among the digits and SqueezeNet among the
photographs. Prints by arm the shares of images whose class other classifiers predict, and whether each statement held. A
share is that of a cell (classifier, arm, seed), averaged over cells. Digits: of the images to which their own network gives
a confidence of 0.99 or more; photographs: of the images whose class their own network predicts. In
statement 8 the share with SqueezeNet is the mean of four: from each Lite network to it, and from it to the three. The MLP
and the convnet with batch norm are tests.perf.digit_networks:mlp_3 and batch_norm_3, which are trained now if they were not.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.fooling_set.index import SetIndex
from evofool.fooling_set.rows import COLUMNS, matrix_columns
from evofool.fooling_set.table import read_table
from evofool.images import decode_png
from evofool.printer import print_lines
from evofool.targets import target as load_target
from tests.perf.findings.common import ARMS, DEFENDED, FOOLS, UNDEFENDED, judge

OWN_SHAPE = "shape of its digit"  # by has_own_shape, a measure that is no classifier
OTHER_ARCHITECTURES = ("mlp_3", "batch_norm_3")
LITE, SQUEEZENET = tuple(f"efficientnet-lite{k}" for k in range(3)), "torchvision_squeezenet1_0"
ON_PHOTOGRAPHS = ("cppn", "canvas", "apgd")


class Images(NamedTuple):
    """The images of one cell that count.

    predicted: by classifier, whether it predicts their class; (n,) bool. Under
    OWN_SHAPE, of digits, whether they have the shape of their digit.
    """

    source: str
    arm: str
    seed: int
    predicted: Mapping[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    folder = parser.parse_args().set
    torch.set_num_threads(1)
    digits = cells(folder, "digits", lambda row: row["confidence"] >= FOOLS)
    among_digits(Shares(digits))
    photographs = cells(folder, "photographs", lambda row: row["margin"] > 0)
    among_photographs(Shares(photographs))


class Shares:
    """Shares of images whose class other classifiers predict, averaged over cells."""

    def __init__(self, cells: Sequence[Images]) -> None:
        self.cells = cells

    def of(self, source: str, arm: str, scorers: Sequence[str], seed: int | None = None) -> float:
        """Mean over the cells of a source and the scorers but itself; NaN if no cell has an image that counts."""
        found = [
            cell.predicted[scorer].mean()
            for cell in self.cells
            if (cell.source, cell.arm) == (source, arm) and (seed is None or cell.seed == seed)
            for scorer in scorers
            if scorer != source and len(cell.predicted[scorer])
        ]
        return float(np.mean(found)) if found else np.nan

    def each(self, arm: str, scorers: Sequence[str]) -> np.ndarray:
        """(5,) for each undefended network as the source."""
        return np.array([self.of(source, arm, scorers) for source in UNDEFENDED])

    def count(self, arm: str, sources: Sequence[str]) -> int:
        """How many images count."""
        named = [cell for cell in self.cells if cell.arm == arm and cell.source in sources]
        return sum(len(next(iter(cell.predicted.values()))) for cell in named)


def among_digits(shares: Shares) -> None:
    groups = {
        "undefended": UNDEFENDED,
        "lenet": ["lenet"],
        "lenet-caffe": ["lenet-caffe"],
        **{name: [name] for name in OTHER_ARCHITECTURES},
        "defended": DEFENDED,
        OWN_SHAPE: [OWN_SHAPE],
    }
    print_lines(f"| images of undefended networks | number | {' | '.join(groups)} |", f"|---|---|{'---|' * len(groups)}")
    for arm in ARMS:
        row = [f"{shares.each(arm, scorers).mean():.2f}" for scorers in groups.values()]
        print_lines(f"| `{arm}` | {shares.count(arm, UNDEFENDED)} | {' | '.join(row)} |")
    own = shares.each("cppn", UNDEFENDED)
    judge(1, "cppn, share that another undefended network predicts", own.tolist(), above=0.5)
    judge(2, "other architectures, difference", (shares.each("cppn", OTHER_ARCHITECTURES) - own).tolist(), below=0)
    judge(3, "defended less half of undefended", (shares.each("cppn", DEFENDED) - own / 2).tolist(), below=0)
    among = {arm: shares.each(arm, UNDEFENDED) for arm in ARMS}
    for other in ("cppn", "canvas", "latent"):
        judge(4, f"direct less {other}", (among["direct"] - among[other]).tolist(), below=0)
    for other in ("direct", "cppn", "canvas"):
        judge(5, f"latent less {other}", (among["latent"] - among[other]).tolist(), above=0)
    judge(6, "apgd less cppn", (among["apgd"] - among["cppn"]).tolist(), below=0)
    judge(7, "fourier less apgd", (among["fourier"] - among["apgd"]).tolist(), above=0)


def among_photographs(shares: Shares) -> None:
    networks = (*LITE, SQUEEZENET)
    for arm in ON_PHOTOGRAPHS:
        print_lines(f"| `{arm}` | number | {' | '.join(networks)} |", f"|---|---|{'---|' * len(networks)}")
        for source in networks:
            row = ["" if scorer == source else f"{shares.of(source, arm, [scorer]):.3f}" for scorer in networks]
            print_lines(f"| {source} | {shares.count(arm, [source])} | {' | '.join(row)} |")
        differences = []
        for seed in sorted({cell.seed for cell in shares.cells}):
            within = np.nanmean([shares.of(source, arm, LITE, seed) for source in LITE])
            to_other = [shares.of(source, arm, [SQUEEZENET], seed) for source in LITE]
            across = np.nanmean([*to_other, shares.of(SQUEEZENET, arm, LITE, seed)])
            differences.append(float(within - 3 * across))
        judge(8, f"{arm}, among Lite networks less three times with SqueezeNet, by seed", differences, above=0)


def cells(folder: Path, group: str, counts: Callable[[Mapping[str, Any]], bool]) -> list[Images]:
    """The cells of a group, with the images that count."""
    index = SetIndex.read(folder)
    names = [name for name, of in index.classifiers.items() if of["group"] == group]
    read = ("id", "group", "classifier", "arm", "label_name", "seed", "confidence", "margin", "has_own_shape")
    kinds = {name: COLUMNS[name] for name in read}
    rows = [
        row
        for row in read_table(folder, kinds | matrix_columns(names), images=True)
        if row["group"] == group and counts(row)
    ]
    labels = {name: index.classifiers[name]["labels"] for name in names}
    predicted = {
        name: np.array([labels[name][row[f"predicted/{name}"]] == row["label_name"] for row in rows]) for name in names
    }
    if group == "digits":
        predicted[OWN_SHAPE] = np.array([row["has_own_shape"] == 1 for row in rows])
        images = np.stack([decode_png(row["image"]["bytes"], row["id"]) for row in rows])
        for name in OTHER_ARCHITECTURES:
            answers = load_target(f"python:tests.perf.digit_networks:{name}").logits(images).argmax(axis=1)
            predicted[name] = answers == np.array([int(row["label_name"]) for row in rows])
    places: dict[tuple[str, str, int], list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault((row["classifier"], row["arm"], row["seed"]), []).append(place)
    return [Images(*key, {name: of[at] for name, of in predicted.items()}) for key, at in places.items()]


if __name__ == "__main__":
    main()
