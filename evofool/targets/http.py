"""A black box over HTTP: images as PNG out, answers in, by the contract of docs/black-box.md."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evofool.errors import BudgetError, TargetError
from evofool.images import encode_png
from evofool.targets import responses
from evofool.targets.http_client import OPTIONS, Clock, Refused, Server, public
from evofool.targets.ledger import Ledger
from evofool.targets.network import FLOAT32
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.responses import KINDS, Garbled, Reading, brief, parsed
from evofool.targets.spec import Spec, distinct
from evofool.targets.target import Target

__all__ = ["FORMAT", "OPTIONS", "VERSION", "BlackBox", "load"]

FORMAT, VERSION = "evofool.target", 1
_SERVERS_OWN = ("mean", "std", "scale", "order", "crops", "device")
_NO_GET = (404, 405, 501)  # what services answer that take POST alone
_T = TypeVar("_T")


def load(spec: Spec, answers_folder: Path | None = None, clock: Clock | None = None) -> Target:
    """http(s)://...: what GET describes; size=, channels= and labels= tell it of a server that does not describe itself.

    answers_folder is the folder of a run whose ledger is to go on, or to begin; without it, requests are counted in memory.
    """
    _refuse_options(spec)
    ledger = Ledger()
    server = Server(spec, ledger, clock or Clock())
    if answers_folder is not None:
        ledger.store_in(answers_folder)
    try:
        told = _description(server)
    except BudgetError:  # what was answered can still be had
        held = (ledger.reading() or {}).get("described")
        if not isinstance(held, dict):
            raise
        told = held if held.keys() == {"missing"} else _checked(held)
    if missing := told.get("missing"):
        lacks = [option for option in ("size", "labels") if option not in spec.options]
        if lacks:
            raise TargetError(
                f"{server.url}: the server does not describe itself (GET gives {missing}), so {' and '.join(lacks)} must be "
                "given (size=224, labels=FILE), and channels=1 if its images are grey"
            )
    theirs = told.get("labels") or spec.labels() or []
    labels = spec.labels(theirs) or []
    if len(theirs) != len(labels):
        raise TargetError(
            f"{server.url}: it has {len(theirs)} labels, but there are {len(labels)} in {spec.options['labels']}"
        )
    channels, *size = told.get("shape") or (3, None, None)
    shape = (spec.whole("channels", channels) or 3, *spec.side(tuple(size) if size[0] else None))
    if told.get("shape", list(shape)) != list(shape):
        raise TargetError(f"{server.url}: its images are {told['shape']}, not {list(shape)}; leave size= and channels= out")
    photographs, _ = spec.preprocessing(Preprocessing(**told.get("photographs", {})), shape[1:])
    kind = told.get("answers") if spec.outputs == "auto" else spec.outputs
    if kind != told.get("answers", kind):
        raise TargetError(f"{server.url}: it answers {told['answers']}, not {kind}; leave outputs= out")
    names = {name: c for given in (distinct(theirs), labels) for c, name in enumerate(given)}
    return BlackBox(spec.text, labels, shape, server, ledger, photographs, kind, names, told)


class BlackBox(Target):
    """A classifier that is asked over HTTP. queries: images that the server has answered, each once, over all sittings.

    Equal images are asked once, a batch is never filled up, and what was answered before comes out of the ledger.
    """

    def __init__(
        self,
        name: str,
        labels: list[str],
        shape: tuple[int, int, int],
        server: Server,
        ledger: Ledger,
        photographs: Preprocessing,
        kind: str | None,
        names: Mapping[str, int],
        described: Mapping[str, Any],
    ) -> None:
        details = {"preprocessing": asdict(photographs), "backend": "http", "file": server.url, "notes": list(server.notes)}
        super().__init__(name, labels, shape, self._answers, details)
        self._server, self._ledger, self._names = server, ledger, names
        self.streams = server.parallel
        self.counts_persist = True
        self._ignore_cache = False
        self._classifier = hashlib.sha256(json.dumps([self.labels, self.shape]).encode()).hexdigest()
        self._reading = self._settled() or self._probed(kind, described)
        if kind not in (None, self._reading.kind):
            raise TargetError(
                f"{server.url}: it answers {kind} now, and answered {self._reading.kind} before; the scores would not "
                "belong together"
            )
        details["outputs"] = self._reading.kind
        self.top_k = self._reading.top_k
        self._note(*self._reading.notes())
        self.count(0)

    def logits(self, images: np.ndarray, pad_to: int = 0, number_format: str = FLOAT32, first_row: int = 0) -> np.ndarray:
        """As Target.logits, but nothing is filled up to pad_to: a server is asked, and paid, for real images alone."""
        return super().logits(images, 0, number_format)

    def count(self, queries: int) -> None:
        """The ledger has counted, for every thread and process: an image that was known is no query."""
        answered = self._ledger.answers
        with self._counting:
            self.queries = max(self.queries, answered)

    @property
    def requests(self) -> int:
        return self._ledger.requests

    def store_in(self, folder: Path) -> None:
        self._ledger.store_in(folder)
        # What was settled first holds, so that an image's score stays what it was.
        self._reading = self._settled() or self._reading
        self._note(*self._reading.notes())
        self.count(0)

    def ignore_cache(self) -> None:
        """From now on no answer comes out of the ledger. Requests are billed there; an answer that it has is no new one."""
        self._ignore_cache = True

    def cancel(self) -> None:
        """End the calls under way with a TargetError: no wait goes on, nothing more is sent. Later calls work as ever."""
        self._server.cancel()

    def _answers(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) to float32 (B, K), asked for in requests of `batch` images, each image once."""
        call = self._server.call()
        keys = [_key(image) for image in images]
        unique = dict(zip(keys, images, strict=True))
        known = {} if self._ignore_cache else self._ledger.known(unique, len(self.labels))
        unknown = [key for key in unique if key not in known]
        for start in range(0, len(unknown), self._server.batch):
            part = unknown[start : start + self._server.batch]
            known.update(self._asked({key: unique[key] for key in part}, call))
        return np.stack([known[key] for key in keys])

    def _asked(self, images: dict[bytes, np.ndarray], call: threading.Event) -> dict[bytes, np.ndarray]:
        reading = self._reading

        def read(answer: Any) -> tuple[np.ndarray, np.ndarray]:
            _, numbers = responses.values(answer, reading.kind, len(images), len(self.labels), self._names)
            return numbers, responses.logits(numbers, reading)

        numbers, logits = self._send(list(images.values()), read, call)
        rows = dict(zip(images, logits, strict=True))
        self._ledger.keep(rows)
        self.count(0)
        if against := responses.contradiction(numbers, reading):
            self._note(against)
        return rows

    def _probed(self, kind: str | None, described: Mapping[str, Any]) -> Reading:
        """Ask for noise: it shows the kind of the answers, of how many classes they tell, and whether they are rounded."""
        noise = _noise(self.shape)

        def read(answer: Any) -> tuple[Reading, np.ndarray]:
            found, numbers = responses.values(answer, kind, len(noise), len(self.labels), self._names)
            reading = responses.read_as(found, numbers)
            return reading, responses.logits(numbers, reading)

        reading, logits = self._send(list(noise), read, self._server.call())
        self._ledger.reading({"classifier": self._classifier, "described": described, **asdict(reading)})
        self._ledger.keep({_key(image): row for image, row in zip(noise, logits, strict=True)})
        return self._settled() or reading

    def _send(self, images: list[np.ndarray], read: Callable[[Any], _T], call: threading.Event) -> _T:
        encoded = [base64.b64encode(encode_png(image)).decode() for image in images]
        return self._server.ask("POST", json.dumps({"images": encoded}).encode(), lambda body: read(parsed(body)), call)

    def _settled(self) -> Reading | None:
        """The reading that the ledger holds, for a run that goes on; StoreError if it is of another classifier."""
        held = self._ledger.reading()
        if held is None:
            return None
        self._ledger.reading({**held, "classifier": self._classifier})
        return Reading(held["kind"], len(self.labels), held["top_k"], held["decimals"])

    def _note(self, *said: str) -> None:
        with self._counting:
            self.details["notes"] += [note for note in said if note not in self.details["notes"]]


def _description(server: Server) -> dict[str, Any]:
    """What GET tells of the server, or {"missing": what it gives instead}; TargetError for a description that is wrong."""
    try:
        told = parsed(server.ask("GET", None, bytes))
    except Refused as refused:
        if refused.status not in _NO_GET:
            raise
        return {"missing": str(refused).removeprefix(f"{server.url}: ")}
    except Garbled as garbled:
        return {"missing": str(garbled)}
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return {"missing": f'JSON, but without "format": "{FORMAT}"'}
    try:
        return _checked(told)
    except TargetError as error:
        raise TargetError(f"{server.url}: its description {error}") from None


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """What matters of a description; TargetError goes on after the words "its description"."""
    version, labels, shape, kind = (told.get(key) for key in ("version", "labels", "shape", "answers"))
    if version != VERSION:
        raise TargetError(f"has version {brief(version)}; this evofool knows version {VERSION}")
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise TargetError('has to have "labels", a list of at least two names')
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)
    if not whole or not shape or shape[0] not in (1, 3) or not all(1 <= n <= 16384 for n in shape[1:]):
        raise TargetError(f'has the "shape" {brief(shape)}; it has to be [1 or 3, height, width], in pixels')
    if kind not in KINDS:
        raise TargetError(f'has the "answers" {brief(kind)}; there are {", ".join(KINDS)}')
    photographs = told.get("photographs", {})
    try:
        Preprocessing(**photographs)
        strange = set(photographs) - {"resize", "interpolation"}
    except (TypeError, TargetError):
        strange = {"photographs"}
    if strange:
        raise TargetError('has to have "resize" (pixels or null) and "interpolation" in its "photographs", or none')
    return {"version": version, "labels": labels, "shape": shape, "answers": kind, "photographs": photographs}


def _refuse_options(spec: Spec) -> None:
    spec.allow(*OPTIONS)
    who = public(spec.name)
    if given := [option for option in _SERVERS_OWN if option in spec.options]:
        raise TargetError(f"{who}: {', '.join(given)} cannot be set: the server preprocesses its images itself")
    if spec.outputs not in ("auto", *KINDS):
        raise TargetError(f'{who}: outputs "{spec.outputs}" is none of auto, {", ".join(KINDS)}')
    if spec.whole("channels", 3) not in (1, 3):
        raise TargetError(f"{who}: channels is {spec.options['channels']}; it has to be 1 (grey) or 3 (RGB)")


def _noise(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (4, C, H, W): noise that grows fainter, and some in the dark. Of the loud alone many networks are sure."""
    draws = np.random.default_rng(0).integers(-128, 128, (4, *shape))
    middle, fainter = (np.array(v).reshape(4, 1, 1, 1) for v in ((128, 128, 128, 32), (1, 4, 16, 8)))
    return (middle + draws // fainter).astype(np.uint8)


def _key(image: np.ndarray) -> bytes:
    """SHA-256 over an image's shape and pixels, whatever its PNG looks like."""
    return hashlib.sha256(np.array(image.shape, "<i4").tobytes() + image.tobytes()).digest()
