"""Pictures of sixteen ImageNet classes: are they smooth, and do other networks see the class?

    python -m tests.perf.class_pictures --out FILES                                 about 10 minutes of a core
    python -m tests.perf.class_pictures --out FILES --sheet docs/class-pictures.jpg     half an hour more, for square and nes

Neighbour correlation: Pearson's, of horizontally and of vertically adjacent values of a channel, the mean of both over the
channels; the median of 25 photographs is 0.96. p is that of the saved 8-bit image; the other networks see it resized. The
settings of simonyan, inceptionism and maco were chosen on some of --classes chosen; those of --classes fresh, the default,
are others, most of them those of the figures of Simonyan 2014. A picture is a file in FILES; those that are there are not
made again, so the command can be stopped and repeated. The budgets are those of WAYS.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.attacks.run import METHODS
from evofool.images import decode_png, resized, save_png
from evofool.pages.sheet import Tile, contact_sheet
from evofool.scores import confidence, log_odds
from evofool.targets import Target
from evofool.targets import target as load_target

CLASSES = {
    "chosen": (1, 285, 340, 386, 417, 504, 609, 665, 805, 892, 920, 947, 954, 967, 980, 985),
    "fresh": (9, 99, 130, 250, 251, 278, 301, 508, 543, 627, 759, 897, 945, 951, 963, 968),
}
LEAST_P = 0.9


class Way(NamedTuple):
    """How pictures are made."""

    method: str
    budget: int = 0  # forward passes a class; 0: as published
    settings: Mapping[str, float] = {}
    bound: float = 0.0  # of the neighbour correlation, at p >= LEAST_P


MEASURED = {
    "simonyan": Way("simonyan", 60, bound=0.8),
    "simonyan, blur": Way("simonyan", 80, {"blur": 1.0, "decay": 0.001, "rate": 0.4}, 0.8),
    "inceptionism": Way("inceptionism", 160, bound=0.9),
    "fourier": Way("fourier", 145),
    "maco": Way("maco", 145),
}
OTHER_WAYS = {
    "nguyen": Way("nguyen", 60),
    "erhan": Way("erhan", 90),
    "apgd": Way("apgd", 40),
    "square": Way("square", 300),
    "nes": Way("nes", 300),
}
WAYS = {**OTHER_WAYS, **MEASURED}
OTHERS = ("efficientnet-lite1", "efficientnet-lite2")
TILE = 88  # pixels of the sheet


def pictures(target: Target, name: str, classes: Sequence[int], folder: Path, seed: int) -> np.ndarray:
    """uint8 (n, C, H, W): the pictures of a way, from the files where they are there."""
    way, images = WAYS[name], []
    for c in classes:
        path = folder / f"{target.name}-{name.replace(', ', '-')}-{c}-{seed}.png"
        if not path.exists():
            began = time.process_time()
            options: dict[str, Any] = {"budget": way.budget, "seed": seed, **way.settings}
            if METHODS[way.method].gradients:
                options["microbatch"] = 1  # the fastest on a core
            result = METHODS[way.method].attack(target, [c], **options)
            save_png(result.images[0], path)
            print(f"{path.name}: {result.forwards[0]} forward passes, {time.process_time() - began:.0f} s", flush=True)
        images.append(decode_png(path.read_bytes(), str(path)))
    return np.stack(images)


def neighbour_correlation(image: np.ndarray) -> float:
    """Of uint8 (C, H, W), as above; a constant channel counts as 1."""
    found = []
    for channel in image.astype(float):
        for a, b in ((channel[1:], channel[:-1]), (channel[:, 1:], channel[:, :-1])):
            deviation = a.std() * b.std()
            found.append(((a - a.mean()) * (b - b.mean())).mean() / deviation if deviation > 0 else 1.0)
    return float(np.mean(found))


def confidences(target: Target, images: np.ndarray, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """p of the classes (n,), and whether they are the target's first choice (n,) bool."""
    logits = np.concatenate([target.logits(resized(image, target.shape)[None]) for image in images])
    rows = np.arange(len(images))
    return np.asarray(confidence(log_odds(logits)[rows, list(classes)])), logits.argmax(1) == np.array(classes)


def line(name: str, images: np.ndarray, classes: Sequence[int], target: Target, others: Sequence[Target]) -> str:
    """A row of the table, in Markdown."""
    correlation = np.array([neighbour_correlation(image) for image in images])
    p, _ = confidences(target, images, classes)
    cells = [name, f"{np.median(correlation):.2f} ({correlation.min():.2f})", f"{(p >= LEAST_P).sum()}/{len(p)}"]
    bound = WAYS[name].bound
    both = int(((correlation >= bound) & (p >= LEAST_P)).sum())
    cells.append(f"{both}/{len(p)} ({bound}){'' if both >= len(p) - 1 else ' MISSED'}" if bound else "")
    for other in others:
        q, first = confidences(other, images, classes)
        cells.append(f"{first.sum()}/{len(q)}, {q.mean():.2f}")
    return f"| {' | '.join(cells)} |"


def sheet(by_name: Mapping[str, np.ndarray], classes: Sequence[int], target: Target, path: Path) -> None:
    """A picture with a row for each class and a column for each way."""
    p = {name: confidences(target, images, classes)[0] for name, images in by_name.items()}
    tiles = [
        Tile(images[k], target.labels[c], float(p[name][k]), name)
        for k, c in enumerate(classes)
        for name, images in by_name.items()
    ]
    contact_sheet(tiles, columns=len(by_name), tile=TILE).save(path, quality=60, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of the pictures")
    parser.add_argument("--target", default="efficientnet-lite0")
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=None, help="of these methods only")
    parser.add_argument("--classes", choices=list(CLASSES), default="fresh")
    parser.add_argument("--most", type=int, default=None, help="only so many of the classes")
    parser.add_argument(
        "--sheet", type=Path, default=None, help="make the pictures of all methods, and write them as one JPEG"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target, others = load_target(args.target), [load_target(spec) for spec in OTHERS]
    classes = CLASSES[args.classes][: args.most]
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.only or list(WAYS if args.sheet else MEASURED)
    by_name = {name: pictures(target, name, classes, args.out, args.seed) for name in names}
    print(f"| method | neighbour correlation, median (least) | p >= {LEAST_P} | both | {' | '.join(OTHERS)} |")
    print("|---|---|---|---|---|---|")
    for name, images in by_name.items():
        print(line(name, images, classes, target, others))
    if args.sheet:
        sheet(by_name, classes, target, args.sheet)


if __name__ == "__main__":
    main()
