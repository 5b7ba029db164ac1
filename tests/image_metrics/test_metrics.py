"""Image metrics: against loops over all pairs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evofool.bench.network_features import NetworkFeatures
from evofool.errors import ImageError, TargetError
from evofool.image_metrics.metrics import ImageMetrics, total_variation
from evofool.image_metrics.spaces import hog
from evofool.images import encode_png
from evofool.run.schema import IMAGE_METRICS
from tests.image_metrics.samples import SHAPE, box, other, random_images, real

PIXELS, HOG, FEATURES, VARIATION = IMAGE_METRICS[:4]


def slow_percentiles(points: np.ndarray, reference: list[int], held_out: list[int], asked: np.ndarray) -> list[float]:
    """Every pair by itself."""

    def nearest(point: np.ndarray) -> float:
        return min(float(np.sqrt(((points[i].astype(float) - point) ** 2).sum())) for i in reference)

    own = [nearest(points[i].astype(float)) for i in held_out]
    return [100.0 * sum(d <= nearest(point.astype(float)) for d in own) / len(own) for point in asked]


def test_total_variation_is_the_mean_difference_of_neighbours() -> None:
    images = random_images(5, 0)
    for image, found in zip(images / 255.0, total_variation(images), strict=True):
        steps = []
        for c in range(3):
            for y in range(12):
                for x in range(16):
                    if x < 15:
                        steps.append(abs(image[c, y, x + 1] - image[c, y, x]))
                    if y < 11:
                        steps.append(abs(image[c, y + 1, x] - image[c, y, x]))
        assert found == pytest.approx(np.mean(steps), rel=1e-12)


def test_total_variation_runs_from_flat_to_a_chessboard() -> None:
    board = (np.indices((12, 16)).sum(0) % 2 * 255).astype(np.uint8)
    images = np.stack([np.full(SHAPE, 9, np.uint8), np.stack([board] * 3)])
    assert total_variation(images).tolist() == [0, 1]
    assert total_variation(np.zeros((1, 1, 1, 1), np.uint8)).tolist() == [0]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_percentiles_are_those_of_a_loop_over_all_pairs(batch: int) -> None:
    pictures, images, network = random_images(40, 0), random_images(9, 1), other()
    held_out, reference = list(range(0, 40, 3)), list(range(1, 40, 3))
    metrics = ImageMetrics.of(
        box(),
        real(pictures),
        reference_rows=reference,
        held_out_rows=held_out,
        features=NetworkFeatures(network, batch),
        batch=batch,
    )
    assert metrics.names == (PIXELS, HOG, FEATURES, VARIATION, "bytes_per_pixel")
    assert (metrics.compared, metrics.held_out) == (len(reference), len(held_out))
    found = metrics(images)
    elsewhere = NetworkFeatures(network, batch)
    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        PIXELS: lambda x: x.reshape(len(x), -1) / 255.0, HOG: hog, FEATURES: elsewhere,
    }  # fmt: skip
    for name, space in spaces.items():
        assert found[name].tolist() == slow_percentiles(space(pictures), reference, held_out, space(images))
    assert found["bytes_per_pixel"].tolist() == [len(encode_png(image)) / (12 * 16) for image in images]
    np.testing.assert_array_equal(found[VARIATION], total_variation(images))


def test_the_metrics_of_an_image_do_not_depend_on_the_rest_of_the_batch() -> None:
    images = random_images(20, 1)
    metrics = ImageMetrics.of(box(), real(random_images(60, 0)), features=NetworkFeatures(other()))
    together = metrics(images)
    for k in range(20):
        for name, values in metrics(images[k : k + 1]).items():
            assert values.tolist() == [together[name][k]]
    assert all(values.shape == (0,) for values in metrics(images[:0]).values())


def test_an_image_of_the_reference_is_at_percentile_0_and_one_unlike_all_at_100() -> None:
    pictures = random_images(30, 0)
    metrics = ImageMetrics.of(box(), real(pictures), held_out_rows=range(10))
    assert metrics.compared == 20
    assert metrics(pictures[15:16])[PIXELS] == metrics(pictures[15:16])[HOG] == 0
    assert metrics(np.full((1, *SHAPE), 255, np.uint8))[PIXELS] == 100
    # Of the held-out ones themselves the percentiles are 10, 20 ... 100.
    assert sorted(metrics(pictures[:10])[PIXELS].tolist()) == pytest.approx(range(10, 101, 10))


def test_by_default_real_images_are_held_out_evenly() -> None:
    assert [ImageMetrics.of(box(), real(random_images(n, 0))).held_out for n in (2, 9, 40)] == [1, 4, 20]
    metrics = ImageMetrics.of(box(), real(random_images(40, 0)), reference_rows=range(30))
    assert (metrics.compared, metrics.held_out) == (30, 10)


def test_the_key_stands_for_the_real_images_their_parts_and_the_network() -> None:
    pictures = random_images(12, 0)
    changed = pictures.copy()
    changed[11, 0, 0, 0] ^= 1

    def keys(images: np.ndarray = pictures, **how: Any) -> tuple[str, str]:
        references = ImageMetrics.of(box(), real(images), **{"features": NetworkFeatures(other()), **how}).references
        assert references[PIXELS] == references[HOG]
        return references[PIXELS], references[FEATURES]

    plain, features = keys()
    assert keys(batch=5) == (plain, features)
    assert keys(features=NetworkFeatures(other(1)))[0] == plain
    others = [*keys(changed), *keys(held_out_rows=[1, 2]), keys(features=NetworkFeatures(other(1)))[1]]
    assert len({plain, features, *others}) == 2 + len(others)
    details = ImageMetrics.of(box(), real(pictures), features=NetworkFeatures(other())).reference_details
    assert details[plain] == {"images": "mine", "reference": 6, "held_out": 6}
    assert details[features] == {"images": "mine", "reference": 6, "held_out": 6, "network": "other", "real": plain}


def test_what_cannot_be_compared_is_refused() -> None:
    pictures = real(random_images(10, 0))
    with pytest.raises(ImageError, match="real image 3 cannot be both compared with and held out; 2 are in both sets"):
        ImageMetrics.of(box(), pictures, reference_rows=[1, 3, 4], held_out_rows=[3, 4, 5])
    with pytest.raises(ImageError, match="1 real images to compare with and 0 held out"):
        ImageMetrics.of(box(), real(random_images(1, 0)))
    with pytest.raises(ImageError, match="none of the real images"):
        ImageMetrics.of(box(), pictures, reference_rows=[20], held_out_rows=[3])
    with pytest.raises(TargetError, match="features have to be those of another one"):
        ImageMetrics.of(other(), real(random_images(10, 0, (1, 10, 10))), features=NetworkFeatures(other()))
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        ImageMetrics.of(box(), pictures, features=NetworkFeatures(box(classes=3)))
    with pytest.raises(
        ImageError, match=r"image metrics are measured of uint8 images \(B, 3, 12, 16\), not uint8 \(1, 1, 12, 16\)"
    ):
        ImageMetrics.of(box(), pictures)(np.zeros((1, 1, 12, 16), np.uint8))
