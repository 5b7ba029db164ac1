"""A run's SQLite file: elites, descent, metrics, checkpoint. Nothing in it is pickled.

run.db, WAL, one writer. A checkpoint is one transaction, so whenever the writer dies the file is as after its last
checkpoint. Readers work beside the writer. After a clean close the file stands alone; while a run goes on, or after a
kill, run.db-wal belongs to it and has to be copied with it.
"""

import contextlib
import math
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from evofool.errors import StoreError
from evofool.image_metrics.names import PERCENTILES
from evofool.json_text import json_text
from evofool.run.digests import DIGESTS, Digests
from evofool.run.location import local_copy, network_file_system, refuse_network
from evofool.run.lock import LOCK, lock_run
from evofool.run.meta import RunMeta
from evofool.run.reader import FILE, Reader
from evofool.run.schema import (
    IMAGE_METRICS,
    OPTIONAL_TABLES,
    TABLES,
    Checkpoint,
    ImageMetric,
    NewElite,
    Pending,
    elite_digest,
)
from evofool.run.sqlite_file import connect, refuse_special, restrict, schema_fault
from evofool.run.table_writer import TableWriter
from evofool.whole_file import whole_file

FORMAT = "evofool.run"
VERSION = 7
_OPTIONAL = "".join(OPTIONAL_TABLES.values())
_APPLICATION_ID = 0x65766F66  # "evof"
_NOT_WRITTEN = "could not be written; what was saved before is safe, and the run goes on from there"


class Store(Reader):
    """A run's open file. Make it with create, for a new run, or with open."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        super().__init__(path, connection)
        self._lock = lock
        self._copy: tempfile.TemporaryDirectory[str] | None = None  # that is read in place of the file

    @classmethod
    def create(cls, folder: Path, meta: RunMeta, decoder: bytes | None = None) -> "Store":
        """A new run in folder, which is made; StoreError if a run is there already. decoder: Reader.decoder.

        The file appears whole or not at all: a kill while it is made leaves a folder where a run can still begin.
        """
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be made ({error.strerror})") from None
        refuse_network(folder)
        lock = lock_run(folder)
        try:
            if path.exists():
                raise StoreError(f"{folder} has a run already; resume it (evofool run {folder}) or pass another --out")
            try:
                with whole_file(path) as draft:
                    store = cls(path, sqlite3.connect(draft, isolation_level=None), None)
                    restrict(store._db)
                    with contextlib.closing(store._db), store._transaction("cannot be made", new=True) as tables:
                        optional = {"runners_up": meta.keep > 1, "decoder": decoder is not None}
                        wanted = [TABLES, *(OPTIONAL_TABLES[table] for table, needed in optional.items() if needed)]
                        for statement in "".join(wanted).split(";\n"):
                            store._db.execute(statement)
                        tables.insert("decoder", [] if decoder is None else [(decoder,)])
                        store._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                        store._put(tables, {"format": FORMAT, "version": VERSION, **meta.model_dump()})
            except (StoreError, sqlite3.Error) as error:
                raise StoreError(f"{error}; nothing was begun") from None
        finally:
            lock.release()
        return cls.open(folder, write=True)

    @classmethod
    def open(cls, folder: Path, write: bool = False) -> "Store":
        """The run in folder. Only one process at a time may write; any number may read meanwhile.

        On a network file system, where locks do not work, a copy is read, and nothing is written: StoreError.
        """
        if folder.name == FILE:
            folder = folder.parent
        path = folder / FILE
        try:
            if not path.is_file():
                if folder.is_dir():
                    raise StoreError(f"{folder} is not a run (it has no {FILE})")
                raise StoreError(f"there is no folder {folder}")
            refuse_special(path)
            with path.open("rb"):
                pass
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder} cannot be read ({error})") from None
        copy = None
        if write:
            refuse_network(folder)
        elif network_file_system(folder):
            copy = local_copy(path)
        lock = lock_run(folder) if write else None
        try:
            source = Path(copy.name) / FILE if copy else path
            store = cls(path, connect(source, write=write or copy is not None), lock)
            store._copy = copy
        except BaseException as error:
            if lock:
                lock.release()
            if isinstance(error, OSError | sqlite3.Error | UnicodeDecodeError) and not isinstance(error, StoreError):
                raise StoreError(f"{path} cannot be opened ({error})") from None
            raise
        try:
            store._refuse_foreign()
            if write:
                with store._guard("cannot be written"):
                    store._db.execute("PRAGMA journal_mode = WAL")
                    store._db.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            store.close(failed=True)
            raise
        return store

    def _refuse_foreign(self) -> None:
        with self._guard("is not a run of evofool, or is damaged"):
            ours = self._db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
            # Of another version it may have other tables, but meta was always the same. A view may take for ever.
            if not ours or schema_fault(self._db, TABLES, _OPTIONAL, only="meta"):
                raise StoreError(f"{self.path} is not a run of evofool")
            meta = self._meta_values(("format", "version"))
        version = meta.get("version")
        if meta.get("format") != FORMAT:
            raise StoreError(f"{self.path} is not a run of evofool")
        if version != VERSION:
            raise StoreError(
                f"{self.path} is a run of version {version}; this evofool reads version {VERSION}. Run its recipe again, or "
                "read it with the evofool that wrote it"
            )
        with self._guard("is damaged"):
            if fault := schema_fault(self._db, TABLES, _OPTIONAL):
                raise StoreError(f"{self.path} is damaged: {fault}")

    def close(self, failed: bool = False) -> None:
        """Fold the write-ahead log into the file and close it; afterwards run.db stands alone.

        failed: something went wrong before, and that error should be reported: the log is left to the next writer.
        """
        try:
            if self._lock and not failed:
                with self._guard("cannot be closed cleanly"):
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self._db.execute("PRAGMA busy_timeout = 0")
                # Out of WAL mode the file needs no companions to be read; with a reader at work it stays in it, emptied.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._db.execute("PRAGMA journal_mode = DELETE")
        finally:
            self._db.close()
            if self._lock:
                self._lock.release()
            if self._copy:
                self._copy.cleanup()

    def withdraw(self) -> None:
        """Close and delete a file that was just created, with its folder if that is empty."""
        self.close(failed=True)
        folder = self.path.parent
        with contextlib.suppress(OSError):
            for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", LOCK):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        self.close(failed=kind is not None)

    def save(self, checkpoint: Checkpoint, failed: str = _NOT_WRITTEN) -> None:
        """Write all of it, or, on any error, none of it; then StoreError has the message `failed`."""
        c = checkpoint
        with self._transaction(failed) as tables:
            tables.insert_new("genomes", c.genomes)
            for birth, genome in c.whole.items():
                ((*born,),) = self._db.execute("SELECT batch, mother, father FROM genomes WHERE birth = ?", (birth,))
                tables.replace("genomes", [(birth, *born, genome, 0)])
            ((last,),) = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM cell_history").fetchall()
            tables.insert("cell_history", ((last + 1 + k, *change) for k, change in enumerate(c.cell_history)))
            tables.insert("runners_up", ((r.birth, r.cell, *r[2:]) for r in c.runners_up))
            tables.replace("elites", map(_elite_row, c.elites))
            for elite in c.elites:
                tables.delete("image_metrics", "cell = ?", (elite.cell,))
                tables.insert("image_metrics", ((elite.cell, *metric) for metric in elite.image_metrics))
            tables.replace("metrics", ((batch, seconds, json_text(dict(row))) for batch, seconds, row in c.metrics))
            tables.delete("pending")
            tables.insert("pending", map(_pending_row, c.pending))
            tables.insert_new("quarantine", c.quarantine)
            tables.insert("commits", c.commits)
            tables.insert("origins", ((birth, *origin) for birth, origin in c.origins.items()))
            tables.replace("methods", c.methods.items())
            tables.insert("improvements", c.improvements)
            self._put(tables, self.meta().updated(**c.state).model_dump())

    def set_image_metrics(
        self,
        rows: Sequence[tuple[int, ImageMetric]],
        references: Mapping[str, Mapping[str, Any]] | None = None,
        dropped: Sequence[tuple[int, str]] = (),
    ) -> None:
        """Store image metrics of elites, rows of (cell, metric); one replaces an older one of its name.

        references: by key, details of the real images that metrics refer to, as plain JSON. They are added to
        meta.references, and those that no metric refers to are removed. dropped: (cell, name) of metrics that are removed.
        All of it or nothing: StoreError if a cell has no elite, ValueError for a name that is none of IMAGE_METRICS, for a
        value that is not finite, and for a percentile outside 0..100.
        """
        for _, (name, value, _) in rows:
            if name not in IMAGE_METRICS:
                raise ValueError(f"image metric {name!r} is none of {IMAGE_METRICS}")
            if not math.isfinite(value) or (name in PERCENTILES and not 0 <= value <= 100):
                raise ValueError(f"{name} is {value}; a percentile lies in 0..100, and any other metric is finite")
        with self._transaction() as tables:
            filled = self.cells()
            for cell, _ in rows:
                if cell not in filled:
                    raise StoreError(f"{self.path} has no elite in cell {cell}")
            for each in dropped:
                tables.delete("image_metrics", "cell = ? AND name = ?", each)
            tables.replace("image_metrics", ((cell, *metric) for cell, metric in rows))
            named = {key for (key,) in self._db.execute("SELECT DISTINCT reference FROM image_metrics")}
            known = {**self.meta().references, **(references or {})}
            references = {key: what for key, what in known.items() if key in named}
            self._put(tables, self.meta().updated(references=references).model_dump())

    def _put(self, tables: TableWriter, values: Mapping[str, Any]) -> None:
        """Write those values of meta that have changed."""
        known = dict(self._db.execute("SELECT key, value FROM meta"))
        texts = {key: json_text(value) for key, value in values.items()}
        changed = [(key, text) for key, text in texts.items() if known.get(key) != text]
        tables.replace("meta", changed)

    @contextlib.contextmanager
    def _transaction(self, what: str = _NOT_WRITTEN, new: bool = False) -> Iterator[TableWriter]:
        """Within, rows are changed through the TableWriter. new: the file gets its tables within it."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            saved = Digests() if new else self._digests()
            tables = TableWriter(self._db, saved or Digests())
            yield tables
            if saved is not None:  # a file of an earlier release has none
                row = DIGESTS, json_text(tables.digests.stored())
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
            self._db.execute("COMMIT")
        except BaseException as error:
            # After a full disk SQLite has rolled back by itself; a second ROLLBACK would hide the first error.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | UnicodeDecodeError):  # a message may quote bytes of a damaged file
                raise StoreError(f"{self.path} {what} (SQLite: {error})") from None
            raise


def _elite_row(e: NewElite) -> tuple[Any, ...]:
    digest = elite_digest(e.class_id, e.niche, e.birth, e.scores, e.png)
    own = e.cell, e.class_id, e.niche, e.birth, *e.scores
    return *own, e.png, digest, len(e.png) / e.pixels


def _pending_row(p: Pending) -> tuple[Any, ...]:
    births = (part.astype("<i8").tobytes() for part in (p.mothers, p.fathers, p.incumbents))
    return p.batch, *births, p.thresholds.astype("<f8").tobytes(), p.drawn_after
