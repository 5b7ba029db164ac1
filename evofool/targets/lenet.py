"""The digit networks: the bundled LeNet, and Caffe's LeNet of 2015 with a weights file of one's own."""

from importlib import resources
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from evofool.errors import TargetError
from evofool.targets.networks import CaffeLeNet, LeNet
from evofool.targets.target import Preprocessing, Target

DIGITS = tuple("0123456789")
SHAPE = (1, 28, 28)


def lenet(weights: str | None = None) -> Target:
    """LeNet for 28x28 grey digits, pixel / 255. Bundled weights (train_lenet.py) unless a safetensors file is named."""
    if weights is not None:
        return _digits(LeNet(), Path(weights), "lenet", Preprocessing(scale=1 / 255))
    with resources.as_file(resources.files("evofool.targets") / "weights" / "lenet.safetensors") as path:
        return _digits(LeNet(), path, "lenet", Preprocessing(scale=1 / 255))


def lenet_caffe(weights: str | None = None) -> Target:
    """The architecture of Nguyen, Yosinski & Clune (2015), pixel / 256; needs a safetensors file of its weights."""
    if weights is None:
        raise TargetError("lenet-caffe: has no bundled weights; name a file, lenet-caffe?weights=FILE.safetensors")
    return _digits(CaffeLeNet(), Path(weights), "lenet-caffe", Preprocessing(scale=1 / 256))


def _digits(network: nn.Module, path: Path, name: str, preprocessing: Preprocessing) -> Target:
    _load(network, path, name)
    return Target.from_module(network, DIGITS, SHAPE, preprocessing, name=name)


def _load(network: nn.Module, path: Path, name: str) -> None:
    """Fill network from a safetensors file, strictly: every tensor there, none too many, every shape right."""
    try:
        if not path.is_file():
            raise TargetError(f"{name}: there is no weights file {path}")
        state = load_file(path)
    except TargetError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise TargetError(f"{name}: {path} is no whole safetensors file ({error})") from None
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        wrong = [f"{k} {found[k]} instead of {expected[k]}" for k in expected if k in found and found[k] != expected[k]]
        raise TargetError(
            f"{name}: {path} holds another network's weights: missing {sorted(expected.keys() - found.keys())}, "
            f"unexpected {sorted(found.keys() - expected.keys())}, wrong shape {wrong}"
        )
    network.load_state_dict(state)
