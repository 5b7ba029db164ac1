"""The published methods: what they cost, that their scores are their images', and how result are put together."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.loop import AscentResult, Improvement
from evofool.attacks import gradient, visualisation
from evofool.attacks.class_ascent import best_restarts, mean_image, zero_image
from evofool.attacks.visualisation import _merged_octaves
from evofool.errors import RecipeError, TargetError
from evofool.scores import log_odds, margin
from evofool.targets import Preprocessing, Target
from tests.perf.class_pictures import neighbour_correlation

CLASSES, SIDE = 5, 8
METHODS: dict[str, Callable[..., AscentResult]] = {
    "nguyen": gradient.nguyen,
    "simonyan": gradient.simonyan,
    "erhan": gradient.erhan,
    "inceptionism": visualisation.inceptionism,
    "fourier": visualisation.fourier,
    "maco": visualisation.maco,
    "apgd": gradient.apgd,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    *(("nguyen", {"setting": setting}) for setting in ("l2", "blur", "sparse")),
    *(("erhan", {"restarts": restarts}) for restarts in (1, 4)),
    *(("inceptionism", {"octaves": octaves}) for octaves in (1, 3)),
    ("fourier", {"transformed": False}),
    *(("apgd", {"restarts": restarts}) for restarts in (2, 5)),
]
each_method = pytest.mark.parametrize("method", list(METHODS))
each_case = pytest.mark.parametrize(("method", "settings"), CASES, ids=lambda value: str(value))


class Tiny(nn.Module):
    """A convolution and a linear layer; it returns NaN for an image whose first pixel is above `broken`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * SIDE * SIDE, CLASSES)
        self.broken = 2.0
        with torch.no_grad():
            self.last.weight *= 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.last(torch.relu(self.conv(x)).flatten(1))
        return torch.where(x[:, 0, 0, :1] > self.broken, torch.nan, z)


def tiny(**options: Any) -> Target:
    return Target.from_module(Tiny(), list("abcde"), (1, SIDE, SIDE), **options)


def item(scores: list[float], forwards: list[int], rises: list[tuple[int, int, int, float]], **more: Any) -> AscentResult:
    """AscentResult of len(scores) items; the k-th image is filled with k + 1, and steps are as many as backward passes."""
    n = len(scores)
    images = np.broadcast_to(np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None], (n, 1, 2, 2)).copy()
    passes = np.array(forwards)
    found = [Improvement(i, f, b, s, s / 2) for i, f, b, s in rises]
    return AscentResult(
        images, torch.arange(n).float()[:, None], np.array(scores), passes - 1, passes, passes - 1, found, **more
    )


# --- passes


@each_case
def test_no_class_takes_more_forward_passes_than_its_budget_and_all_are_counted(
    method: str, settings: dict[str, Any]
) -> None:
    target = tiny()
    for budget in (15, 18, 23):
        before = target.queries
        try:
            result = METHODS[method](target, [1, 3], budget=budget, **settings)
        except RecipeError:
            continue
        assert (result.forwards <= budget).all()
        assert (result.forwards > budget / 2).all()
        assert (result.backwards < result.forwards).all()
        assert target.queries - before == result.forwards.sum()


@each_case
def test_the_error_for_a_budget_names_the_smallest_one(method: str, settings: dict[str, Any]) -> None:
    target = tiny()
    with pytest.raises(RecipeError, match=r"budget of 1 forward passes is too small.*; it has to be at least \d+") as error:
        METHODS[method](target, [1], budget=1, **settings)
    least = int(re.search(r"at least (\d+)", str(error.value))[1])  # type: ignore[index]
    with pytest.raises(RecipeError, match="too small"):
        METHODS[method](target, [1], budget=least - 1, **settings)
    result = METHODS[method](target, [1], budget=least, **settings)
    assert result.forwards[0] <= least
    assert result.iterations[0] >= 1


def test_without_a_budget_each_attack_takes_the_published_number_of_steps() -> None:
    taken: dict[str, int] = {}
    for name, attack in METHODS.items():

        def tick(step: int, steps: int, name: str = name) -> bool:
            taken[name] = steps
            return True

        attack(tiny(), [2], tick=tick)
    four_octaves = 4 * (64 + 1) - 1
    assert taken == {
        "nguyen": 500, "simonyan": 300, "erhan": 200, "inceptionism": four_octaves, "fourier": 512, "maco": 256,
        "apgd": 100,
    }  # fmt: skip


# --- results


@each_case
@pytest.mark.parametrize("rank", ["log_odds", "margin"])
def test_a_score_is_that_of_the_image_and_improvements_end_with_it(method: str, settings: dict[str, Any], rank: str) -> None:
    target, classes = tiny(), [4, 0, 2]
    result = METHODS[method](target, classes, budget=45, rank=rank, **settings)
    logits = target.logits(result.images)
    odds, ranked = log_odds(logits), (log_odds if rank == "log_odds" else margin)(logits)
    for k, c in enumerate(classes):
        assert result.scores[k] == pytest.approx(ranked[k, c], abs=1e-4)
        rises = [found for found in result.improvements if found.item == k]
        assert rises[-1].score == result.scores[k]
        assert rises[-1].secondary == pytest.approx(odds[k, c], abs=1e-4)
        scores, forwards = [found.score for found in rises], [found.forwards for found in rises]
        assert scores == sorted(set(scores))
        assert forwards == sorted(forwards)
        assert 1 <= forwards[0] <= forwards[-1] <= result.forwards[k]


@each_method
def test_all_attacks_end_with_a_higher_score_than_they_start_with(method: str) -> None:
    result = METHODS[method](tiny(), range(CLASSES), budget=45, microbatch=CLASSES)
    for k in range(CLASSES):
        rises = [found.score for found in result.improvements if found.item == k]
        assert rises[-1] > rises[0]


@each_case
def test_a_class_s_result_does_not_depend_on_other_classes(method: str, settings: dict[str, Any]) -> None:
    target = tiny()
    together = METHODS[method](target, [3, 1, 4], budget=30, seed=7, microbatch=1, **settings)
    alone = METHODS[method](target, [1], budget=30, seed=7, microbatch=1, **settings)
    assert alone.images[0].tobytes() == together.images[1].tobytes()
    assert alone.scores[0] == together.scores[1]
    assert [found[1:] for found in alone.improvements] == [found[1:] for found in together.improvements if found.item == 1]


@pytest.mark.parametrize("method", ["nguyen", "erhan", "inceptionism", "fourier", "maco", "apgd"])
def test_the_seed_determines_the_start(method: str) -> None:
    target = tiny()
    first, same, other = (METHODS[method](target, [1], budget=30, seed=seed).images for seed in (1, 1, 2))
    assert first.tobytes() == same.tobytes()
    assert first.tobytes() != other.tobytes()


def test_erhan_s_images_lie_on_the_sphere() -> None:
    result = gradient.erhan(tiny(), [0, 3], budget=40, restarts=2, norm=3.0)
    lengths = np.sqrt((result.images / 255.0) ** 2).reshape(2, -1)
    np.testing.assert_allclose(np.sqrt((lengths**2).sum(1)), 3.0, atol=0.05)


@pytest.mark.parametrize("index", [(2,), (1, 3, 5)])
def test_the_score_of_a_unit_is_its_activation(index: tuple[int, ...]) -> None:
    target = tiny()
    layer = "conv" if len(index) == 3 else "last"
    result = gradient.units(target, layer, [index, index], budget=20, restarts=2)
    activations = target.activations(torch.from_numpy(result.images).float() / 255, layer).detach().numpy()
    np.testing.assert_allclose(result.scores, [each[index] for each in activations], rtol=1e-4)
    assert len(result.scores) == 4
    assert (result.forwards <= 10).all()


def test_the_mean_image_is_what_preprocessing_subtracts_or_middle_grey() -> None:
    grey = tiny()
    assert zero_image(grey).flatten().tolist() == [0.0]
    assert mean_image(grey).flatten().tolist() == [0.5]

    class Colour(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) * 5

    preprocessing = Preprocessing(scale=1 / 255, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0), order="BGR")
    colour = Target.from_module(Colour(), list("abc"), (3, 4, 4), preprocessing)
    zero = zero_image(colour)
    torch.testing.assert_close(zero.flatten(), torch.tensor([0.6, 0.4, 0.2]))
    assert colour.network is not None
    torch.testing.assert_close(
        colour.network.prepare(zero.expand(1, 3, 4, 4) * 255), torch.zeros(1, 3, 4, 4), atol=1e-6, rtol=0
    )
    assert torch.equal(mean_image(colour), zero)


def test_blurred_class_models_are_smoother() -> None:
    models = [gradient.simonyan(tiny(), [0, 2], budget=20, blur=blur).images for blur in (0.0, 1.0)]
    sharp, smooth = (np.array([neighbour_correlation(image) for image in images]) for images in models)
    assert (smooth > sharp).all()


def test_the_blur_of_inceptionism_changes_no_small_image() -> None:
    with_it, without = (visualisation.inceptionism(tiny(), [1], budget=30, blur=blur) for blur in (0.7, 0.0))
    assert with_it.images.tobytes() == without.images.tobytes()
    strong = visualisation.inceptionism(tiny(), [1], budget=30, blur=30.0)
    assert strong.images.tobytes() != without.images.tobytes()


# --- ending early


@each_case
def test_an_attack_that_reaches_stop_at_uses_fewer_passes(method: str, settings: dict[str, Any]) -> None:
    target, classes = tiny(), [0, 1, 2, 3]
    whole = METHODS[method](target, classes, budget=40, microbatch=20, **settings)
    level = float(np.median(whole.scores)) * 0.8
    result = METHODS[method](target, classes, budget=40, microbatch=20, stop_at=level, **settings)
    reached = result.scores >= level
    assert reached.any()
    assert result.forwards[reached].sum() < whole.forwards[reached].sum()
    assert (result.forwards <= whole.forwards).all()


def test_an_item_that_reaches_stop_at_in_an_octave_does_not_continue_in_the_next() -> None:
    target = tiny()
    one = visualisation.inceptionism(target, [0, 1], octaves=1, budget=20)
    low, high = sorted(one.scores)
    assert low < high
    level = (low + high) / 2
    four = visualisation.inceptionism(target, [0, 1], octaves=4, budget=80, stop_at=level)
    early = int(four.forwards.argmin())
    assert four.forwards[early] <= 20 < four.forwards[1 - early]
    assert four.scores[early] >= level


def test_tick_counts_all_octaves_as_one_ascent() -> None:
    calls: list[tuple[int, int]] = []

    def tick(step: int, steps: int) -> bool:
        calls.append((step, steps))
        return False

    visualisation.inceptionism(tiny(), [0], octaves=3, budget=30, tick=tick)
    steps = calls[0][1]
    assert [step for step, _ in calls] == list(range(steps + 1))
    assert {of for _, of in calls} == {steps}


@each_method
def test_tick_stops_an_attack(method: str) -> None:
    result = METHODS[method](tiny(), [0, 1], budget=60, tick=lambda step, steps: step == 2)
    assert result.interrupted
    assert result.iterations.tolist() == [27 if method == "erhan" else 3] * 2


# --- outputs that are not finite


@each_method
def test_the_best_image_before_nan_is_kept_with_a_note(method: str) -> None:
    net = Tiny()
    with torch.no_grad():  # a brighter first pixel is better for all but class 0, and it ends in NaN
        net.last.weight[1:, :] += 0.05
    target = Target.from_module(net, list("abcde"), (1, SIDE, SIDE))
    net.broken = 0.6
    result = METHODS[method](target, range(CLASSES), budget=60)
    noted = {item for item, note in result.notes if "NaN" in note}
    assert noted
    for k in range(CLASSES):
        held = bool(np.isfinite(result.scores[k]))
        assert held == bool(result.images[k].any())
        assert held or k in noted
        if held:
            assert result.images[k, 0, 0, 0] <= 0.6 * 255 + 1


# --- putting result together


def test_the_best_of_restarts_by_hand() -> None:
    # Item 0 has starts 0 and 1, item 1 starts 2 and 3; start 1 ends after 3 passes, the others after 5.
    rises = [
        (0, 1, 1, 2.0),
        (1, 1, 1, 1.0),
        (2, 1, 1, -4.0),
        (3, 2, 2, -1.0),
        (1, 3, 3, 3.0),
        (2, 4, 4, -1.0),
        (0, 5, 4, 4.0),
    ]
    result = item([4.0, 3.0, -1.0, -1.0], [5, 3, 5, 5], rises, notes=[(2, "flat")])
    out = best_restarts(result, 2)
    assert out.images[:, 0, 0, 0].tolist() == [1, 3]  # the first of equal scores
    assert out.states is not None
    assert out.states.flatten().tolist() == [0.0, 2.0]
    assert out.scores.tolist() == [4.0, -1.0]
    assert out.forwards.tolist() == [8, 10]
    assert out.backwards.tolist() == out.iterations.tolist() == [6, 8]
    assert out.notes == [(1, "start 0: flat")]
    # Passes of both starts: two by the first step, and no more than three of start 1.
    assert out.improvements == [
        Improvement(0, 2, 2, 2.0, 1.0),
        Improvement(1, 2, 2, -4.0, -2.0),
        Improvement(1, 4, 4, -1.0, -0.5),
        Improvement(0, 6, 5, 3.0, 1.5),
        Improvement(0, 8, 6, 4.0, 2.0),
    ]


def test_restarts_that_all_fail_are_one_item_without_an_image() -> None:
    out = best_restarts(item([-math.inf] * 3, [1, 1, 1], []), 3)
    assert out.scores.tolist() == [-math.inf]
    assert out.forwards.tolist() == [3]
    assert out.improvements == []


def test_merged_octaves_by_hand() -> None:
    first = item([1.0, 2.0, 3.0], [4, 4, 2], [(0, 1, 1, 1.0), (1, 2, 2, 2.0), (2, 2, 2, 3.0)], notes=[(1, "flat")])
    # Items 0 and 1 go on, in other images; item 0 falls and recovers, item 1 comes to nothing better.
    second = item([5.0, 1.5], [3, 3], [(0, 1, 1, 0.5), (0, 2, 2, 1.0), (0, 3, 2, 5.0), (1, 1, 1, 1.5)], notes=[(1, "late")])
    second.images += 10
    second.interrupted = True
    out = _merged_octaves([(np.arange(3), first), (np.array([0, 1]), second)])
    assert out.scores.tolist() == [5.0, 2.0, 3.0]
    assert out.images[:, 0, 0, 0].tolist() == [11, 2, 3]
    assert out.forwards.tolist() == [7, 7, 2]
    assert out.backwards.tolist() == out.iterations.tolist() == [5, 5, 1]
    assert out.improvements[3:] == [Improvement(0, 7, 5, 5.0, 2.5)]
    assert out.notes == [(1, "flat"), (1, "late")]
    assert out.interrupted
    assert out.states is None


def test_items_of_a_later_octave_are_those_that_continued() -> None:
    first = item([1.0, 2.0, 3.0], [2, 2, 2], [])
    last = item([9.0], [5], [(0, 4, 4, 9.0)], notes=[(0, "end")])
    out = _merged_octaves([(np.arange(3), first), (np.array([1]), last)])
    assert out.scores.tolist() == [1.0, 9.0, 3.0]
    assert out.forwards.tolist() == [2, 7, 2]
    assert out.improvements == [Improvement(1, 6, 5, 9.0, 4.5)]
    assert out.notes == [(1, "end")]


# --- errors


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("nguyen", {"setting": "nice"}, 'no setting "nice"; there are plain, l2, blur, sparse'),
        ("apgd", {"rank": "loss"}, 'no rank "loss"; there are log_odds, margin'),
        ("apgd", {"restarts": 0}, r"restarts has to lie in 1\.\.256, not 0"),
        ("apgd", {"restarts": 0, "budget": 10}, r"restarts has to lie in 1\.\.256, not 0"),
        ("erhan", {"restarts": 257}, r"restarts has to lie in 1\.\.256, not 257"),
        ("erhan", {"restarts": -1}, r"restarts has to lie in 1\.\.256, not -1"),
        ("maco", {"crop": 0.0}, r"crop, the smallest share of the sides that is shown, has to lie in \(0, 1\], not 0\.0"),
        ("inceptionism", {"octaves": 0}, r"octaves has to lie in 1\.\.256, not 0"),
        ("inceptionism", {"scale": 0.0}, r"scale, the ratio of the sizes of octaves, has to lie in \[1, 4\], not 0\.0"),
    ],
)
def test_errors_name_invalid_settings(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        METHODS[method](tiny(), [0], **settings)


def test_units_need_at_least_one_start() -> None:
    with pytest.raises(RecipeError, match=r"restarts has to lie in 1\.\.256, not 0"):
        gradient.units(tiny(), "last", [(1,)], restarts=0)


@each_method
def test_the_error_for_a_black_box_names_what_can_be_used_instead(method: str) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        return np.zeros((len(images), 3), np.float32)

    box = Target("box", list("abc"), (1, SIDE, SIDE), forward, {})
    with pytest.raises(TargetError, match=r"box: it has neither gradients nor layers.*evofool baseline square"):
        METHODS[method](box, [0])
