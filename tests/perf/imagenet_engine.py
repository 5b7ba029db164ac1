"""What the engine costs beside an ImageNet network on the CPU, and what its setting is worth.

    python -m tests.perf.imagenet_engine
    python -m tests.perf.imagenet_engine --recipe imagenet --pairs 30
    python -m tests.perf.imagenet_engine --recipe imagenet --run runs/imagenet  # a copy of an old run goes on

First the bare target, in every number format and several settings. Then, alternating in one run: a long search of the
recipe as it is (breeding, rendering, archive, checkpoints, elites measured again in float32), paused now and then for the
bare target at its best setting, of all and of those in float32, asked for images that the search has found, and for the
naive way (float32, contiguous, batch 64, torch's own threads) in a process of its own, which nothing of ours has touched.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from evofool.machine import cpus
from evofool.recipe import Recipe, load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target
from evofool.targets import target as load_target

_NAIVE = """
import sys, time, torch
from evofool.targets import target
t = target(sys.argv[1])
x = torch.randn(64, *t.shape)
with torch.inference_mode():
    t.network.module(x)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        t.network.module(x)
        times.append(time.perf_counter() - begin)
print(64 / sorted(times)[1])
"""


def bare(target: Target, images: np.ndarray, setting: tuple[str, int, int, int], seconds: float) -> float:
    """Images/s of a setting: number format, chunk, workers at once, torch threads of each; images is (N, C, H, W)."""
    number_format, chunk, workers, threads = setting
    done = [0] * workers
    begin = 0.0

    def work(w: int) -> None:
        torch.set_num_threads(threads)
        at = w * chunk
        while time.perf_counter() - begin < seconds:
            target.logits(np.take(images, range(at, at + chunk), axis=0, mode="wrap"), chunk, number_format)
            done[w] += chunk
            at += workers * chunk

    target.logits(images[:chunk], chunk, number_format)
    begin = time.perf_counter()
    pool = [threading.Thread(target=work, args=(w,)) for w in range(workers)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return sum(done) / (time.perf_counter() - begin)


def naive(spec: str) -> float:
    done = subprocess.run([sys.executable, "-c", _NAIVE, spec], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _search(recipe: Recipe, aged: Path | None, folder: Path, target: Target) -> Run:
    if aged is None:
        return Run.start(recipe, folder, target)
    shutil.copytree(aged, folder)
    with StoredRun(folder) as stored:
        longer = stored.recipe.model_copy(update={"stop": recipe.stop})
    return Run.resume(folder, longer, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="imagenet-cppn")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch of the search")
    parser.add_argument("--run", type=Path, help="folder of a run of the recipe: the search continues a copy of it")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds of search before the first pair")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(args.recipe, ["stop.evaluations=1000000000"])
    target = load_target(recipe.target)
    encoding = recipe.encoding.build(target.shape)
    from genomes import Key

    images = encoding.render(encoding.random(128, Key(1, 0)))
    rates = {}
    for number_format in target.formats:
        for chunk in (4, 8, 16, 64):
            for workers, threads in {(1, 1), (1, cpus()), (cpus(), 1)}:
                if number_format != "float32" or chunk in (8, 64):
                    setting = (number_format, chunk, workers, threads)
                    rates[setting] = bare(target, images, setting, 2.0)
                    how = f"{number_format:<9} chunk {chunk:>2}, {workers} x {threads} threads"
                    print(f"  {how}: {rates[setting]:.1f}", flush=True)
    best = max(rates, key=lambda s: rates[s])
    best32 = max((s for s in rates if s[0] in ("float32", "float32-folded")), key=lambda s: rates[s])
    print(f"best setting {best}, best in float32 {best32}", flush=True)

    engine, alone, float32, unbatched = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, _search(recipe, args.run, Path(folder) / "run", target) as run:
        began, evaluations = time.perf_counter(), None

        def pause(search: Run) -> bool:
            nonlocal began, evaluations
            passed = time.perf_counter() - began
            if evaluations is None or passed < args.seconds:
                if evaluations is None and passed >= args.warm:
                    evaluations, began = search.strategy.evaluations, time.perf_counter()
                return False
            # What is under way is finished in the pause; it is not counted as the search's.
            in_progress = len(search.evaluator.pending()) * recipe.search.batch
            engine.append((search.strategy.evaluations - evaluations - in_progress) / passed)
            time.sleep(0.3)
            drawn = encoding.render(search.archive.genomes(np.arange(0, 1000, 8)))
            c = search.recipe.compute
            own = (c.format, search.recipe.chunk, search.evaluator.at_once, c.threads)
            # A shared machine may have misled the search for the best setting: the engine's own counts as found too.
            alone.append(max(bare(target, drawn, setting, args.seconds / 4) for setting in {best, own}))
            float32.append(bare(target, drawn, best32, args.seconds / 4))
            unbatched.append(naive(recipe.target))
            print(
                f"  engine {engine[-1]:.1f}, target {alone[-1]:.1f}, ratio {engine[-1] / alone[-1]:.3f}; "
                f"float32 {float32[-1]:.1f}, naive {unbatched[-1]:.1f}; {search.strategy.evaluations:,} evaluations",
                flush=True,
            )
            evaluations, began = search.strategy.evaluations, time.perf_counter()
            return len(engine) == args.pairs

        run.advance(pause)
        c = run.recipe.compute
        print(f"engine: {c.format}, chunk {run.recipe.chunk}, {run.evaluator.at_once} streams, {c.threads} threads each")
    middle = statistics.median
    print(f"engine / target at its best       {middle(e / a for e, a in zip(engine, alone, strict=True)):.3f}")
    # All stretches are as long, so this is all evaluations over all seconds: whole checkpoints weigh what they take.
    print(f"  of all stretches together       {statistics.mean(engine) / statistics.mean(alone):.3f}")
    # What grows with the age of genomes lowers the later ones.
    print(f"  of the first and last stretch   {engine[0] / alone[0]:.3f}, {engine[-1] / alone[-1]:.3f}")
    print(f"target at its best / in float32   {middle(a / f for a, f in zip(alone, float32, strict=True)):.2f}")
    print(f"target at its best / naive        {middle(a / n for a, n in zip(alone, unbatched, strict=True)):.1f}")


if __name__ == "__main__":
    main()
