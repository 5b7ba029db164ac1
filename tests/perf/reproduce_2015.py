"""Evaluations until the first digit, the median digit and all digits are at 0.99 and at 0.9999, on one network.

    python -m tests.perf.reproduce_2015 --target "lenet-caffe?weights=lenet_caffe.safetensors" --seeds 10

Our recipes and the presets with the settings of 2015. Prints medians over seeds, with the smallest and the largest; a run
that meets the cap first counts as longer than any other, and is counted apart.
"""

import argparse
import math

import torch

from evofool.recipe import load
from evofool.targets import target as load_target
from tests.perf.search import middle, search

RECIPES = ("mnist-cppn", "mnist-cppn-nguyen2015", "mnist-direct", "mnist-direct-nguyen2015", "mnist-canvas")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cap", type=int, default=400_000)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.99, 0.9999])
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="some of the recipes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(args.target)
    print(f"{'recipe':<25}{'level':>7}{'first digit':>26}{'median digit':>26}{'all digits':>26}{'missed':>9}")
    for name in args.recipes:
        seeds = range(args.first_seed, args.first_seed + args.seeds)
        runs = [search(load(name), target, seed, args.cap, args.levels) for seed in seeds]
        for level in args.levels:
            found = [
                [part[level] for part in parts] for parts in zip(*((r.first, r.median, r.all) for r in runs), strict=True)
            ]
            missed = f"{found[-1].count(None)} of {len(runs)}"
            print(f"{name:<25}{level:>7}{''.join(f'{spread(values):>26}' for values in found)}{missed:>9}", flush=True)


def spread(values: list[int | None]) -> str:
    """The median, the smallest and the largest: "960 (720 to 1,200)"."""
    known = [math.inf if value is None else value for value in values]
    return f"{middle(values):,.0f} ({min(known):,.0f} to {max(known):,.0f})"


if __name__ == "__main__":
    main()
