"""The parts of an explanation that look into layers, as sections of its page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evofool.errors import TargetError
from evofool.explain.dream import dream, energies
from evofool.explain.inversion import Inversion, invert
from evofool.explain.nearest import some_real
from evofool.explain.parts import Found, Say, sure
from evofool.images import encode_png
from evofool.pages.explanation import Picture, Section, Table
from evofool.scores import log_odds
from evofool.targets import Target

_REFERENCE = 16  # real images whose distances from one another an inversion's error is compared with
_OCTAVES, _ITERATIONS = 4, 10
_FRAMES = 12  # of a dream, on the page
_FAR = 0.2  # of the range, root mean square: from here on an inversion is not the image again
_TOLD = 100  # steps between two lines of progress


def inversion_part(
    target: Target, image: np.ndarray, layers: Sequence[str], real: Path | None, say: Say, *, steps: int = 200, seed: int = 0
) -> Found:
    """What each layer keeps of the image. `steps` forward and backward passes, up to the layer, for each."""
    reference = None if real is None else some_real(target, real, _REFERENCE)
    done: list[Inversion] = []
    for layer in layers:

        def tell(iteration: int, of: int, layer: str = layer) -> bool:
            if iteration % _TOLD == 0:
                say(f"{layer}, step {iteration} of {of}")
            return False

        done.append(invert(target, image[None], layer, steps=steps, reference=reference, seed=seed, tick=tell))
    called = int(done[0].classes[0])
    pictures, rows = [], []
    for one in done:
        words = "class kept" if one.kept[0] else "class not kept"
        caption = f"error {one.unsquared[0]:.3g} ({one.squared[0]:.3g} squared); {words}"
        pictures.append(Picture(f"From {one.layer}", encode_png(one.images[0]), caption))
        errors = [f"{one.squared[0]:.4f}", f"{one.unsquared[0]:.4f}", f"{one.relative[0]:.4f}"]
        rows.append([one.layer, *errors, "yes" if one.kept[0] else "no", sure(one.log_odds[0]), f"{one.log_odds[0]:.3f}"])
    by = "the distance of pairs of real images" if done[0].by == "pairs" else "the norm of the image's features"
    label = target.labels[called]
    heads = [
        "layer",
        "error, squared",
        "error, unsquared",
        "relative to norm",
        "class kept",
        f"confidence in {label}",
        "log-odds",
    ]
    what = (
        "What a layer keeps of the image: from faint noise, another image is looked for that the layer answers alike. What "
        "it lacks of the first one, the layer has thrown away. Errors are distances of the two answers over "
        f"{by}, both squared (as the authors' code has it) and not (as their text has it). The class is kept if the target "
        f"calls the inversion {label}, as it calls the image."
    )
    return Found(
        Section(
            "Inversion",
            [
                what,
                _result(target, done, image, label),
                *(note for one in done for note in one.notes),
            ],
            "Mahendran & Vedaldi 2014.",
            pictures,
            [Table(heads, rows)],
        ),
        sum(one.backwards for one in done),
    )


def dream_part(
    target: Target, image: np.ndarray, class_id: int, layer: str, say: Say, *, zoom: int = 0, seed: int = 0
) -> Found:
    """What a layer sees in the image, enhanced; 1 + zoom frames of forty forward and backward passes each."""
    frames, octaves = _dreamt(target, image, layer, zoom, seed, say)
    before, after = energies(target, np.stack([image, frames[0]]), layer)
    odds = log_odds(target.logits(np.stack(frames)))
    sides = f"{octaves} sizes" if octaves > 1 else "its own size alone, as the layer takes no other"
    text = [
        f"What {layer} sees in the image, enhanced until people see it too: the image is climbed to more of whatever the "
        f"layer answers to, at {sides}. Its energy, half the square of its answer, rises {after / max(before, 1e-12):.2f}"
        "-fold.",
        f"The dream is called {target.labels[int(odds[0].argmax())]}; confidence in {target.labels[class_id]}: "
        f"{sure(odds[0, class_id])}.",
    ]
    if zoom:
        text.append(f"Each of the {zoom} further frames is dreamt from the one before, drawn larger. All are in the folder.")
    pictures = [
        Picture(f"Frame {k:03d}", encode_png(frame), f"confidence {sure(odds[k, class_id])}")
        for k, frame in enumerate(frames)
    ]
    shown = {int(k) for k in np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round()}
    section = Section("Dream", text, "Mordvintsev, Olah & Tyka 2015.", [p for k, p in enumerate(pictures) if k in shown])
    more = [p for k, p in enumerate(pictures) if k not in shown]
    return Found(section, len(frames) * octaves * _ITERATIONS, more)


def _dreamt(target: Target, image: np.ndarray, layer: str, zoom: int, seed: int, say: Say) -> tuple[list[np.ndarray], int]:
    """The frames, and at how many sizes: four, or as many as the layer takes."""

    def tell(iteration: int, of: int) -> bool:
        if iteration % _TOLD == 0:
            say(f"{layer}, step {iteration} of {of}")
        return False

    for octaves in range(_OCTAVES, 1, -1):
        try:
            return dream(
                target, image, layer, octaves=octaves, iterations=_ITERATIONS, zoom=zoom, seed=seed, tick=tell
            ), octaves
        except TargetError:  # raised before the first step: the layer does not take the smallest of the sizes
            continue
    return dream(target, image, layer, octaves=1, iterations=_ITERATIONS, zoom=zoom, seed=seed, tick=tell), 1


def _result(target: Target, done: Sequence[Inversion], image: np.ndarray, label: str) -> str:
    """Whether the deepest inversion is called as the image is."""
    deepest = done[-1]
    if not deepest.kept[0]:
        other = target.labels[int(log_odds(target.logits(deepest.images))[0].argmax())]
        return f"The inversion of {deepest.layer}, the deepest of them, is called {other}, not {label}."
    apart = float(np.sqrt(np.mean((deepest.images[0] / 255.0 - image / 255.0) ** 2)))
    said = (
        f"The inversion of {deepest.layer}, the deepest of them, is called {label} too, with a confidence of "
        f"{sure(deepest.log_odds[0])}; its pixels differ from the image's by {apart:.2f} of the range (root mean square)"
    )
    return f"{said}: deep inversions are themselves fooling images." if apart >= _FAR else f"{said}."
