"""How a state goes on from its gradient: one rule object for one ascent, with what it has to remember of each item."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from evofool.ascend.transforms import blurred

Project = Callable[[torch.Tensor], torch.Tensor]


class StepRule(Protocol):
    """One row of states, gradients and values is one item; rows of different items may be stepped in several threads."""

    def begin(self, items: int, steps: int) -> None:
        """A new ascent of so many items and steps: forget what was."""
        ...

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        """(m, ...) states, the objective's gradients there and its values (m,), to the next states, projected."""
        ...


class Optimiser:
    """One of torch's optimisers, of those that need no closure, for each item.

    Optimiser(lambda params: torch.optim.Adam(params, lr=0.05))
    """

    def __init__(self, make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> None:
        self._make = make
        self._own: list[tuple[torch.Tensor, torch.optim.Optimizer] | None] = []

    def begin(self, items: int, steps: int) -> None:
        self._own = [None] * items

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        out = torch.empty_like(states)
        for k, row in enumerate(rows):
            own = self._own[row]
            if own is None:
                leaf = states[k].clone().requires_grad_()
                own = self._own[row] = (leaf, self._make([leaf]))
            leaf, optimiser = own
            with torch.no_grad():
                leaf.copy_(states[k])  # as it was projected
            leaf.grad = -gradients[k]
            optimiser.step()
            out[k] = leaf.detach()
        return project(out)


class Momentum:
    """Steepest ascent with momentum, which is dropped at each change of rate. schedule: (rate, iterations), then it stays.

    Mahendran & Vedaldi 2014: 0.9; one pair is plain momentum.
    """

    def __init__(self, schedule: Sequence[tuple[float, int]], momentum: float = 0.9) -> None:
        self._rates = [rate for rate, iterations in schedule for _ in range(iterations)]
        self._momentum = momentum
        self._speed: list[torch.Tensor | None] = []

    def begin(self, items: int, steps: int) -> None:
        self._speed = [None] * items

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        at = min(iteration, len(self._rates) - 1)
        changed = at > 0 and self._rates[at] != self._rates[at - 1]
        out = torch.empty_like(states)
        for k, row in enumerate(rows):
            before = self._speed[row]
            speed = self._rates[at] * gradients[k]
            if before is not None and not changed:
                speed = speed + self._momentum * before
            self._speed[row] = speed
            out[k] = states[k] + speed
        return project(out)


class Normalised:
    """Steps along the gradient brought to a length: by its L2 norm, or by the mean of its absolute values ("mean")."""

    def __init__(self, rate: float, by: str = "l2") -> None:
        self._rate, self._by = rate, by

    def begin(self, items: int, steps: int) -> None:
        pass

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        flat = gradients.flatten(1)
        size = flat.norm(dim=1) if self._by == "l2" else flat.abs().mean(1)
        return project(states + self._rate * gradients / _wide(size.clamp_min(1e-20), states))


class ProgressSteps:
    """The 2015 ascent's step: as far as p would grow by min(early, late * (1 - p)) if it grew along a straight line.

    x += g * min(wanted / ||g||^2, most) [Nguyen 2015, code: caffe/ascent]. Where p is tiny that is far out of the box; here
    `most` bounds the step itself, by the root mean square of what pixels change. Then its regularisers, in its order: decay
    towards `centre` (a value or (C, 1, 1)), a blur of `blur` pixels every `blur_every` steps, and `centre` again in the
    share `small` of pixels of the smallest norm, and in the share `idle` that contribute the least, |x * g| over channels.
    """

    def __init__(
        self,
        early: float,
        late: float,
        most: float = 0.05,
        centre: float | torch.Tensor = 0.0,
        decay: float = 0.0,
        blur: float = 0.0,
        blur_every: int = 1,
        small: float = 0.0,
        idle: float = 0.0,
    ) -> None:
        self._early, self._late, self._most = early, late, most
        self._centre = torch.as_tensor(centre)
        self._decay, self._blur, self._blur_every = decay, blur, blur_every
        self._small, self._idle = small, idle

    def begin(self, items: int, steps: int) -> None:
        pass

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        wanted = (self._late * (1 - values.double())).clamp_max(self._early)
        steep = gradients.double()  # a float32 loses the squares where p is tiny
        square = steep.square().flatten(1).sum(1).clamp_min(1e-300)
        farthest = self._most * steep[0].numel() ** 0.5 / square.sqrt()
        x = (states + _wide(torch.minimum(wanted / square, farthest), states) * steep).float()
        centre = self._centre.to(x)
        x = x - centre
        x = x * (1 - self._decay)
        if self._blur and iteration % self._blur_every == 0:
            x = blurred(x, self._blur)
        if self._small:
            x = _without(x, x.square().sum(1).sqrt(), self._small)
        if self._idle:
            x = _without(x, (x * gradients).sum(1).abs(), self._idle)
        return project(x + centre)


class Sign:
    """Projected steps of one size along the sign of the gradient."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def begin(self, items: int, steps: int) -> None:
        pass

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        return project(states + self._rate * gradients.sign())


class APGD:
    """Auto-PGD's step rule (Croce & Hein 2020, section 3 and algorithm 1), of signed steps with momentum alpha.

    rate is the first step size (their 2 epsilon), halved at a checkpoint if the objective rose in less than rho of the steps
    since the last one, or if neither the rate nor the best value has changed since then; each halving goes on from the best
    state, as their x(k+1) = x_max has it (it costs no pass: the gradient there is known). Checkpoints lie at shares of the
    steps: 0, 0.22, then each gap 0.03 shorter than the one before, at least 0.06.
    """

    def __init__(self, rate: float, alpha: float = 0.75, rho: float = 0.75) -> None:
        self._first, self._alpha, self._rho = rate, alpha, rho
        self._items: list[_Climber | None] = []
        self.checkpoints: frozenset[int] = frozenset()

    def begin(self, items: int, steps: int) -> None:
        self._items = [None] * items
        self.checkpoints = frozenset(checkpoints(steps)) - {0}

    def step(
        self,
        states: torch.Tensor,
        gradients: torch.Tensor,
        values: torch.Tensor,
        rows: Sequence[int],
        iteration: int,
        project: Project,
    ) -> torch.Tensor:
        told = values.tolist()
        # Their z: a step along the sign, projected. The rates of the items differ.
        return torch.cat([self._one(states[k : k + 1], gradients[k : k + 1], told[k], row, iteration, project)
                          for k, row in enumerate(rows)])  # fmt: skip

    def _one(
        self, x: torch.Tensor, gradient: torch.Tensor, value: float, row: int, iteration: int, project: Project
    ) -> torch.Tensor:
        own = self._items[row]
        if own is None:
            own = self._items[row] = _Climber(self._first, value, x, gradient)
            return own.moved(project(x + own.rate * gradient.sign()), x)
        if value > own.best:
            own.best, own.state, own.gradient = value, x.clone(), gradient.clone()
        if iteration - 1 in self.checkpoints and own.halve(self._rho):
            x, gradient, value = own.state, own.gradient, own.best
        own.rises += value > own.last
        own.taken += 1
        own.last = value
        z = project(x + own.rate * gradient.sign())
        return own.moved(project(x + self._alpha * (z - x) + (1 - self._alpha) * (x - own.before)), x)


class _Climber:
    """What APGD remembers of an item."""

    def __init__(self, rate: float, value: float, state: torch.Tensor, gradient: torch.Tensor) -> None:
        self.rate, self.last, self.best = rate, value, value
        self.state, self.gradient, self.before = state.clone(), gradient.clone(), state
        self.rises = self.taken = 0  # since the last checkpoint
        self._rate_then, self._best_then = rate, value

    def moved(self, to: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self.before = x.clone()
        return to

    def halve(self, rho: float) -> bool:
        """At a checkpoint: whether to halve the rate and go back to the best."""
        stuck = self._rate_then == self.rate and self._best_then == self.best
        few = self.rises < rho * self.taken
        self._rate_then, self._best_then = self.rate, self.best
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


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(m,) to (m, 1, ..., 1)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _without(x: torch.Tensor, size: torch.Tensor, share: float) -> torch.Tensor:
    """x (m, C, H, W) with 0 where size (m, H, W) is in its image's lowest share."""
    level = torch.quantile(size.flatten(1), share, dim=1).view(-1, 1, 1)
    return torch.where((size <= level)[:, None], torch.zeros_like(x), x)
