"""Parts of an explanation as sections of its page: overview, nearest real images."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from evofool.errors import ScoreError
from evofool.explain.cautions import doubts
from evofool.explain.nearest import Nearest, nearest_real
from evofool.explain.part_result import PartResult, Report, counting
from evofool.explain.phrases import confidence_text, counted, scored_text, three_decimals
from evofool.images import encode_png
from evofool.pages.html_page import Picture, Section, Table
from evofool.scores import log_odds, margin
from evofool.targets import Target

_RUNNERS_UP = 5


class Overview(NamedTuple):
    """The page's title and first section: the image, the target's scores for it, and doubts of them.

    predicted: the class that the target gives the image. against: the class that the explained one is compared with, and
    apart: how far its logit is below that of the explained one.
    """

    title: str
    section: Section
    predicted: int
    against: int
    apart: float


def overview(target: Target, image: np.ndarray, class_id: int, against: int | None = None) -> Overview:
    """The first section. against: None: of the other classes the one with the highest logit. One query."""
    logits = target.logits(image[None])
    if not np.isfinite(logits).all():
        raise ScoreError(f"{target.name} returned NaN or infinity for this image; check its weights and preprocessing")
    odds, margins = (score(logits, target.multilabel)[0] for score in (log_odds, margin))
    order = [int(c) for c in np.argsort(-odds, kind="stable")]
    called = order[0]
    others = [c for c in order if c != class_id]
    against = others[0] if against is None else against
    listed = [*others[:_RUNNERS_UP], *([] if against in others[:_RUNNERS_UP] else [against])]
    label = target.labels[class_id]
    scores = f"{scored_text(odds[class_id])}"
    if not target.multilabel:
        scores += f", margin {three_decimals(margins[class_id])} over {target.labels[others[0]]}"
    scores += "."
    if called == class_id:
        title = f"Why {target.name} classifies this image as {label}"
        text = f"{target.name} classifies this image as {label}: {scores}"
    else:
        title = f"Evidence for {label} in an image that {target.name} classifies as {target.labels[called]}"
        text = (
            f"{target.name} classifies this image as {target.labels[called]}: {scored_text(odds[called])}. This page shows "
            f"the evidence for {label}: {scores}"
        )
    rows = [
        [str(c), target.labels[c], three_decimals(odds[c]), confidence_text(odds[c]), three_decimals(margins[c])]
        for c in (class_id, *listed)
    ]
    heads = ["class", "label", "log-odds", "confidence", "margin"]
    table = Table(
        heads,
        rows,
        "The class and the next classes" if called == class_id else "The class, and the classes with the highest scores",
    )
    shown = Picture(
        "Image", encode_png(image), f"{image.shape[2]} x {image.shape[1]} pixels, the input of the target", width=448
    )
    section = Section("", [text], pictures=[shown], tables=[table], cautions=doubts(target, odds))
    return Overview(title, section, called, against, float(logits[0, class_id]) - float(logits[0, against]))


def nearest_part(target: Target, image: np.ndarray, real: Path, report: Report) -> PartResult:
    """The nearest real images. One forward pass for each picture of the folder."""
    found = nearest_real(target, image, real, on_progress=counting(report, "pictures"))
    text = [
        "The real images nearest to this one, by the features of a layer and by pixels. The percentile compares the "
        "distance with real images: it is the share of sampled real images whose nearest other real image is no further "
        "away. At 100 this image is at least as far from its nearest real image as every sampled real image."
    ]
    if not target.differentiable:
        text.append("A black box has no features, so only pixels are compared.")
    pictures, rows = [], []
    for near in found:
        sampled = f"{near.sampled:,} of {near.compared:,}" if near.sampled < near.compared else f"all {near.compared:,}"
        text.append(
            f"By {near.space} the percentile of the nearest real image is {near.nearest_real_percentile:.1f} ({sampled} "
            "real images sampled)."
        )
        unit = "colours of 0 to 1" if near.space == "pixels" else "of features"
        for k, file in enumerate(near.files):
            caption = f"{_nth(k)} by {near.space}: distance {near.distances[k]:.4g} ({unit})"
            pictures.append(Picture(file.name, encode_png(near.images[k]), caption))
            rows.append([near.space, str(k + 1), file.name, _class(near, k, target), f"{near.distances[k]:.4g}"])
    if bad := found[0].unreadable:
        text.append(f"{counted(len(bad), 'file')} of the folder cannot be read as a picture: {bad[0].name} (the first).")
    table = Table(["space", "rank", "file", "class", "distance"], rows)
    return PartResult(Section("Nearest real images", text, pictures=pictures, tables=[table]))


def _class(near: Nearest, k: int, target: Target) -> str:
    class_id = near.classes[k]
    return "" if class_id is None else target.labels[class_id]


def _nth(k: int) -> str:
    return ("nearest", "second", "third")[k] if k < 3 else f"{k + 1}th"
