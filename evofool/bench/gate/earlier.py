"""The earlier results that a gate compares with: of one network, or of several trainings of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evofool.bench.compare import ArmRecord, ComparableResult, read_result, refuse_other_classes, refuse_other_protocol
from evofool.errors import RecipeError


@dataclass(frozen=True)
class EarlierResults:
    """At least one result; several have one protocol, the same real images and seeds, and different networks."""

    results: tuple[ComparableResult, ...]

    @property
    def first(self) -> ComparableResult:
        """Where they are all alike, in what they have."""
        return self.results[0]

    def __len__(self) -> int:
        return len(self.results)

    def arms(self, name: str) -> list[ArmRecord]:
        """An arm of each result; empty unless all have it."""
        found = [result.scores.arms.get(name) for result in self.results]
        return [arm for arm in found if arm is not None] if None not in found else []

    def seeds(self, name: str) -> list[int]:
        """The seeds of an arm with a valid cell in all results."""
        arms = self.arms(name)
        return [seed for seed in arms[0].seeds if all(seed in arm.seeds for arm in arms)] if arms else []

    def gradients(self, name: str) -> set[str]:
        """What an arm climbed in each result instead of masked gradients; "" for the target's own."""
        return {arm.gradients for arm in self.arms(name)}

    def faults(self, name: str) -> str:
        """Why seeds of an arm have no valid cell, or ""."""
        return "; ".join(sorted({reason for arm in self.arms(name) for reason in arm.invalid.values()}))

    def averaged(self, answers: int) -> "EarlierResults":
        """The results with the queries that the same images would have taken as means of so many answers each.

        A mean of several answers costs as many queries (targets.averaged): images are compared, not the size of the mean.
        """
        return EarlierResults(tuple(_averaged(result, answers) for result in self.results))

    @cached_property
    def labels(self) -> list[str]:
        """The scored classes, in the order of the first result."""
        return _scored_labels(self.first)

    def queries(self, name: str, seeds: Sequence[int]) -> np.ndarray:
        """(N, S, K): after how many queries each result accepted each class, in the order of `labels`; NaN where never."""
        return np.stack([queries(result, name, seeds, self.labels) for result in self.results])


def read_earlier(data: Sequence[Mapping[str, Any]]) -> EarlierResults:
    """Results from their JSON. RecipeError for an invalid one, for different protocols, and for a network given twice."""
    n = len(data)
    results = tuple(
        read_result(each, "the earlier result" if n == 1 else f"earlier result {k} of {n}") for k, each in enumerate(data, 1)
    )
    first = results[0]
    for other in results[1:]:
        names = first.target.name, other.target.name
        between = f"the earlier results of {names[0]} and {names[1]}"
        refuse_other_protocol(first, other)
        refuse_other_classes(
            names,
            (first.target.labels, other.target.labels),
            (first.images.unscored, other.images.unscored),
        )
        for key in ("seeds", "arms"):
            ours, theirs = (list(getattr(result.protocol, key)) for result in (first, other))
            if ours != theirs:
                raise RecipeError(f"{between} have different {key}, {ours} and {theirs}: measure them alike")
        if first.images.sha256 != other.images.sha256:
            raise RecipeError(f"{between} have different real images, so different thresholds: measure them on the same")
    counts = Counter(result.target.fingerprint for result in results)
    twice = [result.target.name for result in results if counts[result.target.fingerprint] > 1]
    if twice:
        raise RecipeError(
            f"the earlier results of {' and '.join(twice)} are of the same network (equal fingerprints), which says nothing "
            "about the differences between trainings: give results of networks that were trained independently"
        )
    return EarlierResults(results)


def queries(result: ComparableResult, arm: str, seeds: Sequence[int], labels: Sequence[str]) -> np.ndarray:
    """(S, K): after how many queries the classes `labels` were accepted; NaN where they were not within the budget."""
    own = _scored_labels(result)
    lists = [result.scores.arms[arm].accepted_at[str(seed)] for seed in seeds]
    for seed, row in zip(seeds, lists, strict=True):
        if len(row) != len(own):
            raise RecipeError(
                f"the result of {result.target.name} has {len(row)} classes in accepted_at of {arm}, seed {seed}, but "
                f"{len(own)} scored classes: measure it again"
            )
    found = np.array(lists, float).reshape(len(seeds), len(own))[:, _order(own, labels)]
    return np.where(found <= result.budget, found, np.nan)


def _averaged(result: ComparableResult, answers: int) -> ComparableResult:
    def now(queries: int) -> int:
        return queries * answers // result.target.average

    def row(arm: ArmRecord) -> ArmRecord:
        accepted = {seed: tuple(None if at is None else now(at) for at in each) for seed, each in arm.accepted_at.items()}
        return arm.model_copy(update={"accepted_at": accepted})

    arms = {name: row(arm) for name, arm in result.scores.arms.items()}
    return result.model_copy(
        update={
            "target": result.target.model_copy(update={"average": answers}),
            "protocol": result.protocol.model_copy(update={"budgets": tuple(map(now, result.protocol.budgets))}),
            "scores": result.scores.model_copy(update={"arms": arms}),
        }
    )


def _scored_labels(result: ComparableResult) -> list[str]:
    """The labels of the scored classes, in the order of accepted_at."""
    left = Counter(result.images.unscored)
    scored = []
    for label in result.target.labels:
        if left[label] > 0:
            left[label] -= 1
        else:
            scored.append(label)
    return scored


def _order(own: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where each wanted label is among its own; of equal labels the first goes to the first."""
    where: dict[str, list[int]] = {}
    for k, label in enumerate(own):
        where.setdefault(label, []).append(k)
    return [where[label].pop(0) for label in wanted]
