"""What the engine costs beside the target: its evaluations/s over the bare target's images/s, one thread, alternating.

    python -m tests.perf.engine_ratio --target "lenet-caffe?weights=lenet_caffe.safetensors"

The engine is a whole run: breeding, rendering, archive, statistics, checkpoints. The bare target is asked the very batches
that the engine has just asked (uint8 in, log-odds out): how fast a network answers depends on what it sees, since pooling
noise costs more than pooling black. Each figure is the median of pairs measured one after the other, so that what else the
machine does hits both.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evofool.recipe import load
from evofool.run.run import Run
from evofool.scores import log_odds
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.network import FLOAT32


def ratio(name: str, target: Target, batch: int, pairs: int, seconds: float) -> tuple[float, float, float]:
    """(ratio, engine evaluations/s, target images/s), medians over pairs of about so many seconds each."""
    changes = [f"search.batch={batch}", "stop.confidence=", "stop.evaluations=1000000000"]
    asked: list[np.ndarray] = []
    answer = target.logits

    def noted(images: np.ndarray, pad_to: int = 0, number_format: str = FLOAT32, first_row: int = 0) -> np.ndarray:
        asked.append(images)
        return answer(images, pad_to, number_format, first_row)

    def bare() -> float:
        started = time.perf_counter()
        for images in asked:
            log_odds(answer(images))
        return len(asked) * batch / (time.perf_counter() - started)

    target.logits = noted  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder, Run.start(load(name, changes), Path(folder) / "run", target) as run:

            def engine(batches: int) -> float:
                asked.clear()
                started = time.perf_counter()
                run.advance(batches=batches)
                return batches * batch / (time.perf_counter() - started)

            engine(50)
            batches = max(1, int(seconds * bare() / batch))
            both = [(engine(batches), bare()) for _ in range(pairs)]
    finally:
        del target.logits
    return (
        statistics.median(e / b for e, b in both),
        statistics.median(e for e, _ in both),
        statistics.median(b for _, b in both),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each half of a pair")
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(args.target)
    print(f"{'recipe':<16}{'batch':>6}{'engine /s':>12}{'target /s':>12}{'ratio':>8}")
    for name in ("mnist-cppn", "mnist-direct"):
        for batch in sorted({10, load(name).search.batch, 64}):
            r, engine, bare = ratio(name, target, batch, args.pairs, args.seconds)
            print(f"{name:<16}{batch:>6}{engine:>12,.0f}{bare:>12,.0f}{r:>8.3f}", flush=True)


if __name__ == "__main__":
    main()
