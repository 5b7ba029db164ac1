"""Whether the images look like their class: what was measured, and what people said."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.report.formatting import counted, share_cell
from evofool.pages.html_page import NOTHING, Section, Table, TableRow

_MEASURED, _PEOPLE = "measure", "people"


def looked_sentence(results: Sequence[Mapping[str, Any]]) -> str:
    """Who has looked at the images of these targets."""
    found = [entry for result in results if (entry := (_of(result) or {}).get(_PEOPLE))]
    if not found:
        return "Nobody has looked at the images: how many of them show the class that they were made for is not known."
    raters = max(entry["raters"] for entry in found)
    images, alike, undecided = (sum(entry[key] for entry in found) for key in ("images", "alike", "open"))
    some = "" if len(found) == len(results) else f" of {len(found)} of {counted(len(results), 'target')}"
    who = counted(raters, "person") if raters == 1 else f"{raters:,} people"
    return (
        f"{'' if len(found) == 1 else 'Up to '}{who} looked at {counted(images, 'image')}{some}: "
        f"{alike:,} {'shows its' if alike == 1 else 'show their'} class, {undecided:,} {'is' if undecided == 1 else 'are'} "
        "undecided."
    )


def likeness_section(result: Mapping[str, Any]) -> Section:
    """The share of classes fooled with all images, and without those that look like their class."""
    text = [
        "An image that shows its class is no fault of the classifier. What counts is the image that each attack had at its "
        "end, which may be another one than the first that fooled the target."
    ]
    found = _of(result)
    if not found:
        more = (
            "Until somebody looks at the images, every accepted image counts: evofool quiz DIR/cells/... asks people about "
            "the images of one cell, and the same evofool bench command then has their answers."
        )
        return Section("Without images that look like their class", [*text, more])
    rows: list[TableRow] = [["all", share_cell(found["with"]), NOTHING, NOTHING]]
    if measured := found.get(_MEASURED):
        what = "without those whose shape is one of the class (measured)"
        rows.append([what, share_cell(measured["without"]), f"{measured['images']:,}", f"{measured['alike']:,}"])
    if people := found.get(_PEOPLE):
        what = (
            f"without those that people recognise as the class (raters: {people['raters']:,}; undecided: {people['open']:,})"
        )
        rows.append([what, share_cell(people["without"]), f"{people['images']:,}", f"{people['alike']:,}"])
    heads = ["images that count", f"fooled within {found['queries_per_class']:,} queries a class", "judged", "look like it"]
    return Section("Without images that look like their class", text, tables=[Table(heads, rows)])


def _of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = result["scores"].get("likeness")
    return found
