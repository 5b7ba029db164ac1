"""A variational autoencoder of small images, of which the decoder is kept (Kingma & Welling 2014)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from genomes.upconv import Decoder, Layout

_SLOPE = 0.2
_CHUNK = 1 << 24  # values of images that are made float32 at once
_CLIP = 50.0  # the largest norm of a step's gradient: the first steps can be far too large

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Images (B, C, h, w) on [0, 1] to as many others, which may have another size."""
OnEpoch = Callable[[int, float], object]


@dataclass(frozen=True)
class Training:
    """How a decoder is trained. beta: the weight of the divergence from the prior, over the reconstruction error in nats.

    rate: the peak of the learning rate, which rises over the first tenth and then falls to 0 by a cosine.
    """

    epochs: int = 100
    batch: int = 64
    rate: float = 2e-3
    beta: float = 1.0
    seed: int = 0


class Trained(NamedTuple):
    """A decoder in eval mode; its mean reconstruction error in its last epoch, in nats a pixel and channel; its epochs."""

    decoder: Decoder
    error: float
    epochs: int


class Encoder(nn.Module):
    """Images to the means and log variances of their codes: convolutions of stride 2, the decoder's widths in reverse."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        widths = layout.widths[::-1]
        befores = (layout.image[0], *widths)
        self.halvings = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in zip(befores, widths, strict=False)
        )
        self.to_code = nn.Linear(widths[-1] * math.prod(layout.grid(0)), 2 * layout.code[0])
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight, _SLOPE)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.to_code.weight *= 0.1

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) on [0, 1] to two (B, D)."""
        x = images
        for convolution in self.halvings:
            x = F.leaky_relu(convolution(x), _SLOPE)
        mean, log_variance = self.to_code(x.flatten(1)).chunk(2, 1)
        return mean, log_variance


def train(
    images: torch.Tensor,
    layout: Layout,
    training: Training = Training(),
    augment: Augment | None = None,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """A decoder that is trained on images; after KeyboardInterrupt, as the last whole epoch left it, if there was one.

    images: uint8 (N, C, h, w), of which, as float32 on [0, 1], augment makes images of layout.image; None: they are.
    layout.code is (D,). The error is the cross entropy of pixels as Bernoulli probabilities. Codes are scaled so that a
    standard normal code has the mean and the variance, coordinate by coordinate, of the codes of the images. The same
    images and settings give the same bits on one kind of machine with one torch thread. on_epoch(epoch, error) is called
    after each epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        decoder, encoder = Decoder(layout), Encoder(layout)
    draws = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.Adam([*decoder.parameters(), *encoder.parameters()], betas=(0.9, 0.98))
    steps = training.epochs * math.ceil(len(images) / training.batch)

    def batch_of(some: torch.Tensor) -> torch.Tensor:
        some = some.float() / 255
        return some if augment is None else augment(some, draws)

    step, error, done = 0, math.nan, 0
    both = nn.ModuleList([decoder, encoder])
    kept: dict[str, torch.Tensor] = {}
    try:
        for epoch in range(1, training.epochs + 1):
            total = 0.0
            for rows in torch.randperm(len(images), generator=draws).split(training.batch):
                optimizer.param_groups[0]["lr"] = _rate(step / steps, training.rate)
                batch = batch_of(images[rows])
                mean, log_variance = encoder(batch)
                code = mean + torch.randn(mean.shape, generator=draws) * (0.5 * log_variance).exp()
                wrong = F.binary_cross_entropy(decoder(code), batch, reduction="sum")
                divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
                optimizer.zero_grad()
                ((wrong + training.beta * divergence) / len(rows)).backward()
                nn.utils.clip_grad_norm_(both.parameters(), _CLIP * math.sqrt(batch[0].numel()))
                optimizer.step()
                total += wrong.item()
                step += 1
            whole = {name: tensor.clone() for name, tensor in both.state_dict().items()}
            kept, error, done = whole, total / (len(images) * math.prod(layout.image)), epoch
            if on_epoch:
                on_epoch(epoch, error)
    except KeyboardInterrupt:
        if not kept:
            raise
        both.load_state_dict(kept)
    _scale_codes(decoder, encoder, (batch_of(part) for part in images.split(max(1, _CHUNK // images[0].numel()))))
    return Trained(decoder.eval().requires_grad_(False), error, done)


@torch.no_grad()
def _scale_codes(decoder: Decoder, encoder: Encoder, chunks: Iterable[torch.Tensor]) -> None:
    parts = [encoder(part) for chunk in chunks for part in chunk.split(256)]
    means, variances = torch.cat([m for m, _ in parts]), torch.cat([v.exp() for _, v in parts])
    spread = (means.var(0) + variances.mean(0)).sqrt()
    decoder.code_mean.copy_(-means.mean(0) / spread)  # the decoder takes (code - code_mean) / code_scale
    decoder.code_scale.copy_(1 / spread)


def _rate(progress: float, peak: float) -> float:
    warm = 0.1
    if progress < warm:
        return peak * (0.04 + 0.96 * progress / warm)
    return peak * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))) / 2
