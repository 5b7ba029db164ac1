"""Which jobs have been silent for too long. Independent of Ray."""

from collections.abc import Iterable
from dataclasses import dataclass

FIRST = 4  # times the limit that a first report, and a pause between two reports, may take: networks are loaded and compiled


@dataclass
class _Heard:
    counts: tuple[int, int]  # of reports, and of signs of life
    report: float  # when they last grew
    life: float


class Silence:
    """Times are passed in, in seconds. limit: how long a job's process may give no sign of life."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._heard: dict[int, _Heard] = {}

    def begin(self, job: int, now: float) -> None:
        """The job is given to a worker, which has not begun it."""
        self._heard[job] = _Heard((0, 0), now, now)

    def hear(self, job: int, counts: tuple[int, int], now: float) -> None:
        """counts: the reports and the signs of life that have come from a job's worker."""
        heard = self._heard[job]
        if counts[0] != heard.counts[0]:
            heard.report = now
        if counts != heard.counts:
            heard.life = now
        heard.counts = counts

    def excuse(self, jobs: Iterable[int], now: float) -> None:
        """The silence so far is not that of the jobs: what passes on their signs did not answer."""
        for job in jobs:
            self._heard[job].report = self._heard[job].life = now

    def begun(self, job: int) -> bool:
        """Whether a process has it."""
        return self._heard[job].counts != (0, 0)

    def reason(self, job: int, now: float) -> str:
        """Why a job is taken to hang, "" if it is not."""
        heard = self._heard[job]
        if not heard.counts[0]:  # no process, or one that is still importing what the job needs
            return self._text("it was not begun", heard.report, self.limit * FIRST, now)
        silent = self._text("its process gave no sign of life", heard.life, self.limit, now)
        return silent or self._text("it reported no progress", heard.report, self.limit * FIRST, now)

    @staticmethod
    def _text(what: str, since: float, limit: float, now: float) -> str:
        return f"{what} in {limit:g} seconds" if now - since > limit else ""
