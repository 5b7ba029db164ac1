"""Which jobs have been silent for too long. Independent of Ray."""

from collections.abc import Iterable
from dataclasses import dataclass

FIRST = 4  # times the limit that a first report, and a pause between two reports, may take: networks are loaded and compiled


@dataclass
class _Signs:
    counts: tuple[int, int]  # of reports, and of signs of life (heartbeats)
    report: float  # when the first count last grew
    life: float  # when either did


class Silence:
    """Times are passed in, in seconds. limit: how long a job's process may give no sign of life."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._signs: dict[int, _Signs] = {}

    def begin(self, job: int, now: float) -> None:
        """The job is given to a worker, which has not begun it."""
        self._signs[job] = _Signs((0, 0), now, now)

    def update(self, job: int, counts: tuple[int, int], now: float) -> None:
        """counts: the reports and the signs of life that have come from a job's worker."""
        signs = self._signs[job]
        if counts[0] != signs.counts[0]:
            signs.report = now
        if counts != signs.counts:
            signs.life = now
        signs.counts = counts

    def restart(self, jobs: Iterable[int], now: float) -> None:
        """Count from now: what passes on the signs of these jobs did not answer, so that they may have given some."""
        for job in jobs:
            self._signs[job].report = self._signs[job].life = now

    def begun(self, job: int) -> bool:
        """Whether a process has it."""
        return self._signs[job].counts != (0, 0)

    def reason(self, job: int, now: float) -> str:
        """Why a job is taken to hang, "" if it is not."""
        signs = self._signs[job]
        if not signs.counts[0]:  # no process, or one that is still importing what the job needs
            return self._text("it was not begun", signs.report, self.limit * FIRST, now)
        silent = self._text("its process gave no sign of life", signs.life, self.limit, now)
        return silent or self._text("it reported no progress", signs.report, self.limit * FIRST, now)

    @staticmethod
    def _text(what: str, since: float, limit: float, now: float) -> str:
        return f"{what} in {limit:g} seconds" if now - since > limit else ""
