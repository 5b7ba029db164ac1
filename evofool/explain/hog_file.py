"""Models that invert HOG as files: the shipped one, a user's, and those learned from a folder, which are kept."""

import hashlib
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from evofool.errors import ImageError, StoreError
from evofool.explain.hog import CELL, ORIENTATIONS
from evofool.explain.hog_model import (
    FEATURES,
    LEAST_PHOTOGRAPHS,
    MOST_PHOTOGRAPHS,
    PIXELS,
    WINDOW,
    HogModel,
    LearningSettings,
    learn,
    training_photographs,
)
from evofool.targets.photos import image_files
from evofool.whole_file import write_whole

SHIPPED = Path(__file__).with_name("weights") / "hog.safetensors"
_FORMAT = "evofool.hog-inverse 1"
_SETTINGS = {"cell": CELL, "orientations": ORIENTATIONS, "window": WINDOW}
_SHAPES = {
    "mean": (FEATURES,),
    "ridge_in": (FEATURES, None),
    "ridge_out": (None, PIXELS),
    "atoms_hog": (None, FEATURES),
    "atoms_grey": (None, PIXELS),
    "whitening": (None, FEATURES),
    "exemplars": (None, FEATURES),
    "patches": (None, PIXELS),
}
_ALIKE = (("ridge_in", "ridge_out", 1), ("atoms_hog", "atoms_grey", 0), ("exemplars", "patches", 0))
_HALF = ("ridge_in", "ridge_out", "atoms_hog", "atoms_grey", "exemplars")
_KINDS = {"exemplars": np.float16, "patches": np.int8}  # in memory; the others are float32
_MOST_BYTES = 1 << 30
_AGAIN = "learn another one by --train DIR"


@cache
def shipped_model() -> HogModel:
    """The model that evofool brings along, learned from photographs of scikit-image; without exemplars."""
    return load_model(SHIPPED)


def learned_model(
    folder: Path, settings: LearningSettings | None = None, *, on_progress: Callable[[str], None] = lambda _line: None
) -> tuple[HogModel, Path]:
    """The model of a folder's photographs, at any depth, and its file in the user's cache.

    The file's name has the SHA-256 of the settings and of the photographs' bytes, so that the same photographs are learned
    from once, under any names. Of more than 2,000 files so many are taken, evenly spaced by path. ImageError for a folder
    with fewer than 8 photographs of at least 40 x 40 pixels, and for photographs that show next to nothing.
    """
    settings = settings or LearningSettings()
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder; name one with at least {LEAST_PHOTOGRAPHS} photographs")
    by_digest = {_digest(file): file for file in image_files(folder, MOST_PHOTOGRAPHS)}
    _check_count(folder, len(by_digest))
    digests = sorted(by_digest)
    key = json.dumps([_FORMAT, _SETTINGS, asdict(settings), digests], sort_keys=True)
    source = hashlib.sha256(key.encode()).hexdigest()
    path = cache_folder() / f"hog-{source[:32]}.safetensors"
    with suppress(StoreError):  # missing or damaged: learned again
        return load_model(path), path
    # By digest, so that the order of the names changes nothing.
    images = list(training_photographs([by_digest[digest] for digest in digests]))
    _check_count(folder, len(images))
    save_model(learn(images, settings, source=source, on_progress=on_progress), path)
    return load_model(path), path


def cache_folder() -> Path:
    """$EVOFOOL_CACHE, or evofool in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("EVOFOOL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evofool"


def save_model(model: HogModel, path: Path) -> None:
    """Write a model as safetensors, most of it in float16; the same bytes for the same model."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(getattr(model, name), np.float16 if name in _HALF else None) for name in _SHAPES}
    numbers = {"penalty": model.penalty, "photographs": model.photographs, "windows": model.windows}
    metadata = {"format": _FORMAT, "source": model.source} | {k: str(v) for k, v in (_SETTINGS | numbers).items()}
    data = save(tensors, metadata)
    # safetensors writes the metadata in an order that differs from run to run, so write the header again, sorted.
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    write_whole(path, data[:8] + header.ljust(end - 8) + data[end:])


def load_model(path: Path) -> HogModel:
    """Read a model; StoreError for a file that is missing, damaged, of another program or for other settings of HOG."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            begin = file.read(4)
        if path.stat().st_size > _MOST_BYTES:
            raise StoreError(f"{path} has {path.stat().st_size:,} bytes, and a model has at most {_MOST_BYTES:,}; {_AGAIN}")
        if begin[:1] == b"\x80" or begin[:2] == b"PK":
            raise StoreError(f"{path} is a pickle or a zip, which evofool does not unpack; a model is safetensors: {_AGAIN}")
        with safe_open(path, "np") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is not a dict
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"the model {path} cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise StoreError(f"{path} is not a whole safetensors file ({error}); {_AGAIN}") from None
    if metadata.get("format") != _FORMAT:
        raise StoreError(
            f'{path} is not a model that inverts HOG: its format is "{metadata.get("format")}", not "{_FORMAT}"'
        )
    for name, ours in _SETTINGS.items():
        if metadata.get(name) != str(ours):
            raise StoreError(f"{path} is for HOG with {name} {metadata.get(name)}, not {ours}; {_AGAIN}")
    for name, shape in _SHAPES.items():
        _check_tensor(path, name, tensors.get(name), shape)
    for name, other, axis in _ALIKE:
        ours, theirs = tensors[name].shape[axis], len(tensors[other])
        if ours != theirs:
            raise StoreError(f"{path} is damaged: {name} and {other} have {ours} and {theirs} rows; {_AGAIN}")
    if not len(tensors["atoms_hog"]):
        raise StoreError(f"{path} is damaged: it has no atoms; {_AGAIN}")
    whitening, wanted = len(tensors["whitening"]), FEATURES if len(tensors["exemplars"]) else 0
    if whitening != wanted:
        raise StoreError(f"{path} is damaged: whitening has {whitening} rows, not {wanted}; {_AGAIN}")
    try:
        model = HogModel(
            **{name: tensors[name].astype(_KINDS.get(name, np.float32)) for name in _SHAPES},
            penalty=float(metadata["penalty"]),
            photographs=int(metadata["photographs"]),
            windows=int(metadata["windows"]),
            source=metadata["source"],
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"{path} is damaged: its metadata has no valid {error}; {_AGAIN}") from None
    if not 0 < model.penalty < math.inf:
        raise StoreError(f"{path} is damaged: its penalty is {model.penalty}, not a number above 0; {_AGAIN}")
    return model


def _check_tensor(path: Path, name: str, found: np.ndarray | None, shape: tuple[int | None, ...]) -> None:
    wanted = " x ".join("n" if side is None else str(side) for side in shape)
    if found is None:
        raise StoreError(f"{path} is damaged: it has no {name}; {_AGAIN}")
    if found.ndim != len(shape) or any(ours not in (None, side) for ours, side in zip(shape, found.shape, strict=True)):
        raise StoreError(f"{path} is damaged: {name} is {' x '.join(map(str, found.shape))}, not {wanted}; {_AGAIN}")
    if not np.isfinite(found.astype(np.float32)).all():
        raise StoreError(f"{path} is damaged: {name} has NaN or infinity; {_AGAIN}")


def _check_count(folder: Path, count: int) -> None:
    if count < LEAST_PHOTOGRAPHS:
        raise ImageError(
            f"{folder} has {count} photographs of at least 40 x 40 pixels; an inverse of HOG is learned from at least "
            f"{LEAST_PHOTOGRAPHS}"
        )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{file} cannot be read ({error.strerror or error})") from None
