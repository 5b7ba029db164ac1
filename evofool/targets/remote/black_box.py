"""A black box over HTTP, by the contract of docs/black-box.md: images are sent as PNG, answers come as JSON."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evofool.errors import BudgetError, TargetError
from evofool.images import encode_png
from evofool.targets.classifier import Target
from evofool.targets.network import FLOAT32
from evofool.targets.photos import patterns
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.remote import responses
from evofool.targets.remote.client import Clock, HttpClient, HttpError
from evofool.targets.remote.drift import DriftMonitor, Line, form_of, image_key
from evofool.targets.remote.in_flight import InFlight
from evofool.targets.remote.ledger import Ledger
from evofool.targets.remote.responses import KINDS, InvalidJson, ResponseFormat, brief, parse_json
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec, distinct

__all__ = ["FORMAT", "VERSION", "BlackBox", "load"]

FORMAT, VERSION = "evofool.target", 1
_SERVER_SIDE = ("mean", "std", "scale", "order", "invert", "transpose", "crops", "device")
_NO_GET = (404, 405, 501)  # statuses of services that accept only POST
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Interface:
    """What a server expects and returns. kind None: the first response decides. description: from GET, stored with a run."""

    photographs: Preprocessing
    kind: str | None
    class_by_label: Mapping[str, int]
    description: Mapping[str, Any]


def load(spec: Spec, answers_folder: Path | None = None, clock: Clock | None = None) -> Target:
    """http(s)://...: what GET describes; size=, channels= and labels= describe a server that does not describe itself.

    answers_folder is the folder of a run, whose ledger is continued or begun; without it, requests are counted in memory.
    """
    _check_options(spec)
    ledger = Ledger()
    client = HttpClient(spec, ledger, clock or Clock())
    if answers_folder is not None:
        ledger.store_in(answers_folder)
    try:
        described = _description(client)
    except BudgetError:  # earlier answers remain available
        stored = (ledger.response_format() or {}).get("described")
        if not isinstance(stored, dict):
            raise
        described = stored if stored.keys() == {"missing"} else _checked(stored)
    if missing := described.get("missing"):
        lacks = [option for option in ("size", "labels") if option not in spec.options]
        if lacks:
            raise TargetError(
                f"{client.url}: the server does not describe itself (GET gives {missing}), so {' and '.join(lacks)} must be "
                "given (size=224, labels=FILE), and channels=1 if its images are grey"
            )
    server_labels = described.get("labels") or spec.labels() or []
    labels = spec.labels(server_labels) or []
    if len(server_labels) != len(labels):
        raise TargetError(
            f"{client.url}: it has {len(server_labels)} labels, but there are {len(labels)} in {spec.options['labels']}"
        )
    channels, *size = described.get("shape") or (3, None, None)
    shape = (spec.whole("channels", channels) or 3, *spec.side(tuple(size) if size[0] else None))
    if described.get("shape", list(shape)) != list(shape):
        raise TargetError(
            f"{client.url}: its images are {described['shape']}, not {list(shape)}; leave size= and channels= out"
        )
    photographs, _ = spec.preprocessing(Preprocessing(**described.get("photographs", {})), shape[1:])
    kind = described.get("answers") if spec.outputs == "auto" else spec.outputs
    if described.get("answers", kind) not in (kind, (kind or "").removeprefix("multilabel-")):
        raise TargetError(f"{client.url}: it answers {described['answers']}, not {kind}; leave outputs= out")
    class_by_label = {name: c for names in (distinct(server_labels), labels) for c, name in enumerate(names)}
    return BlackBox(spec.text, labels, shape, client, ledger, _Interface(photographs, kind, class_by_label, described))


class BlackBox(Target):
    """A classifier that is queried over HTTP.

    queries: images that the server has answered, each once, over all sessions of a run.

    Equal images are sent once, a batch is never padded, and earlier answers come from the ledger. Known images are sent
    again from time to time (monitor).
    """

    def __init__(
        self,
        name: str,
        labels: list[str],
        shape: tuple[int, int, int],
        client: HttpClient,
        ledger: Ledger,
        interface: _Interface,
    ) -> None:
        details = {
            "preprocessing": interface.photographs.described(),
            "backend": "http",
            "file": client.url,
            "notes": list(client.notes),
        }
        super().__init__(name, labels, shape, self._answers, details)
        self._client, self._ledger, self._class_by_label = client, ledger, interface.class_by_label
        self.streams = client.parallel
        self._in_flight = InFlight(client.parallel)
        self.counts_persist = True
        self._ignore_cache = False
        self._classifier = hashlib.sha256(json.dumps([self.labels, self.shape]).encode()).hexdigest()
        self._format = self._stored_format() or self._probe(interface.kind, interface.description)
        if interface.kind not in (None, self._format.kind):
            raise TargetError(
                f"{client.url}: it answers {interface.kind} now, and answered {self._format.kind} before; the scores would "
                "not be comparable"
            )
        first = np.concatenate([_noise(self.shape), patterns(self.shape, 4)])  # those of the probe and of the validation
        form = lambda: form_of(self._format.kind, self._format.top_k, self._format.decimals)  # noqa: E731
        line = Line(client.url, self.labels, self._ask_again, lambda: ledger.requests, form, client.batch)
        self.monitor = self._drift = DriftMonitor(ledger, line, first)
        details["outputs"] = self._format.kind
        if self._format.multilabel:
            self.outputs = "multilabel-logits"  # which the answers have become
        self.top_k = self._format.top_k
        self._note(*self._format.notes())
        self.count(0)

    def logits(self, images: np.ndarray, pad_to: int = 0, number_format: str = FLOAT32, first_row: int = 0) -> np.ndarray:
        """As Target.logits, but never padded to pad_to: only real images are sent and paid for."""
        return super().logits(images, 0, number_format)

    def count(self, images: int) -> None:
        """Take the ledger's count, over all threads and processes; an image that it had already is not a query."""
        answered = self._ledger.answers
        with self._counting:
            self.queries = max(self.queries, answered)

    @property
    def requests(self) -> int:
        return self._ledger.requests

    def store_in(self, folder: Path) -> None:
        self._ledger.store_in(folder)
        # The format that was stored first is kept, so that an image's score does not change.
        self._format = self._stored_format() or self._format
        self._note(*self._format.notes())
        self.count(0)
        super().store_in(folder)

    def ignore_cache(self) -> None:
        """From now on send all images. Requests are counted in the ledger; answers that it has are not counted again."""
        self._ignore_cache = True

    def cancel(self) -> None:
        """End the calls in progress with a TargetError; they send nothing more. Later calls work as before."""
        self._client.cancel()

    def _answers(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) to float32 (B, K), in requests of `batch` images, each image once, `parallel` at the same time.

        What shares a request does not depend on `parallel`.
        """
        call = self._client.call()
        keys = [image_key(image) for image in images]
        unique = dict(zip(keys, images, strict=True))
        known = {} if self._ignore_cache else self._ledger.known(unique, len(self.labels))
        unknown = [key for key in unique if key not in known]
        step = self._client.batch
        parts = [{key: unique[key] for key in unknown[at : at + step]} for at in range(0, len(unknown), step)]
        found = self._in_flight.results(
            parts,
            lambda part: self._query(part, call),
            before_each=lambda: None if self._ignore_cache else self._check_for_drift(),
            cancel=lambda: self._client.cancel(call),
        )
        for part, rows in zip(parts, found, strict=True):
            self._drift.learn(np.stack(list(part.values())), np.stack(list(rows.values())))
            known.update(rows)
        return np.stack([known[key] for key in keys])

    def _check_for_drift(self) -> None:
        self._drift.before_request()
        self._note(*self._drift.notes)

    def _query(self, images: dict[bytes, np.ndarray], call: threading.Event) -> dict[bytes, np.ndarray]:
        rows = dict(zip(images, self._read(list(images.values()), call), strict=True))
        self._ledger.keep(rows)
        self.count(0)
        return rows

    def _ask_again(self, images: np.ndarray) -> np.ndarray:
        """(B, K) logits; the images are sent although their answers are known, and the ledger does not keep these."""
        logits = self._read(list(images), self._client.call())
        self._ledger.count_repeated(len(images))
        self.count(0)
        return logits

    def _read(self, images: list[np.ndarray], call: threading.Event) -> np.ndarray:
        """Send images, and read the answer in the format that was detected."""
        response_format = self._format

        def read(answer: Any) -> tuple[np.ndarray, np.ndarray]:
            _, numbers = responses.response_values(
                answer, response_format.kind, len(images), len(self.labels), self._class_by_label
            )
            return numbers, responses.response_logits(numbers, response_format)

        numbers, logits = self._send(images, read, call)
        if contradiction := responses.contradiction(numbers, response_format):
            self._note(contradiction)
        return logits

    def _probe(self, kind: str | None, described: Mapping[str, Any]) -> ResponseFormat:
        """Send noise: the answers show their kind, the number of classes in them, and whether they are rounded."""
        noise = _noise(self.shape)

        def read(answer: Any) -> tuple[ResponseFormat, np.ndarray]:
            found, numbers = responses.response_values(answer, kind, len(noise), len(self.labels), self._class_by_label)
            response_format = responses.detect_format(found, numbers)
            return response_format, responses.response_logits(numbers, response_format)

        response_format, logits = self._send(list(noise), read, self._client.call())
        self._ledger.response_format({"classifier": self._classifier, "described": described, **asdict(response_format)})
        self._ledger.keep({image_key(image): row for image, row in zip(noise, logits, strict=True)})
        return self._stored_format() or response_format

    def _send(self, images: list[np.ndarray], read: Callable[[Any], _T], call: threading.Event) -> _T:
        encoded = [base64.b64encode(encode_png(image)).decode() for image in images]
        body = json.dumps({"images": encoded}).encode()
        return self._client.request("POST", body, lambda content: read(parse_json(content)), call)

    def _stored_format(self) -> ResponseFormat | None:
        """The format in the ledger, for a run that continues; StoreError if it is another classifier's."""
        stored = self._ledger.response_format()
        if stored is None:
            return None
        self._ledger.response_format({**stored, "classifier": self._classifier})
        return ResponseFormat(stored["kind"], len(self.labels), stored["top_k"], stored["decimals"])

    def _note(self, *notes: str) -> None:
        with self._counting:
            self.details["notes"] += [note for note in notes if note not in self.details["notes"]]


def _description(client: HttpClient) -> dict[str, Any]:
    """The server's description from GET, or {"missing": what GET gives instead}; TargetError for one that is wrong."""
    try:
        described = parse_json(client.request("GET", None, bytes))
    except HttpError as error:
        if error.status not in _NO_GET:
            raise
        return {"missing": str(error).removeprefix(f"{client.url}: ")}
    except InvalidJson as error:
        return {"missing": str(error)}
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        return {"missing": f'JSON, but without "format": "{FORMAT}"'}
    try:
        return _checked(described)
    except TargetError as error:
        raise TargetError(f"{client.url}: its description {error}") from None


def _checked(described: dict[str, Any]) -> dict[str, Any]:
    """The fields of a description; the message of a TargetError continues after "its description"."""
    version, labels, shape, kind = (described.get(key) for key in ("version", "labels", "shape", "answers"))
    if version != VERSION:
        raise TargetError(f"has version {brief(version)}; this evofool supports version {VERSION}")
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise TargetError('has to have "labels", a list of at least two names')
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)
    if not whole or not shape or shape[0] not in (1, 3) or not all(1 <= n <= 16384 for n in shape[1:]):
        raise TargetError(f'has the "shape" {brief(shape)}; it has to be [1 or 3, height, width], in pixels')
    if kind not in KINDS:
        raise TargetError(f'has the "answers" {brief(kind)}; there are {", ".join(KINDS)}')
    photographs = described.get("photographs", {})
    try:
        Preprocessing(**photographs)
        strange = set(photographs) - {"resize", "interpolation"}
    except (TypeError, TargetError):
        strange = {"photographs"}
    if strange:
        raise TargetError('has to have "resize" (pixels or null) and "interpolation" in its "photographs", or none')
    return {"version": version, "labels": labels, "shape": shape, "answers": kind, "photographs": photographs}


def _check_options(spec: Spec) -> None:
    who = redacted_url(spec.name)
    if refused := [option for option in _SERVER_SIDE if option in spec.options]:
        raise TargetError(f"{who}: {', '.join(refused)} cannot be set: the server preprocesses its images itself")
    if spec.outputs not in ("auto", *KINDS):
        raise TargetError(f'{who}: outputs "{spec.outputs}" is none of auto, {", ".join(KINDS)}')
    if spec.whole("channels", 3) not in (1, 3):
        raise TargetError(f"{who}: channels is {spec.options['channels']}; it has to be 1 (grey) or 3 (RGB)")


def _noise(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (4, C, H, W): noise of falling contrast, and dark noise. Many networks are certain about strong noise."""
    draws = np.random.default_rng(0).integers(-128, 128, (4, *shape))
    middle, fainter = (np.array(v).reshape(4, 1, 1, 1) for v in ((128, 128, 128, 32), (1, 4, 16, 8)))
    return (middle + draws // fainter).astype(np.uint8)
