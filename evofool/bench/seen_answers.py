"""The answers of a cell under every acceptance score: records of the images that may be the first to be accepted.

A score rises with the top logit, falls with the runner-up, or rises with the similarity of features. So an image can be the
first of its class to reach a threshold only if no earlier one has a top logit as high and a runner-up as low, or if none is
as similar. Only such images have a record, whatever the thresholds are, and in the order of the queries. The file lies
beside the run. It is written before the run's checkpoint, and cut to the checkpoint when the run is resumed.
"""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from evofool.bench.acceptance import SEEN, top_two
from evofool.errors import StoreError
from evofool.whole_file import write_whole

FILE = "seen.bin"
_HEAD = b"evofool.seen/1\n"
Similarity = Callable[[slice, np.ndarray], np.ndarray]
"""Rows of the last forward pass, and the classes (n,) of their images -> FeatureScale's values (n,) float64."""


class SeenAnswers:
    """A context that keeps a cell's records. folder: the cell's. similarity: None without features."""

    def __init__(self, folder: Path, similarity: Similarity | None = None) -> None:
        self._path, self._similarity = folder / FILE, similarity
        self._fronts: dict[int, _Front] = {}

    def __enter__(self) -> "SeenAnswers":
        return self

    def begin(self, kept: Callable[[np.ndarray], np.ndarray]) -> None:
        """Begin a file, or continue the one there with those of its records (n,) that kept(records) (n,) bool keeps."""
        records = read_seen(self._path.parent)
        records = np.zeros(0, SEEN) if records is None else records[kept(records)]
        for record in records:
            self._add(record)
        write_whole(self._path, _HEAD + records.tobytes())
        try:
            self._file = self._path.open("ab")
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written ({error.strerror})") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_open:
            self._file.close()

    def note(self, made_for: np.ndarray | None, at: np.ndarray, logits: np.ndarray, row: int = 0) -> None:
        """Look at n images, in the order of their queries at (n,) int64, with logits (n, K) float32.

        made_for: (n,) int64, the only class in which each image competes; None: it competes in that of its arg-max. row: of
        the last forward pass, where the images begin. Nothing is noted before `begin`, nor of answers that are not finite.
        """
        if not self._is_open:
            return
        top_classes = logits.argmax(axis=1)
        tops, seconds = top_two(logits)
        rows = np.isfinite(logits).all(axis=1) & (tops > seconds)
        if made_for is not None:
            rows &= top_classes == made_for
        if not rows.any():
            return
        records = np.zeros(int(rows.sum()), SEEN)
        similarity = np.full(len(logits), np.nan)
        if self._similarity is not None:
            similarity = self._similarity(slice(row, row + len(logits)), top_classes)
        columns = top_classes, at, tops, seconds, similarity
        for name, values in zip(SEEN.names or (), columns, strict=True):
            records[name] = values[rows]
        new = [self._add(record) for record in records]
        if any(new):
            self._file.write(records[new].tobytes())
            self._file.flush()

    @property
    def _is_open(self) -> bool:
        return hasattr(self, "_file") and not self._file.closed

    def _add(self, record: np.void) -> bool:
        front = self._fronts.setdefault(int(record["class"]), _Front())
        return front.add(float(record["top"]), float(record["second"]), float(record["similarity"]))


class _Front:
    """The images of a class that no other one beats: none has a top logit as high and a runner-up as low."""

    def __init__(self) -> None:
        self.tops, self.seconds = np.zeros(0), np.zeros(0)
        self.similarity = -np.inf
        self.has_nan = False

    def add(self, top: float, second: float, similarity: float) -> bool:
        """Whether an image has a place here, or is more similar than all so far; equal ones have none.

        The first one without a similarity has a place too, so that the records show that not all were compared.
        """
        if np.isnan(similarity):
            better, self.has_nan = not self.has_nan, True
        elif better := similarity > self.similarity:
            self.similarity = similarity
        if ((self.tops >= top) & (self.seconds <= second)).any():
            return better
        stay = (self.tops > top) | (self.seconds < second)
        self.tops, self.seconds = np.append(self.tops[stay], top), np.append(self.seconds[stay], second)
        return True


def read_seen(folder: Path) -> np.ndarray | None:
    """The records (n,) of SEEN in a cell's folder, in the order in which they were written; None if it has none.

    A record that was not written whole, at the end, is left out. StoreError for a damaged file.
    """
    path = folder / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from None
    body = data[len(_HEAD) :]
    records = np.frombuffer(body[: len(body) - len(body) % SEEN.itemsize], SEEN)
    sound = np.isfinite(records["top"]) & np.isfinite(records["second"]) & (records["class"] >= 0) & (records["at"] > 0)
    if not data.startswith(_HEAD) or not sound.all():
        raise StoreError(f"{path} is damaged; delete the folder {folder.name}, and the cell is run again")
    return records


def in_order(records: np.ndarray, factor: int = 1, last: int | None = None) -> np.ndarray:
    """Records in the order of queries, `at` multiplied by factor, those after the query `last` left out."""
    ordered = records[np.argsort(records["at"], kind="stable")].copy()
    ordered["at"] *= factor
    return ordered if last is None else ordered[ordered["at"] <= last]
