"""A substitute model learns a target's gradients from its answers."""

import torch
from torch.nn import functional as F

from evofool.ascend.hooks import Hooks
from evofool.ascend.substitute import Lesson, Substitute, train_substitute
from evofool.targets import Target
from tests.targets.test_gradients import SHAPE, around

QUERIES = 240


def slopes(target: Target, substitute: Substitute | None, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    with Hooks(target, approximation=substitute) as hooks:
        z = hooks.forward(x).logits
        return torch.autograd.grad((z[:, 1] - z[:, 2]).sum(), x)[0].flatten(1)


def test_a_substitute_model_climbs_like_the_target_and_is_paid_in_queries() -> None:
    target, masked = around(), around(after=lambda z: z.detach())
    substitute = train_substitute(masked, Lesson(QUERIES), seed=1)
    assert masked.queries == QUERIES
    x = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(0))
    alike = F.cosine_similarity(slopes(target, None, x), slopes(masked, substitute, x))
    assert alike.mean() > 0.5
    with Hooks(masked, approximation=substitute) as hooks:
        assert torch.equal(hooks.forward(x).logits, masked.logits_float(x))


def test_a_substitute_model_depends_on_its_seed_alone_and_on_no_temperature() -> None:
    def weights(times: float, seed: int) -> torch.Tensor:
        substitute = train_substitute(around(after=lambda z: z * times), Lesson(24, passes=2), seed)
        return torch.cat([parameter.flatten() for parameter in substitute.network.parameters()])

    first = weights(1.0, 1)
    assert torch.equal(first, weights(1.0, 1))
    assert torch.equal(first, weights(0.25, 1))
    assert not torch.equal(first, weights(1.0, 2))
