"""search.lag over the course of a run: where a run continues with another one, that holds from the next batch on.

A lag that grows is reached at once: the missing batches are drawn from the archive as it is. For one that shrinks, some
batches in progress are finished first. Both depend only on what is committed and drawn, so a killed run repeats them.
"""

from collections.abc import Sequence

from evofool.run.meta import LagRecord


def with_lag(lags: Sequence[LagRecord], before: int, lag: int, *, next_batch: int, committed: int) -> list[LagRecord]:
    """lags (RunMeta.lags) of a search that continues with `lag`, from the batch next_batch on. before: its lag until now."""
    if lag == before:
        return list(lags)
    earlier = list(lags) or [LagRecord(batch=0, committed=0, lag=before)]
    kept = [one for one in earlier if one.batch < next_batch]  # a lag that no batch was drawn with is forgotten
    if kept and kept[-1].lag != lag:
        kept.append(LagRecord(batch=next_batch, committed=committed, lag=lag))
    return kept if len(kept) > 1 else []


def drawn_after(batch: int, lag: int, lags: Sequence[LagRecord]) -> int:
    """How many batches are committed when the parents of this one are drawn, in a reproducible search.

    lag: that of the recipe, for a search that always had the same.
    """
    for one in reversed(lags):
        if one.batch <= batch:
            return max(one.committed, batch - one.lag)
    return max(0, batch - lag)
