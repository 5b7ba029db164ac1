"""Two results of the same protocol, arm by arm, paired by seed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evofool.bench.arms import earlier_changes
from evofool.bench.comparable import conditions, other_answers
from evofool.bench.statistics import paired_difference, paired_ratio
from evofool.errors import RecipeError
from evofool.images import LARGE_SIDE
from evofool.targets.kinds import pipelines_of

_FEW_PAIRS = 5  # a comparison with fewer gets a note


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class QueriesRecord(_Record):
    """An arm's Q50: by seed, None where it is above the budget; and the variance of its mean from the thresholds."""

    per_seed: tuple[Annotated[float, Field(gt=0)] | None, ...]
    threshold_variance: float = Field(ge=0)


class ShareRecord(_Record):
    """An arm's R95 after so many queries."""

    queries: int
    per_seed: tuple[float, ...]
    threshold_variance: float = Field(ge=0)


class ArmRecord(_Record):
    """seeds: those with a valid cell, in the order of all lists by seed. invalid: by seed, why a cell was left out.

    gradients: what a white-box arm climbed instead of masked gradients, "" if nothing.
    """

    kind: str
    seeds: tuple[int, ...]
    invalid: dict[int, str] = {}
    q50: QueriesRecord | None = None
    r95: tuple[ShareRecord, ...] = ()
    accepted_at: dict[str, tuple[int | None, ...]] = {}
    gradients: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "ArmRecord":
        if self.seeds:
            lists = [record.per_seed for record in (self.q50, *self.r95) if record]
            if self.q50 is None or not self.r95 or any(len(each) != len(self.seeds) for each in lists):
                raise ValueError("q50 and r95 do not have an entry for each of its seeds")
            if {*self.accepted_at} != {str(seed) for seed in self.seeds}:
                raise ValueError("accepted_at does not have an entry for each of its seeds")
        return self


class ProtocolRecord(_Record):
    budgets: tuple[int, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: tuple[str, ...] = Field(min_length=1)
    settings: dict[str, tuple[str, ...]]
    rank: str
    format: str
    levels: dict[str, float]
    evofool: str
    classes: int | None = None

    def changes(self, arm: str) -> tuple[str, ...]:
        """The --set changes that an arm was measured with."""
        return earlier_changes(arm, self.settings.get(arm, ()))


class _TargetRecord(_Record):
    name: str
    fingerprint: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...] = Field(min_length=1)
    views: int = Field(0, ge=0)
    average: int = Field(1, ge=1)
    through: str = ""


class _ImagesRecord(_Record):
    source: str
    sha256: str
    declared_top1: float | None = None
    classes_without_images: tuple[str, ...] = ()
    classes_left_out: tuple[str, ...] = ()

    @property
    def unscored(self) -> tuple[str, ...]:
        """The classes that are not scored: those without images, and those that were left out to score fewer."""
        return self.classes_without_images + self.classes_left_out


class SurrogateRecord(_Record):
    """A network whose gradients the arm `surrogate` climbed."""

    name: str
    fingerprint: str


class _GradientsRecord(_Record):
    """Why a target's own gradients were not used."""

    masked: str


class _ScoresRecord(_Record):
    arms: dict[str, ArmRecord]


class _RawRecord(_Record):
    tau5: float


class ComparableResult(_Record):
    """The part of a target's JSON that a comparison reads (docs/protocol.md has all of it)."""

    target: _TargetRecord
    protocol: ProtocolRecord
    images: _ImagesRecord
    scores: _ScoresRecord
    raw: _RawRecord
    surrogates: tuple[SurrogateRecord, ...] = ()
    gradients: _GradientsRecord | None = None

    @property
    def budget(self) -> int:
        """The largest budget, at which Q50 is censored."""
        return self.protocol.budgets[-1]


def read_result(data: Mapping[str, Any], which: str) -> ComparableResult:
    """A result from its JSON; RecipeError for an invalid or incomplete one. which: its name in messages."""
    target = data.get("target")
    name = f"{which}, of {target.get('name')}" if isinstance(target, Mapping) else which
    if data.get("valid") is not True:
        flags = data.get("flags")
        why = "; ".join(
            str(flag.get("message"))
            for flag in (flags if isinstance(flags, list) else ())
            if isinstance(flag, Mapping) and flag.get("level") == "invalid"
        )
        raise RecipeError(f"{name}: this result is invalid ({why or 'no reason is stored'}) and cannot be compared")
    try:
        return ComparableResult.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
        raise RecipeError(
            f"{name}: this is not a complete result of evofool bench ({'; '.join(faults)}); measure it again"
        ) from None


def refuse_other_classes(
    names: tuple[str, str],
    labels: tuple[Sequence[str], Sequence[str]],
    without: tuple[Sequence[str], Sequence[str]],
    remedy: str = "",
) -> None:
    """RecipeError unless two targets have the same classes, in any order, and are scored in the same ones.

    labels: all labels of each; without: those that are not scored; remedy: for the user if the scored ones differ.
    """
    scored = [Counter(every) - Counter(missing) for every, missing in zip(labels, without, strict=True)]
    for verb, (ours, theirs), end in (("have", tuple(map(Counter, labels)), ""), ("are scored in", scored, remedy)):
        apart = [
            f"only {name} {', '.join(sorted(more)[:5])}{' ...' if len(more) > 5 else ''} ({len(more):,})"
            for name, more in zip(names, (ours - theirs, theirs - ours), strict=True)
            if more
        ]
        if apart:
            raise RecipeError(f"the two targets {verb} different classes: {'; '.join(apart)}{end}")


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """For each arm the ratio of a's Q50 to b's, and the difference a - b of R95 at the largest budget.

    a, b: JSON of evofool bench. The seeds with valid cells in both are the pairs. same: in all pairs every class was
    accepted after the same number of queries. censored: in how many pairs a, and b, did not reach half of the classes.
    Where a and b have different thresholds, the intervals include the variance of both. RecipeError for results with
    different protocols or classes, and for invalid ones.
    """
    ours, theirs = read_result(a, "the first result"), read_result(b, "the second result")
    names = ours.target.name, theirs.target.name
    refuse_other_protocol(ours, theirs)
    refuse_other_classes(
        names,
        (ours.target.labels, theirs.target.labels),
        (ours.images.unscored, theirs.images.unscored),
    )
    alike = _alike(ours, theirs)
    notes = differences(ours, theirs)
    arms = {}
    for name, arm in ours.scores.arms.items():
        other = theirs.scores.arms.get(name)
        both = [] if other is None else [seed for seed in arm.seeds if seed in other.seeds]
        if other is None or not both:
            continue
        arms[name] = _row(arm, other, both, ours.budget, alike)
        if len(both) < _FEW_PAIRS:
            notes.append(
                f"{name}: {len(both)} pair{'s' * (len(both) != 1)} of seeds; 5 give a first impression, a claim needs 10"
            )
        lost = sorted({*arm.invalid, *other.invalid})
        if lost:
            notes.append(f"{name}: seed {', '.join(map(str, lost))} is invalid in one of the two and is left out")
    if not arms:
        raise RecipeError("the two results have no arm and seed in common")
    return {"a": names[0], "b": names[1], "arms": arms, "notes": notes}


def _row(a: ArmRecord, b: ArmRecord, both: Sequence[int], budget: int, alike: bool) -> dict[str, Any]:
    assert a.q50 is not None
    assert b.q50 is not None
    rows = [[arm.seeds.index(seed) for seed in both] for arm in (a, b)]
    q50 = [[queries.per_seed[k] for k in row] for queries, row in zip((a.q50, b.q50), rows, strict=True)]
    shares = [[arm.r95[-1].per_seed[k] for k in row] for arm, row in zip((a, b), rows, strict=True)]
    variances = (
        (0.0, 0.0)
        if alike
        else (
            a.q50.threshold_variance + b.q50.threshold_variance,
            a.r95[-1].threshold_variance + b.r95[-1].threshold_variance,
        )
    )
    return {
        "queries": budget,
        "seeds": list(both),
        "same": q50[0] == q50[1] and all(a.accepted_at[str(seed)] == b.accepted_at[str(seed)] for seed in both),
        "censored": [sum(q is None or q > budget for q in queries) for queries in q50],
        "q50_ratio": asdict(paired_ratio(q50[0], q50[1], budget, threshold_variance=variances[0])),
        "r95": asdict(paired_difference(shares[0], shares[1], threshold_variance=variances[1])),
    }


def _alike(a: ComparableResult, b: ComparableResult) -> bool:
    """Whether both have the same thresholds; the model behind a server can change them at the same fingerprint."""
    same = a.images.sha256 == b.images.sha256 and a.target.fingerprint == b.target.fingerprint
    return same and math.isclose(a.raw.tau5, b.raw.tau5, rel_tol=1e-3)


def refuse_other_protocol(a: ComparableResult, b: ComparableResult) -> None:
    """RecipeError unless both were measured alike: bench.comparable.conditions, settings of arms, and budgets."""
    both = a.model_dump(), b.model_dump()
    if answers := other_answers(both):
        raise RecipeError(
            f"an image takes another number of queries in each result: {answers}; measure both with the same average= and "
            "views=, and as many pipelines in through="
        )
    ours, theirs = map(conditions, both)
    if ours.pop("large images") != theirs.pop("large images"):
        raise RecipeError(
            f"the two take images of {_shape(a)} and {_shape(b)}: arms have other settings from {LARGE_SIDE} pixels on"
        )
    for key, value in ours.items():
        if value != theirs[key]:
            raise RecipeError(f"the two results have different protocols: {key} is {value!r} and {theirs[key]!r}")
    for arm in sorted(name for name, row in a.scores.arms.items() if row.seeds and b.scores.arms.get(name, row).seeds):
        settings = a.protocol.changes(arm), b.protocol.changes(arm)
        if settings[0] != settings[1] and arm in b.scores.arms:
            listed = f"{settings[0]!r} and {settings[1]!r}"
            raise RecipeError(f"the two results have different protocols: the settings of {arm} are {listed}")
    if a.budget != b.budget:
        raise RecipeError(
            f"the two results have different budgets, {a.budget:,} and {b.budget:,} queries, at which Q50 is censored; "
            "measure one again with the budget of the other"
        )


def refuse_other_answers(names: tuple[str, str], targets: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """RecipeError unless both targets answer by as many views (targets.views) and through as many pipelines.

    Their margins and queries mean something else otherwise. targets: of results, or details.
    """
    delivered = tuple(map(pipelines_of, targets))
    if delivered[0] != delivered[1]:
        raise RecipeError(
            f"an image takes another number of queries: {names[0]} answers through {delivered[0]} and {names[1]} through "
            f"{delivered[1]} pipelines (through=); give both as many"
        )
    views = tuple(int(target.get("views") or 0) for target in targets)
    if views[0] != views[1]:
        ours, theirs = (f"{name} by {f'views={n}' if n else 'its outputs'}" for name, n in zip(names, views, strict=True))
        raise RecipeError(f"the two were measured by different answers, {ours} and {theirs}: give both the same views=")


def differences(a: ComparableResult, b: ComparableResult) -> list[str]:
    """Differences that a comparison of the two has to consider."""
    notes = []
    climbed = [[network.fingerprint for network in result.surrogates] for result in (a, b)]
    if all(climbed) and climbed[0] != climbed[1]:
        names = (", ".join(network.name for network in result.surrogates) for result in (a, b))
        notes.append(f"the arm surrogate climbed other networks in each: {' against '.join(names)}")
    for arm in (name for name in a.scores.arms if name in b.scores.arms):
        sources = [result.scores.arms[arm].gradients for result in (a, b)]
        if sources[0] != sources[1]:
            climbed_by = " against ".join(source or "the target's own" for source in sources)
            notes.append(f"{arm} climbed other gradients in each: {climbed_by}")
    if a.images.sha256 != b.images.sha256:
        sizes = "" if a.target.shape == b.target.shape else f" ({_shape(a)} and {_shape(b)})"
        notes.append(f"the real images differ, as the targets receive them{sizes}: thresholds come from different samples")
    if a.protocol.evofool != b.protocol.evofool:
        notes.append(
            f"measured by evofool {a.protocol.evofool} and {b.protocol.evofool}; CHANGELOG.md lists what moved results"
        )
    return notes


def _shape(result: ComparableResult) -> str:
    return "x".join(map(str, result.target.shape))
