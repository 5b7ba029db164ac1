"""A network for LiteRT (TensorFlow Lite), run by ai-edge-litert: a black box without gradients, often quantised."""

import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.machine import cpus
from evofool.targets.answer_forms import of_steps, steps_note
from evofool.targets.classifier import PROBE, Forward, Target
from evofool.targets.loaders.formats import format_of, opened
from evofool.targets.loaders.image_input import ImageInput
from evofool.targets.loaders.outputs import scores_of
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec

_TYPES = ("float32", "float16", "uint8", "int8", "int16", "int32", "int64")
_SOFTMAX_STEP = 1 / 256
"""Of an 8-bit softmax, by LiteRT's specification of quantisation."""


def load(spec: Spec) -> Target:
    """tflite:FILE: one input, images in floats or quantised; the one output that can be scores, or output=.

    Images are laid out as ImageInput reads it from the file, usually (B, H, W, C). Floats are pixel / 255 unless options say
    otherwise. A quantised input gets the pixels as they are (int8: less 128), unless scale=, mean= or std= is given: then
    the preprocessed value is rounded to the nearest one that the input has. Quantised outputs are converted into the numbers
    that they stand for; those of a softmax are divided by their sum, and zeros share half a step. Each call uses threads=N
    threads, 1 by default, since several calls run at once.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise TargetError(f"{spec.head}: needs ai-edge-litert: pip install 'evofool[tflite]'") from None

    path, content, digest = opened(spec, "tflite", "TensorFlow Lite file")
    if format_of(content) != "tflite":
        raise TargetError(f"{spec.head}: {path} is not a TensorFlow Lite network")
    threads = spec.whole("threads", 1, most=1024) or 1
    runner = _Runner(lambda: Interpreter(model_content=content, num_threads=threads), path, spec.head)
    images, numbers = _images(runner.inputs, spec)
    default = numbers.pixels(images.dtype)
    preprocessing, size = spec.preprocessing(default, images.size)
    if not numbers.can_be_fed(preprocessing, images.dtype):
        kind = str(images.dtype).removeprefix("torch.")
        raise TargetError(f"{spec.head}: its input is {kind}, pixels as they are; leave scale, mean and std out")
    names = [str(each["name"]) for each in runner.outputs]
    count = images.batch or PROBE

    def answers() -> dict[str, object]:
        black = torch.zeros((count, images.channels, *images.size))
        return dict(zip(names, runner.ask(images, numbers.given(black, images)), strict=True))

    output = scores_of(names, spec, count, answers)
    index = names.index(output)
    is_softmax = _is_softmax(content, runner.outputs[index])
    target = Target.probed(
        spec.text,
        _forward(runner, images, numbers, (index, is_softmax), preprocessing),
        spec.labels(),
        (images.channels, *size),
        preprocessing,
        spec.outputs,
        {
            "weights_sha256": digest,
            "output": output,
            "file": str(path),
            "file_sha256": digest,
            "backend": f"ai-edge-litert {version('ai-edge-litert')}",
            "device": "cpu",
            **({"notes": [steps_note(_SOFTMAX_STEP)]} if is_softmax else {}),
        },
    )

    def refed(other: Preprocessing) -> Forward | None:
        if not numbers.can_be_fed(other, images.dtype):
            return None
        return _forward(runner, images, numbers, (index, is_softmax), other)

    target.set_refed(refed)
    target.streams = max(1, cpus() // threads)
    return target


class _Numbers(NamedTuple):
    """Numbers q of a tensor, which stand for (q - zero) * step; step 0: they are what they are."""

    step: float
    zero: int

    @classmethod
    def of(cls, tensor: dict[str, Any]) -> "_Numbers":
        step, zero = tensor["quantization"]
        return cls(float(step), int(zero))

    def values(self, q: np.ndarray) -> np.ndarray:
        """float32."""
        if not self.step:
            return q.astype(np.float32, copy=False)
        return (q.astype(np.float32) - np.float32(self.zero)) * np.float32(self.step)

    def given(self, x: torch.Tensor, images: ImageInput) -> torch.Tensor:
        """float (B, C, H, W) arranged, as these numbers: rounded, and clipped to their range."""
        if not images.dtype.is_floating_point:
            limits = torch.iinfo(images.dtype)
            q = x / self.step + self.zero if self.step else x
            x = q.round().clamp(limits.min, limits.max)
        return images.arranged(x)

    def pixels(self, dtype: torch.dtype) -> Preprocessing:
        """The preprocessing that is used by default: pixel / 255, and for whole numbers what passes the pixels on."""
        if dtype.is_floating_point:
            return Preprocessing()
        first = -128 if dtype == torch.int8 else 0
        step = self.step or 1.0
        return Preprocessing(scale=step, mean=((self.zero - first) * step if self.step else -float(first),))

    def can_be_fed(self, preprocessing: Preprocessing, dtype: torch.dtype) -> bool:
        """Whole numbers without a step stand for pixels, and cannot be scaled."""
        if dtype.is_floating_point or self.step:
            return True
        return preprocessing.is_shift(self.pixels(dtype).mean[0])


def _images(inputs: list[dict[str, Any]], spec: Spec) -> tuple[ImageInput, _Numbers]:
    """What the network takes: a batch that its file leaves open, or one of a fixed number of images."""
    takes = ", ".join(f"{each['name']} {np.dtype(each['dtype']).name} {each['shape_signature'].tolist()}" for each in inputs)
    kind = np.dtype(inputs[0]["dtype"]).name if inputs else ""
    if len(inputs) != 1 or kind not in _TYPES:
        raise TargetError(f"{spec.head}: takes {takes or 'nothing'}; it has to take only images, as floats or whole numbers")
    images = ImageInput.of(getattr(torch, kind), inputs[0]["shape_signature"].tolist(), spec, takes)
    return images, _Numbers.of(inputs[0])


class _Runner:
    """The network, in an interpreter for each thread that calls it. make: makes an interpreter."""

    def __init__(self, make: Callable[[], Any], path: Path, who: str) -> None:
        self._make, self._path, self._who = make, path, who
        self._local = threading.local()
        interpreter = self._interpreter()
        self.inputs: list[dict[str, Any]] = interpreter.get_input_details()
        self.outputs: list[dict[str, Any]] = interpreter.get_output_details()

    def ask(self, images: ImageInput, x: torch.Tensor) -> list[np.ndarray]:
        """All outputs for x as the network takes it, converted into the numbers that they stand for."""
        interpreter = self._interpreter()
        place, parts = self.inputs[0]["index"], list[list[np.ndarray]]()
        for part in images.parts(x):
            if interpreter.get_input_details()[0]["shape"].tolist() != list(part.shape):
                interpreter.resize_tensor_input(place, list(part.shape))
                interpreter.allocate_tensors()
            interpreter.set_tensor(place, part.numpy())
            interpreter.invoke()
            parts.append([_Numbers.of(each).values(interpreter.get_tensor(each["index"])) for each in self.outputs])
        return [np.concatenate(each)[: len(x)] for each in zip(*parts, strict=True)]

    def _interpreter(self) -> Any:
        if not hasattr(self._local, "interpreter"):
            try:
                self._local.interpreter = self._make()
                self._local.interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:300]
                raise TargetError(
                    f"{self._who}: {self._path} is not a TensorFlow Lite network that can be run ({reason})"
                ) from None
        return self._local.interpreter


def _forward(
    runner: _Runner, images: ImageInput, numbers: _Numbers, output: tuple[int, bool], preprocessing: Preprocessing
) -> Forward:
    """output: its index, and whether it is a quantised softmax."""
    prepare = preprocessing.affine()
    index, is_softmax = output

    def forward(pixels: np.ndarray) -> np.ndarray:
        x = numbers.given(prepare(torch.from_numpy(pixels).float()), images)
        answer = runner.ask(images, x)[index]
        return of_steps(answer, _SOFTMAX_STEP) if is_softmax else answer

    return forward


def _is_softmax(content: bytes, tensor: dict[str, Any]) -> bool:
    """Whether an output is an 8-bit softmax, or one that was converted into floats at the end.

    By the operation that computes it, and by the steps of the 8-bit tensors between it and the output.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graph, names, types = model.Subgraphs(0), schema.BuiltinOperator, schema.TensorType
    made_by = {
        int(index): operation
        for operation in map(graph.Operators, range(graph.OperatorsLength()))
        for index in operation.OutputsAsNumpy()
    }
    index, converted = int(tensor["index"]), False
    while index in made_by:
        operation, found = made_by.pop(index), graph.Tensors(index)  # pop: a damaged file may have a loop
        code = model.OperatorCodes(operation.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # older files have only the second
        if found.Type() in (types.INT8, types.UINT8):
            steps = found.Quantization()
            if steps is None or not steps.ScaleLength() or abs(steps.Scale(0) - _SOFTMAX_STEP) > 1e-9:
                return False
            converted = True
        elif converted or kind not in (names.DEQUANTIZE, names.RESHAPE):
            return False
        if kind not in (names.DEQUANTIZE, names.QUANTIZE, names.RESHAPE):
            return bool(kind == names.SOFTMAX)
        index = int(operation.Inputs(0))
    return False
