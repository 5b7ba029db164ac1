"""Evaluations until all ten digits are at 0.99 and at 0.9999, of recipes on several digit networks.

    python -m tests.perf.digits --recipes mnist-cppn "mnist-cppn search.keep=1" --networks lenet mlp batch-norm

A recipe is a name and changes to its keys, separated by spaces. Networks: `lenet`, `mlp` and `batch-norm`
(digit_networks.py), or any target. Of each level the median, the worst run and the runs that the limit ended before; such a
run counts as longer than any other.
"""

import argparse

import numpy as np
import torch

from evofool.recipe import load
from evofool.targets import target as load_target
from tests.perf.search import middle, search

LEVELS = (0.99, 0.9999)
NETWORKS = {"mlp": "python:tests.perf.digit_networks:mlp", "batch-norm": "python:tests.perf.digit_networks:batch_norm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["mnist-cppn", "mnist-direct", "mnist-canvas"])
    parser.add_argument("--networks", nargs="+", default=["lenet", *NETWORKS])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=50_000, help="evaluations per run")
    parser.add_argument("--verbose", action="store_true", help="the evaluations of every seed, and digits that are left")
    args = parser.parse_args()
    torch.set_num_threads(1)
    columns = "".join(f"{f'{level}: median':>16}{'worst':>9}{'missed':>8}" for level in LEVELS)
    print(f"{'network':<12}{columns}{'seconds':>9}  recipe")
    for network in args.networks:
        target = load_target(NETWORKS.get(network, network))
        for line in args.recipes:
            name, *changes = line.split()
            recipe = load(name, changes)
            seeds = range(args.first_seed, args.first_seed + args.seeds)
            runs = [search(recipe, target, seed, args.limit, LEVELS) for seed in seeds]
            cells = ""
            for level in LEVELS:
                ends = [run.all[level] for run in runs]
                worst = max(np.inf if end is None else end for end in ends)
                cells += f"{middle(ends):>16,.0f}{worst:>9,.0f}{ends.count(None):>8}"
            seconds = sum(run.seconds for run in runs)
            print(f"{network.partition('?')[0]:<12}{cells}{seconds:>9.1f}  {line}", flush=True)
            if args.verbose:
                for seed, run in zip(seeds, runs, strict=True):
                    left = [digit for digit, p in enumerate(run.confidences) if p < LEVELS[-1]]
                    print(f"    seed {seed}: {', '.join(str(end) for end in run.all.values())}; left: {left}")


if __name__ == "__main__":
    main()
