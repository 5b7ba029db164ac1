"""Hooks read the named layers, stop after the deepest, and leave nothing behind."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.hooks import Hooks, layer_names
from evofool.errors import TargetError
from evofool.targets import Target


def hook_count(target: Target) -> int:
    assert target.network is not None
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in target.network.module.modules())


def test_layers_and_logits_are_those_of_the_network(lenet: Target) -> None:
    images = torch.rand(3, 1, 28, 28)
    with Hooks(lenet, ["conv1", "fc1"]) as hooks:
        read = hooks.forward(images)
    assert torch.allclose(read.logits, lenet.logits_float(images))
    assert torch.equal(read.layer("conv1"), lenet.activations(images, "conv1"))
    assert torch.equal(read.layer("fc1"), lenet.activations(images, "fc1"))


def test_a_pass_stops_at_the_deepest_layer(small: Target) -> None:
    net = small.network.module  # type: ignore[union-attr]
    with Hooks(small, ["first", "second"], logits=False) as hooks:
        before = net.ended
        hooks.forward(torch.rand(4, 1, 8, 8))
        assert net.ended == before
    with Hooks(small, ["second", "first"]) as hooks:
        before = net.ended
        hooks.forward(torch.rand(4, 1, 8, 8))
        assert net.ended == before + 4


def test_a_layer_that_runs_twice_is_read_at_its_last_run_before_it_is_worked_on_in_place(small: Target) -> None:
    images = torch.rand(2, 1, 8, 8)
    net = small.network.module  # type: ignore[union-attr]
    with torch.no_grad():
        first = net.first(images)
        second = net.second(first.relu())
    with Hooks(small, ["relu", "first"], logits=False) as hooks, torch.no_grad():
        read = hooks.forward(images)
    assert torch.allclose(read.layer("relu"), second.relu(), atol=1e-6)
    assert torch.allclose(read.layer("first"), first, atol=1e-6)


def test_images_of_another_size_are_read_where_the_layers_take_them(lenet: Target) -> None:
    with Hooks(lenet, ["conv1"], logits=False) as hooks:
        assert hooks.forward(torch.rand(1, 1, 20, 16)).layer("conv1").shape == (1, 20, 16, 12)


def test_no_hook_outlives_a_call(small: Target) -> None:
    with Hooks(small, ["first"]) as hooks:
        assert hook_count(small) == 1
        hooks.forward(torch.rand(1, 1, 8, 8))
    assert hook_count(small) == 0

    def fail() -> None:
        with Hooks(small, ["first"]) as hooks:
            hooks.forward(torch.rand(1, 3, 8, 8))

    with pytest.raises(RuntimeError):
        fail()
    assert hook_count(small) == 0
    for names, message in ((["first", "nothing"], "no layer"), (["unused"], "is not used")):
        with pytest.raises(TargetError, match=message), Hooks(small, names):
            pass
        assert hook_count(small) == 0


def test_two_contexts_and_other_passes_do_not_disturb_each_other(small: Target) -> None:
    images = torch.rand(2, 1, 8, 8)
    with Hooks(small, ["first"], logits=False) as first, Hooks(small, ["second"]) as second:
        a, b = first.forward(images), second.forward(images)
        logits = small.logits(np.zeros((1, 1, 8, 8), np.uint8))
    assert a.layer("first").shape[1] == 3
    assert b.layer("second").shape[1] == 4
    assert logits.shape == (1, 5)


def test_several_threads_read_at_the_same_time(lenet: Target) -> None:
    batches = [torch.rand(1, 1, 28, 28) for _ in range(16)]
    found: dict[int, torch.Tensor] = {}
    with Hooks(lenet, ["fc1"], logits=False) as hooks:

        def work(k: int) -> None:
            found[k] = hooks.forward(batches[k]).layer("fc1")

        threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for k, batch in enumerate(batches):
            assert torch.equal(found[k], hooks.forward(batch).layer("fc1"))


def test_every_image_counts_as_a_query(small: Target) -> None:
    with Hooks(small) as hooks:
        before = small.queries
        hooks.forward(torch.rand(3, 1, 8, 8))
        assert small.queries == before + 3


def test_the_error_for_an_unknown_layer_names_the_nearest(lenet: Target) -> None:
    with (
        pytest.raises(TargetError, match=r'lenet: no layer "conv3"; there are \d+, the nearest conv'),
        Hooks(lenet, ["conv3"]),
    ):
        pass
    assert layer_names(lenet)[:2] == ["conv1", "conv2"]


def test_the_error_for_a_black_box_names_what_it_can_be_used_for() -> None:
    box = Target("box", ["a", "b"], (1, 4, 4), lambda images: np.zeros((len(images), 2), np.float32), {})
    assert layer_names(box) == []
    with pytest.raises(TargetError, match=r"neither gradients nor layers.*evofool baseline square"), Hooks(box):
        pass


def test_crops_of_an_image_are_neighbours_in_a_layer() -> None:
    from evofool.targets import Preprocessing

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten()
            self.fc = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.flat(x))

    ten = Target.from_module(Mean(), list("abc"), (1, 6, 6), Preprocessing(crops=10, crop=(4, 4)))
    with Hooks(ten, ["flat"]) as hooks:
        read = hooks.forward(torch.rand(2, 1, 6, 6))
    assert read.layer("flat").shape == (20, 16)
    assert read.logits.shape == (2, 3)


def test_a_convolution_that_a_batch_norm_follows_is_read_before_they_are_fused() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    nn.init.uniform_(net[1].running_var, 0.1, 9.0)
    target = Target.from_module(net, list("abc"), (3, 64, 64))
    images = torch.rand(2, 3, 64, 64)
    for layer in ("0", "1", "2", "5"):
        with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
            assert torch.allclose(hooks.forward(images).layer(layer), target.activations(images, layer), atol=1e-5), layer
    with Hooks(target) as hooks:
        assert torch.allclose(hooks.forward(images).logits, target.logits_float(images), atol=1e-5)
