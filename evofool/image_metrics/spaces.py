"""The spaces in which distances to real images are measured: pixels and HOG, and points that are kept on disk if many."""

import tempfile
import warnings
import weakref
from collections.abc import Iterator

import numpy as np

from evofool.errors import ImageError, StoreError
from evofool.image_metrics.neighbours import Neighbours, pixels

_BLOCK = 1 << 24  # numbers that are in memory at once
_SPILL = 1 << 26  # bytes; more points than that go to the disk


class RealPoints:
    """Points of real images, in the order in which they were added: in memory, or in an unnamed file if they are many.

    uint8 points are pixels and are scaled to [0, 1]; float32 points are used as they are.
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
                f"{tempfile.gettempdir()} has no room for the points of the real images ({error.strerror}); use fewer "
                "real images, or set TMPDIR to another folder"
            ) from None
        self._count += len(points)

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        """(A,) float64: the Euclidean distance of each of the points (A, D) to the nearest of these."""
        points = _as_points(queries)
        found = Neighbours(points, np.full(len(points), -1), 1)
        for begin, block in self.blocks():
            found.add(_as_points(block), np.arange(begin, begin + len(block)))
        # Computed again, exactly: a distance must not depend on the other points of the call.
        rows = found.which[:, 0].tolist()
        nearest = (_as_points(self.rows(row, 1))[0].astype(np.float64) for row in rows)
        return np.array([np.linalg.norm(other - point) for other, point in zip(nearest, points, strict=True)])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The points (B, D) as they were added, with the number of the first of them."""
        step = max(1, _BLOCK // self._width) if self._width else 1
        for begin in range(0, self._count, step):
            yield begin, self.rows(begin, min(step, self._count - begin))

    def rows(self, begin: int, count: int) -> np.ndarray:
        """count points (count, D) from number begin on."""
        row = self._width * self._kind.itemsize
        self._file.seek(begin * row)
        return np.frombuffer(self._file.read(count * row), self._kind).reshape(count, self._width)


def flat(images: np.ndarray) -> np.ndarray:
    """The pixels of uint8 images (B, C, H, W), uint8 (B, C*H*W)."""
    return images.reshape(len(images), -1)


def hog(images: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients, float32 (B, D), of uint8 images (B, C, H, W). Source: Dalal and Triggs 2005.

    9 unsigned orientations, L2-Hys over blocks of 2x2 cells; in colour the channel with the steepest gradient counts. A
    cell is a 14th of the short side, but at least 4 pixels (or the side, if that is shorter): 4 at 28x28 (7x7 cells: a
    stroke of a digit is about two pixels wide), 16 at 224x224. ImageError if scikit-image is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from skimage.feature import hog as skimage_hog
    except ModuleNotFoundError as error:
        raise ImageError(f"HOG needs scikit-image ({error}): pip install 'evofool[bench]'") from None
    short = min(images.shape[2:])
    cell = min(max(4, short // 14), short)
    block = min(2, short // cell)
    found = [
        skimage_hog(
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


def _as_points(stored: np.ndarray) -> np.ndarray:
    return pixels(stored) if stored.dtype == np.uint8 else stored
