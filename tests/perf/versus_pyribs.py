"""Ours beside pyribs on one digit network: evaluations and seconds until all ten digits are at 0.99, or the cap.

    pip install 'evofool[peers]'
    python -m tests.perf.versus_pyribs --target "lenet-caffe?weights=lenet_caffe.safetensors"

One process, one thread, the arms taking turns seed by seed; both sides ask the same Target and both score 8-bit pixels.
The arms of pyribs are described in peer_pyribs.py: its own notebook's settings, and the strongest that its API allows.
"""

import argparse
from statistics import median

import numpy as np
import torch

from evofool.recipe import load
from evofool.targets import target as load_target
from tests.perf.peer_pyribs import ARMS
from tests.perf.search import search

OURS = ("mnist-direct", "mnist-cppn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="of pyribs")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--notebook-seeds", type=int, default=1, help="the notebook's settings take minutes each")
    parser.add_argument("--cap", type=int, default=900_000)
    parser.add_argument("--level", type=float, default=0.99)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(args.target)
    target.logits(np.zeros((30, *target.shape), np.uint8))
    for name in OURS:
        search(load(name), target, 0, 200, [args.level])  # compiles the kernels
    figures: dict[str, list[tuple[int, float, int]]] = {}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in OURS:
            r = search(load(name), target, seed, args.cap, [args.level])
            reached = int((r.confidences >= args.level).sum())
            figures.setdefault(name, []).append((r.all[args.level] or args.cap, r.seconds, reached))
        for name in args.arms:
            if name != "notebook" or seed < args.first_seed + args.notebook_seeds:
                o = ARMS[name](target.logits, seed, args.cap, args.level)
                figures.setdefault(f"ribs {name}", []).append((o.evaluations, o.seconds, o.reached))
    columns = f"{'arm':<22}{'seeds':>6}{'evaluations':>13}{'longest':>9}{'seconds':>9}{'all ten':>9}"
    print(f"{columns}   medians, longest; evaluations / seconds over ours")
    ours = {name: [median(column) for column in zip(*figures[name], strict=True)] for name in OURS}
    for name, rows in figures.items():
        evaluations, seconds, _ = (median(column) for column in zip(*rows, strict=True))
        longest = max(row[0] for row in rows)
        done = f"{sum(reached == 10 for *_, reached in rows)}/{len(rows)}"
        beside = "   ".join(
            f"{evaluations / mine[0]:.2f}x / {seconds / mine[1]:.2f}x {other}"
            for other, mine in ours.items()
            if other != name
        )
        print(f"{name:<22}{len(rows):>6}{evaluations:>13,.0f}{longest:>9,}{seconds:>9.2f}{done:>9}   {beside}", flush=True)


if __name__ == "__main__":
    main()
