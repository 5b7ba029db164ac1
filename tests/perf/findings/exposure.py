"""What outlier exposure buys against images that it never saw: statements 17 to 22 of docs/findings.md.

python -m tests.perf.findings.exposure SET OUT

SET: the folder of `evofool set build set-1`. OUT gets trained networks and searches; the same command goes on from there.

Networks are trained on half of the digits with five seeds, which are not those of the set's networks. With each seed there
are nine of a kind: *plain*; exposed to the images of one encoding or attack A; to those of *all six*; and to those of the
*generator* (new ones in every epoch). Images of A are all elites for undefended-1, -2 and -3 in the set (90 of each A,
whatever their confidence). In every kind but plain a quarter of the images in training are such images.

Tested on the images of B for undefended-4 and -5 that fool these, and by searches with B as cells of the set are made,
3,000 queries, with search seeds that the set has not used (10 to 14, one for each training seed): the first random images
of a search would otherwise be those of which images of A descend.

Prints how many test images are, to the byte, among those of A as well (searches with one seed begin with the same images);
the accuracy of each kind on the held-out half of the digits; and, as means over the seeds, of stored images the share with a
confidence of 0.99 or more in the class that they were made for, and of searches how many digits have an image at 0.99, with
A in rows and B in columns. Then the verdicts; the values of an interval are the five training seeds, each the mean of what
the statement names:

17. over A: the share of the images of B = A, minus a tenth of the plain network's share of them: below 0. A difference needs
    no division by a share that may be 0. The ratio of the mean shares is printed for scale, and the same without direct,
    of which hardly an image fools a network after 3,000 queries.
18. over the 30 pairs of B other than A: the share, minus half of the plain network's: below 0.
19. digits that a search with cppn reaches against exposure to cppn: above 5.
20. over the 30 pairs: the digits that a search reaches against the plain network, minus those against the exposed one:
    below 1.
21. over B: the digits against exposure to all six, minus the mean over A of those against exposure to A (B = A included):
    below 0.
22. digits of a search with cppn against exposure to the generator, minus those against exposure to all six: below 0.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from evofool.bench.retraining import training
from evofool.printer import print_lines
from evofool.targets import Target
from evofool.targets import target as load
from evofool.targets.digits import held_out, training_half
from tests.perf.findings.common import (
    ARMS,
    UNDEFENDED,
    Images,
    cells_of,
    elites,
    judge,
    parser_of,
    print_table,
    reached,
    search_as_cell,
    share_fooled,
)

ALL_SIX, GENERATOR, PLAIN = "all six", "generator", "plain"
KINDS = (*ARMS, ALL_SIX, GENERATOR, PLAIN)
COPIES = 5
_SEEDS_FROM = 17  # training seeds are seed_of(17, copy); the set's have the number of a defence in place of 17
_SEARCH_SEEDS_FROM = 10


class Measured(NamedTuple):
    """By copy, or by copy and B: (5,), the accuracy; (5, 6), the shares of stored images; (5, 6), the digits reached."""

    accuracy: np.ndarray
    shares: np.ndarray
    digits: np.ndarray


def main() -> None:
    args = parser_of(__doc__).parse_args()
    torch.set_num_threads(1)
    shown = {arm: elites(cells_of(args.set, UNDEFENDED[:3], [arm])).pixels for arm in ARMS}
    fooling = {**shown, ALL_SIX: np.concatenate(list(shown.values())), GENERATOR: None}
    tests = {arm: elites(cells_of(args.set, UNDEFENDED[3:], [arm])).fooling() for arm in ARMS}
    same = {arm: len(bytes_of(shown[arm]) & bytes_of(images.pixels)) for arm, images in tests.items()}
    print_lines(f"Test images of B = A that are images of A too: {', '.join(f'{arm} {n}' for arm, n in same.items())}")
    found = {}
    for kind in KINDS:
        began = time.process_time()
        found[kind] = measured(kind, fooling.get(kind), tests, args.out)
        print_lines(f"{kind}: trained and searched, {time.process_time() - began:.0f} CPU s")
    print_matrices(found, tests)
    judge_all(found)


def bytes_of(pixels: np.ndarray) -> set[bytes]:
    """The different images among these."""
    return {image.tobytes() for image in pixels}


def measured(kind: str, fooling: np.ndarray | None, tests: dict[str, Images], out: Path) -> Measured:
    """The networks of one kind, which are trained now unless they are there, and searches against each."""
    accuracies, shares, digits = [], [], []
    real, labels = held_out()
    for copy in range(COPIES):
        target, name = trained(kind, copy, fooling, out / "networks"), f"{kind.replace(' ', '-')}-{copy}"
        accuracies.append(float((target.logits(real).argmax(1) == labels).mean()))
        shares.append([share_fooled(target, images) for images in tests.values()])
        seed, cells = _SEARCH_SEEDS_FROM + copy, out / "cells" / name
        digits.append([reached(search_as_cell(target, arm, seed, cells / f"{arm}-{seed}")) for arm in ARMS])
    return Measured(np.array(accuracies), np.array(shares), np.array(digits, np.float64))


def trained(kind: str, copy: int, fooling: np.ndarray | None, folder: Path) -> Target:
    """A network, which is trained now unless its file is there. fooling: uint8 (M, 1, 28, 28), None: of the generator.

    StoreError if the file has a network that was trained on other images.
    """
    defence, seed = "none" if kind == PLAIN else "outlier-exposure", training.seed_of(_SEEDS_FROM, copy)
    others = "evofool.bench.retraining.outliers"
    if fooling is not None:
        others = f"{len(fooling)} images, SHA-256 {hashlib.sha256(fooling.tobytes()).hexdigest()}"
    metadata = training.network_metadata(seed, defence, training.EPOCHS, others)
    path = folder / f"{kind.replace(' ', '-')}-{copy}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not training.is_trained(path, metadata):
        training.save_network(training.train(seed, defence, *training_half(), fooling=fooling), path, metadata)
    return load(f"lenet?weights={path.absolute()}")


def print_matrices(found: dict[str, Measured], tests: dict[str, Images]) -> None:
    """Print the accuracies, and both matrices of means over copies."""
    print_table(
        ("exposed to", "accuracy, held-out digits", "least"),
        {kind: (f"{one.accuracy.mean():.2%}", f"{one.accuracy.min():.2%}") for kind, one in found.items()},
    )
    counts = ", ".join(f"{arm} {len(images.own)}" for arm, images in tests.items())
    print_lines(f"Share of stored images (B in columns: {counts}) at 0.99:")
    print_matrix(found, lambda one: one.shares, "{:.1%}")
    print_lines("Digits reached by a new search with B:")
    print_matrix(found, lambda one: one.digits, "{:.1f}")


def print_matrix(found: dict[str, Measured], part: Callable[[Measured], np.ndarray], form: str) -> None:
    """Print means over copies, kinds in rows and B in columns, with the mean over B."""
    means = {kind: part(one).mean(0) for kind, one in found.items()}
    rows = {kind: [form.format(value) for value in (*row, row.mean())] for kind, row in means.items()}
    print_table(("A \\ B", *ARMS, "mean"), rows)


def own_and_others(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(A, copies, B), as many A as B, to means over B = A and over B other than A, (copies,) each."""
    own = np.eye(len(values), dtype=bool)
    by_pair = values.transpose(0, 2, 1)
    return by_pair[own].mean(0), by_pair[~own].mean(0)


def print_means(what: str, own: np.ndarray, others: np.ndarray, plain: np.ndarray) -> None:
    """Print mean shares and their ratios to those of the plain networks."""
    a, b, c = own.mean(), others.mean(), plain.mean()
    print_lines(f"{what}: B = A {a:.2%}, B other than A {b:.2%}, plain {c:.2%}; of plain {a / c:.3g} and {b / c:.3g}")


def judge_all(found: dict[str, Measured]) -> None:
    """Judge statements 17 to 22."""
    shares, digits = (np.stack([found[arm][part] for arm in ARMS]) for part in (1, 2))
    own, others = own_and_others(shares)
    plain = found[PLAIN].shares.mean(1)
    print_means("Mean shares", own, others, plain)
    print_means("The same without direct", *own_and_others(shares[1:, :, 1:]), found[PLAIN].shares[:, 1:].mean(1))
    judge(17, "share of B = A, minus a tenth of plain", (own - plain / 10).tolist(), below=0.0)
    judge(18, "share of B other than A, minus half of plain", (others - plain / 2).tolist(), below=0.0)
    cppn = ARMS.index("cppn")
    judge(19, "digits reached by cppn, exposed to cppn", found["cppn"].digits[:, cppn].tolist(), above=5.0)
    fewer = found[PLAIN].digits.mean(1) - own_and_others(digits)[1]
    judge(20, "digits fewer than against plain, B other than A", fewer.tolist(), below=1.0)
    against_all, against_one = found[ALL_SIX].digits.mean(1), digits.mean((0, 2))
    judge(21, "digits, exposed to all six, minus exposed to one", (against_all - against_one).tolist(), below=0.0)
    less = found[GENERATOR].digits[:, cppn] - found[ALL_SIX].digits[:, cppn]
    judge(22, "digits reached by cppn, exposed to the generator, minus to all six", less.tolist(), below=0.0)


if __name__ == "__main__":
    main()
