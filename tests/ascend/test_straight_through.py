"""The outputs stay those of the network, the gradients skip what masks them."""

import threading
from collections.abc import Callable

import pytest
import torch

from evofool.ascend.hooks import Hooks
from evofool.ascend.straight_through import StraightThrough, find_straight_through
from evofool.attacks.gradient import apgd
from evofool.errors import TargetError
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


def in_the_middle(change: Callable[[torch.Tensor], torch.Tensor]) -> Target:
    target = around()
    target.network.module.network[2].register_forward_hook(lambda _m, _a, output: change(output))  # type: ignore[union-attr,index]
    return target


def without_gradients(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return x * 1.0


OPERATIONS = {
    "round": lambda x: (64 * x).round() / 64,
    "detach": lambda x: x.detach(),
    "no_grad": without_gradients,
    "compared": lambda x: (x > 0.2).float() + (x >= 0.4) + (x < 0.1).to(torch.float32),
    "integers": lambda x: (64 * x).int() / 64,
    "sign": lambda x: torch.sign(x - 0.2),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_single_operations_in_the_middle_are_skipped(name: str) -> None:
    target = in_the_middle(OPERATIONS[name])
    found = find_straight_through(target)
    assert found is not None
    assert (found.start, found.end, found.operations) == ("", "", True)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(2))
    with Hooks(target, approximation=found) as hooks:
        assert torch.equal(hooks.forward(x).logits, target.logits_float(x))
        slope = gradient(lambda x: hooks.forward(x).logits, x)
    if name in ("detach", "no_grad", "round", "integers"):
        torch.testing.assert_close(slope, gradient(around().logits_float, x))
    assert slope.any()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: torch.from_numpy(x.detach().numpy().copy()),  # autograd does not see NumPy
        lambda x: x * (x[x > 0.2].numel() >= 0) * 0 + x.detach().round() * 0 + x.argsort(-1).float(),
    ],
)
def test_other_cuts_in_the_middle_cannot_be_skipped(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert find_straight_through(in_the_middle(change)) is None


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


@pytest.mark.parametrize("name", ["threshold", "detached logits"])
def test_an_attack_on_a_network_without_gradients_says_so(name: str) -> None:
    target, _ = MASKED[name]
    with pytest.raises(TargetError, match="around: it gives no gradients: its output does not depend on the image"):
        apgd(target, [1, 2], budget=10)
    found = find_straight_through(target)
    assert not apgd(target, [1, 2], budget=10, approximation=found).stuck
