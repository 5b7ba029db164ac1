"""The target that the URL of a server names: what the server says about itself, completed by the options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evofool.errors import BudgetError, TargetError
from evofool.targets.arguments import image_shape
from evofool.targets.classifier import Target
from evofool.targets.remote.black_box import Answers, BlackBox, Interface, ask_noise, entries_of
from evofool.targets.remote.client import Clock, HttpClient
from evofool.targets.remote.entries import is_single, labels_of
from evofool.targets.remote.ledger import Ledger
from evofool.targets.remote.mlflow import MLflow
from evofool.targets.remote.open_inference import OpenInference
from evofool.targets.remote.own_contract import OwnContract
from evofool.targets.remote.protocol import Codec, Protocol
from evofool.targets.remote.responses import KINDS
from evofool.targets.remote.template import Template
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec, distinct


def load(spec: Spec, answers_folder: Path | None = None, clock: Clock | None = None) -> Target:
    """What the server describes; size=, channels= and labels= describe a server that does not describe itself.

    answers_folder is the folder of a run, whose ledger is continued or begun; without it, requests are counted in memory.
    """
    protocol = _protocol(spec)
    _check_options(spec)
    ledger = Ledger()
    client = HttpClient(spec, ledger, clock or Clock())
    with client.hiding_secrets():
        return _loaded(spec, protocol, client, ledger, answers_folder)


def _loaded(spec: Spec, protocol: Protocol, client: HttpClient, ledger: Ledger, answers_folder: Path | None) -> Target:
    if answers_folder is not None:
        ledger.store_in(answers_folder)
    stored = (ledger.response_format() or {}).get("described")
    try:
        described = protocol.describe(client)
    except BudgetError:  # earlier answers remain available
        if not isinstance(stored, dict):
            raise
        described = protocol.checked(stored)
    if isinstance(stored, dict) and "learnt" in stored:
        described["learnt"] = _names(stored["learnt"])
    _refuse_missing(spec, client, described)
    shape = _shape(spec, client, described)
    codec = protocol.codec(described, shape)
    server_labels, first = _server_labels(spec, client, codec, shape, described)
    client.refuse_secrets(described)
    labels = spec.labels(server_labels) or []
    if len(server_labels) != len(labels):
        raise TargetError(
            f"{client.url}: it has {len(server_labels)} labels, but there are {len(labels)} in {spec.options['labels']}"
        )
    kind = described.get("answers") if spec.outputs == "auto" else spec.outputs
    if described.get("answers", kind) not in (kind, (kind or "").removeprefix("multilabel-")):
        raise TargetError(f"{client.url}: it answers {described['answers']}, not {kind}; leave outputs= out")
    class_by_label = {name: c for names in (distinct(server_labels), labels) for c, name in enumerate(names)}
    return BlackBox(spec.text, labels, shape, client, ledger, Interface(codec, kind, class_by_label, described, first))


def _protocol(spec: Spec) -> Protocol:
    if spec.kind == "kserve":
        return OpenInference(spec)
    if spec.kind == "mlflow":
        return MLflow(spec)
    return Template(spec) if {"request", "answer"} & spec.options.keys() else OwnContract(spec)


def _check_options(spec: Spec) -> None:
    who = redacted_url(spec.name)
    if refused := [option for option in ("crops", "device") if option in spec.options]:
        raise TargetError(f"{who}: {', '.join(refused)} cannot be set: the network is the server's")
    if spec.outputs not in ("auto", *KINDS):
        raise TargetError(f'{who}: outputs "{spec.outputs}" is none of auto, {", ".join(KINDS)}')
    if spec.whole("channels", 3) not in (1, 3):
        raise TargetError(f"{who}: channels is {spec.options['channels']}; it has to be 1 (grey) or 3 (RGB)")


def _refuse_missing(spec: Spec, client: HttpClient, described: Mapping[str, Any]) -> None:
    """TargetError for a server that does not describe itself, if the options do not describe it either."""
    needed = ["size", *(["labels"] if spec.kind == "http" and "request" not in spec.options else [])]
    if (missing := described.get("missing")) and (lacks := [option for option in needed if option not in spec.options]):
        raise TargetError(
            f"{client.url}: the server does not describe itself (GET gives {missing}), so {' and '.join(lacks)} must be "
            "given (size=224, labels=FILE), and channels=1 if its images are grey"
        )


def _shape(spec: Spec, client: HttpClient, described: Mapping[str, Any]) -> tuple[int, int, int]:
    channels, *size = described.get("shape") or (3, None, None)
    shape = (spec.whole("channels", channels) or 3, *spec.side(tuple(size) if size[0] else None))
    if described.get("shape", list(shape)) != list(shape):
        raise TargetError(
            f"{client.url}: its images are {described['shape']}, not {list(shape)}; leave size= and channels= out"
        )
    return image_shape(client.url, shape)


def _server_labels(
    spec: Spec, client: HttpClient, codec: Codec, shape: tuple[int, int, int], described: dict[str, Any]
) -> tuple[list[str], Answers | None]:
    """The labels of the server, in its order; and the answers to noise, if they had to be asked for to know how many.

    What was learnt from these is added to the description, which is stored, so that a run asks for it once.
    """
    known = described.get("labels") or described.get("learnt")
    if known is None and "classes" in described:
        known = [str(c) for c in range(described["classes"])]
    if known or (known := spec.labels()):
        return known, None
    answers = ask_noise(client, codec, shape)
    try:
        entries = entries_of(codec, answers)
        known = ["0", "1"] if is_single(entries) else labels_of(entries)
    except TargetError as error:
        raise TargetError(f"{client.url}: {error}") from None
    if known is None:
        raise TargetError(f"{client.url}: its answers do not show which classes there are; give labels=FILE")
    described["learnt"] = known
    return known, answers


def _names(stored: Any) -> list[str]:
    """The labels that a stored description has."""
    if not isinstance(stored, list) or len(stored) < 2 or not all(isinstance(name, str) for name in stored):
        raise TargetError("the labels that were learnt from its answers are damaged in the run's record")
    return stored
