"""How well a search uses a GPU: one command, whose output is worth pasting into an issue.

    python -m tests.perf.gpu_ratio
    python -m tests.perf.gpu_ratio --device cpu --chunks 4 --pairs 1 --seconds 0.1      that it works, not how fast

It has never run on a GPU: no figure of it is known. Without one it says so and exits with 2.

Per target and chunk size, in the number format in which the bare network is fastest:

- bare /s: images/s of the network, asked images that lie on the device;
- engine /s: evaluations/s of LocalEvaluator and BatchEvaluator as a run uses them: they make children, draw them on the
  device, ask the network there and fetch the best of each class, in threads with a CUDA stream each. Both see the same
  images; the ratio is the median of pairs in turn;
- one stream /s: the same in one thread; host /s: images are drawn on the CPU and copied to the device, as for niches;
- copies: milliseconds to copy a chunk of images to the device, pinned and not, and its logits back;
- same bits: whether each format gives the same chunk the same logits twice, and whether the elites of one stream and of
  several are equal to the bit.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

import evofool
from evofool.machine import machine
from evofool.recipe import load
from evofool.scores_torch import log_odds
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.search.local_evaluator import LocalEvaluator
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.cuda import settle, uploaded
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
    print(described(device))
    for spec in args.targets:
        target = load_target(f"{spec}{'&' if '?' in spec else '?'}device={args.device}")
        encoding = load(args.recipe).encoding.build(target.shape)
        parents = grown(encoding, max(args.chunks))
        print(f"\n{target.name}")
        print(f"{'chunk':>6}  {'format':<18}{'bare /s':>10}{'engine /s':>11}{'ratio':>7}{'one stream /s':>15}{'host /s':>9}")
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
    on_host = replace(batch_evaluator, resident=False)
    halves: list[Callable[[], float]] = [
        lambda: bare(network, shown, number_format, count),
        lambda: engine(batch_evaluator, orders, workers)[0],
        lambda: engine(batch_evaluator, orders, 1)[0],
        lambda: engine(on_host, orders, workers)[0],
    ]
    for half in halves:
        half()
    rounds = [[half() for half in halves] for _ in range(pairs)]
    b, e, one, host = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(r[1] / r[0] for r in rounds)
    print(f"{chunk:>6}  {number_format:<18}{b:>10,.0f}{e:>11,.0f}{ratio:>7.3f}{one:>15,.0f}{host:>9,.0f}", flush=True)
    print(f"{'':>8}bare, once: {', '.join(f'{name} {rate:,.0f}' for name, rate in rates.items())}")
    print(f"{'':>8}copies, ms: {copies(target, shown[0])}")
    twice = [name for name in rates if not torch.equal(network(shown[0], name), network(shown[0], name))]
    begin = [replace(each, thresholds=np.full(len(target.labels), -np.inf)) for each in orders[:SHOWN]]
    kept = [engine(batch_evaluator, begin, threads)[1] for threads in (1, workers)]
    print(f"{'':>8}same bits: twice {'no: ' + ', '.join(twice) if twice else 'yes'}; ", end="")
    print(f"elites of 1 and {workers} streams {'yes' if kept[0] == kept[1] else 'NO'} ({len(kept[0])} winners)", flush=True)


def described(device: torch.device) -> str:
    """The device and the versions that results depend on."""
    versions = f"torch {torch.__version__}, evofool {evofool.__version__}, Python {sys.version.split()[0]}"
    if device.type != "cuda":
        return f"{machine(1)['cpu']}, {versions}"
    found = torch.cuda.get_device_properties(device)
    memory = f"{found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor}"
    return f"{found.name}, {memory}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, {versions}"


def copies(target: Target, images: torch.Tensor, times: int = 8) -> str:
    """Milliseconds of a chunk of images to the device, and of its logits back."""
    device, pixels = images.device, images.cpu().numpy()
    logits = torch.zeros(len(images), len(target.labels), device=device)
    took = []
    for copy in (lambda: uploaded(pixels, device), lambda: torch.from_numpy(pixels).to(device), logits.cpu):
        copy()
        settle(device)
        started = time.perf_counter()
        for _ in range(times):
            copy()
        settle(device)
        took.append(1000 * (time.perf_counter() - started) / times)
    size = pixels.nbytes / 2**20
    return f"{size:.1f} MiB of images {took[0]:.2f} pinned, {took[1]:.2f} not; logits back {took[2]:.2f}"


def bare(network: Network, shown: list[torch.Tensor], number_format: str, count: int) -> float:
    """Images/s of the network, its images on the device already."""
    settle(network.device)
    started = time.perf_counter()
    for k in range(count):
        network(shown[k % len(shown)], number_format)
    settle(network.device)
    return count * len(shown[0]) / (time.perf_counter() - started)


def engine(batch_evaluator: BatchEvaluator, orders: list[Order], workers: int) -> tuple[float, list[tuple[int, int, float]]]:
    """Evaluations/s of evofool's own evaluator, and its winners: (birth, cell, score) each."""
    evaluator = LocalEvaluator(batch_evaluator, workers, torch.get_num_threads())
    try:
        started = time.perf_counter()
        for o in orders:
            evaluator.submit(o)
        found = list(evaluator.results())
        rate = sum(o.size for o, _ in found) / (time.perf_counter() - started)
        rows = [zip(w.births[w.rows].tolist(), w.cells.tolist(), w.scores.tolist(), strict=True) for _, w in found]
        return rate, [winner for row in rows for winner in row]
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


if __name__ == "__main__":
    main()
