"""The masks that are made of maps and elements."""

import numpy as np

from evofool.explain.elements import Element
from evofool.explain.masks import SHARE, highest, most_effective, object_mask, occlusion_mask, saliency_mask
from evofool.explain.occlusion import Ablation


def bump(row: int, column: int) -> np.ndarray:
    y, x = np.mgrid[:40, :50]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 200)


def test_a_mask_has_its_share_of_pixels_around_the_highest() -> None:
    values = bump(12, 30)
    for mask in (highest(values, SHARE), saliency_mask(values), occlusion_mask(values)):
        assert mask[12, 30]
        assert abs(mask.mean() - SHARE) < 0.02


def test_where_nothing_lowers_the_score_and_in_a_constant_map_there_is_no_mask() -> None:
    assert not occlusion_mask(bump(12, 30) - 2).any()
    assert occlusion_mask(bump(12, 30) - 0.99).sum() < 20
    assert not saliency_mask(np.full((40, 50), 3.0)).any()


def test_the_object_is_cut_around_the_saliency() -> None:
    image = np.full((3, 40, 50), 60, np.uint8)
    image[:, 3:21, 20:40] = 200
    mask = object_mask(image, bump(12, 30))
    assert mask[3:21, 20:40].all()
    assert mask.sum() == 360


def elements(count: int) -> list[Element]:
    masks = np.zeros((count, 20, 20), bool)
    for k, mask in enumerate(masks):
        mask[2:6, 4 * k + 2 : 4 * k + 4] = True
    return [Element(mask, (2, 4 * k + 2, 6, 4 * k + 4), (0,), group=k // 2) for k, mask in enumerate(masks)]


def test_the_element_or_group_of_the_lowest_score_is_the_mask_with_its_soft_edge() -> None:
    three = elements(3)
    no_image = np.zeros((0, 1, 20, 20), np.uint8)

    def mask(alone: list[float], together: list[float]) -> np.ndarray:
        groups = {0: np.array([5.0, alone[0], together[0]]), 1: np.array([5.0, alone[2]])}
        return most_effective(three, Ablation(5.0, np.array(alone), no_image, groups, {}))

    one, both = mask([4.0, 3.0, 1.0], [2.0]), mask([4.0, 3.0, 1.0], [0.0])
    assert one[1:7, 9:13].sum() == one.sum() == 24
    assert both[1:7, 1:5].all()
    assert both[1:7, 5:9].all()
    assert both.sum() == 48
    assert not mask([5.0, 6.0, 7.0], [5.5]).any()
