"""The parts of an explanation as sections of its page: what each method found, with pictures, figures and its source."""

from pathlib import Path

import numpy as np

from evofool.errors import ScoreError
from evofool.explain.nearest import Nearest, nearest_real
from evofool.explain.part_result import PartResult, PassCounter, Say
from evofool.explain.phrases import count, number, place, scored, sure
from evofool.explain.saliency import saliency
from evofool.explain.segmentation import box, segment
from evofool.images import encode_png
from evofool.pages.heat import heat, outlined
from evofool.pages.html_page import Folded, Picture, Section, Table
from evofool.scores import log_odds, margin
from evofool.targets import Target

_RUNNERS_UP = 5


def overview(target: Target, image: np.ndarray, class_id: int) -> tuple[str, Section]:
    """The page's title, and under it the image and what the target makes of it. One query."""
    logits = target.logits(image[None])
    if not np.isfinite(logits).all():
        raise ScoreError(f"{target.name} answered NaN or infinity for this image; check its weights and preprocessing")
    odds, margins = log_odds(logits)[0], margin(logits)[0]
    order = [int(c) for c in np.argsort(-odds, kind="stable")]
    called = order[0]
    others = [c for c in order if c != class_id][:_RUNNERS_UP]
    label = target.labels[class_id]
    mine = f"{scored(odds[class_id])}, margin {number(margins[class_id])} over {target.labels[others[0]]}."
    if called == class_id:
        title = f"Why {target.name} sees {label}"
        said = f"{target.name} sees {label} in this image: {mine}"
    else:
        title = f"What in this image speaks for {label} ({target.name} calls it {target.labels[called]})"
        said = (
            f"{target.name} calls this image {target.labels[called]}: {scored(odds[called])}. This page is about what in "
            f"it speaks for {label}, all the same: {mine}"
        )
    rows = [[str(c), target.labels[c], number(odds[c]), sure(odds[c]), number(margins[c])] for c in (class_id, *others)]
    heads = ["class", "label", "log-odds", "confidence", "margin"]
    table = Table(
        heads, rows, "The class and its runners-up" if called == class_id else "The class, and the others from the top"
    )
    shown = Picture("Image", encode_png(image), f"{image.shape[2]} x {image.shape[1]} pixels, as the target is given it")
    return title, Section("", [said], pictures=[shown], tables=[table])


def saliency_part(target: Target, image: np.ndarray, class_id: int, seed: int, passes: PassCounter) -> PartResult:
    """The plain map, the mean over ten crops, and the averages over noise. One forward and backward pass for each view."""
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
            weight = saliency(target, image[None], [class_id], average=average, seed=seed)[0]
        over.append(Picture(f"{title}, over the image", encode_png(heat(weight, image)), caption))
        by = "for a pixel from black to white"
        figures = f"largest {weight.max():.3g} {unit} {by}, median {np.median(weight):.3g}"
        alone.append(Picture(title, encode_png(heat(weight)), figures))
    what = (
        "Which pixels the class's logit hangs on: the magnitude of its gradient by each pixel, the largest of the "
        "channels'. Where the map is bright, a small change of the pixel changes the logit most."
    )
    source = (
        "Simonyan, Vedaldi & Zisserman 2014. Smooth: Smilkov et al. 2017; squared: Hooker et al. 2019; variance: Adebayo et "
        "al. 2018."
    )
    # One gradient and its smooth mean say most; the others are for comparison.
    rest = [*(over[k] for k in (1, 3, 4)), *alone]
    folded = Folded("Other averages, and the maps alone", rest)
    return PartResult(Section("Saliency", [what], source, [over[0], over[2]], folded=[folded]))


def segmentation_part(target: Target, image: np.ndarray, class_id: int, seed: int, passes: PassCounter) -> PartResult:
    """The mask by graph cut, of the ten crops' saliency, and its box. Ten forward and backward passes."""
    with passes.as_forward(target):
        weight = saliency(target, image[None], [class_id], average="crops", seed=seed)[0]
    mask = segment(image, weight, seed=seed)
    what = (
        "Where the class is, as far as saliency and colour tell: pixels of the highest saliency are taken for the object, "
        "of the lowest for background, and a graph cut finds the edge between, along changes of colour."
    )
    source = "Simonyan, Vedaldi & Zisserman 2014, section 3.2; Boykov & Jolly 2001."
    if not mask.any():
        nothing = "Saliency is the same everywhere: nothing stands out."
        return PartResult(Section("Segmentation", [what, nothing], source))
    found = f"The mask covers {mask.mean():.1%} of the image; its box is {place(*box(mask))}."
    pictures = [
        Picture("Mask and box", encode_png(outlined(image, mask, box(mask))), "the rest dimmed"),
        Picture("Mask", encode_png(np.where(mask, 255, 0).astype(np.uint8)[None])),
    ]
    return PartResult(Section("Segmentation", [what, found], source, pictures))


def nearest_part(target: Target, image: np.ndarray, real: Path, say: Say) -> PartResult:
    """The nearest real images. A forward pass for each picture of the folder."""
    found = nearest_real(target, image, real, say=say)
    text = [
        "The real images that are nearest to this one, as the classifier sees them (features of a layer) and by pixels. A "
        "real image has a nearest real image too: the percentile is the share of those asked whose own nearest is no "
        "further away than this image's is. At 100 this image is at least as far from its nearest real image as any of "
        "them is from its own."
    ]
    if not target.differentiable:
        text.append("A black box has no features, so by pixels alone.")
    pictures, rows = [], []
    for one in found:
        asked = f"{one.asked:,} of {one.compared:,}" if one.asked < one.compared else f"all {one.compared:,}"
        text.append(
            f"By {one.space} the percentile of the nearest real image is {one.nearest_real_percentile:.1f} ({asked} real "
            "images asked)."
        )
        unit = "colours of 0 to 1" if one.space == "pixels" else "of features"
        for k, file in enumerate(one.files):
            caption = f"{_nth(k)} by {one.space}: distance {one.distances[k]:.4g} ({unit})"
            pictures.append(Picture(file.name, encode_png(one.images[k]), caption))
            rows.append([one.space, str(k + 1), file.name, _class(one, k, target), f"{one.distances[k]:.4g}"])
    if bad := found[0].unreadable:
        text.append(f"{count(len(bad), 'file')} of the folder cannot be read as a picture: {bad[0].name} (the first).")
    table = Table(["space", "rank", "file", "shows", "distance"], rows)
    return PartResult(Section("Nearest real images", text, pictures=pictures, tables=[table]))


def _class(one: Nearest, k: int, target: Target) -> str:
    class_id = one.classes[k]
    return "" if class_id is None else target.labels[class_id]


def _nth(k: int) -> str:
    return ("nearest", "second", "third")[k] if k < 3 else f"{k + 1}th"
