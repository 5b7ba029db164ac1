"""Known images that are asked again: what counts as a change, when they are asked, and what it costs."""

import threading
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import DriftError, TargetError
from evofool.targets import Preprocessing, Target, target
from evofool.targets.remote.drift import EVERY, IMAGES, AnswerForm, DriftMonitor, Line, differences, form_of
from evofool.targets.remote.ledger import Ledger
from evofool.targets.remote.responses import ResponseFormat, response_logits
from evofool.targets.remote.serve import serving
from evofool.targets.watched import watch

SHAPE, LABELS = (1, 4, 4), tuple("abcd")
FIRST = np.random.default_rng(0).integers(0, 256, (IMAGES, *SHAPE), np.uint8)


def logits_of(images: np.ndarray) -> np.ndarray:
    x = images.reshape(len(images), -1).astype(np.float32)
    return np.stack([x.mean(1) / 40, x.std(1) / 20, x[:, 0] / 90, x[:, 5] / 70], 1)


LOGITS = AnswerForm(len(LABELS))


class Box:
    """What a monitor asks: answers(images), which a test replaces; counts requests and images."""

    def __init__(self, form: AnswerForm = LOGITS, at_once: int = IMAGES, folder: Path | None = None) -> None:
        self.answers, self.requests, self.asked = logits_of, 0, []
        self.ledger = Ledger()
        if folder is not None:
            self.ledger.store_in(folder)
        self.monitor = DriftMonitor(
            self.ledger, Line("box", LABELS, self.ask, lambda: self.requests, lambda: form, at_once), FIRST
        )

    def ask(self, images: np.ndarray) -> np.ndarray:
        self.requests += 1
        self.asked.append(len(images))
        return self.answers(images)

    def query(self, seed: int) -> None:
        """One request of the run."""
        self.monitor.before_request()
        images = np.random.default_rng(seed + 1).integers(0, 256, (3, *SHAPE), np.uint8)
        self.requests += 1
        self.monitor.learn(images, self.answers(images))

    def queries(self, seeds: range) -> None:
        for seed in seeds:
            self.query(seed)


def noisy(sigma: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    return lambda images: logits_of(images) + rng.normal(0, sigma, (len(images), 4)).astype(np.float32)


def test_known_images_are_asked_again_after_every_so_many_requests() -> None:
    box = Box()
    assert box.monitor.measure() == 0
    box.queries(range(3 * EVERY))
    checks = box.ledger.checks()
    assert [check.requests for check in checks] == [1, 52, 103, 154][: len(checks)]
    assert all(check.agreed and check.images == IMAGES for check in checks)
    assert sum(not probe.first for probe in box.ledger.probes()) == 2 * (len(checks) - 1), "images of the run are known too"


@pytest.mark.parametrize("at_once", [IMAGES, 1])
@pytest.mark.parametrize(
    "changed",
    [lambda images: np.roll(logits_of(images), 1, axis=1), lambda images: 1.01 * logits_of(images), noisy(0.01)],
    ids=["labels rolled", "another model", "noise"],
)
def test_a_change_is_noticed_at_the_next_check(changed, at_once: int) -> None:
    box = Box(at_once=at_once)
    box.monitor.measure()
    box.queries(range(60))
    last = box.monitor.agreed
    box.answers = changed
    with pytest.raises(
        DriftError, match=r"box: known images get other answers than before\. Image [0-9a-f]{16} \(one of"
    ) as caught:
        box.queries(range(60, 60 + 2 * EVERY))
    assert (caught.value.agreed, caught.value.now) == (last, box.requests)
    assert box.requests - 60 <= EVERY + 3
    for _ in range(2):
        with pytest.raises(DriftError):
            box.query(0)
    box.answers = logits_of
    box.query(0)
    assert box.monitor.agreed == box.requests - 2, "it answers as before again"


def test_an_answer_to_a_known_image_that_is_not_finite_is_named() -> None:
    box = Box()
    box.monitor.measure()
    box.answers = lambda images: np.full((len(images), 4), np.nan, np.float32)
    with pytest.raises(TargetError, match="box: the answer to a known image is NaN or infinite"):
        box.queries(range(2 * EVERY))


def test_a_second_folder_begins_its_own_known_images(tmp_path: Path) -> None:
    box = Box()
    box.monitor.store_in(tmp_path / "one")
    box.monitor.measure()
    box.queries(range(60))
    box.monitor.store_in(tmp_path / "two")
    box.monitor.measure()
    box.queries(range(60, 120))
    assert all(check.agreed for check in box.monitor.ledger.checks())


@pytest.mark.parametrize("sigma", [1e-4, 3e-3, 0.03, 0.5])
def test_answers_that_vary_from_the_start_are_no_change(sigma: float) -> None:
    for run in range(5):
        box = Box()
        box.monitor.every, box.answers = 2, noisy(sigma, run)
        box.monitor.measure()
        assert bool(box.monitor.notes) == (sigma > 1e-3)
        box.queries(range(80))


def test_a_tolerance_that_is_given_replaces_the_measured_one() -> None:
    box = Box()
    box.monitor.measure()
    box.monitor.every, box.answers = 1, lambda images: logits_of(images) + np.float32([0, 0, 0, 0.02])
    with pytest.raises(DriftError) as caught:
        box.queries(range(2))
    assert caught.value.largest == pytest.approx(0.02, abs=0.01)
    box.monitor.tolerance = 0.05
    box.queries(range(2))
    box.monitor.every = 0
    box.answers = lambda images: -logits_of(images)
    box.queries(range(2))


@pytest.mark.parametrize("size", [0.0, 0.02])
def test_another_process_compares_with_the_first_answers_before_it_asks_anything(tmp_path: Path, size: float) -> None:
    first = Box(folder=tmp_path)
    first.monitor.measure()
    first.query(0)
    second = Box(folder=tmp_path)
    second.answers = lambda images: logits_of(images) + np.float32([0, 0, 0, size])
    if size:
        with pytest.raises(DriftError, match=r"The target last agreed at request 1; this is request 3"):
            second.query(1)
    else:
        second.query(1)
    assert second.asked == [IMAGES]
    assert [check.agreed for check in second.ledger.checks()] == [True, not size]


def test_answers_since_the_last_agreement_are_asked_for_again_after_a_change(tmp_path: Path) -> None:
    box = Box(folder=tmp_path)
    box.ledger.keep({b"before": np.zeros(4, np.float32)})
    box.monitor.measure()
    box.ledger.keep({b"after": np.zeros(4, np.float32)})
    box.answers, box.monitor.every = lambda images: -logits_of(images), 1
    with pytest.raises(DriftError):
        box.queries(range(2))
    box.ledger.keep({b"in progress": np.zeros(4, np.float32)})
    box.answers = logits_of
    box.query(0)
    assert box.ledger.known([b"before", b"after", b"in progress"], 4).keys() == {b"before"}


def read(kind: str, p: list[float], decimals: int | None = None) -> np.ndarray:
    """The logits of an answer with these probabilities; NaN for classes that it does not contain."""
    top_k = sum(not np.isnan(x) for x in p)
    return response_logits(np.array([p]), ResponseFormat(kind, len(p), top_k, decimals))


@pytest.mark.parametrize(
    ("kind", "decimals", "before", "after", "same"),
    [
        ("probabilities", 3, [0.5, 0.498, 0.001, 0.001], [0.501, 0.498, 0.001, 0.0], True),
        ("probabilities", 3, [0.5, 0.498, 0.001, 0.001], [0.503, 0.495, 0.001, 0.001], False),
        ("probabilities", 3, [0.999, 0.001, 0.0, 0.0], [0.001, 0.999, 0.0, 0.0], False),
        ("probabilities", None, [0.5, 0.5 - 3e-7, 1e-7, 2e-7], [0.5, 0.5 - 3e-7, 2e-7, 1e-7], True),
        ("top", None, [0.4, 0.3, np.nan, np.nan], [0.4, np.nan, 0.3, np.nan], True),
        ("top", None, [0.4, 0.3, np.nan, np.nan], [0.4, np.nan, 0.2, np.nan], False),
        ("top", None, [0.6, np.nan, np.nan, np.nan], [np.nan, 0.6, np.nan, np.nan], False),
        ("top", 1, [0.5, np.nan, np.nan, np.nan], [np.nan, 0.5, np.nan, np.nan], True),
        ("top", 0, [1.0, np.nan, np.nan, np.nan], [1.0, np.nan, np.nan, np.nan], True),
        ("top", 0, [1.0, np.nan, np.nan, np.nan], [np.nan, 1.0, np.nan, np.nan], False),
    ],
)
def test_what_rounding_and_missing_classes_explain_is_no_difference(
    kind: str, decimals: int | None, before: list[float], after: list[float], same: bool
) -> None:
    top_k = sum(not np.isnan(x) for x in before)
    found = differences(read(kind, before, decimals), read(kind, after, decimals), form_of(kind, top_k, decimals))
    assert (found.max() <= 1e-3) == same


def test_one_label_that_flips_is_an_image_between_two_classes_and_two_are_a_change() -> None:
    def labels_of(flipped: int):
        def answers(images: np.ndarray) -> np.ndarray:
            best = logits_of(images).argmax(1)
            for image in FIRST[:flipped]:
                best[(images == image).all((1, 2, 3))] += 1
            return (30 * np.eye(4)[best % 4]).astype(np.float32)

        return answers

    for flipped in (1, 2):
        box = Box(AnswerForm(4, 1e-6, labels=True))
        box.answers = labels_of(0)
        box.monitor.measure()
        box.monitor.every, box.answers = 1, labels_of(flipped)
        if flipped == 1:
            box.queries(range(5))
            assert len([probe for probe in box.ledger.probes() if probe.first]) == IMAGES - 1
        else:
            with pytest.raises(DriftError):
                box.queries(range(5))


def test_what_other_requests_bring_while_a_check_is_in_flight_does_not_count_as_agreed() -> None:
    box = Box()
    box.monitor.measure()
    box.monitor.every = 1
    late, row = b"late" * 8, np.zeros(4, np.float32)

    def while_another_is_answered(images: np.ndarray) -> np.ndarray:
        found = logits_of(images)  # then the target is changed, and another request is faster than this answer
        box.requests += 1
        box.ledger.keep({late: row})
        return found

    box.ledger.keep({b"early" * 8: row})
    box.answers, before = while_another_is_answered, box.requests
    box.requests += 1
    box.monitor.before_request()
    assert box.monitor.agreed == before + 1
    box.answers = lambda images: -logits_of(images)
    with pytest.raises(DriftError):
        box.monitor.last_check()
    assert [*box.ledger.known([b"early" * 8, late], 4)] == [b"early" * 8]


def test_a_last_check_is_made_only_if_something_was_sent_since() -> None:
    box = Box()
    box.monitor.measure()
    sent = box.requests
    box.monitor.last_check()
    assert box.requests == sent
    box.query(0)
    box.monitor.last_check()
    box.monitor.last_check()
    assert box.requests == sent + 2


def test_of_several_labels_without_probabilities_each_one_that_is_gained_or_lost_differs() -> None:
    form = form_of("multilabel-probabilities", 4, 0)
    before = np.array([[14, 14, -14, -14], [14, -14, -14, -14], [-14, -14, -14, -14]], np.float32)
    after = np.array([[14, -14, -14, -14], [14, -14, -14, -14], [-14, -14, -14, 14]], np.float32)
    assert (differences(before, after, form) > 0).tolist() == (before != after).tolist()


def test_threads_wait_for_a_check_in_progress() -> None:
    box, inside, go = Box(), threading.Event(), threading.Event()
    box.monitor.measure()
    box.monitor.every = 1

    def slow(images: np.ndarray) -> np.ndarray:
        inside.set()
        assert go.wait(60)
        return -logits_of(images)

    box.answers = slow
    caught: list[BaseException] = []

    def query() -> None:
        try:
            box.monitor.before_request()
        except DriftError as error:
            caught.append(error)

    box.requests += 1
    threads = [threading.Thread(target=query) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert inside.wait(60)
    go.set()
    for thread in threads:
        thread.join()
    assert len(caught) == 3


def test_a_target_of_this_process_is_checked_if_it_is_declared_a_black_box(tmp_path: Path) -> None:
    sign = [1]
    box = Target.probed("mine", lambda images: sign[0] * logits_of(images), LABELS, SHAPE, Preprocessing(), "logits", {})
    watch(box)
    assert box.monitor is not None
    box.monitor.every = 5
    box.store_in(tmp_path)
    for seed in range(20):
        box.logits(np.random.default_rng(seed).integers(0, 256, (3, *SHAPE), np.uint8), 4)
    assert len(box.monitor.ledger.checks()) >= 3
    assert box.queries == 20 * 3 + sum(check.images for check in box.monitor.ledger.checks()) + IMAGES, "they are counted"
    sign[0] = -1
    with pytest.raises(DriftError, match="mine: known images"):
        [box.logits(FIRST) for _ in range(10)]
    again = Target.probed("mine", lambda images: -logits_of(images), LABELS, SHAPE, Preprocessing(), "logits", {})
    watch(again)
    again.store_in(tmp_path)
    with pytest.raises(DriftError, match="mine: known images"):
        again.logits(FIRST)
    with pytest.raises(TargetError, match="a network of this process is no black box"):
        watch(target("lenet"))
    assert target("lenet").monitor is None


def test_the_costs_of_a_served_target_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    with serving(target("lenet")) as url:
        remote = target(url, tmp_path)
        assert remote.monitor is not None
        before = remote.requests, remote.queries
        assert remote.monitor.measure() == 0
        assert (remote.requests, remote.queries) == (before[0] + 1, before[1] + 4), "the four images of its first request"
        assert "asked again 1 time (4 answers)" in remote.monitor.summary()
