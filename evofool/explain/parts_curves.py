"""The deletion and insertion curves of an explanation's maps, as a section of its page."""

from collections.abc import Mapping

import numpy as np

from evofool.explain.curves import Curves, curves, random_map
from evofool.explain.part_result import PartResult
from evofool.explain.phrases import three_decimals
from evofool.pages.html_page import Plot, Section, Table
from evofool.pages.map_curves import map_curves
from evofool.targets import Target

_TITLE = "Deletion and insertion"
_LITTLE = 0.8  # of the confidence: a blurred copy with more leaves insertion little to show
_PIXELS, _PATCHES = "random pixels", "random patches"
_STEPS = 10  # of the page's curves; on five photographs areas differ by up to 0.024 from those of 20
_DRAWN = 7  # maps in the plot, as many as it has colours


def curves_part(
    target: Target, image: np.ndarray, class_id: int, maps: Mapping[str, np.ndarray], seed: int
) -> tuple[PartResult, dict[str, Curves]]:
    """The section, and the curves by map, those of two random maps last. 3 + 18 queries a map."""
    if not maps:
        return PartResult(Section(_TITLE, ["No part has a map of this image, so there are no curves."])), {}
    height, width = image.shape[1:]
    patch = max(1, round(min(height, width) / 8))
    every = {
        **maps,
        _PIXELS: random_map(height, width, seed=seed),
        _PATCHES: random_map(height, width, patch=patch, seed=seed),
    }
    found = curves(target, image, class_id, every, steps=_STEPS)
    ranked = sorted(maps, key=lambda name: found[name].deletion_area - found[name].insertion_area)
    best, drawn = ranked[0], {*ranked[:_DRAWN], _PIXELS, _PATCHES}
    label = target.labels[class_id]
    result = (
        f"By both areas together the best map is {best}: deletion {three_decimals(found[best].deletion_area)}, insertion "
        f"{three_decimals(found[best].insertion_area)}."
    )
    description = (
        f"The confidence of {label} while the pixels with the highest values of a map are replaced by the image's mean "
        f"colour (deletion), or put into a blurred copy of the image (insertion), in {_STEPS} equal steps. A good map has a "
        "small area under the first curve and a large one under the second. Compare it with a random map: of single pixels, "
        f"which also destroys every texture, and of patches of {patch} x {patch} pixels."
    )
    text = [result, description]
    blurred, whole = found[best].insertion[0], found[best].insertion[-1]
    if blurred > _LITTLE * whole:
        text.append(f"The blurred copy alone has a confidence of {blurred:.3f}, so insertion says little about this image.")
    rows = [[name, three_decimals(c.deletion_area), three_decimals(c.insertion_area)] for name, c in found.items()]
    table = Table(["map", "deletion area", "insertion area"], rows)
    lines = {name: (c.deletion, c.insertion) for name, c in found.items() if name in drawn}
    which = "by map" if len(lines) == len(found) else f"of the {_DRAWN} maps with the best areas"
    plot = Plot(_TITLE, map_curves(lines, [_PIXELS, _PATCHES]), f"confidence of {label}, {which}")
    source = "Petsiuk, Das & Saenko 2018."
    section = Section(_TITLE, text, source, tables=[table], plots=[plot])
    return PartResult(section), found
