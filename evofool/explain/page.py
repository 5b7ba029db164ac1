"""An explanation of one image, part by part, written to a folder as a self-contained page and its pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evofool.explain import parts, parts_occlusion, parts_saliency
from evofool.explain.answer import Answer, CheckedMask, answer
from evofool.explain.captum_maps import INSTALL, available
from evofool.explain.cautions import warnings_of
from evofool.explain.curves import Curves
from evofool.explain.folder import ExplanationFolder
from evofool.explain.layers import evenly, in_order
from evofool.explain.options import BY_CAPTUM, ENOUGH, VERSUS, ExplanationOptions, checked_parts, without_gradients
from evofool.explain.part_result import PartInterrupted, PartMask, PartResult, PassCounter, Report, fault_of, prefixed
from evofool.explain.parts_captum import grad_cam_part, integrated_part
from evofool.explain.parts_curves import curves_part
from evofool.explain.parts_evidence import evidence_part
from evofool.explain.parts_hog import hog_part
from evofool.explain.parts_layers import dream_part, inversion_part
from evofool.explain.parts_margin import margin_part, versus_section
from evofool.explain.parts_masks import maps_section
from evofool.explain.parts_rise import rise_part
from evofool.explain.parts_sufficient import sufficient_part
from evofool.images import fewer_colours
from evofool.pages.html_page import Picture, Section, html_page
from evofool.targets import Target


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
    The page is written after the first part and again after every other part, so that an interrupt leaves the finished
    parts; but an earlier page that has all its parts stays until the new one has. An interrupt is reported and raised again.
    A part that fails is named on the page and in `faults`; the other parts go on. The page begins with the answer, from the
    masks of the parts that are finished.
    """
    options = options or ExplanationOptions()
    real, layers, seed = options.real_images, options.layers, options.seed
    chosen = checked_parts(target, class_id, options)
    output, passes = ExplanationFolder(folder), PassCounter()
    report(f"Explaining {source} as {target.labels[class_id]} (class {class_id}) of {target.name}")
    for line in notes:
        report(line)
    before = target.queries
    title, first, predicted, against, apart = parts.overview(target, image, class_id, options.against)
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
        "evidence": lambda _: evidence_part(target, image, class_id, against, real),
        "grad-cam": lambda _: grad_cam_part(target, image, class_id, seed, passes),
        "rise": lambda report: rise_part(target, image, class_id, seed, report),
        "integrated": lambda _: integrated_part(target, image, class_id, against, passes),
        "sufficient": lambda report: sufficient_part(target, image, class_id, maps, seed, report, passes),
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
    if target.network is not None and target.network.no_layers and not options.only:
        line = f"Not run: inversion needs layers, and they cannot be read: {target.network.no_layers}"
        first = replace(first, text=[*first.text, line])
        report(line)
    if target.differentiable and not options.only and not available():
        line = f"Not run: {' and '.join(BY_CAPTUM)} need captum, which is not installed: {INSTALL}"
        first = replace(first, text=[*first.text, line])
        report(line)
    output.add("", first.pictures)
    first = _lean(first)
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
        masks.extend(mask._replace(where=_lean_picture(mask.where), over=_lean_picture(mask.over)) for mask in found.masks)
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
        versus = [sections[part] for part in VERSUS if part in sections]
        beside = [versus_section(target, class_id, against, predicted, apart, versus)] if versus else []
        beside += [sections[ENOUGH]] if ENOUGH in sections else []
        beside += [maps_section(target, class_id, masks)] if masks else []
        foot = [
            " ".join([f"Source: {source}. Target: {target.name}. Seed {seed}.", *notes]),
            f"Passes spent: {explanation.forwards:,} forward, {explanation.backwards:,} backward, of one image each.",
        ]
        shown = [head, *beside, *(section for part, section in sections.items() if part not in (*VERSUS, ENOUGH))]
        names = [path.name for path in output.pictures]
        output.write(html_page(title, shown, foot, names, unfinished=bool(missing)))

    warn()
    for step, name in enumerate(chosen, 1):
        report(f"{name} ({step} of {len(chosen)})")
        try:
            found = do[name](prefixed(name, report))
        except KeyboardInterrupt as stop:
            if isinstance(stop, PartInterrupted):
                keep(name, stop.found, chosen[step - 1 :])
            if output.keeps:
                report(f"interrupted; the earlier explanation in {folder} is complete and stays")
            else:
                report(
                    f"interrupted; the finished parts are in {folder}" if sections else "interrupted; nothing was written"
                )
            raise
        except Exception as error:  # a failed part must not lose the others
            explanation.faults[name] = fault_of(error)
            report(f"{name} failed: {explanation.faults[name]}")
            found = PartResult(Section(name.capitalize(), fault=f"This part failed: {explanation.faults[name]}"))
        keep(name, found, chosen[step:])
    return explanation


def _pictures(section: Section) -> list[Picture]:
    inside = [picture for part in section.parts for picture in _pictures(part)]
    return [*section.pictures, *(picture for folded in section.folded for picture in folded.pictures), *inside]


def _lean(section: Section) -> Section:
    """The section with pictures of fewer colours, for a page that is quick to load; the files keep all colours."""
    folded = [replace(part, pictures=[*map(_lean_picture, part.pictures)]) for part in section.folded]
    pictures, inside = [*map(_lean_picture, section.pictures)], [*map(_lean, section.parts)]
    return replace(section, pictures=pictures, folded=folded, parts=inside)


def _lean_picture(picture: Picture) -> Picture:
    return replace(picture, png=fewer_colours(picture.png))
