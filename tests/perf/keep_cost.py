"""What runners-up cost (search.keep): genomes in memory, bytes of orders and answers, rows of the file, time of a commit
(of the processor: other work may be beside it).

    python -m tests.perf.keep_cost --recipe imagenet-cppn --evaluations 8192 --keep 1 8

One search in this process for each number of genomes a cell. Orders and answers are weighed as they would go to one worker
that keeps what it has received.
"""

import argparse
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evofool.cluster.messages import Lineage, Sender, decode_winners, encode_winners
from evofool.recipe import load
from evofool.run.run import Run
from evofool.scores import confidence
from evofool.search.archive import Winners
from evofool.search.evaluate import Evaluator, Order


class Weighed:
    """An Evaluator that weighs the messages that another one would exchange with a worker."""

    def __init__(self, inner: Evaluator, run: Run) -> None:
        self._inner, self._encoding, self._lineage = inner, run.encoding, Lineage()
        self._sender = Sender(run.encoding, self._lineage)
        self.orders: list[int] = []  # bytes
        self.answers: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def submit(self, order: Order) -> None:
        self.orders.append(len(pickle.dumps(self._sender.encode(order), 5)))
        self._inner.submit(order)

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        for order, winners in self._inner.results(give_up):
            answer = encode_winners(self._encoding, order, winners)
            self.answers.append(len(pickle.dumps(answer, 5)))
            decode_winners(self._encoding, order, answer, self._lineage)
            yield order, winners


def measure(recipe: str, changes: list[str], keep: int, evaluations: int) -> None:
    what = load(recipe, [*changes, f"search.keep={keep}", f"stop.evaluations={evaluations}", "stop.confidence="])
    with tempfile.TemporaryDirectory() as scratch:
        with Run.start(what, Path(scratch) / "run") as run:
            weighed = Weighed(run.evaluator, run)
            run.evaluator = weighed
            commits, commit = [], run.strategy._commit

            def timed(order: Order, winners: Winners) -> None:
                began = time.thread_time()
                commit(order, winners)
                commits.append(time.thread_time() - began)

            run.strategy._commit = timed  # type: ignore[method-assign]
            run.advance()
            genome = run.encoding.dtype.itemsize * int(np.prod(run.encoding.shape))
            held = len(np.unique(run.archive.births[run.archive.births >= 0]))
            scores = run.archive.scores
            alike = int(((scores[:, 1:] == scores[:, :-1]) & np.isfinite(scores[:, 1:])).sum())
            median = float(np.median(confidence(run.best())))
            history, runners_up = len(run.store.cell_history()), len(run.store.runners_up())
            genomes = len(run.store.births())
        size = (Path(scratch) / "run" / "run.db").stat().st_size

    def mean(values: list[Any]) -> str:
        """Of all but the first, and of the last quarter."""
        return f"{np.mean(values[1:]):,.0f}, in the last quarter {np.mean(values[-len(values) // 4 :]):,.0f}"

    print(
        f"{recipe}, keep {keep}, {evaluations:,} evaluations: median {median:.4f}\n"
        f"  memory: {held:,} genomes in lists x {genome:,} bytes = {held * genome / 1e6:,.1f} MB; {alike:,} places "
        f"of {scores.size:,} have the score of the place before them\n"
        f"  bytes of an order: {mean(weighed.orders)}; of the largest {max(weighed.orders):,}\n"
        f"  bytes of an answer: {mean(weighed.answers)}; of the largest {max(weighed.answers):,}\n"
        f"  bytes for an evaluation, both ways: {(sum(weighed.orders) + sum(weighed.answers)) / evaluations:,.0f}\n"
        f"  us of a commit of {what.search.batch} images: {mean([seconds * 1e6 for seconds in commits])}\n"
        f"  the file: {size / 1e6:,.1f} MB; {genomes:,} genomes, {history:,} elites, {runners_up:,} runners-up",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="imagenet-cppn")
    parser.add_argument("--evaluations", type=int, default=8192)
    parser.add_argument("--keep", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    for keep in args.keep:
        measure(args.recipe, args.changes, keep, args.evaluations)


if __name__ == "__main__":
    main()
