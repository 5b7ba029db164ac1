"""Elites after a real JPEG file, of runs with and without through=jpeg:75: how many are still at 0.9.

python -m tests.perf.through RECIPE TARGET [--through jpeg:75] [--seeds 10:15] [--set KEY=VALUE ...] [--out DIR]

Each seed makes two runs of the recipe, the target as it is and with through=. Both have the same number of evaluations, and
an image is one query in either. Then every elite's PNG is opened, saved as a JPEG file by Pillow, opened again and scored
by the target as it is: by the same network, and by no code of evofool in between. Prints by arm and seed how many elites
are at 0.5, 0.9 and 0.99 as the run scored them, as PNGs, and after the file; then the means over seeds with the
standard error of the paired difference. Runs that DIR has are used as they are; --quality is that of the file. --picture:
of the first seed.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from evofool import recipe as recipes
from evofool.images import save_picture
from evofool.pages.sheet import Tile, contact_sheet
from evofool.printer import print_lines
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.scores import confidence, log_odds
from evofool.targets import Target
from evofool.targets import target as load

LEVELS = (0.5, 0.9, 0.99)
COLUMNS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("target")
    parser.add_argument("--through", default="jpeg:75")
    parser.add_argument("--quality", type=int, default=75)
    parser.add_argument("--seeds", default="10:15", help="the first one, and the one after the last")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(*map(int, args.seeds.split(":")))
    plain = load(args.target)
    arms = {"as it is": args.target, f"through={args.through}": f"{args.target}?through={args.through}"}
    shares = {arm: np.zeros((len(seeds), len(LEVELS))) for arm in arms}
    of_first_seed: list[Elites] = []
    with tempfile.TemporaryDirectory() as home:
        out = args.out or Path(home)
        for k, seed in enumerate(seeds):
            for a, (arm, spec) in enumerate(arms.items()):
                folder, began = out / f"{a}-{seed}", time.process_time()
                recipe = recipes.load(args.recipe, [*args.changes, f"target={spec}", f"search.seed={seed}"])
                if not folder.exists():
                    with Run.start(recipe, folder, load(spec)) as run:
                        run.advance()
                took = time.process_time() - began
                with StoredRun(folder) as stored:
                    elites, answers = stored.elites(), stored.evaluations
                own = np.array([elite.confidence for elite in elites])
                classes = np.array([elite.row.class_id for elite in elites])
                images = np.stack([elite.image for elite in elites])
                files = Path(home) / "files"
                files.mkdir(exist_ok=True)
                read = through_file(images, files, args.quality)
                found = [own, scored(plain, images, classes), scored(plain, read, classes)]
                if k == 0:
                    of_first_seed.append(Elites([elite.label for elite in elites], images, own, read, found[2]))
                counts = [[int((p >= level).sum()) for level in LEVELS] for p in found]
                shares[arm][k] = [n / len(elites) for n in counts[2]]
                said = "; ".join(
                    f"{what} {', '.join(map(str, n))}" for what, n in zip(("own", "PNG", "JPEG file"), counts, strict=True)
                )
                print_lines(
                    f"seed {seed}, {arm}: {answers:,} evaluations, {took:.0f} CPU s; of {len(elites)} elites at "
                    f"{', '.join(map(str, LEVELS))}: {said}; median after the file {np.median(found[2]):.4f}"
                )
    if args.picture:
        draw(*of_first_seed, args.picture)
    first, second = shares.values()
    for level, column in zip(LEVELS, range(len(LEVELS)), strict=True):
        a, b = first[:, column], second[:, column]
        error = (b - a).std(ddof=1) / len(a) ** 0.5 if len(a) > 1 else np.nan
        print_lines(
            f"at {level} after a JPEG file of quality {args.quality}, mean over {len(a)} seeds: {a.mean():.1%} and "
            f"{b.mean():.1%}; difference {(b - a).mean():+.1%}, standard error {error:.1%}"
        )


class Elites(NamedTuple):
    """labels: n. images, read: uint8 (n, 3, H, W), as they are and after the file. own, after: (n,), the confidences."""

    labels: list[str]
    images: np.ndarray
    own: np.ndarray
    read: np.ndarray
    after: np.ndarray


def draw(plain: Elites, delivered: Elites, path: Path) -> None:
    """The elites of one run with the highest confidences, the same after the file, and the other run's after the file."""
    best = np.argsort(-plain.own, kind="stable")[:COLUMNS]
    rows = (
        ("PNG", plain.labels, plain.images, plain.own),
        ("JPEG", plain.labels, plain.read, plain.after),
        ("through=", delivered.labels, delivered.read, delivered.after),
    )
    tiles = [Tile(images[k], f"{what}: {labels[k]}", float(p[k])) for what, labels, images, p in rows for k in best]
    save_picture(contact_sheet(tiles, COLUMNS, 140), path)


def through_file(images: np.ndarray, folder: Path, quality: int) -> np.ndarray:
    """uint8 (B, 3, H, W) saved as JPEG files and opened again."""
    found = []
    for k, image in enumerate(images):
        path = folder / f"{k}.jpg"
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path, quality=quality)
        with Image.open(path) as opened:
            found.append(np.asarray(opened.convert("RGB")).transpose(2, 0, 1))
    return np.stack(found)


def scored(target: Target, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(B,) the target's confidence in a class of each image."""
    logits = np.concatenate([target.logits(images[at : at + 16]) for at in range(0, len(images), 16)])
    return np.asarray(confidence(log_odds(logits)[np.arange(len(images)), classes]))


if __name__ == "__main__":
    main()
