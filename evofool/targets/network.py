"""A torch network as a target runs it: as given in float32, and in faster number formats for ranking."""

import copy
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evofool.errors import TargetError
from evofool.images import is_large
from evofool.machine import keep_memory
from evofool.targets.answer_forms import PlainAnswers, main_part, rows_of, single_output
from evofool.targets.cuda import reproducible, settle, uploaded
from evofool.targets.preprocessing import Preprocessing

FLOAT32 = "float32"
FOLDED = "float32-folded"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Network:
    """module takes float (B, C, H, W), preprocessed, and returns (B, K); it is put into eval mode on the device.

    Number formats: `float32` is the network as given; scores are defined by it. The others are faster and close to it:
    `float32-folded`, `bfloat16`, and `float16` on a GPU have batch norms folded into the convolutions before them, and
    channels last; `bfloat16-compiled` and `float16-compiled` on a GPU are compiled by torch.compile as well.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        reproducible(self.device)
        self.module = module.to(self.device)
        # torch.export's modules refuse eval(): their mode is part of the graph.
        with suppress(NotImplementedError):
            self.module.eval()
        self.prepare = preprocessing.affine(self.device)
        self._forwards: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {FLOAT32: self.module}
        self._for_gradients: dict[bool, tuple[nn.Module, frozenset[str]]] = {}  # by whether images are large
        self._averaged = False
        self._lock = threading.Lock()

    def adapt(self, shape: tuple[int, int, int], outputs: str) -> str:
        """Bring answers of another form than (B, K) into it. Returns what the one output is, if there is one, else ""."""
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)).to(self.device).float()
        try:
            with torch.inference_mode():
                answer = self.module(self.prepare(images))
        except Exception:  # it does not take such images: who uses it first says so
            return ""
        found = main_part(answer)
        if not isinstance(found, torch.Tensor):
            return ""
        rows = rows_of(tuple(found.shape))
        single = single_output(found.reshape(rows), outputs)
        if single or found is not answer or rows != tuple(found.shape):
            self.module = PlainAnswers(self.module, single).eval()
            self._forwards, self._for_gradients = {FLOAT32: self.module}, {}
        return single

    @property
    def no_layers(self) -> str:
        """Why its layers cannot be read; "" if they can."""
        return next((part.reason for part in self.module.modules() if isinstance(part, WithoutLayers)), "")

    def average(self, answers: int) -> None:
        """From now on outputs are the mean of so many passes, and gradients too, in float32 alone and as given."""
        self.module = _Mean(self.module, answers)
        self._forwards, self._for_gradients, self._averaged = {FLOAT32: self.module}, {}, True

    def deliver(self, pixels: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """From now on images pass this function of float pixels (B, C, H, W) on 0..255 before they are prepared."""
        prepare = self.prepare
        self.prepare = lambda images: prepare(pixels(images))

    def formats(self, shape: tuple[int, int, int]) -> tuple[str, ...]:
        """The number formats for images of this shape (C, H, W), float32 first. Others are faster for large images only."""
        if not is_large(shape) or self._averaged:
            return (FLOAT32,)
        if self.device.type == "cpu":
            return (FLOAT32, FOLDED, "bfloat16")
        return (FLOAT32, FOLDED, "bfloat16", "float16", "bfloat16-compiled", "float16-compiled")

    def __call__(self, images: torch.Tensor, number_format: str) -> torch.Tensor:
        """uint8 (B, C, H, W) on the device to the network's outputs, float32 (B * crops, K), on the device."""
        if number_format not in self._forwards:
            with self._lock:
                if number_format not in self._forwards:
                    forward = self._forward_in(number_format, images)
                    if number_format.endswith("compiled"):  # by one thread, while others wait
                        with torch.inference_mode():
                            forward(self.prepare(images.float())[: len(images)])
                    settle(self.device)  # other threads may have streams of their own
                    self._forwards[number_format] = forward
        forward = self._forwards[number_format]
        with torch.inference_mode():
            pixels = images.float() if number_format == FLOAT32 else images.to(memory_format=torch.channels_last).float()
            # Ten crops of a chunk are ten passes: a single pass would take ten times the memory and no less time.
            parts = self.prepare(pixels).split(len(images))
            outputs = [_tensor(forward(part)).float() for part in parts]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def numpy(self, images: np.ndarray, number_format: str) -> np.ndarray:
        """The same for NumPy arrays."""
        return self(uploaded(images, self.device), number_format).cpu().numpy()

    def fed(self, preprocessing: Preprocessing) -> Callable[[np.ndarray], np.ndarray]:
        """The network in float32 with another preprocessing: uint8 (B, C, H, W) to float32 (B * crops, K)."""
        prepare = preprocessing.affine(self.device)

        def forward(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                parts = prepare(uploaded(images, self.device).float()).split(len(images))
                return torch.cat([_tensor(self.module(part)).float() for part in parts]).cpu().numpy()

        return forward

    def gradient_module(self, shape: tuple[int, int, int]) -> tuple[nn.Module, frozenset[str]]:
        """The network for gradients with images of this shape (C, H, W), in float32.

        For large images batch norms are folded and channels come last (EfficientNet-Lite0 is 1.5 times as fast): close to
        the network as given, but not exactly equal. Layers have the same names. Also returns the names of layers whose
        outputs differ: convolutions into which a batch norm was folded.
        """
        large = is_large(shape) and not self._averaged
        with self._lock:
            if large not in self._for_gradients:
                self._for_gradients[large] = self._folded_for_gradients(shape) if large else (self.module, frozenset())
            return self._for_gradients[large]

    def _folded_for_gradients(self, shape: tuple[int, int, int]) -> tuple[nn.Module, frozenset[str]]:
        if self.device.type == "cpu":
            keep_memory()
        try:
            with torch.no_grad():
                folded, fused = _folded(self.module, self.prepare(torch.zeros((1, *shape), device=self.device)))
            return _channels_last(folded).requires_grad_(False), fused
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a network that cannot be copied, or has unusual parts
            return self.module, frozenset()

    def _forward_in(self, number_format: str, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        name, _, option = number_format.partition("-")
        dtype = _DTYPES[name]
        if self.device.type == "cpu":
            keep_memory()
        with torch.inference_mode():
            example = self.prepare(images[:1].float())
            try:
                folded, _ = _folded(self.module, example)
            except Exception:  # a network that cannot be copied, or has unusual parts
                return self._autocast(self.module, dtype)
            try:
                module = _channels_last(_copy(folded).to(dtype=dtype))
                module(example.to(dtype))
            except (RuntimeError, TypeError):  # a network that creates float32 tensors itself
                module = _channels_last(folded)
                return self._autocast(module, dtype)
        if option == "compiled":
            module.compile(dynamic=False)
        return lambda x: module(x.to(dtype=dtype, memory_format=torch.channels_last))

    def _autocast(self, module: nn.Module, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return module(x.to(memory_format=torch.channels_last))

        return forward


class _Mean(nn.Module):
    """The mean of the outputs of several passes of a network whose outputs are random."""

    def __init__(self, network: nn.Module, passes: int) -> None:
        super().__init__()
        self.network = network
        self._passes = passes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = _tensor(self.network(x))
        for _ in range(self._passes - 1):
            total = total + self.network(x)
        return total / self._passes


class WithoutLayers(nn.Module):
    """A network whose layers cannot be read: named_modules() has only this module. reason: why, in words."""

    def __init__(self, network: nn.Module, reason: str) -> None:
        super().__init__()
        self.network, self.reason = network, reason

    def forward(self, x: torch.Tensor) -> Any:
        return self.network(x)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        yield prefix, self

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.network.named_parameters(f"{prefix}.network".lstrip("."), recurse, remove_duplicate)


def _folded(module: nn.Module, example: torch.Tensor) -> tuple[nn.Module, frozenset[str]]:
    """A copy with every batch norm that directly follows a convolution folded into it, and those convolutions' names.

    The order of layers is observed with one image, not inferred from names; folding that changes the output is undone.
    """
    out = _copy(module)
    before = _tensor(out(example))
    ran: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda m, args, result: ran.append((m, args[0], result)))
        for part in out.modules()
        if isinstance(part, nn.Conv2d) or type(part) is nn.BatchNorm2d
    ]
    try:
        out(example)
    finally:
        for hook in hooks:
            hook.remove()
    parents = {id(child): (parent, name) for parent in out.modules() for name, child in parent.named_children()}
    times = [id(part) for part, _, _ in ran]
    names = {id(part): name for name, part in out.named_modules()}
    fused = set()
    for (conv, _, conv_output), (norm, norm_input, _) in pairwise(ran):
        once = times.count(id(conv)) == times.count(id(norm)) == 1
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm_input is conv_output and once:
            fused.add(names[id(conv)])
            for part, new in ((conv, fuse_conv_bn_eval(conv, norm)), (norm, nn.Identity())):
                parent, name = parents[id(part)]
                setattr(parent, name, new)
    spread = float(before.std()) or 1.0
    same = torch.allclose(_tensor(out(example)), before, rtol=0, atol=1e-3 * spread)
    return (out, frozenset(fused)) if same else (_copy(module), frozenset())


def _copy(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # torch warns of parts of exported programs
        return copy.deepcopy(module)


def _channels_last(module: nn.Module) -> nn.Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _tensor(output: object) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise TargetError(f"the network returns a {type(output).__name__}; it has to return logits (B, K)")
    return output
