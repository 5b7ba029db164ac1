"""From one code to another in a straight line: the images on the way, and where the predicted class changes."""

from dataclasses import dataclass

import numpy as np

from evofool.scores import log_odds
from evofool.targets import Target
from genomes import Genomes, Latent


@dataclass(frozen=True)
class Boundary:
    """A change of the predicted class. share: of the way, between the two images. images: uint8 (2, C, H, W), the last one
    found before the change and the first one after it. classes: what they are predicted as. log_odds: (2, K) of both."""

    share: float
    images: np.ndarray
    classes: tuple[int, int]
    log_odds: np.ndarray


@dataclass(frozen=True)
class Morph:
    """Images at even shares of the way. shares float64 (T,), 0 to 1; images uint8 (T, C, H, W); log_odds float64 (T, K);
    predicted int64 (T,), of equal logits the lower class; boundaries in order; queries: images that the target was asked."""

    shares: np.ndarray
    images: np.ndarray
    log_odds: np.ndarray
    predicted: np.ndarray
    boundaries: tuple[Boundary, ...]
    queries: int


def morph(
    encoding: Latent, target: Target, first: Genomes, last: Genomes, frames: int = 49, halvings: int = 12, chunk: int = 32
) -> Morph:
    """The images of codes first + share (last - first), both batches of one, at `frames` shares, at least 2.

    Between two frames that are predicted differently the change is bracketed by so many halvings; if the class changes
    several times between two frames, one of these changes is found. chunk: images in a forward pass.
    """
    asked = 0

    def answer(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal asked
        way = last.astype(np.float64) - first
        images = encoding.render((first + shares[:, None] * way).astype(np.float32))
        asked += len(images)
        return images, np.concatenate([target.logits(images[at : at + chunk], chunk) for at in range(0, len(images), chunk)])

    shares = np.linspace(0.0, 1.0, frames)
    images, logits = answer(shares)
    predicted = logits.argmax(1)
    boundaries = []
    for k in np.flatnonzero(predicted[1:] != predicted[:-1]).tolist():
        ends = shares[[k, k + 1]]
        pair, of_pair = images[[k, k + 1]], logits[[k, k + 1]]
        for _ in range(halvings):
            middle, found = answer(ends.mean(keepdims=True))
            side = int(found[0].argmax() != predicted[k])
            ends[side], pair[side], of_pair[side] = ends.mean(), middle[0], found[0]
        classes = int(of_pair[0].argmax()), int(of_pair[1].argmax())
        boundaries.append(Boundary(float(ends.mean()), pair, classes, log_odds(of_pair, target.multilabel)))
    return Morph(shares, images, log_odds(logits, target.multilabel), predicted, tuple(boundaries), asked)
