"""Serving a target by the contract of docs/black-box.md and the Open Inference Protocol: requests, and refusals."""

import base64
import http.client
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.images import encode_png
from evofool.targets import KINDS, Preprocessing, Target, target
from evofool.targets.remote import serve
from evofool.targets.remote.serve import ResponseOptions, serving

SHAPE = (3, 5, 7)
ROOT = Path(__file__).parents[3]


def answers_of(images: np.ndarray) -> np.ndarray:
    """Logits of which the third is NaN for a wholly white image."""
    x = images.reshape(len(images), -1).astype(np.float32)
    third = np.where(x.min(axis=1) == 255, np.nan, 1.0)
    return np.stack([x.mean(axis=1) / 30, x.std(axis=1) / 9, third, x[:, 0] / 100], axis=1).astype(np.float32)


def small() -> Target:
    return Target.probed("small", answers_of, list("abcd"), SHAPE, Preprocessing(), "auto", {})


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def encoded(images: np.ndarray) -> list[str]:
    return [base64.b64encode(encode_png(image)).decode() for image in images]


def send(
    url: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text)["error"] if text else ""


def post(url: str, images: list[str] | Any) -> tuple[int, Any]:
    return send(url, json.dumps({"images": images}).encode())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(small()) as url:
        yield url


def test_it_describes_itself(url: str) -> None:
    assert send(url) == (
        200,
        {
            "format": "evofool.target",
            "version": 1,
            "name": "small",
            "labels": ["a", "b", "c", "d"],
            "shape": [3, 5, 7],
            "answers": "logits",
            "photographs": {"resize": None, "interpolation": "bilinear"},
        },
    )


def test_logits_are_exact_for_any_number_of_images(url: str) -> None:
    for count in (1, 5, 32, 70):
        status, answer = post(url, encoded(images_of(count)))
        assert status == 200
        assert np.array_equal(np.array(answer["logits"], np.float32), answers_of(images_of(count)))


def test_probabilities_and_top_classes_are_those_of_the_logits() -> None:
    images = images_of(6)
    z = answers_of(images).astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    with serving(small(), options=ResponseOptions("probabilities")) as url:
        assert np.array(post(url, encoded(images))[1]["probabilities"]) == pytest.approx(p, abs=1e-12)
    with serving(small(), options=ResponseOptions("probabilities", decimals=2)) as url:
        assert post(url, encoded(images))[1]["probabilities"] == np.round(p, 2).tolist()
    with serving(small(), options=ResponseOptions("top", top=2, decimals=3)) as url:
        for entries, row in zip(post(url, encoded(images))[1]["top"], p, strict=True):
            best = np.argsort(-row)[:2]
            assert entries == [{"class": int(c), "probability": round(float(row[c]), 3)} for c in best]
    with serving(small(), options=ResponseOptions("top")) as url:
        assert {len(row) for row in post(url, encoded(images))[1]["top"]} == {4}


def test_every_forward_pass_is_of_one_size() -> None:
    sizes: list[int] = []

    def forward(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return answers_of(images)

    with serving(Target("recording", list("abcd"), SHAPE, forward, {}), options=ResponseOptions(batch=8)) as url:
        for count in (1, 8, 20):
            post(url, encoded(images_of(count)))
    assert sizes == [8] * 5


def test_invalid_requests_are_refused_with_the_reason(url: str) -> None:
    good = encoded(images_of(1))[0]
    grey = base64.b64encode(encode_png(images_of(1)[0, :1])).decode()
    large = base64.b64encode(encode_png(np.zeros((3, 500, 400), np.uint8))).decode()
    broken = base64.b64encode(base64.b64decode(good)[:-40]).decode()
    for body, message in (
        (b"", "empty"),
        (b"images", "not JSON, but"),
        (b"[" * 50_000, "not JSON, but"),
        (b'{"images": [NaN]}', "the answer contains NaN"),
        (b"[]", r'a request has to be \{"images": \["base64 of a PNG", ...\]\}, one image or more'),
        (b'{"images": []}', "one image or more"),
        (b'{"images": [1]}', "one image or more"),
        (b'{"images": "abc"}', "one image or more"),
        (json.dumps({"images": [good, "%%%"]}).encode(), "image 1 is not base64"),
        (json.dumps({"images": ["\u00fc"]}).encode(), "image 0 is not base64"),
        (json.dumps({"images": ["aGVsbG8="]}).encode(), "image 0 is not a PNG"),
        (json.dumps({"images": [broken]}).encode(), "image 0: not a whole PNG"),
        (
            json.dumps({"images": [grey]}).encode(),
            r"image 0 is grey \(mode L\) .*; it has to be colour \(mode RGB\) \(3, 5, 7\)",
        ),
        (json.dumps({"images": [large]}).encode(), r"image 0 has 500x400 pixels \(height x width\); they have to be 5x7"),
    ):
        status, reason = send(url, body)
        assert (status, bool(re.search(message, str(reason)))) == (400, True), (body[:60], reason)


def test_a_small_png_of_a_huge_picture_is_never_unpacked(url: str) -> None:
    png = bytearray(base64.b64decode(encoded(images_of(1))[0]))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    assert post(url, [base64.b64encode(png).decode()]) == (
        400,
        "image 0 has 60000x60000 pixels (height x width); they have to be 5x7",
    )


def test_other_paths_methods_lengths_and_hosts_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(f"{url}elsewhere") == (404, "there is no /elsewhere here; the target is at / or /v2/models/small/infer")
    assert send(f"{url}?model=a")[0] == 200
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert send(url, b"{}", method=method) == (405, "only GET, for the description, and POST, for images, are supported")
    assert send(url, method="HEAD") == (405, "")
    monkeypatch.setattr(serve, "MAX_BYTES", 100)
    assert send(url, b"x" * 101) == (413, "a request of 101 bytes is too long; send at most 100, fewer images at once")
    monkeypatch.undo()
    for host, status in (
        ("localhost:81", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ):
        assert send(url, headers={"Host": host})[0] == status, host
    assert (
        send(url, headers={"Host": "evil.example"})[1]
        == "the host 'evil.example' is not served here; use localhost or an IP address"
    )
    port = int(url.rpartition(":")[2].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert raw.makefile("rb").readline().startswith(b"HTTP/1.1 411 ")


def test_errors_of_the_classifier_are_reported(url: str) -> None:
    white = np.full((1, *SHAPE), 255, np.uint8)
    assert post(url, encoded(white)) == (500, "ArithmeticError: the classifier's answer is not finite")

    def broken(images: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("in the user's code")

    with serving(Target("broken", list("ab"), SHAPE, broken, {})) as other:
        assert post(other, encoded(white)) == (
            500,
            "broken: failed on 8 images (ZeroDivisionError: in the user's code)",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ResponseOptions("labels"), 'answers "labels" is none of logits, probabilities, top'),
        (ResponseOptions(top=3), 'top=3 with answers "logits": it has to be 1 to 4, with answers "top"'),
        (ResponseOptions("top", top=5), "top=5"),
        (ResponseOptions(decimals=3), 'decimals=3 with answers "logits": it has to be 1 to 15, with probabilities or top'),
        (ResponseOptions("probabilities", decimals=0), "decimals=0"),
    ],
)
def test_options_that_cannot_be_served_are_refused(options: ResponseOptions, message: str) -> None:
    with pytest.raises(TargetError, match=message), serving(small(), options=options):
        pass


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 99999)])
def test_addresses_that_cannot_be_served_are_refused(host: str, port: int) -> None:
    with pytest.raises(TargetError, match=rf"cannot serve on {re.escape(host)}, port {port}"), serving(small(), host, port):
        pass


def test_a_port_in_use_is_reported(url: str) -> None:
    port = int(url.rpartition(":")[2].strip("/"))
    with pytest.raises(TargetError, match=rf"cannot serve on 127\.0\.0\.1, port {port} \(.*; choose another --port"):
        serve.serve(small(), port=port)


def test_it_ends_at_once_although_clients_keep_their_connections() -> None:
    with serving(small()) as url:
        client = target(url)
        assert np.array_equal(client.logits(images_of(3)), answers_of(images_of(3)))
        idle = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2].strip("/")), timeout=20)
        idle.request("GET", "/")
        assert idle.getresponse().read()
    assert idle.sock.recv(1) == b""
    idle.close()
    with pytest.raises(urllib.error.URLError):
        send(url)


def test_serve_reports_its_url_and_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    started = threading.Event()
    servers: list[ThreadingHTTPServer] = []
    forever = ThreadingHTTPServer.serve_forever

    def until_ctrl_c(self: ThreadingHTTPServer, poll_interval: float) -> None:
        servers.append(self)
        forever(self, 0.01)
        raise KeyboardInterrupt

    def report(line: str) -> None:
        reported.append(line)
        started.set()

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", until_ctrl_c)
    thread = threading.Thread(target=serve.serve, args=(small(),), kwargs={"report": report, "report_every": 2})
    thread.start()
    assert started.wait(20)
    url = reported[0].removeprefix("small answers at ")
    for count in (1, 2, 3, 4):
        post(url, encoded(images_of(count)))
    servers[0].shutdown()
    thread.join(20)
    assert not thread.is_alive()
    assert reported[1] == f"By the Open Inference Protocol:  {url.replace('http', 'kserve')}v2/models/small"
    assert reported[2:] == ["2 requests, 3 images", "4 requests, 10 images", "4 requests, 10 images"]


def test_it_serves_over_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(small(), host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert send(url)[0] == 200


def test_the_example_service_in_the_documents_follows_the_contract() -> None:
    page = (ROOT / "docs" / "black-box.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "service"}
    exec(code, names)
    names["Handler"].log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), names["Handler"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        client = target(f"http://127.0.0.1:{server.server_address[1]}/")
        assert client.labels == ("dark", "bright")
        images = np.stack([np.full((1, 8, 8), level, np.uint8) for level in (51, 204)])
        p = np.exp(client.logits(images))
        assert p == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]), abs=1e-6)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_option_is_in_the_documents() -> None:
    options = KINDS["http"].options or ()

    page = (ROOT / "docs" / "black-box.md").read_text()
    assert [option for option in options if f"`{option}`" not in page] == []


# --- the Open Inference Protocol


def infer(url: str, body: Any) -> tuple[int, Any]:
    return send(f"{url}v2/models/small/infer", json.dumps(body).encode())


def tensor(images: np.ndarray, **change: Any) -> dict[str, Any]:
    found = {"name": "images", "shape": list(images.shape), "datatype": "UINT8", "data": images.tolist(), **change}
    return {"id": "7", "inputs": [found]}


def test_a_served_target_speaks_the_open_inference_protocol_with_the_scores_of_the_local_one(url: str) -> None:
    assert send(f"{url}v2")[1] == {"name": "evofool", "version": version("evofool"), "extensions": []}
    assert send(f"{url}v2/health/ready") == (200, {"ready": True})
    assert send(f"{url}v2/models/small/ready") == (200, {"name": "small", "ready": True})
    described = send(f"{url}v2/models/small")[1]
    (only,) = described["versions"]
    assert send(f"{url}v2/models/small/versions/{only}")[1] == described
    assert send(f"{url}v2/models/small/versions/{only}/ready")[0] == 200
    assert send(f"{url}v2/models/small/versions/{only}/infer", json.dumps(tensor(images_of(1))).encode())[0] == 200
    assert send(f"{url}v2/models/small/versions/{only}2")[0] == 404
    local, images = small(), images_of(3)
    assert described["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, *local.shape]}]
    assert described["parameters"] == {"labels": list(local.labels)}
    status, answer = infer(url, tensor(images))
    (output,) = answer["outputs"]
    assert (status, answer["id"], output["name"], output["datatype"]) == (200, "7", "logits", "FP32")
    found = np.array(output["data"]).reshape(output["shape"])
    assert np.array_equal(found, local.logits(images, 8))
    remote = target(f"{url.replace('http', 'kserve')}v2/models/small")
    assert (remote.labels, remote.shape) == (local.labels, local.shape)
    assert np.array_equal(remote.logits(images), found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": []}, 'has to have "inputs", a list of one tensor'),
        ({"images": []}, 'has to have "inputs", a list of one tensor'),
        (tensor(images_of(2), name="x"), 'the name of the input is "x"; it has to be "images"'),
        (tensor(images_of(2), datatype="FP32"), 'the datatype of the input is "FP32"; it has to be "UINT8"'),
        (tensor(images_of(2), shape=[2, 3]), "the input has the shape [2, 3]; it has to be [n, 3, 5, 7]"),
        (tensor(images_of(2), shape=[3, 3, 5, 7]), "whole numbers from 0 to 255, as many as the shape [3, 3, 5, 7] has"),
        (tensor(images_of(1), data=[0.5] * 105), "whole numbers from 0 to 255"),
        (tensor(images_of(1), data=[256] * 105), "whole numbers from 0 to 255"),
        (tensor(images_of(1), data=[[1], [1, 2]]), "whole numbers from 0 to 255"),
        (tensor(images_of(1)) | {"outputs": [{"name": "y"}]}, 'the only output is "logits"'),
    ],
)
def test_tensors_that_are_wrong_are_refused(url: str, body: Any, message: str) -> None:
    status, error = infer(url, body)
    assert status == 400
    assert message in (error if isinstance(error, str) else error["error"])


def test_the_most_likely_classes_alone_have_no_form_in_the_open_inference_protocol() -> None:
    with serving(small(), options=ResponseOptions("top", top=2)) as url:
        assert send(f"{url}v2/models/small")[0] == 404
        status, error = infer(url, tensor(images_of(1)))
        assert status == 404
        assert "send them to /" in str(error)
