"""What the engine costs beside the target on a GPU: its evaluations/s over the bare network's images/s, alternating.

    python -m tests.perf.gpu_ratio
    python -m tests.perf.gpu_ratio --device cpu --chunks 4 --pairs 1 --seconds 0.1      that it works, not how fast

It has never run on a GPU: no figure of it is known. Without one it says so and exits with 2.

Per target and chunk size, in the number format in which the bare network is fastest: `bare` is the network asked images that
lie on the device; `engine` is LocalEvaluator and BatchEvaluator as a run uses them: it makes children, draws them on the
device, asks the network there and fetches the best of each class. Both see the same images. Each figure is the median of
pairs in turn.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from evofool.machine import machine
from evofool.recipe import load
from evofool.scores_torch import log_odds
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.search.local_evaluator import LocalEvaluator
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.network import Network
from evofool.targets.preprocessing import to_logits
from genomes import Encoding, Genomes, Key

TARGETS = ("efficientnet-lite0", "torchvision:resnet50?weights=random")
GENERATIONS = 200  # of variation without selection: CPPNs of about 20 nodes
SHOWN = 8  # chunks that the bare network is shown in turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--recipe", default="imagenet-cppn", help="whose genomes are drawn")
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--workers", type=int, default=2, help="threads that feed the device")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each half of a pair")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu_ratio: there is no GPU that torch can use; --device cpu checks that the script works", file=sys.stderr)
        raise SystemExit(2)
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else machine(1)['cpu']}, torch {torch.__version__}")
    for spec in args.targets:
        target = load_target(f"{spec}{'&' if '?' in spec else '?'}device={args.device}")
        encoding = load(args.recipe).encoding.build(target.shape)
        parents = grown(encoding, max(args.chunks))
        print(f"\n{target.name}")
        print(f"{'chunk':>6}  {'format':<18}{'bare /s':>10}{'engine /s':>11}{'ratio':>7}")
        for chunk in args.chunks:
            try:
                compare(target, encoding, parents, chunk, args.workers, args.pairs, args.seconds)
            except torch.cuda.OutOfMemoryError:
                print(f"{chunk:>6}  does not fit into the device's memory")
                torch.cuda.empty_cache()


def compare(
    target: Target, encoding: Encoding, parents: Genomes, chunk: int, workers: int, pairs: int, seconds: float
) -> None:
    """Print the line of one chunk size, and the bare rates of the other number formats below it."""
    network = target.network
    assert network is not None
    some = [order(encoding, parents, chunk, b, np.full(len(target.labels), -np.inf)) for b in range(SHOWN)]
    shown = [encoding.draw(BatchEvaluator(encoding, target, chunk).children(o, 0, chunk), network.device) for o in some]
    rates = {}
    for number_format in target.formats:
        try:
            bare(network, shown, number_format, 2)
            rates[number_format] = bare(network, shown, number_format, 4)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as fault:  # a compiler that is missing, a layer that lacks the type
            print(f"{'':>8}{number_format}: {type(fault).__name__}: {str(fault).splitlines()[0][:80]}")
    number_format = max(rates, key=lambda name: rates[name])

    # What has been seen is the record to beat, so that winners are as few as once a search is under way.
    seen = torch.cat([log_odds(to_logits(network(i, number_format), target.outputs, target.crops)) for i in shown])
    record = seen.amax(0).cpu().numpy()
    count = max(2, round(seconds * rates[number_format] / chunk))
    orders = [order(encoding, parents, chunk, b, record) for b in range(count)]
    batch_evaluator = BatchEvaluator(encoding, target, chunk, number_format=number_format, resident=True)
    halves: list[Callable[[], float]] = [
        lambda: bare(network, shown, number_format, count),
        lambda: engine(batch_evaluator, orders, workers),
    ]
    for half in halves:
        half()
    rounds = [[half() for half in halves] for _ in range(pairs)]
    b, e = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(r[1] / r[0] for r in rounds)
    print(f"{chunk:>6}  {number_format:<18}{b:>10,.0f}{e:>11,.0f}{ratio:>7.3f}", flush=True)
    print(f"{'':>8}bare, once: {', '.join(f'{name} {rate:,.0f}' for name, rate in rates.items())}", flush=True)


def bare(network: Network, shown: list[torch.Tensor], number_format: str, count: int) -> float:
    """Images/s of the network, its images on the device already."""
    settle(network.device)
    started = time.perf_counter()
    for k in range(count):
        network(shown[k % len(shown)], number_format)
    settle(network.device)
    return count * len(shown[0]) / (time.perf_counter() - started)


def engine(batch_evaluator: BatchEvaluator, orders: list[Order], workers: int) -> float:
    """Evaluations/s of evofool's own evaluator."""
    evaluator = LocalEvaluator(batch_evaluator, workers, torch.get_num_threads())
    try:
        started = time.perf_counter()
        for o in orders:
            evaluator.submit(o)
        evaluated = sum(o.size for o, _ in evaluator.results())
        return evaluated / (time.perf_counter() - started)
    finally:
        evaluator.close()


def grown(encoding: Encoding, count: int) -> Genomes:
    parents = encoding.random(count, Key(0, 0))
    for batch in range(1, GENERATIONS):
        parents = encoding.vary(parents, parents, Key(0, batch))
    return parents


def order(encoding: Encoding, parents: Genomes, size: int, batch: int, thresholds: np.ndarray) -> Order:
    births = np.arange(size)
    return Order(
        key=Key(1, batch),
        first_birth=batch * size,
        size=size,
        thresholds=thresholds,
        incumbents=np.full((len(thresholds), 1), -1),
        mothers=births,
        fathers=births,
        parents={birth: parents[birth : birth + 1] for birth in range(size)},
    )


def settle(device: torch.device) -> None:
    """Wait for what the device was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
