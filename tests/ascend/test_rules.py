"""Step rules follow their papers: compared with traces worked out by hand and with torch's optimisers."""

from collections.abc import Callable

import pytest
import torch

from evofool.ascend.rules import (
    APGD,
    Momentum,
    Normalised,
    Optimiser,
    ProgressSteps,
    Regularisers,
    Sign,
    Step,
    StepRule,
    checkpoints,
)
from evofool.ascend.transforms import blurred


def box(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(0.0, 1.0)


def free(x: torch.Tensor) -> torch.Tensor:
    return x


def climb(
    rule: StepRule,
    x: torch.Tensor,
    f: Callable[[torch.Tensor], torch.Tensor],
    steps: int,
    project: Callable[[torch.Tensor], torch.Tensor] = box,
) -> list[torch.Tensor]:
    """The states of an ascent on f (m, ...) -> (m,), the start first."""
    rule.begin(len(x), steps)
    seen = [x]
    for iteration in range(steps):
        x = x.clone().requires_grad_()
        values = f(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
        x = rule.step(Step(x.detach(), gradient, values.detach(), range(len(x)), iteration, project))
        seen.append(x)
    return seen


def test_checkpoints_are_the_paper_s() -> None:
    """p: 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 (Croce & Hein 2020, section 3.2)."""
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [0, 3, 5, 6, 7, 8, 9, 10, 10]


def test_apgd_follows_a_trace_worked_out_by_hand() -> None:
    """Algorithm 1 on f(x) = -|x - 0.32| from 0.9, first rate 0.4, 10 steps: checkpoints at 3, 5, 6, ...

    x1 = 0.9 - 0.4. x2 = 0.5 + 0.75 (0.1 - 0.5) + 0.25 (0.5 - 0.9). x3 = 0.1 + 0.75 * 0.4 + 0.25 (0.1 - 0.5).
    x4 = 0.3 + 0.3 + 0.25 (0.3 - 0.1). At k = 3 two of three steps rose, under 0.75 of them: rate 0.2, back to 0.3, which x3
    is, so no momentum: x5 = 0.3 + 0.75 * 0.2. x6 = 0.45 - 0.15 + 0.25 (0.45 - 0.3) is the new best. At k = 5 none of two
    rose: rate 0.1, from the best, x6 itself: x7 = 0.3375 - 0.075 + 0.25 (0.3375 - 0.45). At k = 6 the one step rose, and
    the rate was halved at the last checkpoint: it stays, x8 = 0.234375 + 0.075 + 0.25 (0.234375 - 0.3375).
    """
    seen = climb(APGD(0.4), torch.tensor([[0.9]]), lambda x: -(x - 0.32).abs()[:, 0], 10)
    trace = [float(x) for x in seen[:9]]
    assert trace == pytest.approx([0.9, 0.5, 0.1, 0.3, 0.65, 0.45, 0.3375, 0.234375, 0.28359375], abs=1e-6)


def test_apgd_halves_a_rate_that_is_stuck() -> None:
    """A slope that always rises keeps its rate; one that is at its top from the start is stuck, and halves."""
    rule = APGD(0.1)
    seen = climb(rule, torch.tensor([[0.5]]), lambda x: x[:, 0], 10)
    assert float(seen[1]) == pytest.approx(0.6)
    assert float(seen[-1]) == 1.0
    seen = climb(APGD(0.2), torch.tensor([[0.45]]), lambda x: -((x - 0.5)[:, 0] ** 2), 10)
    far = [abs(float(x) - 0.5) for x in seen]
    assert max(far[-3:]) < max(far[:4])


def test_each_item_of_apgd_has_its_own_rate() -> None:
    f = lambda x: -(x - torch.tensor([[0.32], [5.0]])[: len(x)]).abs()[:, 0]  # noqa: E731
    both = climb(APGD(0.1), torch.tensor([[0.9], [0.0]]), f, 12)
    alone = climb(APGD(0.1), torch.tensor([[0.9]]), f, 12)
    assert [float(x[0]) for x in both] == [float(x[0]) for x in alone]
    assert float(both[-1][1]) == 1.0


def test_momentum_is_dropped_where_the_rate_changes() -> None:
    seen = climb(Momentum([(0.1, 2), (0.01, 3)], momentum=0.5), torch.zeros(1, 1), lambda x: 1.0 * x[:, 0], 4, free)
    assert [float(x) for x in seen] == pytest.approx([0.0, 0.1, 0.25, 0.26, 0.275])


def test_a_progress_step_raises_p_by_the_wanted_amount_on_a_straight_line() -> None:
    p = lambda x: 0.2 + (x * torch.tensor([0.03, 0.04])).sum(1)  # noqa: E731
    x = torch.tensor([[0.0, 0.0]])
    (_, once) = climb(ProgressSteps(0.02, 0.1, most=10.0), x, p, 1, free)
    assert float(p(once)) == pytest.approx(0.22)  # early is less than late * 0.8
    (_, late) = climb(ProgressSteps(0.5, 0.1, most=10.0), x, p, 1, free)
    assert float(p(late)) == pytest.approx(0.28)
    (_, short) = climb(ProgressSteps(0.5, 0.1, most=0.05), x, p, 1, free)
    assert float(short.square().mean().sqrt()) == pytest.approx(0.05)


def test_a_progress_step_is_bounded_where_p_is_tiny() -> None:
    x = torch.zeros(1, 4)
    (_, after) = climb(ProgressSteps(0.02, 0.1, most=0.05), x, lambda x: 1e-30 * (1 + x.sum(1)), 1, free)
    assert float(after.square().mean().sqrt()) == pytest.approx(0.05)


def test_progress_steps_have_the_regularisers_of_2015() -> None:
    gradient = torch.zeros(1, 1, 2, 2)
    x = torch.tensor([[[[0.9, 0.65], [0.52, 0.4]]]])

    def after(**settings: float) -> torch.Tensor:
        rule = ProgressSteps(0.02, 0.1, centre=0.5, regularisers=Regularisers(**settings))  # type: ignore[arg-type]
        return rule.step(Step(x, gradient, torch.tensor([0.5]), [0], 0, free))

    assert torch.allclose(after(decay=0.1), 0.5 + 0.9 * (x - 0.5))
    assert torch.allclose(after(small=0.5), torch.tensor([[[[0.9, 0.65], [0.5, 0.5]]]]))
    assert float((after(blur=1.0) - 0.5).abs().max()) < 0.4
    slope = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
    rule = ProgressSteps(0.0, 0.0, centre=0.5, regularisers=Regularisers(idle=0.25))
    idle = rule.step(Step(x, slope, torch.tensor([0.5]), [0], 0, free))
    assert torch.allclose(idle, torch.tensor([[[[0.5, 0.65], [0.52, 0.4]]]]))


def test_other_rules_regularise_after_their_steps_too() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1.0
    step = Step(x, torch.zeros_like(x), torch.tensor([0.0]), [0], 0, free)
    for rule in (
        Momentum([(0.1, 1)], regularisers=Regularisers(blur=1.0)),
        Normalised(0.1, regularisers=Regularisers(blur=1.0)),
    ):
        rule.begin(1, 1)
        assert torch.allclose(rule.step(step), blurred(x, 1.0), atol=1e-6)
    grey = Momentum([(0.1, 1)], centre=0.5, regularisers=Regularisers(decay=0.1))
    grey.begin(1, 1)
    assert torch.allclose(grey.step(step), 0.5 + 0.9 * (x - 0.5))


def test_normalised_steps_have_the_length_that_is_asked_for() -> None:
    f = lambda x: (x * torch.tensor([3.0, 4.0])).sum(1) * 1e-9  # noqa: E731
    assert torch.allclose(climb(Normalised(0.5), torch.zeros(1, 2), f, 1, free)[1], torch.tensor([[0.3, 0.4]]))
    by_mean = climb(Normalised(0.7, by="mean"), torch.zeros(1, 2), f, 1, free)[1]
    assert torch.allclose(by_mean, torch.tensor([[0.6, 0.8]]))


def test_signed_steps_are_projected() -> None:
    seen = climb(Sign(0.4), torch.tensor([[0.5, 0.5]]), lambda x: x[:, 0] - x[:, 1], 3)
    assert torch.allclose(seen[1], torch.tensor([[0.9, 0.1]]))
    assert torch.equal(seen[3], torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD])
def test_each_item_of_an_optimiser_has_its_own_torch_optimiser(kind: type[torch.optim.Optimizer]) -> None:
    f = lambda x: -((x - 0.3) ** 4).sum(1)  # noqa: E731
    start = torch.tensor([[0.9, 0.1], [0.2, 0.7]])
    ours = climb(Optimiser(lambda params: kind(params, lr=0.05)), start, f, 6, free)[-1]
    leaf = start[1:].clone().requires_grad_()
    optimiser = kind([leaf], lr=0.05)  # type: ignore[call-arg]
    for _ in range(6):
        optimiser.zero_grad()
        (-f(leaf).sum()).backward()
        optimiser.step()
    assert torch.allclose(ours[1:], leaf.detach())
