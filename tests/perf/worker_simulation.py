"""What workers buy, in simulated time: the real search and the real LeNet, workers and driver with a clock of their own.

    python -m tests.perf.worker_simulation --target "lenet-caffe?weights=lenet_caffe.safetensors" --seeds 100

A pass takes 200 ms, a worker 6 to 8 ms more for drawing, the driver 1.5 ms to commit a batch and 1 ms to draw the next and
send it. So hundreds of seeds and other policies than the one in use cost minutes. The columns are those of time_to_quality.

- `lag N, 1 call` and `free, 1 call` are what evofool does with such calls; `2 calls` has two in flight at each worker.
- `rounds`: all workers' batches are drawn from the same archive, once the last of the round before is committed.
- `gathered`: free, but results that come within 10 ms are all committed before the next batches are drawn.
"""

import argparse
import heapq
import math
from dataclasses import dataclass, field

import numpy as np
import torch

from evofool.recipe import Recipe, load
from evofool.scores import needed_log_odds
from evofool.search.archive import Archive
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.search.evolve import Batch, MapElites
from evofool.targets import Target
from evofool.targets import target as load_target

PASS, WORKER, JITTER, COMMIT, DRAW = 0.2, 0.006, 0.002, 0.0015, 0.001  # seconds
LEVEL = 0.9999


@dataclass(frozen=True)
class Policy:
    """calls: in flight at each worker. lag: batch k is drawn after batch k - 1 - lag; None: when it can be sent."""

    workers: int
    lag: int | None = None
    calls: int = 1
    rounds: bool = False
    gather: float = 0.0  # seconds


@dataclass
class Cluster:
    """Workers with a clock. A call is (end, number, worker, order)."""

    policy: Policy
    draws: np.random.Generator
    now: float = 0.0  # the driver's
    running: list[tuple[float, int, int, Order]] = field(default_factory=list)
    queued: list[Order] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.free_at, self.calls = [0.0] * self.policy.workers, [0] * self.policy.workers

    def send(self, worker: int, order: Order) -> None:
        took = PASS + WORKER + abs(self.draws.normal(0, JITTER))
        end = self.free_at[worker] = max(self.now, self.free_at[worker]) + took
        self.calls[worker] += 1
        heapq.heappush(self.running, (end, self.sent, worker, order))
        self.sent += 1

    def next_worker(self) -> int | None:
        """The one with the fewest calls, if it can have one more."""
        worker = min(range(len(self.calls)), key=self.calls.__getitem__)
        return worker if self.calls[worker] < self.policy.calls else None

    def arrived(self) -> list[Order]:
        """Wait for a result; those that have arrived by then, or within policy.gather."""
        self.now = max(self.now, self.running[0][0])
        limit, orders = self.now + self.policy.gather, []
        while self.running and self.running[0][0] <= limit:
            end, _, worker, order = heapq.heappop(self.running)
            self.now = max(self.now, end)
            self.calls[worker] -= 1
            orders.append(order)
        return orders


def simulate(recipe: Recipe, target: Target, seed: int, policy: Policy, goal: str, cap: int) -> tuple[float, int]:
    """(seconds, evaluations) until the goal, or until the cap."""
    encoding, s = recipe.encoding.build(target.shape), recipe.search
    evaluate = BatchEvaluator(encoding, target, recipe.chunk, s.rank, s.competition)
    archive = Archive(encoding, len(target.labels))
    strategy = MapElites(
        archive, encoding, seed=seed, batch=s.batch, competition=s.competition, tournament=s.cells_per_draw, random=s.random
    )  # fmt: skip
    cluster = Cluster(policy, np.random.default_rng([seed, policy.workers]))
    needed, worst = needed_log_odds(LEVEL), np.median if goal == "median" else np.min
    early: dict[int, Order] = {}  # results of later batches, where commits are in order
    free = policy.lag is None and not policy.rounds

    def draw() -> Order:
        cluster.now += DRAW
        return strategy.order()

    def fill() -> None:
        in_progress = strategy.next_batch - strategy.committed
        if policy.rounds:
            wanted = 0 if in_progress else policy.workers
        else:
            wanted = 0 if policy.lag is None else policy.lag + 1 - in_progress
        cluster.queued += [draw() for _ in range(wanted)]
        while (worker := cluster.next_worker()) is not None and (
            cluster.queued or (policy.lag is None and not policy.rounds)
        ):
            cluster.send(worker, cluster.queued.pop(0) if cluster.queued else draw())

    fill()
    while strategy.evaluations < cap:
        for order in cluster.arrived():
            early[order.batch] = order
            ready = [order.batch] if free else _in_order(early, strategy.committed)
            for number in ready:
                cluster.now += COMMIT
                batch = Batch(early.pop(number))
                batch.fitness.values = evaluate(batch.order)
                strategy.update([batch])
                if worst(archive.best()) >= needed:
                    return cluster.now, strategy.evaluations
                if not policy.gather:
                    fill()
        fill()
    return cluster.now, strategy.evaluations


def _in_order(early: dict[int, Order], committed: int) -> list[int]:
    """The batches that can be committed now."""
    last = committed
    while last in early:
        last += 1
    return list(range(committed, last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--recipe", default="mnist-cppn")
    parser.add_argument("--goal", default="median", choices=["median", "all"], help="the digits to be at 0.9999")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cap", type=int, default=40_000)
    parser.add_argument("--only-used", action="store_true", help="leave out policies that evofool does not have")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, target = load(args.recipe), load_target(args.target)
    policies = {"1 worker, lag 0": Policy(1, 0), "1 worker, lag 1, 2 calls": Policy(1, 1, 2)}
    for n in args.workers:
        policies |= {f"{n} workers, lag {n - 1}, 1 call": Policy(n, n - 1), f"{n} workers, free, 1 call": Policy(n)}
        if not args.only_used:
            policies[f"{n} workers, lag {2 * n - 1}, 2 calls"] = Policy(n, 2 * n - 1, 2)
            policies[f"{n} workers, free, 2 calls"] = Policy(n, None, 2)
            policies[f"{n} workers, lag {n + n // 8}, 1 call"] = Policy(n, n + n // 8)
            policies[f"{n} workers, rounds"] = Policy(n, rounds=True)
            policies[f"{n} workers, free, gathered"] = Policy(n, gather=0.01)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    print(f"{'':<28}{'seconds':>9}{'evaluations':>13}{'of W':>7}  95% interval", flush=True)
    reference = np.full(len(seeds), math.inf)
    draws = np.random.default_rng(0)
    for name, policy in policies.items():
        found = [simulate(recipe, target, seed, policy, args.goal, args.cap) for seed in seeds]
        logs = np.log([seconds for seconds, _ in found])
        if policy.workers == 1 and logs.mean() < reference.mean():
            reference = logs
        gains = reference - logs
        resampled = gains[draws.integers(0, len(gains), (10_000, len(gains)))].mean(axis=1)
        gain, low, high = np.exp([gains.mean(), *np.quantile(resampled, (0.025, 0.975))]) / policy.workers
        seconds, evaluations = np.median(found, axis=0)
        print(f"{name:<28}{seconds:>9.2f}{evaluations:>13,.0f}{gain:>7.2f}  {low:.2f} to {high:.2f}", flush=True)


if __name__ == "__main__":
    main()
