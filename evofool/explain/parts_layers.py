"""The parts of an explanation that look into layers, as sections of its page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evofool.errors import TargetError
from evofool.explain.dream import dream, energies
from evofool.explain.inversion import Inversion, invert
from evofool.explain.nearest import some_real
from evofool.explain.part_result import PartInterrupted, PartResult, PassCounter, Say, fault_of
from evofool.explain.phrases import number, scored, sure
from evofool.images import encode_png
from evofool.pages.html_page import Picture, Section, Table
from evofool.scores import log_odds
from evofool.targets import Target

_REFERENCE = 16  # real images whose distances from one another an inversion's error is compared with
_OCTAVES, _ITERATIONS = 4, 10
_FRAMES = 12  # of a dream, on the page
_FAR = 0.2  # of the range, root mean square: from here on an inversion is not the image again


def inversion_part(
    target: Target,
    image: np.ndarray,
    layers: Sequence[str],
    real: Path | None,
    seed: int,
    say: Say,
    passes: PassCounter,
    steps: int = 200,
) -> PartResult:
    """What each of the layers, the deepest last, keeps of the image: `steps` forward and backward passes up to each.

    A layer that fails is a row of the table, unless all do; Ctrl-C is Interrupted, with the layers that are done.
    """
    reference = None if real is None else some_real(target, real, _REFERENCE)
    done: list[Inversion] = []
    failed: dict[str, Exception] = {}
    for k, layer in enumerate(layers):
        try:
            tick = passes.ticking(say, layer)
            done.append(invert(target, image[None], layer, steps=steps, reference=reference, seed=seed, tick=tick))
        except KeyboardInterrupt:
            if not done:
                raise
            raise PartInterrupted(_inverted(target, image, done, failed, steps, layers[k:])) from None
        except Exception as error:  # whatever a layer stumbles over, the others are kept
            failed[layer] = error
            say(f"{layer} failed: {fault_of(error)}")
    if not done:
        raise next(iter(failed.values()))
    return _inverted(target, image, done, failed, steps, [])


def _inverted(
    target: Target,
    image: np.ndarray,
    done: Sequence[Inversion],
    failed: dict[str, Exception],
    steps: int,
    missing: Sequence[str],
) -> PartResult:
    called = target.labels[int(done[0].classes[0])]
    pairs = done[0].by == "pairs"
    pictures, rows = [], []
    for one in done:
        error = f"{one.unsquared[0]:.3g}" + (f" ({one.squared[0]:.3g} squared)" if pairs else "")
        kept = "kept" if one.kept[0] else "not kept"
        pictures.append(Picture(f"From {one.layer}", encode_png(one.images[0]), f"error {error}; {called} {kept}"))
        errors = [one.squared[0], one.unsquared[0], one.relative[0]] if pairs else [one.relative[0]]
        answers = ["yes" if one.kept[0] else "no", number(one.log_odds[0]), sure(one.log_odds[0])]
        rows.append([one.layer, *(f"{error:.4f}" for error in errors), *answers])
    of_errors = ["error, squared", "error, unsquared", "relative to norm"] if pairs else ["error"]
    heads = ["layer", *of_errors, "class kept", f"log-odds of {called}", "confidence"]
    rows += [[layer, "failed", *[""] * (len(heads) - 2)] for layer in failed]
    what = (
        "What a layer keeps of the image: from faint noise, another image is looked for that the layer answers alike. What "
        "differs from the first was thrown away by the layer, smoothed away by the search, or not found in "
        f"{steps} steps. The class is kept if the target calls the inversion {called}, as it calls the image."
    )
    how = (
        "Errors are distances of the two answers over the distance of pairs of real images, both squared (as the authors' "
        "code has it) and not (as their text has it); and over the norm of the image's own answer."
        if pairs
        else "The error is the distance of the two answers over the norm of the image's, as there are no real images to "
        "measure it by (--real-images DIR)."
    )
    faults = [f"Layer {layer} failed: {fault_of(error)}" for layer, error in failed.items()]
    if missing:
        faults.append(f"Interrupted before these layers were done: {', '.join(missing)}")
    notes = [f"{one.layer}: {note}" for one in done for note in one.notes]
    text = [_result(target, done[-1], image, called), what, how, *notes]
    table = Table(heads, rows)
    return PartResult(Section("Inversion", text, "Mahendran & Vedaldi 2014.", pictures, [table], fault="; ".join(faults)))


def dream_part(
    target: Target, image: np.ndarray, class_id: int, layer: str, zoom: int, seed: int, say: Say, passes: PassCounter
) -> PartResult:
    """What a layer sees in the image, enhanced; 1 + zoom frames of forty forward and backward passes each."""
    frames, octaves = _dreamt(target, image, layer, zoom, seed, say, passes)
    before, after = energies(target, np.stack([image, frames[0]]), layer)
    odds = log_odds(target.logits(np.stack(frames)))
    label = target.labels[class_id]
    sides = f"{octaves} sizes" if octaves > 1 else "its own size alone, as the layer takes no other"
    called = target.labels[int(odds[0].argmax())]
    text = [
        f"What {layer} sees in the image, enhanced until people see it too: the image is climbed to more of whatever the "
        f"layer answers to, at {sides}. Its energy, half the square of its answer, rises {after / max(before, 1e-12):.2f}"
        "-fold.",
        f"The dream is called {called}; {label} has {scored(odds[0, class_id])}.",
    ]
    if zoom:
        text.append(f"Each of the {zoom} further frames is dreamt from the one before, drawn larger. All are in the folder.")
    pictures = [
        Picture(f"Frame {k:03d}", encode_png(frame), f"{label}: {scored(odds[k, class_id])}")
        for k, frame in enumerate(frames)
    ]
    shown = {int(k) for k in np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round()}
    section = Section("Dream", text, "Mordvintsev, Olah & Tyka 2015.", [p for k, p in enumerate(pictures) if k in shown])
    return PartResult(section, [p for k, p in enumerate(pictures) if k not in shown])


def _dreamt(
    target: Target, image: np.ndarray, layer: str, zoom: int, seed: int, say: Say, passes: PassCounter
) -> tuple[list[np.ndarray], int]:
    """The frames, and at how many sizes: four, or as many as the layer takes."""

    def at(octaves: int) -> list[np.ndarray]:
        tick = passes.ticking(say, layer)
        return dream(target, image, layer, octaves=octaves, iterations=_ITERATIONS, zoom=zoom, seed=seed, tick=tick)

    for octaves in range(_OCTAVES, 1, -1):
        try:
            return at(octaves), octaves
        except TargetError:  # raised before the first step: the layer does not take the smallest of the sizes
            continue
    return at(1), 1


def _result(target: Target, deepest: Inversion, image: np.ndarray, label: str) -> str:
    """Whether the deepest inversion is called as the image is, and whether it looks as the image does."""
    which = f"The inversion of {deepest.layer}, the deepest of the layers,"
    if not deepest.kept[0]:
        other = target.labels[int(log_odds(target.logits(deepest.images))[0].argmax())]
        return f"{which} is called {other}, not {label}."
    apart = float(np.sqrt(np.mean((deepest.images[0] / 255.0 - image / 255.0) ** 2)))
    odds = deepest.log_odds[0]
    called = f"{which} is called {label} too (log-odds {number(odds)}, confidence {sure(odds)})"
    far = f"(root mean square {apart:.2f} of the range)"
    if apart < _FAR:
        return f"{called}; its pixels are near the image's {far}."
    return (
        f"{called}, though its pixels are far from the image's {far}: a fooling image itself, if you see no {label} in it."
    )
