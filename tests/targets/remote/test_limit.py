"""The limit of a black box's requests, and the ledger that counts them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import BudgetError, StoreError, TargetError
from tests.targets.remote.scripted_server import DESCRIPTION, Reply, answering, black_box, correct, expected, fake, images_of

pytest.importorskip("httpx")


@pytest.mark.parametrize("cap", range(1, 9))
def test_the_request_limit_is_never_exceeded(cap: int, tmp_path: Path) -> None:
    images = images_of(12)

    def query(cap: int) -> tuple[int, str]:
        try:
            remote = black_box(server.url, f"batch=2&retries=3&timeout=5&max_requests={cap}", tmp_path)
            return len(remote.logits(images)), ""
        except BudgetError as error:
            return 0, f"{error}, {error.raised}"

    def often_failing(number: int, images: list[np.ndarray]) -> Reply:
        return Reply({}, 500) if number % 3 == 1 else correct(number, images)

    with fake(often_failing) as server:
        for _ in range(3):
            answered, message = query(cap)
            assert answered == 0
            assert server.received == cap
        raised = f"{server.url}?batch=2&retries=3&timeout=5&max_requests={2 * cap}"
        assert f"the limit of {cap} requests is reached (max_requests={cap}); " in message
        assert f"raise it in the target's spec, as in {raised}; " in message
        assert message.endswith(f", {raised}")
        assert query(99) == (12, "")
        remote = black_box(server.url, "", tmp_path)
        assert remote.queries == 16
        assert remote.requests == server.received


def test_failed_attempts_to_start_share_a_ledger_and_its_limit(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    with fake(lambda number, images: Reply({}, 500)) as server:
        for sent, message in (
            (2, "no answer after 1 request"),
            (4, "no answer"),
            (5, "the limit of 5"),
            (5, "the limit of 5"),
        ):
            with pytest.raises(TargetError, match=message):
                black_box(server.url, "retries=0&max_requests=5", folder)
            assert server.received == sent
        server.script = correct
        begun = black_box(server.url, "max_requests=9", folder)
        begun.store_in(folder)
        assert (begun.queries, begun.requests, server.received) == (4, 7, 7)
        with pytest.raises(TargetError, match="is not the URL of a server"):
            black_box("http://", "", tmp_path / "none")
        assert not (tmp_path / "none").exists()


def test_images_sent_again_count_as_requests_and_not_as_answers(tmp_path: Path) -> None:
    images = images_of(6)
    with fake() as server:
        black_box(server.url, "", tmp_path).logits(images[:4])
        again = black_box(server.url, "max_requests=6", tmp_path)
        again.ignore_cache()
        before = len(server.seen)
        server.script = answering("logits", lambda image: [3.0, 2.0, 1.0])  # the server has changed
        twice = np.concatenate([images[:4], images[:4]])
        assert np.array_equal(again.logits(twice), [[3.0, 2.0, 1.0]] * 8)
        assert len(server.seen) == before + 4
        again.logits(images)
        assert (again.queries, again.requests, server.received) == (4 + 6, 6, 6)
        with pytest.raises(BudgetError, match="the limit of 6 requests is reached"):
            again.logits(images)
        assert server.received == 6
        kept = black_box(server.url, "max_requests=6", tmp_path)
        assert np.array_equal(kept.logits(images[:4]), expected(images[:4])), "the run's stored answers do not change"


def test_earlier_answers_remain_available_once_the_limit_is_reached(tmp_path: Path) -> None:
    images = images_of(4)
    with fake() as server:
        black_box(server.url, "max_requests=3", tmp_path).logits(images)
        for _ in range(2):
            again = black_box(server.url, "max_requests=3", tmp_path)
            assert np.array_equal(again.logits(images), expected(images))
            assert (again.queries, again.requests, server.received) == (8, 3, 3)
            with pytest.raises(BudgetError, match="the limit of 3 requests is reached"):
                again.logits(images_of(1, 2))


def test_threads_share_the_limit() -> None:
    with fake() as server, ThreadPoolExecutor(6) as pool:
        remote = black_box(server.url, "batch=1&max_requests=20")

        def query(seed: int) -> int:
            try:
                return len(remote.logits(images_of(5, seed)))
            except BudgetError:
                return 0

        assert sum(pool.map(query, range(6))) <= 18
        assert remote.requests == server.received == 20
        assert remote.queries == 4 + 18


def test_a_killed_run_continues_with_its_counts_and_answers(tmp_path: Path) -> None:
    images = images_of(10)
    with fake() as server:
        first = black_box(server.url, "batch=2")
        first.store_in(tmp_path)  # the description and the probe were in memory so far
        assert (first.queries, first.requests) == (4, 2)
        first.logits(images[:6])
        assert (first.queries, first.requests) == (10, 5)
        second = black_box(server.url, "batch=2", tmp_path)  # first still has it open, as if it had been killed
        assert (second.queries, second.requests) == (10, 6)
        posts = server.posts
        assert np.array_equal(second.logits(images), expected(images))
        assert server.posts == posts + 2
        assert (second.queries, second.requests, server.received) == (14, 8, 8)


def test_a_ledger_of_another_classifier_is_refused(tmp_path: Path) -> None:
    with fake() as server:
        black_box(server.url).store_in(tmp_path)
        server.description = {**DESCRIPTION, "labels": ["a", "b", "c"]}
        with pytest.raises(StoreError, match=r"answers\.db has the answers of another target: classifier"):
            black_box(server.url).store_in(tmp_path)
        with pytest.raises(StoreError, match="has the answers of another target: classifier"):
            black_box(server.url, "", tmp_path)
        server.description = {**DESCRIPTION, "answers": "probabilities"}
        server.script = answering("probabilities", lambda image: [0.2, 0.3, 0.5])
        with pytest.raises(StoreError, match="another target: kind is logits there and probabilities here"):
            black_box(server.url).store_in(tmp_path)
        with pytest.raises(TargetError, match="it answers probabilities now, and answered logits before"):
            black_box(server.url, "", tmp_path)
