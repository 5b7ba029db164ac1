"""The Open Inference Protocol, version 2, over HTTP with JSON: KServe, Triton, MLServer, OpenVINO Model Server.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from evofool.errors import TargetError
from evofool.targets.answer_forms import rows_of
from evofool.targets.remote.client import HttpClient, HttpError, Message
from evofool.targets.remote.numbers import DATATYPES, Numbers, given_layout, layout_of, shape_of
from evofool.targets.remote.other_protocol import other_protocol
from evofool.targets.remote.protocol import Codec
from evofool.targets.remote.responses import KINDS, InvalidJson, brief, parse_json, printable
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec

MOST_CLASSES = 1 << 20
_MOST_SIDE = 1 << 53  # of a shape
_NOT_THERE = (400, 404)  # what servers answer for a model that they do not have


class OpenInference:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        if "/v2/models/" not in spec.name:
            raise TargetError(f"{redacted_url(spec.name)}: has to name a model, as in kserve://HOST:PORT/v2/models/NAME")

    def describe(self, client: HttpClient) -> dict[str, Any]:
        """The model's metadata. A server without that model is asked for its name, to say which it is."""
        try:
            found = parse_json(client.request(Message("GET"), bytes))
        except InvalidJson as error:
            raise TargetError(f"{client.url}: does not speak the Open Inference Protocol: GET gives {error}") from None
        except HttpError as error:
            if error.status not in _NOT_THERE:
                raise
            server = _server(client, self._spec.name.partition("/v2/models/")[0] + "/v2")
            there = f"{server} has no such model" if server else "no server of the Open Inference Protocol is there"
            raise TargetError(f"{client.url}: {there} ({str(error).removeprefix(f'{client.url}: ')})") from None
        if not isinstance(found, dict) or not isinstance(found.get("inputs", []), list) or "name" not in found:
            raise TargetError(f"{client.url}: GET gives no metadata of a model{other_protocol(found, 'kserve')}")
        kept = {key: found[key] for key in ("inputs", "outputs", "parameters") if found.get(key)}
        try:
            return self.checked(kept)
        except TargetError as error:
            who = f"{client.url}: "  # options that are wrong are named with it
            raise TargetError(str(error) if str(error).startswith(who) else f"{who}its metadata {error}") from None

    def checked(self, described: dict[str, Any]) -> dict[str, Any]:
        """Of metadata: the chosen input and output, the number of classes and the labels, as far as it has them."""
        tensor_in = _tensor(described, "input", self._spec)
        tensor_out = _tensor(described, "output", self._spec)
        kept: dict[str, Any] = {"inputs": [tensor_in] if tensor_in else [], "outputs": [tensor_out] if tensor_out else []}
        dims = tensor_out.get("shape", [])
        # One whole number for an image is its class, one of any number.
        is_class = _is_whole(tensor_out.get("datatype")) and math.prod(dims[1:]) == 1
        if len(dims) > 1 and all(n > 0 for n in dims[1:]) and not is_class:
            kept["classes"] = max(math.prod(dims[1:]), 2)
            if kept["classes"] > MOST_CLASSES:
                raise TargetError(
                    f'says that its output "{tensor_out["name"]}" has the shape {brief(dims)}; {MOST_CLASSES:,} classes are '
                    "the most"
                )
        if str(tensor_out.get("name")).startswith("multilabel-") and tensor_out["name"] in KINDS:
            kept["answers"] = tensor_out["name"]  # as evofool's own servers call it
        parameters = described.get("parameters")
        labels = parameters.get("labels") if isinstance(parameters, dict) else None
        if isinstance(labels, list) and len(labels) > 1 and all(isinstance(label, str) for label in labels):
            kept |= {"labels": labels, "parameters": {"labels": labels}}
        if tensor_in:
            if tensor_in["datatype"] not in DATATYPES and "datatype" not in self._spec.options:
                raise TargetError(
                    f'says that its input "{tensor_in["name"]}" is {brief(tensor_in["datatype"])}; images are sent as '
                    f"{', '.join(DATATYPES)} (datatype=)"
                )
            dims = tensor_in["shape"]
            layout = given_layout(self._spec) or layout_of(dims)
            if layout is None:
                raise TargetError(
                    f'says that its input "{tensor_in["name"]}" has the shape {brief(dims)}; say what its axes are '
                    "(layout=nchw, nhwc, nhw or flat), the first being that of the images"
                )
            kept |= {"layout": layout, "shape": list(shape_of(dims, layout, self._spec))}
        return kept

    def codec(self, described: Mapping[str, Any], shape: tuple[int, int, int]) -> Codec:
        given = (described["inputs"] or [{}])[0]
        name = given.get("name") or self._spec.options.get("input", "input-0")
        output = (described["outputs"] or [{}])[0].get("name") or self._spec.options.get("output")
        numbers = Numbers.of(self._spec, shape, described.get("layout", "nchw"), given.get("datatype", "FP32"))
        most = given.get("shape", [-1])[0]
        if most > 1:
            who = redacted_url(self._spec.name)
            raise TargetError(f"{who}: takes exactly {most} images at a time; serve it with a batch of any size")

        def encode(images: list[np.ndarray]) -> Message:
            array = numbers.array(images)
            tensor = {"name": name, "shape": list(array.shape), "datatype": numbers.datatype, "data": array.ravel().tolist()}
            body = {"inputs": [tensor], **({"outputs": [{"name": output}]} if output else {})}
            return Message("POST", json.dumps(body).encode(), "/infer")

        def entries(answer: Any, images: int) -> list[Any]:
            return _rows(answer, output, images)

        details = {"protocol": "kserve", "input": name, **numbers.details(), **({"output": output} if output else {})}
        return Codec(encode, entries, numbers.preprocessing, most if most > 0 else None, details)


def _tensor(described: Mapping[str, Any], what: str, spec: Spec) -> dict[str, Any]:
    """The metadata of the input or output: the one that input= or output= names, else the only one; {} if there is none."""
    found = described.get(f"{what}s", [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TargetError(f'has to have "{what}s", a list of objects')
    wanted = spec.options.get(what)
    names = _names(found)
    chosen = [each for each in found if wanted in (None, each.get("name"))]
    if found and wanted is not None and not chosen:
        raise TargetError(f"has no {what} {wanted}; there are {names} ({what}=)")
    if len(chosen) > 1:
        raise TargetError(f"has several {what}s, {names}; say which one ({what}={chosen[0].get('name')})")
    if not chosen:
        return {}
    tensor = {key: chosen[0].get(key) for key in ("name", "datatype", "shape")}
    dims = tensor["shape"] or []
    named = isinstance(tensor["name"], str) and isinstance(tensor["datatype"], str | None)
    if not named or not isinstance(dims, list) or not all(type(n) is int and abs(n) < _MOST_SIDE for n in dims):
        raise TargetError(
            f"has the {what} {brief(tensor)}; it has to have a name, a datatype that is a text, and a shape of whole numbers"
        )
    if what == "input" and not 2 <= len(dims) <= 4:
        raise TargetError(f'says that its input "{tensor["name"]}" has the shape {brief(dims)}; images have 2 to 4 axes')
    return {**tensor, "shape": dims}


def _rows(answer: Any, output: str | None, images: int) -> list[Any]:
    """The entries of an answer (evofool.targets.remote.entries), from the data of its output."""
    outputs = answer.get("outputs") if isinstance(answer, dict) else None
    if not isinstance(outputs, list) or not outputs or not all(isinstance(each, dict) for each in outputs):
        raise TargetError(f'the answer is {brief(answer)}; it has to have "outputs"{other_protocol(answer, "kserve")}')
    chosen = [each for each in outputs if output in (None, each.get("name"))]
    if len(chosen) != 1:
        raise TargetError(f"the answer has the outputs {_names(outputs)}; say which one has the scores (output=NAME)")
    shape, data = chosen[0].get("shape"), chosen[0].get("data")
    try:
        values = np.array(data, object if chosen[0].get("datatype") == "BYTES" else np.float64)
        values = values.reshape(shape)
        values = values.reshape(rows_of(values.shape))
    except (TypeError, ValueError, OverflowError):
        raise TargetError(f"the answer's output has the shape {brief(shape)}, and {brief(data)} in it") from None
    if len(values) != images or values.ndim != 2:
        raise TargetError(
            f"the answer's output has the shape {brief(shape)} for {images} images; it has to be (images, classes)"
        )
    if values.shape[1] == 1 and _is_whole(chosen[0].get("datatype")):
        return [int(value) if np.isfinite(value) else value for value in values[:, 0]]
    rows: list[Any] = values.tolist()
    return [row[0] if row and isinstance(row[0], str) else row for row in rows]


def _is_whole(datatype: object) -> bool:
    return isinstance(datatype, str) and datatype.lstrip("U").startswith("INT")


def _names(tensors: list[dict[str, Any]]) -> str:
    """For display."""
    return printable(", ".join(str(each.get("name")) for each in tensors))[1:-1]


def _server(client: HttpClient, url: str) -> str:
    """The name and version of the server; "" if it does not tell them."""
    try:
        found = parse_json(client.request(Message("GET", url=url), bytes))
    except (TargetError, InvalidJson):
        return ""
    name = found.get("name") if isinstance(found, dict) else None
    return printable(f"{name} {found.get('version', '')}".strip(), 80)[1:-1] if isinstance(name, str) else ""
