"""What attacks by gradient share: their options, budgets and restarts, and the ascent of one image per class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.approximation import Approximation
from evofool.ascend.hooks import no_gradients
from evofool.ascend.loop import Ascent, AscentResult, Improvement, OnAnswers, Tick, ascend
from evofool.errors import RecipeError, TargetError
from evofool.targets.classifier import Target
from evofool.targets.preprocessing import Preprocessing

_MAX_RESTARTS = 256  # or octaves; the draws of a restart are keyed class * 256 + restart


class Options(TypedDict, total=False):
    """Keywords that all attacks by gradient take.

    budget: forward passes per class, restarts and selection included (0, the default: as published). Each gradient step is
    one forward and one backward pass. stop_at: a class is done at this score. on_answers: as in Ascent; items are the
    classes, and restarts count as climbing at the same time. The others: as in ascend.
    """

    budget: int
    seed: int
    stop_at: float
    microbatch: int
    streams: int
    tick: Tick | None
    approximation: Approximation | None
    on_answers: OnAnswers | None


@dataclass(frozen=True)
class AttackOptions:
    """Options with their defaults."""

    budget: int = 0
    seed: int = 0
    stop_at: float = math.inf
    microbatch: int = 0
    streams: int = 1
    tick: Tick | None = None
    approximation: Approximation | None = None
    on_answers: OnAnswers | None = None

    def ascend(self, target: Target, ascent: Ascent, keys: Sequence[int]) -> AscentResult:
        ascent = replace(ascent, stop_at=self.stop_at, on_answers=self._of_classes(ascent.restarts))
        return ascend(
            target,
            ascent,
            keys,
            seed=self.seed,
            microbatch=self.microbatch,
            streams=self.streams,
            tick=self.tick,
            approximation=self.approximation,
        )

    def _of_classes(self, restarts: int) -> OnAnswers | None:
        """on_answers for an ascent of so many items for each class."""
        report = self.on_answers
        if report is None or restarts == 1:
            return report
        return lambda items, forwards, logits: report(items // restarts, forwards * restarts, logits)


def zero_image(target: Target) -> torch.Tensor:
    """(C, 1, 1) on [0, 1]: the colour that the target's preprocessing maps to 0."""
    return Preprocessing(**target.details.get("preprocessing", {})).zero(target.shape[0])


def mean_image(target: Target) -> torch.Tensor:
    """zero_image, or middle grey if the preprocessing subtracts no mean."""
    zero = zero_image(target)
    return zero if bool(zero.any()) else torch.full_like(zero, 0.5)


def climb(
    target: Target, classes: Sequence[int], rank: str, ascent: Ascent, options: AttackOptions, first_key: int = 0
) -> AscentResult:
    """The ascent of one image per class, selected by rank: the best of its restarts, which are keyed from first_key on."""
    if target.network is None:
        raise no_gradients(target)
    check_choice("rank", rank, ("log_odds", "margin"))
    for c in classes:
        if not 0 <= c < len(target.labels):
            raise TargetError(f"{target.name}: no class {c}; it has 0 to {len(target.labels) - 1}")
    of = torch.tensor(list(classes)).repeat_interleave(ascent.restarts)
    odds = objectives.log_odds(of)
    ascent = replace(ascent, select_by=odds if rank == "log_odds" else objectives.margin(of), secondary=odds)
    result = options.ascend(target, ascent, keys_of(classes, ascent.restarts, first_key))
    return result if ascent.restarts == 1 else best_restarts(result, ascent.restarts)


def keys_of(items: Sequence[int], restarts: int, first: int = 0) -> list[int]:
    return [item * _MAX_RESTARTS + first + restart for item in items for restart in range(restarts)]


def steps_of(budget: int, default: int, parts: int = 1, per_step: float = 1, what: str = "restarts") -> int:
    """Gradient steps of each of the parts (`what`) that share the budget. Each part ends with a pass that scores it.

    per_step: forward passes per step, selection included.
    """
    if not 1 <= parts <= _MAX_RESTARTS:
        raise RecipeError(f"{what} has to lie in 1..{_MAX_RESTARTS}, not {parts}")
    if not budget:
        return default
    steps = int((budget // parts - 1) / per_step)  # no pass is shared between parts
    if steps < 1:
        least = parts * math.ceil(1 + per_step)
        shared = f" for {parts} {what}" if parts > 1 else ""
        raise RecipeError(f"a budget of {budget} forward passes is too small{shared}; it has to be at least {least}")
    return steps


def best_restarts(result: AscentResult, restarts: int) -> AscentResult:
    """One item for each group of restarts: the best one (of equal ones the first), with the passes of the whole group."""
    best = result.scores.reshape(-1, restarts).argmax(1) + np.arange(0, len(result.scores), restarts)
    total = {name: getattr(result, name).reshape(-1, restarts).sum(1) for name in ("iterations", "forwards", "backwards")}
    rises: list[Improvement] = []
    highest: dict[int, float] = {}
    # Restarts climb at the same time: when one has used n passes, so has each other one that has not ended.
    for found in result.improvements:
        item = found.item // restarts
        if found.score > highest.get(item, -math.inf):
            highest[item] = found.score
            rows = range(item * restarts, (item + 1) * restarts)
            forwards = sum(min(found.forwards, int(result.forwards[row])) for row in rows)
            backwards = sum(min(found.backwards, int(result.backwards[row])) for row in rows)
            rises.append(Improvement(item, forwards, backwards, found.score, found.secondary))
    states = None if result.states is None else result.states[torch.from_numpy(best)]
    return AscentResult(
        result.images[best],
        states,
        result.scores[best],
        **total,
        improvements=rises,
        notes=[(item // restarts, f"start {item % restarts}: {text}") for item, text in result.notes],
        interrupted=result.interrupted,
        moved=None if result.moved is None else np.any(result.moved.reshape(-1, restarts), axis=1),
    )


def check_choice(what: str, name: str, known: Sequence[str] | dict[str, Any]) -> None:
    if name not in known:
        raise RecipeError(f'there is no {what} "{name}"; there are {", ".join(known)}')
