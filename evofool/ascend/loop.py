"""The loop of gradient ascent that every method shares: objective, parameterisation, transforms and step rule."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from evofool.ascend.approximation import Approximation
from evofool.ascend.draws import Draws
from evofool.ascend.hooks import ForwardPass, Hooks
from evofool.ascend.objectives import Objective
from evofool.ascend.params import Param
from evofool.ascend.rules import Step, StepRule
from evofool.ascend.transforms import Transform
from evofool.errors import TargetError
from evofool.images import levels
from evofool.targets.classifier import Target

Tick = Callable[[int, int], bool]
"""(finished iteration, counted from 0; number of iterations) -> whether to stop now; called after each iteration."""

OnAnswers = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""(items (m,) int64, the forward passes (m,) int64 that each has used so far, logits (m, K) float32 of their images): called
with each answer to images as they are saved, of 8 bits and not transformed, in the order of an item's passes."""


@dataclass(frozen=True)
class Ascent:
    """What is climbed and how. Each of the n items climbs independently of the others.

    param gives the starts, objective is maximised by rule in so many steps. The network sees the images after transforms.
    beside: further objectives, climbed at the same time: a step follows the sum of all gradients, each divided by its
    Euclidean length. They share the forward pass, and each takes a backward pass. A gradient that is 0 or not finite does
    not count beside others. The values that rule and stop_at get remain those of objective and select_by.

    The best iterate of each item is kept: the one with the highest score by select_by (default: the objective); the first
    one of equal scores. With transforms, select_by scores the image without them, in a forward pass of its own at every
    select_every-th iteration and at the last one. secondary: another score that is recorded with each improvement.
    on_answers: not called unless the network sees rounded images and its logits are read.

    An item ends when its score by select_by reaches stop_at. restarts: groups of so many consecutive items have the same
    aim, and a group ends together. rounded: the network sees the image rounded to 8 bits, and the gradient is passed
    straight through the rounding, so the image that is scored is the image that is saved.
    """

    param: Param
    objective: Objective
    rule: StepRule
    steps: int
    transforms: Sequence[Transform] = ()
    select_by: Objective | None = None
    select_every: int = 1
    secondary: Objective | None = None
    stop_at: float = math.inf
    restarts: int = 1
    rounded: bool = True
    on_answers: OnAnswers | None = None
    beside: Sequence[Objective] = ()

    @property
    def objectives(self) -> list[Objective]:
        """All scores that are read from the network."""
        return [each for each in (self.objective, self.select_by, self.secondary, *self.beside) if each is not None]


class Improvement(NamedTuple):
    """A new best score of an item, and the passes that the item had used by then."""

    item: int
    forwards: int
    backwards: int
    score: float
    secondary: float = math.nan  # by Ascent.secondary


STUCK = "its gradient was 0 at every step, so it never left its start; another start (another seed) may help"


@dataclass
class AscentResult:
    """The outcome for n items. An item without any finite score has the score -inf and a black image."""

    images: np.ndarray  # uint8 (n, C, H, W), the best iterates, as they were scored where `rounded`
    states: torch.Tensor | None  # (n, ...), the best iterates' states; None if the search was over pixels alone
    scores: np.ndarray  # (n,) float64, by select_by
    iterations: np.ndarray  # (n,) int64, steps taken
    forwards: np.ndarray  # (n,) int64, images that were passed through the network
    backwards: np.ndarray  # (n,) int64, gradients that were computed
    improvements: list[Improvement] = field(default_factory=list)  # by forward passes
    notes: list[tuple[int, str]] = field(default_factory=list)  # (item, what a user should know of it)
    interrupted: bool = False  # whether tick stopped it
    moved: np.ndarray | None = None  # (n,) bool, whether any gradient was not 0; None if none was computed

    @property
    def stuck(self) -> list[int]:
        """The items whose gradient was 0 at every step; they are still at their start."""
        return [] if self.moved is None else np.flatnonzero(~self.moved & (self.backwards > 0)).tolist()


def ascend(
    target: Target,
    ascent: Ascent,
    keys: Sequence[int],
    *,
    seed: int = 0,
    microbatch: int = 0,
    streams: int = 1,
    tick: Tick | None = None,
    approximation: Approximation | None = None,
) -> AscentResult:
    """Climb from the start of each of the n items `keys`, and keep the best iterate of each.

    keys (n,) and seed determine the items' random draws (Draws). An item also ends when its score or its gradient is not
    finite: a note says so, and its best iterate is kept. A step is one forward and one backward pass; one more forward pass
    scores the image after the last step.

    microbatch: items that share a pass (0: 2 on a CPU, 32 elsewhere). streams: passes that run at the same time, each with
    the caller's number of torch threads. Equal seed and microbatch give equal bits for any number of streams; another
    microbatch has the same draws. approximation: where gradients come from instead of the network, whose outputs are scored
    in any case. TargetError for a target without gradients.
    """
    keys = list(keys)
    layers = [layer for objective in ascent.objectives for layer in objective.layers]
    logits = any(objective.logits for objective in ascent.objectives)
    with Hooks(target, layers, logits, approximation) as hooks:
        loop = _Loop(target, hooks, ascent, keys, seed)
        size = microbatch or (2 if loop.device.type == "cpu" else 32)
        active = list(range(len(keys)))
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(streams, "ascend", torch.set_num_threads, (threads,)) as pool:
            run = pool.map if streams > 1 else map
            for iteration in range(ascent.steps + 1):
                parts = [active[at : at + size] for at in range(0, len(active), size)]
                going = list(run(lambda items: loop.step(items, iteration), parts))  # noqa: B023 - used at once
                active = [item for part in going for item in part]
                if ascent.restarts > 1:
                    ended = {item // ascent.restarts for item in np.flatnonzero(loop.out.scores >= ascent.stop_at).tolist()}
                    active = [item for item in active if item // ascent.restarts not in ended]
                if tick is not None and tick(iteration, ascent.steps) and active:
                    loop.out.interrupted = True
                    break
                if not active:
                    break
    return loop.finish()


class _Iterate(NamedTuple):
    """m items at one iteration."""

    items: list[int]
    rows: torch.Tensor  # (m,) int64, the items on the network's device
    iteration: int
    last: bool  # scored, but not stepped
    state: torch.Tensor  # (m, ...), requires a gradient unless last
    images: torch.Tensor  # (m, C, H, W) on [0, 1]
    shown: torch.Tensor  # the images as the network sees them before transforms


class _Loop:
    """An ascent in progress. Several threads may step different items at the same time."""

    def __init__(self, target: Target, hooks: Hooks, ascent: Ascent, keys: Sequence[int], seed: int) -> None:
        assert target.network is not None
        self.device = target.network.device
        self._target, self._hooks, self._ascent, self._keys, self._seed = target, hooks, ascent, keys, seed
        n = len(keys)
        self._states = ascent.param.init(Draws(seed, keys, 0)).to(self.device)
        ascent.rule.begin(n, ascent.steps)
        iterations, forwards, backwards = (np.zeros(n, np.int64) for _ in range(3))
        self._moved = np.zeros(n, bool)
        with torch.no_grad():  # the images need not have the target's shape: layers may take other sizes
            first = torch.zeros(min(n, 1), dtype=torch.int64, device=self.device)
            shape = ascent.param.decode(self._states[:1], first).shape[1:]
        blank = np.zeros((n, *shape), np.uint8)
        self.out = AscentResult(blank, self._states.clone(), np.full(n, -np.inf), iterations, forwards, backwards)

    def step(self, items: list[int], iteration: int) -> list[int]:
        """One iteration of these items; returns those that go on."""
        at = self._iterate(items, iteration)
        climbed, selected = self._transformed_scores(at) if self._ascent.transforms else self._scores(at)
        scores = None if selected is None else selected.double().cpu().numpy()
        if scores is not None:
            self._keep_best(at, scores)
        if at.last:
            return []
        assert climbed
        values = climbed[0]
        finite = torch.isfinite(values).tolist()
        on = [k for k, ok in enumerate(finite) if ok and not (scores is not None and scores[k, 0] >= self._ascent.stop_at)]
        self._note_stopped([items[k] for k, ok in enumerate(finite) if not ok], "score")
        if not on:
            return []
        gradient = self._direction([each[on].sum() for each in climbed], at.state)[on]
        self.out.backwards[[items[k] for k in on]] += len(climbed)
        self._moved[[items[k] for k in on]] |= gradient.flatten(1).any(1).cpu().numpy()
        sound = torch.isfinite(gradient.flatten(1)).all(1).tolist()
        self._note_stopped([items[k] for k, ok in zip(on, sound, strict=True) if not ok], "gradient")
        if not all(sound):
            on, gradient = [k for k, ok in zip(on, sound, strict=True) if ok], gradient[sound]
        if not on:
            return []
        going = [items[k] for k in on]
        with torch.no_grad():
            step = Step(at.state.detach()[on], gradient, values.detach()[on], going, iteration, self._ascent.param.project)
            self._states[at.rows[on]] = self._ascent.rule.step(step)
        self.out.iterations[going] += 1
        return going

    def _direction(self, totals: Sequence[torch.Tensor], state: torch.Tensor) -> torch.Tensor:
        """The gradient of the only total, or the sum of those of several, each of an item's divided by its length."""
        if len(totals) == 1:
            return gradient_of(self._target, totals[0], state)
        parts = [unit_length(gradient_of(self._target, total, state, keep=True)) for total in totals]
        known = torch.stack([torch.isfinite(part.flatten(1)).all(1) for part in parts]).any(0)
        total = torch.stack([part.nan_to_num(0.0, 0.0, 0.0) for part in parts]).sum(0)
        return torch.where(known.view(-1, *[1] * (state.ndim - 1)), total, torch.full_like(total, torch.nan))

    def finish(self) -> AscentResult:
        """The result, in an order that does not depend on threads."""
        self.out.improvements.sort(key=lambda found: (found.forwards, found.item))
        self.out.notes.sort()
        self.out.moved = self._moved
        return self.out

    def _iterate(self, items: list[int], iteration: int) -> _Iterate:
        last = iteration == self._ascent.steps
        rows = torch.tensor(items, device=self.device)
        state = self._states[rows].requires_grad_(not last)
        images = self._ascent.param.decode(state, rows)
        shown = straight_through(images) if self._ascent.rounded else images
        return _Iterate(items, rows, iteration, last, state, images, shown)

    def _scores(self, at: _Iterate) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The values (m,) of the objective and those beside it, and the selection's scores (m, 2) from the same pass."""
        with torch.set_grad_enabled(not at.last):
            forward = self._hooks.forward(at.shown)
            values = self._climbed(forward, at)
        self.out.forwards[at.items] += 1
        self._report(forward, at)
        return values, self._selection(forward, at, values[0])

    def _climbed(self, forward: ForwardPass, at: _Iterate) -> list[torch.Tensor]:
        return [each(forward, at.images, at.rows) for each in (self._ascent.objective, *self._ascent.beside)]

    def _transformed_scores(self, at: _Iterate) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """The objectives' values (m,) under the transforms, and the selection's scores (m, 2) without them.

        None, or no values, where they are not needed at this iteration.
        """
        ascent = self._ascent
        values: list[torch.Tensor] = []
        scores = None
        if ascent.select_by is not None and (at.iteration % ascent.select_every == 0 or at.last):
            with torch.no_grad():
                plain = self._hooks.forward(at.shown)
                scores = self._selection(plain, at, None)
            self.out.forwards[at.items] += 1
            self._report(plain, at)
        if not at.last or ascent.select_by is None:
            draws = Draws(self._seed, [self._keys[item] for item in at.items], at.iteration + 1, self.device)
            transformed = at.shown
            for transform in ascent.transforms:
                transformed = transform(transformed, draws)
            with torch.set_grad_enabled(not at.last):
                forward = self._hooks.forward(transformed)
                values = self._climbed(forward, at)
            self.out.forwards[at.items] += 1
            if ascent.select_by is None:
                scores = self._selection(forward, at, values[0])
        return values, scores

    def _report(self, forward: ForwardPass, at: _Iterate) -> None:
        if self._ascent.on_answers is not None and self._ascent.rounded:
            logits = forward.logits.detach().float().cpu().numpy()
            self._ascent.on_answers(np.array(at.items, np.int64), self.out.forwards[at.items], logits)

    @torch.no_grad()
    def _selection(self, forward: ForwardPass, at: _Iterate, values: torch.Tensor | None) -> torch.Tensor:
        """(m, 2): the score that iterates are compared by, and the secondary one. values: the objective's."""
        ascent = self._ascent
        if ascent.select_by is not None:
            values = ascent.select_by(forward, at.images, at.rows)
        assert values is not None
        no_score = torch.full_like(values, torch.nan)
        secondary = no_score if ascent.secondary is None else ascent.secondary(forward, at.images, at.rows)
        return torch.stack([values.detach(), secondary], 1)

    def _keep_best(self, at: _Iterate, scores: np.ndarray) -> None:
        """Keep each iterate whose score (scores[:, 0]) is strictly higher than its item's best."""
        best = scores[:, 0]
        better = [k for k, item in enumerate(at.items) if np.isfinite(best[k]) and best[k] > self.out.scores[item]]
        if not better:
            return
        items = [at.items[k] for k in better]
        self.out.scores[items] = best[better]
        assert self.out.states is not None
        self.out.states[items] = at.state.detach()[better]
        self.out.images[items] = to_uint8(at.shown.detach()[better])
        for k, item in zip(better, items, strict=True):
            passes = int(self.out.forwards[item]), int(self.out.backwards[item])
            self.out.improvements.append(Improvement(item, *passes, *scores[k].tolist()))

    def _note_stopped(self, items: Sequence[int], quantity: str) -> None:
        for item in items:
            kept = "nothing of it is kept" if not np.isfinite(self.out.scores[item]) else "its best before that is kept"
            after = f"after {self.out.iterations[item]} steps"
            self.out.notes.append((item, f"its {quantity} was NaN or infinite {after}, and it was stopped; {kept}"))


def gradient_of(target: Target, value: torch.Tensor, state: torch.Tensor, keep: bool = False) -> torch.Tensor:
    """The gradient of a scalar by the state, in its shape. keep: for another gradient of the same pass.

    TargetError for a target whose output does not depend on the state for autograd.
    """
    gradient = None
    if value.requires_grad:
        gradient = torch.autograd.grad(value, state, allow_unused=True, retain_graph=keep or None)[0]
    if gradient is None:
        raise TargetError(
            f"{target.name}: it gives no gradients: its output does not depend on the image for autograd (a "
            "comparison, rounding or detach cuts the graph). evofool bench and evofool gate replace such gradients; "
            "evofool targets check shows what is wrong with them"
        )
    return gradient


def unit_length(gradient: torch.Tensor) -> torch.Tensor:
    """(m, ...): each item's gradient divided by its Euclidean length; zeros stay, and NaN or infinity gives NaN.

    Exact under multiplication by a power of two, and so is the sum of several.
    """
    largest = gradient.flatten(1).abs().amax(1)
    # Divided by the largest element first, so that the squares of tiny gradients do not vanish.
    scaled = gradient / torch.where(largest > 0, largest, 1.0).view(-1, *[1] * (gradient.ndim - 1))
    length = scaled.flatten(1).norm(dim=1)
    return scaled / torch.where(length > 0, length, 1.0).view(-1, *[1] * (gradient.ndim - 1))


def straight_through(images: torch.Tensor) -> torch.Tensor:
    """images on [0, 1] rounded to 8 bits (images.quantise), with the gradient of not being rounded."""
    return images + (levels(images.detach()) / 255.0 - images.detach())


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """uint8 (n, C, H, W) of float images, as images.quantise has it."""
    return levels(images).to(torch.uint8).cpu().numpy()
