"""A black box over HTTP, tested with real servers on this machine: correct ones, their descriptions and options."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool import scores
from evofool.errors import TargetError
from evofool.images import decode_png
from evofool.targets import Target, target
from evofool.targets.remote.serve import ResponseOptions, serving
from tests.targets.remote.scripted_server import (
    DESCRIPTION,
    LABELS,
    SHAPE,
    Reply,
    black_box,
    correct,
    expected,
    fake,
    images_of,
)

pytest.importorskip("httpx")


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
        ({"photographs": {"resize": 4097}}, r'has to have "resize" \(null, or pixels, at most 4,096\)'),
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
            ("token_env=BENT", "the value of BENT cannot be sent"),
            (
                "header_env=x-api-key:NOT_THERE",
                "header_env names NOT_THERE, but the environment variable",
            ),
            ("header_env=x-api-key", 'header_env is "x-api-key"; it has to be HEADER:VARIABLE'),
            ("header_env=x api:EMPTY", "it has to be HEADER:VARIABLE"),
            ("header_env=x-a:PATH,X-A:PATH", "the header X-A is given twice"),
            ("header_env=Content-Length:PATH", "header_env cannot set Content-Length, which every request has"),
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


def test_headers_from_the_environment_are_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_MINE", "sesame")
    monkeypatch.setenv("MY_GROUP", "forty")
    with fake() as server:
        remote = black_box(f"{server.url}?header_env=x-api-key:KEY_OF_MINE,x-group:MY_GROUP")
        sent = [{key.lower(): value for key, value in headers.items()} for headers in server.headers]
        assert {(headers["x-api-key"], headers["x-group"]) for headers in sent} == {("sesame", "forty")}
        assert "sesame" not in f"{remote.name}{remote.details}{remote.description()}"
        server.script = lambda number, images: Reply({"error": "the key sesame of forty has no rights"}, 403)
        with pytest.raises(TargetError, match=r'HTTP 403: "the key \.\.\. of \.\.\. has no rights"$'):
            remote.logits(images_of(3, 2))


def test_a_missing_httpx_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(TargetError, match=r"a target over HTTP needs httpx: pip install 'evofool\[http\]'"):
        target("http://127.0.0.1:1/")
