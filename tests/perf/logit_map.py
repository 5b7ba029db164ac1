"""What a map of the logits costs Auto-PGD: a network and the same with z^5, by losses and acceptance score.

    python -m tests.perf.logit_map NETWORK... [--losses margin margin+logit] [--seeds 5] [--steps 40]

NETWORK: a spec of a digit network, such as lenet or python:tests.perf.digit_networks:mlp_1. Printed is Q50 (of ten classes
together, the geometric mean over seeds) under `margin` and `pair`; a seed that does not end within the steps counts as the
last of them, and the number of such seeds follows.
"""

import argparse
from functools import partial

import numpy as np
import torch
from torch import nn

from evofool.attacks.gradient import apgd
from evofool.bench.acceptance import MARGIN, PAIR, SEEN, AcceptanceScores, top_two
from evofool.bench.calibration import calibrate
from evofool.bench.real import DIGITS, real_images
from evofool.bench.statistics import q50
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.preprocessing import Preprocessing

BUDGET = 200  # forward passes a class, which decide when steps are halved


class Power(nn.Module):
    """A network whose logits are raised to an odd power: their order is the same."""

    def __init__(self, base: nn.Module, power: int) -> None:
        super().__init__()
        self.base, self.power = base, power

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.base(x)
        return z**self.power


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--losses", nargs="+", default=["margin", "margin+logit"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for spec in args.networks:
        plain = load_target(spec)
        for target in (plain, powered(plain)):
            scores = calibrate(target, real_images(DIGITS, target)).acceptance(len(target.labels))
            for losses in args.losses:
                found = [first_accepted(target, scores, losses, seed, args.steps) for seed in range(args.seeds)]
                print(
                    f"{target.name:40} {losses:16}",
                    *(figure(name, found, args.steps) for name in (MARGIN, PAIR)),
                    flush=True,
                )


def powered(target: Target, power: int = 5) -> Target:
    """The target with all logits raised to a power."""
    assert target.network is not None
    preprocessing = Preprocessing(**target.details["preprocessing"])
    module = Power(target.network.module, power)
    return Target.from_module(module, target.labels, target.shape, preprocessing, f"{target.name} ^{power}")


def first_accepted(target: Target, scores: AcceptanceScores, losses: str, seed: int, steps: int) -> dict[str, np.ndarray]:
    """By score, (K,) the queries of all classes together until each class is accepted; NaN where it is not."""
    k = len(target.labels)
    first = {name: np.full(k, np.nan) for name in scores.scores}

    def note(classes: np.ndarray, forwards: np.ndarray, logits: np.ndarray) -> None:
        seen = np.zeros(len(classes), SEEN)
        seen["top"], seen["second"] = top_two(logits)
        for name, score in scores.scores.items():
            ok = (logits.argmax(1) == classes) & (scores.values(name, seen) >= score.tau()[classes])
            first[name][classes[ok]] = np.fmin(first[name][classes[ok]], forwards[ok] * k)

    keywords = {"rank": "margin", "losses": losses, "seed": seed, "budget": BUDGET, "microbatch": 64}
    run = partial(apgd, target, range(k), tick=lambda step, _: step >= steps, on_answers=note)
    run(**keywords)
    return first


def figure(name: str, found: list[dict[str, np.ndarray]], steps: int) -> str:
    each = q50(np.stack([first[name] for first in found]))
    beyond = int(np.isnan(each).sum())
    most = 10.0 * (steps + 1)
    mean = 10 ** np.log10(np.where(np.isnan(each), most, each)).mean()
    return f"{name} {mean:6.0f}" + (f" ({beyond} seeds beyond {most:.0f})" if beyond else "")


if __name__ == "__main__":
    main()
