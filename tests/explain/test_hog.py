"""HOG against its definition written out, its inverses, and a detector on it."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from evofool.errors import ImageError
from evofool.explain.hog import CELL, CHANNELS, ORIENTATIONS, glyphs, grey, hog, hog_of
from evofool.explain.hog_detector import Detection, detect, object_features, score, train_detector
from evofool.explain.hog_image import inverse, to_cells
from evofool.explain.hog_inversion import METHODS, direct, invert, invert_windows, likeness
from evofool.explain.hog_model import SIDE, WINDOW, LearningSettings, learn, sampled_windows, windows_of
from evofool.explain.parts_hog import hog_part
from evofool.targets import Target
from tests.explain.hog_samples import picture, small_model


def written_out(x: np.ndarray) -> np.ndarray:
    """HOG of grey (H, W) in [0, 1], pixel by pixel and cell by cell. Felzenszwalb 2010, directions shared linearly."""
    x = 255.0 * x.astype(np.float64)
    rows, columns, both = x.shape[0] // CELL, x.shape[1] // CELL, 2 * ORIENTATIONS
    cells = np.zeros((rows, columns, both))
    for i, j in product(range(rows * CELL), range(columns * CELL)):
        across = x[i, j + 1] - x[i, j - 1] if 0 < j < columns * CELL - 1 else 0.0
        down = x[i + 1, j] - x[i - 1, j] if 0 < i < rows * CELL - 1 else 0.0
        direction = math.atan2(down, across) / (2 * math.pi) * both % both
        below = math.floor(direction)
        for r, c in product(range(rows), range(columns)):
            near = [1 - abs(p + 0.5 - (q + 0.5) * CELL) / CELL for p, q in ((i, r), (j, c))]
            if min(near) > 0:
                share = math.hypot(across, down) * near[0] * near[1]
                cells[r, c, below % both] += share * (below + 1 - direction)
                cells[r, c, (below + 1) % both] += share * (direction - below)
    edges = cells[..., :ORIENTATIONS] + cells[..., ORIENTATIONS:]
    energy = (edges**2).sum(2)
    found = np.zeros((rows, columns, CHANNELS))
    for r, c in product(range(rows), range(columns)):
        for k, (up, left) in enumerate(product((-1, 0), repeat=2)):
            block = [
                energy[min(max(r + up + a, 0), rows - 1), min(max(c + left + b, 0), columns - 1)]
                for a, b in product((0, 1), repeat=2)
            ]
            norm = math.sqrt(sum(block) + 1e-4)
            signed, unsigned = np.minimum(cells[r, c] / norm, 0.2), np.minimum(edges[r, c] / norm, 0.2)
            found[r, c, : both + ORIENTATIONS] += 0.5 * np.concatenate([signed, unsigned])
            found[r, c, both + ORIENTATIONS + k] = 0.2357 * signed.sum()
    return found


def test_features_are_those_of_the_definition_written_out() -> None:
    x = np.random.default_rng(0).random((27, 35))
    found = hog(torch.from_numpy(x)[None])[0].numpy()
    assert found.shape == (3, 4, CHANNELS)
    np.testing.assert_allclose(found, written_out(x), atol=2e-4)


def test_a_mirrored_image_has_mirrored_features() -> None:
    image = picture(0)
    signed = (ORIENTATIONS - np.arange(2 * ORIENTATIONS)) % (2 * ORIENTATIONS)
    unsigned = 2 * ORIENTATIONS + (ORIENTATIONS - np.arange(ORIENTATIONS)) % ORIENTATIONS
    order = [*signed, *unsigned, *(3 * ORIENTATIONS + np.array([1, 0, 3, 2]))]
    np.testing.assert_allclose(hog_of(image[:, :, ::-1]), hog_of(image)[:, ::-1, order], atol=1e-5)


def test_features_do_not_depend_on_brightness_and_contrast() -> None:
    x = torch.from_numpy(grey(picture(1)))[None]
    torch.testing.assert_close(hog(0.3 + 0.5 * x), hog(x), atol=1e-4, rtol=0)


def test_the_gradient_is_that_of_small_differences_and_finite_where_nothing_is() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.random((1, 24, 24))).requires_grad_()
    weights, way = torch.from_numpy(rng.random((3, 3, CHANNELS))), torch.from_numpy(rng.standard_normal((1, 24, 24)))
    (slope,) = torch.autograd.grad((hog(x) * weights).sum(), x)
    ahead, behind = ((hog(x + step * way) * weights).sum() for step in (1e-7, -1e-7))
    assert (slope * way).sum().item() == pytest.approx(((ahead - behind) / 2e-7).item(), rel=1e-3)
    flat = torch.full((1, 16, 16), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(hog(flat).sum(), flat)
    assert slope.isfinite().all()


def test_strokes_lie_along_edges() -> None:
    image = np.zeros((1, 40, 40), np.uint8)
    image[:, :, 20:] = 255  # an upright edge
    drawn = glyphs(hog_of(image))[0].astype(int)
    middle = drawn[30:45, 30:45]
    assert middle[:, 7].min() > middle[7, 0] + 100


def test_windows_are_cut_where_their_features_are() -> None:
    image = picture(2)
    features, pixels = windows_of(image)
    columns = image.shape[2] // CELL - WINDOW + 1
    row, column = 2, 3
    np.testing.assert_array_equal(
        pixels[row * columns + column].reshape(SIDE, SIDE), grey(image)[16 : 16 + SIDE, 24 : 24 + SIDE]
    )
    np.testing.assert_array_equal(
        features[row * columns + column].reshape(WINDOW, WINDOW, CHANNELS), hog_of(image)[2:7, 3:8]
    )


def test_all_methods_restore_windows_that_they_have_not_seen() -> None:
    windows, patches = sampled_windows([picture(seed) for seed in range(100, 106)], 12, 0)
    found = {}
    for method in METHODS:
        some = slice(0, None, 4 if method == "direct" else 1)  # direct takes most of the time
        found[method] = likeness(invert_windows(windows[some], method, small_model()), patches[some]).typical()
    ncc = {method: typical[0] for method, typical in found.items() if typical}
    assert ncc["ridge"] > 0.7
    assert ncc["paired"] > 0.5
    assert ncc["elda"] > 0.4
    distances = {method: typical[2] for method, typical in found.items() if typical}
    assert distances["direct"] < 0.8 * min(distances[method] for method in METHODS if method != "direct")


def test_learning_again_gives_the_same_bits_and_another_seed_others() -> None:
    images, settings = [picture(seed) for seed in range(8)], LearningSettings(windows=60, atoms=8, rank=8)
    first, again = learn(images, settings), learn(images, settings)
    other = learn(images, LearningSettings(windows=60, atoms=8, rank=8, seed=1))
    np.testing.assert_array_equal(first.atoms_grey, again.atoms_grey)
    np.testing.assert_array_equal(first.ridge_in, again.ridge_in)
    assert not np.array_equal(first.atoms_grey, other.atoms_grey)


def test_direct_inversion_depends_on_its_seed_alone() -> None:
    features = hog_of(picture(3, (48, 48)))[None]
    np.testing.assert_array_equal(direct(features, 0, steps=3), direct(features, 0, steps=3))
    assert not np.array_equal(direct(features, 0, steps=3), direct(features, 1, steps=3))


def test_an_image_is_its_own_perfect_inverse_at_any_contrast() -> None:
    _, patches = sampled_windows([picture(4)], 5, 0)
    ncc, sharpness, distance = likeness(3 * patches + 7, patches)
    np.testing.assert_allclose(ncc, 1, atol=1e-5)
    np.testing.assert_allclose(sharpness, 1, atol=1e-4)
    np.testing.assert_allclose(distance, 0, atol=1e-3)
    ncc, _, _ = likeness(-patches, patches)
    np.testing.assert_allclose(ncc, -1, atol=1e-5)


def test_an_image_s_inverse_has_its_size_mean_and_contrast() -> None:
    image = picture(200)
    found = inverse(image, "ridge", small_model())
    assert found.picture.shape == image.shape
    assert abs(found.picture.mean() - image.mean()) < 5
    assert np.corrcoef(found.picture.ravel(), image.ravel())[0, 1] > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_an_image_without_edges_has_a_flat_inverse(method: str) -> None:
    assert np.isfinite(invert(np.zeros((7, 7, CHANNELS), np.float32), method, small_model())).all()
    flat = inverse(np.full((1, 56, 56), 90, np.uint8), method, small_model())
    assert np.abs(flat.picture.astype(int) - 90).max() <= 1
    assert flat.likeness.typical() is None


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((28, 28), None, (56, 56)),
        ((224, 224), None, (224, 224)),
        ((427, 640), None, (216, 320)),
        ((427, 640), 640, (424, 640)),
        ((10, 900), None, (56, 5040)),
    ],
)
def test_images_are_brought_to_whole_cells(size: tuple[int, int], longest: int | None, expected: tuple[int, int]) -> None:
    assert to_cells(np.zeros((3, *size), np.uint8), longest).shape == (3, *expected)


def test_a_grid_that_is_smaller_than_a_window_is_refused() -> None:
    with pytest.raises(ImageError, match="6 x 4 cells are too few: a window has 5 x 5"):
        invert(np.zeros((4, 6, CHANNELS), np.float32), "paired", small_model())


# -- the detector


def disc(image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """A copy of the image with a ring in a square."""
    y, x = np.mgrid[: image.shape[1], : image.shape[2]]
    away = np.hypot(y - top - side / 2, x - left - side / 2)
    return np.where((away < 0.45 * side) & (away > 0.3 * side), 255, image).astype(np.uint8)


def test_a_detector_finds_the_thing_that_it_was_learned_from_and_little_else() -> None:
    things = [disc(picture(seed, (80, 80)), 4, 4, 72) for seed in range(12)]
    others = [picture(seed, (96, 128)) for seed in range(100, 112)]
    detector = train_detector(things, others)
    assert sum(score(detector, object_features(disc(picture(s, (80, 80)), 4, 4, 72))) > 0 for s in range(20, 26)) >= 5
    scene = disc(picture(300, (96, 128)), 12, 44, 72)
    best = max(detect(detector, scene, above=-9.0), key=lambda found: found.score)
    assert abs(best.left + best.side / 2 - 80) < 10
    assert abs(best.top + best.side / 2 - 48) < 10
    assert best.score > max((f.score for s in range(400, 404) for f in detect(detector, picture(s, (96, 128)))), default=0)


def test_detections_overlap_little_and_come_by_score() -> None:
    things = [disc(picture(seed, (80, 80)), 4, 4, 72) for seed in range(8)]
    detector = train_detector(things, [picture(seed, (96, 96)) for seed in range(100, 108)])
    found: list[Detection] = detect(detector, picture(7, (140, 160)), 5, above=-9.0)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert {one.photograph for one in found} == {5}
    for k, one in enumerate(found):
        for other in found[:k]:
            wide = min(one.left, other.left) + one.side - max(one.left, other.left)
            high = min(one.top, other.top) + one.side - max(one.top, other.top)
            assert max(wide, 0) * max(high, 0) < 0.5 * one.side**2 or one.side != other.side


def test_too_few_pictures_are_refused() -> None:
    few, many = [picture(s) for s in range(3)], [picture(s) for s in range(8)]
    with pytest.raises(ImageError, match=r"3 pictures of the thing are too few; .* at least 8"):
        train_detector(few, many)
    with pytest.raises(ImageError, match=r"3 photographs without it are too few; .* at least 8"):
        train_detector(many, few)
    with pytest.raises(ImageError, match="no photograph without it has a short side of 64 pixels or more"):
        train_detector(many, [picture(s, (60, 200)) for s in range(8)])


def test_an_image_that_would_have_too_many_pixels_is_refused() -> None:
    assert to_cells(np.zeros((1, 100, 100), np.uint8), 2000).shape == (1, 2000, 2000)
    with pytest.raises(ImageError, match=r"20000 x 1 pixels and would have 1120000 x 56 .* crop it first"):
        to_cells(np.zeros((1, 1, 20_000), np.uint8))


# -- the part of an explanation


def test_the_part_of_an_explanation_says_which_class_each_inverse_has(lenet: Target) -> None:
    y, x = np.mgrid[:28, :28]
    ring = (255 * (np.abs(np.hypot(y - 14, x - 14) - 8) < 1.8)).astype(np.uint8)[None]
    before = lenet.queries
    section = hog_part(lenet, ring).section
    assert lenet.queries - before == 2
    assert "A cell has 4 pixels a side." in section.text[0]
    assert "lenet classifies the inverse by a paired dictionary as 0: log-odds" in section.text[1]
    assert [row[0] for row in section.tables[0].rows] == ["paired", "ridge"]
    assert [picture.title for picture in section.pictures] == ["HOG", "Inverse, paired", "Inverse, ridge"]
