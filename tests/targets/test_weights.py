"""Weights from files: invalid files are refused, and no code in them is executed."""

import hashlib
import io
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from evofool.errors import TargetError
from evofool.targets.weights import fill, read_weights


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def packed(content: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


class Intruder:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_state_dict_comes_back_as_it_was_saved(tmp_path: Path, suffix: str) -> None:
    state = small().state_dict()
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found, digest = read_weights(path, "x")
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_a_checkpoint_s_state_dict_is_found_and_data_parallel_names_are_undone(tmp_path: Path) -> None:
    state, path = small().state_dict(), tmp_path / "w.pth"
    parallel = {f"module.{key}": value for key, value in state.items()}
    for content in ({"state_dict": state, "epoch": 3}, {"model": state}, parallel):
        torch.save(content, path)
        assert read_weights(path, "x")[0].keys() == state.keys()
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, path)
    assert read_weights(path, "x")[0].keys() == {"module.a", "b"}


@pytest.mark.parametrize("old", [False, True])
def test_a_pickled_object_is_refused_and_nothing_in_it_runs(tmp_path: Path, old: bool) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    for content in (Intruder(trace), {"state_dict": small().state_dict(), "extra": Intruder(trace)}):
        path.write_bytes(packed(content, _use_new_zipfile_serialization=not old))
        with pytest.raises(TargetError, match=r"x: .*w.pth has more than weights.*evofool does not unpickle files"):
            read_weights(path, "x")
        assert not trace.exists()
    # Without weights_only the same file would have run its code.
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "w.pth")
    with pytest.raises(TargetError, match=r"save only the state dict, torch.save\(network.state_dict\(\), FILE\)"):
        read_weights(tmp_path / "w.pth", "x")


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {"a": 1.0}, {1: torch.zeros(2)}, 7])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(TargetError, match=r"w.pth has no state dict"):
        read_weights(tmp_path / "w.pth", "x")


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_damaged_file_is_refused_wherever_it_is_damaged(tmp_path: Path, kind: str) -> None:
    state = {"a.weight": torch.ones(3, 4), "b": torch.zeros(2)}
    whole = save(state) if kind == "safetensors" else packed(state, _use_new_zipfile_serialization=kind == "zip")
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    draw = random.Random(0)
    contents = [b"", b"<html>", bytes(300), whole[:-1], *(whole[: draw.randrange(len(whole))] for _ in range(60))]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(TargetError, match=r"x: .*is not a complete|x: .*is not a file of torch|x: .*no state dict"):
            read_weights(path, "x")
    for _ in range(200):
        content = bytearray(whole)
        content[draw.randrange(min(len(whole), 700))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            read_weights(path, "x")
        except TargetError:
            continue


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(TargetError, match=f"x: there is no weights file {path}"):
            read_weights(path, "x")


def test_another_sha256_than_asked_for_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no weights at all")
    digest = hashlib.sha256(b"no weights at all").hexdigest()
    with pytest.raises(TargetError, match=f"x: .*has SHA-256 {digest}, not {'0' * 64}"):
        read_weights(path, "x", "0" * 64)
    save_file(small().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path, "x", digest.upper())[1] == digest


def test_filling_copies_every_tensor() -> None:
    network, state = small(), {key: torch.ones_like(value) for key, value in small().state_dict().items()}
    assert fill(network, state, Path("w"), "x") is network
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


def test_missing_unexpected_and_misshapen_tensors_are_named_together() -> None:
    state = small().state_dict()
    state["more"] = state.pop("0.bias")
    with pytest.raises(TargetError, match="x: w has another network's weights") as caught:
        fill(small(), state, Path("w"), "x")
    assert "missing ['0.bias'], unexpected ['more'], wrong shape []" in str(caught.value)
    state["3.weight"] = torch.zeros(7, 16)
    with pytest.raises(TargetError) as caught:
        fill(small(), state, Path("w"), "x")
    for part in ("missing ['0.bias']", "unexpected ['more']", "3.weight (7, 16) instead of (5, 16)"):
        assert part in str(caught.value)
    with pytest.raises(TargetError, match="and 6 more"):
        fill(nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(11))), {}, Path("w"), "x")


def test_layers_convert_their_older_files() -> None:
    # Before torch 0.4.1 batch norms did not count their batches; the count does not affect the output.
    state = {key: value for key, value in small().state_dict().items() if "num_batches" not in key}
    fill(small(), state, Path("w"), "x")

    # torchvision's vision transformers of 2021 had other names for the layers of their blocks.
    from torchvision.models.vision_transformer import MLPBlock

    block = nn.Sequential(MLPBlock(2, 3, 0.0))
    names = {"0.0.": "0.linear_1.", "0.3.": "0.linear_2."}
    fill(block, {names[key[:4]] + key[4:]: value for key, value in block.state_dict().items()}, Path("w"), "x")

    # torchvision's MNASNet refuses a state dict without a version.
    from torchvision.models import mnasnet0_5

    fill(mnasnet0_5(num_classes=2), dict(mnasnet0_5(num_classes=2).state_dict()), Path("w"), "x")
