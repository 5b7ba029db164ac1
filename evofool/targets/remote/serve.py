"""Serve a target over HTTP, for tests and for clients elsewhere: by the contract of docs/black-box.md, and under /v2 by the
Open Inference Protocol."""

import base64
import binascii
import ipaddress
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from evofool.errors import EvofoolError, ImageError, TargetError
from evofool.images import decode_png
from evofool.scores import confidence
from evofool.targets.classifier import Target
from evofool.targets.remote import serve_open
from evofool.targets.remote.own_contract import FORMAT, VERSION
from evofool.targets.remote.responses import InvalidJson, parse_json
from evofool.text import whole_number

MAX_BYTES = 64 << 20  # of a request
_IDLE_TIMEOUT = 60.0  # seconds after which an idle connection is closed


ANSWERS = ("logits", "probabilities", "top")


@dataclass(frozen=True)
class ResponseOptions:
    """What a served target returns.

    answers: "logits", "probabilities" or "top", the `top` most likely classes (5 by default). decimals: rounds
    probabilities. batch: the size of every forward pass, padded with black, so that an answer depends on its image only.
    """

    answers: str = "logits"
    decimals: int | None = None
    top: int | None = None
    batch: int = 8

    def check(self, classes: int) -> None:
        """TargetError for options that do not fit each other or the number of classes."""
        if self.answers not in ANSWERS:
            raise TargetError(f'answers "{self.answers}" is none of {", ".join(ANSWERS)}')
        if self.top is not None and (self.answers != "top" or not 1 <= self.top <= classes):
            raise TargetError(
                f'top={self.top} with answers "{self.answers}": it has to be 1 to {classes}, with answers "top"'
            )
        if self.decimals is not None and (self.answers == "logits" or not 1 <= self.decimals <= 15):
            raise TargetError(
                f'decimals={self.decimals} with answers "{self.answers}": it has to be 1 to 15, with probabilities or top'
            )


def serve(
    target: Target,
    host: str = "127.0.0.1",
    port: int = 0,
    options: ResponseOptions = ResponseOptions(),
    report: Callable[[str], None] = print,
    report_every: int = 0,
) -> None:
    """Serve until Ctrl-C. port 0: any free one.

    report is called with the URL once the server answers, and with a line after every report_every requests (0: none).
    """
    server = _Server(target, host, port, options, report, report_every)
    try:
        report(f"{target.name} answers at {server.url}")
        if server.open_path is not None:
            address = f"{server.url.replace('http', 'kserve', 1).rstrip('/')}{server.open_path}"
            report(f"By the Open Inference Protocol:  {address}")
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        report(f"{server.requests:,} requests, {server.images:,} images")
    finally:
        server.server_close()


@contextmanager
def serving(
    target: Target, host: str = "127.0.0.1", port: int = 0, options: ResponseOptions = ResponseOptions()
) -> Iterator[str]:
    """Serve in a separate thread while the block runs; yields the URL."""
    server = _Server(target, host, port, options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for requests in progress
    request_queue_size = 128

    def __init__(
        self,
        target: Target,
        host: str,
        port: int,
        options: ResponseOptions,
        report: Callable[[str], None] | None = None,
        report_every: int = 0,
    ) -> None:
        options.check(len(target.labels))
        if target.multilabel and options.answers == "top":
            raise TargetError(f"{target.name}: its labels do not exclude each other; serve all of them, not the top ones")
        self.kind = f"multilabel-{options.answers}" if target.multilabel else options.answers
        self.target, self.options = target, options
        self.top = options.top or min(5, len(target.labels))
        self._report, self._report_every = report, report_every
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
        # The Open Inference Protocol has no form for the most likely classes alone.
        self.open_path = f"/v2/models/{serve_open.model_name(target)}" if options.answers != "top" else None
        self.places = "/" if self.open_path is None else f"/ or {self.open_path}/infer"

    def description(self) -> dict[str, Any]:
        known = self.target.details.get("preprocessing", {})
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.target.name,
            "labels": list(self.target.labels),
            "shape": list(self.target.shape),
            "answers": self.kind,
            "photographs": {key: known[key] for key in ("resize", "interpolation") if key in known},
        }

    def answer(self, images: np.ndarray) -> dict[str, Any]:
        """The response to uint8 images (B, C, H, W). JSON keeps floats exactly, since Python writes all digits needed."""
        with self._forward:  # one forward pass at a time: each may take all cores and much memory
            batch = self.options.batch
            parts = [self.target.logits(images[i : i + batch], batch) for i in range(0, len(images), batch)]
        z = np.concatenate(parts).astype(np.float64)
        if not np.isfinite(z).all():
            raise ArithmeticError("the classifier's answer is not finite")
        if self.options.answers == "logits":
            return {self.kind: z.tolist()}
        if self.target.multilabel:
            p = np.asarray(confidence(z))
        else:
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
        decimals = self.options.decimals
        rounded = p if decimals is None else np.round(p, decimals)
        if self.options.answers == "probabilities":
            return {self.kind: rounded.tolist()}
        best = np.argsort(-p, axis=1, kind="stable")[:, : self.top]
        return {
            "top": [
                [{"class": int(c), "probability": float(row[c])} for c in classes]
                for row, classes in zip(rounded, best, strict=True)
            ]
        }

    def count(self, images: int) -> None:
        with self._lock:
            self.requests += 1
            self.images += images
            if self._report and self._report_every and self.requests % self._report_every == 0:
                self._report(f"{self.requests:,} requests, {self.images:,} images")

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        # Open idle connections would keep their threads alive, and server_close waits for the threads.
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore dropped connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_TIMEOUT
    server: _Server

    def do_GET(self) -> None:
        if self._accept():
            found = self.server.description() if self._path == "/" else self._open_information()
            if found is None:
                self._send(404, {"error": f"there is no {self._path} here"})
            else:
                self._send(200, found)

    def do_POST(self) -> None:
        if not self._accept():
            return
        infer = None if self.server.open_path is None else f"{self.server.open_path}/infer"
        if self._path != "/" and serve_open.without_version(self._path) != infer:
            self._refuse(404, f"images are not sent to {self._path}; send them to {self.server.places}")
            return
        length = self.headers.get("Content-Length", "")
        size = whole_number(length)
        if not length.isdecimal():
            self._refuse(411, "a request needs a Content-Length")
        elif size is None or size > MAX_BYTES:
            self._refuse(413, f"a request of {length} bytes is too long; send at most {MAX_BYTES}, fewer images at once")
        else:
            body = self.rfile.read(size)
            self._send(*self._answer(body))

    def _answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            if self._path == "/":
                images, respond = images_of(body, self.server.target.shape), lambda answer: answer
            else:
                images, identifier = serve_open.images_of(body, self.server.target.shape, self.server.kind)
                respond = lambda answer: serve_open.answer_of(answer, self.server.target, identifier)  # noqa: E731
        except (ImageError, InvalidJson) as error:
            return 400, {"error": str(error)}
        try:
            answer = respond(self.server.answer(images))
        except Exception as error:  # a user's network may raise any error
            return 500, {"error": str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {error}"}
        self.server.count(len(images))
        return 200, answer

    def do_PUT(self) -> None:
        self._refuse(405, "only GET, for the description, and POST, for images, are supported", {"Allow": "GET, POST"})

    do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_PUT

    def log_message(self, *_: Any) -> None:
        """No line per request."""

    def _accept(self) -> bool:
        """Whether Host (a defence against DNS rebinding) and path are those of this server; otherwise refuse the request."""
        host = self.headers.get("Host", "").strip()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if self.server.loopback and name not in ("localhost", self.server.bound_to) and not _is_address(name):
            self._refuse(403, f"the host {name!r} is not served here; use localhost or an IP address")
        elif self._path != "/" and not f"{self._path}/".startswith("/v2/"):
            self._refuse(404, f"there is no {self._path} here; the target is at {self.server.places}")
        else:
            return True
        return False

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _open_information(self) -> dict[str, Any] | None:
        if self.server.open_path is None:
            return None
        return serve_open.information(self._path, self.server.target, self.server.kind)

    def _refuse(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        """Refuse a request whose body was not read; the connection cannot be used again."""
        self.close_connection = True
        self._send(status, {"error": reason}, {"Connection": "close", **(headers or {})})

    def _send(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def images_of(body: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The uint8 images (B, C, H, W) of a request's body, B >= 1; ImageError or InvalidJson says what is wrong with it."""
    try:
        content = parse_json(body)
    except TargetError as error:
        raise ImageError(str(error)) from None
    texts = content.get("images") if isinstance(content, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ImageError('a request has to be {"images": ["base64 of a PNG", ...]}, one image or more')
    return np.stack([_image(text, i, shape) for i, text in enumerate(texts)])


def _image(text: str, i: int, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        png = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"image {i} is not base64 ({error})") from None
    # Before it is decoded: a small PNG can hold an image that fills all memory.
    if png[12:16] != b"IHDR" or len(png) < 24:
        raise ImageError(f"image {i} is not a PNG")
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
