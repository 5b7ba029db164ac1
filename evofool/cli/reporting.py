"""How the commands that explain show their progress: lines, and live where that is possible."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from evofool.printer import duration, print_lines, status

if TYPE_CHECKING:
    from evofool.explain.part_result import Progress


@contextlib.contextmanager
def reporting(as_json: bool) -> "Iterator[Callable[[str | Progress], None]]":
    """A function that prints lines, and shows progress live on a terminal and in lines elsewhere; silent for JSON."""
    if as_json:
        yield lambda _event: None
        return
    with status() as show_status:
        yield lambda event: print_lines(event) if isinstance(event, str) else show_status(lambda: progress_text(event))


def progress_text(p: "Progress") -> str:
    """As in "occlusion: 96 of 225 patches, 12/s, about 11 s left"."""
    if not p.rate:
        return str(p)
    left = f", about {duration((p.of - p.done) / p.rate)} left" if p.done < p.of else ""
    return f"{p}, {p.rate:.3g}/s{left}"
