"""Runs that are kept open for reading. SQLite's connections belong to one thread, so all reading is done by one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from evofool.gallery.history import History, history_of
from evofool.gallery.thumbnails import thumbnail_png
from evofool.images import decode_png, encode_png
from evofool.quiz.of_run import EliteImages, people_say
from evofool.quiz.store import answers_state
from evofool.quiz.verdicts import Verdict
from evofool.run.reader import FILE
from evofool.run.schema import EliteKey
from evofool.run.stored import ListedElite, StoredRun

T = TypeVar("T")
_MOST_OPEN = 12
_MOST_BYTES = 1 << 26  # of the pictures of a run that are kept


class OpenRun:
    """A run that is open for reading. Its values are those of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self.file = _file_of(folder)
        self.stored = StoredRun(folder)
        self._version: int | None = None  # what was read before it is known is read again
        self._pictures = _Pictures()
        self.images = EliteImages()  # those whose pixels are known from an earlier checkpoint
        self._answers: tuple[Any, ...] = ()  # the state of the quiz's file that `verdicts` is of

    def close(self) -> None:
        self.stored.store.close()

    def refresh(self) -> None:
        """Forget what was read, if the file was written since. No transaction is left open: it would let the log grow."""
        version = self.stored.store.data_version()
        if version != self._version:
            self._version = version
            self.stored.meta = self.stored.store.meta()
            for name in ("listed", "history", "keys", "cells", "verdicts"):
                self.__dict__.pop(name, None)
        if (answers := answers_state(self.stored.folder)) != self._answers:
            self._answers = answers
            self.__dict__.pop("verdicts", None)

    @cached_property
    def listed(self) -> list[ListedElite]:
        """The elites, by class and niche, without images; none if nothing is saved yet."""
        return self.stored.listed() if self.keys else []

    @cached_property
    def keys(self) -> dict[int, EliteKey]:
        """By cell."""
        return {key.cell: key for key in self.stored.store.elite_keys()}

    @cached_property
    def cells(self) -> dict[str, int]:
        """By the digest of an elite's record its cell."""
        return {key.sha256: key.cell for key in self.keys.values()}

    @cached_property
    def verdicts(self) -> dict[int, Verdict]:
        """By cell, what people see in its elite; empty if nobody was asked."""
        return people_say(self.stored, self.images) if self.keys else {}

    @cached_property
    def history(self) -> History | None:
        return history_of(self.stored)

    def stored_picture(self, birth: int, sha256: str, side: int) -> bytes:
        """A PNG of the elite whose record has this digest, at most `side` pixels, or as stored if side is 0.

        One that was replaced meanwhile is drawn again from its genome. LookupError if there never was one.
        """
        try:
            return self._pictures.get((sha256, side), lambda: self._stored(sha256, side))
        except LookupError:
            return self.drawn_picture(birth, side)

    def drawn_picture(self, birth: int, side: int) -> bytes:
        """A PNG of a genome that is or was an elite or a runner-up, drawn again; LookupError for any other birth."""
        return self._pictures.get((birth, side), lambda: self._drawn(birth, side))

    def larger(self, birth: int, side: int) -> bytes:
        """The same, drawn with its longer side at `side` pixels; GenomeError if genomes have no other size."""
        self._refuse_other_births(birth)
        _, height, width = self.stored.shape
        factor = side / max(height, width)
        size = max(1, round(height * factor)), max(1, round(width * factor))
        return encode_png(self.stored.encoding.render(self.stored.genomes([birth]), size)[0])

    def genome_json(self, birth: int) -> dict[str, Any]:
        """The canonical form of a genome that is or was an elite or a runner-up; LookupError for any other birth."""
        self._refuse_other_births(birth)
        return self.stored.encoding.to_json(self.stored.genomes([birth])[0])

    def _stored(self, sha256: str, side: int) -> bytes:
        png = self.stored.store.picture(self.cells[sha256], sha256)
        if png is None:
            raise LookupError(sha256)
        return (
            thumbnail_png(decode_png(png, f"the image of cell {self.cells[sha256]}", self.stored.shape), side)
            if side
            else png
        )

    def _drawn(self, birth: int, side: int) -> bytes:
        self._refuse_other_births(birth)
        image = self.stored.encoding.render(self.stored.genomes([birth]))[0]
        return thumbnail_png(image, side) if side else encode_png(image)

    def _refuse_other_births(self, birth: int) -> None:
        store = self.stored.store
        if not (store.cell_history(birth) or store.runners_up(birth) or any(k.birth == birth for k in self.keys.values())):
            raise LookupError(birth)


class _Pictures:
    """The PNGs that were used last, up to a number of bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        png = self._kept[key] = make()
        self._bytes += len(png)
        while self._bytes > _MOST_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return png


class OpenRuns:
    """The runs that were used last, kept open. Every function that is given to `read` runs in one thread, in turn."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evofool-gallery")
        self._runs: OrderedDict[Path, OpenRun] = OrderedDict()

    async def read(self, folder: Path, function: Callable[[OpenRun], T]) -> T:
        """function(run) with the run's file as it is now. StoreError if it cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, folder, function)

    async def call(self, function: Callable[[], T]) -> T:
        """function() in the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def close(self) -> None:
        await self.call(self._close)
        self._thread.shutdown()

    def _read(self, folder: Path, function: Callable[[OpenRun], T]) -> T:
        run = self._runs.pop(folder, None)
        if run is not None and run.file != _file_of(folder):  # deleted, and perhaps made again
            run.close()
            run = None
        run = self._runs[folder] = run or OpenRun(folder)
        while len(self._runs) > _MOST_OPEN:
            self._runs.popitem(last=False)[1].close()
        try:
            run.refresh()
            return function(run)
        except LookupError:
            raise
        except Exception:
            # It may have been replaced or removed: opened anew next time.
            self._runs.pop(folder).close()
            raise

    def _close(self) -> None:
        for run in self._runs.values():
            run.close()
        self._runs.clear()


def _file_of(folder: Path) -> tuple[int, int] | None:
    """Which file a run's is, by device and number; None if there is none."""
    try:
        found = (folder / FILE).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
