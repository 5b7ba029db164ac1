"""The result of a part of an explanation, and what a part gets: a function for progress, a counter of passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from evofool.ascend.loop import Tick
from evofool.errors import EvofoolError
from evofool.pages.html_page import Picture, Section
from evofool.targets import Target

Report = Callable[[str], None]
"""Called with a line of progress."""

_EVERY = 100  # steps between two lines of progress


class PartResult(NamedTuple):
    """A section of the page, and further pictures that are written to the folder only."""

    section: Section
    more: Sequence[Picture] = ()


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
    def as_forward(self, target: Target) -> Iterator[None]:
        """A context in which every forward pass is followed by a backward pass."""
        before = target.queries
        try:
            yield
        finally:
            self.backwards += target.queries - before

    def ticking(self, report: Report, name: str) -> Tick:
        """A tick for the ascent of one image, which reports every hundredth step and never stops it."""
        before = self.backwards

        def tick(iteration: int, of: int) -> bool:
            self.backwards = before + min(iteration + 1, of)  # the step's backward pass is done when tick is called
            if iteration and iteration % _EVERY == 0:
                report(f"{name}, step {iteration} of {of}")
            return False

        return tick


def fault_of(error: Exception) -> str:
    """An error's message, with the error's type unless it is an EvofoolError."""
    return str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {error}"
