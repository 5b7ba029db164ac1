"""Runs that are kept open for reading. SQLite's connections belong to one thread, so all reading is done by one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from evofool.gallery.history import History, history_of
from evofool.gallery.thumbnails import thumbnail_png
from evofool.images import decode_png, encode_png
from evofool.run.schema import EliteKey
from evofool.run.stored import ListedElite, StoredRun

T = TypeVar("T")
_MOST_OPEN = 12
_PICTURES = 4000  # small pictures that are kept


class OpenRun:
    """A run that is open for reading. Its values are those of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self.stored = StoredRun(folder)
        self._version = self.stored.store.data_version()
        self._picture = lru_cache(_PICTURES)(self._made)

    def close(self) -> None:
        self.stored.store.close()

    def refresh(self) -> None:
        """Forget what was read, if the file was written since. No transaction is left open: it would let the log grow."""
        version = self.stored.store.data_version()
        if version != self._version:
            self._version = version
            self.stored.meta = self.stored.store.meta()
            for name in ("listed", "history", "keys"):
                self.__dict__.pop(name, None)

    @cached_property
    def listed(self) -> list[ListedElite]:
        """The elites, by class and niche, without images; none if nothing is saved yet."""
        return self.stored.listed() if self.keys else []

    @cached_property
    def keys(self) -> dict[int, EliteKey]:
        """By cell."""
        return {key.cell: key for key in self.stored.store.elite_keys()}

    @cached_property
    def history(self) -> History | None:
        return history_of(self.stored)

    def stored_picture(self, birth: int, sha256: str, side: int) -> bytes:
        """A PNG of the elite whose record has this digest, at most `side` pixels, or as stored if side is 0.

        One that was replaced meanwhile is drawn again from its genome. LookupError if there never was one.
        """
        try:
            return self._picture(sha256, side)
        except LookupError:
            return self.drawn_picture(birth, side)

    def drawn_picture(self, birth: int, side: int) -> bytes:
        """A PNG of a genome that is or was an elite or a runner-up, drawn again; LookupError for any other birth."""
        return self._picture(birth, side)

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

    def _made(self, key: str | int, side: int) -> bytes:
        if isinstance(key, str):
            png = self.stored.store.picture(key)
            if png is None:
                raise LookupError(key)
            return thumbnail_png(decode_png(png, key, self.stored.shape), side) if side else png
        self._refuse_other_births(key)
        image = self.stored.encoding.render(self.stored.genomes([key]))[0]
        return thumbnail_png(image, side) if side else encode_png(image)

    def _refuse_other_births(self, birth: int) -> None:
        store = self.stored.store
        if not (store.cell_history(birth) or store.runners_up(birth) or any(k.birth == birth for k in self.keys.values())):
            raise LookupError(birth)


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
        run = self._runs.pop(folder, None) or OpenRun(folder)
        self._runs[folder] = run
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
