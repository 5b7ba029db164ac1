"""What Nguyen, Yosinski & Clune (2015) say about archives of ImageNet's 1,000 classes, on runs of ours.

    python -m tests.perf.archives_2015 runs/imagenet-1 runs/imagenet-2

Of each run: the median confidence, classes at 0.99 and 0.9999, the median of classes 156 to 286 (dogs and cats) and of the
others, and goal switches. Are elites of related classes alike? Pairs of classes that are neighbours in ImageNet's order,
which follows WordNet, beside all other pairs; and, of each two runs, the elites of the same class beside those of different
ones. Likeness is the correlation of the images at 32 x 32 pixels. --at: the archives as they were after so many evaluations,
as ranked; then the images are left out, and each two runs are compared by a Mann-Whitney test over classes, as in the paper.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from evofool.bench.statistics import mann_whitney
from evofool.run.stored import StoredRun
from evofool.scores import confidence

CLASSES = 1000
WEAK = slice(156, 287)
SIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="runs over the same 1,000 classes")
    parser.add_argument("--at", type=int, help="evaluations")
    args = parser.parse_args()
    scores, thumbnails = [], []
    for folder in args.runs:
        with StoredRun(folder) as stored:
            scores.append(final(stored) if args.at is None else as_of(stored, args.at))
            print_scores(folder, stored, scores[-1], args.at or stored.evaluations)
            if args.at is None:
                thumbnails.append(np.stack([thumbnail(elite.image) for elite in stored.elites()[:CLASSES]]))
                print_neighbours(thumbnails[-1])
    for a, b in combinations(range(len(args.runs)), 2):
        print(f"{args.runs[a]} and {args.runs[b]}:")
        if args.at is None:
            likeness = thumbnails[a] @ thumbnails[b].T
            others = likeness[~np.eye(len(likeness), dtype=bool)]
            print(f"  likeness: the same class {np.diag(likeness).mean():.3f}, other classes {others.mean():.3f}")
        else:
            u, p = mann_whitney(scores[a].tolist(), scores[b].tolist())
            print(f"  Mann-Whitney U {u:,.0f}, two-sided p {p:.2g}")


def final(stored: StoredRun) -> np.ndarray:
    """(1000,) confidences in float32 at the end; a class after the 1,000 is left out."""
    return np.array([elite.confidence for elite in stored.listed()])[:CLASSES]


def as_of(stored: StoredRun, evaluations: int) -> np.ndarray:
    """(1000,) confidences after so many evaluations, as ranked; 0 where there was no elite."""
    best = np.full(len(stored.labels), -np.inf)
    for change in stored.store.cell_history():
        if (change.batch + 1) * stored.recipe.search.batch <= evaluations:
            best[change.cell] = change.log_odds  # in the order in which they happened
    return np.asarray(confidence(best))[:CLASSES]


def print_scores(folder: Path, stored: StoredRun, p: np.ndarray, evaluations: int) -> None:
    wins, switches = stored.store.counts()
    others = np.concatenate([p[: WEAK.start], p[WEAK.stop :]])
    print(f"{folder}: {stored.meta.target.name}, {evaluations:,} evaluations, seed {stored.recipe.search.seed}")
    differ = mann_whitney(p[WEAK].tolist(), others.tolist())[1]
    print(
        f"  median {np.median(p):.4f}; at 0.99 {(p >= 0.99).sum()}, at 0.9999 {(p >= 0.9999).sum()}; "
        f"classes 156 to 286 {np.median(p[WEAK]):.4f}, others {np.median(others):.4f}, p {differ:.2g}"
    )
    print(f"  {switches:,} of {wins:,} elite replacements are goal switches, {switches / wins:.1%}, in the whole run")


def print_neighbours(thumbnails: np.ndarray) -> None:
    likeness = thumbnails @ thumbnails.T
    near = np.diag(likeness, 1)
    upper = likeness[np.triu_indices(len(likeness), 2)]
    above = (near > np.quantile(upper, 0.95)).mean()
    print(
        f"  likeness: neighbours {near.mean():.3f}, other pairs {upper.mean():.3f}; "
        f"{above:.1%} of the neighbours are more alike than 95% of the other pairs"
    )


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 (3, H, W) to a vector with a mean of 0 and a norm of 1; 0 for an image of one colour."""
    small = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.BOX), float)
    centred = small - small.mean((0, 1))  # of each channel
    return (centred / max(float(np.linalg.norm(centred)), 1e-9)).ravel()


if __name__ == "__main__":
    main()
