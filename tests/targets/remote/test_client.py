"""A black box whose server fails for a while or for good: retries, limits of time, cancelled calls."""

import email.utils
import threading
import time as real_time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.targets.remote.client import Clock, HttpClient, HttpError
from tests.targets.remote.scripted_server import Reply, Time, black_box, correct, expected, fake, images_of, row

pytest.importorskip("httpx")


# --- temporary errors


def faulty(number: int, images: list[np.ndarray]) -> Reply:
    """Of ten requests two fail and two connections drop; one of twenty is not answered in time."""
    if number % 20 == 7:
        return Reply(act="hang")
    act = {1: "500", 4: "drop", 6: "503", 8: "cut"}.get(number % 10)
    if act in ("500", "503"):
        return Reply({"error": "overloaded"}, int(act), {"Retry-After": "2"} if act == "503" else {})
    return Reply({"logits": [row(image) for image in images]}, act=act or "answer")


def test_temporary_errors_change_no_result_and_each_counts_as_one_request() -> None:
    images, time = images_of(40), Time()
    with fake(faulty) as server:
        remote = black_box(server.url, "batch=2&retries=9&timeout=0.5", time=time)
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(remote.logits, np.split(images, 10)))
        assert np.array_equal(np.concatenate(found), expected(images))
        assert remote.queries == 44
        until(lambda: remote.requests == server.received)  # a cancelled request may still arrive
        assert remote.requests > 22
        assert 2.0 in time.slept


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply({"error": "overloaded"}, 500), r'3 x HTTP 500: "overloaded"'),
        (Reply(b"<h1>Bad\x1b[2J gateway</h1>", 502), r'3 x HTTP 502: "<h1>Bad \[2J gateway</h1>"'),
        (Reply({}, 429), r"3 x HTTP 429"),
        (Reply({}, 408), r"3 x HTTP 408"),
        (Reply(act="drop"), "3 x a dropped connection"),
        (Reply({"logits": [[1.0] * 3] * 2}, act="cut"), "3 x a dropped connection"),
        (Reply(b"<html>Welcome</html>"), 'an answer that is not JSON, but "<html>Welcome</html>"'),
        (Reply(b'{"logits": [[1.0, 2.'), "an answer that is not JSON"),
        (Reply(b""), "3 x an answer that is empty"),
        (Reply(b"[" * 100_000), "an answer that is not JSON"),
    ],
)
def test_persistent_errors_are_reported_with_the_number_of_attempts(reply: Reply, message: str) -> None:
    with fake() as server:
        remote = black_box(server.url, "retries=2")
        server.script = lambda number, images: reply
        with pytest.raises(
            TargetError, match=f"no answer after 3 requests .*{message}.*; a run has kept the earlier answers"
        ) as caught:
            remote.logits(images_of(2))
        assert "evofool" not in str(caught.value), "the command that asked names the one that goes on"
        assert "\x1b" not in str(caught.value)
        assert (remote.queries, remote.requests, server.received) == (4, 5, 5)
        server.script = correct
        assert np.array_equal(remote.logits(images_of(2)), expected(images_of(2)))
        assert (remote.queries, remote.requests) == (6, 6)


def test_a_server_that_hangs_or_is_unreachable_is_an_error() -> None:
    with fake() as server:
        remote = black_box(server.url, "retries=1&timeout=0.3")
        server.script = lambda number, images: Reply(act="hang")
        with pytest.raises(TargetError, match=r"no answer after 2 requests \(2 x no whole answer within 0.3 s\)"):
            remote.logits(images_of(1))
    with pytest.raises(TargetError, match=r"no answer after 3 requests \(.* x no connection \(.*refused"):
        black_box(server.url, "retries=2")


@pytest.mark.parametrize("act", ["dribble", "drip"])
def test_the_time_limit_applies_to_a_server_that_answers_byte_by_byte(act: str) -> None:
    with fake() as server:
        remote = black_box(server.url, "retries=1&timeout=0.3")
        server.script = lambda number, images: Reply({"logits": [[1.0, 2.0, 3.0]]}, act=act)
        for _ in range(2):  # on a connection that was used before, and on new ones
            with pytest.raises(TargetError, match=r"no answer after 2 requests \(2 x no whole answer within 0.3 s\)"):
                remote.logits(images_of(1))
        server.script = correct

        def answered() -> bool:
            try:
                return np.array_equal(remote.logits(images_of(1)), expected(images_of(1)))
            except TargetError:  # a busy machine may take more than that time
                return False

        until(answered)


def test_an_http_error_can_be_raised_again_with_another_message() -> None:
    again = type(HttpError("no", 404))("refused by the server")
    assert (str(again), again.status) == ("refused by the server", 0)


def test_parallel_limits_the_concurrent_requests_of_all_threads() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def slow(number: int, images: list[np.ndarray]) -> Reply:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        real_time.sleep(0.02)
        with lock:
            running -= 1
        return correct(number, images)

    with fake(slow) as server, ThreadPoolExecutor(8) as pool:
        remote = black_box(server.url, "parallel=2&batch=1")
        parts = [images_of(2, seed) for seed in range(8)]
        found = list(pool.map(remote.logits, parts))
        assert all(np.array_equal(a, expected(b)) for a, b in zip(found, parts, strict=True))
        assert most == 2


# --- cancelling


def until(true: Callable[[], bool]) -> None:
    for _ in range(4000):
        if true():
            return
        real_time.sleep(0.005)
    raise AssertionError("the condition did not become true")


@pytest.mark.parametrize(
    ("options", "reply", "calls", "sent"),
    [
        ("timeout=100", Reply(act="hang"), 1, 1),
        ("retries=9", Reply({}, 503, {"Retry-After": "200"}), 1, 1),
        ("timeout=100&parallel=1", Reply(act="hang"), 2, 1),
        ("rate=0.001", Reply({}), 1, 0),
    ],
    ids=["answer", "back-off", "connection", "rate"],
)
def test_cancelled_calls_end_wherever_they_wait_and_send_nothing_more(
    options: str, reply: Reply, calls: int, sent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, begin = [], HttpClient.call
    with fake() as server, ThreadPoolExecutor(calls) as pool:
        black_box(server.url, "", tmp_path)  # so that the probe is not limited to that rate
        remote = black_box(server.url, options, tmp_path, clock=Clock())
        requests, received = remote.requests, server.received
        server.script = lambda number, images: reply
        monkeypatch.setattr(HttpClient, "call", lambda self: begun.append(1) or begin(self))
        found = [pool.submit(remote.logits, images_of(20, seed)) for seed in range(calls)]
        until(lambda: len(begun) == calls and remote.requests == requests + 1 and server.received == received + sent)
        remote.cancel()
        for call in found:
            with pytest.raises(TargetError, match=f"^{server.url}: cancelled before the server answered; a run has kept"):
                call.result()
        assert (remote.requests, server.received) == (requests + sent, received + sent), (
            "requests that were not sent are not counted"
        )
        remote.cancel()  # nothing is in progress
        if sent:
            server.script = correct
            assert np.array_equal(remote.logits(images_of(20)), expected(images_of(20)))


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 501])
def test_permanent_errors_are_not_retried(status: int) -> None:
    with fake() as server:
        remote = black_box(server.url)
        server.script = lambda number, images: Reply({"error": "that's it"}, status)
        with pytest.raises(TargetError, match=rf'^{server.url}: HTTP {status}: "that\'s it"$'):
            remote.logits(images_of(2))
        assert remote.requests == server.received == 3


def test_redirects_are_reported_and_not_followed() -> None:
    with fake() as elsewhere, fake(description=Reply(b"", 302, {"Location": f"{elsewhere.url}?key=secret"})) as server:
        with pytest.raises(
            TargetError, match=rf'HTTP 302 redirects to "{elsewhere.url}\?key=\.\.\."; if that is the server'
        ):
            black_box(server.url)
        assert elsewhere.received == 0


def test_waiting_times_grow_without_a_retry_after() -> None:
    time = Time()
    with fake() as server:
        remote = black_box(server.url, "retries=9", time=time)
        server.script = lambda number, images: Reply({}, 500)
        with pytest.raises(TargetError):
            remote.logits(images_of(1))
        assert time.slept == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_retry_after_sets_the_waiting_time() -> None:
    time = Time()
    date = email.utils.formatdate(time.at + 40, usegmt=True)
    with fake() as server:
        remote = black_box(server.url, "retries=1", time=time)
        for retry_after, waited in ((date, 40), ("7", 7), ("0", 0), ("99999", 300), (date, 0), ("soon", 0.5), ("", 0.5)):
            server.script = lambda number, images, retry_after=retry_after: Reply({}, 429, {"Retry-After": retry_after})  # type: ignore[misc]
            time.slept = []
            with pytest.raises(TargetError, match="2 x HTTP 429"):
                remote.logits(images_of(1))
            assert time.slept == [waited]


def test_the_rate_is_kept_over_threads_and_processes(tmp_path: Path) -> None:
    time, times, lock = Time(), cast("list[float]", []), threading.Lock()

    def note(number: int, images: list[np.ndarray]) -> Reply:
        with lock:
            times.append(time.at)
        return correct(number, images)

    with fake(note) as server:
        first = black_box(server.url, "rate=4&batch=1&parallel=1", tmp_path, time)
        first.logits(images_of(4))
        second = black_box(server.url, "rate=4&batch=1&parallel=1", tmp_path, time)
        second.logits(images_of(6))
    assert np.diff(times) == pytest.approx([0.25] * 4 + [0.5, 0.25])  # the second description counts too
