"""All parts of an explanation, one after the other, into a folder: a page that stands by itself, and its pictures."""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from evofool.ascend.hooks import layer_names, no_gradients, unknown_layer
from evofool.ascend.objectives import LOGITS
from evofool.errors import ImageError, TargetError
from evofool.explain import parts, parts_occlusion
from evofool.explain.folder import ExplanationFolder
from evofool.explain.layers import evenly, in_order
from evofool.explain.nearest import real_pictures
from evofool.explain.part_result import PartInterrupted, PartResult, PassCounter, Say, fault_of
from evofool.explain.parts_layers import dream_part, inversion_part
from evofool.pages.html_page import Picture, Section, html_page
from evofool.targets import Target

PARTS = ("occlusion", "elements", "saliency", "segmentation", "inversion", "dream", "nearest")
_BY_GRADIENT = ("saliency", "segmentation", "inversion", "dream")


@dataclass
class Explanation:
    """What was written: the page, its pictures, and by part what failed of it. forwards, backwards: passes spent."""

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
    source: str,
    notes: Sequence[str] = (),
    only: Collection[str] = (),
    real: Path | None = None,
    layers: Sequence[str] = (),
    dream: str = "",
    zoom: int = 0,
    seed: int = 0,
    say: Say = lambda _line: None,
) -> Explanation:
    """Explain why the target sees the class in image, uint8 (C, H, W): writes folder/index.html and PNGs.

    source says where the image is from, notes what was done to it. only: some of PARTS, all unless given. A black box has
    those that need no gradient, and `nearest` needs `real`, a folder of real images; asked for by name, a part that cannot
    be is an error. layers: to be inverted, in any order; five unless given. dream: the layer to be enhanced, without one
    there is no dream; zoom: further frames of it. seed: of noise, colours, mixtures and starts.

    Whatever is wrong with the arguments is said before anything is done: TargetError for a class, a part or a layer that
    does not exist, ImageError for a folder of no real images, StoreError for a folder that cannot be written. The page is
    written when the first part is done, over an earlier one, and anew after every other, so whatever ends this leaves what
    was done; an interrupt is said, and raised again. A part that fails is named on the page and in `faults`, and the
    others go on.
    """
    if not 0 <= class_id < len(target.labels):
        raise TargetError(f"{target.name}: no class {class_id}; it has 0 to {len(target.labels) - 1}")
    chosen = _chosen(target, only, real, dream)
    _check_layers(target, layers, dream)
    if real is not None:
        real_pictures(real, target)
    place, passes = ExplanationFolder(folder), PassCounter()
    say(f"Explaining {source} as {target.labels[class_id]} (class {class_id}) of {target.name}")
    for line in notes:
        say(line)
    do: dict[str, Callable[[Say], PartResult]] = {
        "occlusion": lambda _: parts_occlusion.occlusion_part(target, image, class_id),
        "elements": lambda _: parts_occlusion.elements_part(target, image, class_id, seed),
        "saliency": lambda _: parts.saliency_part(target, image, class_id, seed, passes),
        "segmentation": lambda _: parts.segmentation_part(target, image, class_id, seed, passes),
        "inversion": lambda say: inversion_part(
            target, image, in_order(target, layers) if layers else evenly(target), real, seed, say, passes
        ),
        "dream": lambda say: dream_part(target, image, class_id, dream, zoom, seed, say, passes),
        "nearest": lambda say: parts.nearest_part(target, image, real or Path(), say),
    }
    before = target.queries
    told = Explanation(place.page)
    title, first = parts.overview(target, image, class_id)
    if not target.differentiable:
        first = replace(first, text=[*first.text, without_gradients(target)])
        say(without_gradients(target))
    place.add("", first.pictures)
    sections: list[Section] = []

    def keep(name: str, found: PartResult, missing: Sequence[str]) -> None:
        """The page with this part."""
        sections.append(found.section)
        if found.section.fault:
            told.faults.setdefault(name, found.section.fault)
        place.add(name, (*_pictures(found.section), *found.more))
        told.pictures = place.pictures
        told.forwards, told.backwards = target.queries - before, passes.backwards
        lacking = [("Failed", [name for name in told.faults if name not in missing]), ("Not done", missing)]
        head = replace(first, fault=" ".join(f"{what}: {', '.join(names)}." for what, names in lacking if names))
        foot = [
            " ".join([f"Source: {source}. Target: {target.name}. Seed {seed}.", *notes]),
            f"Passes spent: {told.forwards:,} forward, {told.backwards:,} backward, of one image each.",
        ]
        place.write(html_page(title, [head, *sections], foot, [path.name for path in place.pictures]))

    for step, name in enumerate(chosen, 1):
        say(f"{name} ({step} of {len(chosen)})")
        try:
            found = do[name](_after(f"{name}: ", say))
        except KeyboardInterrupt as stop:
            if isinstance(stop, PartInterrupted):
                keep(name, stop.found, chosen[step - 1 :])
            say(f"interrupted; what was done is in {folder}" if sections else "interrupted; nothing was written")
            raise
        except Exception as error:  # whatever a part stumbles over, the others are kept
            told.faults[name] = fault_of(error)
            say(f"{name} failed: {told.faults[name]}")
            found = PartResult(Section(name.capitalize(), fault=f"This part failed: {told.faults[name]}"))
        keep(name, found, chosen[step:])
    return told


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
        raise no_gradients(target)
    if real is None and "nearest" in only:
        raise ImageError("nearest real images need real images: name their folder by --real-images DIR")
    if not dream and "dream" in only:
        raise TargetError(f"a dream needs a layer to enhance: --dream LAYER, for example {evenly(target, 2)[0]}")
    absent = {*(() if target.differentiable else _BY_GRADIENT)}
    absent |= {name for name, wanted in (("nearest", real), ("dream", dream)) if not wanted}
    return [name for name in PARTS if name not in absent and (not only or name in only)]


def _check_layers(target: Target, layers: Sequence[str], dream: str) -> None:
    for layer in filter(None, (*layers, dream)):
        if not target.differentiable:
            raise no_gradients(target)
        if layer not in layer_names(target) and (layer != LOGITS or dream == LOGITS):
            raise unknown_layer(target, layer)


def _pictures(section: Section) -> list[Picture]:
    return [*section.pictures, *(picture for one in section.folded for picture in one.pictures)]


def _after(words: str, say: Say) -> Say:
    return lambda line: say(words + line)
