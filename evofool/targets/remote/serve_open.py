"""A served target by the Open Inference Protocol, version 2: metadata, readiness, and answers to tensors of pixels."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from evofool.errors import ImageError, TargetError
from evofool.targets.classifier import Target
from evofool.targets.redaction import public_name
from evofool.targets.remote.responses import brief, parse_json

INPUT, DATATYPE = "images", "UINT8"
_VERSION = "1"
_OF_VERSION = re.compile(rf"^(/v2/models/[^/]+)/versions/{_VERSION}(?=/|$)")


def model_name(target: Target) -> str:
    """The name of the model in URLs: the target's, without folders, options and characters that a path does not have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", public_name(target.name).partition("?")[0]).strip("-.") or "model"


def without_version(path: str) -> str:
    """A path under /v2/models/NAME/versions/1, the only version, as the one that names no version."""
    return _OF_VERSION.sub(r"\1", path)


def information(path: str, target: Target, answers: str) -> dict[str, Any] | None:
    """What GET gives for a path under /v2; None for a path that there is not."""
    model, path = f"/v2/models/{model_name(target)}", without_version(path)
    if path == "/v2":
        return {"name": "evofool", "version": version("evofool"), "extensions": []}
    if path in ("/v2/health/live", "/v2/health/ready"):
        return {path.rpartition("/")[2]: True}
    if path == f"{model}/ready":
        return {"name": model_name(target), "ready": True}
    if path != model:
        return None
    tensors = {"inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, *target.shape]}]}
    tensors["outputs"] = [{"name": answers, "datatype": _datatype(answers), "shape": [-1, len(target.labels)]}]
    labels = {"parameters": {"labels": list(target.labels)}}
    return {"name": model_name(target), "versions": [_VERSION], "platform": "evofool", **tensors, **labels}


def images_of(body: bytes, shape: tuple[int, int, int], answers: str) -> tuple[np.ndarray, str | None]:
    """The uint8 images (B, C, H, W) of a request, B >= 1, and its id; ImageError or InvalidJson says what is wrong."""
    try:
        content = parse_json(body)
    except TargetError as error:
        raise ImageError(str(error)) from None
    inputs = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ImageError(f'a request has to have "inputs", a list of one tensor, "{INPUT}"')
    tensor, wanted = inputs[0], content.get("outputs", [])
    if not isinstance(wanted, list) or any(not isinstance(each, dict) or each.get("name") != answers for each in wanted):
        raise ImageError(f'the only output is "{answers}"')
    for key, value in (("name", INPUT), ("datatype", DATATYPE)):
        if tensor.get(key) != value:
            raise ImageError(f'the {key} of the input is {brief(tensor.get(key))}; it has to be "{value}"')
    dims, identifier = tensor.get("shape"), content.get("id")
    whole = isinstance(dims, list) and len(dims) == 4 and all(type(n) is int for n in dims)
    if not whole or not dims or dims[0] < 1 or dims[1:] != list(shape):
        raise ImageError(f"the input has the shape {brief(dims)}; it has to be {['n', *shape]}".replace("'", ""))
    try:
        pixels = np.array(tensor.get("data"))
        if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
            raise ValueError
        images = pixels.astype(np.uint8).reshape(dims)
    except (ValueError, TypeError, OverflowError):
        raise ImageError(f"the data has to be whole numbers from 0 to 255, as many as the shape {dims} has") from None
    return images, identifier if isinstance(identifier, str) else None


def answer_of(rows: Mapping[str, Any], target: Target, identifier: str | None) -> dict[str, Any]:
    """The response, from one by the contract of docs/black-box.md: logits or probabilities."""
    ((answers, values),) = rows.items()
    data = [number for row in values for number in row]
    output = {"name": answers, "datatype": _datatype(answers), "shape": [len(values), len(target.labels)], "data": data}
    named = {"model_name": model_name(target), "model_version": _VERSION, **({"id": identifier} if identifier else {})}
    return {**named, "outputs": [output]}


def _datatype(answers: str) -> str:
    return "FP32" if answers.endswith("logits") else "FP64"
