"""Images as points by the features of a network: the third space of the image metrics."""

import math

import numpy as np

from evofool.explain.features import Features
from evofool.images import resized
from evofool.targets import Target


class NetworkFeatures:
    """Maps uint8 images (B, C, H, W) to points (B, D) float32: the input of the network's last linear layer.

    Images are resized to its shape, bilinear, and converted to grey or colour as it takes them. Passes are of `batch`
    images, short ones padded, so that a point's last bits do not depend on how many images are passed. TargetError for a
    black box.
    """

    def __init__(self, network: Target, batch: int = 32) -> None:
        self.network, self.batch = network, batch
        self._features = Features(network)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        inputs = np.stack([resized(image, self.network.shape) for image in images])
        padded = math.ceil(len(inputs) / self.batch) * self.batch
        inputs = np.concatenate([inputs, np.zeros((padded - len(inputs), *self.network.shape), np.uint8)])
        with self._features as features:
            points = [features(inputs[k : k + self.batch]) for k in range(0, padded, self.batch)]
        return np.concatenate(points)[: len(images)]
