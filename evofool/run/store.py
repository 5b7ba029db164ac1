"""A run's one SQLite file: elites, descent, metrics, checkpoint. Nothing else touches SQL, and nothing in it is pickled.

run.db, WAL, one writer. A checkpoint is one transaction, so whenever the writer dies the file is as after its last
checkpoint. Readers work beside the writer. After a clean close the file stands alone; while a run goes on, or after a
kill, run.db-wal belongs to it and has to be copied with it.
"""

import contextlib
import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from evofool.errors import StoreError
from evofool.image_metrics.names import PERCENTILES, TOTAL_VARIATION
from evofool.search.delta import MOST, applied

FILE = "run.db"
LOCK = "run.lock"
FORMAT = "evofool.run"
VERSION = 6
_APPLICATION_ID = 0x65766F66  # "evof"
_META: dict[str, type | tuple[type, ...]] = {
    "recipe": dict,
    "target": dict,
    "machine": dict,
    "committed": int,
    "shown": int,
    "shown_changes": int,
    "last_progress": int,
    "seconds": (int, float),
}
_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "gpfs", "ceph")
_NOT_WRITTEN = "could not be written; what was saved before is safe, and the run goes on from there"
VERDICTS = ("unjudged", "unrecognised", "recognised")
IMAGE_METRICS = (*PERCENTILES, TOTAL_VARIATION)
"""The image metrics that may be measured of an elite's image later; evofool/image_metrics defines them."""

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
-- every genome that ever held a cell; mother and father are births, -1 for the first ones. steps 0: genome is whole, else it
-- is the difference from its mother's (evofool/search/delta.py), that many from a whole one
CREATE TABLE genomes (birth INTEGER PRIMARY KEY, batch INTEGER NOT NULL, mother INTEGER NOT NULL,
                      father INTEGER NOT NULL, genome BLOB NOT NULL, steps INTEGER NOT NULL);
-- every time the elite of a cell was replaced, or its first one came, in order; cell = class * niches + niche
CREATE TABLE cell_history (id INTEGER PRIMARY KEY, cell INTEGER NOT NULL, birth INTEGER NOT NULL, batch INTEGER NOT NULL,
                     log_odds REAL NOT NULL, margin REAL NOT NULL, switched INTEGER NOT NULL);
CREATE INDEX cell_history_by_birth ON cell_history (birth);
-- who holds the cells now. log_odds and margin are those of the float32 network run the plain way, search_log_odds and
-- search_margin those that the search ranked by, in its own number format (the same where that is the plain one). The last
-- two columns are filled by whoever judges the image later
CREATE TABLE elites (cell INTEGER PRIMARY KEY, class INTEGER NOT NULL, niche INTEGER NOT NULL, birth INTEGER NOT NULL,
                     log_odds REAL NOT NULL, margin REAL NOT NULL, search_log_odds REAL NOT NULL,
                     search_margin REAL NOT NULL, png BLOB NOT NULL, sha256 TEXT NOT NULL,
                     bytes_per_pixel REAL NOT NULL,
                     verdict TEXT NOT NULL DEFAULT 'unjudged' CHECK (verdict IN {VERDICTS}), verdict_by TEXT);
-- what was found out of an elite's image later; gone when the elite is replaced. reference: the key, in meta.references, of
-- the real images that it was compared with; empty where there are none
CREATE TABLE image_metrics (cell INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, reference TEXT NOT NULL,
                       PRIMARY KEY (cell, name)) WITHOUT ROWID;
CREATE TABLE metrics (batch INTEGER PRIMARY KEY, seconds REAL NOT NULL, row TEXT NOT NULL);
-- orders under way at the checkpoint: little-endian int64 births, int64 incumbents, float64 thresholds
CREATE TABLE pending (batch INTEGER PRIMARY KEY, mothers BLOB NOT NULL, fathers BLOB NOT NULL,
                      incumbents BLOB NOT NULL, thresholds BLOB NOT NULL, drawn_after INTEGER NOT NULL);
-- genomes that were set aside, since they kill, hang or break whoever judges them; whole
CREATE TABLE quarantine (birth INTEGER PRIMARY KEY, batch INTEGER NOT NULL, mother INTEGER NOT NULL,
                         father INTEGER NOT NULL, genome BLOB NOT NULL, why TEXT NOT NULL);
-- search.mode "free" alone: the order in which batches were committed, and after how many of them each one's parents were
-- drawn
CREATE TABLE commits (place INTEGER PRIMARY KEY, batch INTEGER NOT NULL, drawn_after INTEGER NOT NULL);
-- merged and polished runs: the run that a genome comes from, by its id, and its birth there
CREATE TABLE origins (birth INTEGER PRIMARY KEY, run TEXT NOT NULL, birth_there INTEGER NOT NULL,
                      UNIQUE (run, birth_there));
-- genomes that no variation made: the name of what did ("apgd", "polish", ...)
CREATE TABLE made (birth INTEGER PRIMARY KEY, how TEXT NOT NULL);
-- baselines alone: each time that the image of a cell came out better, after so many passes that were spent on this cell,
-- and in its last row where its climb ended. score is what was ranked by; -inf where the cell came to no image
CREATE TABLE improvements (cell INTEGER NOT NULL, forwards INTEGER NOT NULL, backwards INTEGER NOT NULL, score REAL NOT NULL,
                           log_odds REAL NOT NULL);
"""


class ImageMetric(NamedTuple):
    """One thing that was found out of an elite's image: its name, one of IMAGE_METRICS, and against which real images."""

    name: str
    value: float
    reference: str  # a key of meta["references"], or "" where nothing was compared


@dataclass(frozen=True)
class EliteRow:
    """An elite as stored: the image, what it scored, who its parents are, and what was found out about it later."""

    cell: int
    class_id: int
    niche: int
    birth: int
    batch: int
    mother: int
    father: int
    log_odds: float  # measured in float32
    margin: float
    search_log_odds: float  # what the search ranked by
    search_margin: float
    png: bytes
    sha256: str
    bytes_per_pixel: float
    verdict: str
    verdict_by: str | None
    made: str  # what made its genome: "evolved", or the method's name
    genome: bytes
    image_metrics: tuple[ImageMetric, ...] = ()  # by name

    def digest(self) -> str:
        scores = (self.log_odds, self.margin, self.search_log_odds, self.search_margin)
        return elite_digest(self.class_id, self.niche, self.birth, scores, self.png)


@dataclass(frozen=True)
class NewElite:
    """An elite to be written: its cell, its four scores (as in EliteRow), its picture, what was made of it before."""

    class_id: int
    niche: int
    cell: int
    birth: int
    scores: tuple[float, float, float, float]
    png: bytes
    pixels: int
    verdict: str = "unjudged"
    verdict_by: str | None = None
    image_metrics: tuple[ImageMetric, ...] = ()


def elite_digest(class_id: int, niche: int, birth: int, scores: Sequence[float], png: bytes) -> str:
    """SHA-256 over class, niche, birth, the four scores (exact, in hexadecimal) and the PNG's bytes."""
    head = f"evofool elite 2|{class_id}|{niche}|{birth}|{'|'.join(float(x).hex() for x in scores)}|"
    return hashlib.sha256(head.encode() + png).hexdigest()


class Pending(NamedTuple):
    """An order under way, without its genomes."""

    batch: int
    mothers: np.ndarray  # (B,) int64
    fathers: np.ndarray  # (B,) int64
    incumbents: np.ndarray  # (cells,) int64
    thresholds: np.ndarray  # (cells,) float64
    drawn_after: int


@dataclass(frozen=True)
class Checkpoint:
    """What one transaction adds to a run, and the small state that goes with it."""

    state: Mapping[str, Any]  # replaces meta's values of these keys; plain JSON values
    genomes: Iterable[tuple[int, int, int, int, bytes, int]]  # birth, batch, mother, father, packed, steps; read once
    cell_history: Sequence[tuple[int, int, int, float, float, int]]  # cell, birth, batch, log_odds, margin, switched
    elites: Sequence[NewElite]
    metrics: Sequence[tuple[int, float, Mapping[str, Any]]]  # batch, seconds, row
    pending: Sequence[Pending] = ()
    quarantine: Sequence[tuple[int, int, int, int, bytes, str]] = ()  # birth, batch, mother, father, packed, why
    commits: Sequence[tuple[int, int, int]] = ()  # place, batch, drawn after
    origins: Sequence[tuple[int, str, int]] = ()  # birth, run, birth there
    made: Sequence[tuple[int, str]] = ()  # birth, by what
    improvements: Sequence[tuple[int, int, int, float, float]] = ()  # cell, forwards, backwards, score, log_odds


class Store:
    """The open file. Make one with create, for a new run, or open."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self.path = path
        self._db = connection
        self._lock = lock

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any]) -> "Store":
        """A new run in folder, which is made; StoreError if a run is there already.

        The file appears whole or not at all: a kill while it is made leaves a folder where a run can still begin.
        """
        path, draft = folder / FILE, folder / f"{FILE}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be made ({error.strerror})") from None
        _refuse_network(folder)
        lock = _lock(folder)
        try:
            if path.exists():
                raise StoreError(f"{folder} holds a run already; go on with it (evofool run {folder}) or pass another --out")
            try:
                draft.unlink(missing_ok=True)
                store = cls(draft, sqlite3.connect(draft, isolation_level=None), None)
                with contextlib.closing(store._db), store._transaction("cannot be made"):
                    for statement in _SCHEMA.split(";\n"):
                        store._db.execute(statement)
                    store._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    store._put({"format": FORMAT, "version": VERSION, **meta})
                draft.replace(path)
            except (OSError, sqlite3.Error) as error:
                draft.unlink(missing_ok=True)
                raise StoreError(f"{error}; nothing was begun") from None
        finally:
            lock.release()
        return cls.open(folder, write=True)

    @classmethod
    def open(cls, folder: Path, write: bool = False) -> "Store":
        """The run in folder. Only one process at a time may write; any number may read meanwhile."""
        if folder.name == FILE:
            folder = folder.parent
        path = folder / FILE
        try:
            if not path.is_file():
                what = "holds no run" if folder.is_dir() else "is not there"
                raise StoreError(f"{folder} {what} (no {FILE})")
            with path.open("rb"):
                pass
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder} cannot be read ({error})") from None
        _refuse_network(folder)
        lock = _lock(folder) if write else None
        try:
            uri = path.resolve().as_uri() + ("?mode=rw" if write else "?mode=ro")
            store = cls(path, sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30), lock)
        except BaseException:
            if lock:
                lock.release()
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
        with self._guard("is no run of evofool's, or is damaged"):
            ours = self._db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not ours or "meta" not in tables:
            raise StoreError(f"{self.path} is no run of evofool's")
        meta = self.meta()
        version = meta.get("version")
        if meta.get("format") != FORMAT:
            raise StoreError(f"{self.path} is no run of evofool's")
        if version != VERSION:
            raise StoreError(f"{self.path} is a run of version {version}; this evofool reads version {VERSION}")

    def close(self, failed: bool = False) -> None:
        """Fold the write-ahead log into the file and let it go; afterwards run.db stands alone.

        failed: something went wrong before, and that is what should be told: the log is left to the next writer.
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

    def withdraw(self) -> None:
        """Close a file that was just created and take it away, with its folder if nothing else is in there."""
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
        """Write all of it, or, on any error, none of it; then StoreError says `failed`."""
        c = checkpoint
        with self._transaction(failed):
            self._db.executemany("INSERT OR IGNORE INTO genomes VALUES (?, ?, ?, ?, ?, ?)", c.genomes)
            self._db.executemany(
                "INSERT INTO cell_history (cell, birth, batch, log_odds, margin, switched) VALUES (?, ?, ?, ?, ?, ?)",
                c.cell_history,
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO elites (cell, class, niche, birth, log_odds, margin, search_log_odds,"
                " search_margin, png, sha256, bytes_per_pixel, verdict, verdict_by)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        e.cell, e.class_id, e.niche, e.birth, *e.scores, e.png,
                        elite_digest(e.class_id, e.niche, e.birth, e.scores, e.png), len(e.png) / e.pixels,
                        e.verdict, e.verdict_by,
                    )
                    for e in c.elites
                ],
            )  # fmt: skip
            self._db.executemany("DELETE FROM image_metrics WHERE cell = ?", [(e.cell,) for e in c.elites])
            self._db.executemany(
                "INSERT INTO image_metrics VALUES (?, ?, ?, ?)",
                [(e.cell, *measure) for e in c.elites for measure in e.image_metrics],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)",
                [(batch, seconds, json.dumps(dict(row), sort_keys=True)) for batch, seconds, row in c.metrics],
            )
            self._db.execute("DELETE FROM pending")
            self._db.executemany(
                "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        p.batch,
                        *(a.astype("<i8").tobytes() for a in (p.mothers, p.fathers, p.incumbents)),
                        p.thresholds.astype("<f8").tobytes(),
                        p.drawn_after,
                    )
                    for p in c.pending
                ],
            )
            self._db.executemany("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)", c.quarantine)
            self._db.executemany("INSERT INTO commits VALUES (?, ?, ?)", c.commits)
            self._db.executemany("INSERT INTO origins VALUES (?, ?, ?)", c.origins)
            self._db.executemany("INSERT OR REPLACE INTO made VALUES (?, ?)", c.made)
            self._db.executemany("INSERT INTO improvements VALUES (?, ?, ?, ?, ?)", c.improvements)
            self._put(c.state)

    def set_verdict(self, cell: int, verdict: str, verdict_by: str) -> None:
        """Note what somebody made of an elite. verdict is one of VERDICTS."""
        if verdict not in VERDICTS:
            raise ValueError(f"verdict {verdict!r} is none of {VERDICTS}")
        with self._transaction():
            done = self._db.execute(
                "UPDATE elites SET verdict = ?, verdict_by = ? WHERE cell = ?", (verdict, verdict_by, cell)
            )
            if done.rowcount != 1:
                raise StoreError(f"{self.path} has no elite in cell {cell}")

    def set_image_metrics(
        self,
        rows: Sequence[tuple[int, ImageMetric]],
        references: Mapping[str, Mapping[str, Any]] | None = None,
        dropped: Sequence[tuple[int, str]] = (),
    ) -> None:
        """Note what was found out of elites' images: (cell, measure), in the place of what was known by that name.

        references tells of each key that a measure names what it stands for, as plain JSON; it joins meta["references"],
        which loses what no measure names any more. dropped: (cell, name) of measures that are taken out before.
        All of it or nothing: StoreError if a cell has no elite, ValueError for a name that is none of IMAGE_METRICS, for a
        value that is not finite, and for a percentile outside 0..100.
        """
        for _, (name, value, _) in rows:
            if name not in IMAGE_METRICS:
                raise ValueError(f"measure {name!r} is none of {IMAGE_METRICS}")
            if not math.isfinite(value) or (name in PERCENTILES and not 0 <= value <= 100):
                raise ValueError(f"{name} is {value}; a percentile lies in 0..100, and any other measure is finite")
        with self._transaction():
            there = self.cells()
            for cell, _ in rows:
                if cell not in there:
                    raise StoreError(f"{self.path} has no elite in cell {cell}")
            self._db.executemany("DELETE FROM image_metrics WHERE cell = ? AND name = ?", dropped)
            self._db.executemany(
                "INSERT OR REPLACE INTO image_metrics VALUES (?, ?, ?, ?)", [(cell, *measure) for cell, measure in rows]
            )
            named = {key for (key,) in self._db.execute("SELECT DISTINCT reference FROM image_metrics")}
            known = {**self.references(), **(references or {})}
            self._put({"references": {key: what for key, what in known.items() if key in named}})

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read within is of one checkpoint, while the run goes on. One within another is the outer one's."""
        if self._db.in_transaction:
            yield
            return
        with self._guard("cannot be read"):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def meta(self) -> dict[str, Any]:
        with self._guard("cannot be read"):
            return {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM meta")}

    def description(self) -> dict[str, Any]:
        """meta, with everything that a run has to have; StoreError names what is missing or of the wrong kind."""
        meta = self.meta()
        for key, kind in _META.items():
            if not isinstance(meta.get(key), kind) or (kind is not dict and meta[key] < 0):
                raise StoreError(f"{self.path} is damaged: {key} is {meta.get(key)!r}")
        return meta

    def elites(self, class_id: int | None = None) -> list[EliteRow]:
        """By class and niche; all from one checkpoint."""
        where, values = ("WHERE e.class = ?", (class_id,)) if class_id is not None else ("", ())
        with self.snapshot(), self._guard("is damaged"):
            measures = self._image_metrics()
            rows = self._db.execute(
                "SELECT e.cell, e.class, e.niche, e.birth, g.batch, g.mother, g.father, e.log_odds, e.margin,"
                " e.search_log_odds, e.search_margin, e.png, e.sha256, e.bytes_per_pixel,"
                " e.verdict, e.verdict_by, COALESCE(m.how, 'evolved'), g.genome"
                " FROM elites e LEFT JOIN genomes g ON g.birth = e.birth LEFT JOIN made m ON m.birth = e.birth"
                f" {where} ORDER BY e.class, e.niche",
                values,
            ).fetchall()
            checked = [_checked(EliteRow(*row)) for row in rows]
            whole = self.genomes(row.birth for row in checked)
        return [replace(row, genome=whole[row.birth], image_metrics=measures.get(row.cell, ())) for row in checked]

    def _image_metrics(self) -> dict[int, tuple[ImageMetric, ...]]:
        """By cell, what was found out of its elite's image, by name."""
        found: dict[int, tuple[ImageMetric, ...]] = {}
        for cell, *row in self._db.execute("SELECT cell, name, value, reference FROM image_metrics ORDER BY cell, name"):
            measure = ImageMetric(*row)
            if not isinstance(measure.value, float):
                raise ValueError(f"cell {cell}: {measure.name} is {measure.value!r}, no number")
            found[cell] = (*found.get(cell, ()), measure)
        return found

    def references(self) -> dict[str, dict[str, Any]]:
        """By key, what elites' images were compared with; empty where they never were. StoreError if that is damaged."""
        told = self.meta().get("references", {})
        if not isinstance(told, dict) or not all(isinstance(what, dict) for what in told.values()):
            raise StoreError(f"{self.path} is damaged: meta.references is {str(told)[:60]!r}, and no table of real images")
        return told

    def cells(self) -> set[int]:
        """The cells that have an elite."""
        with self._guard("is damaged"):
            return {int(cell) for (cell,) in self._db.execute("SELECT cell FROM elites")}

    def genomes(self, births: Iterable[int]) -> dict[int, bytes]:
        """The packed genomes of these births, whole; one that is not there or is damaged raises StoreError."""
        wanted = set(births)
        found: dict[int, bytes] = {}
        with self._guard("is damaged"):
            for birth in sorted(wanted):
                self._whole(birth, found)
        return {birth: found[birth] for birth in wanted}

    def steps(self) -> dict[int, int]:
        """By birth, how many differences lie between a genome and a whole one; those that are whole are left out."""
        with self._guard("is damaged"):
            return dict(self._db.execute("SELECT birth, steps FROM genomes WHERE steps > 0"))

    def stored(self, birth: int) -> tuple[bytes, int]:
        """(genome, steps) as the file has them: the genome may be a difference from its mother's."""
        with self._guard("is damaged"):
            row = self._db.execute("SELECT genome, steps FROM genomes WHERE birth = ?", (birth,)).fetchone()
            if row is None:
                raise StoreError(f"{self.path} is damaged: the genome of birth {birth} is missing")
            return bytes(row[0]), int(row[1])

    def _whole(self, birth: int, found: dict[int, bytes]) -> bytes:
        """The genome of birth, put into found with those that it is a difference from."""
        line: list[bytes] = []  # differences, the youngest first
        at = birth
        while at not in found:
            row = self._db.execute("SELECT genome, steps, mother FROM genomes WHERE birth = ?", (at,)).fetchone()
            if row is None:
                raise StoreError(f"{self.path} is damaged: the genome of birth {at} is missing")
            if row[1] == 0:
                found[at] = row[0]
                break
            if len(line) > MOST:
                raise StoreError(f"{self.path} is damaged: the genome of birth {birth} is a difference from nothing whole")
            line.append(row[0])
            at = row[2]
        genome = found[at]
        for less in reversed(line):
            genome = applied(less, genome)
        found[birth] = genome
        return genome

    def descent(self, birth: int) -> list[tuple[int, int, int, int]]:
        """(birth, batch, mother, father) from this genome back along the mothers to a first one."""
        line: list[tuple[int, int, int, int]] = []
        with self._guard("cannot be read"):
            while birth >= 0:
                row = self._db.execute(
                    "SELECT birth, batch, mother, father FROM genomes WHERE birth = ?", (birth,)
                ).fetchone()
                if row is None or (line and row[0] >= line[-1][0]):
                    raise StoreError(f"{self.path} is damaged: the descent breaks off at birth {birth}")
                line.append(row)
                birth = row[2]
        return line

    def ancestry(self, births: Iterable[int]) -> dict[int, tuple[int, int, int]]:
        """By birth (batch, mother, father) of these genomes and of all that they descend from, by mothers and fathers."""
        found: dict[int, tuple[int, int, int]] = {}
        wanted = set(births)
        with self._guard("cannot be read"):
            while wanted:
                birth = wanted.pop()
                row = self._db.execute("SELECT batch, mother, father FROM genomes WHERE birth = ?", (birth,)).fetchone()
                if row is None or max(row[1:]) >= birth:
                    raise StoreError(f"{self.path} is damaged: the descent breaks off at birth {birth}")
                found[birth] = row
                wanted |= {parent for parent in row[1:] if parent >= 0 and parent not in found}
        return found

    def origins(self) -> dict[int, tuple[str, int]]:
        """By birth (run, birth there): where the genomes of a merged run come from; of any other run empty."""
        with self._guard("is damaged"):
            rows = self._db.execute("SELECT birth, run, birth_there FROM origins ORDER BY birth").fetchall()
            return {int(birth): (str(run), int(there)) for birth, run, there in rows}

    def made(self) -> dict[int, str]:
        """By birth, what made the genomes that no variation made."""
        with self._guard("is damaged"):
            return {int(birth): str(how) for birth, how in self._db.execute("SELECT birth, how FROM made")}

    def improvements(self) -> list[tuple[int, int, int, float, float]]:
        """(cell, forwards, backwards, score, log_odds), by cell, in the order in which its image came out better."""
        with self._guard("is damaged"):
            return self._db.execute(
                "SELECT cell, forwards, backwards, score, log_odds FROM improvements ORDER BY cell, rowid"
            ).fetchall()

    def cell_history(self, birth: int | None = None) -> list[tuple[int, int, int, float, float, int]]:
        """(cell, birth, batch, log_odds, margin, switched), in the order in which elites were replaced.

        Those of one birth, which are all of one batch, by cell.
        """
        where, values = ("WHERE birth = ? ORDER BY cell", (birth,)) if birth is not None else ("ORDER BY id", ())
        with self._guard("cannot be read"):
            return self._db.execute(
                f"SELECT cell, birth, batch, log_odds, margin, switched FROM cell_history {where}", values
            ).fetchall()

    def incumbents(self) -> list[tuple[int, int, float, float]]:
        """(cell, birth, log_odds, margin) of each cell's last change: its elite, and what that was ranked by."""
        with self._guard("cannot be read"):
            return self._db.execute(
                "SELECT cell, birth, log_odds, margin FROM cell_history"
                " WHERE id IN (SELECT MAX(id) FROM cell_history GROUP BY cell) ORDER BY cell"
            ).fetchall()

    def counts(self) -> tuple[int, int]:
        """(wins, switches): changes of cells other than first fillings, and how many of them were goal switches."""
        with self._guard("cannot be read"):
            n, cells, switches = self._db.execute(
                "SELECT COUNT(*), COUNT(DISTINCT cell), COALESCE(SUM(switched), 0) FROM cell_history"
            ).fetchone()
        return n - cells, switches

    def metrics(self) -> list[tuple[int, float, dict[str, Any]]]:
        """(batch, seconds, row) in order."""
        with self._guard("is damaged"):
            rows = self._db.execute("SELECT batch, seconds, row FROM metrics ORDER BY batch").fetchall()
            return [(int(batch), float(seconds), dict(json.loads(row))) for batch, seconds, row in rows]

    def pending(self) -> list[Pending]:
        """The orders under way, the lowest batch first."""
        with self._guard("is damaged"):
            out = []
            for batch, *births, thresholds, drawn_after in self._db.execute(
                "SELECT batch, mothers, fathers, incumbents, thresholds, drawn_after FROM pending ORDER BY batch"
            ):
                mothers, fathers, incumbents = (np.frombuffer(b, "<i8").astype(np.int64) for b in births)
                levels = np.frombuffer(thresholds, "<f8").astype(np.float64)
                out.append(Pending(int(batch), mothers, fathers, incumbents, levels, int(drawn_after)))
            return out

    def quarantine(self) -> list[tuple[int, int, int, int, bytes, str]]:
        """(birth, batch, mother, father, packed genome, why) of the genomes that were set aside, by birth."""
        with self._guard("is damaged"):
            return self._db.execute(
                "SELECT birth, batch, mother, father, genome, why FROM quarantine ORDER BY birth"
            ).fetchall()

    def commits(self) -> list[tuple[int, int]]:
        """(batch, how many commits its parents were drawn after), in the order of commits; kept of a free search alone."""
        with self._guard("is damaged"):
            return self._db.execute("SELECT batch, drawn_after FROM commits ORDER BY place").fetchall()

    def faults(self) -> list[str]:
        """What SQLite's own integrity check finds; empty for a sound file."""
        with self._guard("is damaged"):
            found = [text for (text,) in self._db.execute("PRAGMA integrity_check") if text != "ok"]
            pages, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        # A file in use may be shorter than its pages, the rest being in the log.
        length = self.path.stat().st_size
        if length < pages * size and not self.path.with_name(FILE + "-wal").exists():
            found.append(f"it has {length} bytes instead of {pages * size}")
        return found

    def _put(self, values: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, json.dumps(v, sort_keys=True)) for k, v in values.items()]
        )

    @contextlib.contextmanager
    def _transaction(self, what: str = _NOT_WRITTEN) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            # After a full disk SQLite has rolled back by itself; a second ROLLBACK would hide the first error.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{self.path} {what} (SQLite: {error})") from None
            raise

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            raise StoreError(f"{self.path} {what} ({error})") from None


def _checked(row: EliteRow) -> EliteRow:
    """row, if its columns are what they should be; ValueError naming the class if not."""
    numbers = (row.log_odds, row.margin, row.search_log_odds, row.search_margin)
    whole = (row.cell, row.class_id, row.niche, row.birth)
    if row.genome is None or row.batch is None:
        raise ValueError(f"class {row.class_id}: the genome of its elite, birth {row.birth}, is missing")
    if not all(isinstance(v, int) for v in whole) or not all(isinstance(v, float) for v in numbers):
        raise ValueError(f"class {row.class_id}: its elite's numbers are no numbers")
    if not isinstance(row.png, bytes) or not isinstance(row.genome, bytes):
        raise ValueError(f"class {row.class_id}: its elite's picture or genome is no data")
    return row


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"{folder} is in use: another evofool is writing this run; show, export and verify work meanwhile"
        ) from None
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror or error})") from None
    return lock


def _refuse_network(folder: Path) -> None:
    """SQLite's locks and shared memory do not work across a network, and then two writers destroy a run."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return
    here = folder.resolve()
    on = [(mount, kind) for mount, kind in mounts if here.is_relative_to(mount.replace("\\040", " "))]
    mount, kind = max(on, key=lambda m: len(m[0]), default=("", ""))
    if kind.startswith(_NETWORK):
        raise StoreError(f"{folder} lies on a network file system ({kind} at {mount}); a run needs a local disk (--out)")
