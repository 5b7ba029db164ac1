"""The parts of an explanation as sections of its page: what each method found, with pictures, figures and its source."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evofool.errors import ScoreError
from evofool.explain.elements import Element, find_elements
from evofool.explain.nearest import Nearest, nearest_real
from evofool.explain.occlusion import ablate, occlusion_map
from evofool.explain.saliency import saliency
from evofool.explain.segmentation import box, segment
from evofool.images import encode_png
from evofool.pages.explanation import Picture, Section, Table
from evofool.pages.heat import heat, outlined, painted
from evofool.scores import confidence, log_odds, margin
from evofool.targets import Target

Say = Callable[[str], None]


class Found(NamedTuple):
    """A section; the backward passes that it took, of one image each (the target counts the forward ones); pictures for the
    folder that would be too many for the page."""

    section: Section
    backwards: int
    more: Sequence[Picture] = ()


_RUNNERS_UP = 5
_GROUPS = 4  # groups of copies that get a table of their own


def overview(target: Target, image: np.ndarray, class_id: int) -> Found:
    """The image, and what the target makes of it. One query."""
    logits = target.logits(image[None])
    if not np.isfinite(logits).all():
        raise ScoreError(f"{target.name} answered NaN or infinity for this image; check its weights and preprocessing")
    odds, margins = log_odds(logits)[0], margin(logits)[0]
    order = [int(c) for c in np.argsort(-odds, kind="stable")]
    called = order[0]
    others = [c for c in order if c != class_id][:_RUNNERS_UP]
    label = target.labels[class_id]
    said = (
        f"{target.name} sees {label} in this image with a confidence of {sure(odds[class_id])}: log-odds "
        f"{odds[class_id]:.3f}, margin {margins[class_id]:.3f} over {target.labels[others[0]]}."
    )
    if called != class_id:
        said += f" It calls the image {target.labels[called]}, with {sure(odds[called])}."
    rows = [[str(c), target.labels[c], sure(odds[c]), f"{odds[c]:.3f}", f"{margins[c]:.3f}"] for c in (class_id, *others)]
    heads = ["class", "label", "confidence", "log-odds", "margin"]
    shown = Picture("Image", encode_png(image), f"{image.shape[2]} x {image.shape[1]} pixels, as the target is given it")
    return Found(Section("", [said], pictures=[shown], tables=[Table(heads, rows, "The class and its runners-up")]), 0)


def saliency_part(target: Target, image: np.ndarray, class_id: int, seed: int = 0) -> Found:
    """The plain map, the mean over ten crops, and the averages over noise. One forward and backward pass for each view."""
    named = {
        "none": ("Saliency", "one gradient"),
        "crops": ("Mean over ten crops", "shifted and mirrored"),
        "smooth": ("Smooth", "mean over 16 noisy copies"),
        "smooth_squared": ("Smooth, squared", "mean of squares over 16 noisy copies"),
        "variance": ("Variance", "of the gradient over 16 noisy copies"),
    }
    pictures, before = [], target.queries
    for average, (title, caption) in named.items():
        weight = saliency(target, image[None], [class_id], average=average, seed=seed)[0]
        pictures.append(Picture(f"{title}, over the image", encode_png(heat(weight, image)), caption))
        pictures.append(
            Picture(title, encode_png(heat(weight)), f"largest {weight.max():.3g}, median {np.median(weight):.3g}")
        )
    what = (
        "Which pixels the class's logit hangs on: the magnitude of its gradient by each pixel, the largest of the "
        "channels'. Where the map is bright, a small change of the pixel changes the logit most."
    )
    source = (
        "Simonyan, Vedaldi & Zisserman 2014. Smooth: Smilkov et al. 2017; squared: Hooker et al. 2019; variance: Adebayo et "
        "al. 2018."
    )
    return Found(Section("Saliency", [what], source, pictures), target.queries - before)


def segmentation_part(target: Target, image: np.ndarray, class_id: int, seed: int = 0) -> Found:
    """The mask by graph cut, of the ten crops' saliency, and its box. Ten forward and backward passes."""
    before = target.queries
    weight = saliency(target, image[None], [class_id], average="crops", seed=seed)[0]
    backwards = target.queries - before
    mask = segment(image, weight, seed=seed)
    what = (
        "Where the class is, as far as saliency and colour tell: pixels of the highest saliency are taken for the object, "
        "of the lowest for background, and a graph cut finds the edge between, along changes of colour."
    )
    source = "Simonyan, Vedaldi & Zisserman 2014, section 3.2; Boykov & Jolly 2001."
    if not mask.any():
        nothing = "Saliency is the same everywhere: nothing stands out."
        return Found(Section("Segmentation", [what, nothing], source), backwards)
    top, left, bottom, right = box(mask)
    place = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
    found = f"The mask covers {mask.mean():.1%} of the image; its box is {place}."
    pictures = [
        Picture("Mask and box", encode_png(outlined(image, mask, (top, left, bottom, right))), "the rest dimmed"),
        Picture("Mask", encode_png(np.where(mask, 255, 0).astype(np.uint8)[None])),
    ]
    return Found(Section("Segmentation", [what, found], source, pictures), backwards)


def occlusion_part(target: Target, image: np.ndarray, class_id: int) -> Found:
    """The occlusion map. Some hundred queries."""
    drop = occlusion_map(target, image, class_id)
    row, column = (int(k) for k in np.unravel_index(drop.argmax(), drop.shape))
    found = (
        f"The largest drop is {drop.max():.2f} in log-odds, at row {row}, column {column}."
        if drop.max() > 0
        else "No patch takes anything from the class: covering any makes the target surer, or changes nothing."
    )
    if drop.min() < 0:
        found += f" Covering elsewhere raises them, by {-drop.min():.2f} at most (blue)."
    pictures = [
        Picture("Drop of log-odds, over the image", encode_png(heat(drop, image, signed=True)), "red: speaks for the class"),
        Picture("Drop of log-odds", encode_png(heat(drop, signed=True)), f"{drop.min():.2f} to {drop.max():.2f}"),
    ]
    what = (
        "How far the log-odds of the class drop when a square patch is covered by the image's mean colour: at each pixel "
        "the mean over the patches that cover it. It asks for answers alone, so it is the same for a black box."
    )
    return Found(Section("Occlusion", [what, found], "Zeiler & Fergus 2014, section 4.2.", pictures), 0)


def elements_part(target: Target, image: np.ndarray, class_id: int, seed: int = 0) -> Found:
    """Which of the image's elements matter, and what its copies are worth. Up to some hundred queries."""
    what = (
        "The image is cut into elements, connected patches of one colour; those alike in size, shape and colour are copies "
        "of one another. Each is covered by the colour around it and the target asked again: first each alone, then the "
        "copies of a group one after the other, in reading order."
    )
    source = "Nguyen, Yosinski & Clune 2015, who removed some of the repeated elements of evolved images."
    elements = find_elements(image, seed=seed)
    if not elements:
        nothing = "Nothing stands out from its background in one colour: no elements."
        return Found(Section("Elements", [what, nothing], source), 0)
    result = ablate(target, image, class_id, elements)
    drops = result.log_odds - result.alone
    copies = {group: len(odds) - 1 for group, odds in result.together.items()}
    repeated = [group for group, k in copies.items() if k > 1]
    text = [
        what,
        f"{_count(len(elements), 'element')} in {_count(len(copies), 'group')}, {len(repeated)} of them of copies.",
    ]
    # The largest first, so that what lies within an element is seen.
    order = sorted(range(len(elements)), key=lambda k: -elements[k].area)
    groups = painted(image, [elements[k].mask for k in order], [elements[k].group for k in order])
    worth = np.zeros(image.shape[1:])
    for k in order:
        worth[elements[k].mask] = drops[k]
    pictures = [
        Picture("Elements", encode_png(groups), "a colour for each group"),
        Picture(
            "What each is worth", encode_png(heat(worth, image, signed=True, clip=1.0)), "red: covering it costs the class"
        ),
    ]
    tables = [_table_of_elements(elements, result.alone, result.log_odds)]
    for group in repeated[:_GROUPS]:
        odds = result.together[group]
        text.append(
            f"Without any of the {copies[group]} copies of group {group} the confidence is {sure(odds[-1])} instead of "
            f"{sure(odds[0])}; without the first alone it is {sure(odds[1])}."
        )
        title = f"Without group {group}"
        pictures.append(Picture(title, encode_png(result.emptied[group]), f"confidence {sure(odds[-1])}"))
        rows = [[str(k), sure(value), f"{value:.3f}"] for k, value in enumerate(odds)]
        tables.append(
            Table(["removed", "confidence", "log-odds"], rows, f"Group {group}: copies removed one after the other")
        )
    return Found(Section("Elements", text, source, pictures, tables), 0)


def _table_of_elements(elements: Sequence[Element], alone: np.ndarray, whole: float) -> Table:
    rows = []
    for number, (element, odds) in enumerate(zip(elements, alone, strict=True), 1):
        top, left, bottom, right = element.box
        place = [f"{top} to {bottom - 1}", f"{left} to {right - 1}", f"{element.area / element.mask.size:.1%}"]
        rows.append([str(number), str(element.group), *place, sure(odds), f"{odds:.3f}", f"{odds - whole:+.3f}"])
    heads = ["element", "group", "rows", "columns", "area", "confidence without", "log-odds without", "change"]
    return Table(heads, rows, "Each element covered alone")


def nearest_part(target: Target, image: np.ndarray, real: Path, say: Say) -> Found:
    """The nearest real images. A forward pass for each picture of the folder."""
    found = nearest_real(target, image, real, say=say)
    text = [
        "The real images that are nearest to this one, as the classifier sees them (features of a layer) and by pixels. The "
        "percentile is the share of real images that have a real neighbour at no more than that distance: at 100 this image "
        "is further from the real ones than they are from one another."
    ]
    if not target.differentiable:
        text.append("A black box has no features, so by pixels alone.")
    pictures, rows = [], []
    for one in found:
        asked = f"{one.asked} of {one.compared:,}" if one.asked < one.compared else f"{one.compared:,}"
        text.append(
            f"By {one.space}: nearest_real_percentile {one.nearest_real_percentile:.1f} ({asked} real images asked)."
        )
        for k, file in enumerate(one.files):
            caption = f"{_nth(k)} by {one.space}: distance {one.distances[k]:.4g}"
            pictures.append(Picture(file.name, encode_png(one.images[k]), caption))
            rows.append([one.space, str(k + 1), file.name, _class(one, k, target), f"{one.distances[k]:.4g}"])
    table = Table(["space", "rank", "file", "shows", "distance"], rows)
    return Found(Section("Nearest real images", text, pictures=pictures, tables=[table]), 0)


def _class(one: Nearest, k: int, target: Target) -> str:
    class_id = one.classes[k]
    return "" if class_id is None else target.labels[class_id]


def _nth(k: int) -> str:
    return ("nearest", "second", "third")[k] if k < 3 else f"{k + 1}th"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def sure(odds: float) -> str:
    """A confidence to six digits; what only rounds to 0 or 1 is not called so."""
    p = float(confidence(odds))
    return f"{p:.6f}" if 5e-7 <= p < 1 - 5e-7 else f"{p:.2e}" if p < 0.5 else f"1 - {float(confidence(-odds)):.2e}"
