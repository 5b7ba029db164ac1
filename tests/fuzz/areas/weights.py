"""Files of weights and their kin: safetensors, torch's format, ONNX, guards, calibrations, labels; and specs of targets."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from evofool.bench.calibration import Calibration
from evofool.bench.cell import read_logits
from evofool.targets import needs_trust, target
from evofool.targets.guarded import DetectorRule, guard
from evofool.targets.networks import LeNet
from tests.fuzz.mutations import (
    NUMBERS,
    STRINGS,
    apply_bytes,
    apply_json,
    as_json,
    byte_edits,
    json_edits,
)
from tests.fuzz.room import Area, Room


@cache
def sample(kind: str) -> bytes:
    """A small valid file of each kind."""
    from safetensors.numpy import save as save_numpy
    from safetensors.torch import save

    torch.manual_seed(0)
    state = {name: tensor.contiguous() for name, tensor in LeNet().state_dict().items()}
    if kind == "safetensors":
        return save(state)
    if kind == "pt":
        buffer = io.BytesIO()
        torch.save({"state_dict": state}, buffer)
        return buffer.getvalue()
    if kind == "old pt":
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=False)
        return buffer.getvalue()
    if kind == "onnx":
        return _onnx()
    if kind == "logits":
        return save_numpy({"classes": np.arange(3), "logits": np.zeros((3, 10), np.float32)})
    if kind == "calibration":
        meta = {"sha256": "0" * 64, "fingerprint": "f", "labels": json.dumps(["a", "b"])}
        classes = np.array([0, 1] * 10)
        tensors = {"logits": np.eye(2, dtype=np.float32)[classes], "classes": classes, "control": np.arange(20) > 9}
        return save_numpy(tensors, metadata=meta)
    return _guard()


@cache
def _guard() -> bytes:
    from tempfile import TemporaryDirectory

    class _Fitted:
        rule = DetectorRule("msp", 1.5, -0.5, 2.0, 0.7)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "guard.safetensors"
        guard(target("lenet"), _Fitted(), path)
        return path.read_bytes()


def _onnx() -> bytes:
    import onnx

    h, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [h.make_node("Flatten", ["images"], ["flat"], axis=1), h.make_node("MatMul", ["flat", "w"], ["scores"])]
    weights = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    graph = h.make_graph(
        nodes,
        "network",
        [h.make_tensor_value_info("images", kind, ("batch", 1, 4, 4))],
        [h.make_tensor_value_info("scores", kind, None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8).SerializeToString()


def content(kind: str, how: str, edits: Any) -> bytes:
    """The sample of a kind after its edits: of its bytes, or of the JSON header of safetensors."""
    data = sample(kind)
    if how == "bytes":
        return apply_bytes(data, edits)
    if how == "raw":
        return bytes(edits)
    end = 8 + int.from_bytes(data[:8], "little")
    header_json = json.loads(data[8:end])
    if how == "header":
        header_json = apply_json(header_json, edits)
    else:  # one entry of the metadata, or the shape and type of one tensor, so that the file stays whole
        place, text, dtype, shape = edits
        meta = header_json.get("__metadata__", {})
        tensors = [name for name in header_json if name != "__metadata__"]
        if meta and place % 2:
            meta[sorted(meta)[place // 2 % len(meta)]] = text
        elif tensors:
            entry = header_json[tensors[place // 2 % len(tensors)]]
            entry["dtype"], size = dtype, entry["data_offsets"][1] - entry["data_offsets"][0]
            items = size // _BYTES_OF[dtype]
            entry["shape"] = {0: [items], 1: [1, items], 2: [items, 1], 3: [], 4: entry["shape"][::-1]}[shape]
    header = as_json(header_json).encode("utf-8", "surrogatepass")
    return len(header).to_bytes(8, "little") + header + data[end:]


def spec_of(case: tuple[Any, ...], room: Room) -> str | None:
    """The spec of a target with the case's file; None for files that no target has."""
    kind, how, edits = case
    if kind == "spec":
        return str(edits)
    if kind == "labels":
        return f"lenet?labels={room.give('labels.txt', edits)}"
    given = content(kind, how, edits)
    if kind in ("pt", "old pt"):
        return f"lenet?weights={room.give('weights.pt', given)}"
    if kind == "safetensors":
        return f"lenet?weights={room.give('weights.safetensors', given)}"
    if kind == "onnx":
        return f"onnx:{room.give('network.onnx', given)}"
    return f"guarded:{room.give('guard.safetensors', given)}" if kind == "guard" else None


def enter(case: tuple[Any, ...], room: Room) -> None:
    spec = spec_of(case, room)
    if spec is None:
        _read_outputs(case[0], content(*case), room)
        return
    needs_trust(spec)
    if not spec.startswith(("http", "python", "torchvision", "timm")):
        loaded = target(spec)
        if np.prod(loaded.shape) < 1 << 16:
            loaded.logits(np.zeros((2, *loaded.shape), np.uint8))


def _read_outputs(kind: str, given: bytes, room: Room) -> None:
    if kind == "logits":
        read_logits(room.give("logits.safetensors", given).parent)
        return
    found = Calibration.load(room.give("calibration.safetensors", given))
    if found is not None and not found.faults("target"):
        found.doubts()
        found.summary()


def line(case: tuple[Any, ...], room: Room) -> list[str | Path] | None:
    spec = spec_of(case, room)
    if spec is None or "\0" in spec or spec.startswith(("-", "http", "python", "torchvision", "timm")):
        return None
    return ["targets", "check", spec]


_BYTES_OF = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1, "I8": 1}
_WHOLE = st.tuples(
    st.integers(0, 40),
    st.one_of(
        st.sampled_from([*STRINGS, "[]", "[1, 2]", '["a"]', '{"a": "b"}', "[" * 9999, "5", "lenet", "1e400"]),
        st.text(max_size=9),
    ),
    st.sampled_from(sorted(_BYTES_OF)),
    st.integers(0, 4),
)
_NUMBER = st.sampled_from([*map(str, NUMBERS[:12]), "9" * 5000, "²", "1/0", "nan", "inf", "1e400", "", "-1", "٣"])
_SPECS = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda kind, option, value: f"{kind}?{option}={value}",
        st.sampled_from(["lenet", "lenet:x", "guarded:/nowhere", "onnx:\x00", "onnx:", "guarded:", "lenet-caffe"]),
        st.sampled_from(
            [
                "size",
                "resize",
                "mean",
                "std",
                "scale",
                "crops",
                "labels",
                "weights",
                "sha256",
                "device",
                "outputs",
                "order",
                "interpolation",
                "x",
            ]
        ),
        st.one_of(_NUMBER, st.sampled_from(STRINGS), st.text(max_size=8)),
    ),
)
_HEADERS = ("safetensors", "guard", "calibration", "logits")
_BYTES = ("safetensors", "pt", "old pt", "onnx", "guard", "calibration", "logits")
CASES = st.one_of(
    st.tuples(st.sampled_from(_BYTES), st.just("bytes"), byte_edits()),
    st.tuples(st.sampled_from(_HEADERS), st.just("header"), json_edits()),
    st.tuples(st.sampled_from(_HEADERS), st.just("whole"), _WHOLE),
    st.tuples(st.sampled_from(_HEADERS), st.just("whole"), _WHOLE),
    st.tuples(st.sampled_from(_BYTES), st.just("raw"), st.binary(max_size=60)),
    st.tuples(st.just("labels"), st.just(""), st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode))),
    st.tuples(st.just("spec"), st.just(""), _SPECS),
    st.tuples(st.just("spec"), st.just(""), _SPECS),
)


def prepare() -> None:
    for kind in (*_BYTES,):
        sample(kind)
    target("lenet")


AREA = Area("weights", CASES, enter, 6, prepare, line=line)
