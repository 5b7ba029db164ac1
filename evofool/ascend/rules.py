"""Step rules: how a state moves along its gradient. One rule object serves one ascent and keeps what it needs per item."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from evofool.ascend.transforms import blurred

Project = Callable[[torch.Tensor], torch.Tensor]
"""(m, ...) states to the nearest allowed ones."""


class Step(NamedTuple):
    """What a rule is given for one step of m items, one row each."""

    state: torch.Tensor  # (m, ...) float32
    gradient: torch.Tensor  # (m, ...), the objective's at the state
    values: torch.Tensor  # (m,), the objective's at the state
    items: Sequence[int]  # (m,), which items of the ascent the rows are
    iteration: int  # counted from 0
    project: Project

    def row(self, k: int) -> "Step":
        """The step of the k-th item alone."""
        rows = slice(k, k + 1)
        items = [self.items[k]]
        return Step(self.state[rows], self.gradient[rows], self.values[rows], items, self.iteration, self.project)


class StepRule(Protocol):
    """Several threads may step different items at the same time."""

    def begin(self, items: int, steps: int) -> None:
        """Start an ascent of so many items and steps; discard the memory of any ascent before."""
        ...

    def step(self, step: Step) -> torch.Tensor:
        """(m, ...): the next states, projected."""
        ...


class Optimiser:
    """One of torch's optimisers for each item; it must not need a closure.

    Optimiser(lambda params: torch.optim.Adam(params, lr=0.05))
    """

    def __init__(self, make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> None:
        self._make = make
        self._optimisers: list[tuple[torch.Tensor, torch.optim.Optimizer] | None] = []

    def begin(self, items: int, steps: int) -> None:
        self._optimisers = [None] * items

    def step(self, step: Step) -> torch.Tensor:
        out = torch.empty_like(step.state)
        for k, item in enumerate(step.items):
            entry = self._optimisers[item]
            if entry is None:
                leaf = step.state[k].clone().requires_grad_()
                entry = self._optimisers[item] = (leaf, self._make([leaf]))
            leaf, optimiser = entry
            with torch.no_grad():
                leaf.copy_(step.state[k])  # projected since the last step
            leaf.grad = -step.gradient[k]
            optimiser.step()
            out[k] = leaf.detach()
        return step.project(out)


@dataclass(frozen=True)
class Regularisers:
    """What is done to an image after each step, in this order; 0 leaves a regulariser out.

    decay: the share of the distance to the centre that is removed. blur: sigma in pixels, every blur_every steps. small:
    this share of the pixels, those of the smallest norm, is set to the centre. idle: likewise those that contribute the
    least, |x * gradient| over channels. Sources: Yosinski 2015, section 3; Nguyen 2015, code: caffe/ascent.
    """

    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 1
    small: float = 0.0
    idle: float = 0.0

    def __call__(self, x: torch.Tensor, step: Step, centre: torch.Tensor) -> torch.Tensor:
        """Images x (m, C, H, W) after this step, not projected. centre: a pixel value, or (C, 1, 1)."""
        centre = centre.to(x)
        x = x - centre
        x = x * (1 - self.decay)
        if self.blur and step.iteration % self.blur_every == 0:
            x = blurred(x, self.blur)
        if self.small:
            x = _without_lowest(x, x.square().sum(1).sqrt(), self.small)
        if self.idle:
            x = _without_lowest(x, (x * step.gradient).sum(1).abs(), self.idle)
        return x + centre


NO_REGULARISERS = Regularisers()


class Momentum:
    """Steepest ascent with momentum, which is reset whenever the rate changes.

    schedule: pairs (rate, iterations); the last rate stays. Mahendran & Vedaldi 2014 use momentum 0.9. The regularisers
    follow each step, for states that are images. centre: a pixel value, or (C, 1, 1).
    """

    def __init__(
        self,
        schedule: Sequence[tuple[float, int]],
        momentum: float = 0.9,
        centre: float | torch.Tensor = 0.0,
        regularisers: Regularisers = NO_REGULARISERS,
    ) -> None:
        self._centre, self._regularisers = torch.as_tensor(centre), regularisers
        self._rates = [rate for rate, iterations in schedule for _ in range(iterations)]
        self._momentum = momentum
        self._velocity: list[torch.Tensor | None] = []

    def begin(self, items: int, steps: int) -> None:
        self._velocity = [None] * items

    def step(self, step: Step) -> torch.Tensor:
        at = min(step.iteration, len(self._rates) - 1)
        changed = at > 0 and self._rates[at] != self._rates[at - 1]
        out = torch.empty_like(step.state)
        for k, item in enumerate(step.items):
            before = self._velocity[item]
            velocity = self._rates[at] * step.gradient[k]
            if before is not None and not changed:
                velocity = velocity + self._momentum * before
            self._velocity[item] = velocity
            out[k] = step.state[k] + velocity
        if self._regularisers != NO_REGULARISERS:
            out = self._regularisers(out, step, self._centre)
        return step.project(out)


class Normalised:
    """Steps of length `rate` along the gradient, divided by its L2 norm, or by the mean of its absolute values ("mean").

    The regularisers follow each step, for states that are images around 0.
    """

    def __init__(self, rate: float, by: str = "l2", regularisers: Regularisers = NO_REGULARISERS) -> None:
        self._rate, self._by, self._regularisers = rate, by, regularisers

    def begin(self, items: int, steps: int) -> None:
        pass

    def step(self, step: Step) -> torch.Tensor:
        flat = step.gradient.flatten(1)
        size = flat.norm(dim=1) if self._by == "l2" else flat.abs().mean(1)
        x = step.state + self._rate * step.gradient / _broadcast(size.clamp_min(1e-20), step.state)
        if self._regularisers != NO_REGULARISERS:
            x = self._regularisers(x, step, torch.zeros(()))
        return step.project(x)


class ProgressSteps:
    """The step of Nguyen 2015: as far as p would have to go on a straight line to grow by min(early, late * (1 - p)).

    x += g * min(wanted / ||g||^2, bound) [Nguyen 2015, code: caffe/ascent]. Where p is tiny this leaves the box by far, so
    `most` bounds the step itself here: the root mean square of the change of pixels. The regularisers follow. centre: a
    pixel value, or (C, 1, 1).
    """

    def __init__(
        self,
        early: float,
        late: float,
        most: float = 0.05,
        centre: float | torch.Tensor = 0.0,
        regularisers: Regularisers = NO_REGULARISERS,
    ) -> None:
        self._early, self._late, self._most = early, late, most
        self._centre = torch.as_tensor(centre)
        self._regularisers = regularisers

    def begin(self, items: int, steps: int) -> None:
        pass

    def step(self, step: Step) -> torch.Tensor:
        state = step.state
        wanted = (self._late * (1 - step.values.double())).clamp_max(self._early)
        gradient = step.gradient.double()  # in float32 the squares underflow where p is tiny
        square = gradient.square().flatten(1).sum(1).clamp_min(1e-300)
        farthest = self._most * gradient[0].numel() ** 0.5 / square.sqrt()
        x = (state + _broadcast(torch.minimum(wanted / square, farthest), state) * gradient).float()
        return step.project(self._regularisers(x, step, self._centre))


class Sign:
    """Steps of size `rate` along the sign of the gradient, projected."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def begin(self, items: int, steps: int) -> None:
        pass

    def step(self, step: Step) -> torch.Tensor:
        return step.project(step.state + self._rate * step.gradient.sign())


class APGD:
    """The step rule of Auto-PGD (Croce & Hein 2020, section 3 and algorithm 1): signed steps with momentum alpha.

    rate is the first step size (their 2 epsilon). It is halved at a checkpoint if the objective rose in less than a share
    rho of the steps since the last checkpoint, or if neither the rate nor the best value has changed since then. After
    halving, the item continues from its best state, their x(k+1) = x_max; this costs no pass, since the gradient there was
    kept.
    """

    def __init__(self, rate: float, alpha: float = 0.75, rho: float = 0.75) -> None:
        self._first, self._alpha, self._rho = rate, alpha, rho
        self._memory: list[_APGDMemory | None] = []
        self.checkpoints: frozenset[int] = frozenset()

    def begin(self, items: int, steps: int) -> None:
        self._memory = [None] * items
        self.checkpoints = frozenset(checkpoints(steps)) - {0}

    def step(self, step: Step) -> torch.Tensor:
        # Item by item, since their rates differ.
        return torch.cat([self._step_item(step.row(k)) for k in range(len(step.items))])

    def _step_item(self, step: Step) -> torch.Tensor:
        (item,), x, gradient, value = step.items, step.state, step.gradient, step.values.item()
        memory = self._memory[item]
        if memory is None:
            memory = self._memory[item] = _APGDMemory(self._first, value, x, gradient)
            return memory.moved(x, step.project(x + memory.rate * gradient.sign()))
        if value > memory.best:
            memory.best, memory.state, memory.gradient = value, x.clone(), gradient.clone()
        if step.iteration - 1 in self.checkpoints and memory.halve(self._rho):
            x, gradient, value = memory.state, memory.gradient, memory.best
        memory.rises += value > memory.last
        memory.taken += 1
        memory.last = value
        z = step.project(x + memory.rate * gradient.sign())
        return memory.moved(x, step.project(x + self._alpha * (z - x) + (1 - self._alpha) * (x - memory.before)))


class _APGDMemory:
    """What APGD remembers of one item."""

    def __init__(self, rate: float, value: float, state: torch.Tensor, gradient: torch.Tensor) -> None:
        self.rate, self.last, self.best = rate, value, value
        self.state, self.gradient, self.before = state.clone(), gradient.clone(), state
        self.rises = self.taken = 0  # since the last checkpoint
        self._checkpoint_rate, self._checkpoint_best = rate, value

    def moved(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Remember the state before a step; returns the state after it."""
        self.before = before.clone()
        return after

    def halve(self, rho: float) -> bool:
        """At a checkpoint: halve the rate if progress was too slow. Returns whether it did."""
        stuck = self._checkpoint_rate == self.rate and self._checkpoint_best == self.best
        few = self.rises < rho * self.taken
        self._checkpoint_rate, self._checkpoint_best = self.rate, self.best
        self.rises = self.taken = 0
        if few or stuck:
            self.rate /= 2
        return few or stuck


def checkpoints(steps: int) -> list[int]:
    """The iterations w_j = ceil(p_j N) of Croce & Hein 2020: p_0 = 0, p_1 = 0.22, then each gap 0.03 less, at least 0.06."""
    shares = [0.0, 0.22]
    while shares[-1] < 1.0:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(round(share * steps, 9)) for share in shares if share <= 1.0]


def _broadcast(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(m,) to (m, 1, ..., 1)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _without_lowest(x: torch.Tensor, size: torch.Tensor, share: float) -> torch.Tensor:
    """x (m, C, H, W) with 0 where size (m, H, W) is among the lowest share of its image."""
    level = torch.quantile(size.flatten(1), share, dim=1).view(-1, 1, 1)
    return torch.where((size <= level)[:, None], torch.zeros_like(x), x)
