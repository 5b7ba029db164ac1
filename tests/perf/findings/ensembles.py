"""Whether ensembles or a JPEG file help against fooling images: statements 23 to 27 of docs/findings.md.

python -m tests.perf.findings.ensembles SET OUT

SET: the folder of `evofool set build set-1`. OUT gets searches; the same command goes on from there.

The answer of an ensemble is the mean probability of its networks. A JPEG file has quality 75 (Pillow, `through=jpeg:75`).
The values of an interval are the five undefended networks. A share is that of a seed's images which fool their own network,
averaged over seeds; a seed without such images is left out.

23. Share of the images of the encodings direct, cppn, canvas and latent together that the other four, as an ensemble, give
    0.99 or more in the class that they were made for: below 0.1. The gradient attacks are no encodings; the share with them
    is printed too.
24. Evaluations of `mnist-cppn` until all ten digits are at 0.99, in whole batches, median over seeds 0 to 4: that of the
    ensemble of all five, divided by that of each network: below 5. There is one ensemble, so the interval is that of the
    ratio to a single network. A search that misses 50,000 counts as 50,000; how many missed it is printed.
25. Share of cppn images that have 0.99 or more by their own network after the file: above 2/3.
26. The share of apgd images minus that of cppn images: below 0.
27. Digits that a search with cppn reaches, 3,000 queries, seeds 0 to 2, averaged: those of the set's cells, minus those of
    the same searches behind the file: below 1.

Also prints, not judged, the shares of 23 and 25 by arm.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from evofool import recipe as recipes
from evofool.printer import print_lines
from evofool.targets import Preprocessing, Target
from evofool.targets import target as load
from tests.perf.findings.common import (
    ARMS,
    ENCODINGS,
    FOOLS,
    SEEDS,
    UNDEFENDED,
    cells_of,
    elites,
    judge,
    network_of,
    parser_of,
    print_table,
    reached,
    search,
    search_as_cell,
    share_fooled,
)
from tests.perf.findings.unlikeness import CAP, evaluations, folder_of
from tests.perf.findings.unlikeness import SEEDS as SEARCH_SEEDS

JPEG = "jpeg:75"
ENSEMBLE = "ensemble"


class MeanProbability(nn.Module):
    """The logarithm of the mean of networks' probabilities, computed in float64: no class has a probability of 0."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float (B, C, H, W) to float32 (B, K)."""
        p = torch.stack([F.log_softmax(network(x).double(), 1) for network in self.networks])
        return (torch.logsumexp(p, 0) - math.log(len(self.networks))).float()


def ensemble(targets: Sequence[Target], name: str) -> Target:
    """A target that answers with the mean probability of digit networks with equal labels and preprocessing."""
    first, modules = targets[0], [target.network.module for target in targets if target.network]
    seen = [(target.labels, target.details["preprocessing"]) for target in targets]
    if len(modules) < len(targets) or any(each != seen[0] for each in seen):
        raise ValueError("an ensemble is of torch networks with equal labels and preprocessing")
    preprocessing = Preprocessing(**first.details["preprocessing"])
    return Target.from_module(MeanProbability(modules), first.labels, first.shape, preprocessing, name, outputs="logits")


def main() -> None:
    args = parser_of(__doc__).parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    networks = {name: network_of(args.set, name) for name in UNDEFENDED}
    judge_stored_by_others(args.set, networks)
    judge_searches_of_ensemble(args.out, networks)
    delivered = {name: load(f"{network.name}&through={JPEG}") for name, network in networks.items()}
    judge_stored_in_files(args.set, delivered)
    judge_searches_behind_files(args.set, args.out, delivered)
    print_lines(f"{time.process_time() - began:.0f} CPU s")


def judge_stored_by_others(built: Path, networks: Mapping[str, Target]) -> None:
    """Statement 23."""
    others = {
        name: ensemble([other for key, other in networks.items() if key != name], f"all but {name}") for name in networks
    }
    print_by_arm(built, others, "share at 0.99 by the other four")
    with_attacks = shares(built, others, ARMS)
    print_lines(f"All encodings and attacks together: {np.mean(with_attacks):.1%} ({listed(with_attacks)})")
    judge(23, "share at 0.99 by the other four, all encodings", shares(built, others, ENCODINGS), below=0.1)


def judge_searches_of_ensemble(out: Path, networks: Mapping[str, Target]) -> None:
    """Statement 24."""
    medians = {}
    for name, target in {**networks, ENSEMBLE: ensemble(list(networks.values()), ENSEMBLE)}.items():
        for seed in SEARCH_SEEDS:
            search_until_sure(target, seed, folder_of(out, name, "", seed))
        found = evaluations(out, name, "")
        medians[name] = float(np.median(found))
        print_lines(
            f"{name}: evaluations until all digits are at {FOOLS}: {', '.join(f'{value:,.0f}' for value in found)}; median "
            f"{medians[name]:,.0f}; {sum(value >= CAP for value in found)} missed {CAP:,}"
        )
    ratios = [math.log(medians[ENSEMBLE] / medians[name]) for name in networks]
    judge(24, "evaluations, ensemble by single network", ratios, below=math.log(5), shown=math.exp)


def search_until_sure(target: Target, seed: int, folder: Path) -> None:
    """Run mnist-cppn until all digits fool the target, or to the cap."""
    ends = [f"stop.evaluations={CAP}", f"stop.confidence={FOOLS}"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    search(recipes.load("mnist-cppn", [f"search.seed={seed}", "compute.format=float32", *ends]), folder, target)


def judge_stored_in_files(built: Path, delivered: Mapping[str, Target]) -> None:
    """Statements 25 and 26."""
    print_by_arm(built, delivered, f"share that keeps 0.99 after {JPEG}")
    cppn, apgd = (np.array(shares(built, delivered, [arm])) for arm in ("cppn", "apgd"))
    judge(25, f"share of cppn that keeps 0.99 after {JPEG}", cppn.tolist(), above=2 / 3)
    judge(26, "the share of apgd minus that of cppn", (apgd - cppn).tolist(), below=0.0)


def judge_searches_behind_files(built: Path, out: Path, delivered: Mapping[str, Target]) -> None:
    """Statement 27."""
    fewer = []
    for name, target in delivered.items():
        plain = [reached(folder) for folder in cells_of(built, [name], ["cppn"])]
        behind = [reached(search_as_cell(target, "cppn", seed, out / "cells" / f"{name}-{seed}")) for seed in SEEDS]
        print_lines(f"{name}: digits reached by seed, without {plain}, with {JPEG} {behind}")
        fewer.append(float(np.mean(plain) - np.mean(behind)))
    judge(27, f"digits fewer behind {JPEG}", fewer, below=1.0)


def print_by_arm(built: Path, judges: Mapping[str, Target], what: str) -> None:
    """Print a table of the images that fool their own networks, and of the share of these by a judge for each network."""
    rows = {}
    for arm in ARMS:
        by_network = shares(built, judges, [arm])
        count = len(elites(cells_of(built, judges, [arm])).fooling().own)
        rows[arm] = (str(count), f"{np.nanmean(by_network):.1%}", listed(by_network))
    print_table(("arm", "images", what, "by network"), rows)


def shares(built: Path, judges: Mapping[str, Target], arms: Sequence[str]) -> list[float]:
    """For each network, the share of its images by these arms that its judge gives 0.99 or more, averaged over seeds.

    NaN for one without images.
    """
    found = []
    for name, target in judges.items():
        by_seed = [share_fooled(target, elites(cells_of(built, [name], arms, [seed])).fooling()) for seed in SEEDS]
        known = [share for share in by_seed if not math.isnan(share)]
        found.append(float(np.mean(known)) if known else math.nan)
    return found


def listed(values: Sequence[float]) -> str:
    """Shares as text."""
    return ", ".join("none" if math.isnan(value) else f"{value:.1%}" for value in values)


if __name__ == "__main__":
    main()
