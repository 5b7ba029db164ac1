"""Graph cuts compared with a search over all masks, and images without an object."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from evofool.errors import ImageError, ScoreError
from evofool.explain import segmentation
from evofool.explain.segmentation import Edges, box, segment


def blob(height: int = 48, width: int = 64, channels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of a bright disc on dark noise, saliency that is strong in a part of it alone, and the disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    disc = (y - 20) ** 2 + (x - 30) ** 2 < 12**2
    image = rng.normal(70, 15, (channels, height, width))
    image[:, disc] = rng.normal(180, 15, (channels, disc.sum()))
    heat = np.exp(-((y - 17) ** 2 + (x - 27) ** 2) / 100) + 0.1 * rng.random((height, width))
    return image.clip(0, 255).astype(np.uint8), heat.astype(np.float32), disc


@pytest.mark.parametrize("channels", [1, 3])
def test_an_object_is_found_completely_from_saliency_in_a_part_of_it(channels: int) -> None:
    image, heat, disc = blob(channels=channels)
    mask = segment(image, heat)
    assert mask.dtype == bool
    assert (mask & disc).sum() / (mask | disc).sum() > 0.95
    assert np.abs(np.array(box(mask)) - box(disc)).max() <= 1


def test_the_mask_is_one_piece_and_the_same_every_time() -> None:
    image, heat, _ = blob()
    heat[-1, -1] = 2.0  # a seed far away
    mask = segment(image, heat, blur=0.0)
    assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    assert (mask == segment(image, heat, blur=0.0)).all()
    assert not mask[-1, -1]


def test_the_scale_of_saliency_does_not_matter() -> None:
    image, heat, _ = blob()
    for scale in (1e-30, 1e6):
        assert (segment(image, heat) == segment(image, heat * np.float32(scale))).all()


@pytest.mark.parametrize("seed", range(8))
def test_the_cut_is_the_cheapest_of_all_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = 3, 4
    count = height * width
    preference = rng.normal(0, 2, (height, width))
    found = segmentation._neighbours(rng.integers(0, 256, (3, height, width), np.uint8), 2.0)
    surely, surely_not = np.zeros((2, height, width), bool)
    surely[0, 0] = surely_not[2, 3] = True
    preference[0, 0], preference[2, 3] = -9, 9  # against the seeds: they hold all the same

    masks = np.array(list(itertools.product([False, True], repeat=count)))
    masks = masks[masks[:, 0] & ~masks[:, -1]]
    price = (np.where(masks, 0, preference.ravel().clip(0)) + np.where(masks, (-preference.ravel()).clip(0), 0)).sum(1)
    for a, b, cost in zip(*found, strict=True):
        price += cost * (masks[:, a] != masks[:, b])
    best = masks[price.argmin()].reshape(height, width)
    assert np.partition(price, 1)[1] - price.min() > 0.02, "no tie, which rounding to integers could turn"
    assert (segmentation._cut(preference, found, surely, surely_not) == best).all()


def test_neighbours_are_the_eight_and_edges_are_cheap_to_cut_along() -> None:
    image = np.zeros((1, 3, 4), np.uint8)
    image[:, :, 2:] = 255
    edges: Edges = segmentation._neighbours(image, 2.0)
    rows, columns = np.divmod(np.stack([edges.tails, edges.heads]), 4)
    apart = np.stack([np.abs(rows[0] - rows[1]), np.abs(columns[0] - columns[1])])
    assert apart.max() == 1
    assert len({frozenset(pair) for pair in zip(edges.tails, edges.heads, strict=True)}) == len(edges.costs) == 9 + 8 + 12
    across = (columns < 2).any(0) & (columns >= 2).any(0)
    np.testing.assert_allclose(edges.costs[~across], (2.0 / np.hypot(*apart))[~across])
    assert edges.costs[across].max() < edges.costs[~across].min()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flat", ["image", "saliency", "both"])
def test_flat_images_and_flat_saliency_give_a_mask_or_none(channels: int, flat: str) -> None:
    image, heat, _ = blob(channels=channels)
    image = np.full_like(image, 200) if flat != "saliency" else image
    heat = np.full_like(heat, 0.3) if flat != "image" else heat
    mask = segment(image, heat)
    assert mask.shape == heat.shape
    assert mask.any() == (flat == "image"), "the mask is empty for flat saliency"


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (28, 28)])
def test_small_images_do_not_break_it(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    mask = segment(rng.integers(0, 256, (1, *size), np.uint8), rng.random(size))
    assert mask.shape == size


def test_a_single_bright_pixel_of_saliency_is_a_seed() -> None:
    image, _, disc = blob()
    heat = np.zeros(disc.shape)
    heat[20, 30] = 1.0
    assert segment(image, heat, blur=0.0)[20, 30]


def test_box_is_the_tightest_rectangle() -> None:
    mask = np.zeros((5, 7), bool)
    assert box(mask) == (0, 0, 0, 0)
    mask[1, 2] = mask[3, 5] = True
    assert box(mask) == (1, 2, 4, 6)


def test_invalid_arguments_are_named() -> None:
    image, heat, _ = blob()
    with pytest.raises(ImageError, match=r"uint8 \(3, 48, 64\) and \(48, 63\)"):
        segment(image, heat[:, 1:])
    with pytest.raises(ImageError, match="not float64"):
        segment(image / 255, heat)
    heat[2, 3] = np.nan
    with pytest.raises(ScoreError, match="not finite at 1 of 3072 pixels"):
        segment(image, heat)
    with pytest.raises(ValueError, match=r"not 0.9 and 0.5"):
        segment(image, heat, foreground=0.5, background=0.9)


def test_the_parts_with_the_most_saliency_are_kept_and_not_the_largest() -> None:
    mask = np.zeros((10, 12), bool)
    mask[:6, :6], mask[8:, 8:], mask[0, 10] = True, True, True
    weight = np.ones(mask.shape)
    weight[8:, 8:] = 9
    for share, expected in ((0.0, 8), (0.5, 8), (0.7, 8 + 36), (1.0, 8 + 36 + 1)):
        kept = segmentation._main_parts(mask, weight, share)
        assert kept.sum() == expected
        assert kept[9, 9]
