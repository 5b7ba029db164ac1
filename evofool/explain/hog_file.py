"""Models that invert HOG as files: the shipped one, a user's, and those learned from a folder, which are kept."""

import hashlib
import json
import math
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
from evofool.explain.model_file import by_content, cache_folder, read_model
from evofool.whole_file import write_whole
from genomes import GenomeError
from genomes.tensor_file import check_tensor, pack_tensors, unpack_tensors

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
    files = by_content(folder, MOST_PHOTOGRAPHS)
    _check_count(folder, len(files))
    key = json.dumps([_FORMAT, _SETTINGS, asdict(settings), [*files]], sort_keys=True)
    source = hashlib.sha256(key.encode()).hexdigest()
    path = cache_folder() / f"hog-{source[:32]}.safetensors"
    with suppress(StoreError):  # missing or damaged: learned again
        return load_model(path), path
    # By digest, so that the order of the names changes nothing.
    images = list(training_photographs([*files.values()]))
    _check_count(folder, len(images))
    save_model(learn(images, settings, source=source, on_progress=on_progress), path)
    return load_model(path), path


def save_model(model: HogModel, path: Path) -> None:
    """Write a model as safetensors, most of it in float16; the same bytes for the same model."""
    tensors = {name: np.ascontiguousarray(getattr(model, name), np.float16 if name in _HALF else None) for name in _SHAPES}
    numbers = {"penalty": model.penalty, "photographs": model.photographs, "windows": model.windows}
    metadata = {"format": _FORMAT, "source": model.source} | {k: str(v) for k, v in (_SETTINGS | numbers).items()}
    write_whole(path, pack_tensors(tensors, metadata))


def load_model(path: Path) -> HogModel:
    """Read a model; StoreError for a file that is missing, damaged, of another program or for other settings of HOG."""
    return read_model(path, _of_bytes)


def _of_bytes(data: bytes) -> HogModel:
    """GenomeError, which begins with a verb, for what is not such a model."""
    tensors, metadata = unpack_tensors(data)
    if metadata.get("format") != _FORMAT:
        raise GenomeError(f'is not a model that inverts HOG: its format is "{metadata.get("format")}", not "{_FORMAT}"')
    for name, ours in _SETTINGS.items():
        if metadata.get(name) != str(ours):
            raise GenomeError(f"is for HOG with {name} {metadata.get(name)}, not {ours}")
    for name, shape in _SHAPES.items():
        check_tensor(tensors, name, shape)
    for name, other, axis in _ALIKE:
        ours, theirs = tensors[name].shape[axis], len(tensors[other])
        if ours != theirs:
            raise GenomeError(f"is damaged: {name} and {other} have {ours} and {theirs} rows")
    if not len(tensors["atoms_hog"]):
        raise GenomeError("is damaged: it has no atoms")
    whitening, wanted = len(tensors["whitening"]), FEATURES if len(tensors["exemplars"]) else 0
    if whitening != wanted:
        raise GenomeError(f"is damaged: whitening has {whitening} rows, not {wanted}")
    try:
        model = HogModel(
            **{name: tensors[name].astype(_KINDS.get(name, np.float32)) for name in _SHAPES},
            penalty=float(metadata["penalty"]),
            photographs=int(metadata["photographs"]),
            windows=int(metadata["windows"]),
            source=metadata["source"],
        )
    except (KeyError, ValueError) as error:
        raise GenomeError(f"is damaged: its metadata has no valid {error}") from None
    if not 0 < model.penalty < math.inf:
        raise GenomeError(f"is damaged: its penalty is {model.penalty}, not a number above 0")
    return model


def _check_count(folder: Path, count: int) -> None:
    if count < LEAST_PHOTOGRAPHS:
        raise ImageError(
            f"{folder} has {count} photographs of at least 40 x 40 pixels; an inverse of HOG is learned from at least "
            f"{LEAST_PHOTOGRAPHS}"
        )
