"""Servers of other protocols on this machine, each in the form that its documents give, and what they were asked."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("httpx")

Answer = Callable[[str, str, Any], tuple[int, Any]]
"""The method, the path and the JSON of a request to the status and the JSON of its answer."""


class Stub(ThreadingHTTPServer):
    daemon_threads = True  # clients keep their connections
    block_on_close = False

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked = answer, list[tuple[str, str, Any]]()
        self.address = f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5.0
    server: Stub

    def do_GET(self) -> None:
        self.respond(None)

    def do_POST(self) -> None:
        self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def respond(self, body: Any) -> None:
        asked = (self.command, self.path, body)
        self.server.asked.append(asked)
        status, found = self.server.answer(*asked)
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stub(answer: Answer) -> Iterator[Stub]:
    server = Stub(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def scores(pixels: np.ndarray) -> np.ndarray:
    """(n, 3) logits of numbers (n, ...): linear, with other weights in every place, so that a wrong order shows."""
    x = np.asarray(pixels, np.float64).reshape(len(pixels), -1)
    places = np.arange(x.shape[1])
    return np.stack([x @ np.sin(places + 1), x @ np.cos(2 * places), x @ np.sin(3 * places)], 1) / 10


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def picture(text: str) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) of a PNG or JPEG in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def open_inference(metadata: dict[str, Any] | None, model: Callable[[np.ndarray], dict[str, np.ndarray]]) -> Answer:
    """A server with one model, "m": model(array of the input) are its outputs by name. metadata None: empty (MLServer)."""

    def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v2":
            return 200, {"name": "stub", "version": "0.1", "extensions": []}
        if not path.startswith("/v2/models/m"):
            return 404, {"error": f"Model {path.split('/')[3]} not found"}
        if method == "GET":
            return 200, {"name": "m", "versions": [], "platform": "", **(metadata or {"inputs": [], "outputs": []})}
        (tensor,) = body["inputs"]
        found = model(np.array(tensor["data"]).reshape(tensor["shape"]))
        wanted = [each["name"] for each in body.get("outputs", [])] or [next(iter(found))]
        outputs = [
            {"name": name, "shape": list(found[name].shape), "datatype": "FP32", "data": found[name].ravel().tolist()}
            for name in wanted
        ]
        return 200, {"model_name": "m", "outputs": outputs}

    return answer
