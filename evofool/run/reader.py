"""Every query of a run's file. Every row that is read is checked (evofool/run/columns.py)."""

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from evofool.errors import StoreError
from evofool.json_text import MOST_CHARACTERS, parse_json
from evofool.run.columns import COLUMNS, Cells, metrics_fault, refuse_rows
from evofool.run.digests import DIGESTS, HASHED, Digests
from evofool.run.meta import MOST, RunMeta, fault_of
from evofool.run.remaker import OtherVariationError, Remaker, StoredGenome
from evofool.run.schema import (
    OPTIONAL_TABLES,
    AncestorRow,
    EliteKey,
    EliteRecord,
    EliteRow,
    GenomeId,
    ImageMetric,
    ImprovementRow,
    Lists,
    MetricsRow,
    ParentsRow,
    Pending,
    QuarantineRow,
)
from evofool.run.sqlite_file import Limit
from evofool.search.archive import best_of_cells
from evofool.search.delta import MAX_STEPS, apply_difference
from evofool.search.records import CellChange, Commit, RunnerUp
from evofool.search.remaking import variation_of
from genomes import Encoding, Genomes

FILE = "run.db"
_ABOUT_FILE = ("format", "version", DIGESTS)  # keys of meta that RunMeta does not have
_SLACK = 1 << 16  # bytes that a query may yield beyond the size of the file
_AT_ONCE = 1000  # rows


class Reader:
    """Reads an open file. What is read from a damaged one raises StoreError."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._limit = Limit(path, connection)
        self._known_cells: Cells | None = None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """A context in which all that is read is of one checkpoint. A nested one joins the outer one."""
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

    def meta(self) -> RunMeta:
        """The facts about the run; StoreError names the first one that is missing or damaged."""
        with self._guard("is damaged"):
            values = {key: value for key, value in self._meta_values().items() if key not in _ABOUT_FILE}
            try:
                meta = RunMeta.model_validate(values)
            except ValidationError as error:
                raise StoreError(f"{self.path} is damaged: meta.{fault_of(error)}") from None
        self._known_cells = Cells(meta.target.labels, meta.niches, meta.keep)
        return meta

    def records(self, class_id: int | None = None) -> list[EliteRecord]:
        """The elites without their images, by class and niche; all from one checkpoint."""
        where, values = ("WHERE class = ?", (class_id,)) if class_id is not None else ("", ())
        own = f"WHERE birth IN (SELECT birth FROM elites {where})"
        with self.snapshot(), self._guard("is damaged"):
            metrics = self._image_metrics()
            genomes = self._rows("genomes", ("birth", "batch", "mother", "father"), own, values)
            parents = {birth: ParentsRow(*row) for birth, *row in genomes}
            methods = dict(self._rows("methods", ("birth", "method"), own, values))
            names = [name for name in COLUMNS["elites"] if name != "png"]
            records = []
            for row in self._rows("elites", names, f"{where} ORDER BY class, niche", values):
                known = {"class_id" if name == "class" else name: value for name, value in zip(names, row, strict=True)}
                birth = known["birth"]
                if birth not in parents:
                    raise ValueError(f"class {known['class_id']}: the genome of its elite, birth {birth}, is missing")
                made = {"method": methods.get(birth, "evolved"), "image_metrics": metrics.get(known["cell"], ())}
                records.append(EliteRecord(**known, **parents[birth]._asdict(), **made))
            return records

    def elites(self, class_id: int | None = None) -> list[EliteRow]:
        """The elites with their images, by class and niche; all from one checkpoint."""
        where, values = ("WHERE class = ?", (class_id,)) if class_id is not None else ("", ())
        with self.snapshot(), self._guard("is damaged"):
            records = self.records(class_id)
            self._refuse_long_pngs()
            pngs = dict(self._rows("elites", ("cell", "png"), where, values))
            return [EliteRow(**record.__dict__, png=pngs[record.cell]) for record in records]

    def _refuse_long_pngs(self, which: str = "") -> None:
        """ValueError for a PNG that is longer than one of the run's shape can be. It is not read."""
        shape = self.meta().target.shape
        most = 2 * math.prod(shape) + 1024  # one that does not compress is 1.01 times as long as its values
        where = f"WHERE {which} length(png) > ? LIMIT 1"
        row = self._db.execute(f"SELECT class, length(png) FROM elites {where}", (most,)).fetchone()
        if row is not None:
            raise ValueError(f"class {row[0]}: its PNG has {row[1]:,} bytes; one of shape {shape} has at most {most:,}")

    def _image_metrics(self) -> dict[int, tuple[ImageMetric, ...]]:
        """By cell, the image metrics of its elite, by name."""
        found: dict[int, tuple[ImageMetric, ...]] = {}
        for cell, *row in self._rows("image_metrics", ("cell", "name", "value", "reference"), "ORDER BY cell, name"):
            found[cell] = (*found.get(cell, ()), ImageMetric(*row))
        return found

    def births(self) -> list[int]:
        """Of all genomes, ascending."""
        with self._guard("is damaged"):
            return [birth for (birth,) in self._rows("genomes", ("birth",), "ORDER BY birth")]

    def elite_keys(self) -> list[EliteKey]:
        """By cell, without anything else of the elites: quick, also for a thousand of them."""
        with self._guard("is damaged"):
            return [EliteKey(*row) for row in self._rows("elites", EliteKey._fields, "ORDER BY cell")]

    def picture(self, cell: int, sha256: str) -> bytes | None:
        """The PNG of a cell's elite; None if its record has another digest, or if there is none."""
        with self.snapshot(), self._guard("is damaged"):
            self._refuse_long_pngs(f"cell = {cell:d} AND")
            found = self._rows("elites", ("png",), "WHERE cell = ? AND sha256 = ?", (cell, sha256))
        return found[0][0] if found else None

    def data_version(self) -> int:
        """A number that differs from the last one if another connection has written meanwhile."""
        with self._guard("cannot be read"):
            return int(*self._db.execute("PRAGMA data_version").fetchone())

    def cells(self) -> set[int]:
        """The cells that have an elite."""
        with self._guard("is damaged"):
            return {cell for (cell,) in self._rows("elites", ("cell",))}

    def genomes(self, births: Iterable[int]) -> dict[int, bytes]:
        """The packed genomes of these births, whole; one that is missing or damaged raises StoreError."""
        wanted = set(births)
        found: dict[int, bytes] = {}
        with self._guard("is damaged"):
            for birth in sorted(wanted):
                self._whole(birth, found)
        return {birth: found[birth] for birth in wanted}

    def unpacked(self, births: Sequence[int], encoding: Encoding) -> Genomes:
        """A batch of the genomes of these births. Those that are made again need not be packed for that."""
        with self._guard("is damaged"):
            if encoding.variation:
                return np.concatenate([encoding.unpack([]), *(self._remaker.genome(birth) for birth in births)])
            packed = self.genomes(births)
            return encoding.unpack([packed[birth] for birth in births])

    def steps(self) -> dict[int, int]:
        """StoredGenomes.steps of the genomes that are not stored whole, by birth."""
        with self._guard("is damaged"):
            return dict(self._rows("genomes", ("birth", "steps"), "WHERE steps <> 0"))

    def stored(self, birth: int) -> tuple[bytes, int]:
        """(genome, steps) as the file has them, in any of the forms of StoredGenomes."""
        with self._guard("is damaged"):
            return self._genome_row(birth)[:2]

    def seeds(self, births: range) -> dict[int, bytes]:
        """The packed genomes of these births, which a search begins with; StoreError if there are not as many."""
        with self._guard("is damaged"):
            where = "WHERE birth >= ? AND birth < ?"
            # Asked first, because the number of seeds in a damaged file may be any.
            found = [birth for (birth,) in self._rows("genomes", ("birth",), where, (births.start, births.stop))]
            if len(found) != len(births):
                found = sorted(found)
                missing = next(birth for k, birth in enumerate(births) if k == len(found) or found[k] != birth)
                raise ValueError(f"the genome of birth {missing} is missing")
            return self.genomes(found)

    def _whole(self, birth: int, found: dict[int, bytes]) -> bytes:
        """The genome of birth; it is added to found, as are those that it is a difference from."""
        line: list[bytes] = []  # differences, the youngest first
        at = birth
        while at not in found:
            row = self._genome_row(at)
            if row.steps == 0 or variation_of(row.genome) is not None:
                found[at] = row.genome if row.steps == 0 else self._remaker.packed(at)
                break
            if len(line) > MAX_STEPS:
                raise ValueError(f"the genome of birth {birth} is a difference, and no whole genome is before it")
            line.append(row.genome)
            at = row.mother
        genome = found[at]
        for delta in reversed(line):
            genome = apply_difference(delta, genome)
        found[birth] = genome
        return genome

    @cached_property
    def _remaker(self) -> Remaker:
        meta = self.meta()
        origins = self.origins() if meta.merged is not None else {}
        return Remaker(meta, origins, self._genome_row, lambda birth: self._whole(birth, {}), self.decoder())

    def _genome_row(self, birth: int) -> StoredGenome:
        rows = self._rows("genomes", StoredGenome._fields, "WHERE birth = ?", (birth,))
        if not rows:
            raise ValueError(f"the genome of birth {birth} is missing")
        return StoredGenome(*rows[0])

    def _parents(self, birth: int) -> ParentsRow:
        """Of a genome; each of them was born before it."""
        rows = self._rows("genomes", ("batch", "mother", "father"), "WHERE birth = ?", (birth,))
        if not rows or max(rows[0][1:]) >= birth:
            raise ValueError(f"the genome of birth {birth} is missing, or has parents that are not older")
        return ParentsRow(*rows[0])

    def parents(self, births: Iterable[int]) -> dict[int, ParentsRow]:
        """By birth the batch and the parents of these genomes; StoreError if one is missing."""
        with self._guard("is damaged"):
            return {birth: self._parents(birth) for birth in births}

    def descent(self, birth: int) -> list[AncestorRow]:
        """From this genome back along the mothers to one without a mother."""
        line: list[AncestorRow] = []
        with self._guard("is damaged"):
            while birth >= 0:
                line.append(AncestorRow(birth, *self._parents(birth)))
                birth = line[-1].mother
        return line

    def ancestry(self, births: Iterable[int]) -> dict[int, ParentsRow]:
        """By birth the parents of these genomes and of all that they descend from, by mothers and fathers."""
        found: dict[int, ParentsRow] = {}
        wanted = set(births)
        with self._guard("is damaged"):
            while wanted:
                birth = wanted.pop()
                found[birth] = self._parents(birth)
                wanted |= {parent for parent in found[birth][1:] if parent >= 0 and parent not in found}
        return found

    def origins(self) -> dict[int, GenomeId]:
        """By birth where the genomes of a merged or polished run come from; of any other run empty."""
        with self._guard("is damaged"):
            rows = self._rows("origins", ("birth", "source_run", "source_birth"), "ORDER BY birth")
            return {birth: GenomeId(run, source) for birth, run, source in rows}

    def methods(self) -> dict[int, str]:
        """By birth the method that made a genome, of those that variation did not make."""
        with self._guard("is damaged"):
            return dict(self._rows("methods", ("birth", "method")))

    def improvements(self) -> list[ImprovementRow]:
        """By cell, in the order in which its image came out better."""
        with self._guard("is damaged"):
            names = ("cell", "forwards", "backwards", "score", "log_odds")
            return [ImprovementRow(*row) for row in self._rows("improvements", names, "ORDER BY cell, rowid")]

    def cell_history(self, birth: int | None = None) -> list[CellChange]:
        """In the order in which elites were replaced; those of one birth, which are all of one batch, by cell."""
        where, values = ("WHERE birth = ? ORDER BY cell", (birth,)) if birth is not None else ("ORDER BY id", ())
        with self._guard("is damaged"):
            names = ("cell", "birth", "batch", "log_odds", "margin", "switched")
            rows = self._rows("cell_history", names, where, values)
            return [CellChange(*row)._replace(switched=row[5] == 1) for row in rows]

    def runners_up(self, birth: int | None = None) -> list[RunnerUp]:
        """Those that entered a list without becoming the elite, by birth and cell; birth: those of this one alone."""
        where, values = ("WHERE birth = ?", (birth,)) if birth is not None else ("", ())
        with self._guard("is damaged"):
            if not self._has("runners_up"):
                return []
            names = ("cell", "birth", "batch", "log_odds", "margin")
            return [RunnerUp(*row) for row in self._rows("runners_up", names, f"{where} ORDER BY birth, cell", values)]

    def lists(self, rank: str) -> Lists:
        """The lists of all cells of a search; of these the first ones are the elites. rank: search.rank."""
        names = ("cell", "birth", "log_odds", "margin")
        parts = [np.zeros((0, len(names)))]  # births are exact as float64: a search may have millions of rows
        with self._guard("is damaged"):
            for table in ("cell_history", "runners_up") if self._has("runners_up") else ("cell_history",):
                for part in self._fetched(table, names):
                    refuse_rows(table, names, part, self._cells())
                    parts.append(np.array(part, np.float64))
        columns = np.concatenate(parts).T
        cells, births, (log_odds, margins) = columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2:]
        best = best_of_cells(cells, margins if rank == "margin" else log_odds, births, self._cells().keep)
        return Lists(cells[best], births[best], log_odds[best], margins[best])

    def decoder(self) -> bytes | None:
        """The file of the decoder that draws the genomes; None for other encodings."""
        with self._guard("is damaged"):
            rows = self._rows("decoder", ("file",)) if self._has("decoder") else []
            if len(rows) > 1:
                raise ValueError("it has two decoders")
            return rows[0][0] if rows else None

    def _has(self, table: str) -> bool:
        return bool(self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall())

    def counts(self) -> tuple[int, int]:
        """(wins, switches): changes of cells other than first fillings, and how many of them were goal switches."""
        with self._guard("is damaged"):
            n, cells, switches = self._db.execute(
                "SELECT COUNT(*), COUNT(DISTINCT cell), COUNT(CASE WHEN switched = 1 THEN 1 END) FROM cell_history"
            ).fetchone()
        return n - cells, switches

    def metrics(self) -> list[MetricsRow]:
        """In the order of batches."""
        with self._guard("is damaged"):
            found = []
            for batch, seconds, text in self._rows("metrics", ("batch", "seconds", "row"), "ORDER BY batch"):
                row = parse_json(text)
                if fault := metrics_fault(row):
                    raise ValueError(f"metrics.row of batch {batch} {fault}")
                found.append(MetricsRow(batch, seconds, row))
            return found

    def pending(self) -> list[Pending]:
        """The orders under way, the lowest batch first."""
        with self._guard("is damaged"):
            cells = self._cells()
            names = ("batch", "mothers", "fathers", "incumbents", "thresholds", "drawn_after")
            found = []
            for batch, *births, thresholds, drawn_after in self._rows("pending", names, "ORDER BY batch"):
                mothers, fathers, incumbents = (np.frombuffer(b, "<i8").astype(np.int64) for b in births)
                levels = np.frombuffer(thresholds, "<f8").astype(np.float64)
                places = cells.number * cells.keep
                if (len(mothers), len(levels), len(incumbents)) != (len(fathers), cells.number, places):
                    raise ValueError(f"pending: batch {batch} has lists of other lengths than its parents and cells")
                if any(len(ids) and not -1 <= ids.min() <= ids.max() < MOST for ids in (mothers, fathers, incumbents)):
                    raise ValueError(f"pending: batch {batch} has invalid births")
                if np.isnan(levels).any():
                    raise ValueError(f"pending: batch {batch} has thresholds that are no numbers")
                lists = incumbents.reshape(cells.number, cells.keep)
                found.append(Pending(batch, mothers, fathers, lists, levels, drawn_after))
            return found

    def quarantine(self) -> list[QuarantineRow]:
        """The quarantined genomes, by birth."""
        with self._guard("is damaged"):
            names = ("birth", "batch", "mother", "father", "genome", "reason")
            return [QuarantineRow(*row) for row in self._rows("quarantine", names, "ORDER BY birth")]

    def commits(self) -> list[Commit]:
        """In the order of commits; only a search in free mode keeps them."""
        with self._guard("is damaged"):
            names = ("position", "batch", "drawn_after")
            return [Commit(*row) for row in self._rows("commits", names, "ORDER BY position")]

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

    def changed_tables(self) -> list[str]:
        """The tables that are not as they were saved, by their digests; none in a file that has no digests."""
        with self.snapshot(), self._guard("is damaged"):
            saved = self._digests()
            if saved is None:
                return []
            found = Digests()
            for table, names in HASHED.items():
                if table in OPTIONAL_TABLES and not self._has(table):
                    continue
                rest = f"WHERE key <> '{DIGESTS}'" if table == "meta" else ""
                for part in self._fetched(table, names, rest):
                    found.add(table, part)
            was, now = saved.stored(), found.stored()
            return [table for table in HASHED if now.get(table) != was.get(table)]

    def _digests(self) -> Digests | None:
        """As saved; None in a file of an earlier release, which has none."""
        with self._guard("is damaged"):
            stored = self._meta_values((DIGESTS,))
            return Digests(stored[DIGESTS]) if stored else None

    def _meta_values(self, keys: Sequence[str] = ()) -> dict[str, Any]:
        """By key its value; of all keys if none are named."""
        where = f"WHERE key IN ({', '.join('?' * len(keys))})" if keys else ""
        (length,) = self._db.execute("SELECT TOTAL(length(value)) FROM meta").fetchone()
        if length > MOST_CHARACTERS:
            raise ValueError(f"meta has {length:,.0f} characters; {MOST_CHARACTERS:,} are the most that is read")
        values = {}
        for key, text in self._rows("meta", ("key", "value"), where, tuple(keys)):
            try:
                values[key] = parse_json(text)
            except ValueError as error:
                raise ValueError(f"meta.{key[:80]}: {error}") from None
        return values

    def _cells(self) -> Cells:
        """How many cells the run has. Neither its labels nor its niches, nor the length of lists, ever change."""
        return self._known_cells or Cells((meta := self.meta()).target.labels, meta.niches, meta.keep)

    def _rows(self, table: str, columns: Sequence[str], rest: str = "", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a table, checked; ValueError for one that cannot be. rest: what follows the table's name."""
        rows = [row for part in self._fetched(table, columns, rest, values) for row in part]
        refuse_rows(table, columns, rows, Cells((), 0) if table == "meta" else self._cells())
        return rows

    def _fetched(
        self, table: str, columns: Sequence[str], rest: str = "", values: Sequence[Any] = ()
    ) -> Iterator[list[tuple[Any, ...]]]:
        """The same rows in parts, not checked; ValueError for more than a file of this size can have."""
        cursor = self._db.execute(f"SELECT {', '.join(columns)} FROM {table} {rest}", tuple(values))
        wide = [k for k, name in enumerate(columns) if COLUMNS[table][name].kind in (str, bytes)]
        # Pages can stand for many rows or values at once in a forged file, but no sound one is shorter than its values.
        room = self._limit.size() + _SLACK
        while part := cursor.fetchmany(1 if wide else _AT_ONCE):
            room -= len(part) * len(columns) + sum(
                len(row[k]) for row in part for k in wide if isinstance(row[k], str | bytes)
            )
            if room < 0:
                raise ValueError(f"{table} has more rows than fit into the file")
            yield part

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            with self._limit.one_query():
                yield
        except StoreError:
            raise
        except OtherVariationError as error:
            raise StoreError(f"{self.path}: {error}") from None
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            reason = "a query does not end: its pages refer to each other" if str(error) == "interrupted" else str(error)
            raise StoreError(f"{self.path} {what}: {reason}") from None
