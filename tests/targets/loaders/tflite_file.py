"""Small TensorFlow Lite files, written by the schema that ai-edge-litert has, without a converter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch.nn import functional

_KINDS = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9}
_VERSIONS = {"FULLY_CONNECTED": 4, "CONV_2D": 3, "MAX_POOL_2D": 2, "SOFTMAX": 2, "LOGISTIC": 2, "QUANTIZE": 2}
_Quantisation = tuple[float, int]


@dataclass
class Writer:
    """A network that grows by one operation after another; each returns its output tensor's number."""

    model: Any = field(default_factory=schema.ModelT)

    def __post_init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self, name: str, shape: Sequence[int], kind: str, steps: _Quantisation | None = None, data: np.ndarray | None = None
    ) -> int:
        """steps: (step, zero) of quantised numbers. data: of a constant. A first side of -1 is free."""
        made = schema.TensorT()
        made.name, made.type = name, _KINDS[kind]
        made.shape = [abs(side) for side in shape]
        made.shapeSignature = list(shape)
        if steps:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [steps[0]], [steps[1]]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operation(self, name: str, inputs: Sequence[int], output: int, options: Any = None) -> int:
        code = getattr(schema.BuiltinOperator, name)
        known = [each.builtinCode for each in self.model.operatorCodes]
        if code not in known:
            made = schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = code, code, _VERSIONS.get(name, 1)
            self.model.operatorCodes.append(made)
            known.append(code)
        operation = schema.OperatorT()
        operation.opcodeIndex, operation.inputs, operation.outputs = known.index(code), list(inputs), [output]
        if options is not None:
            operation.builtinOptions = options
            operation.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operation)
        return output

    def write(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def softmax() -> Any:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    return options


def linear(
    path: Path,
    weights: np.ndarray,
    shape: Sequence[int] = (-1, 4, 5, 3),
    kind: str = "float32",
    steps: _Quantisation | None = None,
    tail: str = "",
    logits: _Quantisation = (1.0, 0),
    more: bool = False,
) -> Path:
    """A network that multiplies images as rows by weights (pixels, K).

    kind, steps: of the input, and with a kind of 8 bits of the output, whose numbers have the steps `logits`; the weights
    are rounded to 1/64. tail: SOFTMAX or LOGISTIC. more: the image is an output too.
    """
    file, (pixels, classes) = Writer(), weights.shape
    images = file.tensor("images", shape, kind, steps)
    batch = shape[0]
    if kind == "float32":
        matrix = file.tensor("weights", (classes, pixels), kind, data=weights.T.astype(np.float32))
        scores = file.tensor("scores", (batch, classes), kind)
        inputs = [images, matrix]
    else:
        assert steps is not None
        matrix = file.tensor("weights", (classes, pixels), "int8", (1 / 64, 0), (weights.T * 64).round().astype(np.int8))
        bias = file.tensor("bias", (classes,), "int32", (steps[0] / 64, 0), np.zeros(classes, np.int32))
        quantised, inputs = images, [images, matrix, bias]
        if kind == "uint8":  # LiteRT's 8-bit operations are of int8, so files with uint8 convert it first
            quantised = file.tensor("signed", shape, "int8", (steps[0], steps[1] - 128))
            file.operation("QUANTIZE", [images], quantised)
            inputs[0] = quantised
        scores = file.tensor("scores", (batch, classes), "int8", logits)
    file.operation("FULLY_CONNECTED", inputs, scores, schema.FullyConnectedOptionsT())
    if tail:
        steps = None if kind == "float32" else (1 / 256, -128)
        after = file.tensor(tail.lower(), (batch, classes), "float32" if kind == "float32" else "int8", steps)
        scores = file.operation(tail, [scores], after, softmax() if tail == "SOFTMAX" else None)
    if kind == "uint8":
        before = file.graph.tensors[scores].quantization
        unsigned = file.tensor("unsigned", (batch, classes), "uint8", (before.scale[0], before.zeroPoint[0] + 128))
        scores = file.operation("QUANTIZE", [scores], unsigned)
    return file.write(path, [images], [images, scores] if more else [scores])


def lenet(path: Path, state: Mapping[str, np.ndarray], ranges_of: np.ndarray | None, float_output: bool = False) -> Path:
    """The bundled LeNet. ranges_of: uint8 (n, 28, 28), whose activations give the ranges of an int8 network; None: floats.

    Quantised as LiteRT's specification has it: weights by tensor, symmetric; activations by their ranges; softmax last.
    float_output: its probabilities are converted into floats at the end, as TensorFlow's converter does by default.
    """
    file, kind = Writer(), "float32" if ranges_of is None else "int8"
    ranges = {} if ranges_of is None else _ranges(state, ranges_of)
    steps = {name: _steps(*limits) for name, limits in ranges.items()} | {"images": (1 / 255, -128)}

    def activation(name: str, shape: tuple[int, ...]) -> int:
        return file.tensor(name, (-1, *shape), kind, steps[name] if ranges else None)

    def weighted(name: str, weights: np.ndarray, before: str, inputs: int, output: int, options: Any) -> int:
        bias = state[f"{name}.bias"]
        if not ranges:
            constants = [file.tensor(f"{name}.weight", weights.shape, kind, data=weights.astype(np.float32))]
            constants.append(file.tensor(f"{name}.bias", bias.shape, kind, data=bias.astype(np.float32)))
        else:
            step = float(np.abs(weights).max()) / 127
            q = (weights / step).round().astype(np.int8)
            constants = [file.tensor(f"{name}.weight", weights.shape, "int8", (step, 0), q)]
            sums = steps[before][0] * step
            constants.append(
                file.tensor(f"{name}.bias", bias.shape, "int32", (sums, 0), (bias / sums).round().astype(np.int32))
            )
        operation = "CONV_2D" if weights.ndim == 4 else "FULLY_CONNECTED"
        return file.operation(operation, [inputs, *constants], output, options)

    images = file.tensor("images", (-1, 28, 28, 1), kind, steps["images"] if ranges else None)
    x, before, side = images, "images", 28
    for name, channels in (("conv1", 20), ("conv2", 50)):
        side -= 4
        conv = schema.Conv2DOptionsT()
        conv.padding, conv.strideH, conv.strideW = schema.Padding.VALID, 1, 1
        conv.fusedActivationFunction = schema.ActivationFunctionType.RELU
        weights = state[f"{name}.weight"].transpose(0, 2, 3, 1)
        x = weighted(name, weights, before, x, activation(name, (side, side, channels)), conv)
        side //= 2
        pool = schema.Pool2DOptionsT()
        pool.padding, pool.strideH, pool.strideW, pool.filterHeight, pool.filterWidth = schema.Padding.VALID, 2, 2, 2, 2
        steps[f"{name}.pool"] = steps.get(name, (1.0, 0))
        x = file.operation("MAX_POOL_2D", [x], activation(f"{name}.pool", (side, side, channels)), pool)
        before = f"{name}.pool"
    # Rows of (H, W, C) where the network of torch has (C, H, W).
    first = state["fc1.weight"].reshape(500, 50, 4, 4).transpose(0, 2, 3, 1).reshape(500, 800)
    hidden = schema.FullyConnectedOptionsT()
    hidden.fusedActivationFunction = schema.ActivationFunctionType.RELU
    x = weighted("fc1", first, before, x, activation("fc1", (500,)), hidden)
    x = weighted("fc2", state["fc2.weight"], "fc1", x, activation("fc2", (10,)), schema.FullyConnectedOptionsT())
    steps["softmax"] = (1 / 256, -128)
    scores = activation("softmax", (10,)) if ranges else x
    if ranges:
        file.operation("SOFTMAX", [x], scores, softmax())
    if float_output:
        scores = file.operation("DEQUANTIZE", [scores], file.tensor("floats", (-1, 10), "float32"))
    return file.write(path, [images], [scores])


def _ranges(state: Mapping[str, np.ndarray], images: np.ndarray) -> dict[str, tuple[float, float]]:
    """The least and the largest activation of each layer, with 0 between them."""
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in state.items()}
    x, found = torch.from_numpy(images[:, None]).float() / 255, {}
    for name in ("conv1", "conv2", "fc1", "fc2"):
        weights, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        x = functional.conv2d(x, weights, bias) if weights.ndim == 4 else functional.linear(x.flatten(1), weights, bias)
        x = x if name == "fc2" else x.relu()
        found[name] = min(0.0, float(x.min())), max(0.0, float(x.max()))
        x = functional.max_pool2d(x, 2) if weights.ndim == 4 else x
    return found


def _steps(least: float, most: float) -> _Quantisation:
    step = (most - least) / 255
    return step, round(-128 - least / step)
