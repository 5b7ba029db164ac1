"""The page of the way from one elite to another, and its animation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evofool.explain.folder import ExplanationFolder
from evofool.explain.morph import Boundary, Morph
from evofool.explain.phrases import counted
from evofool.images import encode_png, resized
from evofool.pages.animation import write_animation
from evofool.pages.html_page import Picture, Plot, Section, html_page
from evofool.pages.morph_curve import morph_curve
from evofool.pages.sheet import confidence_text
from evofool.scores import confidence

ANIMATION = "morph.gif"
_SHOWN = 9  # images of the way
_SIDE = 112  # pixels; smaller images are enlarged in the animation


def morph_page(found: Morph, labels: Sequence[str], classes: tuple[int, int], folder: Path, name: str) -> ExplanationFolder:
    """Write the page and morph.gif, there and back, to a folder. classes: of the two elites. name: of the run."""
    output = ExplanationFolder(folder)
    first, last = (labels[c] for c in classes)
    probabilities = np.asarray(confidence(found.log_odds))
    rows = np.unique(np.linspace(0, len(found.shares) - 1, _SHOWN).round().astype(int))
    way = [
        Picture(
            f"{found.shares[k]:.0%} of the way",
            encode_png(found.images[k]),
            f"{labels[found.predicted[k]]}, {confidence_text(float(probabilities[k, found.predicted[k]]))}",
            side=_SIDE,
        )
        for k in rows.tolist()
    ]
    curves = {labels[c]: probabilities[:, c] for c in dict.fromkeys([*classes, *found.predicted.tolist()])}
    drawn = morph_curve(found.shares, curves, shares_of(found))
    plot = Plot("Of both elites' classes, and of those predicted between", drawn)
    sections = [
        Section(
            "",
            [
                "Images of the codes on the straight line between the codes of two elites. The target was asked about "
                f"{found.queries} images: {len(found.shares)} along the way, and those that bracket each change."
            ],
            lead=_lead(found, labels),
            pictures=way,
        ),
        Section("Confidences on the way", plots=[plot]),
    ]
    if found.boundaries:
        pairs = [picture for boundary in found.boundaries for picture in _pair(boundary, labels)]
        text = "The two nearest images found on both sides of each change of the predicted class."
        sections.append(Section("At the boundaries", [text], pictures=pairs))
    for section in sections:
        output.add("", section.pictures)
    output.write(html_page(f"From {first} to {last}, in {name}", sections, (), [path.name for path in output.pictures]))
    frames = [*found.images, *found.images[-2:0:-1]]
    write_animation(folder / ANIMATION, map(_large, frames))
    return output


def shares_of(found: Morph) -> list[float]:
    return [boundary.share for boundary in found.boundaries]


def _lead(found: Morph, labels: Sequence[str]) -> str:
    if not found.boundaries:
        return f"The predicted class is {labels[found.predicted[0]]} all the way."
    changes = [f"at {b.share:.1%} from {labels[b.classes[0]]} to {labels[b.classes[1]]}" for b in found.boundaries]
    times = {1: "once", 2: "twice"}.get(len(changes), f"{len(changes)} times")
    return f"The predicted class changes {times}: {'; '.join(changes)}."


def _pair(boundary: Boundary, labels: Sequence[str]) -> list[Picture]:
    differ = np.abs(boundary.images[0].astype(int) - boundary.images[1])
    values, levels = counted(int(np.count_nonzero(differ)), "value"), counted(int(differ.max()), "grey level")
    caption = f"the two differ in {values}, by {levels} at most"
    probabilities = np.asarray(confidence(boundary.log_odds))
    return [
        Picture(
            f"{labels[c]} ({boundary.share:.1%}, {side})",
            encode_png(image),
            f"{confidence_text(float(p[c]))}; {caption}",
            side=_SIDE,
        )
        for side, c, image, p in zip(("before", "after"), boundary.classes, boundary.images, probabilities, strict=True)
    ]


def _large(image: np.ndarray) -> np.ndarray:
    channels, height, width = image.shape
    factor = max(1, round(2 * _SIDE / max(height, width)))
    return image if factor == 1 else resized(image, (channels, factor * height, factor * width))
