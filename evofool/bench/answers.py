"""Answers to real images, kept in a file as they come: where the asking was broken off, it goes on."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from evofool.errors import StoreError
from evofool.targets import Target

Ask = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to logits (B, K) float32."""

_SHA = 32  # bytes


@contextmanager
def asked(target: Target, batch: int, path: Path | None = None) -> Iterator[Ask]:
    """What asks a target about batch after batch, in the same order every time; path: where its answers are kept.

    Behind a batch's logits the file has the SHA-256 of the target's fingerprint, the batch size, the images and the logits.
    The first batch that this does not fit is asked anew, and so is all behind it. StoreError if it cannot be written.
    """
    if path is None:
        yield lambda images: target.logits(images, batch)
        return
    with _written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    key = f"{target.fingerprint()} {batch} ".encode()
    fits = True

    def ask(images: np.ndarray) -> np.ndarray:
        nonlocal fits
        with _written(path):
            if fits:
                at, size = file.tell(), len(images) * len(target.labels) * 4
                record = file.read(size + _SHA)
                if record[size:] == _digest(key, images, record[:size]):
                    return np.frombuffer(record[:size], np.float32).reshape(len(images), -1).copy()
                file.truncate(at)
                fits = False
        logits = target.logits(images, batch)
        with _written(path):
            file.write(logits.tobytes() + _digest(key, images, logits.tobytes()))
            file.flush()
        return logits

    with file:
        file.seek(0)
        yield ask


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def _digest(key: bytes, images: np.ndarray, logits: bytes) -> bytes:
    return hashlib.sha256(key + images.tobytes() + logits).digest()
