"""Which elites of a run are marked, because the black box that scored them may have changed by then."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from evofool.errors import BudgetError, DriftError
from evofool.recipe_parts import ComputePart
from evofool.run.meta import AgreementRecord, DriftRecord, RunMeta
from evofool.targets import Target
from evofool.targets.remote.drift import NOISY


class DriftMarks:
    """When a run's target last agreed with its first answers, and the batches that are marked.

    meta: the run's, as its file has it. compute: of its recipe; None for a run without a search.
    """

    def __init__(self, target: Target, compute: ComputePart | None, meta: RunMeta, folder: Path) -> None:
        self._target, self._folder, self._resumable = target, folder, compute is not None
        self._committed, self._agreed = meta.committed, meta.agreed
        self.drifts = list(meta.drifts)
        if compute is not None:
            configure(target, compute)
            if target.monitor is not None and meta.committed:  # it may have changed since
                target.monitor.restart()

    def note(self, committed: int) -> None:
        """To be called after each commit. A check that is new by then was made between this commit and the one before."""
        requests = self._target.monitor.agreed if self._target.monitor is not None else 0
        if requests > (self._agreed.requests if self._agreed else 0):
            self._agreed = AgreementRecord(committed=self._committed, requests=requests)
        self._committed = committed

    def end(self, committed: int, finished: str | None) -> None:
        """If the run is finished, check what was answered since the last check; DriftError if the target does not agree."""
        if self._target.monitor is not None and committed and finished:
            with suppress(BudgetError):  # no request is left for it
                self._target.monitor.last_check()
            self.note(committed)

    def stopped(self, error: BaseException | None, committed: int, batches: np.ndarray) -> bool:
        """Whether the run was stopped by a drift; then mark the batches since the last agreement, and say so in the error.

        batches: those of the elites, negative where there is none.
        """
        if not isinstance(error, DriftError):
            return False
        self.note(committed)
        begin = self._agreed.committed if self._agreed else 0
        if begin < committed:
            record = DriftRecord(begin=begin, end=committed, requests=error.now, reason=str(error))
            self.drifts = [drift for drift in self.drifts if drift.begin != begin] + [record]
        error.args = (f"{error}. {self._way_out(error, batches[batches >= 0])}",)
        return True

    def state(self) -> dict[str, Any]:
        """The values of RunMeta."""
        return {"agreed": self._agreed, "drifts": self.drifts}

    def _way_out(self, error: DriftError, batches: np.ndarray) -> str:
        marked = sum(is_marked(batch, self.drifts) for batch in batches.tolist())
        made = "No elite was made since then"
        if marked:
            made = f"Of {len(batches):,} elites, {marked:,} were made since then and are marked"
        other, same, vary = "pass another --out", "the same command continues", ""
        if self._resumable:
            folder = quote(str(self._folder))
            other, same = f"evofool run RECIPE --parents {folder} --out DIR", f"evofool run {folder} --trust"
            if error.largest <= NOISY:
                vary = f". If its answers vary by so much without a change: {same} --set compute.recheck_tolerance="
                vary += f"{2 * error.largest:.1g}"
        return f"{made}. To attack the target as it is now: {other}. If it answers as before again: {same}{vary}"


def is_marked(batch: int, drifts: Sequence[DriftRecord]) -> bool:
    """Whether a genome of this batch was answered between a check that agreed and one that did not."""
    return any(drift.begin <= batch < drift.end for drift in drifts)


def configure(target: Target, compute: ComputePart) -> None:
    """Let a black box be checked as a recipe says."""
    if target.monitor is not None:
        target.monitor.every, target.monitor.tolerance = compute.recheck, compute.recheck_tolerance
