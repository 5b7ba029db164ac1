"""What a part of an explanation hands over, and what it is handed: lines to say, a count of its passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from evofool.ascend.loop import Tick
from evofool.errors import EvofoolError
from evofool.pages.html_page import Picture, Section
from evofool.targets import Target

Say = Callable[[str], None]
_TOLD = 100  # steps between two lines of progress


class PartResult(NamedTuple):
    """A section of the page, and pictures for the folder that would be too many for the page."""

    section: Section
    more: Sequence[Picture] = ()


class PartInterrupted(KeyboardInterrupt):
    """Ctrl-C within a part that has something to show already, which is `found`."""

    def __init__(self, found: PartResult) -> None:
        super().__init__()
        self.found = found


@dataclass
class PassCounter:
    """Backward passes, of one image each, counted as they are taken: a part that fails has taken some too.

    The target counts the forward ones.
    """

    backwards: int = 0

    @contextmanager
    def as_forward(self, target: Target) -> Iterator[None]:
        """What takes a backward pass for every forward one."""
        before = target.queries
        try:
            yield
        finally:
            self.backwards += target.queries - before

    def ticking(self, say: Say, name: str) -> Tick:
        """A tick for an ascent of one image, which says every hundredth step. It never says stop."""
        before = self.backwards

        def tick(iteration: int, of: int) -> bool:
            self.backwards = before + min(iteration + 1, of)  # a step's backward pass is done once it is told
            if iteration and iteration % _TOLD == 0:
                say(f"{name}, step {iteration} of {of}")
            return False

        return tick


def fault_of(error: Exception) -> str:
    """An error in words: our own sentence, or what somebody's code raised."""
    return str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {error}"
