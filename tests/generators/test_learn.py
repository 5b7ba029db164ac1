"""Decoders learned from images: the same bits again, nearer to the images than their mean, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evofool.errors import ImageError, RecipeError
from evofool.generators import decoder_file
from evofool.generators.decoder_file import read_decoder
from evofool.generators.learn import Lesson, digits_lesson, learn, pictures_lesson
from evofool.generators.vae import Augment, Training, train
from evofool.images import save_png
from evofool.machine import torch_threads
from genomes import Key, Latent
from genomes.upconv import Layout, decoder_of_bytes


def discs(count: int, size: int = 12) -> torch.Tensor:
    """Light discs of two coordinates and a radius, uint8 (count, 1, size, size)."""
    draws = torch.rand((count, 3), generator=torch.Generator().manual_seed(0))
    y, x = ((3 + (size - 6) * draws[:, k])[:, None, None] for k in range(2))
    r = (1.5 + 1.5 * draws[:, 2])[:, None, None]
    grid = torch.arange(size) + 0.5
    far = ((grid[:, None] - y) ** 2 + (grid[None, :] - x) ** 2).sqrt()
    return (255 * (r - far).clamp(0, 1)).round().to(torch.uint8)[:, None]


def test_training_has_the_same_bits_again_and_its_images_are_like_the_learned_ones() -> None:
    images, layout = discs(160), Layout((4,), (1, 12, 12), (8, 8))
    how = Training(epochs=40, batch=20, rate=1e-2)
    with torch_threads(1):
        errors: list[float] = []
        decoder, error, _ = train(images, layout, how, on_epoch=lambda epoch, value: errors.append(value))
        pair = [train(images, layout, Training(epochs=2, batch=20))[0].state_dict() for _ in range(2)]
    assert (len(errors), errors[-1]) == (40, error)
    assert error < 0.6 * errors[0]
    assert all(torch.equal(a, b) for a, b in zip(*(one.values() for one in pair), strict=True))
    draws = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        drawn = decoder(torch.randn((60, 4), generator=draws))
    images = images.float() / 255
    mean = images.mean(0)
    nearest = torch.cdist(drawn.flatten(1), images.flatten(1)).amin(1)
    assert nearest.median() < 0.5 * torch.cdist(mean.flatten()[None], images.flatten(1)).median()
    assert drawn.std(0).mean() > 0.3 * images.std(0).mean(), "different codes draw different images"


def test_a_folder_of_pictures_becomes_a_file_that_an_encoding_takes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(50):
        save_png(rng.integers(0, 256, (3, 20 + k, 31), np.uint8), tmp_path / f"{k}.png")
    (tmp_path / "damaged.png").write_bytes(b"no")
    Image.new("I;16", (20, 20)).save(tmp_path / "deep.png")
    lesson = pictures_lesson(tmp_path, size=16, code=6, epochs=1)
    assert lesson.images.shape == (50, 3, 18, 18)
    assert len(lesson.skipped) == 2
    assert lesson.skipped[1].count("deep.png") == 1
    with torch_threads(1):
        data, _ = learn(lesson)
        elsewhere = tmp_path.rename(tmp_path.with_name("renamed"))
        assert learn(pictures_lesson(elsewhere, size=16, code=6, epochs=1)).file == data
        elsewhere.rename(tmp_path)
    encoding = Latent(data, 3, 24, 24)
    assert encoding.render(encoding.random(2, Key(0, 0))).shape == (2, 3, 24, 24)
    about = decoder_of_bytes(data)[1]
    assert about["images"] == "50"
    assert tmp_path.name not in str(about)
    assert pictures_lesson(tmp_path, size=16, channels=1).layout.image == (1, 16, 16)
    (tmp_path / "0.png").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"49 of 52 pictures can be read, .* at least 50; .*0\.png cannot be read"):
        pictures_lesson(tmp_path)
    for name in ("damaged", "deep"):
        (tmp_path / f"{name}.png").unlink()
    for k in range(1, 50):
        (tmp_path / f"{k}.png").unlink()
    with pytest.raises(ImageError, match="has 1 picture, and a decoder is learned from at least 50"):
        pictures_lesson(tmp_path)
    with pytest.raises(ImageError, match="is not a folder of pictures"):
        pictures_lesson(tmp_path / "0.png")


def test_an_interrupted_training_keeps_the_last_whole_epoch() -> None:
    layout, three = Layout((4,), (1, 12, 12), (8, 8)), Training(epochs=3, batch=20)

    def interrupt(at: int) -> Augment:
        left = iter(range(at))

        def augment(images: torch.Tensor, _: torch.Generator) -> torch.Tensor:
            if next(left, None) == at - 1:
                raise KeyboardInterrupt
            return images

        return augment

    with torch_threads(1):
        early, late = (train(discs(60), layout, three, interrupt(at)) for at in (4, 6))  # a batch of the second epoch each
        with pytest.raises(KeyboardInterrupt):
            train(discs(60), layout, three, interrupt(2))
    assert early.epochs == late.epochs == 1
    weights = (one.decoder.state_dict().values() for one in (early, late))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    file, epochs = learn(Lesson("", discs(60).numpy(), layout, three, interrupt(4)))
    assert epochs == 1
    assert ", 1 of 3 epochs," in decoder_of_bytes(file)[1]["training"]


def test_the_digits_lesson_has_no_held_out_digit() -> None:
    from evofool.targets.digits import held_out

    held = {image.tobytes() for image in held_out()[0]}
    lesson = digits_lesson()
    assert len(lesson.images) == 2500
    assert not held & {image.tobytes() for image in lesson.images}


def test_the_shipped_decoder_draws_digits_and_says_what_it_was_trained_on() -> None:
    data = read_decoder("digits")
    assert len(data) < 500_000
    assert decoder_of_bytes(data)[1]["images"] == "2500"
    encoding = Latent(data)
    images = encoding.render(encoding.random(20, Key(0, 0)))
    assert images.max() > 200
    assert np.median(images) == 0


def test_a_decoder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (str(tmp_path), str(tmp_path / "none"), "a\0b", "/dev/zero"):
        with pytest.raises(RecipeError, match=r"encoding\.decoder: .* cannot be read .*; it has to be digits, or a file"):
            read_decoder(name)
    monkeypatch.setattr(decoder_file, "MOST_BYTES", 3)
    with pytest.raises(RecipeError, match="are the most, as a run has a copy of it"):
        read_decoder("digits")
