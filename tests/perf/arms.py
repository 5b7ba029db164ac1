"""All baselines at equal passes: the margins of their 8-bit images, and how often APGD's is at least each other one's.

    python -m tests.perf.arms efficientnet-lite0 --classes 40 --budget 100

A gradient step is a forward and a backward pass, so a method without gradients is asked twice as often: `--budget` is
forward passes per class of those with gradients, restarts and judging included. Classes are spread evenly over the labels.
"fourier untransformed" is Fourier space without transforms.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from evofool.attacks.run import METHODS, AttackPlan, run_baseline
from evofool.run.stored import StoredRun
from evofool.targets import target as load_target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", default="efficientnet-lite0")
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--methods", default=",".join([*METHODS, "fourier untransformed"]))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(given.target)
    classes = tuple(np.linspace(0, len(target.labels) - 1, min(given.classes, len(target.labels))).astype(int).tolist())
    margins: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in given.methods.split(","):
            name, _, untransformed = method.partition(" ")
            budget = {True: given.budget, False: 2 * given.budget - 1}[METHODS[name].gradients]
            settings = {"transformed": False} if untransformed else {}
            budget = 0 if name == "noise" else budget
            plan = AttackPlan(name, classes, settings, budget=budget, rank="margin", seed=given.seed)
            margins[method] = achieved(plan, target, Path(folder) / method.replace(" ", "-"))
            m = margins[method]
            sure = f"{int((m > 0).sum())} called so"
            print(f"{method:<13} median margin {np.median(m):8.2f}, least {m.min():8.2f}, {sure} of {len(m)}", flush=True)
    best = margins.pop("apgd", None)
    if best is None:
        return
    for method, m in margins.items():
        share = float((best >= m).mean())
        print(
            f"apgd >= {method:<13} on {share:.1%} of {len(m)} classes  (bound 95%: {'held' if share >= 0.95 else 'MISSED'})"
        )


def achieved(plan: AttackPlan, target, folder: Path) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The margins that a baseline came to, by class in plan's order; -inf where it has no image."""
    run_baseline(plan, target, folder)
    with StoredRun(folder) as run:
        by_class = {e.row.class_id: e.row.margin for e in run.elites()}
    return np.array([by_class.get(c, -np.inf) for c in plan.classes])


if __name__ == "__main__":
    main()
