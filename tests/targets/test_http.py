"""A black box over HTTP, tested with real servers on this machine: correct, faulty, contradictory, rounding, silent ones."""

import base64
import email.utils
import json
import re
import threading
import time as real_time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from evofool import scores
from evofool.errors import BudgetError, StoreError, TargetError
from evofool.images import decode_png
from evofool.targets import Target, target
from evofool.targets.http import BlackBox, load
from evofool.targets.http_client import Clock, HttpClient, HttpError
from evofool.targets.serve import ResponseOptions, serving
from evofool.targets.spec import parse

pytest.importorskip("httpx")
SHAPE, LABELS = (1, 4, 4), ["ant", "bee", "cat"]
DESCRIPTION = {
    "format": "evofool.target",
    "version": 1,
    "name": "fake",
    "labels": LABELS,
    "shape": list(SHAPE),
    "answers": "logits",
}


@dataclass
class Reply:
    """The reply of a fake server to one request."""

    body: Any = None  # as JSON, or bytes as they are
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    act: str = "answer"  # or "hang" until the test ends, "drop" before an answer, "cut" in the middle of it; or single
    # bytes, for far longer than any test's time-out: "dribble" from the start, "drip" from the body


Script = Callable[[int, list[np.ndarray]], Reply]
"""The number of a POST, from 0, and its images, to the reply."""


def row(image: np.ndarray) -> list[float]:
    """The logits of an image, exact in JSON: any function of its pixels that differs from image to image."""
    x = image.astype(np.float64).ravel()
    return [float(np.float32(v)) for v in (x.mean() / 40, x.std() / 10, x @ np.arange(16) / 5000)]


def correct(number: int, images: list[np.ndarray]) -> Reply:
    return Reply({"logits": [row(image) for image in images]})


def answering(kind: str, answer: Callable[[np.ndarray], Any]) -> Script:
    """A server that gives this answer for each image."""
    return lambda number, images: Reply({kind: [answer(image) for image in images]})


class Fake(ThreadingHTTPServer):
    """Counts every request that reaches it, and keeps its content."""

    daemon_threads = False

    def __init__(self, script: Script, description: Any) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.script, self.description = script, description
        self.received = self.posts = 0
        self.seen: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.over, self.lock = threading.Event(), threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that gave up."""


class FakeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5.0
    server: Fake

    def do_GET(self) -> None:
        self.note()
        described = self.server.description
        self.reply(described if isinstance(described, Reply) else Reply(described))

    def do_POST(self) -> None:
        images = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["images"]
        pngs = [base64.b64decode(image) for image in images]
        with self.server.lock:
            number, self.server.posts = self.server.posts, self.server.posts + 1
            self.server.seen += pngs
        self.note()
        self.reply(self.server.script(number, [decode_png(png) for png in pngs]))

    def note(self) -> None:
        with self.server.lock:
            self.server.received += 1
            self.server.headers.append(dict(self.headers))
            self.server.paths.append(self.path)

    def reply(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        if reply.act == "hang":
            self.server.over.wait(30)
        if reply.act in ("hang", "drop"):
            self.close_connection = True
            return
        if reply.act == "dribble":
            self.send_slowly(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 400 + b"\r\n\r\n")
            return
        self.send_response(reply.status)
        for key, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if reply.act == "drip":
            self.send_slowly(b" " * 400 + body)
            return
        if reply.act == "cut":
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def send_slowly(self, content: bytes) -> None:
        self.close_connection = True
        for i in range(len(content)):
            self.wfile.write(content[i : i + 1])
            self.server.over.wait(0.05)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def fake(script: Script = correct, description: Any = None) -> Iterator[Fake]:
    server = Fake(script, DESCRIPTION if description is None else description)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.socket.close()


class Time:
    """A clock that advances only by waiting."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.at, self.slept = now, cast("list[float]", [])
        self.lock = threading.Lock()

    def wait(self, given_up: threading.Event, seconds: float) -> None:
        with self.lock:
            self.at += seconds
            self.slept.append(seconds)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.at, self.wait, lambda: 1.0)


def black_box(
    url: str, options: str = "", answers_folder: Path | None = None, time: Time | None = None, clock: Clock | None = None
) -> BlackBox:
    spec = parse(f"{url}{'&' if '?' in url else '?'}{options}" if options else url)
    return cast(BlackBox, load(spec, answers_folder, clock or (time or Time()).clock))


def images_of(count: int, seed: int = 1, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    return np.array([row(image) for image in images], np.float32)


# --- a correct server


def test_a_server_is_what_it_describes() -> None:
    with fake() as server:
        remote = target(server.url)
        assert isinstance(remote, Target)
        assert (remote.labels, remote.shape, remote.top_k) == (tuple(LABELS), SHAPE, 3)
        assert not remote.differentiable
        assert remote.formats == ("float32",)
        assert remote.name == server.url
        assert (remote.details["outputs"], remote.details["backend"], remote.details["file"]) == (
            "logits",
            "http",
            server.url,
        )
        assert remote.details["notes"] == []
        images = images_of(70)
        assert np.array_equal(remote.logits(images), expected(images))
        assert (remote.queries, remote.requests, server.received) == (74, 5, 5)  # GET, the probe's 4, 32 + 32 + 6
        with pytest.raises(TargetError, match="a black box, which has neither gradients nor layers"):
            remote.activations(None, "fc")  # type: ignore[arg-type]


def test_images_arrive_unchanged_and_each_is_sent_once() -> None:
    with fake() as server:
        remote = black_box(server.url)
        before = len(server.seen)
        images = images_of(5)
        twice = np.concatenate([images, images[::-1], images])
        assert np.array_equal(remote.logits(twice, pad_to=64), expected(twice))
        assert np.array_equal(np.stack([decode_png(png) for png in server.seen[before:]]), images)
        requests = remote.requests
        assert np.array_equal(remote.logits(images[2:]), expected(images[2:]))
        assert (remote.queries, remote.requests) == (9, requests)
        with pytest.raises(TargetError, match=r"takes uint8 images \(B, 1, 4, 4\), not uint8 \(2, 3, 4, 4\)"):
            remote.logits(np.zeros((2, 3, 4, 4), np.uint8))


@pytest.mark.parametrize("answers", ["logits", "probabilities", "top"])
def test_a_served_target_has_the_scores_of_the_local_one(answers: str) -> None:
    local = target("lenet")
    images = images_of(40, shape=(1, 28, 28)) // np.arange(1, 41, dtype=np.uint8)[:, None, None, None]
    local_odds = scores.log_odds(local.logits(images, 64))
    with serving(local, options=ResponseOptions(answers, top=3 if answers == "top" else None)) as url:
        remote = target(url)
        remote_odds = scores.log_odds(remote.logits(images))
        classes = np.argsort(-local_odds, axis=1)[:, :3] if answers == "top" else np.argsort(-local_odds, axis=1)
        assert remote.top_k == classes.shape[1]
        remote_odds = np.take_along_axis(remote_odds, classes, 1)
        local_odds = np.take_along_axis(local_odds, classes, 1)
        # Equal up to float32's rounding: of a probability's logarithm, and of passes of the server's size.
        assert remote_odds == pytest.approx(local_odds, abs=1e-5)


def test_a_real_server_and_the_target_behind_it_have_the_same_preprocessing_of_photographs() -> None:
    local = target("lenet")
    local.details["preprocessing"] = {**local.details["preprocessing"], "resize": 32, "interpolation": "bicubic"}
    with serving(local) as url:
        assert target(url).details["preprocessing"]["resize"] == 32
        assert target(f"{url}?interpolation=lanczos").details["preprocessing"]["interpolation"] == "lanczos"


def test_the_fingerprint_is_the_classifier_s_alone() -> None:
    with fake() as first, fake() as second, fake(description={**DESCRIPTION, "labels": ["a", "b", "c"]}) as third:
        same = [
            black_box(first.url).fingerprint(),
            black_box(first.url, "max_requests=99&timeout=7&rate=3&batch=2&retries=1&parallel=9").fingerprint(),
            black_box(f"{second.url}path?model=a").fingerprint(),
        ]
        assert len(set(same)) == 1
        assert black_box(third.url).fingerprint() not in same


def test_calls_from_several_threads_are_sent_at_once() -> None:
    both = threading.Barrier(3)

    def together(number: int, images: list[np.ndarray]) -> Reply:
        if number:  # not for the probe
            both.wait(20)
        return correct(number, images)

    with fake(together) as server, ThreadPoolExecutor(3) as pool:
        remote = black_box(server.url, "parallel=3")
        assert remote.streams == 3
        parts = [images_of(3, seed) for seed in range(3)]
        found = list(pool.map(remote.logits, parts))
        assert all(np.array_equal(a, expected(b)) for a, b in zip(found, parts, strict=True))
        assert (remote.queries, remote.requests, server.received) == (13, 5, 5)


# --- servers that do not describe themselves, and options


def test_a_server_without_a_description_needs_size_and_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    options_given = f"size=4&channels=1&labels={tmp_path}/labels.txt"
    for get in (Reply({"error": "POST alone"}, 405), Reply(b"<html>Hello</html>"), Reply({"hello": 1})):
        with fake(description=get) as server:
            remote = black_box(server.url, options_given)
            assert np.array_equal(remote.logits(images_of(3)), expected(images_of(3)))
            assert (remote.queries, remote.requests) == (7, 3)
            for options, missing in (
                ("", "size and labels"),
                (options_given.partition("&labels")[0], "labels"),
                (f"labels={tmp_path}/labels.txt", "size"),
            ):
                with pytest.raises(
                    TargetError, match=rf"does not describe itself \(GET gives .*\), so {missing} must be given"
                ):
                    black_box(server.url, options)
    with (
        fake(description=Reply({"error": "log in"}, 401)) as server,
        pytest.raises(TargetError, match=r'HTTP 401: "log in"$'),
    ):
        black_box(server.url, options_given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "its description has version 2; this evofool supports version 1"),
        ({"labels": ["one"]}, 'has to have "labels", a list of at least two names'),
        ({"labels": ["one", 2]}, 'has to have "labels", a list of at least two names'),
        ({"shape": [4, 4]}, r'has the "shape" \[4, 4\]; it has to be \[1 or 3, height, width\]'),
        ({"shape": [2, 4, 4]}, 'has the "shape"'),
        ({"shape": [3, 0, 4]}, 'has the "shape"'),
        ({"shape": None}, 'has the "shape" null'),
        ({"answers": "labels"}, 'has the "answers" "labels"; there are logits, probabilities, top'),
        ({"photographs": {"resize": -1}}, 'has to have "resize"'),
        ({"photographs": {"scale": 2}}, 'has to have "resize"'),
        ({"photographs": [1]}, 'has to have "resize"'),
    ],
)
def test_a_description_that_is_wrong_is_refused(change: dict[str, Any], message: str) -> None:
    with fake(description={**DESCRIPTION, **change}) as server, pytest.raises(TargetError, match=message):
        black_box(server.url)


def test_invalid_options_and_options_that_contradict_the_server_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two.txt").write_text("a\nb\n")
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setenv("BENT", "a\nb")
    with fake() as server:
        for options, message in (
            ("size=5", r"its images are \[1, 4, 4\], not \[1, 5, 5\]; leave size= and channels= out"),
            ("channels=3", r"its images are \[1, 4, 4\], not \[3, 4, 4\]"),
            ("channels=2", r"channels is 2; it has to be 1 \(grey\) or 3 \(RGB\)"),
            (f"labels={tmp_path}/two.txt", "it has 3 labels, but there are 2 in .*two.txt"),
            ("outputs=top", "it answers logits, not top; leave outputs= out"),
            ("outputs=best", 'outputs "best" is none of auto, logits, probabilities, top'),
            ("mean=0.5&std=0.5", "mean, std cannot be set: the server preprocesses its images itself"),
            ("scale=1", "scale cannot be set"),
            ("order=BGR", "order cannot be set"),
            ("crops=10", "crops cannot be set"),
            ("device=cpu", "device cannot be set"),
            ("timeout=0", "timeout is 0; it has to be a number above 0"),
            ("rate=-1", "rate is -1; it has to be a number above 0"),
            ("rate=inf", "rate is inf; it has to be a number above 0"),
            ("batch=0", 'batch is "0"; it has to be a whole number, 1 or more'),
            ("max_requests=many", 'max_requests is "many"'),
            ("timeuot=3", 'no option "timeuot"; did you mean "timeout"'),
            (
                "token_env=NOT_THERE_AT_ALL",
                "token_env names NOT_THERE_AT_ALL, but the environment variable NOT_THERE_AT_ALL is not set",
            ),
            ("token_env=EMPTY", "EMPTY is not set, or empty"),
            ("token_env=BENT", "the value of BENT cannot be a token"),
        ):
            with pytest.raises(TargetError, match=message):
                black_box(server.url, options)
        assert server.posts == 0
    for url, message in (
        ("http://", "is not the URL of a server"),
        ("http://[1", "is not the URL of a server"),
        ("http://h:99999/", "is not the URL of a server"),
        ("http://me:secret@host/", "http://host/: a password in a URL would be stored with the run"),
    ):
        with pytest.raises(TargetError, match=message) as caught:
            black_box(url)
        assert "secret" not in str(caught.value)


def test_the_rest_of_a_query_goes_to_the_server_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_MINE", "sesame")
    with fake() as server:
        remote = black_box(f"{server.url}classify?model=secret-7&batch=2&token_env=KEY_OF_MINE")
        remote.logits(images_of(3))
        assert server.paths == ["/classify?model=secret-7"] * 4
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer sesame"}
        assert remote.details["file"] == f"{server.url}classify?model=..."
        assert "sesame" not in f"{remote.name}{remote.details}"
        server.script = lambda number, images: Reply({"error": "no more"}, 403)
        with pytest.raises(TargetError, match=r'classify\?model=\.\.\.: HTTP 403: "no more"$') as caught:
            remote.logits(images_of(3, 2))
        assert "secret-7" not in str(caught.value)


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
        found = [pool.submit(remote.logits, images_of(40, seed)) for seed in range(calls)]
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
            assert np.array_equal(remote.logits(images_of(40)), expected(images_of(40)))


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
        first = black_box(server.url, "rate=4&batch=1", tmp_path, time)
        first.logits(images_of(4))
        second = black_box(server.url, "rate=4&batch=1", tmp_path, time)
        second.logits(images_of(6))
    assert np.diff(times) == pytest.approx([0.25] * 4 + [0.5, 0.25])  # the second description counts too


# --- the limit of requests, and the ledger


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
        monkeypatch.setattr("evofool.targets.http_client.MAX_BYTES", 1 << 20)
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
            "every probability in the answers to noise is 0 or 1: the server may return only the class"
            in remote.details["notes"][0]
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


def test_a_missing_httpx_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(TargetError, match=r"a target over HTTP needs httpx: pip install 'evofool\[http\]'"):
        target("http://127.0.0.1:1/")
