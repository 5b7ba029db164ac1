"""The page of a layer's inverse by a decoder, beside a search's; of its code changed; and of the way to another image."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evofool.explain.folder import ExplanationFolder
from evofool.explain.inversion import invert as search
from evofool.explain.part_result import Report, counting
from evofool.explain.phrases import confidence_text, counted, three_decimals
from evofool.explain.upconv.codes import between, binarised, dropped_out
from evofool.explain.upconv.inversion import Inverses, codes_of, compared, invert
from evofool.explain.upconv.model import LayerInverse
from evofool.images import encode_png, quantise, resized
from evofool.pages.html_page import Picture, Section, Table, html_page
from evofool.targets import Target

SOURCE = "Dosovitskiy & Brox 2016; the search is Mahendran & Vedaldi's, 2014."
_EXPLAINED = (
    "A decoder was trained to draw a picture from the layer's output alone. Its inverse is what pictures with such an "
    "output look like on average: what the layer dropped is blurred. The search looks for an image with this output, by "
    "gradients."
)
_UNDER = (
    "Errors are distances to the image, over the mean distance between two pictures that the decoder was not trained on; "
    "the image error of pixels at the decoder's size, the feature error of the layer's output. Milliseconds are of one core."
)
_CHANGED = (
    "Binarised: only the signs of the layer's values are kept, all of one size. Dropped out: half of the values, drawn at "
    "random, are 0. Both keep the norm. Where the inverse hardly changes, the layer does not hold the picture in the exact "
    "values (the paper's figures 5 to 7)."
)
_STEPS = 7


class Subject(NamedTuple):
    """An image, uint8 (C, H, W) of the target's shape, the name of its file, and how it was changed to fit."""

    image: np.ndarray
    name: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class InversePageOptions:
    """search: whether to invert by search too. perturb: whether changed codes are shown. towards: another image, to whose
    code the codes on a straight line are drawn. seed: of the search and the dropout. notes: further lines at the foot.
    """

    search: bool = True
    perturb: bool = True
    towards: Subject | None = None
    seed: int = 0
    notes: Sequence[str] = ()


class InversePage(NamedTuple):
    """found: the inverses of the image by method, "decoder" first. changed: of changed codes. steps: the classes along the
    way to another image. output: what was written.
    """

    found: dict[str, Inverses]
    changed: dict[str, Inverses]
    steps: list[int]
    output: ExplanationFolder


def inverse_page(
    target: Target,
    subject: Subject,
    model: LayerInverse,
    folder: Path,
    *,
    options: InversePageOptions | None = None,
    report: Report = lambda _event: None,
) -> InversePage:
    """Invert the layer for the image and write the page. Ctrl-C during the search leaves the search out."""
    options = options or InversePageOptions()
    output = ExplanationFolder(folder)
    image = subject.image[None]
    found = {"decoder": invert(target, image, model)}
    notes = [*subject.notes, *(options.towards.notes if options.towards else ()), *options.notes, learned_text(model)]
    if options.search and (by_search := _searched(target, image, model, options.seed, report)) is not None:
        found["search"] = by_search
    shown = [
        Picture("Image", encode_png(subject.image), f"{image.shape[3]} x {image.shape[2]} pixels", width=224),
        *inverse_pictures(target, found),
    ]
    sections = [Section("", [_EXPLAINED, held_out_text(model)], SOURCE, shown, [inverse_table(target, found)])]
    changed = _changed(target, image, model, options.seed) if options.perturb else {}
    if changed:
        pictures = inverse_pictures(target, {"unchanged": found["decoder"], **changed})
        table = inverse_table(target, {"unchanged": found["decoder"], **changed}, timed=False)
        sections.append(Section("Changed codes", [_CHANGED], pictures=pictures, tables=[table]))
    steps: list[int] = []
    if options.towards is not None:
        section, steps = _way(target, subject, options.towards, model)
        sections.append(section)
    for part in sections:
        output.add(part.title, part.pictures)
    title = f"What {model.layer} of {target.name} keeps of {subject.name}"
    output.write(html_page(title, sections, notes, [path.name for path in output.pictures]))
    return InversePage(found, changed, steps, output)


def inverse_pictures(target: Target, found: Mapping[str, Inverses]) -> list[Picture]:
    """The first inverse of each method, with its class."""
    names = {"decoder": "Inverse by the decoder", "search": "Inverse by search"}
    return [
        Picture(
            names.get(method, method.capitalize()),
            encode_png(one.pictures[0]),
            f"image error {one.image_errors[0]:.2f}; {target.labels[one.classes[0]]}",
            width=224,
        )
        for method, one in found.items()
    ]


def inverse_table(target: Target, found: Mapping[str, Inverses], timed: bool = True) -> Table:
    """A row for the first inverse of each method."""
    rows = []
    for method, one in found.items():
        figures = [three_decimals(one.image_errors[0]), three_decimals(one.code_errors[0])]
        called = [target.labels[one.classes[0]], confidence_text(one.odds[0])]
        rows.append([method, *figures, *called, *([f"{1000 * one.seconds:.1f}"] if timed else [])])
    heads = ["inverse", "image error", "feature error", "class", "confidence", *(["ms"] if timed else [])]
    return Table(heads, rows, under=_UNDER if timed else "")


def held_out_text(model: LayerInverse) -> str:
    """The decoder's error on held-out pictures, beside those of what needs no decoder."""
    pairs = f"over {model.held_out} pictures that were held out"
    return (
        f"The decoder's mean image error {pairs} is {model.error:.3f}; a ridge regression from the same outputs has "
        f"{model.of_ridge:.3f}, and the mean picture, whatever the output, {model.of_mean:.3f}."
    )


def learned_text(model: LayerInverse) -> str:
    """What a decoder was learned from, as a line."""
    shape = model.decoder.layout.image
    weights = sum(parameter.numel() for parameter in model.decoder.parameters())
    crops = "" if model.crops == 1 else f", {model.crops} crops of each,"
    ended = f" (of {model.of}: interrupted)" if model.epochs < model.of else ""
    return (
        f"Decoder: {weights:,} weights, images of {shape[2]} x {shape[1]} pixels, learned from "
        f"{counted(model.pictures, 'picture')}{crops} in {counted(model.epochs, 'epoch')}{ended}."
    )


def _searched(target: Target, image: np.ndarray, model: LayerInverse, seed: int, report: Report) -> Inverses | None:
    count = counting(report, "steps", f"{model.layer}: search")

    def tick(iteration: int, of: int) -> bool:
        count(iteration + 1, of)
        return False

    began = time.process_time()
    try:
        pictures = search(target, image, model.layer, seed=seed, tick=tick).images
    except KeyboardInterrupt:
        report("Interrupted: the page has no inverse by search")
        return None
    return compared(target, image, pictures, model, time.process_time() - began)


def _changed(target: Target, image: np.ndarray, model: LayerInverse, seed: int) -> dict[str, Inverses]:
    codes = codes_of(target, image, model)
    found = {"binarised": binarised(codes), "half dropped out": dropped_out(codes, seed)}
    return {name: compared(target, image, quantise(model.draw(rows)), model, 0.0) for name, rows in found.items()}


def _way(target: Target, one: Subject, other: Subject, model: LayerInverse) -> tuple[Section, list[int]]:
    codes = codes_of(target, np.stack([one.image, other.image]), model)
    pictures = quantise(model.draw(between(codes[0], codes[1], _STEPS)))
    classes = target.logits(np.stack([resized(picture, target.shape) for picture in pictures])).argmax(1).tolist()
    text = (
        f"Inverses of codes on the straight line from that of {one.name} to that of {other.name}, and the class of each. "
        "Where pictures between two others look like neither of them faded into the other, the layer holds more than pixels."
    )
    shown = [
        Picture(f"{k} of {_STEPS - 1}", encode_png(picture), target.labels[c], side=128)
        for k, (picture, c) in enumerate(zip(pictures, classes, strict=True))
    ]
    return Section(f"Towards {other.name}", [text], pictures=shown), classes
