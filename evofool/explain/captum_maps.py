"""Integrated gradients and Grad-CAM, as captum computes them. captum is imported when they are first used."""

import importlib.util
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from evofool.ascend.hooks import Hooks, no_gradients
from evofool.errors import ScoreError, TargetError
from evofool.explain.covering import Fill, filled
from evofool.explain.layers import last_spatial
from evofool.targets import Target

STEPS = 32
_TOGETHER = 8  # images in a pass
INSTALL = "pip install 'evofool[explain]'"


class Integrated(NamedTuple):
    """map: float32 (H, W), what each pixel adds to the margin, the sum over channels.

    margin: of the image; of_baseline: of the baseline. residual: the sum of the map less margin - of_baseline, which is 0
    for infinitely many steps.
    """

    map: np.ndarray
    margin: float
    of_baseline: float
    residual: float
    fill: Fill
    steps: int


class GradCam(NamedTuple):
    """map: float32 (H, W), at least 0. layer: the one whose output is weighted; positions: of its output."""

    map: np.ndarray
    layer: str
    positions: tuple[int, int]


def available() -> bool:
    """Whether captum is installed. It is not imported."""
    return importlib.util.find_spec("captum") is not None


def integrated_gradients(
    target: Target, image: np.ndarray, class_id: int, against: int, *, steps: int = STEPS, fill: Fill = "mean"
) -> Integrated:
    """What each pixel adds to the margin of two classes along the straight line from a baseline to the image.

    image: uint8 (C, H, W). The baseline is the image's fill; the integral is a Gauss-Legendre quadrature of `steps` points.
    Sundararajan, Taly & Yan 2017, eq. 1; completeness: proposition 1. Computed by captum's IntegratedGradients. Costs about
    steps + 2 forward and `steps` backward passes. TargetError for a target without gradients, or if captum is not
    installed; ScoreError where the result is not finite.
    """
    attr = _captum(target)
    with Hooks(target) as hooks:

        def margin(images: torch.Tensor) -> torch.Tensor:
            logits = hooks.forward(images).logits
            return logits[:, class_id] - logits[:, against]

        x, base = (_on_device(target, part) for part in (image, filled(image, fill)))
        with torch.no_grad():
            ends = margin(torch.cat([x, base])).double().tolist()
        with torch.enable_grad():
            found = attr.IntegratedGradients(margin).attribute(
                x, baselines=base, n_steps=steps, method="gausslegendre", internal_batch_size=_TOGETHER
            )
    values = found[0].detach().double().sum(0).cpu().numpy()
    _refuse_unfinite(target, values)
    return Integrated(values.astype(np.float32), ends[0], ends[1], float(values.sum() - (ends[0] - ends[1])), fill, steps)


def grad_cam(target: Target, image: np.ndarray, class_id: int) -> GradCam:
    """Where the last layer with positions speaks for a class: the sum of its channels, weighted by their mean gradients.

    Only what is above 0 is kept. image: uint8 (C, H, W). Selvaraju et al. 2017, eq. 1 and 2; computed by captum's
    LayerGradCam, and enlarged to the image (bilinear). Three forward passes and a backward one. TargetError for a network
    without such a layer, for a target without gradients, or if captum is not installed; ScoreError where the result is not
    finite.
    """
    attr = _captum(target)
    name, positions = last_spatial(target)
    assert target.network is not None
    layer = dict(target.network.module.named_modules())[name]
    with torch.enable_grad():
        found = attr.LayerGradCam(target.logits_float, layer).attribute(
            _on_device(target, image).requires_grad_(), target=class_id, relu_attributions=True
        )
    values = F.interpolate(found.detach(), image.shape[1:], mode="bilinear")[0, 0].float().cpu().numpy()
    _refuse_unfinite(target, values)
    return GradCam(values, name, positions)


def _captum(target: Target) -> ModuleType:
    if target.network is None:
        raise no_gradients(target)
    try:
        import captum.attr
    except ImportError as error:
        raise TargetError(f"integrated gradients and Grad-CAM need captum ({error}): {INSTALL}") from None
    return captum.attr


def _on_device(target: Target, image: np.ndarray) -> torch.Tensor:
    """uint8 (C, H, W) to float32 (1, C, H, W) on [0, 1]."""
    assert target.network is not None
    return torch.from_numpy(np.array(image))[None].to(target.network.device).float() / 255


def _refuse_unfinite(target: Target, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ScoreError(f"{target.name}: the gradient of this image is not finite")
