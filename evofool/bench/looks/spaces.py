"""The spaces in which images are near to real ones or far: pixels, HOG, and what another network makes of them."""

import math
import tempfile
import warnings
import weakref
from collections.abc import Iterator

import numpy as np

from evofool.errors import ImageError, StoreError
from evofool.explain.features import Features
from evofool.explain.neighbours import Neighbours, pixels
from evofool.images import resized
from evofool.targets import Target

_BLOCK = 1 << 24  # numbers that are in memory at once
_SPILL = 1 << 26  # bytes; more points than that go to the disk


class RealPoints:
    """Points of real images in the order in which they came: in memory, or, where they are many, in a file without a name.

    Whole numbers 0..255 stand for pixels, and are points on [0, 1]; floats are points as they are.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPILL)  # noqa: SIM115 (it lives as long as this object)
        weakref.finalize(self, self._file.close)
        self._count = 0
        self._kind, self._width = np.dtype(np.float32), 0

    def __len__(self) -> int:
        return self._count

    def add(self, points: np.ndarray) -> None:
        """points (B, D), uint8 or float32, always the same D."""
        self._kind, self._width = points.dtype, points.shape[1]
        try:
            self._file.seek(0, 2)
            self._file.write(points.tobytes())
        except OSError as error:
            raise StoreError(
                f"{tempfile.gettempdir()} has no room for the points of the real images ({error.strerror}); name fewer of "
                "them, or another place by TMPDIR"
            ) from None
        self._count += len(points)

    def nearest(self, asked: np.ndarray) -> np.ndarray:
        """(A,) float64: the Euclidean distance of each of the points (A, D) to the nearest of these."""
        points = _as_points(asked)
        found = Neighbours(points, np.full(len(points), -1), 1)
        for begin, block in self.blocks():
            found.add(_as_points(block), np.arange(begin, begin + len(block)))
        # Again, and exactly: what it comes to must not hang on what was asked beside it.
        rows = found.which[:, 0].tolist()
        near = (_as_points(self.rows(row, 1))[0].astype(np.float64) for row in rows)
        return np.array([np.linalg.norm(there - point) for there, point in zip(near, points, strict=True)])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The points (B, D) as they were added, with the number of the first of them."""
        step = max(1, _BLOCK // self._width) if self._width else 1
        for begin in range(0, self._count, step):
            yield begin, self.rows(begin, min(step, self._count - begin))

    def rows(self, begin: int, count: int) -> np.ndarray:
        row = self._width * self._kind.itemsize
        self._file.seek(begin * row)
        return np.frombuffer(self._file.read(count * row), self._kind).reshape(count, self._width)


def flat(images: np.ndarray) -> np.ndarray:
    """The pixels of uint8 images (B, C, H, W), uint8 (B, C*H*W)."""
    return images.reshape(len(images), -1)


def hog(images: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients, float32 (B, D), of uint8 images (B, C, H, W). Source: Dalal and Triggs 2005.

    9 unsigned orientations, L2-Hys over blocks of 2x2 cells; of colours the channel of the steepest gradient. A cell is a
    14th of the short side, but at least 4 pixels (or the side, if that is shorter): 4 at 28x28 (7x7 cells: a stroke of a
    digit is about two wide), 16 at 224x224. ImageError names the extra that brings scikit-image.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from skimage.feature import hog as one
    except ModuleNotFoundError as error:
        raise ImageError(f"HOG needs scikit-image ({error}): pip install 'evofool[bench]'") from None
    short = min(images.shape[2:])
    cell = min(max(4, short // 14), short)
    block = min(2, short // cell)
    found = [
        one(
            image.transpose(1, 2, 0),
            orientations=9,
            pixels_per_cell=(cell, cell),
            cells_per_block=(block, block),
            block_norm="L2-Hys",
            channel_axis=-1,
        )
        for image in images
    ]
    return np.stack(found).astype(np.float32)


class Elsewhere:
    """Images as another network sees them: float32 (B, D), what its last linear layer is given.

    They are squeezed into its shape, bilinear, and made grey or coloured as it takes them. Passes are of `batch` images,
    short ones filled up, so that last bits do not hang on how many are asked. TargetError for a black box.
    """

    def __init__(self, network: Target, batch: int = 32) -> None:
        self.network, self.batch = network, batch
        self._features = Features(network)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        seen = np.stack([resized(image, self.network.shape) for image in images])
        whole = math.ceil(len(seen) / self.batch) * self.batch
        seen = np.concatenate([seen, np.zeros((whole - len(seen), *self.network.shape), np.uint8)])
        with self._features as points:
            found = [points(seen[k : k + self.batch]) for k in range(0, whole, self.batch)]
        return np.concatenate(found)[: len(images)]


def _as_points(stored: np.ndarray) -> np.ndarray:
    return pixels(stored) if stored.dtype == np.uint8 else stored
