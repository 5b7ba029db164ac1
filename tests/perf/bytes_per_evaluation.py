"""Bytes that travel for an evaluation, both ways: big direct genomes, a target that sleeps, a recorded run's improvements.

    evofool run imagenet-direct --set stop.evaluations=20000 --out recorded
    python -m tests.perf.bytes_per_evaluation recorded --workers 4

The search through Ray is the real one; its workers sleep and win, in every batch, the cells that the recorded run won, by
the same children. Payload is the pickled size of order messages and replies; loopback is every byte that the loopback device
carried meanwhile, Ray's own talk and its heartbeats with it.
"""

import argparse
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from evofool.cluster import worker
from evofool.cluster.messages import Sender
from evofool.cluster.work import Work
from evofool.cluster.worker import Reply, Worker, WorkerInfo, WorkerSetup
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.search.archive import Winners
from evofool.search.evaluate import BatchEvaluator, OnLogits, Order
from tests.perf.search import await_workers

SECONDS = 0.02  # that the target sleeps


class Recorded(BatchEvaluator):
    """Sleeps, and wins the cells that the recorded run won in a batch, each by just enough."""

    record: dict[int, list[tuple[int, int]]]  # by batch: (row, cell)

    def part(self, order: Order, begin: int, on_logits: OnLogits = lambda logits: None) -> Winners:
        assert begin == 0, "workers pass one chunk"
        time.sleep(SECONDS)
        on_logits(self.logits(order))
        begin = order.key.row
        won = sorted(
            (cell, row - begin) for row, cell in self.record.get(order.batch, ()) if begin <= row < begin + order.size
        )
        if not won:
            return Winners.none(self.encoding)
        cells = np.array([cell for cell, _ in won], np.int64)
        rows, which = np.unique(np.array([row for _, row in won], np.int64), return_inverse=True)
        levels = order.thresholds[cells]
        scores = np.where(np.isneginf(levels), -7.0, levels + 1e-6)
        return Winners(
            births=order.first_birth + rows,
            mothers=order.mothers[rows],
            fathers=order.fathers[rows],
            genomes=self.encoding.random(len(rows), order.key),  # they do not travel
            cells=cells,
            rows=which,
            scores=scores,
            log_odds=scores,
            margins=scores - 1.0,  # so that they are sent as well
        )


class RecordedWorker(Worker):
    """A worker whose batch evaluator is Recorded."""

    run = ""

    def build(self, setup: WorkerSetup) -> WorkerInfo:
        info = super().build(setup)
        object.__setattr__(self._batch_evaluator, "__class__", Recorded)
        object.__setattr__(self._batch_evaluator, "record", _record(self.run))
        return info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=Path, help="folder of a run of direct genomes")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--lag", type=int, help="two calls in flight at each worker unless given")
    args = parser.parse_args()
    RecordedWorker.run = str(args.recorded.resolve())
    worker.Worker = RecordedWorker  # type: ignore[misc]
    with StoredRun(args.recorded) as stored:
        batches, recipe = stored.meta.committed, stored.recipe
        wins = len(stored.store.cell_history())
    changes = [
        "target=python:tests.perf.slow_targets:free_1000",
        f"search.lag={2 * args.workers - 1 if args.lag is None else args.lag}",
        f"stop.evaluations={batches * recipe.search.batch}",
        f"compute.workers={args.workers}",
        "compute.format=float32",
        "save.seconds=1000",
    ]
    weights = {"orders": 0, "replies": 0}
    encode, take = Sender.encode, Work.take

    def weighed_order(self: Any, order: Order) -> Any:
        made = encode(self, order)
        weights["orders"] += len(pickle.dumps(made, 5))
        return made

    def weighed_reply(self: Any, by: Any, job: Any, reply: Reply) -> Any:
        weights["replies"] += len(pickle.dumps(reply, 5))
        return take(self, by, job, reply)

    Sender.encode = weighed_order  # type: ignore[method-assign]
    Work.take = weighed_reply  # type: ignore[method-assign]
    Run._measure_elites_again = lambda self: None  # type: ignore[method-assign]  # their scores are recorded ones
    here = recipe.changed(changes, "here")
    with tempfile.TemporaryDirectory() as scratch, Run.start(here, Path(scratch) / "run") as run:
        genome = run.encoding.dtype.itemsize * int(np.prod(run.encoding.shape))
        await_workers(run)
        began, carried = time.perf_counter(), _loopback()
        run.advance()
        carried, seconds = _loopback() - carried, time.perf_counter() - began
        done, changed = run.strategy.evaluations, run.archive.distinct()
    payload = sum(weights.values()) / done
    print(
        f"{done:,} evaluations by {args.workers} workers in {seconds:.0f} s, {wins / batches:.1f} cells won by a batch as "
        f"recorded, {changed} elites at the end\n"
        f"a genome: {genome:,} bytes; for an evaluation: payload {payload:,.0f} (orders {weights['orders'] / done:,.0f}, "
        f"replies {weights['replies'] / done:,.0f}), all that loopback carried {carried / done:,.0f}"
    )


def _record(folder: str) -> dict[int, list[tuple[int, int]]]:
    """By batch, the (row, cell) that won."""
    found: dict[int, list[tuple[int, int]]] = {}
    with StoredRun(folder) as stored:
        size = stored.recipe.search.batch
        for cell, birth, batch, *_ in stored.store.cell_history():
            found.setdefault(batch, []).append((birth - batch * size, cell))
    return found


def _loopback() -> int:
    """Bytes that the loopback device has carried; each is sent and received once, and counted once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    return 0


if __name__ == "__main__":
    main()
