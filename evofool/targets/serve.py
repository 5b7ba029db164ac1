"""Any target behind the contract of docs/black-box.md, on this machine: for tests, and for whoever asks from elsewhere."""

import base64
import binascii
import ipaddress
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from evofool.errors import EvofoolError, ImageError, TargetError
from evofool.images import decode_png
from evofool.targets.http import FORMAT, VERSION
from evofool.targets.responses import KINDS, Garbled, parsed
from evofool.targets.target import Target

MOST_BYTES = 64 << 20  # of a request
_SILENCE = 60.0  # seconds after which a connection on which nothing comes is closed


def serve(
    target: Target,
    host: str = "127.0.0.1",
    port: int = 0,
    answers: str = "logits",
    decimals: int | None = None,
    top: int | None = None,
    batch: int = 8,
    say: Callable[[str], None] = print,
    every: int = 0,
) -> None:
    """Serve until Ctrl-C. say gets the URL once it answers, and a line after every so many requests (0: none).

    port 0: any that is free. answers: "logits", "probabilities" or "top", the `top` likeliest classes (5 unless given).
    decimals rounds probabilities. batch is the size of every forward pass, filled up with black: an answer then depends on
    its image alone.
    """
    server = _Server(target, host, port, answers, decimals, top, batch, say, every)
    try:
        say(f"{target.name} answers at {server.url}")
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        say(f"{server.requests:,} requests, {server.images:,} images")
    finally:
        server.server_close()


@contextmanager
def serving(
    target: Target,
    host: str = "127.0.0.1",
    port: int = 0,
    answers: str = "logits",
    decimals: int | None = None,
    top: int | None = None,
    batch: int = 8,
) -> Iterator[str]:
    """The same in a thread of its own while the block runs; yields the URL."""
    server = _Server(target, host, port, answers, decimals, top, batch)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the answers under way
    request_queue_size = 128

    def __init__(
        self,
        target: Target,
        host: str,
        port: int,
        answers: str,
        decimals: int | None,
        top: int | None,
        batch: int,
        say: Callable[[str], None] | None = None,
        every: int = 0,
    ) -> None:
        classes = len(target.labels)
        if answers not in KINDS:
            raise TargetError(f'answers "{answers}" is none of {", ".join(KINDS)}')
        if top is not None and (answers != "top" or not 1 <= top <= classes):
            raise TargetError(f'top={top} with answers "{answers}": it has to be 1 to {classes}, with answers "top"')
        if decimals is not None and (answers == "logits" or not 1 <= decimals <= 15):
            raise TargetError(
                f'decimals={decimals} with answers "{answers}": it has to be 1 to 15, with probabilities or top'
            )
        self.target, self.answers, self.decimals = target, answers, decimals
        self.top = top or min(5, classes)
        self.batch, self.say, self.every = batch, say, every
        self.requests = self.images = 0
        self._lock, self._forward = threading.Lock(), threading.Lock()
        self._connections: set[socket.socket] = set()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise TargetError(f"cannot serve on {host}, port {port} ({error}); choose another --port or --host") from None
        self.bound_to = host
        address, port = str(self.server_address[0]), self.server_address[1]
        self.loopback = ipaddress.ip_address(address).is_loopback
        self.url = f"http://[{address}]:{port}/" if ":" in host else f"http://{address}:{port}/"

    def description(self) -> dict[str, Any]:
        known = self.target.details.get("preprocessing", {})
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.target.name,
            "labels": list(self.target.labels),
            "shape": list(self.target.shape),
            "answers": self.answers,
            "photographs": {key: known[key] for key in ("resize", "interpolation") if key in known},
        }

    def answer(self, images: np.ndarray) -> dict[str, Any]:
        """uint8 (B, C, H, W) to what is sent; floats are exact in JSON, since Python writes as many digits as that takes."""
        with self._forward:  # one forward pass at a time: each may take all cores and much memory
            parts = [self.target.logits(images[i : i + self.batch], self.batch) for i in range(0, len(images), self.batch)]
        z = np.concatenate(parts).astype(np.float64)
        if not np.isfinite(z).all():
            raise ArithmeticError("the classifier's answer is not finite")
        if self.answers == "logits":
            return {"logits": z.tolist()}
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        shown = p if self.decimals is None else np.round(p, self.decimals)
        if self.answers == "probabilities":
            return {"probabilities": shown.tolist()}
        best = np.argsort(-p, axis=1, kind="stable")[:, : self.top]
        return {
            "top": [
                [{"class": int(c), "probability": float(row[c])} for c in classes]
                for row, classes in zip(shown, best, strict=True)
            ]
        }

    def count(self, images: int) -> None:
        with self._lock:
            self.requests += 1
            self.images += images
            if self.say and self.every and self.requests % self.every == 0:
                self.say(f"{self.requests:,} requests, {self.images:,} images")

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        # Connections that a client keeps open would hold their threads, and these would hold us.
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was dropped is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE
    server: _Server

    def do_GET(self) -> None:
        if self._welcome():
            self._send(200, self.server.description())

    def do_POST(self) -> None:
        if not self._welcome():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._refuse(411, "a request has to tell its Content-Length")
        elif int(length) > MOST_BYTES:
            self._refuse(413, f"a request of {length} bytes is too long; send at most {MOST_BYTES}, fewer images at once")
        else:
            body = self.rfile.read(int(length))
            self._send(*self._answer(body))

    def _answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            images = images_of(body, self.server.target.shape)
        except (ImageError, Garbled) as error:
            return 400, {"error": str(error)}
        try:
            answer = self.server.answer(images)
        except Exception as error:  # whatever somebody's own network raises
            return 500, {"error": str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {error}"}
        self.server.count(len(images))
        return 200, answer

    def do_PUT(self) -> None:
        self._refuse(405, "there are GET, for a description, and POST, for images", {"Allow": "GET, POST"})

    do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_PUT

    def log_message(self, *_: Any) -> None:
        """One line per request would be all that one sees."""

    def _welcome(self) -> bool:
        """Whether the request is for this server, by its Host (against a page that rebinds its name to us) and its path."""
        named = self.headers.get("Host", "").strip()
        name = named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0]
        if self.server.loopback and name not in ("localhost", self.server.bound_to) and not _is_address(name):
            self._refuse(403, f"no host {name!r} is served here; ask localhost or an address")
        elif self.path.partition("?")[0] != "/":
            self._refuse(404, "there is nothing but /")
        else:
            return True
        return False

    def _refuse(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        """Say no without having read the request's body, so the connection cannot be used again."""
        self.close_connection = True
        self._send(status, {"error": why}, {"Connection": "close", **(headers or {})})

    def _send(self, status: int, what: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(what, allow_nan=False).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def images_of(body: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The uint8 (B, C, H, W) of a request's body, B >= 1; ImageError or Garbled says what is wrong with it."""
    try:
        told = parsed(body)
    except TargetError as error:
        raise ImageError(str(error)) from None
    texts = told.get("images") if isinstance(told, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ImageError('a request has to be {"images": ["base64 of a PNG", ...]}, one image or more')
    return np.stack([_image(text, i, shape) for i, text in enumerate(texts)])


def _image(text: str, i: int, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        png = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"image {i} is no base64 ({error})") from None
    # Before it is unpacked: a small PNG can hold a picture that fills all memory.
    if png[12:16] != b"IHDR" or len(png) < 24:
        raise ImageError(f"image {i} is no PNG")
    width, height = struct.unpack(">II", png[16:24])
    if (height, width) != shape[1:]:
        raise ImageError(f"image {i} has {height}x{width} pixels (height x width); they have to be {shape[1]}x{shape[2]}")
    image = decode_png(png, f"image {i}")
    if image.shape != shape:
        kinds = {1: "grey (mode L)", 3: "colour (mode RGB)"}
        raise ImageError(
            f"image {i} is {kinds.get(image.shape[0])} of shape {image.shape}; it has to be {kinds[shape[0]]} {shape}"
        )
    return image


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
