"""The outputs stay those of the network, the gradients skip what masks them."""

import threading
from collections.abc import Callable

import pytest
import torch

from evofool.ascend.hooks import Hooks
from evofool.ascend.straight_through import StraightThrough, find_straight_through
from evofool.targets import Target
from tests.targets.test_gradients import MASKED, SHAPE, around

ENDS = {"threshold": "before", "detach": "before", "infinite": "before", "ripple": "before"}


def gradient(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(forward(x)[:, 2].sum(), x)[0]


def hooks_of(target: Target) -> int:
    assert target.network is not None
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in target.network.module.modules())


@pytest.mark.parametrize("name", MASKED)
def test_the_layers_that_mask_gradients_are_found_and_skipped(name: str) -> None:
    target, _ = MASKED[name]
    found = find_straight_through(target)
    assert found is not None
    assert (found.start, found.end) == (("network", "") if ENDS.get(name) else ("", "network"))
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(2))
    assert target.network is not None
    own = target.network.module
    shown = own.before(target.network.prepare(x * 255)).detach()  # type: ignore[operator]
    with Hooks(target, approximation=found) as hooks:
        torch.testing.assert_close(hooks.forward(x).logits, target.logits_float(x), rtol=0, atol=0)
        torch.testing.assert_close(gradient(lambda x: hooks.forward(x).logits, x), gradient(own.network, shown))  # type: ignore[arg-type]
    assert hooks_of(target) == 0


def test_what_comes_before_and_after_is_skipped_together() -> None:
    target = around(before=lambda x: (x > 0.5).float(), after=lambda z: z.round())
    found = find_straight_through(target)
    assert found is not None
    assert (found.start, found.end) == ("network", "network")


def test_a_gradient_at_images_of_another_size_is_resized() -> None:
    target = around(before=lambda x: torch.nn.functional.max_pool2d(x.detach(), 2))
    found = find_straight_through(target)
    assert found is not None
    with Hooks(target, approximation=found) as hooks:
        slope = gradient(lambda x: hooks.forward(x).logits, torch.rand(1, *SHAPE))
    assert slope.shape == (1, *SHAPE)
    assert slope.any()


def test_a_cut_in_the_middle_cannot_be_skipped() -> None:
    target = around()
    target.network.module.network[2].register_forward_hook(lambda _m, _a, output: output.round())  # type: ignore[union-attr,index]
    assert find_straight_through(target) is None


def test_threads_do_not_mix_their_passes() -> None:
    target, _ = MASKED["detach"]
    images = torch.rand(24, 1, *SHAPE)
    with Hooks(target, approximation=StraightThrough("network", "")) as hooks:
        forward = lambda x: hooks.forward(x).logits  # noqa: E731
        alone = [gradient(forward, x) for x in images]
        found: dict[int, torch.Tensor] = {}
        threads = [threading.Thread(target=lambda k=k: found.update({k: gradient(forward, images[k])})) for k in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(found[k], alone[k]) for k in range(24))
