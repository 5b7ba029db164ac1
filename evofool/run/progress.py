"""How far a run has come, for displays."""

from dataclasses import dataclass

import numpy as np

from evofool.run.stopping import Search, seconds_left
from evofool.scores import confidence


@dataclass(frozen=True)
class Progress:
    """The state of a run at one moment."""

    evaluations: int
    seconds: float  # of search, over all sessions
    rate: float  # evaluations per second, since the run was started or resumed
    seconds_left: float | None  # to the limit on evaluations or seconds, whichever is nearer
    confidences: np.ndarray  # best of each class that is searched for
    distinct: int
    saved: int  # evaluations at the last checkpoint
    answers: int  # images that the target answered, over all sessions: more than evaluations, because of its validation
    requests: int  # sent for them over a network
    passes: int  # forward passes of surrogates, and as many backward ones
    turned_away: int  # images that search.unlike kept from a place in a class

    @classmethod
    def of(cls, run: Search, rate: float, saved: int, requests: int) -> "Progress":
        """Of a run that makes so many evaluations per second, and was saved after so many."""
        return cls(
            evaluations=run.strategy.evaluations,
            seconds=run.seconds,
            rate=rate,
            seconds_left=seconds_left(run, rate),
            confidences=np.asarray(confidence(run.best()[run.strategy.classes])),
            distinct=run.strategy.archive.distinct(),
            saved=saved,
            answers=run.answers,
            requests=requests,
            passes=run.strategy.passes,
            turned_away=int(run.strategy.turned_away.sum()),
        )

    @property
    def median(self) -> float:
        return float(np.median(self.confidences))

    @property
    def at_99(self) -> int:
        return int((self.confidences >= 0.99).sum())
