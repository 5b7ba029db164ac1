"""All parts of an explanation, one after the other, into a folder: a page that stands by itself, and its pictures."""

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from evofool.ascend.objectives import LOGITS
from evofool.ascend.taps import layer_names, refused, unknown_layer
from evofool.errors import EvofoolError, ImageError, StoreError, TargetError
from evofool.explain import parts
from evofool.explain.layers import evenly
from evofool.explain.parts import Found, Say
from evofool.explain.parts_layers import dream_part, inversion_part
from evofool.pages.explanation import Picture, Section, explanation_page
from evofool.targets import Target

PARTS = ("saliency", "segmentation", "occlusion", "elements", "inversion", "dream", "nearest")
_BY_GRADIENT = ("saliency", "segmentation", "inversion", "dream")
PAGE = "index.html"


@dataclass
class Explained:
    """What was written: the page, its pictures, and by part why it failed. forwards, backwards: passes spent."""

    page: Path
    pictures: list[Path] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0


def explain(
    target: Target,
    image: np.ndarray,
    class_id: int,
    folder: Path,
    *,
    title: str,
    source: str,
    only: Collection[str] = (),
    real: Path | None = None,
    layers: Sequence[str] = (),
    dream: str = "",
    zoom: int = 0,
    seed: int = 0,
    say: Say = lambda _line: None,
) -> Explained:
    """Explain why the target sees the class in image, uint8 (C, H, W): writes folder/index.html and PNGs.

    source says where the image is from. only: some of PARTS, all unless given. A black box has those that need no gradient,
    and `nearest` needs `real`, a folder of real images; asked for by name, a part that cannot be is an error. layers: to
    be inverted, the deepest last; five unless given. dream: the layer to be enhanced, without one there is no dream; zoom:
    further frames of it. seed: of noise, colours, mixtures and starts.

    The page is written anew after every part, so whatever ends this leaves what was done. A part that fails is named on
    the page and in `faults`, and the others go on. TargetError for a part or a layer that does not exist, before anything.
    """
    chosen = _chosen(target, only, real, dream)
    for layer in filter(None, (*layers, dream)):
        if not target.differentiable:
            raise refused(target)
        if layer not in layer_names(target) and (layer != LOGITS or dream == LOGITS):
            raise unknown_layer(target, layer)
    do: dict[str, Callable[[Say], Found]] = {
        "": lambda _: _first(target, image, class_id),
        "saliency": lambda _: parts.saliency_part(target, image, class_id, seed),
        "segmentation": lambda _: parts.segmentation_part(target, image, class_id, seed),
        "occlusion": lambda _: parts.occlusion_part(target, image, class_id),
        "elements": lambda _: parts.elements_part(target, image, class_id, seed),
        "inversion": lambda say: inversion_part(target, image, layers or evenly(target), real, say, seed=seed),
        "dream": lambda say: dream_part(target, image, class_id, dream, say, zoom=zoom, seed=seed),
        "nearest": lambda say: parts.nearest_part(target, image, real or Path(), say),
    }
    told = Explained(folder / PAGE)
    sections: list[Section] = []
    for step, name in enumerate(("", *chosen)):
        before = target.queries
        if name:
            say(f"{name} ({step} of {len(chosen)})")
        try:
            found = do[name](_after(f"{name}: ", say))
        except Exception as error:  # whatever a part stumbles over, the others are kept
            if not name:
                raise
            words = str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {error}"
            told.faults[name] = words
            found = Found(Section(name.capitalize(), fault=f"This part failed: {words}"), 0)
            say(f"{name} failed: {words}")
        told.forwards += target.queries - before
        told.backwards += found.backwards
        sections.append(found.section)
        for picture in (*found.section.pictures, *found.more):
            told.pictures.append(folder / _file(name, picture, told.pictures))
            _write(told.pictures[-1], picture.png)
        notes = [
            f"Source: {source}. Target: {target.name}. Seed {seed}.",
            f"Passes spent: {told.forwards:,} forward, {told.backwards:,} backward, of one image each.",
            *([f"Not done: {', '.join(chosen[step:])}."] if chosen[step:] else []),
        ]
        _write(told.page, explanation_page(title, sections, notes).encode())
    return told


def _first(target: Target, image: np.ndarray, class_id: int) -> Found:
    found = parts.overview(target, image, class_id)
    if target.differentiable:
        return found
    return Found(replace(found.section, text=[*found.section.text, without_gradients(target)]), 0)


def without_gradients(target: Target) -> str:
    """One line: what a black box has not, what is left, and what else can be done with it."""
    rest = [name for name in PARTS if name not in _BY_GRADIENT]
    return (
        f"{target.name} has no gradients, so there is no {' or '.join(_BY_GRADIENT)}; left are {', '.join(rest)} (by pixels "
        "alone). Its rivals that need none: evofool baseline square, nes or random."
    )


def _chosen(target: Target, only: Collection[str], real: Path | None, dream: str) -> list[str]:
    for name in only:
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise TargetError(f'there is no part "{name}" of an explanation; there are {", ".join(PARTS)}{hint}')
    if not target.differentiable and set(only) & set(_BY_GRADIENT):
        raise refused(target)
    if real is None and "nearest" in only:
        raise ImageError("nearest real images need real images: name their folder by --real DIR")
    if not dream and "dream" in only:
        raise TargetError(f"a dream needs a layer to enhance: --dream LAYER, for example {evenly(target, 2)[0]}")
    absent = {*(() if target.differentiable else _BY_GRADIENT)}
    absent |= {name for name, wanted in (("nearest", real), ("dream", dream)) if not wanted}
    return [name for name in PARTS if name not in absent and (not only or name in only)]


def _file(part: str, picture: Picture, taken: Sequence[Path]) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"{part} {picture.title}".lower()).strip("-")[:60] or "picture"
    names = {path.name for path in taken}
    stem, number = words, 1
    while f"{stem}.png" in names:
        number += 1
        stem = f"{words}-{number}"
    return f"{stem}.png"


def _after(words: str, say: Say) -> Say:
    return lambda line: say(words + line)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None
