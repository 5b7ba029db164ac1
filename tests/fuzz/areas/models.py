"""Files of classifiers beside those of `weights`: TensorFlow Lite, skops, ONNX graphs, and the JSON of transformers."""

import io
import json
import zipfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from evofool.targets import target
from evofool.targets.loaders.hf_processor import read_feed
from evofool.targets.spec import parse
from tests.fuzz.mutations import NUMBERS, STRINGS, apply_bytes, apply_json, as_json, byte_edits, json_edits
from tests.fuzz.room import Area, Room

_NEEDS = {"tflite": "ai_edge_litert", "skops": "skops", "onnx": "onnxruntime"}
_SUFFIX = {"tflite": "tflite", "skops": "sklearn", "onnx": "onnx"}
WHOLE = "schema.json"  # of a file of skops


@cache
def sample(kind: str) -> bytes:
    """A small valid file; b"" without the package that reads it."""
    if find_spec(_NEEDS[kind]) is None:
        return b""
    weights = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / kind
        if kind == "tflite":
            from tests.targets.loaders.tflite_file import linear

            linear(path, weights, (-1, 4, 4, 1), "int8", (1 / 255, -128), "SOFTMAX")
        elif kind == "skops":
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from skops import io as skops

            rows = np.random.default_rng(0).normal(size=(30, 16))
            estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, np.arange(30) % 3)
            skops.dump(estimator, path)
        return path.read_bytes() if path.exists() else b""


def _skops(edits: list[Any]) -> bytes:
    """The file with another schema.json."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sample("skops"))) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == WHOLE:
                content = as_json(apply_json(json.loads(content), edits)).encode("utf-8", "surrogatepass")
            new.writestr(name, content)
    return out.getvalue()


def _onnx(sides: list[Any], kind: int, names: list[str], classes: int) -> bytes:
    """A network whose input has these sides: numbers, or names of free ones."""
    import onnx

    h, (images, scores) = onnx.helper, names
    nodes = [h.make_node("Flatten", [images], ["flat"], axis=1), h.make_node("Cast", ["flat"], ["x"], to=1)]
    nodes.append(h.make_node("MatMul", ["x", "w"], [scores]))
    weights = np.random.default_rng(0).normal(size=(16, classes)).astype(np.float32)
    graph = h.make_graph(
        nodes,
        "network",
        [h.make_tensor_value_info(images, kind, sides)],
        [h.make_tensor_value_info(scores, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8).SerializeToString())


def _spec(case: tuple[Any, ...], room: Room) -> str | None:
    """The spec of a target with the case's file; None where its package, or a file with these values, cannot be."""
    kind, how, given, options = case
    if find_spec(_NEEDS[kind]) is None:
        return None
    if how == "bytes":
        content = apply_bytes(sample(kind), given)
    elif kind == "skops":
        content = _skops(given)
    else:
        if find_spec("onnx") is None:
            return None
        with suppress(ValueError, TypeError, UnicodeEncodeError):  # such a file cannot be written
            content = _onnx(*given)
            return f"onnx:{room.give('network', content)}{options}"
        return None
    return f"{_SUFFIX[kind]}:{room.give('network', content)}{options}"


PROCESSOR = {
    "do_resize": True, "size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 28, "width": 28},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4], "resample": 3,
}  # fmt: skip
"""A preprocessor_config.json."""


def enter(case: tuple[Any, ...], room: Room) -> None:
    if case[0] == "processor":
        _, edits, options = case
        said, config = apply_json([PROCESSOR, {"image_size": 28, "num_channels": 3}], edits), {}
        text = as_json(said)
        with suppress(ValueError):  # digits and depths that JSON's reader refuses, with a message
            said = json.loads(text)
        if isinstance(said, list) and len(said) == 2 and all(isinstance(part, dict) for part in said):
            said, config = said
            read_feed(said, config, Path("preprocessor_config.json"), parse(f"hf:/model{options}"))
        return
    spec = _spec(case, room)
    if spec is None:
        return
    loaded = target(spec)
    if np.prod(loaded.shape) < 1 << 16:
        loaded.logits(np.zeros((2, *loaded.shape), np.uint8))


def line(case: tuple[Any, ...], room: Room) -> list[str | Path] | None:
    spec = None if case[0] == "processor" else _spec(case, room)
    return None if spec is None or "\0" in spec else ["targets", "check", spec]


_TEXTS = st.sampled_from([text for text in STRINGS if text and "\x00" not in text and len(text) < 100])
_SIDE = st.one_of(
    st.sampled_from([1, 4, 16, 4, 1, None, "n"]), st.sampled_from([n for n in NUMBERS if isinstance(n, int)]), _TEXTS
)
_GRAPH = st.tuples(
    st.one_of(st.lists(_SIDE, max_size=5), st.just(["n", 1, 4, 4]), st.just([2, 4, 4, 1]), st.just(["n", 16])),
    st.integers(0, 17),
    st.lists(st.one_of(_TEXTS, st.just("images")), min_size=2, max_size=2),
    st.sampled_from([3, 3, 1, 0, 2]),
)
_OPTIONS = st.sampled_from(
    ["", "", "", "?size=4", "?size=2x8", "?outputs=probabilities", "?scale=1", "?channels_last=yes", "?crops=10"]
)
CASES = st.one_of(
    st.tuples(st.sampled_from(["tflite", "skops"]), st.just("bytes"), byte_edits(), _OPTIONS),
    st.tuples(st.just("tflite"), st.just("bytes"), byte_edits(2), _OPTIONS),
    st.tuples(st.just("skops"), st.just("schema"), json_edits(), _OPTIONS),
    st.tuples(st.just("onnx"), st.just("graph"), _GRAPH, _OPTIONS),
    st.tuples(st.just("processor"), json_edits(), st.sampled_from(["", "?size=30", "?resize=99", "?mean=0.5"])),
    st.tuples(st.just("processor"), json_edits(1), st.just("")),
)


def prepare() -> None:
    for kind in ("tflite", "skops"):
        sample(kind)


AREA = Area("models", CASES, enter, 4, prepare, line=line)
