"""A target's scores, computed from the traces of its cells: the numbers of the protocol. No temperature changes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evofool.bench import statistics
from evofool.bench.acceptance import MARGIN, AcceptanceScores
from evofool.bench.arms import ARMS, SHARING
from evofool.bench.calibration import Calibration
from evofool.bench.headline import SUITE, ArmAcceptance, headline, queries_per_class
from evofool.bench.statistics import quantiles
from evofool.bench.trace import Trace

REPLICATES = 400  # bootstrap samples of the real images
_POINTS = 80  # of a curve
_GUIDED = ("search", "black", "surrogate", "white")
_CLIMBS = ("surrogate_forwards", "surrogate_backwards")
_TOLERANCE = 1e-9
_NO_RECORDS = (
    "no arm that searches has records of it in all of its cells (an earlier evofool, another number format, or workers that "
    "could not read the features)"
)


@dataclass(frozen=True)
class CellData:
    """What scores are computed from, of one done cell. logits: (n, K) float32 of the saved images of `classes` (n,).

    by_score: the traces of the acceptance scores other than the margin; none of a cell of an earlier version.
    """

    trace: Trace
    classes: np.ndarray
    logits: np.ndarray
    forwards: int
    backwards: int
    answers: int
    surrogate_forwards: int = 0  # passes of surrogates, which are no queries
    surrogate_backwards: int = 0
    by_score: Mapping[str, Trace] = field(default_factory=dict)

    def trace_of(self, score: str) -> Trace:
        """The trace of an acceptance score."""
        return self.trace if score == MARGIN else self.by_score[score]


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

    cells: by arm and seed, valid ones only. budgets: ascending. Classes without real images are left out. acceptance: None:
    the margin alone.
    """

    def __init__(
        self,
        calibration: Calibration,
        cells: Mapping[str, Mapping[int, CellData]],
        budgets: Sequence[int],
        replicates: int = REPLICATES,
        acceptance: AcceptanceScores | None = None,
    ) -> None:
        self.calibration, self.cells, self.budgets = calibration, cells, tuple(budgets)
        self.budget = self.budgets[-1]
        self.classes = np.flatnonzero(calibration.scored)
        self.scores = acceptance or AcceptanceScores({MARGIN: calibration.margin_score})
        self._replicates = replicates
        self._taus: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._acceptances: dict[tuple[str, str, str], _Acceptance] = {}

    def arm(self, name: str) -> dict[str, Any]:
        """The figures of an arm that has at least one valid cell, as the JSON has them."""
        cells = self.cells[name]
        k = len(self.classes)
        acceptance = self.acceptance(name, "tau5")
        grid = _grid(self.budget, self.budgets)
        value, low, high = statistics.band(acceptance.shares(grid), statistics.shares(acceptance.replicates, grid), k)
        best = np.concatenate([cell.trace.best() for cell in cells.values()])
        return {
            "kind": ARMS[name].kind,
            "seeds": list(cells),
            "r95": self._at_budgets(acceptance),
            "r50": self._at_budgets(self.acceptance(name, "tau50")),
            "q50": self._q50(acceptance),
            "curve": {"queries": grid.tolist(), "value": _list(value), "low": _list(low), "high": _list(high)},
            "margin_percentiles": quantiles(self.calibration.percentile(best)),
            "scaled_margins": quantiles(best / self.calibration.scale),
            "calibrated_confidence": self._calibrated_confidence(name),
            "accepted_at": self._accepted_at(name, acceptance),
            "by_score": {score: self._by_score(name, score) for score in self.scores_of(name)},
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

    def headline(
        self, left_out: Mapping[str, str], without: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, Any] | None:
        """How many classes the fixed suite of arms fools; left_out: those of its arms that were not measured, and why.

        Under an acceptance score by those arms of the suite that have it. without: by arm, bool (S, n), the seeds and
        classes whose images do not count.
        """
        suite = [arm for arm in SUITE if self.cells.get(arm)]
        accepted = {
            score: {
                name: self._arm_acceptance(name, score, (without or {}).get(name))
                for name in suite
                if score in self.scores_of(name)
            }
            for score in self.scores.scores
        }
        return headline(accepted, len(self.classes), self.budget, left_out)

    def _arm_acceptance(self, name: str, score: str, without: np.ndarray | None) -> ArmAcceptance:
        one, of, classes = self.acceptance(name, "tau5", score), self.scores.scores[score], len(self.classes)
        within = queries_per_class(self.budget, classes) * classes
        best = np.stack([cell.trace_of(score).best(within) for cell in self.cells[name].values()])
        reached = of.share_reached(best), of.resampled_reached(best, self._replicates)
        at, replicates = one.at, one.replicates
        if without is not None:
            at, replicates = np.where(without, np.nan, at), np.where(without, np.nan, replicates)
        return ArmAcceptance(list(self.cells[name]), at, replicates, *reached)

    def scores_of(self, name: str) -> list[str]:
        """The acceptance scores that an arm has: those for which all of its cells have records."""
        cells = self.cells[name].values()
        return [score for score in self.scores.scores if score == MARGIN or all(score in cell.by_score for cell in cells)]

    def acceptance(self, name: str, level: str = "tau5", score: str = MARGIN) -> _Acceptance:
        """When the classes of an arm's cells were accepted under a score, at "tau5" or "tau50"."""
        if (name, level, score) not in self._acceptances:
            tau, resampled = self._thresholds(level, score)
            traces = [cell.trace_of(score) for cell in self.cells[name].values()]
            at = np.concatenate([trace.accepted_at(tau) for trace in traces])
            self._acceptances[name, level, score] = _Acceptance(
                at, np.stack([trace.accepted_at(resampled) for trace in traces], axis=1)
            )
        return self._acceptances[name, level, score]

    def spread(self) -> dict[str, Any]:
        """The control: how far the acceptance scores differ, each by the arm that fools the most classes under it.

        Of equal arms the one with the lower Q50. `easiest`: the score under which the most classes are fooled, of equal ones
        that with the lowest Q50: a defence counts only as far as it holds under this one. None if no arm searches.
        """
        found: dict[str, dict[str, Any]] = {}
        arms = [arm for arm, cells in self.cells.items() if cells and ARMS[arm].kind in _GUIDED]
        for score in self.scores.scores:
            rows = {arm: self._by_score(arm, score) for arm in arms if score in self.scores_of(arm)}
            if rows:
                best = min(rows, key=lambda arm: _hardness(rows[arm]))
                found[score] = {"arm": best, **{key: rows[best][key] for key in ("r95", "q50")}}
        left_out = dict(self.scores.left_out)
        if arms:
            left_out |= {score: _NO_RECORDS for score in self.scores.scores if score not in found}
        easiest = min(found, key=lambda score: _hardness(found[score])) if found else None
        return {"easiest": easiest, "scores": found, "left_out": left_out}

    def _thresholds(self, level: str, score: str) -> tuple[np.ndarray, np.ndarray]:
        """(1, n) thresholds of the scored classes, and (R, n) from resampled real images."""
        if (level, score) not in self._taus:
            of = self.scores.scores[score]
            resampled = of.resampled(level, self._replicates)[:, self.classes]
            self._taus[level, score] = of.tau(level)[None, self.classes], resampled
        return self._taus[level, score]

    def _by_score(self, name: str, score: str) -> dict[str, Any]:
        """The figures of an arm under an acceptance score, at the largest budget."""
        acceptance = self.acceptance(name, "tau5", score)
        return {
            "r95": self._at_budgets(acceptance)[-1],
            "q50": self._q50(acceptance),
            "accepted_at": self._accepted_at(name, acceptance),
        }

    def _q50(self, acceptance: _Acceptance) -> dict[str, Any]:
        per_seed, replicates = acceptance.q50(), statistics.q50(acceptance.replicates)
        q50 = statistics.queries_interval(per_seed, self.budget, replicates)
        return {
            **q50.to_dict(),
            "censored": q50.censored,
            "per_seed": per_seed,
            # Of the mean of log10 Q50, since thresholds are estimates: bench compare needs it.
            "threshold_variance": statistics.threshold_variance(replicates, self.budget),
            "queries_per_class": None if q50.value is None else q50.value / len(self.classes),
        }

    def _accepted_at(self, name: str, acceptance: _Acceptance) -> dict[str, list[int | None]]:
        return {
            str(seed): [None if np.isnan(q) else int(q) for q in row]
            for seed, row in zip(self.cells[name], acceptance.at, strict=True)
        }

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
                    **interval.to_dict(),
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


def _hardness(row: Mapping[str, Any]) -> tuple[float, float]:
    """Orders rows of _by_score: less is easier to fool."""
    q50 = row["q50"]["value"]
    return -row["r95"]["value"], np.inf if q50 is None else q50


def _list(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
