"""How long a list of jobs will still take, from the jobs that run and those that ended last."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

_SHARE = 0.02  # of a job that has to be done before its duration is estimated


class Running(NamedTuple):
    """A job that runs.

    share: how much of it is done, 0 to 1. share_at_start: how much was done at its first report here, `seconds` before.
    """

    share: float
    share_at_start: float
    seconds: float

    @property
    def whole(self) -> float | None:
        """Seconds that the whole job takes at its rate; None if too little of it is done."""
        done = self.share - self.share_at_start
        return self.seconds / done if done >= _SHARE else None


class TimeLeft:
    """Estimates the time that is left.

    Jobs that wait are assumed to take as long as the mean of those that run and of as many that ended last, since jobs that
    are alike follow each other: those of one target, for example.
    """

    def __init__(self) -> None:
        self._last: dict[int, float] = {}  # by job that runs, its estimated duration
        self._ended: deque[float] = deque(maxlen=1024)
        self._parallel = 1

    def ended(self, job: int) -> None:
        """Note that a job ended."""
        if (whole := self._last.pop(job, None)) is not None:
            self._ended.append(whole)

    def seconds(self, running: Mapping[int, Running], waiting: int) -> float | None:
        """Seconds until all jobs are done; None while that is not known. running: by job. waiting: jobs not yet begun."""
        self._last |= {job: whole for job, of in running.items() if (whole := of.whole) is not None}
        self._parallel = max(len(running), self._parallel)
        recent = [*(self._last[job] for job in running if job in self._last), *[*self._ended][-self._parallel :]]
        if not recent:
            return None
        mean = sum(recent) / len(recent)
        left = [(1 - of.share) * self._last.get(job, mean) for job, of in running.items()]
        return max([*left, (sum(left) + waiting * mean) / self._parallel])
