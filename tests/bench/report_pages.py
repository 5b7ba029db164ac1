"""The files of a report of invented results, and the text of a page."""

from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from evofool.bench.report.bench_report import FIRST, bench_report
from evofool.bench.report.pictures import Tiles
from tests.bench.samples import summary

ARMS = ["direct", "cppn", "per-class", "square", "apgd"]
THREE = ["direct", "cppn", "per-class"]


class Reader(HTMLParser):
    """The tags with their attributes, and the text, a line for each element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page[page.index("<body>") :])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag in ("i", "b") else "\n"

    def handle_data(self, data: str) -> None:
        self.text += data


def written(
    found: list[dict[str, Any]], data: dict[str, Any] | None = None, images: Tiles | None = None, notes: Sequence[str] = ()
) -> dict[str, bytes]:
    """The files of a report, in their order. Without data: that of the samples, without groups for a single target."""
    if data is None:
        data = summary(found) | ({"groups": {}} if len(found) == 1 else {})
    return dict(bench_report(found, data, images or {}, notes))


def text_of(files: dict[str, bytes], path: str = FIRST) -> str:
    return Reader(files[path].decode()).text
