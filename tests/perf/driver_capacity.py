"""How many evaluations a second one driver commits through Ray: a target that costs nothing, 1000 classes, 5 improvements a
batch.

    python -m tests.perf.driver_capacity --profile

The search, the messages, the actors, the commits and the checkpoints are the real ones; what a worker would take seconds for
is left out: it answers at once with as many winners as asked for, each a little above its threshold, as if a batch evaluator
had found them. Prints, per chunk, evaluations/s of the driver's wall clock and of its own processor time, and with --profile
where that time is spent.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np

from evofool.cluster import worker
from evofool.cluster.worker import Worker, WorkerInfo, WorkerSetup
from evofool.recipe import load
from evofool.run.run import Run
from evofool.search.archive import Winners
from evofool.search.evaluate import BatchEvaluator, Order

ROOMS = (
    "evaluator", "slots", "checks", "work", "messages", "jobs", "dashboard", "session", "watch",
    "evolve", "archive", "evaluate", "run", "store", "checkpoints", "digests", "rescore",
)  # fmt: skip


class Easy(BatchEvaluator):
    """Finds `improvements` winners in every order without drawing or asking: rows and cells by its key."""

    improvements = 5

    def __call__(self, order: Order) -> Winners:
        draw = np.random.default_rng((order.key.batch, order.key.row))
        cells = np.sort(draw.choice(len(order.thresholds), self.improvements, replace=False))
        if np.isneginf(order.thresholds).any():  # the first batches fill the archive, as real ones do
            cells = np.flatnonzero(np.isneginf(order.thresholds))
        chosen = draw.integers(0, order.size, len(cells))
        levels = order.thresholds[cells]
        scores = np.where(np.isneginf(levels), -7.0, levels + draw.random(len(cells)) * 1e-3)
        rows, which = np.unique(chosen, return_inverse=True)
        return Winners(
            births=order.first_birth + rows,
            mothers=order.mothers[rows],
            fathers=order.fathers[rows],
            genomes=self.encoding.random(len(rows), order.key),  # they do not travel
            cells=cells,
            rows=which,
            scores=scores,
            log_odds=scores,
            margins=scores,
        )


class EasyWorker(Worker):
    """A worker whose batch evaluator is Easy, so that what it costs is its message and its reply."""

    def build(self, setup: WorkerSetup) -> WorkerInfo:
        info = super().build(setup)
        object.__setattr__(self._batch_evaluator, "__class__", Easy)
        return info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each stretch")
    parser.add_argument("--recipe", default="mnist-cppn")
    parser.add_argument("--mode", default="free", choices=["free", "reproducible"])
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    worker.Worker = EasyWorker  # type: ignore[misc]
    for chunk in args.chunks:
        changes = [
            "target=python:tests.perf.slow_targets:free_1000_small",
            "stop.confidence=",
            "stop.evaluations=1000000000",
            f"search.batch={chunk}",
            f"search.mode={args.mode}",
            f"search.lag={4 * args.workers - 1}",
            f"compute.workers={args.workers}",
        ]
        with tempfile.TemporaryDirectory() as scratch, Run.start(load(args.recipe, changes), Path(scratch) / "run") as run:
            run.advance(lambda run: run.strategy.committed > 50, every=0.01)
            before, wall, cpu = run.strategy.evaluations, time.perf_counter(), time.process_time()
            cell_history = run.strategy.wins
            profile = cProfile.Profile()
            if args.profile:
                profile.enable()
            end = wall + args.seconds
            run.advance(lambda run, end=end: time.perf_counter() > end, every=0.25)
            profile.disable()
            done = run.strategy.evaluations - before
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            won = (run.strategy.wins - cell_history) / (done / chunk)
        print(
            f"chunks of {chunk:>5}: {done / wall:>10,.0f} evaluations/s ({done / chunk / wall:,.0f} batches/s, "
            f"{won:.1f} cells won by each), {done / cpu:,.0f} a second of the driver's processor",
            flush=True,
        )
        if args.profile:
            _print_rooms(pstats.Stats(profile))


def _print_rooms(stats: pstats.Stats) -> None:
    """Own time by file of ours, and by package of others'."""
    total, rooms = 0.0, {}
    for (file, _, _), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        total += own
        path = Path(file)
        room = (
            path.stem
            if path.stem in ROOMS and "evofool" in path.parts
            else next(
                (name for name in ("ray", "numpy", "genomes", "deap", "sqlite3") if name in file), "Python and built in"
            )
        )
        rooms[room] = rooms.get(room, 0.0) + own
    for room, own in sorted(rooms.items(), key=lambda item: -item[1]):
        if own / total >= 0.01:
            print(f"    {own / total:6.1%}  {room}")


if __name__ == "__main__":
    main()
