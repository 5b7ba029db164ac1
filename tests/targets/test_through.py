"""through= scores an image by what pipelines deliver of it, to the bit as if it had been saved, sent and read there."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evofool.errors import TargetError, UnansweredError
from evofool.images import from_pil, to_pil
from evofool.scores import confidence, log_odds
from evofool.targets import Preprocessing, Target, target
from evofool.targets.delivery import deliver
from evofool.targets.guarded import DetectorRule, guarded
from evofool.targets.photos import drawings, patterns
from evofool.targets.pipelines import Shifted, pipelines
from evofool.targets.remote.serve import serving
from evofool.targets.through import LEAST, MEAN, Through
from evofool.targets.validation import validate

GREY, RGB = (1, 28, 28), (3, 24, 32)


def through(text: str, by: str = MEAN) -> Through:
    return Through(pipelines(text, "test"), by)


def one(text: str, images: np.ndarray) -> np.ndarray:
    (pipeline,) = pipelines(text, "test")
    return pipeline(images)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(confidence(log_odds(logits)))


# --- what pipelines deliver


@pytest.mark.parametrize("shape", [GREY, RGB])
@pytest.mark.parametrize(("step", "name"), [("jpeg:40", "a.jpg"), ("webp:40", "a.webp")])
def test_a_codec_delivers_what_a_file_does(step: str, name: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    images = drawings(shape, 3)
    for image, delivered in zip(images, one(step, images), strict=True):
        to_pil(image).save(tmp_path / name, quality=40)
        with Image.open(tmp_path / name) as read:
            assert np.array_equal(delivered, from_pil(read.convert("L" if shape[0] == 1 else "RGB")))
    assert not np.array_equal(images, one(step, images))


def test_steps_follow_each_other_and_the_size_comes_back_at_the_end() -> None:
    images = drawings((3, 24, 24), 2)
    for image, delivered in zip(images, one("resize:30:bicubic+jpeg:75+crop:24", images), strict=True):
        file = io.BytesIO()
        to_pil(image).resize((30, 30), Image.Resampling.BICUBIC).save(file, "JPEG", quality=75)
        assert np.array_equal(delivered, from_pil(Image.open(file).crop((3, 3, 27, 27))))
    for image, delivered in zip(images, one("resize:10:lanczos", images), strict=True):
        small = to_pil(image).resize((10, 10), Image.Resampling.LANCZOS)
        assert np.array_equal(delivered, from_pil(small.resize((24, 24), Image.Resampling.LANCZOS)))
    assert np.array_equal(one("crop:12", images)[0], from_pil(to_pil(images[0]).crop((6, 6, 18, 18)).resize((24, 24), 2)))


def test_the_longer_side_is_resized_in_proportion() -> None:
    image = drawings(RGB, 1)
    small = to_pil(image[0]).resize((16, 12), Image.Resampling.BILINEAR)
    assert np.array_equal(one("resize:12", image)[0], from_pil(small.resize((32, 24), Image.Resampling.BILINEAR)))


def test_a_shift_repeats_the_edge() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    assert one("shift:1:0", image)[0, 0].tolist() == [[0, 0, 1], [3, 3, 4], [6, 6, 7]]
    assert one("shift:-1", image)[0, 0].tolist() == [[4, 5, 5], [7, 8, 8], [7, 8, 8]]
    assert Shifted(2, 2) in pipelines("shift:2", "")[0].steps


def test_unchanged_images_are_among_them_only_if_they_are_listed() -> None:
    images = drawings(RGB, 3)
    delivered = through("same,jpeg:75").images(images)
    assert np.array_equal(delivered[::2], images)
    assert np.array_equal(delivered[1::2], one("jpeg:75", images))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpg:75", 'through has "jpg:75"; there are jpeg:QUALITY.*did you mean "jpeg"'),
        ("jpeg", "it has to be jpeg:QUALITY, from 1 to 100"),
        ("jpeg:0", "from 1 to 100"),
        ("jpeg:75,", 'through has ""'),
        ("same+jpeg:75", 'through has "same"'),
        ("resize:12:cubic", "nearest, bilinear, bicubic, lanczos"),
        ("shift:1:2:3", "shift:RIGHT:DOWN"),
        ("shift:--1", "shift:RIGHT:DOWN"),
        ("jpeg:75,jpeg:075", "jpeg:75 twice"),
        ("shift:2, shift:2:2", "shift:2 twice"),
        ("resize:9:bilinear + crop:9,resize:9+crop:9", r"resize:9\+crop:9 twice"),
        (",".join(f"shift:{k}" for k in range(65)), "at most 64"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target(f"lenet?through={text}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("through=crop:29", "lenet.*crop:29 does not fit into 28 x 28"),
        ("through=shift:28", "moves all of 28 x 28 pixels out"),
        ("through=jpeg:75&through_by=worst", "it has to be mean or least"),
        ("through_by=least", "which is not given"),
    ],
)
def test_what_does_not_fit_the_target_is_refused(options: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target(f"lenet?{options}")


@pytest.mark.parametrize(
    ("size", "text", "message"),
    [
        ((48, 200), "resize:4000", "resize:4000 makes 16,667 x 4,000 pixels of 200 x 48; 16,384 are the most"),
        ((1, 16_384), "resize:4096", "resize:4096 makes 67,108,864 x 4,096 pixels of 16384 x 1"),
        ((1, 65_501), "jpeg:75", "jpeg:75 cannot save 65,501 x 1 pixels; a side has at most 65,500"),
        ((1, 16_384), "webp:75", "webp:75 cannot save 16,384 x 1 pixels; a side has at most 16,383"),
    ],
)
def test_steps_refuse_pictures_that_are_too_long(size: tuple[int, int], text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        one(text, np.zeros((1, 3, *size), np.uint8))


def test_how_a_step_is_written_does_not_change_the_target() -> None:
    first, second = (target(f"lenet?through={text}") for text in ("jpeg:75+shift:2", "jpeg:075 + shift:2:2"))
    assert first.fingerprint() == second.fingerprint()


# --- answers


@pytest.mark.parametrize("crops", [1, 5])
@pytest.mark.parametrize("kind", ["module", "callable"])
def test_the_answer_is_the_one_to_what_is_delivered(kind: str, crops: int) -> None:
    fed = Preprocessing(crops=crops, crop=(20, 20) if crops > 1 else None)

    def made() -> Target:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(3 * (24 if crops == 1 else 20) ** 2, 4))
        found = Target.from_module(module, None, (3, 24, 24), fed)
        if kind == "callable":
            found = Target.probed("box", found.raw, None, (3, 24, 24), fed, "logits", {})
        return found

    plain, found, images = made(), made(), drawings((3, 24, 24), 3)
    deliver(found, through("jpeg:30"))
    assert np.array_equal(found.logits(images), plain.logits(one("jpeg:30", images)))
    assert np.array_equal(found.logits(images[:1], 3)[0], plain.logits(one("jpeg:30", images))[0])
    deliver(both := made(), through("same,shift:3"))
    p = (softmax(plain.logits(images)) + softmax(plain.logits(one("shift:3", images)))) / 2
    np.testing.assert_allclose(softmax(both.logits(images)), p, rtol=1e-5)
    assert (found.queries, both.queries, both.queries_per_image) == (4, 6, 2)
    assert len({target.fingerprint() for target in (plain, found, both)}) == 3
    assert "Pillow" in found.details["backend"]
    assert "libjpeg" in found.details["backend"]


def test_with_least_a_confidence_above_one_half_is_the_least_of_all_pipelines() -> None:
    draws = np.random.default_rng(0)
    logits = (draws.normal(size=(400, 1, 5)) * 4 + draws.normal(size=(400, 3, 5)) * 2).astype(np.float32)
    answer = through("same,jpeg:75,shift:1", LEAST).combined(torch.from_numpy(logits.reshape(-1, 5))).numpy()
    p, each = softmax(answer), softmax(logits.reshape(-1, 5)).reshape(400, 3, 5)
    least, mean = each.min(1), each.mean(1)
    np.testing.assert_array_equal(answer.argmax(1), least.argmax(1))
    sure = p > 0.5
    assert 50 < sure.sum() < 350
    np.testing.assert_allclose(p[sure], least[sure], rtol=1e-4)
    # The others keep the proportions of their means, where none is held down.
    for k in np.flatnonzero(p.max(1) > 0.5):
        rest = np.arange(5) != p[k].argmax()
        np.testing.assert_allclose(p[k][rest] / mean[k][rest], p[k][rest].sum() / mean[k][rest].sum(), rtol=1e-3)


def test_with_least_pipelines_that_disagree_leave_no_confident_class() -> None:
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0]])
    answer = through("same,jpeg:75", LEAST).combined(logits).numpy()
    assert softmax(answer).max() < 0.34
    assert softmax(through("same,jpeg:75").combined(logits).numpy())[0, :2].min() > 0.49


def test_a_target_passes_its_validation_and_can_be_combined() -> None:
    assert validate(target("lenet?through=jpeg:75,shift:1&through_by=least")).faults == ()
    found, images = target("lenet?through=same,shift:1&views=4&average=2"), patterns(GREY, 2)
    assert found.queries_per_image == 16
    plain = target("lenet?through=same,shift:1")
    assert np.array_equal(found.logits(images).argmax(1), plain.logits(images).argmax(1))


# --- gradients


def test_gradients_are_those_of_what_is_delivered_and_pass_the_codec_unchanged() -> None:
    plain, image = target("lenet"), drawings(GREY, 2)[1:]

    def gradient(found: Target, pixels: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(pixels).float().div(255).requires_grad_()
        logits = found.logits_float(x)
        logits[0, 3].backward()
        if found is not plain:
            np.testing.assert_allclose(logits.detach().numpy(), found.logits(pixels), rtol=1e-5)
        return x.grad[0, 0]

    assert torch.equal(gradient(target("lenet?through=jpeg:20"), image), gradient(plain, one("jpeg:20", image)))
    shifted = gradient(plain, one("shift:2:0", image))
    assert torch.allclose(gradient(target("lenet?through=shift:2:0"), image)[:, 1:-2], shifted[:, 3:])
    assert gradient(target("lenet?through=resize:20+webp:50+crop:18,resize:40:lanczos"), image).abs().sum() > 0


# --- other kinds of targets


def test_an_image_that_is_not_answered_keeps_its_row() -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        raise UnansweredError("no answer", 5)

    found = Target("box", ["a", "b"], GREY, forward, {})
    deliver(found, through("same,shift:1"))
    with pytest.raises(UnansweredError) as caught:
        found.logits(patterns(GREY, 4))
    assert caught.value.row == 2


def test_a_server_is_sent_what_is_delivered_and_its_answers_are_kept(tmp_path: Path) -> None:
    plain, images = target("lenet"), drawings(GREY, 3)
    with serving(plain) as url:
        found = target(f"{url}?through=jpeg:50,shift:1", tmp_path)
        before = found.queries, found.requests
        first = found.logits(images)
        np.testing.assert_allclose(first, target("lenet?through=jpeg:50,shift:1").logits(images), atol=1e-4)
        assert found.queries == before[0] + 6
        assert np.array_equal(target(f"{url}?through=jpeg:50,shift:1", tmp_path).logits(images), first)
        sent = found.requests
        with pytest.raises(TargetError, match="through has"):
            target(f"{url}?through=jpeg:x", tmp_path)
        assert found.requests == sent


def test_a_guard_takes_the_option_and_its_base_does_not() -> None:
    with pytest.raises(TargetError, match="no options but through and through_by"):
        target("guarded:x.safetensors?size=3&through=jpeg:75")
    with pytest.raises(TargetError, match=r"write guarded:FILE\?through="):
        guarded(target("lenet?through=jpeg:75"), DetectorRule("msp", 1.0, 0.5, 1.0, 1.0), "guard")
