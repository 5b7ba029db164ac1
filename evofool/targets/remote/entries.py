"""Answers in other forms than those of docs/black-box.md, brought into these: one entry for each image.

An entry is a list of numbers, one for each class; a single number, the score of the second of two classes; a list of
objects that have a class and its score; an object with the scores by class; or one class, its name or its whole number.
"""

from typing import Any

import numpy as np

from evofool.errors import TargetError
from evofool.targets.remote.responses import brief
from evofool.text import whole_number

_CLASS = ("label", "class", "class_name", "name")  # the keys of a class in an object, and those of its score
_SCORE = ("score", "probability", "confidence")
_SUM = 0.02  # how far the sum of all classes' probabilities may be from 1 for the classes to be all


def answer_of(entries: list[Any], kind: str | None) -> dict[str, Any]:
    """Entries as an answer of the contract, {"logits": rows}, {"top": rows} or another of responses.KINDS.

    kind None: numbers are probabilities if all lie within [0, 1], else logits. What is no entry stays, for
    responses.response_values to say what is wrong.
    """
    first = entries[0] if entries else None
    if isinstance(first, dict) or (isinstance(first, list) and first and isinstance(first[0], dict)):
        return {"top": [_scored(entry) for entry in entries]}
    if isinstance(first, str) or type(first) is int:
        return {"top": [[{"class": entry, "probability": 1.0}] for entry in entries]}
    kind = kind or ("probabilities" if _within_0_and_1(entries) else "logits")
    several = kind.startswith("multilabel-")  # then one score is that of one label
    return {kind: entries if several else [_two_classes(entry, kind) for entry in entries]}


def is_single(entries: list[Any]) -> bool:
    """Whether an entry is one score, of the second of two classes."""
    return bool(entries) and (type(entries[0]) is float or (isinstance(entries[0], list) and len(entries[0]) == 1))


def labels_of(entries: list[Any]) -> list[str] | None:
    """The labels that the entries of a first answer show, in the order of the classes; None if they do not show all.

    Numbers for want of names. Names are sorted, as numbers if all are whole numbers; they are all if every entry has them,
    and their scores sum to 1.
    """
    answer = answer_of(entries, None)
    rows = answer.get("top")
    if rows is None:
        row = next(iter(answer.values()))[0]
        return [str(c) for c in range(len(row))] if isinstance(row, list) and len(row) > 1 else None
    try:
        names = [_sorted([entry["class"] for entry in row]) for row in rows]
        sums = [sum(entry["probability"] for entry in row) for row in rows]
    except (TypeError, KeyError):
        return None
    whole = all(found == names[0] for found in names) and all(abs(total - 1) <= _SUM for total in sums)
    return [str(name) for name in names[0]] if whole and len(set(names[0])) == len(names[0]) > 1 else None


def _sorted(names: list[Any]) -> list[Any]:
    numbers = all(isinstance(name, str) and whole_number(name) is not None for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if numbers else sorted(names)


def _within_0_and_1(entries: list[Any]) -> bool:
    try:
        numbers = np.asarray(entries, np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(((numbers >= 0) & (numbers <= 1)).all())


def _two_classes(entry: Any, kind: str) -> Any:
    """The row of one score, which is the second class's; any other entry as it is."""
    value = entry[0] if isinstance(entry, list) and len(entry) == 1 else entry
    if type(value) not in (int, float):
        return entry
    return [0.0, value] if kind == "logits" else [1 - value, value]


def _scored(entry: Any) -> Any:
    """A row of "top" from [{"label": ..., "score": ...}, ...], one such object, or {class: score, ...}."""
    if isinstance(entry, dict):
        if not (entry.keys() & set(_CLASS) and entry.keys() & set(_SCORE)):
            return [{"class": name, "probability": value} for name, value in entry.items()]
        entry = [entry]
    if not isinstance(entry, list):
        return entry
    found = []
    for each in entry:
        names = [key for key in _CLASS if isinstance(each, dict) and key in each]
        scores = [key for key in _SCORE if isinstance(each, dict) and key in each]
        if not names or not scores:
            raise TargetError(
                f"an entry of the answer is {brief(each)}; it has to have a class ({', '.join(_CLASS)}) and its score "
                f"({', '.join(_SCORE)})"
            )
        found.append({"class": each[names[0]], "probability": each[scores[0]]})
    return found
