"""Adversarial training: the loss at the worst image that PGD finds near each digit (Madry 2018, arXiv 1706.06083)."""

import torch
from torch.nn import functional as F

from evofool.targets.networks import LeNet

RADIUS = 0.3  # of pixels in [0, 1], in the maximum norm: Madry 2018, section 5, on MNIST
STEPS = 3  # the paper has 40 of 0.01, at 13 times the cost
STEP = 2.5 * RADIUS / STEPS  # so that they can cross the ball
WARM_UP = 300  # batches in which the radius rises from 0, since the whole radius stops an untrained network from learning


class AdversarialLoss:
    """Cross entropy of the images that PGD finds within RADIUS of the given ones; the network stays in training mode.

    Its weights are laid out channels last, which saves a sixth of the time.
    """

    def __init__(self, seed: int) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        self.batches = 0

    def __call__(self, network: LeNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.batches += 1
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share = min(1.0, self.batches / WARM_UP)
        start = torch.rand(images.shape, generator=self.draws) * 2 - 1
        return F.cross_entropy(network(worst_near(network, images, labels, start, share)), labels)


def worst_near(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, start: torch.Tensor, share: float = 1.0
) -> torch.Tensor:
    """Projected gradient ascent on the cross entropy, from images + RADIUS * share * start; (B, C, H, W) like images.

    images: float in [0, 1], and so is the result. start: the same shape, in [-1, 1]. share: of RADIUS and STEP.
    """
    radius, step = RADIUS * share, STEP * share
    low, high = (images - radius).clamp(0, 1), (images + radius).clamp(0, 1)
    x = (images + radius * start).clamp(0, 1)
    for _ in range(STEPS):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), labels), x)
        x = torch.minimum(torch.maximum(x.detach() + step * gradient.sign(), low), high)
    return x
