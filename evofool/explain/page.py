"""An explanation of one image, part by part, written to a folder as a self-contained page and its pictures."""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evofool.ascend.hooks import layer_names, no_gradients, unknown_layer
from evofool.ascend.objectives import LOGITS
from evofool.errors import ImageError, TargetError
from evofool.explain import parts, parts_occlusion, parts_saliency
from evofool.explain.answer import Answer, CheckedMask, answer
from evofool.explain.cautions import warnings_of
from evofool.explain.curves import Curves
from evofool.explain.folder import ExplanationFolder
from evofool.explain.layers import evenly, in_order
from evofool.explain.nearest import real_pictures
from evofool.explain.part_result import PartInterrupted, PartMask, PartResult, PassCounter, Report, fault_of, prefixed
from evofool.explain.parts_curves import curves_part
from evofool.explain.parts_hog import hog_part
from evofool.explain.parts_layers import dream_part, inversion_part
from evofool.explain.parts_margin import margin_part, versus_title
from evofool.explain.parts_masks import maps_section
from evofool.images import fewer_colours
from evofool.pages.html_page import Picture, Section, html_page
from evofool.targets import Target

PARTS = ("occlusion", "elements", "saliency", "segmentation", "margin", "curves", "inversion", "dream", "hog", "nearest")
_VERSUS = ("margin",)  # the parts that compare two classes, which are shown first and together
_MAPS = ("occlusion", "elements", "saliency", "margin")  # the parts that have a map; curves need at least one
_BY_GRADIENT = ("saliency", "segmentation", "margin", "inversion", "dream")


@dataclass(frozen=True)
class ExplanationOptions:
    """The content of an explanation. only: names of PARTS; empty: all that are possible.

    against: the class that the explained one is compared with; None: of the other classes the one with the highest logit.
    A black box has only the parts that need no gradients. real_images: a folder, which the part nearest needs. layers: to be
    inverted, in any order; empty: five. dream: the layer to enhance; empty: no dream. zoom: further frames of the dream.
    seed: of noise, colours, mixtures and starts. warnings: shown at the head of the page, after those of the target.
    """

    only: Collection[str] = ()
    against: int | None = None
    real_images: Path | None = None
    layers: Sequence[str] = ()
    dream: str = ""
    zoom: int = 0
    seed: int = 0
    warnings: Sequence[str] = ()


@dataclass
class Explanation:
    """The result of explain: the page, its pictures, the failures by part. forwards, backwards: passes spent.

    warnings: those at the head of the page, of the target and of a decision that is close. answer: the sentence at the head
    of the page, "" without a mask. masks: of each part that has one, with its check. curves: by map, where the part curves
    was run. against: the class that the explained one is compared with. figures: of other parts, JSON values by name.
    """

    page: Path
    warnings: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0
    answer: str = ""
    masks: list[CheckedMask] = field(default_factory=list)
    curves: dict[str, Curves] = field(default_factory=dict)
    against: int = -1
    figures: dict[str, Any] = field(default_factory=dict)


def explain(
    target: Target,
    image: np.ndarray,
    class_id: int,
    folder: Path,
    *,
    source: str,
    notes: Sequence[str] = (),
    options: ExplanationOptions | None = None,
    report: Report = lambda _line: None,
) -> Explanation:
    """Explain the target's score of a class for image, uint8 (C, H, W): writes folder/index.html and PNGs.

    source: where the image comes from; notes: what was changed about it. Both are shown on the page. report is called with
    lines, among them each warning, and with Progress.

    Arguments are checked before anything is computed: TargetError for an unknown class, part or layer, and for a requested
    part that is not possible; ImageError for a folder without real images; StoreError for a folder that cannot be written.
    The page is written after the first part, over an earlier page, and again after every other part, so that an interrupt
    leaves the finished parts; it is reported and raised again. A part that fails is named on the page and in `faults`; the
    other parts go on. The page begins with the answer, from the masks of the parts that are finished.
    """
    options = options or ExplanationOptions()
    real, layers, seed = options.real_images, options.layers, options.seed
    _check_classes(target, class_id, options.against)
    chosen = _chosen(target, options)
    _check_layers(target, layers, options.dream)
    if real is not None:
        real_pictures(real, target)
    output, passes = ExplanationFolder(folder), PassCounter()
    report(f"Explaining {source} as {target.labels[class_id]} (class {class_id}) of {target.name}")
    for line in notes:
        report(line)
    before = target.queries
    title, first, predicted, against = parts.overview(target, image, class_id, options.against)
    explanation = Explanation(output.page, against=against)
    gradients = parts_saliency.Gradients(target, image, class_id, against if "margin" in chosen else None, seed, passes)
    maps: dict[str, np.ndarray] = {}
    masks: list[PartMask] = []

    def draw_curves() -> PartResult:
        found, explanation.curves = curves_part(target, image, class_id, maps, seed)
        return found

    do: dict[str, Callable[[Report], PartResult]] = {
        "occlusion": lambda report: parts_occlusion.occlusion_part(target, image, class_id, seed, report),
        "elements": lambda report: parts_occlusion.elements_part(target, image, class_id, seed, report),
        "saliency": lambda _: parts_saliency.saliency_part(target, image, class_id, seed, gradients),
        "segmentation": lambda _: parts_saliency.segmentation_part(target, image, class_id, seed, gradients),
        "margin": lambda _: margin_part(target, image, class_id, against, gradients),
        "curves": lambda _: draw_curves(),
        "inversion": lambda report: inversion_part(
            target, image, in_order(target, layers) if layers else evenly(target), real, seed, report, passes
        ),
        "dream": lambda report: dream_part(target, image, class_id, options.dream, options.zoom, seed, report, passes),
        "hog": lambda _: hog_part(target, image),
        "nearest": lambda report: parts.nearest_part(target, image, real or Path(), report),
    }
    if not target.differentiable:
        first = replace(first, text=[*first.text, without_gradients(target)])
        report(without_gradients(target))
    output.add("", first.pictures)
    sections: dict[str, Section] = {}

    def warn() -> None:
        """Report the warnings that are new."""
        found = warnings_of(target, [*options.warnings, *first.cautions])
        for line in found:
            if line not in explanation.warnings:
                report(f"Warning: {line}.")
        explanation.warnings = found

    def keep(name: str, found: PartResult, missing: Sequence[str]) -> None:
        """Write the page with this part added."""
        sections[name] = _lean(found.section)
        explanation.figures.update(found.figures)
        maps.update(found.maps)
        masks.extend(mask._replace(over=_lean_picture(mask.over)) for mask in found.masks)
        explanation.masks = [mask.found for mask in masks]
        result = answer(target, class_id, explanation.masks) if masks else Answer("", None)
        explanation.answer = result.sentence
        if found.section.fault:
            explanation.faults.setdefault(name, found.section.fault)
        warn()
        of_masks = (picture for mask in found.masks for picture in (mask.where, mask.over))
        output.add(name, (*of_masks, *_pictures(found.section), *found.more))
        explanation.pictures = output.pictures
        explanation.forwards, explanation.backwards = target.queries - before, passes.backwards
        failed = [part for part in explanation.faults if part not in missing]
        head = replace(
            first,
            fault=f"Failed: {', '.join(failed)}." if failed else "",
            cautions=[f"Warning: {line}." for line in explanation.warnings],
            text=[*([f"Not run yet: {', '.join(missing)}."] if missing else []), *first.text],
            lead=result.sentence,
            pictures=[*(mask.where for mask in masks if mask.found is result.mask), *first.pictures],
        )
        versus = [sections[part] for part in _VERSUS if part in sections]
        beside = [Section(versus_title(target, class_id, against, predicted), parts=versus)] if versus else []
        beside += [maps_section(target, class_id, masks)] if masks else []
        foot = [
            " ".join([f"Source: {source}. Target: {target.name}. Seed {seed}.", *notes]),
            f"Passes spent: {explanation.forwards:,} forward, {explanation.backwards:,} backward, of one image each.",
        ]
        shown = [head, *beside, *(section for part, section in sections.items() if part not in _VERSUS)]
        output.write(html_page(title, shown, foot, [path.name for path in output.pictures]))

    warn()
    for step, name in enumerate(chosen, 1):
        report(f"{name} ({step} of {len(chosen)})")
        try:
            found = do[name](prefixed(name, report))
        except KeyboardInterrupt as stop:
            if isinstance(stop, PartInterrupted):
                keep(name, stop.found, chosen[step - 1 :])
            report(f"interrupted; the finished parts are in {folder}" if sections else "interrupted; nothing was written")
            raise
        except Exception as error:  # a failed part must not lose the others
            explanation.faults[name] = fault_of(error)
            report(f"{name} failed: {explanation.faults[name]}")
            found = PartResult(Section(name.capitalize(), fault=f"This part failed: {explanation.faults[name]}"))
        keep(name, found, chosen[step:])
    return explanation


def without_gradients(target: Target) -> str:
    """One line: the parts that a target without gradients cannot have, and the attacks that need none."""
    rest = [name for name in PARTS if name not in _BY_GRADIENT]
    return (
        f"{target.name} has no gradients, so there is no {' or '.join(_BY_GRADIENT)}; possible are {', '.join(rest)} (by "
        "pixels only). Attacks that need no gradients: evofool baseline square, nes or random."
    )


def _chosen(target: Target, options: ExplanationOptions) -> list[str]:
    for name in options.only:
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise TargetError(f'an explanation has no part "{name}"; its parts are {", ".join(PARTS)}{hint}')
    if not target.differentiable and set(options.only) & set(_BY_GRADIENT):
        raise no_gradients(target)
    if options.real_images is None and "nearest" in options.only:
        raise ImageError("the part nearest needs a folder of real images: --real-images DIR")
    if not options.dream and "dream" in options.only:
        raise TargetError(f"the part dream needs a layer to enhance: --dream LAYER, for example {evenly(target, 2)[0]}")
    absent = {*(() if target.differentiable else _BY_GRADIENT)}
    absent |= {name for name, needed in (("nearest", options.real_images), ("dream", options.dream)) if not needed}
    if "curves" in options.only and not set(_MAPS) & ({*options.only} - absent):
        raise TargetError(f"the part curves needs a part with a map, for example --parts {_MAPS[0]},curves")
    return [name for name in PARTS if name not in absent and (not options.only or name in options.only)]


def _check_classes(target: Target, class_id: int, against: int | None) -> None:
    for each in (class_id, *([] if against is None else [against])):
        if not 0 <= each < len(target.labels):
            raise TargetError(f"{target.name}: no class {each}; it has 0 to {len(target.labels) - 1}")
    if class_id == against:
        raise TargetError(
            f"{target.labels[class_id]} (class {class_id}) is the class that is explained, and cannot be compared with "
            "itself; name another class, or leave --against out for the next class"
        )


def _check_layers(target: Target, layers: Sequence[str], dream: str) -> None:
    for layer in filter(None, (*layers, dream)):
        if not target.differentiable:
            raise no_gradients(target)
        if layer not in layer_names(target) and (layer != LOGITS or dream == LOGITS):
            raise unknown_layer(target, layer)


def _pictures(section: Section) -> list[Picture]:
    return [*section.pictures, *(picture for folded in section.folded for picture in folded.pictures)]


def _lean(section: Section) -> Section:
    """The section with pictures of fewer colours, for a page that is quick to load; the files keep all colours."""

    folded = [replace(part, pictures=[*map(_lean_picture, part.pictures)]) for part in section.folded]
    return replace(section, pictures=[*map(_lean_picture, section.pictures)], folded=folded)


def _lean_picture(picture: Picture) -> Picture:
    return replace(picture, png=fewer_colours(picture.png))
