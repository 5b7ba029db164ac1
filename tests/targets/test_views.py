"""Where only the class is known, the agreement of views is a graded answer whose arg-max is the target's own."""

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.scores import margin
from evofool.targets import Target, target
from evofool.targets.digits import held_out
from evofool.targets.photos import patterns
from evofool.targets.remote.serve import ResponseOptions, serving
from evofool.targets.views import View, views, vote

LABELS, SHAPE = ("dark", "grey", "light"), (1, 10, 10)


def brightness(images: np.ndarray) -> np.ndarray:
    """One-hot float32 (B, 3): by the mean."""
    return np.eye(3, dtype=np.float32)[np.digitize(images.mean(axis=(1, 2, 3)), [85, 170])]


def one_hot(outputs: str = "logits", count: int = 16) -> Target:
    found = Target("one-hot", LABELS, SHAPE, brightness, {"preprocessing": {}}, outputs=outputs)
    vote(found, count)
    return found


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_the_arg_max_stays_and_the_margin_grows_with_the_agreement(outputs: str) -> None:
    images = np.stack([np.full(SHAPE, value, np.uint8) for value in (20, 84, 86, 128, 250)])
    logits = one_hot(outputs).logits(images)
    assert np.array_equal(logits.argmax(axis=1), brightness(images).argmax(axis=1))
    assert logits[0].tolist() == logits[4, ::-1].tolist() == [2, 0, 0]  # far from another class: all views agree
    margins = margin(logits).max(axis=1)
    assert margins[1] < margins[0]
    assert margins[2] < margins[3] == 2.0
    assert np.allclose(logits.sum(axis=1), 2)


def test_each_view_is_a_query_and_answers_repeat_to_the_bit() -> None:
    found, images = one_hot(count=8), patterns(SHAPE, 5)
    first = found.logits(images)
    assert (found.queries, found.queries_per_image) == (40, 8)
    assert np.array_equal(found.logits(images[2:3])[0], first[2])
    assert not found.differentiable


def test_the_first_view_is_the_image_and_the_others_get_stronger() -> None:
    images, shown = patterns((3, 20, 30), 2), views((3, 20, 30), 64)
    assert np.array_equal(shown[0](images), images)
    assert len(shown) == 64
    for kind in (1, 2, 3):
        weak, strong = (
            np.abs(view(images).astype(int) - images).mean() for view in (shown[kind], shown[60 + kind - 3 * (kind == 3)])
        )
        assert 0 < weak < strong, kind
    for view, again in zip(shown, views((3, 20, 30), 64), strict=True):
        assert np.array_equal(view(images), again(images))


def test_a_view_changes_what_it_says() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    assert View((1, 0))(image)[0, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert View((0, -1))(image)[0, 0].tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]
    assert View(noise=np.full((1, 3, 3), -4, np.int16))(image)[0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [2, 3, 4]]
    changed = View(at=np.array([0, 8]), values=np.array([255, 0], np.uint8))(image)
    assert changed[0, 0].tolist() == [[255, 1, 2], [3, 4, 5], [6, 7, 0]]
    assert image.ravel().tolist() == list(range(9))


def test_the_level_that_real_images_reach_is_below_full_agreement() -> None:
    """So it tells better images from worse ones."""
    images, labels = held_out()
    margins = margin(target("lenet?views=16").logits(images[::25]))[np.arange(100), labels[::25]]
    assert 1.0 < np.quantile(margins[margins > 0], 0.05) < 2.0


@pytest.mark.parametrize("spec", ["lenet?views=3", "lenet?views=257", "lenet?views=many"])
def test_a_number_of_views_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(TargetError, match="views is"):
        target(spec)


def test_views_of_a_mean_cost_both() -> None:
    assert target("lenet?views=4&average=2").queries_per_image == 8


def test_a_network_and_its_labels_alone_have_the_same_views() -> None:
    """So hiding logits buys nothing."""
    plain, images = target("lenet"), patterns((1, 28, 28), 4)
    labels = Target(
        "labels", plain.labels, plain.shape, lambda x: np.eye(10, dtype=np.float32)[plain.logits(x).argmax(axis=1)], {}
    )
    vote(labels, 8)
    assert np.array_equal(labels.logits(images), target("lenet?views=8").logits(images))


def test_a_server_that_says_only_the_label_is_scored_by_views() -> None:
    plain = Target("one-hot", LABELS, SHAPE, brightness, {"preprocessing": {}}, outputs="probabilities")
    images = patterns(SHAPE, 3)
    with serving(plain, options=ResponseOptions(answers="top", top=1)) as url:
        found = target(f"{url}?views=8")
        assert np.array_equal(found.logits(images), one_hot("probabilities", 8).logits(images))
        assert found.top_k == len(LABELS)
        assert found.queries >= 3 * 8 - 2, "equal views are sent once"
        with pytest.raises(TargetError, match="average=2 does not work for a black box"):
            target(f"{url}?average=2")
