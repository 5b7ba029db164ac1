"""A black box's responses: invalid, rounded, and with the top classes only."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool import scores
from evofool.errors import TargetError
from tests.targets.remote.scripted_server import DESCRIPTION, LABELS, Reply, answering, black_box, fake, images_of, row

pytest.importorskip("httpx")


# --- invalid responses


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2], "the answer is a JSON list; it has to be an object"),
        ({"scores": []}, 'the answer has "scores"; it has to have "logits"'),
        ({"probabilities": [[0.2, 0.3, 0.5]] * 2}, 'the answer has "probabilities"; it has to have "logits"'),
        ({"logits": [[1.0, 2.0, 3.0]]}, '"logits" has 1 rows for 2 images; it has to have one row for each'),
        ({"logits": {"0": [1]}}, '"logits" has a object for 2 images'),
        ({"logits": [[1.0, 2.0]] * 2}, 'row 0 of "logits" has 2 numbers, but there are 3 labels'),
        ({"logits": [[1.0, 2.0, 3.0], 4.0]}, 'row 1 of "logits" is a number; it has to be a list'),
        ({"logits": [[1.0, 2.0, None]] * 2}, 'row 0 of "logits" contains null; it has to contain numbers'),
        ({"logits": [[1.0, 2.0, "3"]] * 2}, 'contains "3"; it has to contain numbers'),
        ({"logits": [[1.0, 2.0, True]] * 2}, "contains true; it has to contain numbers"),
        (b'{"logits": [[1.0, 2.0, NaN], [1, 2, 3]]}', "the answer contains NaN, which is not valid JSON"),
        (b'{"logits": [[1.0, 2.0, -Infinity], [1, 2, 3]]}', "the answer contains -Infinity, which is not valid JSON"),
        (b'{"logits": [[1.0, 2.0, 1e999], [1, 2, 3]]}', 'row 0 of "logits" contains a number beyond the range of float64'),
        (b'{"logits": [[1.0, 2.0, 1%s], [1, 2, 3]]}' % (b"0" * 400), "a number beyond the range of float64"),
        ({"logits": [[1.0, 2.0, 1e39]] * 2}, "a logit is beyond the range of float32"),
    ],
)
def test_an_invalid_answer_is_refused_at_once(answer: Any, message: str) -> None:
    with fake() as server:
        remote = black_box(server.url)
        server.script = lambda number, images: Reply(answer)
        with pytest.raises(TargetError, match=f"^{server.url}: .*{message}"):
            remote.logits(images_of(2))
        assert (remote.queries, remote.requests, server.received) == (4, 3, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([0.2, 0.3, 0.9], 'row 0 of "probabilities" sums to 1.4; probabilities of all classes sum to 1'),
        ([0.2, 0.123456789, 0.3], "sums to 0.623457"),
        ([-0.1, 0.6, 0.5], r'row 0 of "probabilities" contains -0.1; probabilities lie in \[0, 1\]'),
        ([20.0, 30.0, 50.0], "contains 50; probabilities lie in"),
    ],
)
def test_invalid_probabilities_are_refused(content: list[float], message: str) -> None:
    with (
        fake(answering("probabilities", lambda image: content), {**DESCRIPTION, "answers": "probabilities"}) as server,
        pytest.raises(TargetError, match=message),
    ):
        black_box(server.url)


def test_probabilities_that_are_called_logits_are_refused() -> None:
    with (
        fake(answering("logits", lambda image: [0.2, 0.3, 0.5])) as server,
        pytest.raises(TargetError, match='what it calls "logits" are probabilities'),
    ):
        black_box(server.url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], 'row 0 of "top" is empty'),
        ([{"class": 3, "probability": 0.9}], 'row 0 of "top" names the class 3; classes are 0 to 2, or labels'),
        ([{"class": True, "probability": 0.9}], "names the class true"),
        (
            [{"class": "beee", "probability": 0.9}],
            'names the class "beee", which is not one of the 3 labels; did it mean "bee"',
        ),
        ([{"class": 1, "probability": 0.6}, {"class": "bee", "probability": 0.3}], "names a class twice"),
        ([{"class": 1, "score": 0.6}], 'each entry needs "class" and "probability"'),
        (["bee"], 'each entry needs "class" and "probability"'),
        ([{"class": 1, "probability": "high"}], 'contains "high"; it has to contain numbers'),
        ([{"class": 1, "probability": 1.5}], 'row 0 of "top" contains 1.5'),
        ([{"class": 1, "probability": 0.87}, {"class": 0, "probability": 0.86}], 'row 0 of "top" sums to 1.73'),
    ],
)
def test_an_invalid_top_list_is_refused(content: list[Any], message: str) -> None:
    with (
        fake(answering("top", lambda image: content), {**DESCRIPTION, "answers": "top"}) as server,
        pytest.raises(TargetError, match=message),
    ):
        black_box(server.url)


def test_lists_of_different_lengths_are_refused() -> None:
    two = [{"class": 1, "probability": 0.6}, {"class": 0, "probability": 0.3}]
    with fake(answering("top", lambda image: two), {**DESCRIPTION, "answers": "top"}) as server:
        remote = black_box(server.url)
        server.script = answering("top", lambda image: two[:1])
        with pytest.raises(TargetError, match='an answer of "top" has 1 classes, earlier answers had 2'):
            remote.logits(images_of(1))
        server.script = lambda number, images: Reply({"top": [two, two[:1]]})
        with pytest.raises(TargetError, match='"top" has 1 classes for one image and 2 for another'):
            remote.logits(images_of(2))


def test_a_very_long_answer_and_a_compressed_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake() as server:
        remote = black_box(server.url)
        server.script = lambda number, images: Reply(b" " * (5 << 20))
        with pytest.raises(TargetError, match="the answer is longer than 4 MB"):  # for so few scores
            remote.logits(images_of(1))
        monkeypatch.setattr("evofool.targets.remote.client.MAX_BYTES", 1 << 20)
        server.script = lambda number, images: Reply(b" " * (3 << 20))
        with pytest.raises(TargetError, match=r"the answer is longer than 1 MB; send fewer images at once \(batch=\)"):
            remote.logits(images_of(1))
        server.script = lambda number, images: Reply(b"", headers={"Content-Encoding": "gzip"})
        with pytest.raises(TargetError, match='compresses its answers \\("gzip"\\), although the request forbids it'):
            remote.logits(images_of(1))


# --- rounded responses, and responses with the top classes only


def softmax(image: np.ndarray) -> np.ndarray:
    z = np.array(row(image))
    p = np.exp(z - z.max())
    return p / p.sum()


@pytest.mark.parametrize("decimals", range(1, 7))
def test_rounding_is_detected_and_its_effect_is_noted(decimals: int) -> None:
    rounded = answering("probabilities", lambda image: np.round(softmax(image), decimals).tolist())
    with fake(rounded, {**DESCRIPTION, "answers": "probabilities"}) as server:
        remote = black_box(server.url)
        note = re.match(
            r"answers are rounded to (\d) decimals?: confidences above ([\d.]+) cannot", remote.details["notes"][0]
        )
        assert note
        assert (int(note[1]), float(note[2])) == (decimals, pytest.approx(1 - 0.5 * 10**-decimals))
        assert f"log-odds are limited to +-{np.log(2 * 10**decimals - 1):.1f}" in remote.details["notes"][0]
        half = 0.5 * 10**-decimals
        server.script = answering("probabilities", lambda image: [0.0, 1.0, 0.0])
        log_odds = scores.log_odds(remote.logits(images_of(1)))[0]
        assert log_odds[1] == pytest.approx(np.log(1 / half), abs=1e-3)
        assert log_odds[0] == log_odds[2] == pytest.approx(np.log(half / 2), abs=half)


def test_rounded_float32_is_detected() -> None:
    rounded = answering("probabilities", lambda image: np.round(softmax(image).astype(np.float32), 4).astype(float).tolist())
    with fake(rounded, {**DESCRIPTION, "answers": "probabilities"}) as server:
        assert "rounded to 4 decimals" in black_box(server.url).details["notes"][0]


def test_the_order_of_confidences_is_kept_for_any_number_of_classes() -> None:
    labels = [f"class {c}" for c in range(1000)]
    rows = np.zeros((4, 1000))
    rows[0, [0, 1]] = 0.98, 0.02
    rows[1, :21] = 0.98, *[0.001] * 20
    rows[2, [0, 1]] = 0.981, 0.019
    rows[3, 0] = 1.0
    with fake(
        lambda number, images: Reply({"probabilities": rows[: len(images)].tolist()}),
        {**DESCRIPTION, "labels": labels, "answers": "probabilities"},
    ) as server:
        remote = black_box(server.url)
        found = scores.confidence(scores.log_odds(remote.logits(images_of(4)))[:, 0])
        assert found == pytest.approx([0.98, 0.98, 0.981, 1.0], abs=1e-3)
        assert max(found[:2]) < found[2] < found[3] <= 0.9996


def test_unrounded_probabilities_keep_every_digit_and_a_zero_stays_finite() -> None:
    with fake(
        answering("probabilities", lambda image: softmax(image).tolist()), {**DESCRIPTION, "answers": "probabilities"}
    ) as server:
        remote = black_box(server.url)
        assert remote.details["notes"] == []
        server.script = answering("probabilities", lambda image: [1.0, 1e-100, 0.0])
        z = remote.logits(images_of(1))[0]
        assert np.isfinite(z).all()
        assert z[1] == pytest.approx(np.log(1e-100), rel=1e-6)
        assert z[2] <= z[1] < z[0]


def test_answers_of_only_0_and_1_are_noted_and_so_are_later_ones() -> None:
    with fake(answering("probabilities", lambda image: [0, 1, 0]), {**DESCRIPTION, "answers": "probabilities"}) as server:
        remote = black_box(server.url)
        assert (
            "every probability in the answers to noise is 0 or 1: it may return only the class" in remote.details["notes"][0]
        )
        server.script = answering("probabilities", lambda image: [0.25, 0.75, 0.0])
        remote.logits(images_of(2))
        assert remote.details["notes"][1:] == [
            "the answers to noise were all 0 or 1, later ones are not: answers are rounded to 2 decimals: confidences above "
            "0.995 cannot be distinguished from 1, log-odds are limited to +-5.3, and classes with probability 0 share the "
            "rest"
        ]
        remote.logits(images_of(2, 2))
        assert len(remote.details["notes"]) == 2


def test_rounding_that_ends_later_is_noted_and_scores_stay_comparable(tmp_path: Path) -> None:
    with fake(
        answering("probabilities", lambda image: [0.25, 0.75, 0.0]), {**DESCRIPTION, "answers": "probabilities"}
    ) as server:
        remote = black_box(server.url, "", tmp_path)
        before = remote.logits(images_of(1))
        server.script = answering("probabilities", lambda image: softmax(image).tolist())
        remote.logits(images_of(2, 2))
        assert "were rounded to 2 decimals, later ones are not" in remote.details["notes"][-1]
        again = black_box(server.url, "", tmp_path)
        assert "rounded to 2 decimals" in again.details["notes"][0]
        assert np.array_equal(again.logits(images_of(1)), before)
        server.script = answering("probabilities", lambda image: [0.25, 0.75, 0.0])
        assert np.array_equal(again.logits(images_of(1, 3)), before)
        anew = black_box(server.url)
        anew.store_in(tmp_path)
        assert np.array_equal(anew.logits(images_of(1, 4)), before)


@pytest.mark.parametrize("probability", [1, 1.0, 0.7, 0.0])
def test_a_server_that_returns_the_same_single_class_is_accepted(probability: float) -> None:
    label = [{"class": "bee", "probability": probability}]
    with fake(answering("top", lambda image: label), {**DESCRIPTION, "answers": "top"}) as server:
        remote = black_box(server.url)
        assert remote.top_k == 1
        z = remote.logits(images_of(5))
        assert np.isfinite(scores.log_odds(z)).all()
        assert (z.argmax(axis=1) == 1).all()
        assert (z[:, 1] > z[:, [0, 2]].max(axis=1)).all()
        assert any("contain only the top 1 of 3 classes" in note for note in remote.details["notes"])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_largest_logits_are_exactly_those_of_the_answer(k: int) -> None:
    labels = [*LABELS, "dog", "elk"]
    draws = np.random.default_rng(k).dirichlet(np.ones(5) * 0.3, 40)
    draws[0] = [1, 0, 0, 0, 0]  # a probability of 0, among other zeros
    draws[1] = 0.2

    def top_list(p: np.ndarray) -> list[dict[str, Any]]:
        best = np.argsort(-p, kind="stable")[:k]
        return [{"class": int(c) if c % 2 else labels[c], "probability": float(p[c])} for c in best]

    rows = [top_list(p) for p in draws]
    description = {**DESCRIPTION, "labels": labels, "answers": "top"}
    with fake(
        lambda number, images: Reply({"top": rows[4 : 4 + len(images)] if number == 0 else rows}), description
    ) as server:
        remote = black_box(server.url, "batch=40")
        assert remote.top_k == k
        assert (
            f"answers contain only the top {k} of 5 classes: scores of the others are bounds" in remote.details["notes"][0]
        )
        assert any("margins are bounds" in note for note in remote.details["notes"]) == (k == 1)
        z = remote.logits(images_of(40))
        assert np.isfinite(z).all()
        log_odds = scores.log_odds(z)
        for i, p in enumerate(draws):
            best = np.argsort(-p, kind="stable")[:k]
            rest = np.delete(np.arange(5), best)
            assert z[i, best].min() > z[i, rest].max()
            if i > 1:
                assert log_odds[i, best[0]] == pytest.approx(np.log(p[best[0]] / (1 - p[best[0]])), abs=1e-4)
