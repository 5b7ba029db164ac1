"""Requests until a change of a black box is noticed, and false alarms: `python -m tests.perf.drift`.

A served LeNet is changed while a search queries it, by POST requests of up to 8 images: swapped for a LeNet with other
weights, or its labels rolled, after 60; noise added to its logits from 100 on. Then servers whose answers vary without a
change, which must not be stopped.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import evofool
from evofool.errors import DriftError
from evofool.targets.classifier import Target
from evofool.targets.loaders.lenet import LeNet
from evofool.targets.remote.serve import ResponseOptions, serving

Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""uint8 images and their logits to the logits of the changed target."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quiet-runs", type=int, default=20, help="runs against servers that vary without a change")
    args = parser.parse_args(arguments)
    print("change                                         answers            N  requests until noticed, by seed")
    for name, begin, make in CHANGES:
        for options in ANSWERS:
            for every in args.every:
                found = [noticed(make(seed), begin, options, every, seed) for seed in range(args.seeds)]
                late = [n for n in found if n is None or n > 2 * every]
                verdict = "" if not late else f"  {len(late)} of {len(found)} not within 2 N"
                print(f"{name:<46} {shown(options):<18} {every:>3}  {found}{verdict}", flush=True)
    print("\nvaries without a change                        answers            runs  stopped  checks  tolerated")
    for name, make in STEADY:
        for options in ANSWERS:
            print(f"{name:<46} {shown(options):<18} {steady(make, options, args.quiet_runs)}", flush=True)


def noticed(change: Change, begin: int, options: ResponseOptions, every: int, seed: int) -> int | None:
    """The requests from the change on until the run was stopped, the check included; None if it was not."""
    served, posts = changing(change, begin)
    requests = begin + 2 * every + 20
    with serving(served, options=options) as url, evofool.Run.start(recipe(url, every, seed, requests), folder()) as run:
        try:
            run.advance()
        except DriftError:
            return posts[0] - begin
    return None


def steady(make: Callable[[int], Change], options: ResponseOptions, runs: int) -> str:
    """Runs of about 200 requests, checked every 5, against a server that varies from its first answer on."""
    stopped, checks, tolerated = 0, 0, []
    for seed in range(runs):
        served, _ = changing(make(seed), 0)
        with serving(served, options=options) as url, evofool.Run.start(recipe(url, 5, seed, 200), folder()) as run:
            try:
                run.advance()
            except DriftError as error:
                stopped += 1
                print(f"  stopped: {error}")
            assert run.target.monitor is not None
            made = run.target.monitor.ledger.checks()
            checks += len(made)
            tolerated.append(max(check.size for check in made))
    return f"{runs:>4}  {stopped:>7}  {checks:>6}  up to {max(tolerated):.2g}, median {statistics.median(tolerated):.2g}"


def changing(change: Change, begin: int) -> tuple[Target, list[int]]:
    """A LeNet that is changed after `begin` forward passes, each of which answers one request; and their number so far."""
    target, posts = evofool.target("lenet"), [0]

    def wrapper(forward: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def changed(images: np.ndarray) -> np.ndarray:
            posts[0] += 1
            logits = forward(images)
            return change(images, logits) if posts[0] > begin else logits

        return changed

    target.wrap(wrapper)
    return target, posts


def recipe(url: str, every: int, seed: int, requests: int) -> evofool.Recipe:
    """A search of about so many requests of 8 images."""
    changes = [f"target={url}", f"search.seed={seed}", "search.batch=8", "compute.chunk=8", f"compute.recheck={every}"]
    return evofool.load_recipe("mnist-cppn", [*changes, f"stop.evaluations={8 * requests}", "stop.confidence="])


def folder() -> Path:
    """In memory where the system has such a folder: each request is written to the disk before it is sent."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="drift-", dir=memory if memory.is_dir() else None)) / "run"


def shown(options: ResponseOptions) -> str:
    return (
        options.answers
        + (f", {options.decimals} decimals" if options.decimals else "")
        + (f" {options.top}" if options.top else "")
    )


# --- changes


def swapped(seed: int) -> Change:
    """A LeNet whose weights differ by 10% at random: it classifies most digits alike."""
    import torch

    other = evofool.target("lenet")
    assert other.network is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.network.module.parameters():
            weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator)
    return lambda images, logits: other.logits(images)


def untrained(seed: int) -> Change:
    import torch

    torch.manual_seed(seed)
    other = Target.from_module(LeNet(), None, (1, 28, 28), outputs="logits")
    return lambda images, logits: other.logits(images)


def rolled(seed: int) -> Change:
    return lambda images, logits: np.roll(logits, 1 + seed % 9, axis=1)


def noisy(sigma: float) -> Callable[[int], Change]:
    def make(seed: int) -> Change:
        rng = np.random.default_rng(seed)
        return lambda images, logits: logits + rng.normal(0, sigma, logits.shape).astype(np.float32)

    return make


def uneven(share: float) -> Callable[[int], Change]:
    """Answers vary by a share of the largest logit, and depend on the row of an image."""

    def make(seed: int) -> Change:
        rng = np.random.default_rng(seed)

        def change(images: np.ndarray, logits: np.ndarray) -> np.ndarray:
            size = share * np.abs(logits).max(axis=1, keepdims=True)
            by_row = np.linspace(0.5, 1, len(logits))[:, None]
            return (logits + by_row * size * rng.uniform(-1, 1, logits.shape)).astype(np.float32)

        return change

    return make


CHANGES: list[tuple[str, int, Callable[[int], Change]]] = [
    ("other weights (10% off), after 60", 60, swapped),
    ("an untrained LeNet, after 60", 60, untrained),
    ("labels rolled, after 60", 60, rolled),
    ("noise of 0.5 on logits, from 100", 100, noisy(0.5)),
    ("noise of 0.01 on logits, from 100", 100, noisy(0.01)),
]
STEADY: list[tuple[str, Callable[[int], Change]]] = [
    ("nothing", lambda seed: lambda images, logits: logits),
    ("noise of 0.0002 on logits", noisy(0.0002)),
    ("noise of 0.02 on logits", noisy(0.02)),
    ("1e-5 of the largest logit, by row", uneven(1e-5)),
    ("1e-3 of the largest logit, by row", uneven(1e-3)),
]
ANSWERS = [
    ResponseOptions(),
    ResponseOptions("probabilities", 3),
    ResponseOptions("top", top=3),
    ResponseOptions("top", 1, 1),
]

if __name__ == "__main__":
    main()
