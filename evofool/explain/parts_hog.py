"""What HOG leaves of an image, as a section of its explanation."""

from collections.abc import Sequence

import numpy as np

from evofool.explain.hog import CELL, glyphs, hog_of
from evofool.explain.hog_file import shipped_model
from evofool.explain.hog_image import HogInverse, inverse, to_cells
from evofool.explain.part_result import PartResult
from evofool.explain.phrases import scored_text
from evofool.images import encode_png, resized
from evofool.pages.html_page import NOTHING, Picture, Section, Table
from evofool.scores import log_odds
from evofool.targets import Target

SOURCE = "Vondrick, Khosla, Malisiewicz & Torralba 2013; HOG as in Felzenszwalb, Girshick, McAllester & Ramanan 2010."
EXPLAINED = (
    "HOG keeps of each cell how strong edges are in each direction, compared with the cells around it, and nothing else. "
    "The inverses are images made from these numbers alone; only their mean and contrast, which HOG does not keep, are the "
    "image's."
)
MEANINGS = {
    "paired": "a paired dictionary, sparse codes that pixels and HOG share",
    "ridge": "a ridge regression of pixels on HOG",
    "elda": "the mean of the learned windows that a detector of this window likes best (exemplar LDA)",
    "direct": "100 steps of gradient descent, from noise, towards an image with this HOG",
}
_IN_PART = ("paired", "ridge")
_HEADS = ("method", "NCC", "sharpness", "HOG distance")
_UNDER = (
    "Over windows of 5 x 5 cells. NCC: the mean correlation of an inverse's pixels with the image's. Sharpness: the median "
    "of the inverse's gradient energy over the image's, at equal contrast; 1 is as sharp as the image. HOG distance: the "
    "mean distance of the inverse's own HOG from the image's, over the norm of the image's; 0 has the same HOG."
)


def hog_part(target: Target, image: np.ndarray) -> PartResult:
    """The section for uint8 (C, H, W): two inverses by the shipped model, and the class of each. Two queries."""
    cells = to_cells(image)
    found = [inverse(cells, method, shipped_model()) for method in _IN_PART]
    logits = target.logits(np.stack([resized(one.picture, target.shape) for one in found]))
    odds = log_odds(logits, target.multilabel)
    seen = [int(row.argmax()) for row in odds]
    lines = [
        f"{target.name} classifies the inverse by {MEANINGS[one.method].partition(',')[0]} as {target.labels[c]}: "
        f"{scored_text(row[c])}."
        for one, row, c in zip(found, odds, seen, strict=True)
    ]
    size = CELL * image.shape[1] / cells.shape[1]
    text = [f"{EXPLAINED} A cell has {size:.3g} pixels a side.", " ".join(lines)]
    section = Section("What HOG leaves", text, SOURCE, pictures=pictures(cells, found), tables=[likeness_table(found)])
    return PartResult(section)


def pictures(image: np.ndarray, inverses: Sequence[HogInverse]) -> list[Picture]:
    """HOG as strokes, and each inverse."""
    # Strokes are full of edges, so a picture of them at its own size is several times as large a file as the others.
    drawn = np.rint(resized(glyphs(hog_of(image)), (1, *image.shape[1:])) / 17).astype(np.uint8) * np.uint8(17)
    strokes = Picture("HOG", encode_png(drawn), "a stroke along each edge", width=224)
    return [
        strokes,
        *(Picture(f"Inverse, {one.method}", encode_png(one.picture), MEANINGS[one.method], width=224) for one in inverses),
    ]


def likeness_table(inverses: Sequence[HogInverse]) -> Table:
    """How near the inverses come, a row each."""
    rows = []
    for one in inverses:
        typical = one.likeness.typical()
        figures = [NOTHING] * 3 if typical is None else [f"{value:.3f}" for value in typical]
        rows.append([one.method, *figures])
    return Table(_HEADS, rows, "How near the inverses come to the image", under=_UNDER)
