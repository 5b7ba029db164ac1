"""Parts of an explanation that cover parts of the image and query again, as sections of its page."""

from collections.abc import Sequence

import numpy as np

from evofool.explain.elements import Element, find_elements
from evofool.explain.masks import SHARE, most_effective, occlusion_mask
from evofool.explain.occlusion import Ablation, Occlusion, ablate, occlude
from evofool.explain.part_result import PartResult, Report, counting
from evofool.explain.parts_masks import check_text, checked
from evofool.explain.phrases import all_copies, confidence_text, counted, scored_text, signed, three_decimals
from evofool.images import encode_png
from evofool.pages.heat import framed, full_scale, heat, numbered, painted
from evofool.pages.html_page import Folded, Picture, Section, Table
from evofool.targets import Target

_LISTED = 10  # elements that are numbered in the picture and listed; the others are folded
_GROUPS = 4  # groups of copies that get a picture and a table
_BLACK, _GREY = (0, 0, 0), (120, 120, 120)


def occlusion_part(target: Target, image: np.ndarray, class_id: int, seed: int, report: Report) -> PartResult:
    """The occlusion map, and the check of its mask. Some hundred queries."""
    found = occlude(target, image, class_id, on_progress=counting(report, "patches"))
    most, least = int(found.drops.argmax()), int(found.drops.argmin())
    boxes = []
    result = "Covering a patch never lowers the log-odds of the class."
    if not found.drops.any():
        result = "Covering a patch does not change the log-odds of the class, wherever it is."
    if found.drops[most] > 0:
        boxes.append((_box(found, most), _BLACK))
        result = (
            f"Covering one patch, the black square, lowers the log-odds of the class by {three_decimals(found.drops[most])} "
            "at most."
        )
    if found.drops[least] < 0:
        boxes.insert(0, (_box(found, least), _GREY))
        result += f" Covering another, the grey square, raises them by {three_decimals(-found.drops[least])} at most."
    description = (
        f"How much the log-odds of the class drop when a patch of {found.patch} x {found.patch} pixels is covered by the "
        f"image's mean colour, for {len(found.drops):,} patches. Each pixel of the map has the mean over the patches that "
        f"cover it. The mask is the {SHARE:.0%} of pixels with the largest drops. Only queries are needed, no gradients."
    )
    full = f"{full_scale(found.map):.3g}"
    scale = f"red: covering lowers the log-odds, full red by {full}; blue: it raises them, full blue by {full}"
    over = heat(found.map, image, signed=True)
    masks = checked(target, image, class_id, "occlusion", occlusion_mask(found.map), over, seed)
    pictures = [
        Picture("Drop of log-odds", encode_png(framed(heat(found.map, signed=True), boxes)), f"{scale}; {_range(found.map)}")
    ]
    if not masks:
        pictures.insert(0, Picture("Drop of log-odds, over the image", encode_png(over), scale))
    text = [result, *check_text(target, class_id, masks), description]
    section = Section("Occlusion", text, "Zeiler & Fergus 2014, section 4.2.", pictures)
    return PartResult(section, maps={"occlusion": found.map}, masks=masks)


def elements_part(target: Target, image: np.ndarray, class_id: int, seed: int, report: Report) -> PartResult:
    """The effect of covering the image's elements, alone and group by group. Up to some hundred queries."""
    description = (
        "The image is divided into elements, connected patches of one colour. Elements of similar size, shape and colour "
        "form a group of copies. Each element is covered by the colour around it and the target is queried again: first "
        "each element alone, then the copies of a group one after the other, in reading order."
    )
    source = "Nguyen, Yosinski & Clune 2015, who removed some of the repeated elements of evolved images."
    elements = find_elements(image, seed=seed)
    if not elements:
        nothing = "The image has no elements of one colour that differ from their background."
        return PartResult(Section("Elements", [nothing, description], source))
    result = ablate(target, image, class_id, elements, on_progress=counting(report, "queries"))
    # Numbered by effect: covering element 1, or group A, lowers the log-odds most.
    ranked = [int(k) for k in np.argsort(result.alone, kind="stable")]
    repeated = sorted((g for g, odds in result.together.items() if len(odds) > 2), key=lambda g: result.together[g][-1])
    letters = {group: chr(ord("A") + k) for k, group in enumerate(repeated)}
    effect = _effect(elements, result)
    over = heat(effect, image, signed=True, clip=1.0)
    masks = checked(target, image, class_id, "elements", most_effective(elements, result), over, seed)
    pictures = [_numbered(image, elements, ranked, letters)]
    if not masks:
        full = f"{full_scale(effect, 1.0):.3g}"
        scale = f"red: covering it lowers the log-odds, full red by {full}; blue: it raises them, full blue by {full}"
        pictures.append(Picture("Effect of each element", encode_png(over), scale))
    tables, folded = [], []
    listed = "Each element covered alone, largest drop first"
    tables.append(_table(elements, ranked[:_LISTED], 1, result, letters, listed))
    if rest := ranked[_LISTED:]:
        folded.append(
            Folded(f"The other {len(rest)} elements", tables=[_table(elements, rest, _LISTED + 1, result, letters, "")])
        )
    text = [
        _costliest(ranked, result),
        *check_text(target, class_id, masks),
        f"{description} The mask is the element, or the copies of a group, without which the log-odds are lowest. Found: "
        f"{counted(len(elements), 'element')}, {counted(len(repeated), 'group')} of copies.",
    ]
    for group in repeated[:_GROUPS]:
        odds, letter = result.together[group], letters[group]
        every = f"Without {all_copies(len(odds) - 1)} copies of group {letter}"
        text.append(
            f"{every} the log-odds are {three_decimals(odds[-1])} (confidence {confidence_text(odds[-1])}) instead of "
            f"{three_decimals(odds[0])}; without the first of them alone {three_decimals(odds[1])}."
        )
        pictures.append(Picture(every, encode_png(result.emptied[group]), scored_text(odds[-1])))
        rows = [[str(k), three_decimals(value), confidence_text(value)] for k, value in enumerate(odds)]
        steps = Table(["removed", "log-odds", "confidence"], rows)
        folded.append(Folded(f"Group {letter}: copies removed one after the other", tables=[steps]))
    return PartResult(Section("Elements", text, source, pictures, tables, folded), maps={"elements": effect}, masks=masks)


def _costliest(ranked: Sequence[int], result: Ablation) -> str:
    """The largest drop and the largest rise from covering one element."""

    def from_to(k: int) -> str:
        return f"from {three_decimals(result.log_odds)} to {three_decimals(result.alone[k])}"

    first, last = ranked[0], ranked[-1]
    text = (
        f"Element 1 has the largest effect: covering it alone lowers the log-odds {from_to(first)}."
        if result.alone[first] < result.log_odds
        else "Covering an element alone never lowers the log-odds of the class."
    )
    if result.alone[last] > result.log_odds:
        text += f" Covering element {len(ranked)} raises them most, {from_to(last)}."
    return text


def _numbered(image: np.ndarray, elements: Sequence[Element], ranked: Sequence[int], letters: dict[int, str]) -> Picture:
    # Largest first, so that elements inside others stay visible.
    copies = [e for e in sorted(elements, key=lambda e: -e.area) if e.group in letters]
    colours = {group: k for k, group in enumerate(letters)}
    groups = painted(image, [e.mask for e in copies], [colours[e.group] for e in copies])
    # Also the last one, which a sentence names.
    drawn = {rank: elements[k].mask for rank, k in enumerate(ranked, 1) if rank <= _LISTED or rank == len(ranked)}
    caption = f"numbered by effect, 1: the largest drop; {len(ranked)}: the smallest" if len(drawn) > 1 else "one element"
    if copies:
        caption += "; one colour for each group of copies"
    return Picture("Elements", encode_png(numbered(groups, drawn)), caption)


def _effect(elements: Sequence[Element], result: Ablation) -> np.ndarray:
    """At each pixel the drop without its element, of several the smallest: (H, W), 0 where there is none."""
    effect = np.zeros(elements[0].mask.shape)
    for k in sorted(range(len(elements)), key=lambda k: -elements[k].area):
        effect[elements[k].mask] = result.log_odds - result.alone[k]
    return effect


def _box(found: Occlusion, k: int) -> tuple[int, int, int, int]:
    top, left = found.corners[k].tolist()
    return top, left, top + found.patch, left + found.patch


def _table(
    elements: Sequence[Element], shown: Sequence[int], begin: int, result: Ablation, letters: dict[int, str], caption: str
) -> Table:
    rows = []
    for rank, k in enumerate(shown, begin):
        element, odds = elements[k], result.alone[k]
        rows.append(
            [
                str(rank),
                letters.get(element.group, ""),
                f"{element.area / element.mask.size:.1%}",
                three_decimals(odds),
                signed(odds - result.log_odds),
                confidence_text(odds),
            ]
        )
    heads = ["element", "group", "area", "log-odds without", "change", "confidence without"]
    return Table(heads, rows, caption)


def _range(values: np.ndarray) -> str:
    return f"{three_decimals(values.min())} to {three_decimals(values.max())} log-odds, means over patches"
