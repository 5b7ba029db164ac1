"""What lag costs a search: evaluations until digits are at 0.9999, over D batches between a parent and its children.

    python -m tests.perf.lag_curve --target "lenet-caffe?weights=lenet_caffe.safetensors" --seeds 10

With lag D, D + 1 batches are under way. Prints, per recipe and lag, medians over seeds until the median digit and until all
are there, with the quartiles of the latter, and how many times more that is than with lag 0. A run that meets the cap counts
as longer than any other.
"""

import argparse

import numpy as np
import torch

from evofool.recipe import load
from evofool.targets import target as load_target
from tests.perf.search import middle, search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--recipes", nargs="+", default=["mnist-cppn", "mnist-direct"])
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 1, 2, 4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cap", type=int, default=60_000)
    parser.add_argument("--level", type=float, default=0.9999)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(args.target)
    print(f"{'recipe':<14}{'lag':>4}{'median digit':>14}{'all digits':>12}{'(quartiles)':>18}{'of lag 0':>10}{'missed':>8}")
    for name in args.recipes:
        base = None
        for lag in args.lags:
            recipe = load(name, [*args.changes, f"search.lag={lag}"])
            seeds = range(args.first_seed, args.first_seed + args.seeds)
            runs = [search(recipe, target, seed, args.cap, [args.level]) for seed in seeds]
            ends = [np.inf if run.all[args.level] is None else run.all[args.level] for run in runs]
            found, (low, high) = (
                middle([run.all[args.level] for run in runs]),
                np.quantile(ends, (0.25, 0.75), method="nearest"),
            )
            base = base or found
            quartiles = f"({low:,.0f} {high:,.0f})"
            missed = sum(run.all[args.level] is None for run in runs)
            print(
                f"{name:<14}{lag:>4}{middle([run.median[args.level] for run in runs]):>14,.0f}{found:>12,.0f}{quartiles:>18}"
                f"{found / base:>10.2f}{missed:>8}",
                flush=True,
            )


if __name__ == "__main__":
    main()
