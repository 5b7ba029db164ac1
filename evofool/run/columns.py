"""What each column of a run's file may hold. Every row that is read is checked here: the file may come from anyone."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from evofool.image_metrics.names import PERCENTILES
from evofool.run.meta import MOST
from evofool.run.schema import IMAGE_METRICS


class Cells(NamedTuple):
    """The cells of a run: cell = class * niches + niche."""

    labels: Sequence[str]  # of the classes
    niches: int  # per class
    keep: int = 1  # genomes in the list of a cell, at most

    @property
    def number(self) -> int:
        return len(self.labels) * self.niches

    def name(self, class_id: int, niche: int) -> str:
        return f"class {class_id} ({self.labels[class_id]})" + (f", niche {niche}" if self.niches > 1 or niche else "")


class Column(NamedTuple):
    """kind: the Python type of all values. low, high: the range of numbers. choices: the only texts; () allows all."""

    kind: type
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    bound: str = ""  # "classes", "niches" or "cells": the value is below the run's number of these
    finite: bool = True


_BIRTH = _BATCH = _COUNT = Column(int, 0, MOST)
_PARENT = Column(int, -1, MOST)
_CELL = Column(int, 0, bound="cells")
_SCORE = Column(float)
_TEXT = Column(str)
_BLOB = Column(bytes)

COLUMNS: dict[str, dict[str, Column]] = {
    "meta": {"key": _TEXT, "value": _TEXT},
    "genomes": {
        "birth": _BIRTH, "batch": _BATCH, "mother": _PARENT, "father": _PARENT, "genome": _BLOB, "steps": _COUNT,
    },
    "cell_history": {
        "id": _COUNT, "cell": _CELL, "birth": _BIRTH, "batch": _BATCH, "log_odds": _SCORE, "margin": _SCORE,
        "switched": Column(int, 0, 1),
    },
    "runners_up": {"birth": _BIRTH, "cell": _CELL, "batch": _BATCH, "log_odds": _SCORE, "margin": _SCORE},
    "decoder": {"file": _BLOB},
    "elites": {
        "cell": _CELL, "class": Column(int, 0, bound="classes"), "niche": Column(int, 0, bound="niches"), "birth": _BIRTH,
        "log_odds": _SCORE, "margin": _SCORE, "search_log_odds": _SCORE, "search_margin": _SCORE, "png": _BLOB,
        "sha256": _TEXT, "bytes_per_pixel": Column(float, 0),
    },
    "image_metrics": {
        "cell": _CELL, "name": Column(str, choices=IMAGE_METRICS), "value": _SCORE, "reference": _TEXT,
    },
    "metrics": {"batch": _BATCH, "seconds": Column(float, 0), "row": _TEXT},
    "pending": {
        "batch": _BATCH, "mothers": _BLOB, "fathers": _BLOB, "incumbents": _BLOB, "thresholds": _BLOB, "drawn_after": _COUNT,
    },
    "quarantine": {
        "birth": _BIRTH, "batch": _BATCH, "mother": _PARENT, "father": _PARENT, "genome": _BLOB, "reason": _TEXT,
    },
    "commits": {"position": _COUNT, "batch": _BATCH, "drawn_after": _COUNT},
    "origins": {"birth": _BIRTH, "source_run": _TEXT, "source_birth": _BIRTH},
    "methods": {"birth": _BIRTH, "method": _TEXT},
    "improvements": {
        "cell": _CELL, "forwards": _COUNT, "backwards": _COUNT,
        "score": Column(float, high=1e308, finite=False), "log_odds": Column(float, high=1e308, finite=False),
    },
}  # fmt: skip
"""By table its columns, in order. The score of an attack's cell without an image is -inf; all other numbers are finite."""


def refuse_rows(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], cells: Cells) -> None:
    """ValueError, naming table, column and row, for a value that its column cannot hold. rows: of these columns.

    Columns are checked as a whole, because a row by itself takes ten times as long; a table may have millions.
    """
    if not rows:
        return
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        column = COLUMNS[table][name]
        if not _holds(column, values, cells):
            number = next(k for k, value in enumerate(values) if not _holds(column, (value,), cells))
            raise ValueError(
                f"{table}.{name} is {values[number]!r:.80} in row {number} of {columns[0]} {rows[number][0]!r:.20}"
            )
    if table == "elites" and {"cell", "class", "niche"} <= set(columns):
        cell, class_id, niche = (columns.index(name) for name in ("cell", "class", "niche"))
        for row in rows:
            if row[cell] != row[class_id] * cells.niches + row[niche]:
                own, said = cells.name(*divmod(row[cell], cells.niches)), cells.name(row[class_id], row[niche])
                raise ValueError(f"elites: cell {row[cell]} is that of {own}, and its row says {said}")
    if table == "image_metrics" and {"name", "value"} <= set(columns):
        named, value = columns.index("name"), columns.index("value")
        for row in rows:
            if row[named] in PERCENTILES and not 0 <= row[value] <= 100:
                raise ValueError(f"image_metrics.value is {row[value]!r} for {row[named]}, which lies in 0..100")


def metrics_fault(row: object) -> str:
    """What is wrong with the JSON of metrics.row, which a logbook takes as it is; empty if nothing is."""
    if not isinstance(row, dict):
        return f"is {row!r:.80}, not an object"
    for name, value in row.items():
        if not isinstance(value, (str, int, float, type(None))) or not name.isidentifier() or name == "self":
            return f"has {name[:40]!r} with {value!r:.40}, not a name with a number or a text"
    if not isinstance(row.get("gen"), int) or not 0 <= row["gen"] < MOST:
        return f"has gen {row.get('gen')!r:.40}, not the number of a batch"
    return ""


def _holds(column: Column, values: Sequence[Any], cells: Cells) -> bool:
    if not set(map(type, values)) <= {column.kind}:
        return False
    if column.choices:
        return set(values) <= set(column.choices)
    if column.kind in (str, bytes) or not values:
        return True
    if column.kind is float and column.finite and not all(map(math.isfinite, values)):
        return False
    high = column.high if not column.bound else _most(column.bound, cells) - 1
    return bool(min(values) >= column.low and max(values) <= high)


def _most(bound: str, cells: Cells) -> int:
    return {"classes": len(cells.labels), "niches": cells.niches, "cells": cells.number}[bound]
