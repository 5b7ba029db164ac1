"""Number formats of a torch network: close to float32 for all kinds of networks, and without effect on float32."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from evofool.errors import TargetError
from evofool.targets.network import FLOAT32, Network, _folded
from evofool.targets.preprocessing import Preprocessing


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def block(norm: nn.Module | None = None, conv: nn.Module | None = None) -> nn.Sequential:
    """A convolution, a batch norm with random statistics, and a mean."""
    torch.manual_seed(0)
    norm = norm or nn.BatchNorm2d(8)
    for name, value in norm.named_buffers():
        if name.startswith("running"):
            value.uniform_(0.5, 2.0)
    return nn.Sequential(conv or nn.Conv2d(3, 8, 3), norm, nn.ReLU(inplace=True), Mean(), nn.Linear(8, 4))


class Branch(nn.Module):
    """The convolution's output is also used without the norm, so the norm cannot be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body[0](x)
        return self.body[3](self.body[1](y) + 5 * y)


class Twice(nn.Module):
    """One norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.norm.running_mean.fill_(0.7)  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.norm(self.a(x)) * self.norm(self.b(x))).mean((2, 3))


class Named(nn.Module):
    """Its parts are called with named arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.body = block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body[1](input=self.body[0](input=x)).mean((2, 3))


class Float32(nn.Module):
    """Creates float32 tensors, which cannot be combined with weights of another number format."""

    def __init__(self) -> None:
        super().__init__()
        self.body = block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).float() @ torch.eye(4) + self.body[0](x + torch.ones(1)).mean()


class Uncopiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.lock = block(), threading.Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


NETWORKS = {
    "conv, norm": block,
    "a branch": Branch,
    "a norm used twice": Twice,
    "a norm without statistics": lambda: block(nn.BatchNorm2d(8, track_running_stats=False)),
    "a norm without weights": lambda: block(nn.BatchNorm2d(8, affine=False)),
    "weight norm": lambda: block(conv=weight_norm(nn.Conv2d(3, 8, 3))),
    "named arguments": Named,
    "creates float32 tensors": Float32,
    "cannot be copied": Uncopiable,
}


def images(count: int = 4, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), np.uint8)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("number_format", "near"), [("float32-folded", 1e-4), ("bfloat16", 0.05)])
def test_faster_formats_are_close_to_float32(name: str, number_format: str, near: float) -> None:
    network = Network(NETWORKS[name](), Preprocessing())
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    reference = network.numpy(images(), FLOAT32)
    fast = network.numpy(images(), number_format)
    assert fast.dtype == reference.dtype == np.float32
    assert np.abs(fast - reference).max() <= near * max(1.0, np.abs(reference).max())
    assert np.array_equal(network.numpy(images(), FLOAT32), reference)
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())


def test_norms_are_folded_where_they_can_be_and_only_there() -> None:
    def norms(module: nn.Module) -> int:
        example = Preprocessing().affine()(torch.from_numpy(images(1)).float())
        with torch.inference_mode():
            return sum(isinstance(part, nn.BatchNorm2d) for part in _folded(module.eval(), example)[0].modules())

    assert norms(block()) == 0
    assert norms(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), *block())) == 0
    assert norms(Branch()) == 1
    assert norms(Twice()) == 1
    assert norms(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), Mean())) == 1


def test_small_images_have_only_float32() -> None:
    network = Network(block(), Preprocessing())
    assert network.formats((3, 28, 28)) == (FLOAT32,)
    assert network.formats((3, 224, 224)) == (FLOAT32, "float32-folded", "bfloat16")


def test_a_network_is_put_into_eval_mode() -> None:
    assert not Network(block().train(), Preprocessing()).module.training


def test_a_network_that_does_not_return_a_tensor_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x, x]

    with pytest.raises(TargetError, match=r"the network returns a list; it has to return logits \(B, K\)"):
        Network(Two(), Preprocessing()).numpy(images(), FLOAT32)


def test_several_threads_get_the_logits_of_a_single_thread() -> None:
    network = Network(block(), Preprocessing())
    batches = [images(2, seed=seed) for seed in range(12)]
    alone = [Network(block(), Preprocessing()).numpy(batch, "float32-folded") for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: network.numpy(batch, "float32-folded"), batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
