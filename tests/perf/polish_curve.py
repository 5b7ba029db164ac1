"""`polish` against going on with evolution: the median log-odds of an archive over passes, from the same archive on.

    python -m tests.perf.polish_curve runs/polish-curve

Evolves an archive of 10,000 evaluations (imagenet-cppn-10k: EfficientNet-Lite0, 1000 classes), goes on evolving a copy of
it, and polishes the elites of every class. Prints the median log-odds, measured in float32, over the passes spent from
there on: an evaluation is one pass, a step of `polish` is a forward and a backward one. All of it stays in the folder, and
what is there is not done again.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from evofool.attacks.polish import PolishPlan, polish
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun

RECIPE = "imagenet-cppn-10k"


def evolved(folder: Path, start: int, more: list[int]) -> dict[int, float]:
    """Median log-odds after so many more evaluations than the archive's, 0 among them."""
    archive, continued, medians_file = folder / "archive", folder / "evolved", folder / "evolution.json"
    if medians_file.exists() and set(more) <= {int(passes) for passes in json.loads(medians_file.read_text())}:
        return {int(passes): median for passes, median in json.loads(medians_file.read_text()).items()}
    recipe = load(RECIPE, [f"stop.evaluations={start}"])
    if not (continued / "run.db").exists():
        with Run.resume(archive, recipe) if (archive / "run.db").exists() else Run.start(recipe, archive) as run:
            run.advance()
        shutil.copytree(archive, continued)
    medians: dict[int, float] = {}
    with Run.resume(continued, load(RECIPE, [f"stop.evaluations={start + max(more)}"])) as run:
        for passes in [0, *more]:
            batches = -(-(start + passes) // recipe.search.batch) - run.strategy.committed
            if batches > 0:
                run.advance(batches=batches)
            medians[passes] = float(np.median(run.best()))
            print(f"evolution +{passes:>6,}: median log-odds {medians[passes]:.3f}", flush=True)
    medians_file.write_text(json.dumps(medians) + "\n")
    return medians


def polished(folder: Path, budget: int, streams: int) -> list[tuple[int, int, float]]:
    """(forward passes, backward passes, median log-odds) of all classes together, as if they climbed side by side."""
    out = folder / f"polished-{budget}"
    tick = lambda p: print(f"\r{p.done} of {p.classes}, step {p.step} of {p.steps} ", end="", flush=True) or False  # noqa: E731
    polish(folder / "archive", out, PolishPlan(budget=budget), streams=streams, tick=tick)
    with StoredRun(out) as stored:
        classes = len(stored.labels)
    with Store.open(out) as store:
        climbs: dict[int, list[tuple[int, int, float]]] = {}
        for cell, forwards, backwards, _, odds in store.improvements():
            climbs.setdefault(cell, []).append((forwards, backwards, odds))
    print()
    curve = []
    for forwards in range(1, budget + 1):
        so_far = [[row for row in climb if row[0] <= forwards][-1] for climb in climbs.values()]
        assert len(so_far) == classes
        curve.append((forwards * classes, (forwards - 1) * classes, float(np.median([odds for *_, odds in so_far]))))
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=int, default=10_000, help="evaluations of the archive")
    parser.add_argument(
        "--more", type=int, nargs="+", default=[1_000, 2_000, 3_000, 5_000, 7_000, 9_000, 13_000, 17_000, 20_000]
    )
    parser.add_argument("--budget", type=int, default=11, help="forward passes that polish has for each class")
    parser.add_argument("--streams", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    evolution = evolved(args.folder, args.start, args.more)
    curve = polished(args.folder, args.budget, args.streams)
    spent, medians = list(evolution), list(evolution.values())
    print(f"{'forward':>9} {'backward':>9} {'passes':>9}  polish  evolution, after as many evaluations")
    for forwards, backwards, median in curve:
        passes = forwards + backwards
        evolved_then = f"{np.interp(passes, spent, medians):9.3f}" if passes <= spent[-1] else f"{'':>9}"
        better = f"  {median - np.interp(passes, spent, medians):+.3f}" if passes <= spent[-1] else ""
        print(f"{forwards:>9,} {backwards:>9,} {passes:>9,} {median:7.3f} {evolved_then}{better}")


if __name__ == "__main__":
    main()
