"""A target's scores, computed from the traces of its cells: the numbers of the protocol. No temperature changes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evofool.bench import statistics
from evofool.bench.arms import ARMS, SHARING
from evofool.bench.calibration import Calibration
from evofool.bench.headline import SUITE, ArmAcceptance, headline
from evofool.bench.statistics import quantiles
from evofool.bench.trace import Trace

REPLICATES = 400  # bootstrap samples of the real images
_POINTS = 80  # of a curve
_GUIDED = ("search", "black", "surrogate", "white")
_CLIMBS = ("surrogate_forwards", "surrogate_backwards")
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class CellData:
    """What scores are computed from, of one done cell. logits: (n, K) float32 of the saved images of `classes` (n,)."""

    trace: Trace
    classes: np.ndarray
    logits: np.ndarray
    forwards: int
    backwards: int
    answers: int
    surrogate_forwards: int = 0  # passes of surrogates, which are no queries
    surrogate_backwards: int = 0


@dataclass(frozen=True)
class _Acceptance:
    """The cells of an arm at one level: the query at which each class was accepted.

    at: (S, n) float64, NaN where never; replicates: (R, S, n), with resampled thresholds.
    """

    at: np.ndarray
    replicates: np.ndarray

    def shares(self, grid: np.ndarray) -> np.ndarray:
        """(S, Q): the share of classes accepted within each number of queries."""
        return statistics.shares(self.at, grid)

    def q50(self) -> list[float | None]:
        """By seed, the queries until half of the classes are accepted; None where they are not within the budget."""
        return _list(statistics.q50(self.at))


class Scoring:
    """Scores a target's arms, with the thresholds of its calibration.

    cells: by arm and seed, valid ones only. budgets: ascending. Classes without real images are left out.
    """

    def __init__(
        self,
        calibration: Calibration,
        cells: Mapping[str, Mapping[int, CellData]],
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
        self._acceptances: dict[tuple[str, str], _Acceptance] = {}

    def arm(self, name: str) -> dict[str, Any]:
        """The figures of an arm that has at least one valid cell, as the JSON has them."""
        cells = self.cells[name]
        k = len(self.classes)
        acceptance = self.acceptance(name, "tau5")
        grid = _grid(self.budget, self.budgets)
        value, low, high = statistics.band(acceptance.shares(grid), statistics.shares(acceptance.replicates, grid), k)
        per_seed, replicates = acceptance.q50(), statistics.q50(acceptance.replicates)
        q50 = statistics.queries_interval(per_seed, self.budget, replicates)
        best = np.concatenate([cell.trace.best() for cell in cells.values()])
        return {
            "kind": ARMS[name].kind,
            "seeds": list(cells),
            "r95": self._at_budgets(acceptance),
            "r50": self._at_budgets(self.acceptance(name, "tau50")),
            "q50": {
                **q50.to_dict(),
                "censored": q50.censored,
                "per_seed": per_seed,
                # Of the mean of log10 Q50, since thresholds are estimates: bench compare needs it.
                "threshold_variance": statistics.threshold_variance(replicates, self.budget),
                "queries_per_class": None if q50.value is None else q50.value / k,
            },
            "curve": {"queries": grid.tolist(), "value": _list(value), "low": _list(low), "high": _list(high)},
            "margin_percentiles": quantiles(self.calibration.percentile(best)),
            "scaled_margins": quantiles(best / self.calibration.scale),
            "calibrated_confidence": self._calibrated_confidence(name),
            "accepted_at": {
                str(seed): [None if np.isnan(q) else int(q) for q in row]
                for seed, row in zip(cells, acceptance.at, strict=True)
            },
            "cost": {
                "queries": self.budget if ARMS[name].kind != "floor" else k,
                **{
                    key: float(np.mean([getattr(cell, key) for cell in cells.values()]))
                    for key in ("forwards", "backwards", "answers", *(_CLIMBS if ARMS[name].kind == "surrogate" else ()))
                },
            },
        }

    def raw(self, name: str) -> dict[str, float]:
        """Quantiles over seeds and classes of the saved images' confidence, as the target returns it."""
        from evofool.scores import confidence, log_odds

        confidences = [
            np.asarray(confidence(log_odds(cell.logits)[np.arange(len(cell.classes)), cell.classes]))
            for cell in self.cells[name].values()
        ]
        return quantiles(np.concatenate(confidences)) if confidences else {}

    def sharing(self, arm: str = "cppn") -> dict[str, Any]:
        """By other arm, how many times the queries of `arm` it needs until half of the classes are accepted, paired by seed.

        Over 1: `arm`, whose classes share their images, needs fewer.
        """
        ratios = {}
        for other in SHARING:
            if not self.cells.get(arm) or not self.cells.get(other):
                continue
            both = [seed for seed in self.cells[arm] if seed in self.cells[other]]
            ours, theirs = (self._of_seeds(name, both) for name in (arm, other))
            replicates = statistics.q50(theirs.replicates), statistics.q50(ours.replicates)
            ratio = statistics.paired_ratio(theirs.q50(), ours.q50(), self.budget, *replicates)
            ratios[other] = ratio.to_dict() | {"pairs": ratio.number, "censored": ratio.censored}
        return ratios

    def headline(self, left_out: Mapping[str, str]) -> dict[str, Any] | None:
        """How many classes the fixed suite of arms fools; left_out: those of its arms that were not measured, and why."""
        accepted = {}
        for name in (arm for arm in SUITE if self.cells.get(arm)):
            acceptance = self.acceptance(name, "tau5")
            accepted[name] = ArmAcceptance(list(self.cells[name]), acceptance.at, acceptance.replicates)
        return headline({"margin": accepted}, len(self.classes), self.budget, left_out)

    def acceptance(self, name: str, level: str) -> _Acceptance:
        """When the classes of an arm's cells were accepted, at "tau5" or "tau50"."""
        if (name, level) not in self._acceptances:
            tau, resampled = self._taus[level]
            traces = [cell.trace for cell in self.cells[name].values()]
            at = np.concatenate([trace.accepted_at(tau) for trace in traces])
            self._acceptances[name, level] = _Acceptance(
                at, np.stack([trace.accepted_at(resampled) for trace in traces], axis=1)
            )
        return self._acceptances[name, level]

    def _of_seeds(self, name: str, seeds: Sequence[int]) -> _Acceptance:
        acceptance, rows = self.acceptance(name, "tau5"), [list(self.cells[name]).index(seed) for seed in seeds]
        return _Acceptance(acceptance.at[rows], acceptance.replicates[:, rows])

    def _at_budgets(self, acceptance: _Acceptance) -> list[dict[str, Any]]:
        k, grid = len(self.classes), np.array(self.budgets)
        shares, replicates = acceptance.shares(grid), statistics.shares(acceptance.replicates, grid)
        points = []
        for b, budget in enumerate(self.budgets):
            interval = statistics.share_interval(shares[:, b], replicates[..., b], k)
            points.append(
                {
                    "queries": budget,
                    "queries_per_class": budget / k,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "per_seed": shares[:, b].tolist(),
                    # Of the mean share, since thresholds are estimates: bench compare needs it.
                    "threshold_variance": float(replicates[..., b].mean(axis=1).var(ddof=1)),
                }
            )
        return points

    def _calibrated_confidence(self, name: str) -> dict[str, float] | None:
        """Quantiles over seeds and scored classes of the saved images' confidence at the fitted temperature.

        A class without an image counts as 0. None if no temperature could be fitted.
        """
        found = []
        for cell in self.cells[name].values():
            p = np.zeros(len(self.calibration.labels))
            if len(cell.classes):
                fitted = self.calibration.calibrated_confidence(cell.logits)
                if fitted is None:
                    return None
                p[cell.classes] = fitted[np.arange(len(cell.classes)), cell.classes]
            found.append(p[self.classes])
        return quantiles(np.concatenate(found))


def flags(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Warnings on suspicious results, after Croce & Hein's AutoAttack: each is a reason to check, none is a proof.

    arms: by name, the figures of Scoring.arm.
    """
    messages = []

    def last(kinds: Sequence[str]) -> dict[str, float]:
        return {name: arm["r95"][-1]["value"] for name, arm in arms.items() if arm["kind"] in kinds}

    white, black = last(["white"]), last(["search", "black", "surrogate"])
    if white and black and max(white.values()) < max(black.values()) - _TOLERANCE:
        best, other = max(white, key=lambda n: white[n]), max(black, key=lambda n: black[n])
        messages.append(
            f"white-box arms are accepted in fewer classes than others ({best} in {white[best]:.2f}, {other} in "
            f"{black[other]:.2f} of them): gradients may be masked, or of little use at this budget"
        )
    floor = last(["floor"])
    for name, share in (white | black).items():
        if name != "random" and floor and share < max(floor.values()):
            messages.append(
                f"{name} is accepted in fewer classes than noise ({share:.2f} of them, noise in {max(floor.values()):.2f}): "
                "its gradients or scores may be masked, or the budget is too small for it"
            )
    for name, arm in arms.items():
        shares = [point["value"] for point in arm["r95"]]
        if arm["kind"] in _GUIDED and name != "random" and len(shares) > 1 and shares[-1] <= shares[0] < 1:
            messages.append(
                f"{name} is accepted in no more classes after {arm['r95'][-1]['queries']:,} queries than after "
                f"{arm['r95'][0]['queries']:,} ({shares[-1]:.2f}): the budget is too small, or scores do not "
                "improve step by step"
            )
    return [{"level": "warning", "message": message} for message in messages]


def _grid(budget: int, budgets: Sequence[int]) -> np.ndarray:
    """Numbers of queries from 1 to the budget, evenly spread on a logarithmic scale, the budgets among them."""
    return np.unique(np.concatenate([np.geomspace(1, budget, _POINTS).round(), budgets]).astype(int))


def _list(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
