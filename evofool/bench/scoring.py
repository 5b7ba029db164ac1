"""A target's scores, out of the traces of its cells: the numbers of the protocol, and nothing that a temperature changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evofool.bench import statistics
from evofool.bench.arms import ARMS, SHARING
from evofool.bench.calibration import Calibration
from evofool.bench.statistics import quantiles
from evofool.bench.trace import Trace

REPLICATES = 400  # bootstrap samples of the real images
_POINTS = 80  # of a curve
_GUIDED = ("search", "black", "white")
_HAIR = 1e-9


@dataclass(frozen=True)
class ScoredCell:
    """What is read of a cell that is done. logits: (n, K) float32 of the saved images of `classes` (n,), in this order."""

    trace: Trace
    classes: np.ndarray
    logits: np.ndarray
    forwards: int
    backwards: int
    answers: int


@dataclass(frozen=True)
class _Judged:
    """The cells of an arm by one level: after how many queries each class was accepted.

    at: (S, n) float64, NaN where never; again: (R, S, n), by resampled thresholds.
    """

    at: np.ndarray
    again: np.ndarray

    def shares(self, grid: np.ndarray) -> np.ndarray:
        """(S, Q): the share of classes accepted within each number of queries."""
        return statistics.shares(self.at, grid)

    def q50(self) -> list[float | None]:
        return _list(statistics.q50(self.at))


class Scoring:
    """Scores a target's arms, by the thresholds of its calibration.

    cells: by arm and seed, valid ones alone. budgets ascend. Classes without real images are left out.
    """

    def __init__(
        self,
        calibration: Calibration,
        cells: Mapping[str, Mapping[int, ScoredCell]],
        budgets: Sequence[int],
        replicates: int = REPLICATES,
    ) -> None:
        self.calibration, self.cells, self.budgets = calibration, cells, tuple(budgets)
        self.budget = self.budgets[-1]
        self.classes = np.flatnonzero(calibration.scored)
        self._taus = {
            level: (
                calibration.tau(level)[None, self.classes],
                calibration.resampled(level, replicates)[:, self.classes],
            )
            for level in ("tau5", "tau50")
        }
        self._judged: dict[tuple[str, str], _Judged] = {}

    def arm(self, name: str) -> dict[str, Any]:
        """What the JSON says of an arm that has at least one valid cell."""
        cells = self.cells[name]
        k = len(self.classes)
        judged = self.judged(name, "tau5")
        grid = _grid(k, self.budget, self.budgets)
        value, low, high = statistics.band(judged.shares(grid), statistics.shares(judged.again, grid), k)
        per_seed, again = judged.q50(), statistics.q50(judged.again)
        half = statistics.queries_interval(per_seed, self.budget, again)
        best = np.concatenate([cell.trace.best() for cell in cells.values()])
        return {
            "kind": ARMS[name].kind,
            "seeds": list(cells),
            "r95": self._at_budgets(judged),
            "r50": self._at_budgets(self.judged(name, "tau50")),
            "q50": {
                **half.to_dict(),
                "censored": half.censored,
                "per_seed": per_seed,
                # Of the mean of log10 Q50, by the thresholds' being estimates: bench compare needs it.
                "threshold_variance": statistics.tau_variance(again, self.budget),
                "queries_per_class": None if half.value is None else half.value / k,
            },
            "curve": {"queries": grid.tolist(), "value": _list(value), "low": _list(low), "high": _list(high)},
            "margin_percentiles": quantiles(self.calibration.percentile(best)),
            "scaled_margins": quantiles(best / self.calibration.scale),
            "calibrated_confidence": self._calibrated_confidence(name),
            "accepted_at": {
                str(seed): [None if np.isnan(q) else int(q) for q in row] for seed, row in zip(cells, judged.at, strict=True)
            },
            "cost": {
                "queries": self.budget if ARMS[name].kind != "floor" else k,
                **{
                    what: float(np.mean([getattr(cell, what) for cell in cells.values()]))
                    for what in ("forwards", "backwards", "answers")
                },
            },
        }

    def raw(self, name: str) -> dict[str, float]:
        """Quantiles over seeds and classes of the saved images' confidence as the target tells it."""
        from evofool.scores import confidence, log_odds

        told = [
            np.asarray(confidence(log_odds(cell.logits)[np.arange(len(cell.classes)), cell.classes]))
            for cell in self.cells[name].values()
        ]
        return quantiles(np.concatenate(told)) if told else {}

    def sharing(self, arm: str = "cppn") -> dict[str, Any]:
        """How many times the queries of `arm` its rivals need until half of the classes are accepted, paired by seed.

        Over 1: the arm, whose classes share their images, needs fewer.
        """
        out = {}
        for rival in SHARING:
            if not self.cells.get(arm) or not self.cells.get(rival):
                continue
            both = [seed for seed in self.cells[arm] if seed in self.cells[rival]]
            ours, theirs = (self._of_seeds(name, both) for name in (arm, rival))
            again = statistics.q50(theirs.again), statistics.q50(ours.again)
            told = statistics.paired_ratio(theirs.q50(), ours.q50(), self.budget, *again)
            out[rival] = told.to_dict() | {"pairs": told.number, "censored": told.censored}
        return out

    def judged(self, name: str, level: str) -> _Judged:
        """The cells of an arm by "tau5" or "tau50"."""
        if (name, level) not in self._judged:
            tau, again = self._taus[level]
            traces = [cell.trace for cell in self.cells[name].values()]
            at = np.concatenate([trace.accepted_at(tau) for trace in traces])
            self._judged[name, level] = _Judged(at, np.stack([trace.accepted_at(again) for trace in traces], axis=1))
        return self._judged[name, level]

    def _of_seeds(self, name: str, seeds: Sequence[int]) -> _Judged:
        judged, rows = self.judged(name, "tau5"), [list(self.cells[name]).index(seed) for seed in seeds]
        return _Judged(judged.at[rows], judged.again[:, rows])

    def _at_budgets(self, judged: _Judged) -> list[dict[str, Any]]:
        k, grid = len(self.classes), np.array(self.budgets)
        shares, again = judged.shares(grid), statistics.shares(judged.again, grid)
        out = []
        for b, budget in enumerate(self.budgets):
            told = statistics.share_interval(shares[:, b], again[..., b], k)
            out.append(
                {
                    "queries": budget,
                    "queries_per_class": budget / k,
                    "value": told.value,
                    "low": told.low,
                    "high": told.high,
                    "per_seed": shares[:, b].tolist(),
                    # Of the mean share, by the thresholds' being estimates: bench compare needs it.
                    "threshold_variance": float(again[..., b].mean(axis=1).var(ddof=1)),
                }
            )
        return out

    def _calibrated_confidence(self, name: str) -> dict[str, float] | None:
        """Quantiles over seeds and scored classes of the saved images' confidence at the fitted temperature: 0 of a class
        that has no image. None where no temperature could be fitted."""
        told = []
        for cell in self.cells[name].values():
            p = np.zeros(len(self.calibration.labels))
            if len(cell.classes):
                fitted = self.calibration.calibrated_confidence(cell.logits)
                if fitted is None:
                    return None
                p[cell.classes] = fitted[np.arange(len(cell.classes)), cell.classes]
            told.append(p[self.classes])
        return quantiles(np.concatenate(told))


def flags(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """What is odd about an evaluation, after Croce & Hein's AutoAttack: each is a reason to look, none a proof.

    arms: as Scoring.arm gives them.
    """
    out = []

    def last(kinds: Sequence[str]) -> dict[str, float]:
        return {name: arm["r95"][-1]["value"] for name, arm in arms.items() if arm["kind"] in kinds}

    white, black = last(["white"]), last(["search", "black"])
    if white and black and max(white.values()) < max(black.values()) - _HAIR:
        best, other = max(white, key=lambda n: white[n]), max(black, key=lambda n: black[n])
        out.append(
            f"gradients find less than asking does ({best} {white[best]:.2f}, {other} {black[other]:.2f} of the classes): "
            "they may be masked, or of little use at this budget"
        )
    for name, arm in arms.items():
        shares = [point["value"] for point in arm["r95"]]
        if arm["kind"] in _GUIDED and name != "random" and len(shares) > 1 and shares[-1] <= shares[0] < 1:
            out.append(
                f"{name} accepts no more classes after {arm['r95'][-1]['queries']:,} queries than after "
                f"{arm['r95'][0]['queries']:,} ({shares[-1]:.2f}): too small a budget, or nothing to climb"
            )
    return [{"level": "warning", "message": words} for words in out]


def _grid(classes: int, budget: int, budgets: Sequence[int]) -> np.ndarray:
    """Numbers of queries from 1 to the budget, evenly spread on a logarithmic scale, the budgets among them."""
    return np.unique(np.concatenate([np.geomspace(1, budget, _POINTS).round(), budgets]).astype(int))


def _list(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
