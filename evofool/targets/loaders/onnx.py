"""A network in an ONNX file, run by onnxruntime: a black box without gradients."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.machine import cpus
from evofool.targets.classifier import PROBE, Forward, Target
from evofool.targets.loaders.formats import opened
from evofool.targets.loaders.image_input import ImageInput
from evofool.targets.loaders.outputs import scores_of
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec
from evofool.targets.weights import read_file
from evofool.text import whole_number

_VARINT = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(uint8)": torch.uint8,
    "tensor(int32)": torch.int32,
    "tensor(int64)": torch.int64,
}


def load(spec: Spec) -> Target:
    """onnx:FILE: one input, images in float32, float16 or whole numbers; the one output that can be scores, or output=.

    Images are (B, C, H, W), (B, H, W, C), grey (B, H, W), or rows of pixels (B, C * H * W), grey and square unless size=
    says otherwise. A fourth channel is opaque. The input is pixel / 255 unless options say otherwise, or the pixels
    themselves if it takes whole numbers. Each call uses threads=N threads, 1 by default, since several calls run at once.
    sha256= is that of the file; weights_sha256 includes tensors in files beside it.
    """
    return from_file(spec)


def from_file(
    spec: Spec,
    path: Path | None = None,
    default: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
    labels: Sequence[str] | None = None,
) -> Target:
    """The target of an ONNX file, at path if that is not the one that the spec names.

    Preprocessing, (height, width) and labels that are known of it; the spec's options go first.
    """
    try:
        import onnxruntime
    except ImportError:
        raise TargetError(f"{spec.head}: needs onnxruntime: pip install 'evofool[onnx]'") from None

    path, content, digest = opened(spec, "onnx", "ONNX file", path)
    weights = _whole_digest(content, path, spec.head)
    session, device = _session(onnxruntime, path, spec)
    name, images = _images(session.get_inputs(), spec, size)
    whole = not images.dtype.is_floating_point
    preprocessing, size = spec.preprocessing(default or Preprocessing(scale=1.0 if whole else 1 / 255), images.size)
    if whole and not preprocessing.is_shift():
        kind = str(images.dtype).removeprefix("torch.")
        raise TargetError(f"{spec.head}: its input is {kind}, pixels as they are; leave scale, mean and std out")
    names = [node.name for node in session.get_outputs()]
    count = images.batch or PROBE

    def answers() -> dict[str, object]:
        black = torch.zeros(count, images.channels, *images.size)
        return _answers(session, name, images.arranged(black), spec)

    output = scores_of(names, spec, count, answers)
    target = Target.probed(
        spec.text,
        _forward(session, name, images, output, preprocessing),
        spec.labels(labels),
        (images.channels, *size),
        preprocessing,
        spec.outputs,
        {
            "weights_sha256": weights,
            "output": output,
            "file": str(path),
            "file_sha256": digest,
            "backend": f"onnxruntime {onnxruntime.__version__} ({', '.join(session.get_providers())})",
            "device": device,
        },
    )

    def refed(other: Preprocessing) -> Forward | None:
        return None if whole and not other.is_shift() else _forward(session, name, images, output, other)

    target.set_refed(refed)
    if device == "cpu":
        target.streams = max(1, cpus() // (spec.whole("threads", 1) or 1))
    return target


def _images(nodes: list[Any], spec: Spec, size: tuple[int, int] | None) -> tuple[str, ImageInput]:
    """The name of a session's input, and what it takes."""
    takes = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)
    if len(nodes) != 1 or nodes[0].type not in _TYPES:
        raise TargetError(f"{spec.head}: takes {takes}; it has to take only images, as floats or whole numbers")
    return nodes[0].name, ImageInput.of(_TYPES[nodes[0].type], nodes[0].shape, spec, takes, size)


def _answers(session: Any, name: str, x: torch.Tensor, spec: Spec) -> dict[str, object]:
    """Every output by its name."""
    try:
        return {
            node.name: answer
            for node, answer in zip(session.get_outputs(), session.run(None, {name: x.numpy()}), strict=True)
        }
    except Exception as error:  # onnxruntime's errors have no common class
        reason = (str(error).splitlines() or [""])[0][:300]
        raise TargetError(f"{spec.head}: does not take images of shape {tuple(x.shape[1:])} ({reason})") from None


def _forward(session: Any, name: str, images: ImageInput, output: str, preprocessing: Preprocessing) -> Forward:
    prepare = preprocessing.affine()
    opaque = 0.0
    if images.alpha:  # scaled as the first channel
        opaque = float(prepare(torch.full((1, images.channels, *images.size), 255.0))[0, 0, 0, 0])

    def forward(pixels: np.ndarray) -> np.ndarray:
        x = images.arranged(prepare(torch.from_numpy(pixels).float()), opaque)
        parts = [session.run([output], {name: part.numpy()})[0] for part in images.parts(x)]
        return np.concatenate(parts)[: len(x)].astype(np.float32, copy=False)

    return forward


def _session(onnxruntime: Any, path: Path, spec: Spec) -> tuple[Any, str]:
    """A session and its device: the GPU if onnxruntime can use one, unless device= says otherwise."""
    gpu = "CUDAExecutionProvider"
    requested = spec.options.get("device", "auto")
    name, _, index = requested.partition(":")
    has_gpu = gpu in onnxruntime.get_available_providers()
    if name not in ("auto", "cpu", "cuda") or (index and whole_number(index) is None):
        raise TargetError(f'{spec.head}: device is "{requested}"; it has to be cpu, cuda or cuda:NUMBER')
    if name == "cuda" and not has_gpu:
        raise TargetError(f"{spec.head}: this onnxruntime has no {gpu}; pip install onnxruntime-gpu, or use device=cpu")
    providers: list[Any] = ["CPUExecutionProvider"]
    if has_gpu and name != "cpu":
        # Without TensorFloat-32, which keeps 10 bits of each factor.
        providers.insert(0, (gpu, {"device_id": int(index or 0), "use_tf32": 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.whole("threads", 1, most=1024)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only, which are raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common class
        reason = (str(error).splitlines() or [""])[0][:300]
        raise TargetError(f"{spec.head}: {path} is not an ONNX network that can be run ({reason})") from None
    on_gpu = session.get_providers()[0] == gpu
    if name == "cuda" and not on_gpu:
        raise TargetError(f"{spec.head}: onnxruntime cannot use the GPU, it runs on {session.get_providers()[0]}")
    return session, f"cuda:{index or 0}" if on_gpu else "cpu"


def _whole_digest(content: bytes, path: Path, who: str) -> str:
    """SHA-256 of the file and of the files beside it that contain its tensors, if any.

    Their names are entries of ONNX's external_data, which are found by a pattern, without a parser.
    """
    digest = hashlib.sha256(content)
    for location in sorted({*_locations(content)}):
        name = PurePosixPath(location.decode(errors="replace"))
        if name.is_absolute() or ".." in name.parts:
            raise TargetError(f"{who}: {path} has tensors in {name}, outside of its folder; move them beside it")
        digest.update(read_file(path.parent / name, who, f"external data of {path.name}:"))
    return digest.hexdigest()


def _locations(content: bytes) -> Iterator[bytes]:
    """The values of the entries of TensorProto.external_data (its field 13) whose key is "location".

    The lengths of an entry and of its value are before them, as protobuf's varints.
    """
    for entry in re.finditer(rb"\x6a" + _VARINT + rb"\n\x08location\x12" + _VARINT, content):
        whole, length = map(_number, entry.groups())
        if whole == len(b"\n\x08location\x12") + len(entry[2]) + length:
            yield content[entry.end() : entry.end() + length]


def _number(varint: bytes) -> int:
    return sum((byte & 127) << 7 * place for place, byte in enumerate(varint))
