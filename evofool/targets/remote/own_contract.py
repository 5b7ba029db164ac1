"""The contract of docs/black-box.md: images are sent as PNG, a server describes itself, answers come as JSON."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from evofool.errors import TargetError
from evofool.images import encode_png
from evofool.targets.preprocessing import MOST_RESIZE, Preprocessing
from evofool.targets.remote.client import HttpClient, HttpError, Message
from evofool.targets.remote.numbers import OPTIONS
from evofool.targets.remote.other_protocol import other_protocol
from evofool.targets.remote.protocol import Codec
from evofool.targets.remote.responses import KINDS, InvalidJson, brief, parse_json
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec

FORMAT, VERSION = "evofool.target", 1
_NO_GET = (404, 405, 501)  # statuses of services that accept only POST


class OwnContract:
    def __init__(self, spec: Spec) -> None:
        refuse_preprocessing(spec)
        self._spec = spec

    def describe(self, client: HttpClient) -> dict[str, Any]:
        """The server's description from GET, or {"missing": what GET gives instead}."""
        try:
            described = parse_json(client.request(Message("GET"), bytes))
        except HttpError as error:
            if error.status not in _NO_GET:
                raise
            return {"missing": str(error).removeprefix(f"{client.url}: ")}
        except InvalidJson as error:
            return {"missing": str(error)}
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            if other := other_protocol(described, "own"):
                raise TargetError(f"{client.url}: GET gives no description by evofool's contract{other}")
            return {"missing": f'JSON, but without "format": "{FORMAT}"'}
        try:
            return self.checked(described)
        except TargetError as error:
            raise TargetError(f"{client.url}: its description {error}") from None

    def checked(self, described: dict[str, Any]) -> dict[str, Any]:
        if described.keys() == {"missing"}:
            return described
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
            raise TargetError(
                f'has to have "resize" (null, or pixels, at most {MOST_RESIZE:,}) and "interpolation" in its '
                '"photographs", or none'
            )
        return {"version": version, "labels": labels, "shape": shape, "answers": kind, "photographs": photographs}

    def codec(self, described: Mapping[str, Any], shape: tuple[int, int, int]) -> Codec:
        photographs, _ = self._spec.preprocessing(Preprocessing(**described.get("photographs", {})), shape[1:])

        def encode(images: list[Any]) -> Message:
            encoded = [base64.b64encode(encode_png(image)).decode() for image in images]
            return Message("POST", json.dumps({"images": encoded}).encode())

        return Codec(encode, None, photographs)


def refuse_preprocessing(spec: Spec) -> None:
    """TargetError for options that change numbers: the server is sent pictures."""
    if refused := [option for option in OPTIONS if option in spec.options]:
        raise TargetError(
            f"{redacted_url(spec.name)}: {', '.join(refused)} cannot be set: the server preprocesses its images itself"
        )
