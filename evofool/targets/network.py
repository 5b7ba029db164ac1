"""A torch network as a target runs it: the plain way, and faster ways to rank by."""

import copy
import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evofool.errors import TargetError
from evofool.machine import keep_memory
from evofool.targets.preprocessing import Preprocessing

FLOAT32 = "float32"
FOLDED = "float32-folded"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BIG = 64  # pixels a side from which a faster way is worth its trouble


class Network:
    """module takes float (B, C, H, W), preprocessed, and returns (B, K); it is put into eval mode on the device.

    Number formats: `float32` is the network as given; scores are defined by it. The others are faster and close to it:
    `float32-folded`, `bfloat16`, and `float16` on a GPU have batch norms folded into the convolutions before them, and
    channels last; `bfloat16-compiled` and `float16-compiled` on a GPU are compiled by torch.compile as well.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":  # else convolutions in float32 have the precision of half of it
            torch.backends.cudnn.allow_tf32 = False
        self.module = module.to(self.device).eval()
        self.prepare = preprocessing.affine(self.device)
        self._ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {FLOAT32: self.module}
        self._steep: dict[bool, tuple[nn.Module, frozenset[str]]] = {}  # for big images or not
        self._lock = threading.Lock()

    def formats(self, side: int) -> tuple[str, ...]:
        """What there is to choose from for images of this many pixels a side, the plain one first."""
        if side < _BIG:
            return (FLOAT32,)
        if self.device.type == "cpu":
            return (FLOAT32, FOLDED, "bfloat16")
        return (FLOAT32, FOLDED, "bfloat16", "float16", "bfloat16-compiled", "float16-compiled")

    def __call__(self, images: torch.Tensor, number_format: str) -> torch.Tensor:
        """uint8 (B, C, H, W) on the device to what the network answers, float32 (B * crops, K), on the device."""
        if number_format not in self._ways:
            with self._lock:
                if number_format not in self._ways:
                    self._ways[number_format] = self._way(number_format, images)
        way = self._ways[number_format]
        with torch.inference_mode():
            pixels = images.float() if number_format == FLOAT32 else images.to(memory_format=torch.channels_last).float()
            # Ten crops of a chunk are ten passes of its size: one pass takes ten times the memory, and no less time.
            parts = self.prepare(pixels).split(len(images))
            answers = [_tensor(way(part)).float() for part in parts]
            return answers[0] if len(answers) == 1 else torch.cat(answers)

    def numpy(self, images: np.ndarray, number_format: str) -> np.ndarray:
        """The same for images in the computer's memory."""
        return self(torch.from_numpy(images).to(self.device), number_format).cpu().numpy()

    def gradient_module(self, shape: tuple[int, int, int]) -> tuple[nn.Module, frozenset[str]]:
        """The network as gradients are taken through it for images of this shape (C, H, W), in float32.

        Of big images batch norms are folded and channels come last (EfficientNet-Lite0 is half as fast again): near the
        plain network, not equal to the bit. Layers have the same names. Also the names of those that answer otherwise than
        in the plain network: convolutions that a batch norm was folded into.
        """
        big = min(shape[1:]) >= _BIG
        with self._lock:
            if big not in self._steep:
                self._steep[big] = self._folded_for_gradients(shape) if big else (self.module, frozenset())
            return self._steep[big]

    def _folded_for_gradients(self, shape: tuple[int, int, int]) -> tuple[nn.Module, frozenset[str]]:
        if self.device.type == "cpu":
            keep_memory()
        try:
            with torch.no_grad():
                folded, fused = _folded(self.module, self.prepare(torch.zeros((1, *shape), device=self.device)))
            return _channels_last(folded).requires_grad_(False), fused
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a network that cannot be copied, or whose parts are not what they seem
            return self.module, frozenset()

    def _way(self, number_format: str, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        name, _, option = number_format.partition("-")
        dtype = _DTYPES[name]
        if self.device.type == "cpu":
            keep_memory()
        with torch.inference_mode():
            example = self.prepare(images[:1].float())
            try:
                folded, _ = _folded(self.module, example)
            except Exception:  # a network that cannot be copied, or whose parts are not what they seem
                return self._autocast(self.module, dtype)
            try:
                module = _channels_last(copy.deepcopy(folded).to(dtype=dtype))
                module(example.to(dtype))
            except (RuntimeError, TypeError):  # a network that makes float32 tensors of its own
                module = _channels_last(folded)
                return self._autocast(module, dtype)
        if option == "compiled":
            module.compile(dynamic=False)
        return lambda x: module(x.to(dtype=dtype, memory_format=torch.channels_last))

    def _autocast(self, module: nn.Module, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        def way(x: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return module(x.to(memory_format=torch.channels_last))

        return way


def _folded(module: nn.Module, example: torch.Tensor) -> tuple[nn.Module, frozenset[str]]:
    """A copy with every batch norm that directly follows a convolution folded into it, and those convolutions' names.

    What follows what is seen on one image, not read from names; a fold that changes the answer is taken back.
    """
    out = copy.deepcopy(module)
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
    places = {id(child): (parent, name) for parent in out.modules() for name, child in parent.named_children()}
    times = [id(part) for part, _, _ in ran]
    names = {id(part): name for name, part in out.named_modules()}
    fused = set()
    for (conv, _, told), (norm, taken, _) in pairwise(ran):
        once = times.count(id(conv)) == times.count(id(norm)) == 1
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and taken is told and once:
            fused.add(names[id(conv)])
            for part, new in ((conv, fuse_conv_bn_eval(conv, norm)), (norm, nn.Identity())):
                parent, name = places[id(part)]
                setattr(parent, name, new)
    spread = float(before.std()) or 1.0
    same = torch.allclose(_tensor(out(example)), before, rtol=0, atol=1e-3 * spread)
    return (out, frozenset(fused)) if same else (copy.deepcopy(module), frozenset())


def _channels_last(module: nn.Module) -> nn.Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _tensor(answer: object) -> torch.Tensor:
    if not isinstance(answer, torch.Tensor):
        raise TargetError(f"the network returns a {type(answer).__name__}; it has to return logits (B, K)")
    return answer
