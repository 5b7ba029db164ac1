"""Chairs of boxes: what the z-buffer draws, against rays followed one by one."""

import numpy as np
import pytest

from evofool.explain.chairs.renderer import project, render, surface, view_grid
from evofool.explain.chairs.styles import PARAMETERS, PARTS, boxes_of, random_styles

STYLE = np.full(len(PARAMETERS), 0.5)
FRONT, BEHIND = np.array([0.0, 0.0]), np.array([180.0, 0.0])


def style(**values: float) -> np.ndarray:
    found = STYLE.copy()
    for name, value in values.items():
        found[list(PARAMETERS).index(name)] = value
    return found


def test_every_pixel_shows_the_box_that_its_ray_meets_first() -> None:
    """The ray of each pixel is followed in the chair's own coordinates, and each box is asked alone."""
    chair, (azimuth, elevation), size = random_styles(1, 5)[0], (50.0, 30.0), 24
    seen = surface(chair, np.array([azimuth, elevation]), size=size)
    a, e = np.radians([azimuth, elevation])
    back = np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), -np.sin(e)])  # away from the viewer
    right = np.array([np.cos(a), -np.sin(a), 0.0])
    up = np.cross(right, back)
    for row in range(size):
        for column in range(size):
            x, y = ((column + 0.5) / size * 2 - 1) * 0.85, -((row + 0.5) / size * 2 - 1) * 0.85
            best, nearest = -1, np.inf
            for part, (centre, *edges) in enumerate(boxes_of(chair[None])[0]):
                inverse = np.linalg.inv(np.array(edges).T)
                begin, step = inverse @ (x * right + y * up - centre), inverse @ back
                ends = np.sort(np.array([(-1 - begin) / step, (1 - begin) / step]), 0)
                if ends[0].max() <= ends[1].min() and ends[0].max() < nearest:
                    best, nearest = part, ends[0].max()
            assert seen.parts[row, column] == best, (row, column)


def test_a_seat_has_its_width_and_thickness_in_pixels() -> None:
    """From the front, at elevation 0: 0.72 by 0.09 of 1.7 units across the picture, on 170 pixels."""
    seat = surface(style(width=1.0, arms=0.0, panel=0.0), FRONT, size=170).parts == PARTS.index("seat")
    assert seat.sum(1).max() == 72
    assert seat[:, 85].sum() == 9


def test_the_nearer_leg_hides_the_one_behind() -> None:
    """The chair's left side is to the viewer's right from the front, and to the viewer's left from behind."""
    front, behind = (surface(style(splay=0.0), view, size=64).parts[45] for view in (FRONT, BEHIND))
    assert [PARTS[k] for k in dict.fromkeys(front[front >= 0])] == ["right front leg", "left front leg"]
    assert [PARTS[k] for k in dict.fromkeys(behind[behind >= 0])] == ["left back leg", "right back leg"]


def test_the_mask_is_where_the_picture_is_not_white() -> None:
    chairs = random_styles(4, 0)
    images, masks = render(chairs, np.tile([30.0, 20.0], (4, 1)), size=32)
    assert (images.dtype, images.shape, masks.shape) == (np.uint8, (4, 3, 32, 32), (4, 1, 32, 32))
    white = (images == 255).all(1, keepdims=True)
    assert (masks[white] == 0).all()
    assert (masks[~white] > 0).all()
    assert 0.1 < (masks == 255).mean() < 0.5
    parts = surface(chairs[0], np.array([30.0, 20.0]), size=32).parts
    assert ((masks[0, 0] == 255) <= (parts >= 0)).mean() > 0.99


def test_a_picture_has_the_same_bits_alone_and_among_others() -> None:
    chairs, views = random_styles(11, 3), view_grid()[:11]
    changes = np.linspace(-1, 1, 55).reshape(11, 5)
    together = render(chairs, views, changes, size=32)
    for k in (0, 7, 10):
        alone = render(chairs[k : k + 1], views[k : k + 1], changes[k : k + 1], size=32)
        np.testing.assert_array_equal(alone.images[0], together.images[k])
        np.testing.assert_array_equal(alone.masks[0], together.masks[k])


def test_a_style_depends_on_its_number_and_the_seed_only() -> None:
    np.testing.assert_array_equal(random_styles(3, 1), random_styles(9, 1)[:3])
    assert (random_styles(3, 1) != random_styles(3, 2)).all()
    assert ((random_styles(50, 0) > 0) & (random_styles(50, 0) < 1)).all()


def test_boxes_of_a_sum_of_styles_are_the_sum_of_boxes() -> None:
    """Up to products of two lengths, as the panel's share of a back, which these styles have alike."""
    a, b, c = style(width=0.2), style(height=0.1), style(leg=0.9, arms=0.0)
    np.testing.assert_allclose(boxes_of((a - b + c)[None]), boxes_of(a[None]) - boxes_of(b[None]) + boxes_of(c[None]))


@pytest.mark.parametrize("view", [FRONT, np.array([200.0, 40.0])])
def test_what_a_pixel_shows_is_projected_back_to_that_pixel(view: np.ndarray) -> None:
    chair = random_styles(1, 2)[0]
    seen = surface(chair, view, size=40)
    where = np.argwhere(seen.parts >= 0)
    rows, columns = where.T
    places = seen.places[rows, columns]
    np.testing.assert_allclose(np.abs(places).max(1), 1, atol=1e-5)
    np.testing.assert_allclose(project(chair, view, seen.parts[rows, columns], places, size=40), where, atol=1e-5)


def test_transformations_scale_turn_and_colour() -> None:
    chairs, views = np.tile(STYLE, (4, 1)), np.tile([90.0, 20.0], (4, 1))
    plain, large, turned, cool = np.zeros((4, 5))
    large[0], turned[1], cool[2] = 1.0, 1.0, -1.0
    images, masks = render(chairs, views, np.array([plain, large, turned, cool]), size=64)
    area = masks.sum((1, 2, 3)) / masks[0].sum()
    assert area[1] == pytest.approx(1.15**2, rel=0.03)
    assert area[2] == pytest.approx(1, rel=0.03)
    assert (masks[2] != masks[0]).mean() > 0.05
    np.testing.assert_array_equal(images[3, 1:], images[0, 1:])
    inside = masks[0, 0] == 255
    np.testing.assert_allclose(images[3, 0][inside], 0.65 * images[0, 0][inside], atol=1.5)
