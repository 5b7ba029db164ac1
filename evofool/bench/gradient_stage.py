"""The gradients of the white-box arms: whether those of a target are masked, and what the arms climb instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evofool.ascend.approximation import STRAIGHT_THROUGH, SUBSTITUTE, GradientSource
from evofool.ascend.straight_through import find_straight_through
from evofool.bench.arms import ARMS, least_queries
from evofool.bench.real import RealImages
from evofool.targets import Target
from evofool.targets.gradients import check_gradients

_LESSONS = 50  # queries of a substitute model for each class, at most
_MOST = 2_000  # the same of all classes together


@dataclass(frozen=True)
class ArmGradients:
    """What white-box arms climb. masked: what is wrong with the target's gradients, "" if nothing is or no arm uses them.

    source: what they climb instead of masked ones. left_out: arms for which the budget is too small with it.
    """

    masked: str = ""
    source: GradientSource | None = None
    left_out: tuple[str, ...] = ()

    def of(self, arm: str) -> GradientSource | None:
        """What an arm climbs instead of the target's gradients."""
        return self.source if ARMS[arm].kind == "white" else None

    def message(self, arms: Sequence[str]) -> str:
        """What a reader has to know, "" if nothing is masked. arms: all that were to be measured."""
        if not self.masked:
            return ""
        white = [arm for arm in arms if ARMS[arm].kind == "white"]
        kept = [arm for arm in white if arm not in self.left_out]
        said = [f"gradients masked: {self.masked}"]
        if kept and self.source is not None:
            weak = " and a weak one: judge the target by arms without gradients" if self.source.kind == SUBSTITUTE else ""
            bound = f"what they fool is a lower bound for white-box attacks{weak}"
            said.append(f"{', '.join(kept)}: {_described(self.source)}; {bound}")
        if self.left_out:
            said.append(f"{', '.join(self.left_out)}: left out, since the budget is too small to train a substitute model")
        return ". ".join(said)


def choose_gradients(
    target: Target,
    arms: Sequence[str],
    budget: int,
    classes: int,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    real: RealImages | None = None,
) -> ArmGradients:
    """Check the gradients of a target if an arm uses them, and choose what arms climb instead of masked ones.

    Straight through the layers that mask them, where such layers are found; otherwise a substitute model, which is trained
    with at most half of the budget. real: the first of these images are tried too. settings: by arm, those that differ from
    the defaults.
    """
    white = [arm for arm in arms if ARMS[arm].kind == "white"]
    if not white or not target.differentiable:
        return ArmGradients()
    shown = None if real is None else next(iter(real.batches()))[0]
    masked = check_gradients(target, shown).fault
    if not masked:
        return ArmGradients()
    found = find_straight_through(target, shown)
    if found is not None:
        return ArmGradients(masked, GradientSource(STRAIGHT_THROUGH, found.start, found.end, found.operations))
    budget //= target.queries_per_image
    queries = min(budget // 2, _LESSONS * classes, _MOST)
    queries -= queries % classes  # as many for each class
    chosen = ArmGradients(masked, GradientSource(SUBSTITUTE, queries=queries))
    least = {arm: least_queries(arm, classes, (settings or {}).get(arm)) for arm in white}
    left_out = [arm for arm in white if not queries or budget - queries < least[arm]]
    return replace(chosen, left_out=tuple(left_out))


def _described(source: GradientSource) -> str:
    if source.kind == SUBSTITUTE:
        return (
            f"the gradients of a substitute model, trained on {source.queries:,} of the target's answers, which are counted "
            "as queries"
        )
    if source.operations:
        return "straight through: the backward pass skips rounding, comparisons, casts to integers and detach"
    skipped = [f"before the layer {source.start}"] * bool(source.start) + [f"after the layer {source.end}"] * bool(
        source.end
    )
    return f"straight through: the backward pass skips what comes {' and '.join(skipped)}"
