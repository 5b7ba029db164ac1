"""A black box's responses: from the JSON of docs/black-box.md to rows of logits, or an error that says what is wrong."""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evofool.errors import TargetError
from evofool.targets.answer_forms import sigmoids_note
from evofool.targets.preprocessing import TINY
from evofool.targets.remote.other_protocol import other_protocol

_MULTILABEL = "multilabel-"
KINDS = ("logits", "probabilities", "top", "multilabel-logits", "multilabel-probabilities")
"""What answers are, and their names in the JSON; those of multi-label targets may also have the names without the prefix."""
ONLY_0_AND_1 = 0
_DECIMALS = 6  # the most for which rounding is detected
_SUM = 2e-3  # how far the sum of probabilities may be from 1


class InvalidJson(Exception):
    """A response that is not JSON: cut off, or a page of a proxy. It counts as a temporary error."""


@dataclass(frozen=True)
class ResponseFormat:
    """How a server's responses are read: detected once per run, so that all of its scores are comparable.

    kind: one of KINDS. classes: K. top_k: the number of classes in a response. decimals: to which its probabilities are
    rounded, None if no rounding was detected, ONLY_0_AND_1 if all probabilities seen are 0 or 1.
    """

    kind: str
    classes: int
    top_k: int
    decimals: int | None = None

    @property
    def multilabel(self) -> bool:
        """Whether labels do not exclude each other (Target.multilabel)."""
        return self.kind.startswith(_MULTILABEL)

    @property
    def half(self) -> float:
        """Half a rounding step: the most that a probability of 0 may be before rounding."""
        if self.decimals is None:
            return TINY
        return 0.5 * 10.0 ** -(self.decimals or _DECIMALS)

    def notes(self) -> list[str]:
        """Limits on the meaning of scores from such responses."""
        notes, cut = [], math.log((1 - self.half) / self.half)
        zero = ""
        if self.multilabel:
            notes.append(sigmoids_note(self.kind, True))
        else:
            zero = ", and classes with probability 0 share the rest"
        if self.decimals == ONLY_0_AND_1:
            notes.append(
                "every probability in the answers to noise is 0 or 1: it may return only the class, and then a "
                f"confidence means nothing; log-odds are limited to +-{cut:.1f}"
            )
        elif self.decimals is not None:
            notes.append(
                f"answers are rounded to {self.decimals} decimal{'s' if self.decimals > 1 else ''}: confidences above "
                f"{1 - self.half:.{self.decimals + 1}f} cannot be distinguished from 1, log-odds are limited to "
                f"+-{cut:.1f}{zero}"
            )
        if self.top_k < self.classes:
            notes.append(
                f"answers contain only the top {self.top_k} of {self.classes} classes: scores of the others are bounds, and "
                "an image competes only in the classes that its answer contains"
            )
        if self.top_k == 1:
            notes.append("answers contain one class: margins are bounds, since the second class is unknown")
        return notes


def parse_json(body: bytes) -> Any:
    """JSON by RFC 8259. InvalidJson for anything else; TargetError for NaN and Infinity, which some libraries write."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, TargetError):
            raise
        raise InvalidJson(f"not JSON, but {printable(body.decode('utf-8', 'replace'))}" if body else "empty") from None


def response_values(
    answer: Any, kind: str | None, images: int, classes: int, names: Mapping[str, int]
) -> tuple[str, np.ndarray]:
    """The kind of a response, and its numbers, float64 (images, classes); NaN for classes that it does not contain.

    kind None: any of KINDS. names: class by the labels that "top" may use. TargetError says what is wrong.
    """
    if not isinstance(answer, dict):
        raise TargetError(f"the answer is a JSON {_type(answer)}; it has to be an object")
    found = [k for k in KINDS if k in answer]
    names_of_kind = {kind, kind.removeprefix(_MULTILABEL)} if kind else {*found}
    if len(names_of_kind & {*found}) != 1:
        wanted = f'"{kind}"' if kind else 'one of "logits", "probabilities" and "top"'
        raise TargetError(
            f"the answer has {printable(', '.join(map(str, answer)) or 'nothing')}; it has to have {wanted}"
            + other_protocol(answer, "own")
        )
    (name,) = names_of_kind & {*found}
    kind, rows = kind or name, answer[name]
    if not isinstance(rows, list) or len(rows) != images:
        many = f"{len(rows)} rows" if isinstance(rows, list) else f"a {_type(rows)}"
        raise TargetError(f'"{kind}" has {many} for {images} images; it has to have one row for each')
    out = np.full((images, classes), np.nan)
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise TargetError(f'row {i} of "{kind}" is a {_type(row)}; it has to be a list')
        if kind == "top":
            contained, numbers = _top(row, i, classes, names)
            out[i, contained] = _finite(numbers, kind, i)
        elif len(row) != classes:
            raise TargetError(f'row {i} of "{kind}" has {len(row)} numbers, but there are {classes} labels')
        else:
            out[i] = _finite(row, kind, i)
    if not kind.endswith("logits"):
        _refuse_improbable(out, kind)
    return kind, out


def detect_format(kind: str, numbers: np.ndarray) -> ResponseFormat:
    """The format of the first response, from its response_values. TargetError if its numbers are of no kind."""
    top_k = _top_k(numbers)
    if kind == f"{_MULTILABEL}logits":
        return ResponseFormat(kind, numbers.shape[1], top_k)
    if kind == "logits":
        if (numbers >= 0).all() and (numbers <= 1).all() and np.allclose(numbers.sum(axis=1), 1.0, atol=_SUM):
            raise TargetError(
                'what it calls "logits" are probabilities (rows within [0, 1] that sum to 1); it has to call them '
                '"probabilities"'
            )
        return ResponseFormat(kind, numbers.shape[1], top_k)
    p = numbers[~np.isnan(numbers)]
    if ((p == 0) | (p == 1)).all():
        decimals: int | None = ONLY_0_AND_1
    else:
        decimals = _decimals(p)
    return ResponseFormat(kind, numbers.shape[1], top_k, decimals)


def response_logits(numbers: np.ndarray, response_format: ResponseFormat) -> np.ndarray:
    """float32 (B, K), finite: logits as they are, logarithms of probabilities, or log(p / (1 - p)) if multi-label.

    Classes with probability 0, and missing ones, share evenly what the other probabilities leave, at least half a rounding
    step in all. A class with probability 0 gets at most half a step, and each missing class slightly less than the smallest
    of the response, so that the top_k largest logits are exactly those of the response.
    """
    if response_format.kind == f"{_MULTILABEL}probabilities":
        # Most servers' probabilities are in float32, whose largest number below 1 is 1 - 2^-24.
        p = np.clip(numbers, response_format.half, 1 - max(response_format.half, 2.0**-24))
        return np.asarray(np.log(p) - np.log1p(-p), np.float32)
    if response_format.kind.endswith("logits"):
        with np.errstate(over="ignore"):
            z = numbers.astype(np.float32)
        if not np.isfinite(z).all():
            raise TargetError("a logit is beyond the range of float32 (3.4e38)")
        return z
    if (top_k := _top_k(numbers)) != response_format.top_k:
        raise TargetError(
            f'an answer of "{response_format.kind}" has {top_k} classes, earlier answers had {response_format.top_k}'
        )
    missing = np.isnan(numbers)
    p = np.where(missing, 0.0, numbers)
    # A probability of 1 may be half a step less before rounding.
    rounded = response_format.decimals is not None
    sums = (np.minimum(p, 1 - response_format.half) if rounded else p).sum(axis=1, keepdims=True)
    zero = p == 0
    share = np.maximum(1 - sums, response_format.half) / np.maximum(zero.sum(axis=1, keepdims=True), 1)
    positive = np.where(zero, np.inf, p).min(axis=1, keepdims=True)
    p = np.where(zero & ~missing, np.minimum(share, np.minimum(response_format.half, positive)), p)
    least = np.where(missing, np.inf, p).min(axis=1, keepdims=True)
    z = np.log(np.where(missing, np.minimum(share, least), p)).astype(np.float32)
    below = np.nextafter(np.where(missing, np.float32(np.inf), z).min(axis=1, keepdims=True), np.float32(-np.inf))
    return np.where(missing, np.minimum(z, below), z)


def contradiction(numbers: np.ndarray, response_format: ResponseFormat) -> str | None:
    """How this response contradicts the detected format; None if it does not."""
    if response_format.decimals is None:
        return None
    p = numbers[~np.isnan(numbers)]
    if response_format.decimals == ONLY_0_AND_1:
        if ((p == 0) | (p == 1)).all():
            return None
        decimals = _decimals(p)
        note = "" if decimals is None else f": {replace(response_format, decimals=decimals).notes()[0]}"
        return f"the answers to noise were all 0 or 1, later ones are not{note}"
    if _rounded(p, response_format.decimals):
        return None
    return (
        f"the answers to noise were rounded to {response_format.decimals} decimals, later ones are not; a probability of 0 "
        f"is still read as at most {response_format.half:g}"
    )


def printable(text: str, most: int = 200) -> str:
    """A server's text for display: quoted, one line, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return f'"{line[:most]}{"..." if len(line) > most or len(text) > 4 * most else ""}"'


def brief(value: Any) -> str:
    """The beginning of some JSON, in ASCII."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _decimals(p: np.ndarray) -> int | None:
    """The fewest decimals to which all may have been rounded; None if more than _DECIMALS."""
    return next((k for k in range(1, _DECIMALS + 1) if _rounded(p, k)), None)


def _rounded(p: np.ndarray, decimals: int) -> bool:
    """Whether all are multiples of 10^-decimals, up to float32's rounding. 1e-9 is not a multiple, 0 is."""
    nearest = np.round(p, decimals)
    return bool((np.abs(p - nearest) <= 1e-7 * nearest).all())


def _top_k(numbers: np.ndarray) -> int:
    """How many classes each row contains; TargetError if rows differ."""
    counts = np.unique((~np.isnan(numbers)).sum(axis=1))
    if len(counts) != 1:
        raise TargetError(
            f'"top" has {counts[0]} classes for one image and {counts[-1]} for another; the number has to be equal'
        )
    return int(counts[0])


def _top(row: list[Any], i: int, classes: int, names: Mapping[str, int]) -> tuple[list[int], list[Any]]:
    classes_of_row, numbers = [], []
    for entry in row:
        if not isinstance(entry, dict) or not entry.keys() >= {"class", "probability"}:
            raise TargetError(f'row {i} of "top" contains {brief(entry)}; each entry needs "class" and "probability"')
        c = entry["class"]
        if isinstance(c, str):
            if c not in names:
                near = difflib.get_close_matches(c, names, 1)
                hint = f'; did it mean "{near[0]}"?' if near else ""
                raise TargetError(
                    f'row {i} of "top" names the class {brief(c)}, which is not one of the {classes} labels{hint}'
                )
            c = names[c]
        elif type(c) is not int or not 0 <= c < classes:
            raise TargetError(f'row {i} of "top" names the class {brief(c)}; classes are 0 to {classes - 1}, or labels')
        classes_of_row.append(c)
        numbers.append(entry["probability"])
    if not classes_of_row or len(set(classes_of_row)) != len(classes_of_row):
        raise TargetError(f'row {i} of "top" {"names a class twice" if classes_of_row else "is empty"}')
    return classes_of_row, numbers


def _finite(numbers: Sequence[Any], kind: str, i: int) -> np.ndarray:
    strange = [x for x in numbers if type(x) not in (int, float)]
    if strange:
        raise TargetError(f'row {i} of "{kind}" contains {brief(strange[0])}; it has to contain numbers')
    try:
        row = np.array(numbers, np.float64)
    except OverflowError:
        row = np.array([np.inf])
    if not np.isfinite(row).all():
        raise TargetError(f'row {i} of "{kind}" contains a number beyond the range of float64; numbers have to be finite')
    return row


def _refuse_improbable(p: np.ndarray, kind: str) -> None:
    known = np.nan_to_num(p)
    low, high = known.min(axis=1), known.max(axis=1)
    for i in np.flatnonzero((low < 0) | (high > 1 + 1e-6)):
        value = low[i] if low[i] < 0 else high[i]
        raise TargetError(f'row {i} of "{kind}" contains {value:.6g}; probabilities lie in [0, 1]')
    if kind.startswith(_MULTILABEL):
        return
    decimals = _decimals(known)
    slack = _SUM + (0.5 * 10.0**-decimals * p.shape[1] if decimals else 0.0)
    sums = known.sum(axis=1)
    several = " (if labels do not exclude each other: outputs=multilabel-probabilities)" if kind == "probabilities" else ""
    for i in np.flatnonzero((sums > 1 + slack) | ((sums < 1 - slack) if kind == "probabilities" else False)):
        raise TargetError(f'row {i} of "{kind}" sums to {sums[i]:.6g}; probabilities of all classes sum to 1{several}')


def _refuse_constant(text: str) -> Any:
    raise TargetError(f"the answer contains {text}, which is not valid JSON; scores have to be finite numbers")


def _type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
