"""The options of an explanation: its parts, which of them are possible for a target, and checks."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from evofool.ascend.hooks import layer_names, no_gradients, unknown_layer
from evofool.ascend.objectives import LOGITS
from evofool.errors import ImageError, TargetError
from evofool.explain.captum_maps import INSTALL, available
from evofool.explain.layers import evenly
from evofool.explain.nearest import real_pictures
from evofool.targets import Target

PARTS = (
    *("occlusion", "elements", "saliency", "segmentation", "grad-cam", "rise", "margin", "evidence", "integrated"),
    *("sufficient", "curves", "inversion", "dream", "hog", "nearest"),
)
VERSUS = ("margin", "evidence", "integrated")
"""The parts that compare two classes. A page shows them first, in one section."""
ENOUGH = "sufficient"
"""The part that a page shows next."""
_MAPS = ("occlusion", "elements", "saliency", "grad-cam", "rise", "margin", "evidence", "integrated")
"""The parts that have a map; curves need at least one."""
_BY_GRADIENT = ("saliency", "segmentation", "grad-cam", "margin", "evidence", "integrated", "inversion", "dream")
"""Or by layers."""
BY_CAPTUM = ("grad-cam", "integrated")
"""The parts that need captum."""


@dataclass(frozen=True)
class ExplanationOptions:
    """The content of an explanation. only: names of PARTS; empty: all that are possible.

    against: the class that the explained one is compared with; None: of the other classes the one with the highest logit.
    A black box has only the parts that need no gradients. real_images: a folder, which the part nearest needs and the parts
    evidence and inversion use. layers: to be inverted, in any order; empty: five. dream: the layer to enhance; empty: no
    dream. zoom: further frames of the dream. seed: of noise, colours, mixtures and starts. warnings: shown at the head of
    the page, after those of the target.
    """

    only: Collection[str] = ()
    against: int | None = None
    real_images: Path | None = None
    layers: Sequence[str] = ()
    dream: str = ""
    zoom: int = 0
    seed: int = 0
    warnings: Sequence[str] = ()


def checked_parts(target: Target, class_id: int, options: ExplanationOptions) -> list[str]:
    """The parts to run, in the order of PARTS.

    TargetError for an unknown class, part or layer, and for a requested part that is not possible; ImageError for a folder
    without real images.
    """
    _check_classes(target, class_id, options.against)
    chosen = _chosen(target, options)
    _check_layers(target, options.layers, options.dream)
    if options.real_images is not None:
        real_pictures(options.real_images, target)
    return chosen


def without_gradients(target: Target) -> str:
    """One line: the parts that a target without gradients cannot have, and the attacks that need none."""
    rest = [name for name in PARTS if name not in _BY_GRADIENT]
    return (
        f"{target.name} has no gradients, so there is no {', '.join(_BY_GRADIENT[:-1])} or {_BY_GRADIENT[-1]}; "
        f"possible are {', '.join(rest)} "
        "(by pixels only). Attacks that need no gradients: evofool baseline square, nes or random."
    )


def _chosen(target: Target, options: ExplanationOptions) -> list[str]:
    """The parts to run, in order."""
    for name in options.only:
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise TargetError(f'an explanation has no part "{name}"; its parts are {", ".join(PARTS)}{hint}')
    if not target.differentiable and set(options.only) & set(_BY_GRADIENT):
        raise no_gradients(target)
    if options.real_images is None and "nearest" in options.only:
        raise ImageError("the part nearest needs a folder of real images: --real-images DIR")
    if not options.dream and "dream" in options.only:
        raise TargetError(f"the part dream needs a layer to enhance: --dream LAYER, for example {evenly(target, 2)[0]}")
    # With gradients there are better maps for fewer passes than RISE's.
    absent = {*((() if "rise" in options.only else ("rise",)) if target.differentiable else _BY_GRADIENT)}
    if not available():
        if asked := [name for name in BY_CAPTUM if name in options.only]:
            raise TargetError(f"the part {asked[0]} needs captum, which is not installed: {INSTALL}")
        absent |= {*BY_CAPTUM}
    if target.network is not None and target.network.no_layers and "inversion" not in options.only:
        absent.add("inversion")
    absent |= {name for name, needed in (("nearest", options.real_images), ("dream", options.dream)) if not needed}
    has_map = set(_MAPS) & ({*options.only} - absent)
    for name in ("curves", ENOUGH):
        # Backward selection, by gradients, makes a map.
        if name in options.only and not has_map and not (target.differentiable and ENOUGH in options.only):
            raise TargetError(f"the part {name} needs a part with a map, for example --parts {_MAPS[0]},{name}")
    return [name for name in PARTS if name not in absent and (not options.only or name in options.only)]


def _check_classes(target: Target, class_id: int, against: int | None) -> None:
    for each in (class_id, *([] if against is None else [against])):
        if not 0 <= each < len(target.labels):
            raise TargetError(f"{target.name}: no class {each}; it has 0 to {len(target.labels) - 1}")
    if class_id == against:
        raise TargetError(
            f"{target.labels[class_id]} (class {class_id}) is the class that is explained, and cannot be compared with "
            "itself; name another class, or leave --against out for the next class"
        )


def _check_layers(target: Target, layers: Sequence[str], dream: str) -> None:
    for layer in filter(None, (*layers, dream)):
        if not target.differentiable:
            raise no_gradients(target)
        if layer not in layer_names(target) and (layer != LOGITS or dream == LOGITS):
            raise unknown_layer(target, layer)
