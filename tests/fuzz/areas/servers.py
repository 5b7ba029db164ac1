"""Answers of a black box over HTTP, sent by a raw socket: status lines, headers, bodies, and how they are delivered."""

import atexit
import base64
import socket
import threading
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from evofool.images import encode_png
from evofool.targets.remote.client import Clock
from evofool.targets.remote.loader import load
from evofool.targets.remote.serve import serving
from evofool.targets.spec import parse
from tests.fuzz.mutations import STRINGS, apply_bytes, apply_json, as_json, byte_edits, json_edits
from tests.fuzz.room import Area, Fault, Room
from tests.synthetic import fake

DESCRIPTION = {
    "format": "evofool.target", "version": 1, "name": "x", "labels": ["ant", "bee", "cat"], "shape": [1, 4, 4],
    "answers": "logits", "photographs": {"resize": 8, "interpolation": "bilinear"},
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "logits": {"logits": [[0.5, -1.25, 3.0 + k] for k in range(4)]},
    "probabilities": {"probabilities": [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]},
    "top": {"top": [[{"class": "ant", "probability": 0.5}, {"class": 1, "probability": 0.25}]] * 4},
}


class Server:
    """Answers each request with the bytes that are set, and closes the connection."""

    def __init__(self) -> None:
        self.get = self.post = b""
        self.delivery = "whole"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection, suppress(OSError):  # the client has hung up
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        request = b""
        while b"\r\n\r\n" not in request:
            more = connection.recv(65_536)
            if not more:
                return
            request += more
        head, _, body = request.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
                while len(body) < length:
                    body += connection.recv(65_536)
        answer = self.get if head.startswith(b"GET") else self.post
        if self.delivery == "drip":
            for k in range(min(len(answer), 40)):
                connection.sendall(answer[k : k + 1])
                threading.Event().wait(0.02)
        elif self.delivery == "silent":
            threading.Event().wait(0.4)
        elif self.delivery == "endless":
            connection.sendall(answer)
            for _ in range(200):
                connection.sendall(b"x" * (1 << 20))
        else:
            connection.sendall(answer)


@cache
def server() -> Server:
    return Server()


def no_waiting() -> Clock:
    """A clock that does not wait."""
    return Clock(wait=lambda call, seconds: None)


def message(status: str, headers: list[tuple[str, str]], body: bytes, length: str | None) -> bytes:
    lines = [status, *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body) if length is None else length}"] if length != "none" else []
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def enter(case: tuple[Any, ...], room: Room) -> None:
    which, kind, how, edits, (status, headers, length, delivery), options = case
    there = server()
    description = DESCRIPTION | {"answers": kind}
    whole = {"get": as_json(description), "post": as_json(ANSWERS[kind])}
    there.get, there.post = (message("HTTP/1.1 200 OK", [], whole[name].encode(), None) for name in ("get", "post"))
    sample: Any = description if which == "get" else ANSWERS[kind]
    if how == "json":
        body = as_json(apply_json(sample, edits)).encode("utf-8", "surrogatepass")
    else:
        body = apply_bytes(as_json(sample).encode(), edits) if how == "bytes" else edits
    setattr(there, which, message(status, headers, body, length))
    there.delivery = delivery
    spec = f"http://127.0.0.1:{there.port}/x?timeout=0.15&retries=1{options}"
    target = load(parse(spec), room.work, no_waiting())
    if np.prod(target.shape) <= 1 << 16:
        target.logits(np.arange(4 * int(np.prod(target.shape)), dtype=np.uint8).reshape(4, *target.shape))


_NORMAL = ("HTTP/1.1 200 OK", [], None, "whole")
_STATUS = st.sampled_from(
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 301 x",
        "HTTP/1.1 404 \x1b[2J",
        "HTTP/1.1 429 x",
        "HTTP/1.1 500 x",
        "HTTP/1.1 100 x",
        "HTTP/1.1 204 x",
        "HTTP/1.1 999 x",
        "HTTP/9.9 200 OK",
        "ICY 200 OK",
        "",
        "HTTP/1.1 401 x",
        "HTTP/1.1 101 x",
        "HTTP/1.0 200",
    ]
)
_NAMES = [
    "Location",
    "Retry-After",
    "Content-Encoding",
    "Transfer-Encoding",
    "Content-Type",
    "Connection",
    "Set-Cookie",
    "",
    "X\x00",
]
_HEADER_VALUES = st.one_of(
    st.sampled_from(
        [
            *(s for s in STRINGS if "\n" not in s),
            "gzip",
            "chunked",
            "identity",
            "0",
            "1e9",
            "http://127.0.0.1:1/",
            "//[",
            "http://[::1",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Thu, 01 Jan 0001 00:00:00 +2359",
            "close",
            "text/html",
        ]
    ),
    st.text(max_size=8),
)
_TRANSPORT = st.one_of(
    st.just(_NORMAL),
    st.tuples(
        _STATUS,
        st.lists(st.tuples(st.sampled_from(_NAMES), _HEADER_VALUES), max_size=2),
        st.sampled_from([None, None, None, "none", "5", "99999", "-1", "x", "9" * 30]),
        st.sampled_from(["whole"] * 24 + ["drip", "silent", "endless"]),
    ),
)
_BODY = st.one_of(
    st.tuples(st.just("json"), json_edits()),
    st.tuples(st.just("json"), json_edits()),
    st.tuples(st.just("bytes"), byte_edits()),
    st.tuples(st.just("raw"), st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"null", b"[]", b"{" * 99_999]))),
)
CASES = st.builds(
    lambda which, kind, body, transport, options: (which, kind, *body, transport, options),
    st.sampled_from(["get", "post", "post"]),
    st.sampled_from(sorted(ANSWERS)),
    _BODY,
    _TRANSPORT,
    st.sampled_from(["", "", "", "&size=4", "&channels=1", "&batch=2", "&max_requests=1"]),
)
AREA = Area("servers", CASES, enter, 4, prepare=server)


@cache
def url() -> str:
    """Where `evofool targets serve` answers, until this process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(serving(fake(shape=(1, 4, 4))))


def request(case: tuple[Any, ...], _: Room) -> None:
    """A request to our own server, which has to answer whatever it is."""
    method, how, edits, headers, length = case
    png = base64.b64encode(encode_png(np.zeros((1, 4, 4), np.uint8))).decode()
    sample: Any = {"images": [png, png]}
    if how == "json":
        body = as_json(apply_json(sample, edits)).encode("utf-8", "surrogatepass")
    elif how == "png":
        damaged = base64.b64encode(apply_bytes(base64.b64decode(png), edits)).decode()
        body = as_json({"images": [damaged, png]}).encode()
    else:
        body = apply_bytes(as_json(sample).encode(), edits)
    host, port = url().removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        lines = [("Host", "localhost"), ("Connection", "close"), *headers]
        connection.sendall(message(f"{method} / HTTP/1.1", lines, body, length))
        with suppress(OSError):  # it may have answered and closed already
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
    if not answer.startswith(b"HTTP/1."):
        raise Fault(f"a request gets no answer\n{answer[:300]!r}")


_LENGTH = st.sampled_from([None, None, None, None, "none", "-1", "x", "9" * 30, "9" * 5000, "²", "٣"])
REQUESTS = st.builds(
    lambda method, body, headers, length: (method, *body, headers, length),
    st.sampled_from(["POST", "POST", "POST", "POST", "GET", "PUT", "HEAD", "X"]),
    st.one_of(
        st.tuples(st.just("json"), json_edits()),
        st.tuples(st.just("png"), byte_edits()),
        st.tuples(st.just("bytes"), byte_edits()),
    ),
    st.lists(
        st.tuples(st.sampled_from(["Expect", "Transfer-Encoding", "Content-Type", "Cookie"]), _HEADER_VALUES), max_size=2
    ),
    _LENGTH,
)
REQUESTS_AREA = Area("requests", REQUESTS, request, 4, prepare=url)
