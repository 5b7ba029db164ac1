"""A target's answers to real images, stored in a file as they arrive, so that an interrupted calibration continues."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from evofool.errors import StoreError
from evofool.targets import Target

Query = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to logits (B, K) float32."""

_SHA = 32  # bytes


@contextmanager
def stored_queries(target: Target, batch: int, path: Path | None = None) -> Iterator[Query]:
    """A function that queries a target, batch after batch, in the same order every time; path: the file of its answers.

    After a batch's logits the file has the SHA-256 of the target's fingerprint, the batch size, the images and the logits.
    The first batch that does not match is queried again, and so are all after it. StoreError if it cannot be written.
    """
    if path is None:
        yield lambda images: target.logits(images, batch)
        return
    with _store_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    key = f"{target.fingerprint()} {batch} ".encode()
    matches = True

    def query(images: np.ndarray) -> np.ndarray:
        nonlocal matches
        with _store_errors(path):
            if matches:
                position, size = file.tell(), len(images) * len(target.labels) * 4
                record = file.read(size + _SHA)
                if record[size:] == _digest(key, images, record[:size]):
                    return np.frombuffer(record[:size], np.float32).reshape(len(images), -1).copy()
                file.truncate(position)
                matches = False
        logits = target.logits(images, batch)
        with _store_errors(path):
            file.write(logits.tobytes() + _digest(key, images, logits.tobytes()))
            file.flush()
        return logits

    with file:
        file.seek(0)
        yield query


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def _digest(key: bytes, images: np.ndarray, logits: bytes) -> bytes:
    return hashlib.sha256(key + images.tobytes() + logits).digest()
