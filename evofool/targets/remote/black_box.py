"""A black box: a classifier behind a server, whose requests and answers are counted and kept."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evofool.errors import TargetError
from evofool.targets.answer_forms import single_note
from evofool.targets.classifier import Target
from evofool.targets.network import FLOAT32
from evofool.targets.photos import patterns
from evofool.targets.remote import responses
from evofool.targets.remote.client import HttpClient
from evofool.targets.remote.drift import DriftMonitor, Line, form_of, image_key
from evofool.targets.remote.entries import answer_of, is_single
from evofool.targets.remote.in_flight import InFlight
from evofool.targets.remote.ledger import Ledger
from evofool.targets.remote.protocol import Codec
from evofool.targets.remote.responses import ResponseFormat, parse_json

_T = TypeVar("_T")
Answers = list[tuple[Any, int]]
"""The JSON of answers, each with its number of images."""


@dataclass(frozen=True)
class Interface:
    """What a server expects and returns.

    kind None: the first response decides. description: as Protocol has it, stored with a run. first: the answers to
    noise_images, if these were sent already.
    """

    codec: Codec
    kind: str | None
    class_by_label: Mapping[str, int]
    description: Mapping[str, Any]
    first: Answers | None = None


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
        interface: Interface,
    ) -> None:
        details = {
            "preprocessing": interface.codec.preprocessing.described(),
            "backend": "http",
            "file": client.url,
            "notes": list(client.notes),
            **interface.codec.details,
        }
        super().__init__(name, labels, shape, self._answers, details)
        self._client, self._ledger, self._class_by_label = client, ledger, interface.class_by_label
        self._codec = interface.codec
        self._at_once = min(client.batch, self._codec.most or client.batch)  # images in a request
        self.streams = client.parallel
        self._in_flight = InFlight(client.parallel)
        self.counts_persist = True
        self._ignore_cache = False
        self._classifier = hashlib.sha256(json.dumps([self.labels, self.shape]).encode()).hexdigest()
        self._format = self._stored_format() or self._probe(interface)
        if interface.kind not in (None, self._format.kind):
            raise TargetError(
                f"{client.url}: it answers {interface.kind} now, and answered {self._format.kind} before; the scores would "
                "not be comparable"
            )
        # Those of the probe and of the validation.
        first = np.concatenate([noise_images(self.shape), patterns(self.shape, 4)])
        form = lambda: form_of(self._format.kind, self._format.top_k, self._format.decimals)  # noqa: E731
        line = Line(client.url, self.labels, self._ask_again, lambda: ledger.requests, form, self._at_once)
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
        step = self._at_once
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
            _, numbers = self._values([(answer, len(images))], response_format.kind)
            return numbers, responses.response_logits(numbers, response_format)

        numbers, logits = send(self._client, self._codec, images, read, call, len(images) * len(self.labels))
        if contradiction := responses.contradiction(numbers, response_format):
            self._note(contradiction)
        return logits

    def _values(self, answers: Answers, kind: str | None) -> tuple[str, np.ndarray]:
        """As responses.response_values, of the answers to several requests."""
        decoded, images = answers[0][0], sum(n for _, n in answers)
        if self._codec.entries is not None:
            decoded = answer_of(entries_of(self._codec, answers), kind)
        return responses.response_values(decoded, kind, images, len(self.labels), self._class_by_label)

    def _probe(self, interface: Interface) -> ResponseFormat:
        """Send noise: the answers show their kind, the number of classes in them, and whether they are rounded."""
        noise = noise_images(self.shape)
        answers = interface.first or ask_noise(self._client, self._codec, self.shape)
        try:
            found, numbers = self._values(answers, interface.kind)
            response_format = responses.detect_format(found, numbers)
            logits = responses.response_logits(numbers, response_format)
            if self._codec.entries is not None and is_single(entries_of(self._codec, answers)):
                self._note(single_note("logit" if found == "logits" else "probability", self.labels[1]))
        except TargetError as error:
            raise TargetError(f"{self._client.url}: {error}") from None
        stored = {"classifier": self._classifier, "described": interface.description, **asdict(response_format)}
        self._ledger.response_format(stored)
        self._ledger.keep({image_key(image): row for image, row in zip(noise, logits, strict=True)})
        return self._stored_format() or response_format

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


def send(
    client: HttpClient,
    codec: Codec,
    images: Sequence[np.ndarray],
    read: Callable[[Any], _T],
    call: threading.Event,
    scores: int | None = None,
) -> _T:
    """read(JSON of the answer) to a request with these images. scores: their number, if it is known."""
    message = replace(codec.encode(list(images)), scores=scores)
    return client.request(message, lambda content: read(parse_json(content)), call)


def ask_noise(client: HttpClient, codec: Codec, shape: tuple[int, int, int]) -> Answers:
    """The answers to noise_images, in one request if the server takes them."""
    noise, call = noise_images(shape), client.call()
    step = codec.most or len(noise)
    parts = [noise[at : at + step] for at in range(0, len(noise), step)]
    return [(send(client, codec, list(part), lambda answer: answer, call), len(part)) for part in parts]


def entries_of(codec: Codec, answers: Answers) -> list[Any]:
    """The entries of several answers (evofool.targets.remote.entries)."""
    assert codec.entries is not None
    return [entry for answer, images in answers for entry in codec.entries(answer, images)]


def noise_images(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (4, C, H, W), what a server is asked first: noise of falling contrast, and dark noise.

    Many networks are certain about strong noise.
    """
    draws = np.random.default_rng(0).integers(-128, 128, (4, *shape))
    middle, fainter = (np.array(v).reshape(4, 1, 1, 1) for v in ((128, 128, 128, 32), (1, 4, 16, 8)))
    return (middle + draws // fainter).astype(np.uint8)
