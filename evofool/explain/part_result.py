"""The result of a part of an explanation, and what a part gets: a function for progress, a counter of passes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from evofool.ascend.loop import Tick
from evofool.errors import EvofoolError
from evofool.explain.mask_check import CheckedMask
from evofool.pages.html_page import Picture, Section
from evofool.targets import Target


@dataclass(frozen=True)
class Progress:
    """How far a part is: `done` of `of`, counted in `unit`. what: what is under way, or "".

    rate: units a second since the first report, whose own pass also prepares the network; 0 while it is not known.
    """

    what: str
    done: int
    of: int
    unit: str
    rate: float = 0.0

    def __str__(self) -> str:
        return f"{self.what}{self.what and ': '}{self.done:,} of {self.of:,} {self.unit}"


Report = Callable[[str | Progress], None]
"""Called with a line for each event, and with Progress up to several times a second; str() of either is one line."""


def prefixed(part: str, report: Report) -> Report:
    """report, with the part's name before what is reported."""

    def named(event: str | Progress) -> None:
        if isinstance(event, str):
            report(f"{part}: {event}")
        else:
            report(replace(event, what=f"{part}: {event.what}" if event.what else part))

    return named


def counting(report: Report, unit: str, what: str = "") -> Callable[[int, int], None]:
    """A function of (done, of) that reports Progress."""
    first: list[tuple[int, float]] = []

    def count(done: int, of: int) -> None:
        now = time.perf_counter()
        if not first:
            first.append((done, now))
        before, then = first[0]
        report(Progress(what, done, of, unit, (done - before) / (now - then) if now > then else 0.0))

    return count


class PartMask(NamedTuple):
    """A checked mask, the picture of it that the answer shows, and the part's map over the image with the mask's outline."""

    found: CheckedMask
    where: Picture
    over: Picture


class PartResult(NamedTuple):
    """A section of the page, and further pictures that are written to the folder only.

    maps: float (H, W) by name, higher where the class depends on a pixel. masks: those of the part. figures: JSON values by
    name.
    """

    section: Section
    more: Sequence[Picture] = ()
    maps: Mapping[str, np.ndarray] = MappingProxyType({})
    masks: Sequence[PartMask] = ()
    figures: Mapping[str, Any] = MappingProxyType({})


class PartInterrupted(KeyboardInterrupt):
    """Ctrl-C within a part that has a partial result, which is `found`."""

    def __init__(self, found: PartResult) -> None:
        super().__init__()
        self.found = found


@dataclass
class PassCounter:
    """Counts backward passes of one image each, also those of parts that fail. The target counts forward passes."""

    backwards: int = 0

    @contextmanager
    def as_forward(self, target: Target, each: int = 1) -> Iterator[None]:
        """A context in which every forward pass is followed by `each` backward passes."""
        before = target.queries
        try:
            yield
        finally:
            self.backwards += each * (target.queries - before)

    def ticking(self, report: Report, name: str) -> Tick:
        """A tick for the ascent of one image, which reports every step and never stops it."""
        before, count = self.backwards, counting(report, "steps", name)

        def tick(iteration: int, of: int) -> bool:
            done = min(iteration + 1, of)
            self.backwards = before + done  # the step's backward pass is done when tick is called
            count(done, of)
            return False

        return tick


def fault_of(error: Exception) -> str:
    """An error's message, with the error's type unless it is an EvofoolError."""
    return str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {error}"
