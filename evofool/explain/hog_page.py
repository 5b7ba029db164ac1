"""The page of what HOG leaves of an image, and what both pages about HOG say of a model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from evofool.explain.folder import ExplanationFolder
from evofool.explain.hog import CELL, ORIENTATIONS
from evofool.explain.hog_image import HogInverse, inverse
from evofool.explain.hog_model import HogModel
from evofool.explain.parts_hog import EXPLAINED, SOURCE, likeness_table, pictures
from evofool.explain.phrases import counted
from evofool.images import encode_png
from evofool.pages.html_page import Picture, Section, html_page


def hog_page(
    image: np.ndarray,
    methods: Sequence[str],
    model: HogModel,
    folder: Path,
    *,
    name: str,
    notes: Sequence[str] = (),
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> tuple[list[HogInverse], ExplanationFolder]:
    """Invert the HOG of uint8 (C, H, W), as hog_image.to_cells returns it, by each method; write the page to a folder."""
    output = ExplanationFolder(folder)
    found = []
    for number, method in enumerate(methods, 1):
        on_progress(f"{method} ({number} of {len(methods)})")
        found.append(inverse(image, method, model, seed=seed))
    shown = Picture("Image", encode_png(image), f"{image.shape[2]} x {image.shape[1]} pixels", width=320)
    head = Section("", [EXPLAINED], SOURCE, pictures=[shown])
    below = Section("Inverses", pictures=pictures(image, found), tables=[likeness_table(found)])
    for section in (head, below):
        output.add("", section.pictures)
    foot = [*notes, model_text(model)]
    output.write(html_page(f"What HOG leaves of {name}", [head, below], foot, [path.name for path in output.pictures]))
    return found, output


def model_text(model: HogModel) -> str:
    """What a model was learned from, as a line."""
    return (
        f"HOG: cells of {CELL} pixels, {ORIENTATIONS} directions of edges. The inverses were learned from {model.windows:,} "
        f"windows of {counted(model.photographs, 'photograph')}."
    )
