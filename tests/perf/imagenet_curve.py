"""How sure an ImageNet classifier becomes of its 1000 classes, over evaluations: medians measured in float32.

    python -m tests.perf.imagenet_curve --recipe imagenet-cppn --seeds 3 --cap 32768
    python -m tests.perf.imagenet_curve --recipe imagenet-cppn --cap 200000 --out runs/imagenet-cppn

Each run is stopped at 1,024 evaluations, 2,048, 4,096, ... and at the cap; there its elites are measured again, a line is
printed, and it goes on: a pause changes no bit. Prints, with several seeds, the medians over them.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from evofool.recipe import load
from evofool.run.run import Run
from evofool.scores import confidence
from evofool.targets import Target
from evofool.targets import target as load_target


def climb(name: str, changes: list[str], target: Target | None, seed: int, cap: int, out: Path) -> dict[int, float]:
    """Median confidence at each milestone, of one seed."""
    recipe = load(name, [*changes, f"search.seed={seed}", f"stop.evaluations={cap}", "stop.confidence="])
    medians: dict[int, float] = {}
    milestones = [2**k for k in range(10, 40) if 2**k < cap] + [cap]
    opened = Run.resume(out, recipe) if (out / "run.db").exists() else Run.start(recipe, out, target)
    with opened as run:
        for milestone in milestones:
            batches = -(-milestone // recipe.search.batch) - run.strategy.committed
            if batches <= 0:
                continue
            run.advance(batches=batches)
            p = np.asarray(confidence(run.best()))
            ranked = np.asarray(confidence(run.archive.best()))
            medians[milestone] = float(np.median(p))
            print(
                f"seed {seed} {run.strategy.evaluations:>8,}: median {np.median(p):.4f} "
                f"(as ranked {np.median(ranked):.4f}), {(p >= 0.99).sum():>4} classes at 0.99, "
                f"{run.archive.distinct():>4} distinct, {run.seconds:,.0f} s",
                flush=True,
            )
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="imagenet-cppn")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cap", type=int, default=32_768)
    parser.add_argument("--out", type=Path, help="keep the run of one seed here; goes on with it if it is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(load(args.recipe, args.set).target)
    every = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        with ExitStack() as stack:
            out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
            every.append(climb(args.recipe, args.set, target, seed, args.cap, out))
    for milestone in every[0] if len(every) > 1 else ():
        values = [medians[milestone] for medians in every]
        print(f"{milestone:>8,}: median of {len(values)} seeds {statistics.median(values):.4f}", flush=True)


if __name__ == "__main__":
    main()
