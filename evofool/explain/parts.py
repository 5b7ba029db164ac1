"""Parts of an explanation as sections of its page: overview, saliency, segmentation, nearest real images."""

from pathlib import Path

import numpy as np

from evofool.errors import ScoreError
from evofool.explain.cautions import doubts
from evofool.explain.nearest import Nearest, nearest_real
from evofool.explain.part_result import PartResult, PassCounter, Report, counting
from evofool.explain.phrases import box_text, confidence_text, counted, scored_text, three_decimals
from evofool.explain.saliency import Averaging, saliency
from evofool.explain.segmentation import box, segment
from evofool.images import encode_png
from evofool.pages.heat import heat, outlined
from evofool.pages.html_page import Folded, Picture, Section, Table
from evofool.scores import log_odds, margin
from evofool.targets import Target

_RUNNERS_UP = 5


def overview(target: Target, image: np.ndarray, class_id: int) -> tuple[str, Section]:
    """The page's title and first section: the image, the target's scores for it, and doubts of them. One query."""
    logits = target.logits(image[None])
    if not np.isfinite(logits).all():
        raise ScoreError(f"{target.name} returned NaN or infinity for this image; check its weights and preprocessing")
    odds, margins = log_odds(logits)[0], margin(logits)[0]
    order = [int(c) for c in np.argsort(-odds, kind="stable")]
    called = order[0]
    others = [c for c in order if c != class_id][:_RUNNERS_UP]
    label = target.labels[class_id]
    scores = f"{scored_text(odds[class_id])}, margin {three_decimals(margins[class_id])} over {target.labels[others[0]]}."
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
        for c in (class_id, *others)
    ]
    heads = ["class", "label", "log-odds", "confidence", "margin"]
    table = Table(
        heads,
        rows,
        "The class and the next classes" if called == class_id else "The class, and the classes with the highest scores",
    )
    shown = Picture("Image", encode_png(image), f"{image.shape[2]} x {image.shape[1]} pixels, the input of the target")
    return title, Section("", [text], pictures=[shown], tables=[table], cautions=doubts(target, odds))


def saliency_part(target: Target, image: np.ndarray, class_id: int, seed: int, passes: PassCounter) -> PartResult:
    """Maps of one gradient, of ten crops and of noisy copies. One forward and backward pass for each copy."""
    named = {
        "none": ("Saliency", "one gradient", "logits"),
        "crops": ("Mean over ten crops", "shifted and mirrored", "logits"),
        "smooth": ("Smooth", "mean over 16 noisy copies", "logits"),
        "smooth_squared": ("Smooth, squared", "mean of squares over 16 noisy copies", "squared logits"),
        "variance": ("Variance", "of the gradient over 16 noisy copies", "squared logits"),
    }
    over, alone = [], []
    for average, (title, caption, unit) in named.items():
        with passes.as_forward(target):
            weight = saliency(target, image[None], [class_id], averaging=Averaging(average), seed=seed)[0]
        over.append(Picture(f"{title}, over the image", encode_png(heat(weight, image)), caption))
        by = "for a pixel from black to white"
        figures = f"largest {weight.max():.3g} {unit} {by}, median {np.median(weight):.3g}"
        alone.append(Picture(title, encode_png(heat(weight)), figures))
    description = (
        "Which pixels the class's logit depends on: the magnitude of its gradient by each pixel, the maximum over channels. "
        "Where the map is bright, a small change of the pixel changes the logit most."
    )
    source = (
        "Simonyan, Vedaldi & Zisserman 2014. Smooth: Smilkov et al. 2017; squared: Hooker et al. 2019; variance: Adebayo et "
        "al. 2018."
    )
    # Two maps are shown, the others are folded.
    rest = [*(over[k] for k in (1, 3, 4)), *alone]
    folded = Folded("Other averages, and the maps alone", rest)
    return PartResult(Section("Saliency", [description], source, [over[0], over[2]], folded=[folded]))


def segmentation_part(target: Target, image: np.ndarray, class_id: int, seed: int, passes: PassCounter) -> PartResult:
    """The mask from a graph cut on the ten crops' saliency, and its box. Ten forward and backward passes."""
    with passes.as_forward(target):
        weight = saliency(target, image[None], [class_id], averaging=Averaging("crops"), seed=seed)[0]
    mask = segment(image, weight, seed=seed)
    description = (
        "An estimate, from saliency and colour, of where the class is: pixels with the highest saliency count as object, "
        "pixels with the lowest as background, and a graph cut finds the border between, along changes of colour."
    )
    source = "Simonyan, Vedaldi & Zisserman 2014, section 3.2; Boykov & Jolly 2001."
    if not mask.any():
        nothing = "Saliency is the same everywhere, so there is no mask."
        return PartResult(Section("Segmentation", [description, nothing], source))
    found = f"The mask covers {mask.mean():.1%} of the image; its box is {box_text(*box(mask))}."
    pictures = [
        Picture("Mask and box", encode_png(outlined(image, mask, box(mask))), "the rest dimmed"),
        Picture("Mask", encode_png(np.where(mask, 255, 0).astype(np.uint8)[None])),
    ]
    return PartResult(Section("Segmentation", [description, found], source, pictures))


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
