"""Parts of an explanation that use a network's layers, as sections of its page: inversion and dream."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evofool.explain.cautions import CLOSE
from evofool.explain.dream import DreamProgress, DreamSettings, dream, energies
from evofool.explain.inversion import Inversion, invert
from evofool.explain.nearest import some_real
from evofool.explain.part_result import PartInterrupted, PartResult, PassCounter, Report, counting, fault_of
from evofool.explain.parts_upconv import Searched, decoders_section
from evofool.explain.phrases import confidence_text, scored_text, three_decimals
from evofool.images import encode_png
from evofool.pages.html_page import Picture, Section, Table
from evofool.scores import log_odds
from evofool.targets import Target

_REFERENCE = 16  # real images whose pairwise distances are the unit of an inversion's error
_OCTAVES, _ITERATIONS = 4, 10
_FRAMES = 12  # of a dream that are shown on the page
_FAR = 0.2  # root mean square difference, of the range; below it an inversion is near the image


def inversion_part(
    target: Target,
    image: np.ndarray,
    layers: Sequence[str],
    real: Path | None,
    seed: int,
    report: Report,
    passes: PassCounter,
) -> PartResult:
    """Inversions of the layers, the deepest last: some hundred forward and backward passes up to each layer.

    A layer that fails is a row of the table, unless all fail. Ctrl-C raises PartInterrupted with the finished layers.
    """
    reference = None if real is None else some_real(target, real, _REFERENCE)
    done: list[Inversion] = []
    failed: dict[str, Exception] = {}
    for k, layer in enumerate(layers):
        try:
            tick = passes.ticking(report, layer)
            done.append(invert(target, image[None], layer, reference=reference, seed=seed, tick=tick))
        except KeyboardInterrupt:
            if not done:
                raise
            raise PartInterrupted(_inverted(target, image, done, failed, missing=layers[k:])) from None
        except Exception as error:  # a failed layer must not lose the others
            failed[layer] = error
            report(f"{layer} failed: {fault_of(error)}")
    if not done:
        raise next(iter(failed.values()))
    searched = [Searched(inversion.layer, inversion.images[0]) for inversion in done]
    try:
        decoded, faults = decoders_section(target, image, searched)
    except KeyboardInterrupt:
        raise PartInterrupted(_inverted(target, image, done, failed, missing=["the inverses by decoders"])) from None
    for fault in faults:
        report(fault)
    return _inverted(target, image, done, failed, decoded, faults)


def _inverted(
    target: Target,
    image: np.ndarray,
    done: Sequence[Inversion],
    failed: dict[str, Exception],
    decoded: Section | None = None,
    of_decoders: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> PartResult:
    called = target.labels[int(done[0].classes[0])]
    pairs = done[0].by == "pairs"
    pictures, rows = [], []
    for inversion in done:
        error = f"{inversion.unsquared[0]:.3g}" + (f" ({inversion.squared[0]:.3g} squared)" if pairs else "")
        kept = {"yes": "kept", "hardly": "hardly kept", "no": "not kept"}[_kept(inversion)]
        pictures.append(
            Picture(f"From {inversion.layer}", encode_png(inversion.images[0]), f"error {error}; {called} {kept}")
        )
        errors = [inversion.squared[0], inversion.unsquared[0], inversion.relative[0]] if pairs else [inversion.relative[0]]
        answers = [
            _kept(inversion),
            three_decimals(inversion.log_odds[0]),
            confidence_text(inversion.log_odds[0]),
            three_decimals(inversion.margins[0]),
            str(inversion.steps),
        ]
        rows.append([inversion.layer, *(f"{error:.4f}" for error in errors), *answers])
    of_errors = ["error, squared", "error, unsquared", "relative to norm"] if pairs else ["error"]
    heads = ["layer", *of_errors, "class kept", f"log-odds of {called}", "confidence", "margin", "steps"]
    rows += [[layer, "failed", *[""] * (len(heads) - 2)] for layer in failed]
    description = (
        "What a layer keeps of the image: starting from faint noise, an image is searched for that has the same features at "
        "the layer. Differences to the given image were dropped by the layer, smoothed by the search, or not removed in its "
        f"steps. The class is kept if the target classifies the inversion as {called} too, and hardly kept if another class "
        f"then has more than {1 / CLOSE:.0%} of its confidence."
    )
    how = (
        "Errors are distances between the two images' features, divided by the mean distance between pairs of real images, "
        "both squared (as in the authors' code) and not (as in their text), or divided by the norm of the image's features."
        if pairs
        else "The error is the distance between the two images' features, divided by the norm of the image's features. With "
        "real images (--real-images DIR) it is also compared with their distances."
    )
    faults = [f"Layer {layer} failed: {fault_of(error)}" for layer, error in failed.items()]
    faults += of_decoders
    if missing:
        faults.append(f"Interrupted before these were finished: {', '.join(missing)}")
    notes = [f"{inversion.layer}: {note}" for inversion in done for note in inversion.notes]
    text = [_result(target, done[-1], image, called), description, how, *notes]
    section = Section(
        "Inversion",
        text,
        "Mahendran & Vedaldi 2014.",
        pictures,
        [Table(heads, rows)],
        fault="; ".join(faults),
        parts=[] if decoded is None else [decoded],
    )
    return PartResult(section)


def dream_part(
    target: Target, image: np.ndarray, class_id: int, layer: str, zoom: int, seed: int, report: Report, passes: PassCounter
) -> PartResult:
    """The image with what a layer responds to enhanced: 1 + zoom frames of forty forward and backward passes each."""
    before, count = passes.backwards, counting(report, "steps", layer)

    def on_progress(progress: DreamProgress) -> bool:
        passes.backwards = before + progress.passes
        count(progress.passes, progress.of)
        return False

    settings = DreamSettings(octaves=_OCTAVES, iterations=_ITERATIONS, zoom=zoom)
    frames = list(dream(target, image, layer, settings=settings, seed=seed, on_progress=on_progress))
    energy, after = energies(target, np.stack([image, frames[0]]), layer)
    odds = log_odds(target.logits(np.stack(frames)), target.multilabel)
    label = target.labels[class_id]
    called = target.labels[int(odds[0].argmax())]
    text = [
        f"The image, changed by gradient ascent to increase the response of {layer}, at {_OCTAVES} sizes. The energy of the "
        f"layer, half the squared norm of its output, rises {after / max(energy, 1e-12):.2f}-fold.",
        f"The target classifies the dream as {called}; {label} has {scored_text(odds[0, class_id])}.",
    ]
    if zoom:
        text.append(f"Each of the {zoom} further frames starts from the one before, enlarged. All frames are in the folder.")
    pictures = [
        Picture(f"Frame {k:03d}", encode_png(frame), f"{label}: {scored_text(odds[k, class_id])}")
        for k, frame in enumerate(frames)
    ]
    shown = {int(k) for k in np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round()}
    section = Section("Dream", text, "Mordvintsev, Olah & Tyka 2015.", [p for k, p in enumerate(pictures) if k in shown])
    return PartResult(section, [p for k, p in enumerate(pictures) if k not in shown])


def _kept(inversion: Inversion) -> str:
    """Whether the inversion has the image's class: yes, hardly (the next class is close, as in cautions), or no."""
    if not inversion.kept[0]:
        return "no"
    return "yes" if inversion.margins[0] >= np.log(CLOSE) else "hardly"


def _result(target: Target, deepest: Inversion, image: np.ndarray, label: str) -> str:
    """Whether the deepest inversion has the image's class, and whether its pixels are near the image's."""
    start = f"The inversion of {deepest.layer}, the deepest of the layers,"
    if not deepest.kept[0]:
        other = target.labels[int(target.logits(deepest.images)[0].argmax())]
        return f"{start} is classified as {other}, not as {label}."
    apart = float(np.sqrt(np.mean((deepest.images[0] / 255.0 - image / 255.0) ** 2)))
    odds = deepest.log_odds[0]
    called = f"{start} is classified as {label} too (log-odds {three_decimals(odds)}, confidence {confidence_text(odds)})"
    far = f"(root mean square {apart:.2f} of the range)"
    if apart < _FAR:
        return f"{called}; its pixels are near the image's {far}."
    return (
        f"{called}, but its pixels are far from the image's {far}. If you see no {label} in it, it is a fooling image too."
    )
