"""A scripted server on this machine, and a black box that asks it."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from evofool.images import decode_png
from evofool.targets.remote.black_box import BlackBox
from evofool.targets.remote.client import Clock
from evofool.targets.remote.loader import load
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
    act: str = "answer"  # or "hang" until the test ends, "hold" until the client is gone, "drop" before an answer, "cut" in
    # the middle of it; or single bytes, for far longer than any test's time-out: "dribble" from the start, "drip" from the
    # body


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
        self.clients_gone = threading.Semaphore(0)  # those that were held
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
        if reply.act == "hold":
            self.connection.settimeout(30)
            if self.connection.recv(1) == b"":
                self.server.clients_gone.release()
        if reply.act in ("hang", "hold", "drop"):
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
