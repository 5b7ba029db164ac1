"""A benchmark's report for people: HTML pages and contact sheets, made from the JSON of its targets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from evofool.bench.report.common import (
    controls_section,
    groups_section,
    images_section,
    protocol_section,
    reading_section,
    statements_section,
    timings_section,
    transfer_section,
)
from evofool.bench.report.comparison import (
    budgets_section,
    queries_section,
    strips_section,
)
from evofool.bench.report.formatting import counted, selection_note
from evofool.bench.report.overview import strongest
from evofool.bench.report.pictures import Tiles, sheet, within_page
from evofool.bench.report.ranking import ranking_head, sorted_results
from evofool.bench.report.sharing import sharing_section
from evofool.bench.report.target_details import detail_sections
from evofool.bench.report.target_page import (
    attacks_section,
    meaning_section,
    target_head,
    target_images_section,
    warnings_section,
)
from evofool.pages.html_page import Link, Picture, Section, html_page

FIRST = "report.html"
FOLDER = "report"
"""The first page, and the folder of the other pages and of the pictures beside it."""

_IMAGES = 220_000  # bytes of the images within a page; base64 makes a third more of them
_STRIP = 10  # images of each target on the page that compares them


def bench_report(
    results: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], tiles: Tiles, notes: Sequence[str] = ()
) -> Iterator[tuple[str, bytes]]:
    """The files of the report, each with its path in the benchmark's folder, FIRST as the last one.

    results: the JSON of each target. summary: the benchmark's JSON. notes: lines for the end of the first page. A single
    target's page is the first one; of several targets that is the page that compares them, which links to the others.
    Invalid results are marked, with the reason, and enter no comparison.
    """
    if len(results) == 1:
        page, pictures = _target_page(results[0], tiles, f"{FOLDER}/", None, notes, summary)
        yield from pictures
        yield FIRST, page
        return
    pages = {result["target"]["name"]: f"{FOLDER}/{_file_name(result['target']['name'])}.html" for result in results}
    back = Link(f"All {counted(len(results), 'target')}", f"../{FIRST}")
    for result in results:
        page, pictures = _target_page(result, tiles, "", back)
        yield from pictures
        yield pages[result["target"]["name"]], page
    yield FIRST, _comparison_page(results, summary, tiles, notes, pages)


def _target_page(
    result: Mapping[str, Any],
    tiles: Tiles,
    beside: str,
    up: Link | None,
    notes: Sequence[str] = (),
    summary: Mapping[str, Any] | None = None,
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The page of a target, and its pictures with their paths. beside: from the page to FOLDER. summary: if it is alone."""
    name = result["target"]["name"]
    best, by_arm = strongest(result, black_box=True), tiles.get(name, {})
    shown, sheets, files = [], [], []
    for arm, read in by_arm.items():
        if not (found := read()):
            continue
        if arm == best:
            shown = within_page(found, _IMAGES)
        png, path = sheet(found), f"images/{_file_name(name)}/{arm}.png"
        sheets.append(Picture(arm, png, selection_note(result), path=f"{beside}{path}"))
        files.append((f"{FOLDER}/{path}", png))
    sections = [
        target_head(result),
        meaning_section([name]),
        target_images_section(result, best or "", shown, sheets) if sheets else None,
        attacks_section(result) if result["valid"] else None,
        warnings_section(result),
        statements_section(summary or {}),
        *(detail_sections(result)),
        replace(sharing_section([result]), closed=True) if result["scores"].get("sharing") else None,
        controls_section([result]),
        images_section([result]),
        timings_section([result]),
        protocol_section([result]),
        reading_section([result]),
    ]
    return _page(f"How easily {name} is fooled", sections, notes, up), files


def _comparison_page(
    results: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    tiles: Tiles,
    notes: Sequence[str],
    pages: Mapping[str, str],
) -> bytes:
    results = sorted_results(results)
    names = [result["target"]["name"] for result in results]
    strips = {}
    for result in results:
        read = tiles.get(name := result["target"]["name"], {}).get(strongest(result, black_box=True) or "")
        if read:
            strips[name] = within_page(read()[:_STRIP], _IMAGES // len(results), sides=(56,))
    sections = [
        ranking_head(results, pages),
        meaning_section(names),
        strips_section(results, strips),
        queries_section(results),
        statements_section(summary),
        groups_section(summary, results),
        transfer_section(summary),
        sharing_section(results),
        budgets_section(results),
        controls_section(results),
        images_section(results),
        timings_section(results),
        protocol_section(results),
        reading_section(results),
    ]
    return _page(f"How easily {counted(len(results), 'classifier')} are fooled", sections, notes, None)


def _page(title: str, sections: Sequence[Section | None], notes: Sequence[str], up: Link | None) -> bytes:
    return html_page(title, [section for section in sections if section], notes, contents=True, up=up).encode()


def _file_name(name: str) -> str:
    """The name of a target, without what leads to another folder; names that recipes may give stay as they are."""
    return quote(name, safe="").replace("..", "%2E%2E")
