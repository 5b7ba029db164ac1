"""How a model of transformers is fed: its preprocessor_config.json, compared with what its image processor does."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.targets.arguments import image_shape
from evofool.targets.preprocessing import MOST_RESIZE, Preprocessing
from evofool.targets.spec import Spec

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_WAY_OUT = "load it in code, as python:package.module:factory"
_EQUAL = 1e-4  # of a network's input


class Feed(NamedTuple):
    """What preprocessor_config.json says."""

    preprocessing: Preprocessing
    channels: int
    size: tuple[int, int]  # height, width
    notes: tuple[str, ...] = ()


def read_feed(said: dict[str, Any], config: dict[str, Any], path: Path, spec: Spec) -> Feed:
    """said: the content of preprocessor_config.json, at path. config: that of config.json."""
    if "auto_map" in said:
        raise TargetError(f"{spec.head}: its image processor is code of its own (auto_map), which is not run; {_WAY_OUT}")
    try:
        feed = _read(said, config, spec)
        image_shape(f"{spec.head}: {path}", (feed.channels, *feed.size))
        return feed
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        if isinstance(error, TargetError):
            if str(error).startswith(spec.head):
                raise
            raise TargetError(f"{spec.head}: {path}: {error}") from None
        raise TargetError(f"{spec.head}: {path} is not understood ({type(error).__name__}: {error})") from None


def checked(transformers: Any, folder: Path, feed: Feed, spec: Spec) -> tuple[Preprocessing, tuple[int, int], list[str]]:
    """The preprocessing with the spec's options, (height, width), and notes.

    transformers' own processor, made from the model's folder, gets an image of noise of the right size. If it makes
    something else of it than what its file was read as, its scaling is measured on a black and a white image instead;
    TargetError if that is not all it does, and if it cannot be run.
    """
    notes = list(feed.notes)
    found = feed.preprocessing
    noise = np.random.default_rng(0).integers(0, 256, (1, feed.channels, *feed.size), np.uint8)
    theirs = _processed(transformers, folder, noise, spec)
    if not _same(found, noise, theirs):
        ends = [_processed(transformers, folder, np.full_like(noise, value), spec) for value in (0, 255)]
        measured = _measured(found, ends)
        if measured is None or not _same(measured, noise, theirs):
            raise TargetError(f"{spec.head}: its image processor does more than scale pixels; {_WAY_OUT}")
        found = measured
    preprocessing, size = spec.preprocessing(found, feed.size)
    return preprocessing, size, notes


def _read(said: dict[str, Any], config: dict[str, Any], spec: Spec) -> Feed:
    resize, notes = None, list[str]()
    size, cut = said.get("size"), said.get("crop_size")
    crop = _sides(cut) if said.get("do_center_crop") and cut is not None else None
    if isinstance(size, int):
        size = {"shortest_edge": size} if crop else {"height": size, "width": size}
    size = size if isinstance(size, dict) and said.get("do_resize", True) else {}
    own = _sides(config.get("image_size", 224))
    if "shortest_edge" in size:
        short = int(size["shortest_edge"])
        if crop:
            sides, resize = crop, short
        elif "crop_pct" in said:  # as ConvNext: squeezed from 384 pixels on
            sides = (short, short)
            resize = int(short / (said["crop_pct"] or 224 / 256)) if short < 384 else None
        else:
            sides, resize = own, short
    elif "height" in size:
        whole = _sides(size)
        sides = crop or whole
        if crop and crop != whole:
            resize = min(whole)
            notes.append(
                f"photographs are squeezed to {whole[0]}x{whole[1]} by its processor; here their short side is resized"
            )
    else:
        sides = crop or own
    scaled = said.get("do_rescale", True)
    normalised = said.get("do_normalize", True)
    preprocessing = Preprocessing(
        scale=float(said.get("rescale_factor", 1 / 255)) if scaled else 1.0,
        mean=tuple(said.get("image_mean") or (0.0,)) if normalised else (0.0,),
        std=tuple(said.get("image_std") or (1.0,)) if normalised else (1.0,),
        order="BGR" if said.get("do_flip_channel_order") else "RGB",
        resize=resize,
        interpolation=_RESAMPLE.get(said.get("resample", 2), "bilinear"),
    )
    channels = int(config.get("num_channels", 3))
    if channels not in (1, 3):
        raise TargetError(f"{spec.head}: its images have {channels} channels; they have to have 1 or 3")
    given = spec.side(sides)
    if resize is not None and given != sides:
        preprocessing = _with(preprocessing, resize=min(round(resize * max(given) / max(sides)), MOST_RESIZE))
    return Feed(preprocessing, channels, given, tuple(notes))


def _with(preprocessing: Preprocessing, **changes: Any) -> Preprocessing:
    return Preprocessing(**{**preprocessing.described(), **changes})


def _sides(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        return int(value["height"]), int(value["width"])
    height, width = value if isinstance(value, (list, tuple)) else (value, value)
    return int(height), int(width)


def _processed(transformers: Any, folder: Path, images: np.ndarray, spec: Spec) -> np.ndarray:
    """(B, C, H, W) uint8 as its processor makes them."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        made = processor(
            list(images.transpose(0, 2, 3, 1)),
            return_tensors="np",
            input_data_format="channels_last",
            do_resize=False,
            do_center_crop=False,
            do_convert_rgb=False,
        )["pixel_values"]
        made = np.asarray(made, np.float32)
    except Exception as error:  # a processor may raise any error
        reason = " ".join(str(error).split())[:200]
        raise TargetError(
            f"{spec.head}: its image processor cannot be run ({type(error).__name__}: {reason}); {_WAY_OUT}"
        ) from None
    if made.shape != images.shape:
        raise TargetError(
            f"{spec.head}: its image processor makes {made.shape} of images {images.shape}, which is more than scaling "
            f"pixels; {_WAY_OUT}"
        )
    return made


def _same(preprocessing: Preprocessing, images: np.ndarray, theirs: np.ndarray) -> bool:
    ours = preprocessing.affine()(torch.from_numpy(images).float()).numpy()
    return bool(np.abs(ours - theirs).max() <= _EQUAL * max(1.0, float(np.abs(theirs).max())))


def _measured(preprocessing: Preprocessing, ends: list[np.ndarray]) -> Preprocessing | None:
    """The preprocessing that has these values for black and for white."""
    black, white = ends
    low, high = (each[0].mean(axis=(1, 2)) for each in (black, white))
    if not (high > low).all():
        return None
    mean, std = -low / (high - low), 1 / (high - low)
    return _with(preprocessing, scale=1 / 255, mean=tuple(map(float, mean)), std=tuple(map(float, std)))
