"""Two more digit networks for measurements: an MLP and a small convnet with batch norm, as targets.

    evofool run mnist-cppn --set target=python:tests.perf.digit_networks:mlp
    evofool run mnist-cppn --set target=python:tests.perf.digit_networks:batch_norm

Each is trained when it is first loaded, in under a minute on one CPU thread, on the digits and with the distortions of the
bundled LeNet (evofool/targets/train_lenet.py), and kept in runs/digit-networks/.

`mlp_3` or `batch_norm_3` is another training of the same network, with seed 3, on evofool.targets.digits.training_half
alone, so that the other half are real images that it has not seen.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from evofool.targets.classifier import Target
from evofool.targets.digits import training_half
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.train_lenet import accuracy, as_tensor, augment, learning_rate, load_digits

FOLDER = Path("runs") / "digit-networks"
EPOCHS, BATCH, WEIGHT_DECAY = 30, 64, 1e-2


def mlp(copy: int | None = None) -> Target:
    """784-256-128-10 with ReLU."""
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )  # fmt: skip
    return _target("mlp", layers, copy)


def batch_norm(copy: int | None = None) -> Target:
    """Convolutions 3x3 of 16, 32 and 32 channels, each with batch norm and ReLU, the first two with max-pooling."""
    block = lambda i, o: [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]  # noqa: E731
    pool = nn.MaxPool2d(2)
    layers = nn.Sequential(*block(1, 16), pool, *block(16, 32), pool, *block(32, 32), nn.Flatten(), nn.Linear(1568, 10))
    return _target("batch_norm", layers, copy)


def __getattr__(name: str) -> Callable[[], Target]:
    """`mlp_3`: a function that returns the training of `mlp` with seed 3."""
    network, _, copy = name.rpartition("_")
    if network not in ("mlp", "batch_norm") or not copy.isdecimal():
        raise AttributeError(name)
    return lambda: globals()[network](int(copy))


def _target(name: str, network: nn.Module, copy: int | None) -> Target:
    """The network, trained now if it was not: on all digits with seed 0, or a copy, on half of them with its own seed."""
    name = name if copy is None else f"{name}_{copy}"
    path = FOLDER / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        images, labels = load_digits()
        if copy is not None:
            pixels, classes = training_half()
            images, labels = as_tensor(pixels), torch.from_numpy(classes)
        _train(network, images, labels, copy or 0)
        print(f"{name}: trained, {accuracy(network.eval(), images, labels):.2%} of its digits", flush=True)  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), path)
    digits = tuple(str(digit) for digit in range(10))
    return Target.from_module(network.eval(), digits, (1, 28, 28), Preprocessing(scale=1 / 255), name)


def _train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
    """AdamW, one cycle; torch's generator is restored."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number sums in another order and gives other weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
        draws = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
        step, steps = 0, EPOCHS * math.ceil(len(images) / BATCH)
        network.train()
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(images), generator=draws).split(BATCH):
                optimizer.param_groups[0]["lr"] = learning_rate(step / steps)
                optimizer.zero_grad()
                F.cross_entropy(network(augment(images[rows], draws)), labels[rows]).backward()
                optimizer.step()
                step += 1
    torch.set_num_threads(threads)
