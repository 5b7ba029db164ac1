"""Which format a file has, told from its first bytes or from the names in its archive, without loading anything."""

import io
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from evofool.errors import TargetError
from evofool.targets.spec import Spec
from evofool.targets.weights import check_sha256, read_file


class _Format(NamedTuple):
    """A format: what a file of it is called, and what to do with one."""

    name: str
    advice: str


_READ_BY = "{0}:FILE reads it"
_FORMATS = {
    "torchscript": _Format("a TorchScript program", _READ_BY.format("torchscript")),
    "export": _Format("a program of torch.export", _READ_BY.format("export")),
    "onnx": _Format("an ONNX network", _READ_BY.format("onnx")),
    "tflite": _Format("a LiteRT (TensorFlow Lite) network", _READ_BY.format("tflite")),
    "sklearn": _Format("a file of skops", _READ_BY.format("sklearn")),
    "tensors": _Format(
        "a file of tensors without their network",
        "give it as weights=FILE of lenet, efficientnet-lite, torchvision or timm, or load it in code (python:)",
    ),
    "checkpoint": _Format(
        "a checkpoint of torch.save",
        "a state dict is for weights=FILE of lenet, efficientnet-lite, torchvision or timm; save a whole network by "
        "torch.export.save, as ONNX, or as TorchScript",
    ),
    "pickle": _Format(
        "a pickle", "evofool does not unpickle files: scikit-learn's estimators are saved by skops.io.dump, networks as ONNX"
    ),
    "keras": _Format("a Keras file", "convert it to ONNX or TensorFlow Lite, or load it in code (python:): docs/formats.md"),
    "openvino": _Format("an OpenVINO network", "load it in code (python:): docs/formats.md"),
    "zip": _Format("an archive of another kind", "name the file of a network"),
}


def format_of(content: bytes) -> str:
    """A key of _FORMATS; "" for a file that looks like none of them."""
    if content[:4] == b"PK\x03\x04":
        return _of_archive(content)
    if content[4:8] == b"TFL3":
        return "tflite"
    if content[:4] == b"\x89HDF":
        return "keras"
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return "tensors"  # safetensors
    if content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and b"." in content[-2:]:
        return "pickle"
    if content[:256].lstrip()[:1] == b"<" and b"<net " in content[:512]:
        return "openvino"
    # ir_version (field 1), then the producer (2), the opsets (8) or the graph (7); numbers below 32.
    return "onnx" if re.match(rb"\x08[\x01-\x1f][\x12\x3a\x42]", content) else ""


def opened(spec: Spec, kind: str, words: str, path: Path | None = None) -> tuple[Path, bytes, str]:
    """The file that a spec names (or the one at path), its content and its SHA-256.

    kind: the key of its format. words: what such a file is called. TargetError if none is named, if it is not there, if
    sha256= is another one's, and for a file of another format.
    """
    if path is None and not spec.name:
        raise TargetError(f"{kind}: has no file; write {kind}:FILE")
    path = path or Path(spec.name)
    content = read_file(path, spec.head, words)
    digest = check_sha256(content, path, spec.head, spec.options.get("sha256"))
    refuse_other(content, path, spec.head, kind)
    return path, content, digest


def refuse_other(content: bytes, path: Path, who: str, wanted: str) -> None:
    """TargetError for a file of another format than `wanted`, with the loader that reads it. Unknown ones pass."""
    found = format_of(content)
    if found in ("", wanted):
        return
    name, advice = _FORMATS[found]
    raise TargetError(f"{who}: {path} is {name}, not {_FORMATS[wanted].name}; {advice}")


def _of_archive(content: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return ""  # truncated: its directory comes last
    inner = {name.partition("/")[2] for name in names}
    if "schema.json" in names:
        return "sklearn"
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return "export"
    if "constants.pkl" in inner:
        return "torchscript"
    if "data.pkl" in inner:
        return "checkpoint"
    return "keras" if "model.weights.h5" in names else "zip"
