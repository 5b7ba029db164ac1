"""What a black box asks of a protocol: how a server describes itself, how images are sent to it, and what it answers."""

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evofool.targets.preprocessing import Preprocessing
from evofool.targets.remote.client import HttpClient, Message


@dataclass(frozen=True)
class Codec:
    """How images are sent to one server, and how its answers are read.

    encode: a POST with uint8 images (C, H, W). entries: of the JSON of an answer and its number of images, an entry for each
    (evofool.targets.remote.entries); None where answers have the form of docs/black-box.md. preprocessing: of photographs,
    and of all images where numbers are sent. most: the most images in a request, None for no limit. details: what a
    target's details say about it; part of the fingerprint.
    """

    encode: Callable[[list[np.ndarray]], Message]
    entries: Callable[[Any, int], list[Any]] | None
    preprocessing: Preprocessing
    most: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Protocol(typing.Protocol):
    """A protocol of servers, for one spec.

    A description has JSON values: "labels", "shape" (of images: channels, height, width) and "answers" (one of
    responses.KINDS) as far as the server tells them, "classes" if it tells their number only, "missing" with the reason if
    it does not describe itself, and what the protocol itself needs.
    """

    def describe(self, client: HttpClient) -> dict[str, Any]:
        """Ask the server; TargetError for a description that is wrong."""
        ...

    def checked(self, described: dict[str, Any]) -> dict[str, Any]:
        """A description that was stored; the message of a TargetError continues after "its description"."""
        ...

    def codec(self, described: Mapping[str, Any], shape: tuple[int, int, int]) -> Codec:
        """For images of this shape."""
        ...
