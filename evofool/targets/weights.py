"""Weights from files, without executing their content: safetensors, or torch's own format with weights_only."""

import hashlib
import io
import warnings
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from evofool.errors import TargetError


def read_weights(path: Path, who: str, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a file and the file's SHA-256 (as sha256sum prints it), which has to equal `sha256` if that is given.

    safetensors by its suffix, else torch.load(weights_only=True): a file with anything but tensors is refused.
    """
    content = read_file(path, who, "weights file")
    digest = check_sha256(content, path, who, sha256)
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(content), digest
        with warnings.catch_warnings(action="ignore"):  # about a pickle protocol that only damaged files have
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise TargetError(f"{who}: {path} is not a complete safetensors file ({error})") from None
    except Exception as error:  # torch may raise any error for a damaged file
        if type(error).__name__ == "UnpicklingError":
            raise TargetError(
                f"{who}: {path} has more than weights, or is not a file of torch; evofool does not unpickle files: save "
                "only the state dict, torch.save(network.state_dict(), FILE), or as safetensors"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TargetError(f"{who}: {path} is not a complete weights file ({reason})") from None
    for inner in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise TargetError(f"{who}: {path} has no state dict (names and tensors), but a {type(state).__name__}")
    # nn.DataParallel adds this prefix to every name.
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state, digest


def fill(network: nn.Module, state: dict[str, torch.Tensor], path: Path, who: str) -> nn.Module:
    """Load a state dict strictly. TargetError names missing and unexpected tensors and those of a wrong shape."""
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [f"{k} {found[k]} instead of {expected[k]}" for k in expected if k in found and found[k] != expected[k]]
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    if not wrong:
        # Layers convert the state dicts of their older versions.
        versioned = OrderedDict(state)
        versioned._metadata = {"": {"version": getattr(network, "_version", 1)}}  # type: ignore[attr-defined]
        try:
            result = network.load_state_dict(versioned, strict=False)
        except RuntimeError as error:
            raise TargetError(f"{who}: {path} has another network's weights ({str(error)[:300]})") from None
        missing, unexpected = set(result.missing_keys), set(result.unexpected_keys)
    if wrong or missing or unexpected:
        raise TargetError(
            f"{who}: {path} has another network's weights: missing {_some(missing)}, "
            f"unexpected {_some(unexpected)}, wrong shape {_some(wrong)}"
        )
    return network


def read_file(path: Path, who: str, kind: str) -> bytes:
    """A file's bytes; TargetError says which file is missing."""
    try:
        if not path.is_file():
            raise TargetError(f"{who}: there is no {kind} {path}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, TargetError):
            raise
        raise TargetError(f"{who}: the {kind} {path} cannot be read ({error})") from None


def packaged(package: str, file: str, who: str, install: str) -> Path:
    """A file that an installed PyPI package brings, the first whose path ends in `file`; the package is never imported.

    TargetError says what to install: `install` is the command.
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise TargetError(f"{who}: needs the package with its weights: {install}") from None
    for each in files:
        if each.as_posix().endswith(file):
            return Path(str(each.locate()))
    raise TargetError(f"{who}: the package {package} is installed without its weights; reinstall it")


def check_sha256(content: bytes, path: Path, who: str, wanted: str | None) -> str:
    """The SHA-256 of a file's bytes; TargetError if another one was wanted."""
    digest = hashlib.sha256(content).hexdigest()
    if wanted is not None and digest != wanted.lower():
        raise TargetError(f"{who}: {path} has SHA-256 {digest}, not {wanted}; it is another file, or was changed")
    return digest


def _some(names: object) -> list[str]:
    every = sorted(names)  # type: ignore[call-overload]
    return [*every[:5], f"and {len(every) - 5} more"] if len(every) > 5 else every
