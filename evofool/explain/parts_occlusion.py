"""The parts of an explanation that cover some of the image and ask again, as sections of its page."""

from collections.abc import Sequence

import numpy as np

from evofool.explain.elements import Element, find_elements
from evofool.explain.occlusion import Ablation, ablate, occlude
from evofool.explain.part_result import PartResult
from evofool.explain.phrases import all_of, change, count, number, place, scored, span, sure
from evofool.images import encode_png
from evofool.pages.heat import full_scale, heat, numbered, painted
from evofool.pages.html_page import Folded, Picture, Section, Table
from evofool.targets import Target

_LISTED = 10  # elements that are numbered in the picture and listed at once
_GROUPS = 4  # groups of copies that get a picture and a table of their own


def occlusion_part(target: Target, image: np.ndarray, class_id: int) -> PartResult:
    """The occlusion map. Some hundred queries."""
    found = occlude(target, image, class_id)

    def where(k: np.intp) -> str:
        top, left = found.corners[k].tolist()
        return place(top, left, top + found.patch, left + found.patch)

    most, least = found.drops.argmax(), found.drops.argmin()
    told = (
        f"Covering one patch costs the class {number(found.drops[most])} in log-odds at most: {where(most)}."
        if found.drops[most] > 0
        else "No patch takes anything from the class: covering any makes the target surer, or changes nothing."
    )
    if found.drops[least] < 0:
        told += f" Covering another raises them, by {number(-found.drops[least])} at most: {where(least)}."
    what = (
        f"How far the log-odds of the class drop when a patch of {found.patch} x {found.patch} pixels is covered by the "
        f"image's mean colour, for {len(found.drops):,} patches. The map has at each pixel the mean over the patches that "
        "cover it. It asks for answers alone, so it is the same for a black box."
    )
    scale = f"red: speaks for the class; full red = {full_scale(found.map):.3g} log-odds, blue the same against it"
    pictures = [
        Picture("Drop of log-odds, over the image", encode_png(heat(found.map, image, signed=True)), scale),
        Picture("Drop of log-odds", encode_png(heat(found.map, signed=True)), _range(found.map)),
    ]
    return PartResult(Section("Occlusion", [told, what], "Zeiler & Fergus 2014, section 4.2.", pictures))


def elements_part(target: Target, image: np.ndarray, class_id: int, seed: int) -> PartResult:
    """Which of the image's elements matter, and what its copies are worth. Up to some hundred queries."""
    what = (
        "The image is cut into elements, connected patches of one colour; those alike in size, shape and colour are copies "
        "of one another, a group. Each is covered by the colour around it and the target asked again: first each alone, "
        "then the copies of a group one after the other, in reading order."
    )
    source = "Nguyen, Yosinski & Clune 2015, who removed some of the repeated elements of evolved images."
    elements = find_elements(image, seed=seed)
    if not elements:
        nothing = "Nothing stands out from its background in one colour: no elements."
        return PartResult(Section("Elements", [nothing, what], source))
    result = ablate(target, image, class_id, elements)
    # Numbers and letters go by worth: element 1 and group A cost most.
    ranked = [int(k) for k in np.argsort(result.alone, kind="stable")]
    repeated = sorted((g for g, odds in result.together.items() if len(odds) > 2), key=lambda g: result.together[g][-1])
    letters = {group: chr(ord("A") + k) for k, group in enumerate(repeated)}
    pictures = [_numbered(image, elements, ranked, letters), _worth(image, elements, result)]
    tables, folded = [], []
    listed = "Each element covered alone, those first whose covering costs most"
    tables.append(_table(elements, ranked[:_LISTED], 1, result, letters, listed))
    if rest := ranked[_LISTED:]:
        folded.append(Folded(f"The other {len(rest)}", tables=[_table(elements, rest, _LISTED + 1, result, letters, "")]))
    text = [
        _costliest(elements, ranked, result),
        f"{what} Found: {count(len(elements), 'element')}, {count(len(repeated), 'group')} of copies.",
    ]
    for group in repeated[:_GROUPS]:
        odds, letter = result.together[group], letters[group]
        every = f"Without {all_of(len(odds) - 1)} copies of group {letter}"
        text.append(
            f"{every} the log-odds are {number(odds[-1])} (confidence {sure(odds[-1])}) instead of {number(odds[0])}; "
            f"without the first of them alone {number(odds[1])}."
        )
        pictures.append(Picture(every, encode_png(result.emptied[group]), scored(odds[-1])))
        rows = [[str(k), number(value), sure(value)] for k, value in enumerate(odds)]
        steps = Table(["removed", "log-odds", "confidence"], rows)
        folded.append(Folded(f"Group {letter}: copies removed one after the other", tables=[steps]))
    return PartResult(Section("Elements", text, source, pictures, tables, folded))


def _costliest(elements: Sequence[Element], ranked: Sequence[int], result: Ablation) -> str:
    """What covering one element does at most, either way."""

    def goes(k: int) -> str:
        return f"from {number(result.log_odds)} to {number(result.alone[k])}"

    first, last = ranked[0], ranked[-1]
    said = (
        f"Element 1 ({place(*elements[first].box)}) matters most: covering it alone takes the log-odds {goes(first)}."
        if result.alone[first] < result.log_odds
        else "No element takes anything from the class: covering any alone makes the target surer, or changes nothing."
    )
    if result.alone[last] > result.log_odds:
        said += f" Covering element {len(ranked)} ({place(*elements[last].box)}) raises them most, {goes(last)}."
    return said


def _numbered(image: np.ndarray, elements: Sequence[Element], ranked: Sequence[int], letters: dict[int, str]) -> Picture:
    # The largest first, so that what lies within an element is seen.
    copies = [e for e in sorted(elements, key=lambda e: -e.area) if e.group in letters]
    colours = {group: k for k, group in enumerate(letters)}
    groups = painted(image, [e.mask for e in copies], [colours[e.group] for e in copies])
    first = ranked[:_LISTED]
    caption = f"1 to {len(first)}: those whose covering costs most" if len(first) > 1 else "there is one"
    if copies:
        caption += "; a colour for each group of copies"
    return Picture("Elements", encode_png(numbered(groups, [elements[k].mask for k in first])), caption)


def _worth(image: np.ndarray, elements: Sequence[Element], result: Ablation) -> Picture:
    worth = np.zeros(image.shape[1:])
    for k in sorted(range(len(elements)), key=lambda k: -elements[k].area):
        worth[elements[k].mask] = result.log_odds - result.alone[k]
    scale = (
        f"red: covering it costs the class; full red = {full_scale(worth, 1.0):.3g} log-odds, blue the same the other way"
    )
    return Picture("What each is worth", encode_png(heat(worth, image, signed=True, clip=1.0)), scale)


def _table(
    elements: Sequence[Element], shown: Sequence[int], begin: int, result: Ablation, letters: dict[int, str], caption: str
) -> Table:
    rows = []
    for rank, k in enumerate(shown, begin):
        element, odds = elements[k], result.alone[k]
        top, left, bottom, right = element.box
        where = [span(top, bottom), span(left, right), f"{element.area / element.mask.size:.1%}"]
        rows.append(
            [str(rank), letters.get(element.group, ""), *where, number(odds), change(odds - result.log_odds), sure(odds)]
        )
    heads = ["element", "group", "rows", "columns", "area", "log-odds without", "change", "confidence without"]
    return Table(heads, rows, caption)


def _range(values: np.ndarray) -> str:
    return f"{number(values.min())} to {number(values.max())} log-odds, means over patches"
