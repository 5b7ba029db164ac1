"""A black box's answers: from the JSON of docs/black-box.md to rows of logits, or a sentence on what is wrong with them."""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evofool.errors import TargetError

KINDS = ("logits", "probabilities", "top")
ONLY_0_AND_1 = 0
_DECIMALS = 6  # the most that rounding is looked for
_TINY = 1e-38  # what a probability of 0 is taken for where nothing is rounded, as in preprocessing.py
_SUM = 2e-3  # how far from 1 probabilities may sum


class Garbled(Exception):
    """An answer that is no JSON: cut off, or a page of some machine on the way. The next try may bring a whole one."""


@dataclass(frozen=True)
class Reading:
    """How a server's answers are read: settled once for a run, so that all of its scores mean the same.

    top_k: how many classes an answer contains. decimals: what its probabilities are rounded to, None if to none that shows,
    ONLY_0_AND_1 if all that were seen are 0 or 1.
    """

    kind: str
    classes: int
    top_k: int
    decimals: int | None = None

    @property
    def half(self) -> float:
        """Half a rounding step: what a probability told as 0 may be at most."""
        if self.decimals is None:
            return _TINY
        return 0.5 * 10.0 ** -(self.decimals or _DECIMALS)

    def notes(self) -> list[str]:
        """What cannot be claimed of scores that come from such answers."""
        told, cut = [], math.log((1 - self.half) / self.half)
        if self.decimals == ONLY_0_AND_1:
            told.append(
                "every probability in the answers to noise is 0 or 1: the server may tell the class alone, and then a "
                f"confidence means nothing; log-odds are cut at +-{cut:.1f}"
            )
        elif self.decimals is not None:
            told.append(
                f"answers are rounded to {self.decimals} decimal{'s' if self.decimals > 1 else ''}: confidences above "
                f"{1 - self.half:.{self.decimals + 1}f} cannot be told from 1, log-odds are cut at +-{cut:.1f}, and classes "
                "told as 0 share what is left"
            )
        if self.top_k < self.classes:
            told.append(
                f"answers tell of the likeliest {self.top_k} of {self.classes} classes: the others' scores are bounds, and "
                "an image can hold a class only where that is among them"
            )
        if self.top_k == 1:
            told.append("answers tell of one class: margins are bounds, since the second is never told")
        return told


def parsed(body: bytes) -> Any:
    """JSON as RFC 8259 has it. Garbled if it is none; TargetError for the NaN and Infinity that some libraries write."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, TargetError):
            raise
        raise Garbled(f"no JSON, but {shown(body.decode('utf-8', 'replace'))}" if body else "empty") from None


def values(answer: Any, kind: str | None, images: int, classes: int, names: Mapping[str, int]) -> tuple[str, np.ndarray]:
    """What kind of answer it is, and its numbers, float64 (images, classes): NaN for the classes that are not told.

    kind None: any of KINDS. names are the labels that a `top` may use. TargetError says what is wrong.
    """
    if not isinstance(answer, dict):
        raise TargetError(f"the answer is a JSON {_type(answer)}; it has to be an object")
    found = [k for k in KINDS if k in answer]
    if kind not in found if kind else len(found) != 1:
        wanted = f'"{kind}"' if kind else 'one of "logits", "probabilities" and "top"'
        raise TargetError(f"the answer has {shown(', '.join(map(str, answer)) or 'nothing')}; it has to have {wanted}")
    kind = kind or found[0]
    rows = answer[kind]
    if not isinstance(rows, list) or len(rows) != images:
        many = f"{len(rows)} rows" if isinstance(rows, list) else f"a {_type(rows)}"
        raise TargetError(f'"{kind}" has {many} for {images} images; it has to have one row for each')
    out = np.full((images, classes), np.nan)
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise TargetError(f'row {i} of "{kind}" is a {_type(row)}; it has to be a list')
        if kind == "top":
            told, numbers = _top(row, i, classes, names)
            out[i, told] = _finite(numbers, kind, i)
        elif len(row) != classes:
            raise TargetError(f'row {i} of "{kind}" has {len(row)} numbers, but there are {classes} labels')
        else:
            out[i] = _finite(row, kind, i)
    if kind != "logits":
        _refuse_improbable(out, kind)
    return kind, out


def read_as(kind: str, numbers: np.ndarray) -> Reading:
    """The Reading that the answers to the first images, as `values` gives them, speak for. TargetError if for none."""
    top_k = _top_k(numbers)
    if kind == "logits":
        if (numbers >= 0).all() and (numbers <= 1).all() and np.allclose(numbers.sum(axis=1), 1.0, atol=_SUM):
            raise TargetError(
                'what it calls "logits" are probabilities (rows within [0, 1] that sum to 1); it has to call them so'
            )
        return Reading(kind, numbers.shape[1], top_k)
    p = numbers[~np.isnan(numbers)]
    if ((p == 0) | (p == 1)).all():
        decimals: int | None = ONLY_0_AND_1
    else:
        decimals = _decimals(p)
    return Reading(kind, numbers.shape[1], top_k, decimals)


def logits(numbers: np.ndarray, reading: Reading) -> np.ndarray:
    """float32 (B, K), finite: logits as they are, logarithms of probabilities.

    Classes that are told as 0, and those that are not told, share evenly what the told probabilities leave, at least half a
    rounding step in all. None told as 0 gets more than half a step, and each not told a hair less than the least told, so
    that the `told` largest logits are exactly the told ones.
    """
    if reading.kind == "logits":
        with np.errstate(over="ignore"):
            z = numbers.astype(np.float32)
        if not np.isfinite(z).all():
            raise TargetError("a logit is beyond what float32 holds (3.4e38)")
        return z
    if (top_k := _top_k(numbers)) != reading.top_k:
        raise TargetError(f'an answer of "{reading.kind}" has {top_k} classes, earlier answers had {reading.top_k}')
    untold = np.isnan(numbers)
    p = np.where(untold, 0.0, numbers)
    # What is told as 1 may be half a step less.
    sums = (p if reading.decimals is None else np.minimum(p, 1 - reading.half)).sum(axis=1, keepdims=True)
    missing = p == 0
    share = np.maximum(1 - sums, reading.half) / np.maximum(missing.sum(axis=1, keepdims=True), 1)
    positive = np.where(missing, np.inf, p).min(axis=1, keepdims=True)
    p = np.where(missing & ~untold, np.minimum(share, np.minimum(reading.half, positive)), p)
    least = np.where(untold, np.inf, p).min(axis=1, keepdims=True)
    z = np.log(np.where(untold, np.minimum(share, least), p)).astype(np.float32)
    hair = np.nextafter(np.where(untold, np.float32(np.inf), z).min(axis=1, keepdims=True), np.float32(-np.inf))
    return np.where(untold, np.minimum(z, hair), z)


def contradiction(numbers: np.ndarray, reading: Reading) -> str | None:
    """What these answers say against the reading that the first ones spoke for."""
    if reading.kind == "logits" or reading.decimals is None:
        return None
    p = numbers[~np.isnan(numbers)]
    if reading.decimals == ONLY_0_AND_1:
        if ((p == 0) | (p == 1)).all():
            return None
        decimals = _decimals(p)
        known = "" if decimals is None else f": {Reading(reading.kind, reading.classes, reading.top_k, decimals).notes()[0]}"
        return f"the answers to noise were all 0 or 1, later ones are not{known}"
    if _rounded(p, reading.decimals):
        return None
    return (
        f"the answers to noise were rounded to {reading.decimals} decimals, later ones are not; probabilities told as 0 are "
        f"still taken for at most {reading.half:g}"
    )


def shown(text: str, most: int = 200) -> str:
    """What a server said, for people to read: one line, nothing that a terminal obeys."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return f'"{line[:most]}{"..." if len(line) > most else ""}"'


def brief(value: Any) -> str:
    """The beginning of some JSON, in ASCII."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _decimals(p: np.ndarray) -> int | None:
    """The fewest decimals that all could have been rounded to, None if that takes more than _DECIMALS."""
    return next((k for k in range(1, _DECIMALS + 1) if _rounded(p, k)), None)


def _rounded(p: np.ndarray, decimals: int) -> bool:
    """Whether all are multiples of 10^-decimals, float32's own rounding of them allowed. 1e-9 is no multiple, 0 is."""
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
    told, numbers = [], []
    for entry in row:
        if not isinstance(entry, dict) or not entry.keys() >= {"class", "probability"}:
            raise TargetError(f'row {i} of "top" holds {brief(entry)}; it has to hold "class" and "probability"')
        c = entry["class"]
        if isinstance(c, str):
            if c not in names:
                near = difflib.get_close_matches(c, names, 1)
                hint = f'; did it mean "{near[0]}"?' if near else ""
                raise TargetError(
                    f'row {i} of "top" names the class {brief(c)}, which is none of the {classes} labels{hint}'
                )
            c = names[c]
        elif type(c) is not int or not 0 <= c < classes:
            raise TargetError(f'row {i} of "top" names the class {brief(c)}; classes are 0 to {classes - 1}, or labels')
        told.append(c)
        numbers.append(entry["probability"])
    if not told or len(set(told)) != len(told):
        raise TargetError(f'row {i} of "top" {"names a class twice" if told else "is empty"}')
    return told, numbers


def _finite(numbers: Sequence[Any], kind: str, i: int) -> np.ndarray:
    strange = [x for x in numbers if type(x) not in (int, float)]
    if strange:
        raise TargetError(f'row {i} of "{kind}" holds {brief(strange[0])}; it has to hold numbers')
    try:
        row = np.array(numbers, np.float64)
    except OverflowError:
        row = np.array([np.inf])
    if not np.isfinite(row).all():
        raise TargetError(f'row {i} of "{kind}" holds a number beyond what float64 holds; numbers have to be finite')
    return row


def _refuse_improbable(p: np.ndarray, kind: str) -> None:
    known = np.nan_to_num(p)
    low, high = known.min(axis=1), known.max(axis=1)
    for i in np.flatnonzero((low < 0) | (high > 1 + 1e-6)):
        raise TargetError(f'row {i} of "{kind}" holds {low[i] if low[i] < 0 else high[i]:.6g}; probabilities lie in [0, 1]')
    decimals = _decimals(known)
    slack = _SUM + (0.5 * 10.0**-decimals * p.shape[1] if decimals else 0.0)
    sums = known.sum(axis=1)
    for i in np.flatnonzero((sums > 1 + slack) | ((sums < 1 - slack) if kind == "probabilities" else False)):
        raise TargetError(f'row {i} of "{kind}" sums to {sums[i]:.6g}; probabilities of all classes sum to 1')


def _refuse_constant(text: str) -> Any:
    raise TargetError(f"the answer holds {text}, which JSON does not have; a number that is not finite is no score")


def _type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")
