"""The generator of chairs at a tiny size: training, files, morphs, correspondence."""

import json
import pickle
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load

from evofool.errors import ImageError, StoreError
from evofool.explain.chairs.correspondence import carried, nearest_patches, true_correspondence
from evofool.explain.chairs.generator import ChairGenerator, GeneratorLayout
from evofool.explain.chairs.model_file import load_generator, save_generator, shipped_generator
from evofool.explain.chairs.morph import mixed_features, morph, morph_page, squared_error
from evofool.explain.chairs.renderer import Pictures, render, view_grid
from evofool.explain.chairs.styles import random_styles
from evofool.explain.chairs.training import TrainingSettings, principal_components, seen_views, train
from genomes.tensor_file import pack_tensors

LAYOUT = GeneratorLayout(styles=4, size=16, code=3, wide=16, widths=(8, 8))
VIEW = np.array([40.0, 20.0])


@cache
def trained() -> tuple[ChairGenerator, list[float]]:
    return train(LAYOUT, TrainingSettings(steps=60, batch=16, rate=5e-3, variants=1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_generator(trained()[0], path)
    return path


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="wide has to be even, not 15"):
        GeneratorLayout(wide=15)


def test_a_device_is_not_read() -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        load_generator(Path("/dev/zero"))


def test_training_lowers_the_loss_and_gives_the_same_bits_again() -> None:
    generator, losses = trained()
    assert np.mean(losses[-10:]) < 0.6 * losses[0]
    again, same = train(LAYOUT, TrainingSettings(steps=60, batch=16, rate=5e-3, variants=1))
    assert same == losses
    assert torch.equal(generator.codes, again.codes)


def test_training_leaves_torchs_generator_as_it_was() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    train(LAYOUT, TrainingSettings(steps=1, variants=1))
    assert torch.equal(torch.rand(1), wanted)


def test_every_second_azimuth_is_held_out_between_two_that_are_seen() -> None:
    seen = seen_views().reshape(2, 31)
    assert seen.sum() == 32
    for azimuth in np.flatnonzero(~seen[0]):
        assert seen[:, azimuth - 1].all()
        assert seen[:, azimuth + 1].all()


def test_codes_begin_as_principal_components() -> None:
    """Two groups of equal chairs differ along the first component."""
    styles = random_styles(2, 0)[[0, 0, 1, 1]]
    images = render(np.repeat(styles, 2, 0), np.tile([[0.0, 20.0], [90.0, 20.0]], (4, 1)), size=16).images
    codes = principal_components(torch.from_numpy(images), LAYOUT).numpy()
    np.testing.assert_allclose(np.abs(codes[:, 0]), 1, atol=1e-5)
    np.testing.assert_allclose(codes[:, 0], codes[0, 0] * np.array([1, 1, -1, -1]), atol=1e-5)


def test_drawn_pictures_are_those_of_the_network_to_half_a_level() -> None:
    generator = trained()[0]
    views = np.tile(VIEW, (4, 1))
    drawn = generator.draw(generator.features(), views)
    assert isinstance(drawn, Pictures)
    assert (drawn.images.shape, drawn.masks.shape) == ((4, 3, 16, 16), (4, 1, 16, 16))
    image, mask = generator(generator.codes, torch.from_numpy(views).float(), torch.zeros(4, 5))
    np.testing.assert_allclose(drawn.images / 255, image, atol=0.51 / 255)
    np.testing.assert_allclose(drawn.masks / 255, mask, atol=0.51 / 255)


def test_a_generator_read_back_is_the_one_that_was_written(file: Path, tmp_path: Path) -> None:
    generator, read = trained()[0], load_generator(file)
    assert read.layout == LAYOUT
    torch.testing.assert_close(read.state_dict(), generator.state_dict(), rtol=1e-3, atol=1e-4)
    save_generator(read, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_files_that_are_no_generator_are_refused_in_one_sentence(file: Path, tmp_path: Path) -> None:
    good, bad = file.read_bytes(), tmp_path / "bad.safetensors"
    nothing = {"nothing": np.zeros(1, np.float32)}
    head = {"format": "evofool.chairs 1"}
    layout = json.dumps({"styles": 10**9, "size": 16, "code": 3, "wide": 16, "widths": [8, 8], "seed": 0})
    zero = load(good) | {"decoder.code_scale": np.zeros(16, np.float16)}
    small = head | {"layout": json.dumps(asdict(LAYOUT))}
    for data, words in (
        (pack_tensors(zero, small), "is damaged: its decoder.code_scale has values that are not above 0"),
        (good[: len(good) // 2], "is not a whole safetensors file"),
        (pickle.dumps([1, 2, 3]), "is a pickle or a zip, which evofool does not unpack"),
        (pack_tensors(nothing, {}), 'is not a generator of chairs: its format is "None"'),
        (pack_tensors(nothing, head), "is damaged: its layout cannot be read"),
        (pack_tensors(nothing, head | {"layout": layout}), "is damaged: its layout cannot be read"),
        (pack_tensors(nothing, head | {"layout": layout.replace("1000000000", "4")}), "is damaged: it has no codes"),
    ):
        bad.write_bytes(data)
        with pytest.raises(StoreError, match=words) as caught:
            load_generator(bad)
        assert str(bad) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="cannot be read"):
        load_generator(tmp_path / "missing")


def test_a_morph_begins_and_ends_with_its_chairs() -> None:
    generator = trained()[0]
    frames = morph(generator, 1, 2, VIEW, frames=5)
    ends = generator.draw(generator.features()[[1, 2]], np.tile(VIEW, (2, 1))).images
    np.testing.assert_allclose(frames[[0, -1]].astype(int), ends, atol=1)
    assert squared_error(frames[1], ends[0]) < squared_error(frames[3], ends[0])
    for first, last in ((-1, 0), (0, 4)):
        with pytest.raises(ImageError, match=r'there is no chair "(-1|4)": they are numbered 0 to 3'):
            morph(generator, first, last, VIEW)


def test_mixed_features_are_weighted_sums() -> None:
    generator = trained()[0]
    features = generator.features()
    mixed = mixed_features(generator, np.array([[1.0, -1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(mixed[0], features[0] - features[1] + features[2], rtol=1e-5)


def test_a_page_has_the_morph_drawn_and_rendered_and_an_animation(tmp_path: Path) -> None:
    output = morph_page(trained()[0], 0, 3, tmp_path / "page")
    page = output.page.read_text()
    assert "Chair 0 becomes chair 3" in page
    assert len(output.pictures) == page.count("<img")
    assert all(picture.is_file() for picture in output.pictures)
    with Image.open(output.animation) as animation:
        assert animation.n_frames == 48
        assert animation.size == (64, 64)
    assert output.error > 0
    assert output.fade > 0


def test_points_are_carried_along_frames() -> None:
    """A textured square that moves by 3 pixels down and 2 to the right, in three steps."""
    rng = np.random.default_rng(0)
    square = np.kron(rng.integers(0, 200, (4, 4)), np.ones((4, 4), int)).astype(np.uint8)
    frames = np.full((4, 3, 40, 40), 255, np.uint8)
    for frame, (down, right) in zip(frames, ((0, 0), (1, 1), (2, 1), (3, 2)), strict=True):
        frame[:, 10 + down : 26 + down, 12 + right : 28 + right] = square
    points = np.array([[14, 16], [20, 22], [18, 20]])
    there = points + np.array([3, 2])
    assert np.abs(carried(frames, points) - there).max() < 0.5
    np.testing.assert_array_equal(nearest_patches(frames[0], frames[-1], points, frames[-1, 0] < 255), there)


def test_a_chair_corresponds_to_itself_and_to_a_wider_one() -> None:
    style = np.full(12, 0.5)
    wide = style.copy()
    wide[0] = 1.0
    front = np.array([0.0, 20.0])
    pixels, where = true_correspondence(style, style, VIEW, 40)
    np.testing.assert_allclose(where, pixels, atol=1e-4)
    pixels, where = true_correspondence(style, wide, front, 40)
    assert len(pixels) > 50
    away = pixels[:, 1] - 19.5
    assert (np.sign(where[:, 1] - pixels[:, 1]) == np.sign(away))[np.abs(away) > 2].all()
    np.testing.assert_allclose(where[:, 0], pixels[:, 0], atol=1e-4)


def test_the_shipped_generator_draws_chairs_that_it_was_trained_on() -> None:
    """Held-out views of ten chairs are nearer to the rendered ones than the mean of the two nearest seen views."""
    generator, count = shipped_generator(), 10
    views = view_grid()[[4, 5, 6]]
    styles = random_styles(count, generator.layout.seed)
    true = [render(styles, np.tile(view, (count, 1)), size=generator.layout.size).images for view in views]
    drawn = generator.draw(generator.features()[:count], np.tile(views[1], (count, 1))).images
    between = (true[0].astype(np.float32) + true[2]) / 2
    assert squared_error(drawn, true[1]).mean() < 0.8 * squared_error(between, true[1]).mean()
