"""Evaluations until digits are at 0.9999, by our recipes and by the 2015 presets, on one network.

    python -m tests.perf.reproduce_2015 --target "lenet-caffe?weights=lenet_caffe.safetensors" --seeds 10

Prints, per recipe, medians over seeds of the evaluations until the median digit and until all digits are there; a run that
meets the cap first counts as longer than any other.
"""

import argparse

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
    parser.add_argument("--level", type=float, default=0.9999)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="some of the recipes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(args.target)
    print(f"{'recipe':<26}{'median digit':>14}{'all digits':>12}{'missed the cap':>16}")
    found: dict[str, tuple[float, float]] = {}
    for name in args.recipes:
        runs = [
            search(load(name), target, seed, args.cap, [args.level])
            for seed in range(args.first_seed, args.first_seed + args.seeds)
        ]
        found[name] = middle([r.median[args.level] for r in runs]), middle([r.all[args.level] for r in runs])
        missed = sum(r.all[args.level] is None for r in runs)
        print(f"{name:<26}{found[name][0]:>14,.0f}{found[name][1]:>12,.0f}{missed:>12} of {len(runs)}", flush=True)
    for name, (median, all_digits) in found.items():
        if name + "-nguyen2015" in found:
            theirs = found[name + "-nguyen2015"]
            print(f"{name + ' / 2015':<26}{median / theirs[0]:>14.3f}{all_digits / theirs[1]:>12.3f}")


if __name__ == "__main__":
    main()
