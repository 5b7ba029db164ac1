"""What a target says of an image that somebody has drawn or uploaded."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evofool.errors import EvofoolError, ScoreError, TargetError
from evofool.explain.cautions import doubts, warnings_of
from evofool.explain.input_picture import fitted
from evofool.explain.phrases import confidence_text, counted, three_decimals
from evofool.images import opened_png
from evofool.machine import torch_threads
from evofool.scores import confidence, log_odds
from evofool.targets import Target, is_black_box, target, trust_reason
from evofool.targets.spec import parse

T = TypeVar("T")
MOST_BYTES = 256 * 1024
"""Of an uploaded PNG."""
MOST_PIXELS = 4_000_000
"""Of an uploaded PNG."""
_SUREST = 10
_LOADED = 2  # targets that are kept in memory


class BusyError(EvofoolError):
    """Another image is being answered."""


@dataclass(frozen=True)
class Subject:
    """A target that can be asked.

    fingerprint, folder, warnings: of a run whose target it is; empty, None and () for one that the user named.
    """

    spec: str
    fingerprint: str = ""
    folder: Path | None = None
    warnings: tuple[str, ...] = ()


def refuse_without_cap(spec: str) -> None:
    """TargetError for a black box over HTTP whose spec does not limit its requests."""
    if is_black_box(spec) and parse(spec).whole("max_requests") is None:
        raise TargetError(
            f"{spec}: each image that is drawn is sent to this server; say how many requests it may cost at the most: "
            "max_requests=100 in its spec"
        )


class Asker:
    """Asks one target about one image at a time, in a thread of its own, and keeps the targets that were asked last.

    named: a target that is loaded already, and stays so: a black box counts its requests.
    """

    def __init__(self, named: Target | None = None) -> None:
        self._named = named
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evofool-ask")
        self._loaded: OrderedDict[Subject, Target] = OrderedDict()
        self._asking = False

    async def ask(self, subject: Subject, png: bytes, with_pixels: bool = False) -> dict[str, Any]:
        """The answer to a PNG, as plain values for the page. Every pass is of one image.

        fitted: how it became the 8-bit image that is scored. classes: the ten surest, each with its number, label,
        confidence and log-odds as texts, and the confidence as a number. doubts and warnings: in words. pixels, if they are
        asked for: the image that was scored, base64 of (H, W, C) bytes.

        BusyError while another image is answered. TargetError for a target that cannot be asked, ImageError for what is no
        PNG of at most MOST_PIXELS, ScoreError for an answer that is no number.
        """
        if self._asking:
            raise BusyError("one image at a time: another one is being answered. Try again")
        self._asking = True
        try:
            return await self._call(lambda: self._answer(subject, png, with_pixels))
        finally:
            self._asking = False

    async def shape(self, subject: Subject) -> tuple[int, int, int]:
        """The shape of the target's images; TargetError if it cannot be asked."""
        return await self._call(lambda: self._target(subject).shape)

    async def close(self) -> None:
        """Wait for the image that is being answered."""
        await asyncio.to_thread(self._thread.shutdown)

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _target(self, subject: Subject) -> Target:
        if subject.folder is None and self._named is not None:
            return self._named
        found = self._loaded.pop(subject, None) or load(subject)
        self._loaded[subject] = found
        while len(self._loaded) > _LOADED:
            self._loaded.popitem(last=False)
        return found

    def _answer(self, subject: Subject, png: bytes, with_pixels: bool) -> dict[str, Any]:
        # One thread, as everywhere: the number affects last bits.
        with torch_threads(1):
            found = self._target(subject)
            image, how = fit(png, found)
            logits = found.logits(image[None])
        if not np.isfinite(logits).all():
            raise ScoreError(f"{found.name} returned NaN or infinity for this image")
        odds = log_odds(logits, found.multilabel)[0]
        surest = np.argsort(-odds, kind="stable")[: min(_SUREST, found.top_k)].tolist()
        answer = {
            "fitted": how,
            "classes": [
                [c, found.labels[c], confidence_text(odds[c]), three_decimals(odds[c]), float(confidence(odds[c]))]
                for c in surest
            ],
            "doubts": doubts(found, odds),
            "warnings": warnings_of(found, subject.warnings),
            "asked": counted(found.queries, "image" if found.queries_per_image == 1 else "answer"),
        }
        if with_pixels:
            answer["pixels"] = base64.b64encode(np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes()).decode()
        return answer


def load(subject: Subject) -> Target:
    """The target; TargetError for one that may not be asked, and for a run's that has changed since."""
    refuse_without_cap(subject.spec)
    if subject.folder is None:
        return target(subject.spec)
    if reason := trust_reason(subject.spec):
        raise TargetError(
            f"{subject.folder.name}: its target is {subject.spec}, {reason}, and a run may come from anyone; "
            "if you trust it, name it yourself: evofool gallery --ask --target SPEC"
        )
    found = target(subject.spec)
    if found.fingerprint() != subject.fingerprint:
        raise TargetError(
            f"{subject.folder.name}: the target {found.name} is not the one that this run was made with: its labels, "
            "preprocessing or weights have changed since"
        )
    return found


def fit(png: bytes, found: Target) -> tuple[np.ndarray, str]:
    """The 8-bit image that is scored, and how it was made of the PNG, in a sentence."""
    picture = opened_png(png, "the image", MOST_PIXELS)
    image, change = fitted(picture, found, "The image")
    _, height, width = found.shape
    if picture.size == (width, height):
        rgb = np.asarray(picture.convert("RGB"))
        opaque = not picture.has_transparency_data or np.asarray(picture.convert("RGBA"))[..., 3].min() == 255
        eight = not picture.mode.startswith("I")
        if eight and opaque and (rgb == image.transpose(1, 2, 0)).all():
            return image, f"It has the {width} x {height} pixels that the target takes: none was changed."
    return image, f"{change or 'The image is as it was'}."
