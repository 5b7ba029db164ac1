"""Pipelines before a classifier: what they deliver of images, its gradient, and how the answers to it become one."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from evofool.errors import UnansweredError
from evofool.targets.pipelines import Pipeline
from evofool.targets.preprocessing import to_logits
from evofool.targets.replaced_gradient import with_gradient_of

MEAN, LEAST = "mean", "least"


class Through:
    """Pipelines, and how the answers to what they deliver become one.

    mean: of probabilities, as of several crops: the confidence in a class is what is expected if one of the pipelines is
    drawn at random. An attack on an expectation over transformations (EOT, Athalye, Engstrom, Ilyas & Kwok 2018), whose
    objective is the mean of the logarithms instead; of that, one pipeline that fails changes a confidence less.

    least: every class has a least probability over the pipelines; the class for which it is largest gets exactly that. The
    other classes share the rest in proportion to their means, but none gets more than that class. So a confidence above 0.5
    is the least over all pipelines; those below are not, since the least probabilities of all classes do not sum to 1.

    Of labels that do not exclude each other each has its own mean or least probability.
    """

    def __init__(self, made: tuple[Pipeline, ...], by: str = MEAN) -> None:
        self.pipelines, self.by = made, by

    def images(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) to (B * P, C, H, W); what the P pipelines make of an image are neighbours."""
        return np.stack([pipeline(images) for pipeline in self.pipelines], 1).reshape(-1, *images.shape[1:])

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """The same for float images on 0..255, which are rounded first.

        Gradients are those of smooth versions of the steps (BPDA, Athalye, Carlini & Wagner 2018): of the same shift and
        crop, of torch's resizing, and of no change for JPEG and WebP.
        """
        rounded = (images.detach() + 0.5).floor().clamp(0, 255).to(torch.uint8).cpu().numpy()
        exact = torch.from_numpy(self.images(rounded)).to(images.device).float()
        if not (torch.is_grad_enabled() and images.requires_grad):
            return exact
        smooth = torch.stack([pipeline.smooth(images) for pipeline in self.pipelines], 1).flatten(0, 1)
        return with_gradient_of(exact, smooth)

    def combined(self, logits: torch.Tensor, multilabel: bool = False) -> torch.Tensor:
        """Logits (B * P, K) of what the P pipelines delivered to those of the images, (B, K); of one pipeline its own.

        multilabel: each label has its own mean or least probability (Target.multilabel).
        """
        count = len(self.pipelines)
        if count == 1:
            return logits
        if multilabel:
            by_pipeline = logits.unflatten(0, (-1, count))
            return to_logits(logits, "multilabel-logits", count) if self.by == MEAN else by_pipeline.amin(1)
        if self.by == MEAN:
            return to_logits(logits, "logits", count)
        # In float64, so that probabilities near 1 are told apart; some devices have none.
        exact = logits.cpu() if logits.device.type == "mps" else logits
        p = F.log_softmax(exact.double(), 1).unflatten(0, (-1, count))
        return _least(p, torch.logsumexp(p, 1) - math.log(count)).to(logits)


def delivered(forward: Callable[[np.ndarray], np.ndarray], through: Through) -> Callable[[np.ndarray], np.ndarray]:
    """A forward function of what the pipelines deliver. An image that is not answered has the row that it had before."""

    def answer(images: np.ndarray) -> np.ndarray:
        try:
            return forward(through.images(images))
        except UnansweredError as error:
            if error.row is not None:
                error.row //= len(through.pipelines)
            raise

    return answer


def combined(raw: torch.Tensor, outputs: str, crops: int, through: Through | None) -> torch.Tensor:
    """A network's output, float32 (B * P * crops, K) of kind `outputs`, as logits (B, K)."""
    logits = to_logits(raw, outputs, crops)
    return logits if through is None else through.combined(logits, outputs.startswith("multilabel-"))


def _least(p: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Logarithms of probabilities, (B, P, K), and of their means, (B, K), to the answer that Through describes.

    Of classes with equal least probabilities the first counts as the largest.
    """
    rows = torch.arange(len(p), device=p.device)
    least, at = p.min(1)
    winner = least.argmax(1)
    largest = least[rows, winner][:, None]
    worst = p[rows, at[rows, winner]]
    won = F.one_hot(winner, p.shape[2]).bool()
    rest, rest_of_mean = (torch.logsumexp(x.masked_fill(won, -torch.inf), 1, True) for x in (worst, mean))
    shared = torch.minimum(mean + rest - rest_of_mean, largest)
    # float32 has to tell the winner from classes that were held down to it.
    below = torch.nextafter(largest.float(), torch.full_like(largest, -torch.inf).float()).double()
    return torch.where(won, largest, torch.minimum(shared, below))
