"""Any other JSON over HTTP: request=FILE is a request with placeholders for images, answer=PATH is where the answer is.

In the file, a text that is a placeholder is replaced:

    "{images.FORM}"      all images of a request, a list
    {"{each}": ...}      a list that has ... for each image, in which "{image.FORM}" is that image
    "{image.FORM}"       elsewhere: the only image of a request

FORM is png or jpeg (quality 95): base64, also inside a longer text; or chw, hwc, hw, flat: lists of numbers. PATH has names
and numbers of list items, separated by dots; * is every item of a list; a single dot is the whole answer.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import TargetError
from evofool.images import encode_png, to_pil
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.remote.client import HttpClient, Message
from evofool.targets.remote.numbers import Numbers
from evofool.targets.remote.other_protocol import other_protocol
from evofool.targets.remote.own_contract import refuse_preprocessing
from evofool.targets.remote.protocol import Codec
from evofool.targets.remote.responses import InvalidJson, brief, parse_json
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec

_LAYOUTS = {"chw": "nchw", "hwc": "nhwc", "hw": "nhw", "flat": "flat"}
_FILES = ("png", "jpeg")
_EACH = "{each}"
_PLACEHOLDER = re.compile(r"\{(images?)\.(png|jpeg|chw|hwc|hw|flat)\}")
_NEARLY = re.compile(r"\{\s*(images?|each)\b[^}]*\}")
_MAX_BYTES = 1 << 20  # of the file
_JPEG_QUALITY = 95


class Template:
    def __init__(self, spec: Spec) -> None:
        self._spec, who = spec, redacted_url(spec.name)
        for option, other in (("request", "answer"), ("answer", "request")):
            if option in spec.options and not spec.options.get(other):
                raise TargetError(f"{who}: {option}= is given without {other}=; a request of your own needs both")
        content, self._template = _read(spec)
        forms, self._batch = _forms(self._template, spec)
        if len(forms) != 1:
            raise TargetError(f"{who}: the request has the images in several forms ({', '.join(sorted(forms))})")
        (self._form,) = forms
        self._details = {
            "protocol": "template",
            "request_sha256": hashlib.sha256(content).hexdigest(),
            "answer": spec.options["answer"],
        }
        if self._form in _FILES:
            refuse_preprocessing(spec)
            if "datatype" in spec.options:
                raise TargetError(f"{who}: datatype cannot be set: the request has files of pictures")

    def describe(self, client: HttpClient) -> dict[str, Any]:
        return {"missing": "nothing: with request= only POST is sent"}

    def checked(self, described: dict[str, Any]) -> dict[str, Any]:
        return described

    def codec(self, described: Mapping[str, Any], shape: tuple[int, int, int]) -> Codec:
        path = self._spec.options["answer"]
        if self._form in _FILES:
            as_json: Callable[[np.ndarray], Any] = partial(_file, form=self._form)
            preprocessing, _ = self._spec.preprocessing(Preprocessing(), shape[1:])
            details = self._details
        else:
            numbers = Numbers.of(self._spec, shape, _LAYOUTS[self._form])
            as_json = lambda image: numbers.array([image])[0].tolist()  # noqa: E731
            preprocessing, details = numbers.preprocessing, self._details | numbers.details()

        def encode(images: list[np.ndarray]) -> Message:
            return Message("POST", json.dumps(_filled(self._template, [as_json(image) for image in images])).encode())

        def entries(answer: Any, images: int) -> list[Any]:
            found = found_at(answer, path)
            one_each = found if self._batch else [found]
            if not isinstance(one_each, list) or len(one_each) != images:
                raise TargetError(
                    f"answer={path} finds {brief(found)} for {images} images; it has to be a list with an entry for each"
                )
            return one_each

        return Codec(encode, entries, preprocessing, None if self._batch else 1, details)


def found_at(answer: Any, path: str) -> Any:
    """What is at a path of an answer; TargetError says at which step there is nothing."""
    steps = [step for step in path.split(".") if step]
    for at, step in enumerate(steps):
        if step == "*":
            if not isinstance(answer, list):
                break
            return [found_at(each, ".".join(steps[at + 1 :])) for each in answer]
        if isinstance(answer, dict) and step in answer:
            answer = answer[step]
        elif isinstance(answer, list) and step.isdecimal() and int(step) < len(answer):
            answer = answer[int(step)]
        else:
            break
    else:
        return answer
    there = (
        f"there are {', '.join(map(brief, answer))}" if isinstance(answer, dict) and answer else f"there is {brief(answer)}"
    )
    raise TargetError(f'answer={path} finds nothing at "{step}": {there}{other_protocol(answer, "template")}')


def _read(spec: Spec) -> tuple[bytes, Any]:
    path = Path(spec.options["request"])
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise TargetError(f"{redacted_url(spec.name)}: the request's file {path} cannot be read ({error})") from None
    if len(content) > _MAX_BYTES:
        raise TargetError(f"{redacted_url(spec.name)}: the request's file {path} is longer than 1 MB")
    try:
        return content, parse_json(content)
    except (InvalidJson, TargetError) as error:
        raise TargetError(f"{redacted_url(spec.name)}: the request's file {path} is not JSON ({error})") from None


def _texts(value: Any, in_each: bool = False) -> Iterator[tuple[str, bool]]:
    """Every text of a template that is no key, and whether it is inside an {each}."""
    if isinstance(value, str):
        yield value, in_each
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, in_each)
    elif isinstance(value, dict):
        if _EACH in value and (in_each or len(value) > 1):
            yield _EACH, in_each  # refused as a text, since it has to be the only key, and not inside another one
        for key, each in value.items():
            yield from _texts(each, in_each or key == _EACH)


def _forms(template: Any, spec: Spec) -> tuple[set[str], bool]:
    """The forms of a template's images, and whether a request has several images. TargetError for what is no template."""
    who, forms, several = f"{redacted_url(spec.name)}: the request {spec.options['request']}", set(), set()
    for text, in_each in _texts(template):
        for nearly in _NEARLY.finditer(text):
            found = _PLACEHOLDER.fullmatch(nearly[0])
            if not found:
                raise TargetError(
                    f"{who} has {nearly[0]}; placeholders are {{images.FORM}}, {{image.FORM}} and the key {_EACH}, with "
                    "png, jpeg, chw, hwc, hw or flat as FORM"
                )
            if found[2] not in _FILES and text != found[0]:
                raise TargetError(f"{who} has {found[0]} inside a longer text; numbers need a text of their own")
            forms.add(found[2])
            several.add(in_each or found[1] == "images")
            if found[1] == "images" and (in_each or text != found[0]):
                raise TargetError(f"{who} has {found[0]} where one image belongs; write {{image.{found[2]}}}")
    if not forms:
        raise TargetError(f'{who} has no place for images, such as "{{images.png}}" or "{{image.png}}"')
    if len(several) > 1:
        raise TargetError(f"{who} has one image in one place and all in another")
    return forms, several.pop()


def _filled(value: Any, images: list[Any]) -> Any:
    """A template with the images, each as JSON, in the place of its placeholders."""
    if isinstance(value, str):
        found = _PLACEHOLDER.search(value)
        if found is None:
            return value
        if value == found[0]:
            return images if found[1] == "images" else images[0]
        return _PLACEHOLDER.sub(lambda _: str(images[0]), value)
    if isinstance(value, list):
        return [_filled(each, images) for each in value]
    if isinstance(value, dict):
        if value.keys() == {_EACH}:
            return [_filled(value[_EACH], [image]) for image in images]
        return {key: _filled(each, images) for key, each in value.items()}
    return value


def _file(image: np.ndarray, form: str) -> str:
    if form == "png":
        content = encode_png(image)
    else:
        buffer = io.BytesIO()
        to_pil(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
        content = buffer.getvalue()
    return base64.b64encode(content).decode()
