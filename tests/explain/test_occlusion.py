"""Covering parts of an image: with simple classifiers whose response is known."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain.elements import Element, find_elements
from evofool.explain.occlusion import ablate, occlude
from evofool.scores import log_odds
from evofool.targets import Target

SHAPE = (3, 40, 40)
RED, GREEN, BLUE, PAPER = (220, 30, 30), (30, 200, 40), (40, 60, 220), (240, 238, 230)


class CountsRed(nn.Module):
    """Class 0's logit is proportional to the number of bright red pixels."""

    def __init__(self, weight: float = 0.05) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = ((x[:, 0] > 0.7) & (x[:, 1] < 0.3)).float().sum((1, 2)) * self.weight
        return torch.stack([red, torch.zeros_like(red)], 1)


def counts_red() -> Target:
    return Target.from_module(CountsRed(), ["red", "none"], SHAPE, outputs="logits")


def black_box() -> Target:
    """The same classifier without a network."""
    white = counts_red()
    return Target("box", white.labels, SHAPE, white.logits, {})


def blobs(*places: tuple[int, int, int, tuple[int, int, int]], paper: tuple[int, int, int] = PAPER) -> np.ndarray:
    """Discs (row, column, radius, colour) on paper, uint8 (3, 40, 40)."""
    y, x = np.mgrid[:40, :40]
    image = np.empty(SHAPE, np.uint8)
    image[:] = np.array(paper, np.uint8)[:, None, None]
    for row, column, radius, colour in places:
        image[:, (y - row) ** 2 + (x - column) ** 2 <= radius**2] = np.array(colour, np.uint8)[:, None]
    return image


THREE_AND_TWO = blobs((8, 8, 4, RED), (8, 28, 4, RED), (30, 8, 4, RED), (22, 22, 4, GREEN), (33, 33, 4, GREEN))


# --- the map


def slow_map(target: Target, image: np.ndarray, class_id: int, patch: int, stride: int, fill: int) -> np.ndarray:
    """One image at a time, one pixel at a time."""
    height, width = image.shape[1:]
    rows = [*range(0, height - patch, stride), height - patch]
    columns = [*range(0, width - patch, stride), width - patch]
    whole = log_odds(target.logits(image[None]))[0, class_id]
    drops: list[list[list[float]]] = [[[] for _ in range(width)] for _ in range(height)]
    for top in rows:
        for left in columns:
            covered = image.copy()
            covered[:, top : top + patch, left : left + patch] = fill
            drop = whole - log_odds(target.logits(covered[None]))[0, class_id]
            for y in range(top, top + patch):
                for x in range(left, left + patch):
                    drops[y][x].append(drop)
    return np.array([[np.mean(cell) for cell in row] for row in drops], np.float32)


@pytest.mark.parametrize(("patch", "stride"), [(8, 4), (7, 5), (3, 3), (40, 1)])
def test_the_map_equals_that_of_a_loop_over_patches(patch: int, stride: int) -> None:
    target = counts_red()
    fast = occlude(target, THREE_AND_TWO, 0, patch=patch, stride=stride, fill=128, batch=5).map
    np.testing.assert_allclose(fast, slow_map(target, THREE_AND_TWO, 0, patch, stride, 128), atol=1e-4)
    assert fast.shape == (40, 40)
    assert fast.dtype == np.float32


def test_the_map_peaks_on_the_evidence_for_the_class_and_is_the_negative_for_the_other_class() -> None:
    target = counts_red()
    image = blobs((10, 28, 4, RED), (30, 10, 4, GREEN))
    drop = occlude(target, image, 0).map
    peak = np.unravel_index(drop.argmax(), drop.shape)
    assert np.hypot(peak[0] - 10, peak[1] - 28) <= 5
    assert abs(drop[30, 10]) < 1e-5, "green blobs are not counted"
    np.testing.assert_allclose(occlude(target, image, 1).map, -drop, atol=1e-4)


def test_drops_are_those_of_single_patches_and_reach_further_than_the_map() -> None:
    target = counts_red()
    image = blobs((10, 28, 4, RED), (30, 10, 4, GREEN))
    found = occlude(target, image, 0, patch=8, fill=128)
    whole = log_odds(target.logits(image[None]))[0, 0]
    for (top, left), drop in zip(found.corners.tolist(), found.drops, strict=True):
        covered = image.copy()
        covered[:, top : top + 8, left : left + 8] = 128
        assert drop == pytest.approx(whole - log_odds(target.logits(covered[None]))[0, 0], abs=1e-4)
    assert found.patch == 8
    assert found.drops.max() > found.map.max() + 0.1


def test_a_black_box_is_queried_image_by_image() -> None:
    white, box = counts_red(), black_box()
    before = box.queries
    found = occlude(box, THREE_AND_TWO, 0, patch=10, stride=10)
    assert box.queries - before == 1 + 16
    np.testing.assert_array_equal(found.map, occlude(white, THREE_AND_TWO, 0, patch=10, stride=10).map)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"patch": 41}, "patch of 41 pixels"),
        ({"patch": 0}, "patch of 0 pixels"),
        ({"patch": 4, "stride": 5}, "leave gaps"),
        ({"patch": 4, "stride": 0}, "every 0"),
    ],
)
def test_patches_that_do_not_fit_the_image_are_refused(how: dict[str, int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        occlude(counts_red(), THREE_AND_TWO, 0, **how)


def test_a_class_that_does_not_exist_and_nan_are_named() -> None:
    with pytest.raises(TargetError, match="no class 2; it has 0 to 1"):
        occlude(counts_red(), THREE_AND_TWO, 2)
    broken = Target("broken", ["a", "b"], SHAPE, lambda x: np.full((len(x), 2), np.nan, np.float32), {})
    with pytest.raises(ScoreError, match="broken returned NaN"):
        occlude(broken, THREE_AND_TWO, 0)


# --- the elements


def test_elements_are_the_blobs_and_copies_are_one_group() -> None:
    found = find_elements(THREE_AND_TWO)
    assert [(e.group, e.colour) for e in found] == [(0, RED)] * 3 + [(1, GREEN)] * 2
    assert [e.box for e in found] == [(4, 4, 13, 13), (4, 24, 13, 33), (26, 4, 35, 13), (18, 18, 27, 27), (29, 29, 38, 38)]
    assert all(e.area == 49 for e in found)


def test_another_size_shape_or_colour_is_another_group() -> None:
    image = blobs((7, 7, 3, RED), (7, 20, 3, RED), (7, 33, 3, BLUE), (30, 9, 7, RED))
    image[:, 22:24, 24:38] = np.array(RED, np.uint8)[:, None, None]  # a bar of the area of a small disc
    groups = {e.box[:2]: e.group for e in find_elements(image)}
    assert groups[(4, 4)] == groups[(4, 17)] == 0
    assert len({groups[(4, 4)], groups[(4, 30)], groups[(23, 2)], groups[(22, 24)]}) == 4


def test_turned_and_mirrored_copies_are_copies() -> None:
    image = blobs()
    corner = np.zeros((8, 8), bool)
    corner[:3], corner[:, :3] = True, True
    for (top, left), turns in zip([(2, 2), (2, 20), (22, 2), (22, 20)], range(4), strict=True):
        image[:, top : top + 8, left : left + 8][:, np.rot90(corner, turns)] = np.array(BLUE, np.uint8)[:, None]
    assert [e.group for e in find_elements(image)] == [0, 0, 0, 0]


def test_an_element_includes_what_it_encloses_and_a_frame_does_not_include_the_picture() -> None:
    image = blobs((20, 20, 8, BLUE), (20, 20, 4, PAPER))
    ring = max(find_elements(image), key=lambda e: e.area)
    assert ring.mask[20, 20]
    image[:, :3], image[:, -3:], image[:, :, :3], image[:, :, -3:] = 0, 0, 0, 0
    frame = next(e for e in find_elements(image, most=0.3) if e.box == (0, 0, 40, 40))
    assert not frame.mask[20, 20]


def test_the_teeth_of_a_comb_and_the_gaps_between_them_are_elements() -> None:
    image = np.zeros((1, 48, 48), np.uint8)
    image[:, :, 30:] = 255
    for top in (6, 14, 22, 30):
        image[:, top : top + 3, 12:30] = 255
    found = find_elements(image)
    assert [(e.box, e.group) for e in found] == [((top, 12, top + 3, 30), 0) for top in (6, 14, 22, 30)] + [
        ((top, 12, top + 5, 30), 1) for top in (9, 17, 25)
    ]


def test_a_soft_edge_is_not_a_separate_element() -> None:
    """Anti-aliased: rendered at four times the size and averaged."""
    y, x = np.mgrid[:160, :160] / 4
    disc = np.zeros((160, 160))
    for row, column in ((10, 10), (10, 30), (30, 20)):
        disc += (y - row) ** 2 + (x - column) ** 2 <= 36
    soft = disc.reshape(40, 4, 40, 4).mean((1, 3))
    image = np.repeat((255 * soft).astype(np.uint8)[None], 3, 0)
    assert [e.group for e in find_elements(image)] == [0, 0, 0]


def test_a_flat_image_a_split_one_and_noise_have_no_elements() -> None:
    flat = blobs()
    assert find_elements(flat) == []
    flat[:, :, 20:] = 0
    assert find_elements(flat) == []
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    assert find_elements(noise, colours=16, least=0.01) == []


def test_equal_seeds_find_equal_elements_and_only_the_largest_are_kept() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 28, 28), np.uint8)
    first, second = find_elements(image, seed=3), find_elements(image, seed=3)
    assert [(e.box, e.group) for e in first] == [(e.box, e.group) for e in second]
    few = find_elements(THREE_AND_TWO, limit=2)
    assert len(few) == 2


# --- effects


def test_each_copy_has_the_effect_that_the_network_gives_it() -> None:
    target = counts_red()
    elements = find_elements(THREE_AND_TWO)
    before = target.queries
    found = ablate(target, THREE_AND_TWO, 0, elements, batch=3)
    assert target.queries - before == 1 + 5 + 2 + 1
    each = 49 * 0.05
    assert found.log_odds == pytest.approx(3 * each, abs=1e-4)
    np.testing.assert_allclose(found.alone, [2 * each] * 3 + [3 * each] * 2, atol=1e-4)
    np.testing.assert_allclose(found.together[0], [3 * each, 2 * each, each, 0], atol=1e-4)
    np.testing.assert_allclose(found.together[1], [3 * each] * 3, atol=1e-4)


def test_elements_are_covered_by_the_background_colour() -> None:
    elements = find_elements(THREE_AND_TWO)
    found = ablate(counts_red(), THREE_AND_TWO, 0, elements)
    np.testing.assert_array_equal(
        found.images[0], blobs((8, 28, 4, RED), (30, 8, 4, RED), (22, 22, 4, GREEN), (33, 33, 4, GREEN))
    )
    np.testing.assert_array_equal(found.emptied[0], blobs((22, 22, 4, GREEN), (33, 33, 4, GREEN)))
    assert found.images.dtype == np.uint8


def test_the_colour_of_neighbours_is_not_used() -> None:
    """Two discs close together: each is covered by the background colour, not by the other's red."""
    image = blobs((20, 14, 4, RED), (20, 24, 4, RED))
    found = ablate(counts_red(), image, 0, find_elements(image))
    np.testing.assert_array_equal(found.emptied[0], blobs())


def test_a_black_box_is_ablated_the_same_and_no_elements_are_refused() -> None:
    elements = find_elements(THREE_AND_TWO)
    np.testing.assert_array_equal(
        ablate(black_box(), THREE_AND_TWO, 0, elements).alone, ablate(counts_red(), THREE_AND_TWO, 0, elements).alone
    )
    with pytest.raises(ImageError, match="no elements"):
        ablate(black_box(), THREE_AND_TWO, 0, [])


def test_an_element_that_fills_the_image_is_covered_too() -> None:
    mask = np.zeros((40, 40), bool)
    mask[1:-1, 1:-1] = True
    found = ablate(counts_red(), THREE_AND_TWO, 0, [Element(mask, (1, 1, 39, 39), RED)])
    assert found.alone[0] == pytest.approx(0)


def test_a_net_is_background_and_its_meshes_are_elements() -> None:
    """Lines of one pixel that cover a third of the image are connected: too large for an element, and thin everywhere."""
    image = np.zeros((1, 64, 64), np.uint8)
    image[:, ::6] = image[:, :, ::6] = 255
    found = find_elements(image, least=0.001)
    assert found
    assert all(element.colour == (0,) for element in found)


def test_covering_an_image_of_one_colour_changes_nothing_however_batches_round() -> None:
    def rounding(images: np.ndarray) -> np.ndarray:
        return np.array([[1e-6 * len(images), 0.0]], np.float32).repeat(len(images), 0)

    box = Target("box", ["a", "b"], (1, 16, 16), rounding, {})
    found = occlude(box, np.full((1, 16, 16), 77, np.uint8), 0)
    assert not found.drops.any()
    assert not found.map.any()
    half = np.full((1, 16, 16), 77, np.uint8)
    half[:, :, 8:] = 79
    assert occlude(box, half, 0, fill=77).drops.any()
