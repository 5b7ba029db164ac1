"""The face of a classifier: labels, input shape, preprocessing, logits, and a count of what it was asked."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch

from evofool.errors import TargetError


@dataclass(frozen=True)
class Preprocessing:
    """What a network is fed: (pixel * scale - mean) / std, pixel 0..255, per channel; channels swapped first for BGR.

    mean and std have one number, or one per channel. It lives here and nowhere else.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: str = "RGB"

    def __post_init__(self) -> None:
        if self.order not in ("RGB", "BGR"):
            raise TargetError(f'channel order "{self.order}" is neither RGB nor BGR')
        if not self.scale > 0 or any(not s > 0 for s in self.std):
            raise TargetError(f"scale {self.scale} and std {self.std} have to be > 0")
        lengths = {len(self.mean), len(self.std)} - {1}
        if not self.mean or not self.std or len(lengths) > 1:
            raise TargetError(f"mean {self.mean} and std {self.std} have to have one number, or one per channel")

    def affine(self, device: torch.device | str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from float pixels (B, C, H, W) on 0..255 to the network's input; differentiable."""
        mean, std = (torch.tensor(v, dtype=torch.float64, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        gain, shift = (self.scale / std).float(), (mean / std).float()
        swap = self.order == "BGR"
        shifted = bool(shift.any())

        def apply(pixels: torch.Tensor) -> torch.Tensor:
            x = (pixels.flip(1) if swap else pixels) * gain
            return x - shift if shifted else x

        return apply


class Target:
    """A classifier as every search, baseline and report sees it.

    name: as it was asked for. labels: K names. shape: (C, H, W) of its images. details: what was resolved (preprocessing,
    SHA-256 of the weights, ...), plain and stored with a run. queries: images answered so far. differentiable: whether
    logits_float and activations are there.

    The back end is one function, `forward(images uint8 (B, C, H, W)) -> logits float32 (B, K)`; a torch network comes
    in by from_module.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        shape: tuple[int, int, int],
        forward: Callable[[np.ndarray], np.ndarray],
        details: dict[str, Any],
        module: torch.nn.Module | None = None,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.name = name
        self.labels = tuple(str(label) for label in labels)
        self.shape = cast(tuple[int, int, int], tuple(shape))
        self.details = details
        self.queries = 0
        self._forward = forward
        self._module = module
        self._prepare = prepare
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise TargetError(f"{name}: labels have to be at least two different names, not {self.labels[:12]}")
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise TargetError(f"{name}: the shape of an image is (1 or 3, H, W), not {shape}")

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        labels: Sequence[str],
        shape: tuple[int, int, int],
        preprocessing: Preprocessing | None = None,
        name: str | None = None,
        device: torch.device | str = "cpu",
    ) -> "Target":
        """A torch network that takes float (B, C, H, W) and returns logits (B, K); it is put into eval mode.

        It is asked four images of noise at once, so a wrong shape or number of labels is found here (TargetError).
        """
        preprocessing = preprocessing or Preprocessing()
        name = name or type(module).__name__
        shape = tuple(shape)  # type: ignore[assignment]
        if len(shape) != 3:
            raise TargetError(f"{name}: the shape of an image is (1 or 3, H, W), not {shape}")
        module = module.to(device).eval()
        prepare = preprocessing.affine(device)

        def forward(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                pixels = torch.from_numpy(images).to(device).float()
                answer = module(prepare(pixels))
                if not isinstance(answer, torch.Tensor):
                    raise TargetError(
                        f"{name}: the network returns a {type(answer).__name__}; it has to return logits (B, K)"
                    )
                return answer.float().cpu().numpy()

        weights = hashlib.sha256()
        for key, value in module.state_dict().items():
            weights.update(key.encode())
            weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        details = {
            "preprocessing": asdict(preprocessing),
            "weights_sha256": weights.hexdigest(),
            "backend": f"torch {torch.__version__}",
            "device": str(device),
        }
        target = cls(name, labels, shape, forward, details, module, prepare)
        try:
            answers = target.logits(np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, TargetError):
                raise
            raise TargetError(f"{name}: the network does not take images of shape {shape} ({error})") from None
        if (answers >= 0).all() and np.allclose(answers.sum(axis=1), 1.0, atol=1e-3):
            raise TargetError(f"{name}: the network returns probabilities; leave its softmax out, so that it returns logits")
        target.queries = 0
        return target

    def logits(self, images: np.ndarray, pad_to: int = 0) -> np.ndarray:
        """uint8 (B, C, H, W) to float32 (B, K), B >= 1; counts B queries.

        A batch shorter than pad_to is filled up with black images whose answers are dropped: the shape of a forward
        pass can decide last bits, what else is in it does not. Values are not checked: NaN passes through.
        """
        n = len(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.shape or n == 0:
            raise TargetError(
                f"{self.name}: takes uint8 images (B, {', '.join(map(str, self.shape))}), not {images.dtype} {images.shape}"
            )
        if n < pad_to:
            images = np.concatenate([images, np.zeros((pad_to - n, *self.shape), np.uint8)])
        out = self._forward(images)
        if out.shape != (len(images), len(self.labels)):
            raise TargetError(
                f"{self.name}: {out.shape[-1] if out.ndim else 0} logits but {len(self.labels)} labels "
                f"(answer of shape {out.shape} to {len(images)} images); pass as many labels as the network has outputs"
            )
        self.queries += n
        return out[:n]

    @property
    def differentiable(self) -> bool:
        return self._module is not None

    def logits_float(self, images: torch.Tensor) -> torch.Tensor:
        """float (B, C, H, W) on [0, 1] to logits (B, K), with gradients; counts B queries. Pixels are not rounded."""
        module, prepare = self._white_box()
        self.queries += len(images)
        return module(prepare(images * 255.0))

    def activations(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """The output of a named layer (as in module.named_modules()) for float images on [0, 1]; counts B queries."""
        module, prepare = self._white_box()
        layers = dict(module.named_modules())
        if layer not in layers:
            raise TargetError(f"{self.name}: no layer {layer!r}; there are {', '.join(name for name in layers if name)}")
        kept: list[torch.Tensor] = []
        # A copy, since a later layer may work in place.
        hook = layers[layer].register_forward_hook(lambda _module, _args, output: kept.append(output.clone()))
        try:
            module(prepare(images * 255.0))
        finally:
            hook.remove()
        self.queries += len(images)
        if not kept:
            raise TargetError(f"{self.name}: layer {layer!r} takes no part in the network's answer")
        return kept[-1]

    def _white_box(self) -> tuple[torch.nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        if self._module is None or self._prepare is None:
            raise TargetError(f"{self.name}: a black box, it has neither gradients nor layers")
        return self._module, self._prepare

    def fingerprint(self) -> str:
        """SHA-256 over labels, shape, preprocessing and weights: equal exactly for the same classifier.

        Library versions and devices are left out: they change last bits, not the classifier.
        """
        what = {k: v for k, v in self.details.items() if k not in ("backend", "device")}
        text = json.dumps([self.labels, self.shape, what], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
