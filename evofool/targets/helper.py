"""A user's callable in a helper process, which is killed and started again if a call takes too long or ends it.

The child loads the spec as this process would. Messages are JSON and raw bytes over a socket: nothing is pickled.
"""

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evofool.errors import EvofoolError, TargetError, UnansweredError
from evofool.targets.classifier import Target
from evofool.targets.kinds import OUTER
from evofool.targets.spec import Spec

START_SECONDS = 300.0  # for the start of a child: its imports, the factory, and the first answer
_GRACE = 5.0  # seconds that a child outlives its time-out if nobody kills it
_HEAD = struct.Struct("<I")  # the bytes of the JSON; its "bytes" is the number of raw bytes that follow


class HelperTarget(Target):
    """The callable that a python: spec names, called in a child process, one call at a time.

    A call that takes more than `seconds`, or that ends the child, raises UnansweredError with the row of the image that
    causes it, which is found by calling with each image alone. The next call starts another child. Answers and fingerprint
    are those of the same spec without timeout= and black_box=; those of kinds.OUTER are applied by who loads it.
    """

    def __init__(self, spec: Spec, seconds: float) -> None:
        plain = replace(spec, options={k: v for k, v in spec.options.items() if k not in ("timeout", "black_box", *OUTER)})
        self._child = _Child(plain.text, spec.text)
        self._seconds = seconds
        self._calling = threading.Lock()
        self._cancelled = 0  # how often cancel() was called
        weakref.finalize(self, self._child.stop)
        known = self._child.start()
        if known["network"]:
            self._child.stop()
            raise TargetError(
                f"{spec.head}: timeout= is for callables, and {spec.name.partition(':')[2]}() returns a torch network; "
                "leave timeout out, or return a callable that uses the network (it has no gradients then)"
            )
        labels, shape, details = known["labels"], tuple(known["shape"]), known["details"]
        super().__init__(spec.text, labels, shape, self._answers, details, outputs=known["outputs"], crops=known["crops"])

    def cancel(self) -> None:
        """End the calls in progress with a TargetError; later calls start another child."""
        self._cancelled += 1
        self._child.kill()

    def _answers(self, images: np.ndarray) -> np.ndarray:
        cancelled = self._cancelled
        with self._calling:
            try:
                if cancelled == self._cancelled:
                    return self._child.call(images, self._seconds)
            except _NoAnswerError as failure:
                if cancelled == self._cancelled:
                    raise self._fault(images, failure, cancelled) from None
            raise TargetError(f"{self.name}: cancelled before it answered")

    def _fault(self, images: np.ndarray, failure: "_NoAnswerError", cancelled: int) -> TargetError:
        """The error for a call that got no answer: it names the first image that gets none alone."""
        for row, image in enumerate(images):
            try:
                alone = failure if len(images) == 1 else None
                if alone is None:
                    self._child.call(images[row : row + 1], self._seconds)
            except _NoAnswerError as error:
                alone = error
            if cancelled != self._cancelled:
                return TargetError(f"{self.name}: cancelled before it answered")
            if alone is not None:
                digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
                return UnansweredError(
                    f"{self.name}: {alone} for image {row + 1} of {len(images)} (SHA-256 of its pixels: {digest}...)", row
                )
        return UnansweredError(
            f"{self.name}: {failure} for {len(images)} images, but each of them alone was answered; raise timeout=, or "
            "classify fewer images at once (compute.chunk)"
        )


class _NoAnswerError(Exception):
    """The child hung or ended; the text says which."""


class _Child:
    """A child process with a user's callable; it is started when it is needed. For one thread at a time, except kill."""

    def __init__(self, spec: str, name: str) -> None:
        self._spec, self._name = spec, name
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> dict[str, Any]:
        """Start a child; what it says of its target. TargetError if it cannot be loaded."""
        ours, theirs = socket.socketpair()
        with theirs:
            # The child finds what this process finds. Its output goes to standard error, as does that of warnings.
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "evofool.targets.helper", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,  # Ctrl-C and a closed terminal are for this process
            )
        self._socket = ours
        try:
            known, _ = self._exchange({"spec": self._spec, "seconds": START_SECONDS + _GRACE}, b"", START_SECONDS)
        except _NoAnswerError as error:
            raise TargetError(f"{self._name}: {error} when it was loaded, in a helper process") from None
        return known

    def call(self, images: np.ndarray, seconds: float) -> np.ndarray:
        """float32 (B * crops, K) for uint8 (B, C, H, W), raw; _NoAnswerError if the child hangs or ends."""
        if self._socket is None:
            self.start()
        header = {"shape": images.shape, "threads": torch.get_num_threads(), "seconds": seconds + _GRACE}
        answer, numbers = self._exchange(header, np.ascontiguousarray(images).tobytes(), seconds)
        return np.frombuffer(numbers, "<f4").reshape(answer["shape"]).astype(np.float32)

    def kill(self) -> None:
        """Kill the child; a call that waits for it ends. May be called by any thread."""
        if process := self._process:
            process.kill()

    def stop(self) -> None:
        """Kill the child and wait for its end."""
        self.kill()
        if self._process is not None:
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._process = self._socket = None

    def _exchange(self, header: dict[str, Any], content: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        assert self._socket is not None
        deadline = time.monotonic() + seconds
        try:
            _send(self._socket, header, content, deadline)
            answer, content = _receive(self._socket, deadline)
        except (OSError, EOFError) as error:  # a TimeoutError is an OSError
            ended = None if self._process is None or isinstance(error, TimeoutError) else self._process.wait()
            self.stop()
            raise _NoAnswerError(
                f"no answer within {seconds:g} s" if ended is None else f"its process ended ({_how(ended)})"
            ) from None
        if "error" in answer:
            if header.get("spec"):
                self.stop()
            raise TargetError(answer["error"])
        return answer, content


def _how(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _send(to: socket.socket, header: dict[str, Any], content: bytes, deadline: float | None) -> None:
    text = json.dumps({**header, "bytes": len(content)}).encode()
    to.settimeout(_left(deadline))
    to.sendall(_HEAD.pack(len(text)) + text + content)


def _receive(source: socket.socket, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
    (length,) = _HEAD.unpack(_bytes(source, _HEAD.size, deadline))
    header = json.loads(_bytes(source, length, deadline))
    return header, _bytes(source, header["bytes"], deadline)


def _bytes(source: socket.socket, count: int, deadline: float | None) -> bytes:
    content = bytearray(count)
    view, done = memoryview(content), 0
    while done < count:
        source.settimeout(_left(deadline))
        got = source.recv_into(view[done:])
        if not got:
            raise EOFError
        done += got
    return bytes(content)


def _left(deadline: float | None) -> float | None:
    """Seconds until the deadline, above 0; TimeoutError after it. None: no deadline."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# --- the child


def _serve(ours: socket.socket) -> None:
    """Load the spec in the first message, then answer batches until the socket is closed."""
    from evofool.targets import target

    header, _ = _receive(ours)
    _end_after(header["seconds"])
    try:
        found = target(header["spec"])
    except EvofoolError as error:
        _send(ours, {"error": str(error)}, b"", None)
        return
    known = {"labels": found.labels, "shape": found.shape, "details": found.details, "outputs": found.outputs}
    _send(ours, {**known, "crops": found.crops, "network": found.network is not None}, b"", None)
    while True:
        _end_after(0)
        try:
            header, pixels = _receive(ours)
        except EOFError:
            return
        _end_after(header["seconds"])
        if torch.get_num_threads() != header["threads"]:
            torch.set_num_threads(header["threads"])
        images = np.frombuffer(pixels, np.uint8).reshape(header["shape"])
        try:
            answer = found.raw(images)
        except (Exception, SystemExit) as error:  # a user's code may raise any error
            text = str(error) if isinstance(error, EvofoolError) else f"{type(error).__name__}: {str(error)[:300]}"
            _send(ours, {"error": f"{found.name}: failed on {len(images)} images ({text})"}, b"", None)
        else:
            _send(ours, {"shape": answer.shape}, np.ascontiguousarray(answer, "<f4").tobytes(), None)


def _end_after(seconds: float) -> None:
    """Let the system kill this process after so many seconds, 0: never.

    It does so even if the parent is gone and the callable holds Python's lock.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _ours:
        _serve(_ours)
