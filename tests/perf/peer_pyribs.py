"""What pyribs 0.12 needs until all ten digits have a fooling image: its own notebook, and the strongest of its API.

Every arm takes logits (uint8 (B, 1, 28, 28) to float32 (B, 10), larger is surer), a seed, a cap on evaluations and a
threshold. It stops after the first batch with which all ten digits are at the threshold, or before the batch that
would pass the cap. An evaluation is one image through the network. Solutions live in [0, 1] and are clipped and rounded
to 8-bit pixels before the network; that time counts. Run logits once before timing: torch's first pass is slow.

    python -m tests.perf.peer_pyribs --weights lenet_caffe.safetensors --seeds 3
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ribs.archives import GridArchive
from ribs.emitters import EvolutionStrategyEmitter, GaussianEmitter, IsoLineEmitter
from ribs.schedulers import Scheduler

PIXELS = 28 * 28
CLASSES = np.arange(10)

Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """One run: reached counts the digits at the threshold; confidences is (10,) float, 0 for an empty cell."""

    arm: str
    seconds: float
    evaluations: int
    reached: int
    confidences: np.ndarray


def notebook(logits: Logits, seed: int, cap: int = 900_000, threshold: float = 0.99) -> Outcome:
    """The settings of pyribs' tutorial "Generating Images to Fool an MNIST Classifier" (tutorials/fooling_mnist.ipynb).

    One cell per digit; an image is offered to its arg-max class only, with that class's float32 softmax as objective.
    One GaussianEmitter, sigma 0.5, x0 mid-grey, bounds [0, 1], batch 30; 30,000 iterations (the default cap) there.

    Deviations: pixels are rounded to 8 bits; the network is the caller's and so is its scaling (theirs is a LeNet-5 fed
    (x - 0.1307) / 0.3081); the generators are seeded; it stops at the threshold instead of running all iterations.
    """
    archive_seed, emitter_seed = _seeds(seed, 2)
    _warm_up()
    started = time.perf_counter()
    archive = GridArchive(solution_dim=PIXELS, dims=[10], ranges=[(0, 10)], seed=archive_seed)
    emitter = GaussianEmitter(
        archive, sigma=0.5, x0=np.full(PIXELS, 0.5), bounds=[(0, 1)] * PIXELS, batch_size=30, seed=emitter_seed
    )
    scheduler = Scheduler(archive, [emitter])
    evaluations, confidences = 0, np.zeros(10)
    while evaluations + 30 <= cap and confidences.min() < threshold:
        solutions = scheduler.ask()
        scores = logits(to_pixels(solutions))
        evaluations += len(solutions)
        predicted = scores.argmax(1)
        # The largest term of the softmax's sum is exp(0), so the arg-max class's probability is one over that sum.
        probabilities = 1 / np.exp(scores - scores.max(1, keepdims=True)).sum(1)
        scheduler.tell(probabilities, predicted[:, None])
        confidences = np.maximum(_objectives(archive), 0)
    return _outcome("notebook", started, evaluations, confidences, threshold)


def iso_line(
    logits: Logits,
    seed: int,
    cap: int = 900_000,
    threshold: float = 0.99,
    *,
    iso_sigma: float = 0.04,
    line_sigma: float = 0.02,
    batch: int = 10,
) -> Outcome:
    """MAP-Elites with iso+line variation; every image is offered to all ten classes. Starts from uniform noise.

    Of equals the earlier image keeps the cell. Source of the operator: Vassiliades & Mouret 2018.
    """
    archive_seed, emitter_seed, noise_seed = _seeds(seed, 3)
    _warm_up()
    started = time.perf_counter()
    archive = _archive(archive_seed)
    emitter = IsoLineEmitter(
        archive,
        iso_sigma=iso_sigma,
        line_sigma=line_sigma,
        initial_solutions=np.random.default_rng(noise_seed).random((batch, PIXELS)),
        bounds=[(0, 1)] * PIXELS,
        batch_size=batch,
        seed=emitter_seed,
    )
    evaluations, confidences = 0, np.zeros(10)
    while evaluations + batch <= cap and confidences.min() < threshold:
        solutions = emitter.ask()
        _offer(archive, solutions, log_odds(logits(to_pixels(solutions))))
        evaluations += batch
        confidences = _sigmoid(_objectives(archive))
    return _outcome("iso_line", started, evaluations, confidences, threshold)


def cma_me(
    logits: Logits,
    seed: int,
    cap: int = 900_000,
    threshold: float = 0.99,
    *,
    emitters: int = 4,
    batch: int = 4,
    sigma0: float = 0.05,
    es: str = "sep_cma_es",
) -> Outcome:
    """CMA-ME (two-stage improvement ranker) on a diagonal covariance; every image is offered to all ten classes.

    An emitter restarts from a random elite once its batch improves no cell. batch is per emitter.
    Bounds stay off the strategy, which would resample 784 pixels until all lie inside; what it asks for is clipped.
    Source: Fontaine 2020.
    """
    archive_seed, noise_seed, *emitter_seeds = _seeds(seed, 2 + emitters)
    noise = np.random.default_rng(noise_seed).random((emitters, PIXELS))
    _warm_up()
    started = time.perf_counter()
    archive = _archive(archive_seed)
    team = [
        EvolutionStrategyEmitter(archive, x0=x0, sigma0=sigma0, ranker="2imp", es=es, batch_size=batch, seed=s)
        for x0, s in zip(noise, emitter_seeds, strict=True)
    ]
    evaluations, confidences = 0, np.zeros(10)
    while evaluations + batch * emitters <= cap and confidences.min() < threshold:
        asked = np.concatenate([emitter.ask() for emitter in team])
        solutions = np.clip(asked, 0, 1)
        scores = log_odds(logits(to_pixels(solutions)))
        evaluations += len(solutions)
        # tell() wants one add_info per asked image, so its first offer is to the class that it improves most (-inf, an
        # empty cell, only occurs before the first batch: then the class with the highest score). The nine other offers
        # follow in a second add(), which repeats the first ones harmlessly: an equal score takes no cell.
        champions = _objectives(archive)
        own_classes = (scores - np.where(np.isfinite(champions), champions, 0)).argmax(1)
        own_scores = scores[np.arange(len(own_classes)), own_classes]
        add_info = archive.add(solutions, own_scores, own_classes[:, None])
        _offer(archive, solutions, scores)
        _tell(team, asked, own_scores, own_classes, add_info)
        confidences = _sigmoid(_objectives(archive))
    return _outcome("cma_me", started, evaluations, confidences, threshold)


def class_es(
    logits: Logits,
    seed: int,
    cap: int = 900_000,
    threshold: float = 0.99,
    *,
    noise: int = 30,
    batch: int = 8,
    sigma0: float = 0.2,
    es: str = "sep_cma_es",
    shades: bool = False,
) -> Outcome:
    """One evolution strategy per class that climbs that class's log-odds; every image is offered to all ten classes.

    No textbook quality-diversity algorithm, but its parts are all pyribs': ten EvolutionStrategyEmitters with the
    objective ranker and "mu" selection on one archive. Each starts at its class's best of `noise` uniform images (shades:
    images of many mean brightnesses, as `start = "shades"` of our pixels draws them) and is left out once its class is at
    the threshold. batch is per emitter.
    """
    archive_seed, noise_seed, *emitter_seeds = _seeds(seed, 12)
    _warm_up()
    started = time.perf_counter()
    archive = _archive(archive_seed)
    draws = np.random.default_rng(noise_seed)
    solutions = draws.random((min(noise, cap), PIXELS))
    if shades:
        solutions **= 64.0 ** draws.random((len(solutions), 1))
        solutions = np.where(draws.random((len(solutions), 1)) < 0.5, solutions, 1 - solutions)
    scores = log_odds(logits(to_pixels(solutions)))
    _offer(archive, solutions, scores)
    evaluations, confidences = len(solutions), _sigmoid(_objectives(archive))
    team = [
        EvolutionStrategyEmitter(
            archive,
            x0=solutions[scores[:, k].argmax()],
            sigma0=sigma0,
            ranker="obj",
            es=es,
            selection_rule="mu",
            restart_rule="basic",
            batch_size=batch,
            seed=emitter_seeds[k],
        )
        for k in CLASSES
    ]
    while (open_classes := np.flatnonzero(confidences < threshold)).size:
        if evaluations + batch * len(open_classes) > cap:
            break
        at_work = [team[k] for k in open_classes]
        asked = np.concatenate([emitter.ask() for emitter in at_work])
        solutions = np.clip(asked, 0, 1)
        scores = log_odds(logits(to_pixels(solutions)))
        evaluations += len(solutions)
        # Two adds as in cma_me; here the first offer is to the class that the emitter climbs.
        own_classes = np.repeat(open_classes, batch)
        own_scores = scores[np.arange(len(own_classes)), own_classes]
        add_info = archive.add(solutions, own_scores, own_classes[:, None])
        _offer(archive, solutions, scores)
        _tell(at_work, asked, own_scores, own_classes, add_info)
        confidences = _sigmoid(_objectives(archive))
    return _outcome("class_es_shades" if shades else "class_es", started, evaluations, confidences, threshold)


def class_es_shades(logits: Logits, seed: int, cap: int = 900_000, threshold: float = 0.99) -> Outcome:
    """class_es that begins with 50 images of many mean brightnesses, as `mnist-direct` does."""
    return class_es(logits, seed, cap, threshold, noise=50, shades=True)


ARMS: dict[str, Callable[[Logits, int, int, float], Outcome]] = {
    "notebook": notebook,
    "iso_line": iso_line,
    "cma_me": cma_me,
    "class_es": class_es,
    "class_es_shades": class_es_shades,
}


def to_pixels(solutions: np.ndarray) -> np.ndarray:
    """float (B, 784), clipped to [0, 1], to uint8 (B, 1, 28, 28), rounded to the nearest of 256 levels."""
    return np.rint(np.clip(solutions, 0, 1) * 255).astype(np.uint8).reshape(-1, 1, 28, 28)


def log_odds(scores: np.ndarray) -> np.ndarray:
    """log p / (1 - p) of each class's softmax from logits (B, 10), in float64: unlike p it never saturates."""
    others = np.where(np.eye(10, dtype=bool), -np.inf, scores.astype(np.float64)[:, None, :])
    top = others.max(2)
    return scores - top - np.log(np.exp(others - top[:, :, None]).sum(2))


def _archive(seed: int) -> GridArchive:
    return GridArchive(solution_dim=PIXELS, dims=[10], ranges=[(0, 10)], seed=seed)


def _offer(archive: GridArchive, solutions: np.ndarray, scores: np.ndarray) -> None:
    """Offer every solution to every class; of equals the first in the batch wins.

    A cell takes at most the best image of a batch, so only each class's best goes to add(): the archive that all 10 B
    offers would leave (each solution repeated ten times), at a tenth of the time or less.
    """
    best = scores.argmax(0)
    archive.add(solutions[best], scores[best, CLASSES], CLASSES[:, None])


def _tell(
    team: list[EvolutionStrategyEmitter],
    asked: np.ndarray,
    objectives: np.ndarray,
    classes: np.ndarray,
    add_info: dict[str, np.ndarray],
) -> None:
    """Give each emitter its own equal share of the batch's rows, in the order of asking."""
    for i, emitter in enumerate(team):
        rows = slice(i * emitter.batch_size, (i + 1) * emitter.batch_size)
        share = {name: values[rows] for name, values in add_info.items()}
        emitter.tell(asked[rows], objectives[rows], classes[rows, None], share)


def _objectives(archive: GridArchive) -> np.ndarray:
    """(10,) float, -inf for an empty cell."""
    elites = archive.data(["index", "objective"])
    objectives = np.full(10, -np.inf)
    objectives[elites["index"]] = elites["objective"]
    return objectives


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _seeds(seed: int, count: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count)]


def _warm_up() -> None:
    """Take one small step of everything, so that what numba compiles once per process stays out of the clock."""
    archive = _archive(0)
    emitter = EvolutionStrategyEmitter(archive, x0=np.zeros(PIXELS), sigma0=0.1, es="sep_cma_es", batch_size=4, seed=0)
    asked, objectives, classes = emitter.ask(), np.arange(4.0), CLASSES[:4]
    _tell([emitter], asked, objectives, classes, archive.add(asked, objectives, classes[:, None]))
    emitter.ask()


def _outcome(arm: str, started: float, evaluations: int, confidences: np.ndarray, threshold: float) -> Outcome:
    seconds = time.perf_counter() - started
    return Outcome(arm, seconds, evaluations, int((confidences >= threshold).sum()), confidences)


def main() -> None:
    import torch
    from safetensors.torch import load_file

    from evofool.targets.networks import CaffeLeNet

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="safetensors file of the authors' LeNet (CaffeLeNet)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1")
    parser.add_argument("--cap", type=int, default=900_000, help="evaluations per run")
    parser.add_argument("--threshold", type=float, default=0.99)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    args = parser.parse_args()

    torch.set_num_threads(1)
    network = CaffeLeNet().eval()
    network.load_state_dict(load_file(args.weights))

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(pixels).float() / 256).numpy()

    logits(np.zeros((30, 1, 28, 28), np.uint8))
    print(f"{'arm':<10}{'seed':>5}{'digits':>8}{'evaluations':>13}{'seconds':>10}{'worst confidence':>18}")
    for arm in args.arms:
        for seed in range(args.seeds):
            o = ARMS[arm](logits, seed, args.cap, args.threshold)
            row = f"{o.arm:<16}{seed:>5}{o.reached:>8}{o.evaluations:>13,}{o.seconds:>10.2f}{o.confidences.min():>18.4f}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
