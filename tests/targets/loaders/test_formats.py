"""Files of one format given to the loader of another: the format is told, and which loader reads it."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from evofool.errors import TargetError
from evofool.targets.loaders.formats import format_of, refuse_other


def archive(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"{}")

    return write


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": np.zeros(3)}))


WRITERS: dict[str, Callable[[Path], object]] = {
    "pickle": pickled,
    "checkpoint": lambda path: torch.save({"weight": torch.zeros(2)}, path),
    "tensors": lambda path: save_file({"weight": np.zeros(2, np.float32)}, path),
    "sklearn": archive("schema.json"),
    "keras": archive("config.json", "metadata.json", "model.weights.h5"),
    "zip": archive("readme.txt"),
    "openvino": lambda path: path.write_text('<?xml version="1.0"?>\n<net name="n" version="11">\n</net>\n'),
    "tflite": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_format_is_recognised_and_another_loader_refuses_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.pt"
    WRITERS[kind](path)
    content = path.read_bytes()
    assert format_of(content) == kind
    refuse_other(content, path, "me", kind)
    with pytest.raises(TargetError, match=f"^me: {path} is an? .*, not an ONNX network; .+"):
        refuse_other(content, path, "me", "onnx")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", json.dumps({"a": 1}).encode(), bytes(100)])
def test_other_files_are_left_to_the_loader(content: bytes) -> None:
    assert format_of(content) == ""
    refuse_other(content, Path("f"), "me", "onnx")
