"""A network in an ONNX file, run by onnxruntime: a black box without gradients."""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.machine import cpus
from evofool.targets.classifier import Forward, Target
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec
from evofool.targets.weights import check_sha256, read_file
from evofool.text import whole_number

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_LAYOUTS = "(B, C, H, W), (B, H, W, C), (B, H, W) or (B, pixels)"


def load(spec: Spec) -> Target:
    """onnx:FILE: one input, images in float32, float16 or whole numbers; its first output, or output=.

    Images are (B, C, H, W), (B, H, W, C), grey (B, H, W), or rows of pixels (B, C * H * W), grey and square unless size=
    says otherwise. A fourth channel is opaque. The input is pixel / 255 unless options say otherwise, or the pixels
    themselves if it takes whole numbers. Each call uses threads=N threads, 1 by default, since several calls run at once.
    sha256= is that of the file; weights_sha256 includes tensors in files beside it.
    """
    if not spec.name:
        raise TargetError("onnx: has no file; write onnx:FILE")
    return from_file(spec, Path(spec.name))


def from_file(
    spec: Spec,
    path: Path,
    default: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
    labels: Sequence[str] | None = None,
) -> Target:
    """The target of an ONNX file. Preprocessing, (height, width) and labels that are known of it; the spec's options go
    first."""
    try:
        import onnxruntime
    except ImportError:
        raise TargetError(f"{spec.head}: needs onnxruntime: pip install 'evofool[onnx]'") from None

    content = read_file(path, spec.head, "ONNX file")
    digest = check_sha256(content, path, spec.head, spec.options.get("sha256"))
    weights = _whole_digest(content, path, spec.head)
    session, device = _session(onnxruntime, path, spec)
    images = _Images.of(session.get_inputs(), spec, size)
    output = _output([node.name for node in session.get_outputs()], spec)
    whole = np.issubdtype(images.dtype, np.integer)
    preprocessing, size = spec.preprocessing(default or Preprocessing(scale=1.0 if whole else 1 / 255), images.size)
    if whole and (preprocessing.scale, {*preprocessing.mean}, {*preprocessing.std}) != (1.0, {0.0}, {1.0}):
        raise TargetError(
            f"{spec.head}: its input is {np.dtype(images.dtype).name}, pixels as they are; leave scale, mean and std out"
        )
    target = Target.probed(
        spec.text,
        _forward(session, images, output, preprocessing),
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
        scaled = (other.scale, {*other.mean}, {*other.std}) != (1.0, {0.0}, {1.0})
        return None if whole and scaled else _forward(session, images, output, other)

    target.set_refed(refed)
    if device == "cpu":
        target.streams = max(1, cpus() // (spec.whole("threads", 1) or 1))
    return target


class _Images(NamedTuple):
    """The input of a session."""

    name: str
    dtype: type
    batch: int | None  # None: any size
    channels: int
    size: tuple[int, int]  # height, width
    last: bool = False  # channels last
    axes: int = 4  # 3: (B, H, W), 2: (B, C * H * W)
    alpha: bool = False  # a fourth channel

    @classmethod
    def of(cls, nodes: list[Any], spec: Spec, default: tuple[int, int] | None) -> "_Images":
        inputs = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)
        if len(nodes) != 1 or nodes[0].type not in _TYPES or not 2 <= len(nodes[0].shape) <= 4:
            raise TargetError(f"{spec.head}: takes {inputs}; it has to take only images, {_LAYOUTS}")
        # A side that is not fixed has a name or None.
        batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in nodes[0].shape)
        start = nodes[0].name, _TYPES[nodes[0].type], batch
        if len(sides) == 1:
            return cls(*start, *_of_row(sides[0], spec, inputs), axes=2)
        last = len(sides) == 3 and sides[0] not in (1, 3) and (sides[2] in (1, 3) or (sides[2] == 4 and sides[0] != 4))
        height, width, channels = (*sides, 1) if len(sides) == 2 else sides if last else (*sides[1:], sides[0])
        if channels not in (1, 3, 4, None):
            raise TargetError(f"{spec.head}: takes {inputs}; images have 1 or 3 channels, and a fourth for opacity")
        known = (height, width) if height and width else default
        size = spec.side(known)
        if any(side not in (None, given) for side, given in zip((height, width), size, strict=True)):
            raise TargetError(f"{spec.head}: takes {inputs}; its images cannot be {size[0]}x{size[1]}")
        return cls(*start, min(channels or 3, 3), size, last, len(sides) + 1, channels == 4)

    def arranged(self, x: np.ndarray) -> np.ndarray:
        """float32 (B, C, H, W) as the session takes it."""
        x = x.astype(self.dtype, copy=False)
        if self.axes == 2:
            return x.reshape(len(x), -1)
        if self.axes == 3:
            return x[:, 0]
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if self.last else x)


def _of_row(pixels: int | None, spec: Spec, inputs: str) -> tuple[int, tuple[int, int]]:
    """Channels and (height, width) of images that are rows of pixels: grey and square unless size= says otherwise."""
    side = math.isqrt(pixels or 0)
    size = spec.side((side, side) if pixels and side * side == pixels else None)
    area = size[0] * size[1]
    if pixels not in (None, area, 3 * area):
        raise TargetError(f"{spec.head}: takes {inputs}; its images cannot be {size[0]}x{size[1]}")
    return 3 if pixels == 3 * area else 1, size


def _forward(session: Any, images: _Images, output: str, preprocessing: Preprocessing) -> Forward:
    prepare = preprocessing.affine()
    opaque = prepare(torch.full((1, images.channels, *images.size), 255.0)).numpy()[:, :1] if images.alpha else None

    def forward(pixels: np.ndarray) -> np.ndarray:
        x: np.ndarray = prepare(torch.from_numpy(pixels).float()).numpy()
        if opaque is not None:  # scaled as the first channel
            x = np.concatenate([x, np.full((len(x), 1, *x.shape[2:]), opaque.flat[0], np.float32)], 1)
        x = images.arranged(x)
        n, step = len(x), images.batch or len(x)
        if short := -n % step:
            x = np.concatenate([x, np.zeros((short, *x.shape[1:]), x.dtype)])
        parts = [session.run([output], {images.name: x[i : i + step]})[0] for i in range(0, len(x), step)]
        return np.concatenate(parts)[:n].astype(np.float32, copy=False)

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
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common class
        reason = (str(error).splitlines() or [""])[0][:300]
        raise TargetError(f"{spec.head}: {path} is not an ONNX network that can be run ({reason})") from None
    on_gpu = session.get_providers()[0] == gpu
    if name == "cuda" and not on_gpu:
        raise TargetError(f"{spec.head}: onnxruntime cannot use the GPU, it runs on {session.get_providers()[0]}")
    return session, f"cuda:{index or 0}" if on_gpu else "cpu"


def _output(names: list[str], spec: Spec) -> str:
    name = spec.options.get("output", names[0])
    if name not in names:
        raise TargetError(f'{spec.head}: no output "{name}"; there are {", ".join(names)}')
    return name


def _whole_digest(content: bytes, path: Path, who: str) -> str:
    """SHA-256 of the file and of the files beside it that contain its tensors, if any.

    Their names are entries of ONNX's external_data, which are found by a pattern, without a parser.
    """
    digest = hashlib.sha256(content)
    locations = {
        match[2][: match[1][0]] for match in re.finditer(rb"\n\x08location\x12([\x01-\x7f])([^\x00-\x1f]+)", content)
    }
    for location in sorted(locations):
        name = PurePosixPath(location.decode(errors="replace"))
        if name.is_absolute() or ".." in name.parts:
            raise TargetError(f"{who}: {path} has tensors in {name}, outside of its folder; move them beside it")
        digest.update(read_file(path.parent / name, who, f"external data of {path.name}:"))
    return digest.hexdigest()
