"""The requests of one call, several at the same time: order, errors, the limit of requests, cancelling."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import BudgetError, TargetError
from evofool.targets.remote.client import Clock
from evofool.targets.remote.in_flight import InFlight
from tests.targets.remote.scripted_server import Reply, black_box, correct, expected, fake, images_of

pytest.importorskip("httpx")


def test_a_call_has_as_many_requests_in_flight_as_the_option_says_and_the_answers_of_one_at_a_time() -> None:
    together, images = threading.Barrier(4), images_of(16)

    def four_at_once(number: int, images: list[np.ndarray]) -> Reply:
        if number:  # not for the probe
            together.wait(20)
        return correct(number, images)

    with fake() as server:
        one_by_one = black_box(server.url, "batch=2&parallel=1")
        before = one_by_one.logits(images)
        requests = one_by_one.requests
    with fake(four_at_once) as server:
        remote = black_box(server.url, "batch=2&parallel=4")
        found = remote.logits(images)
        assert np.array_equal(found, before)
        assert np.array_equal(found, expected(images))
        assert (remote.queries, remote.requests, server.received) == (20, requests, 10)


@pytest.mark.parametrize("cap", [3, 5, 9])
def test_the_limit_holds_with_many_requests_in_flight_and_what_was_paid_for_is_kept(cap: int, tmp_path: Path) -> None:
    images = images_of(20)
    with fake() as server:
        remote = black_box(server.url, f"batch=1&parallel=8&max_requests={cap}", tmp_path)
        with pytest.raises(BudgetError, match=f"the limit of {cap} requests is reached"):
            remote.logits(images)
        assert server.received == remote.requests == cap
        again = black_box(server.url, "batch=1&parallel=8", tmp_path)
        again.monitor.every = 0  # type: ignore[union-attr]
        assert np.array_equal(again.logits(images), expected(images))
        assert again.queries == 4 + 20, "no image is paid for twice"


def test_after_an_error_nothing_more_is_sent_and_requests_in_flight_are_cut_off() -> None:
    both = threading.Barrier(2)

    def refusing(number: int, images: list[np.ndarray]) -> Reply:
        if number == 0:
            return correct(number, images)
        both.wait(20)
        return Reply({"error": "no more"}, 403) if number == 2 else Reply(act="hold")

    with fake(refusing) as server:
        remote = black_box(server.url, "batch=1&parallel=2&timeout=100", clock=Clock())
        before = server.received
        with pytest.raises(TargetError, match='HTTP 403: "no more"'):
            remote.logits(images_of(9))
        assert server.clients_gone.acquire(timeout=10), "the request in flight is cut off"
        assert server.received == before + 2
        server.script = correct
        assert np.array_equal(remote.logits(images_of(9)), expected(images_of(9))), "later calls work"


def test_every_request_of_a_call_is_cancelled() -> None:
    with fake() as server, ThreadPoolExecutor(1) as pool:
        remote = black_box(server.url, "batch=1&parallel=3&timeout=100", clock=Clock())
        before, arrived = server.received, threading.Semaphore(0)

        def hang(number: int, images: list[np.ndarray]) -> Reply:
            arrived.release()
            return Reply(act="hang")

        server.script = hang
        found = pool.submit(remote.logits, images_of(9))
        for _ in range(3):
            assert arrived.acquire(timeout=20)
        remote.cancel()
        with pytest.raises(TargetError, match="cancelled before the server answered"):
            found.result(20)
        assert server.received == remote.requests == before + 3


def _failing_at(number: int, error: type[Exception]) -> Callable[[int], int]:
    def do(job: int) -> int:
        if job == number:
            raise error("it fails")
        return 10 * job

    return do


def test_results_come_in_the_order_of_jobs_and_an_interrupted_caller_cancels_the_rest() -> None:
    in_flight, cancelled, begun = InFlight(3), [], []
    released = [threading.Event() for _ in range(3)]

    def backwards(job: int) -> int:
        if job < 2:
            assert released[job + 1].wait(20)
        released[job].set()
        return job

    assert list(in_flight.results(range(3), backwards, lambda: None, lambda: None)) == [0, 1, 2]

    def interrupted() -> None:
        begun.append(1)
        if len(begun) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_flight.results(range(9), lambda job: job, interrupted, lambda: cancelled.append(1)))
    assert (len(begun), cancelled) == (3, [1])
    with pytest.raises(ValueError, match="it fails"):
        list(in_flight.results(range(99), _failing_at(4, ValueError), lambda: None, lambda: cancelled.append(2)))
    assert cancelled == [1, 2]
    with pytest.raises(BudgetError):
        list(in_flight.results(range(9), _failing_at(4, BudgetError), lambda: None, lambda: cancelled.append(3)))
    assert cancelled == [1, 2], "what is in flight at the limit is paid for, and waited for"


def test_an_error_is_raised_after_what_is_in_flight_has_ended() -> None:
    in_flight, cancelled, ended = InFlight(2), threading.Event(), threading.Event()
    both = threading.Barrier(2)

    def do(job: int) -> None:
        both.wait(20)
        if job == 1:
            raise ValueError("it fails")
        assert cancelled.wait(20)
        threading.Event().wait(0.05)  # an answer that is being recorded
        ended.set()

    with pytest.raises(ValueError, match="it fails"):
        list(in_flight.results(range(9), do, lambda: None, cancelled.set))
    assert ended.is_set()
