"""A reject class for an existing network: one more output of its last layer, trained on fooling images.

Nguyen 2015 (section 3.5) trained a network with a 1001st class for fooling images anew. Here everything but the weights of
the new output stays as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from evofool.bench.network_features import NetworkFeatures
from evofool.bench.real import RealImages
from evofool.bench.retraining.retrain_loop import champion_births
from evofool.errors import RecipeError, TargetError
from evofool.explain.layers import last_layer
from evofool.machine import torch_threads
from evofool.run.stored import StoredRun
from evofool.targets import Target, target, with_files
from evofool.targets.digits import NOTHING
from evofool.whole_file import write_whole

WEIGHTS, LABELS = "network.safetensors", "labels.txt"

_BATCH = 8  # images in a pass: on a CPU the fastest
_TOLERANCE = 1e-3  # between the last layer's output and the network's, as a share of its spread

OnProgress = Callable[[str], object]


@dataclass(frozen=True)
class RejectClass:
    """A network with a reject class. spec: names it as a target.

    Counts of images, and how many of them the network rejects: its highest logit is that of the new class. real: those of
    the real images that were not trained on. top1: shares of these that are classified correctly, before and with the class.
    """

    spec: str
    fooling: int
    fooling_rejected: int
    trained_real: int
    real: int
    real_rejected: int
    top1_before: float
    top1: float


def give_reject_class(
    spec: str,
    runs: Sequence[Path],
    real: Callable[[Target], RealImages],
    folder: Path,
    *,
    share: float = 0.5,
    decay: float = 1e-3,
    most: int = 9_000,
    on_progress: OnProgress = lambda text: None,
) -> RejectClass:
    """Give a network a class "nothing" for the fooling images of runs; its weights and labels are written to the folder.

    The fooling images are those that were at some time the elite of a class and were classified as it, `most` of them at the
    most, evenly spaced by birth. Every second real image is trained on, the others are held out. Only the new output is
    trained, on the input of the last layer: cross-entropy over all classes, the fooling images weighted to `share` of the
    whole, plus decay / 2 times the squared weights in units of each feature's standard deviation. That is a convex problem,
    so nothing is drawn at random. TargetError for a network whose outputs are not those of a linear layer, or whose weights
    no file can replace. RecipeError if the runs have no such image, and for fewer than two real images.
    """
    if not 0 < share < 1:
        raise RecipeError(f"--fooling-share {share:g} has to lie between 0 and 1, exclusive: a share of the loss")
    if not decay > 0:
        raise RecipeError(f"--decay {decay:g} has to be above 0: without it the weights grow without end")
    described = with_files(spec, weights=folder / WEIGHTS, labels=folder / LABELS)
    network = target(spec)
    with torch_threads(1):
        name, layer = _output_layer(network)
        images = real(network)
        if len(images) < 2:
            raise RecipeError(
                f"{images.source} has {len(images)} labelled real image: half of them are trained on and the others held "
                "out, so at least 2 are needed"
            )
        features = NetworkFeatures(network, _BATCH)
        shown = _features(features, _fooling(runs, most), lambda n: on_progress(f"{n:,} fooling images"))
        batches = (part for part, _ in images.batches(_BATCH))
        known = _features(features, batches, lambda n: on_progress(f"{n:,} real images"))
        trained, held = known[0::2], known[1::2]
        on_progress("training")
        weights, bias = fit_output(layer, shown, trained, share, decay)
    state = {key: value.detach().cpu().clone() for key, value in _module(network).state_dict().items()}
    state[f"{name}.weight"] = torch.cat([state[f"{name}.weight"], weights[None]])
    state[f"{name}.bias"] = torch.cat([state[f"{name}.bias"], bias[None]])
    write_whole(folder / WEIGHTS, save({key: value.contiguous() for key, value in state.items()}))
    write_whole(folder / LABELS, "".join(f"{label}\n" for label in [*network.labels, NOTHING]).encode())
    scores = {part: _with_reject(layer, values, weights, bias) for part, values in (("shown", shown), ("held", held))}
    classes, nothing = images.classes[1::2], len(network.labels)
    return RejectClass(
        described,
        fooling=len(shown),
        fooling_rejected=int((scores["shown"].argmax(1) == nothing).sum()),
        trained_real=len(trained),
        real=len(held),
        real_rejected=int((scores["held"].argmax(1) == nothing).sum()),
        top1_before=float((scores["held"][:, :nothing].argmax(1) == classes).mean()),
        top1=float((scores["held"].argmax(1) == classes).mean()),
    )


def fit_output(
    layer: nn.Linear, fooling: np.ndarray, real: np.ndarray, share: float, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights (D,) float32 and the bias of one more output of a layer with the inputs fooling (M, D) and real (N, D).

    With r the new logit and z the log-sum-exp of the others, the part of the cross-entropy that depends on r is
    softplus(z - r) for fooling images and softplus(r - z) for real ones.
    """
    inputs = torch.from_numpy(np.concatenate([fooling, real])).double()
    with torch.no_grad():
        others = F.linear(inputs, layer.weight.cpu().double(), layer.bias.cpu().double()).logsumexp(1)
    mean, spread = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
    scaled = (inputs - mean) / spread
    row = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([row], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        over = scaled @ row[:-1] + row[-1] - others
        parts = F.softplus(-over[: len(fooling)]).mean(), F.softplus(over[len(fooling) :]).mean()
        value = share * parts[0] + (1 - share) * parts[1] + decay / 2 * row[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    weights = row.detach()[:-1] / spread
    return weights.float(), (row.detach()[-1] - weights @ mean).float()


def _module(network: Target) -> nn.Module:
    assert network.network is not None
    return network.network.module


def _output_layer(network: Target) -> tuple[str, nn.Linear]:
    """The name of the linear layer whose output is the network's, and the layer. TargetError if there is none."""
    name = last_layer(network)
    layer = dict(_module(network).named_modules())[name]
    reason = ""
    if NOTHING in network.labels:
        reason = f'it has a class "{NOTHING}" already'
    elif network.rows_per_image > 1:
        reason = f"its answer is made of those to {network.rows_per_image} crops or pipelines; leave crops= and through= out"
    elif not isinstance(layer, nn.Linear) or layer.bias is None or layer.out_features != len(network.labels):
        reason = f"its last layer, {name}, is not a linear layer with a bias and an output for each class"
    else:
        images = np.random.default_rng(0).integers(0, 256, (4, *network.shape), np.uint8)
        features = torch.from_numpy(NetworkFeatures(network, len(images))(images))
        with torch.no_grad():
            own = layer(features.to(layer.weight.device)).cpu().numpy()
        outputs = network.logits(images)
        if network.outputs != "logits" or np.abs(own - outputs).max() > _TOLERANCE * max(1.0, float(outputs.std())):
            reason = f"its outputs are not those of its last linear layer, {name}"
    if reason:
        raise TargetError(f"{network.name}: cannot get one more output: {reason}")
    assert isinstance(layer, nn.Linear)
    return name, layer


def _fooling(runs: Sequence[Path], most: int) -> Iterator[np.ndarray]:
    """uint8 (B, C, H, W): at most `most` images of all runs together, from each run in proportion to what it has."""
    with_births = []
    for folder in runs:
        with StoredRun(folder) as stored:
            with_births.append((folder, champion_births(stored)))
    total = sum(len(births) for _, births in with_births)
    if not total:
        raise RecipeError(f"{', '.join(map(str, runs))}: no image was classified as the class that it was the elite of")
    for folder, births in with_births:
        wanted = len(births) if total <= most else max(1, round(most * len(births) / total)) if births else 0
        chosen = [births[int(k)] for k in np.linspace(0, len(births) - 1, wanted)]
        with StoredRun(folder) as stored:
            for at in range(0, len(chosen), _BATCH):
                yield stored.encoding.render(stored.genomes(chosen[at : at + _BATCH]))


def _features(features: NetworkFeatures, batches: Iterator[np.ndarray], report: Callable[[int], object]) -> np.ndarray:
    """(N, D) float32"""
    parts, done = [], 0
    for batch in batches:
        parts.append(features(batch))
        done += len(batch)
        report(done)
    return np.concatenate(parts)


def _with_reject(layer: nn.Linear, inputs: np.ndarray, weights: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """(N, K + 1) float32: the logits with that of the new output last."""
    with torch.no_grad():
        x = torch.from_numpy(inputs)
        return torch.cat([F.linear(x, layer.weight.cpu(), layer.bias.cpu()), (x @ weights + bias)[:, None]], 1).numpy()
