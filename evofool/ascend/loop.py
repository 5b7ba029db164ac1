"""One loop of gradient ascent for every method: objective x parameterisation x transforms x rule, each item on its own."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from evofool.ascend.draws import Draws
from evofool.ascend.hooks import Hooks, Read
from evofool.ascend.objectives import Objective
from evofool.ascend.params import Param
from evofool.ascend.rules import StepRule
from evofool.ascend.transforms import Transform
from evofool.images import levels
from evofool.targets.target import Target

Tick = Callable[[int, int], bool]
"""(the iteration that is done, counted from 0, of how many) -> whether to stop now; called after each one."""


class Improvement(NamedTuple):
    """An item's score rose, after so many passes of its own."""

    item: int
    forwards: int
    backwards: int
    score: float
    beside: float = math.nan  # the second score, where one was asked for


STUCK = "its gradient was 0 at every step, so it is where it began; another start (another seed) may help"


@dataclass
class AscentResult:
    """What became of n items. An item whose every score was NaN has the score -inf and a black image."""

    images: np.ndarray  # uint8 (n, C, H, W), the best iterate, as it was scored where `rounded`
    states: torch.Tensor | None  # (n, ...) of the best iterate; None where nothing but pixels was searched
    scores: np.ndarray  # (n,) float64, by the judge
    iterations: np.ndarray  # (n,) int64, steps taken
    forwards: np.ndarray  # (n,) int64, images that the network was shown for the item
    backwards: np.ndarray  # (n,) int64, gradients that were taken for it
    improvements: list[Improvement] = field(default_factory=list)  # in the order of iterations
    notes: list[tuple[int, str]] = field(default_factory=list)  # item, what a user should know of it
    interrupted: bool = False  # tick said so
    moved: np.ndarray | None = None  # (n,) bool, whether any gradient was not 0; None where none was taken

    @property
    def stuck(self) -> list[int]:
        """The items whose gradient was 0 at every step: they are where they began."""
        return [] if self.moved is None else np.flatnonzero(~self.moved & (self.backwards > 0)).tolist()


def ascend(
    target: Target,
    param: Param,
    objective: Objective,
    *,
    rule: StepRule,
    steps: int,
    seed: int = 0,
    keys: Sequence[int],
    transforms: Sequence[Transform] = (),
    select_by: Objective | None = None,
    beside: Objective | None = None,
    select_every: int = 1,
    stop_at: float = math.inf,
    together: int = 1,
    microbatch: int = 0,
    rounded: bool = True,
    streams: int = 1,
    tick: Tick | None = None,
) -> AscentResult:
    """Climb the objective from param's start, each of the n items `keys` by itself; the best iterate of each is kept.

    keys (n,): what the draws of items are keyed by, together with seed and step (Draws). judge: what iterates are compared
    by, the objective unless given; of equals the first. beside: a second score that improvements tell. With transforms the
    judge sees the image without them, in a forward pass of its own at every select_every-th iteration and the last one. An
    item ends at `stop_at` of the judge's score, and so do its `together` neighbours (restarts for the same end); or when its
    score or gradient is not finite (a note says so; its best is kept). rounded: the network sees the 8-bit image, and the
    gradient is taken straight through the rounding: what is scored is what is saved.

    microbatch items share a pass (0: 2 on a CPU, 32 elsewhere), and so many passes as there are streams run at once, each
    with the caller's number of torch threads. Equal seed and microbatch give equal bits; another microbatch has the same
    draws. A step is one forward and one backward pass; after the last step one more forward pass judges. TargetError for a
    target without gradients.
    """
    keys = list(keys)
    wanted = [each for each in (objective, select_by, beside) if each is not None]
    layers = [layer for each in wanted for layer in each.layers]
    with Hooks(target, layers, logits=any(each.logits for each in wanted)) as hooks:
        climb = _Climb(
            target, hooks, param, objective, rule, steps, seed, keys, transforms, select_by, beside, select_every, rounded
        )
        size = microbatch or (2 if climb.device.type == "cpu" else 32)
        active = list(range(len(keys)))
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(streams, "ascend", torch.set_num_threads, (threads,)) as pool:
            each = pool.map if streams > 1 else map
            for iteration in range(steps + 1):
                parts = [active[at : at + size] for at in range(0, len(active), size)]
                stepped = list(each(lambda part: climb.step(part, iteration, stop_at), parts))  # noqa: B023 - used at once
                active = [row for part in stepped for row in part]
                if together > 1:
                    ended = {row // together for row in np.flatnonzero(climb.out.scores >= stop_at).tolist()}
                    active = [row for row in active if row // together not in ended]
                if tick is not None and tick(iteration, steps) and active:
                    climb.out.interrupted = True
                    break
                if not active:
                    break
    return climb.finish()


class _Climb:
    """An ascent under way. Rows of different items are never the business of two threads."""

    def __init__(
        self,
        target: Target,
        hooks: Hooks,
        param: Param,
        objective: Objective,
        rule: StepRule,
        steps: int,
        seed: int,
        keys: Sequence[int],
        transforms: Sequence[Transform],
        select_by: Objective | None,
        beside: Objective | None,
        select_every: int,
        rounded: bool,
    ) -> None:
        assert target.network is not None
        self.device = target.network.device
        self._hooks, self._param, self._objective, self._rule = hooks, param, objective, rule
        self._steps, self._seed, self._keys = steps, seed, keys
        self._transforms, self._select_by, self._beside = tuple(transforms), select_by, beside
        self._select_every, self._rounded = select_every, rounded
        n = len(keys)
        self._states = param.init(Draws(seed, keys, 0)).to(self.device)
        rule.begin(n, steps)
        steps_taken, forwards, backwards = (np.zeros(n, np.int64) for _ in range(3))
        self._moved = np.zeros(n, bool)
        with torch.no_grad():  # not the target's shape: layers may take other sizes
            size = param.decode(self._states[:1], torch.zeros(min(n, 1), dtype=torch.int64, device=self.device)).shape[1:]
        blank = np.zeros((n, *size), np.uint8)
        self.out = AscentResult(blank, self._states.clone(), np.full(n, -np.inf), steps_taken, forwards, backwards)

    def step(self, part: list[int], iteration: int, stop_at: float) -> list[int]:
        """One iteration of the items `part`; returns those that go on."""
        rows = torch.tensor(part, device=self.device)
        last = iteration == self._steps
        state = self._states[rows].requires_grad_(not last)
        images = self._param.decode(state, rows)
        seen = straight_through(images) if self._rounded else images
        judging = iteration % self._select_every == 0 or last
        if self._transforms:
            values, scores = self._transformed(part, iteration, seen, images, rows, judging, last)
        else:
            with torch.set_grad_enabled(not last):
                read = self._hooks.read(seen)
                values = self._objective(read, images, rows)
            self.out.forwards[part] += 1
            scores = self._judged(read, images, rows, values)
        told = None if scores is None else scores.double().cpu().numpy()
        if told is not None:
            self._keep(part, told, state, seen)
        if last:
            return []
        assert values is not None
        finite = torch.isfinite(values).tolist()
        on = [k for k, ok in enumerate(finite) if ok and not (told is not None and told[k, 0] >= stop_at)]
        self._complain(part, [k for k, ok in enumerate(finite) if not ok], "score")
        if not on:
            return []
        (gradient,) = torch.autograd.grad(values[on].sum(), state)
        self.out.backwards[[part[k] for k in on]] += 1
        steep = gradient[on]
        self._moved[[part[k] for k in on]] |= steep.flatten(1).any(1).cpu().numpy()
        sound = torch.isfinite(steep.flatten(1)).all(1).tolist()
        self._complain(part, [k for k, ok in zip(on, sound, strict=True) if not ok], "gradient")
        if not all(sound):
            on, steep = [k for k, ok in zip(on, sound, strict=True) if ok], steep[sound]
        if not on:
            return []
        going = [part[k] for k in on]
        with torch.no_grad():
            there = rows[on]
            told_values = values.detach()[on]
            self._states[there] = self._rule.step(
                state.detach()[on], steep, told_values, going, iteration, self._param.project
            )
        self.out.iterations[going] += 1
        return going

    def _transformed(
        self,
        part: list[int],
        iteration: int,
        seen: torch.Tensor,
        images: torch.Tensor,
        rows: torch.Tensor,
        judging: bool,
        last: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The objective's values under the transforms, and the judge's without them; None where it was not asked."""
        scores = values = None
        if self._select_by is not None and judging:
            with torch.no_grad():
                scores = self._judged(self._hooks.read(seen), images, rows, None)
            self.out.forwards[part] += 1
        if not last or self._select_by is None:
            draws = Draws(self._seed, [self._keys[row] for row in part], iteration + 1, self.device)
            moved = seen
            for transform in self._transforms:
                moved = transform(moved, draws)
            with torch.set_grad_enabled(not last):
                read = self._hooks.read(moved)
                values = self._objective(read, images, rows)
            self.out.forwards[part] += 1
            if self._select_by is None:
                scores = self._judged(read, images, rows, values)
        return values, scores

    @torch.no_grad()
    def _judged(self, read: Read, images: torch.Tensor, rows: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
        """(m, 2): what iterates are compared by, and the score beside it."""
        if self._select_by is not None:
            values = self._select_by(read, images, rows)
        assert values is not None
        beside = torch.full_like(values, torch.nan) if self._beside is None else self._beside(read, images, rows)
        return torch.stack([values.detach(), beside], 1)

    def finish(self) -> AscentResult:
        """What came of it, in an order that no thread decides."""
        self.out.improvements.sort(key=lambda found: (found.forwards, found.item))
        self.out.notes.sort()
        self.out.moved = self._moved
        return self.out

    def _keep(self, part: list[int], scores: np.ndarray, state: torch.Tensor, seen: torch.Tensor) -> None:
        best = scores[:, 0]
        better = [k for k, row in enumerate(part) if np.isfinite(best[k]) and best[k] > self.out.scores[row]]
        if not better:
            return
        rows = [part[k] for k in better]
        self.out.scores[rows] = best[better]
        assert self.out.states is not None
        self.out.states[rows] = state.detach()[better]
        self.out.images[rows] = to_uint8(seen.detach()[better])
        for k, row in zip(better, rows, strict=True):
            passes = int(self.out.forwards[row]), int(self.out.backwards[row])
            self.out.improvements.append(Improvement(row, *passes, *scores[k].tolist()))

    def _complain(self, part: list[int], which: list[int], of: str) -> None:
        for k in which:
            row = part[k]
            best = "nothing of it is kept" if not np.isfinite(self.out.scores[row]) else "its best before that is kept"
            words = f"its {of} came out NaN or infinite after {self.out.iterations[row]} steps, and it was stopped; {best}"
            self.out.notes.append((row, words))


def straight_through(images: torch.Tensor) -> torch.Tensor:
    """images on [0, 1] rounded to 8 bits (images.quantise), with the gradient of not being rounded."""
    return images + (levels(images.detach()) / 255.0 - images.detach())


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """uint8 (n, C, H, W) of float images, as images.quantise has it."""
    return levels(images).to(torch.uint8).cpu().numpy()
