"""Sufficient subsets, by the order of an explanation's maps and by backward selection, as a section of its page."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from evofool.explain.covering import filled
from evofool.explain.curves import random_map
from evofool.explain.part_result import PartResult, PassCounter, Report, counting
from evofool.explain.parts_margin import WIDE
from evofool.explain.parts_saliency import GRADIENTS
from evofool.explain.phrases import confidence_text
from evofool.explain.sufficient import KEPT, Selection, Subset, Sufficient, backward_selection, sufficient
from evofool.images import encode_png
from evofool.pages.html_page import Picture, Section, Table
from evofool.targets import Target

SELECTION = "backward selection"
_TITLE = "Sufficient subsets"
_DRAWS = 3  # random maps of patches
_PIXELS, _PATCHES = "random pixels", "random patches"


def sufficient_part(
    target: Target,
    image: np.ndarray,
    class_id: int,
    maps: Mapping[str, np.ndarray],
    seed: int,
    report: Report,
    passes: PassCounter,
) -> PartResult:
    """The smallest shares of pixels that keep the class.

    Maps of gradients are left out: backward selection takes the gradient again after each step. It takes some thirty
    forward and backward passes, or up to about 110 while fewer than a tenth of the pixels keep the class, and 14 queries.
    10 queries for each other map, and 42 more. Where the mean colour alone keeps the class, it costs at most 4 queries.
    """
    ranked = {name: values for name, values in maps.items() if name not in GRADIENTS}
    if not ranked and not target.differentiable:
        return PartResult(Section(_TITLE, ["No part has a map of this image, so there is no order of its pixels."]))
    selection: dict[str, Selection] = {}
    if target.differentiable and not sufficient(target, image, class_id, {}).needless:
        count = counting(report, "steps", SELECTION)

        def on_step(step: int, of: int) -> None:
            passes.backwards += 1
            count(step, of)

        selection = {SELECTION: backward_selection(target, image, class_id, on_step=on_step)}
    found_maps = {name: found.map for name, found in selection.items()}
    ranked |= found_maps
    height, width = image.shape[1:]
    patch = max(1, round(min(height, width) / 8))
    draws = {
        f"{_PIXELS} 0": random_map(height, width, seed=seed),
        **{f"{_PATCHES} {k}": random_map(height, width, patch=patch, seed=seed + k) for k in range(_DRAWS)},
    }
    report("queries by the order of each map")
    kept = {name: found.kept for name, found in selection.items()}
    found = sufficient(target, image, class_id, ranked | draws, first=kept)
    patches = _middle([found.subsets[f"{_PATCHES} {k}"] for k in range(_DRAWS)])
    random = {_PIXELS: found.subsets[f"{_PIXELS} 0"], _PATCHES: patches}
    label = target.labels[class_id]
    by_gradients = (
        "Backward selection removes pixels step by step, by gradients: those first that the class depends on least. It "
        "takes the place of the maps of gradients. "
    )
    text = [
        "Pixels are kept in the order of a map, highest values first, and all others are replaced by the image's mean "
        f"colour; the share is the smallest that was found to keep {KEPT:.0%} of the confidence. "
        f"{by_gradients if selection else ''}Compare the shares with those of "
        f"random pixels and of random patches of {patch} x {patch} pixels (the middle one of {_DRAWS} draws). If you do not "
        f"see {label} in the kept pixels, the network decides by something that people do not see.",
    ]
    source = "Carter et al. 2019; backward selection by gradients: Carter et al. 2021."
    figures = {"sufficient": _figures(found, ranked, random)}
    if found.needless:
        return PartResult(Section(_TITLE, [_needless(found, label)], source), figures=figures)
    best = min(ranked, key=lambda name: found.subsets[name].share)
    text = [_result(found, best, random, label), *text]
    subsets = {name: found.subsets[name] for name in sorted(ranked, key=lambda name: found.subsets[name].share)} | random
    rows = [[name, f"{subset.share:.1%}", confidence_text(subset.log_odds)] for name, subset in subsets.items()]
    table = Table(["order", "smallest share", "confidence"], rows, f"The image has {confidence_text(found.whole)}")
    others = filled(image, found.fill)
    maps_only = {name: subset for name, subset in subsets.items() if name in maps}
    shown = dict.fromkeys([best, *list(maps_only)[:1], _PATCHES])
    pictures = [
        Picture(
            name[0].upper() + name[1:],
            encode_png(np.where(subsets[name].mask, image, others)),
            f"{subsets[name].share:.1%} of the pixels: confidence of {label} {confidence_text(subsets[name].log_odds)}",
            width=WIDE,
        )
        for name in shown
        if subsets[name].share < 1
    ]
    return PartResult(Section(_TITLE, text, source, pictures, [table]), maps=found_maps, figures=figures)


def _needless(found: Sufficient, label: str) -> str:
    return (
        f"The image's mean colour alone has a confidence of {confidence_text(found.empty)} in {label}, the image "
        f"{confidence_text(found.whole)}: no pixel is needed, so there is no sufficient subset."
    )


def _result(found: Sufficient, best: str, random: Mapping[str, Subset], label: str) -> str:
    share, pixels, patches = found.subsets[best].share, random[_PIXELS].share, random[_PATCHES].share
    if share >= min(pixels, patches):
        return (
            f"No map keeps the class with fewer pixels than chance: by the best one, {best}, {share:.1%} of the pixels are "
            f"needed; chosen at random, {pixels:.1%} of the pixels are needed, in patches {patches:.1%}."
        )
    return (
        f"{share:.1%} of the pixels, those that {best} ranks highest, are enough: alone they keep {KEPT:.0%} of the "
        f"confidence in {label}. Chosen at random, {pixels:.1%} of the pixels are needed, in patches {patches:.1%}."
    )


def _middle(subsets: list[Subset]) -> Subset:
    """By share, of the same shares the first."""
    return sorted(subsets, key=lambda subset: subset.share)[len(subsets) // 2]


def _figures(found: Sufficient, ranked: Mapping[str, np.ndarray], random: Mapping[str, Subset]) -> dict[str, Any]:
    subsets = {name: found.subsets[name] for name in ranked} | dict(random)
    return {
        "fill": found.fill,
        "log_odds": found.whole,
        "log_odds_empty": found.empty,
        "threshold": found.threshold,
        "shares": {name: {"share": subset.share, "log_odds": subset.log_odds} for name, subset in subsets.items()},
    }
