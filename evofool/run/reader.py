"""Every query of a run's file."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from evofool.errors import StoreError
from evofool.run.meta import RunMeta
from evofool.run.schema import (
    AncestorRow,
    EliteRow,
    GenomeId,
    ImageMetric,
    ImprovementRow,
    Incumbent,
    MetricsRow,
    ParentsRow,
    Pending,
    QuarantineRow,
    checked,
)
from evofool.search.delta import MAX_STEPS, apply_difference
from evofool.search.records import CellChange, Commit

FILE = "run.db"


class Reader:
    """Reads an open file. What is read from a damaged one raises StoreError."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection

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
        values = {key: value for key, value in self._meta_values().items() if key not in ("format", "version")}
        try:
            return RunMeta.model_validate(values)
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            what = f"is {values[key]!r:.80}" if key in values else "is missing"
            raise StoreError(f"{self.path} is damaged: meta.{key} {what}") from None

    def elites(self, class_id: int | None = None) -> list[EliteRow]:
        """By class and niche; all from one checkpoint."""
        where, values = ("WHERE e.class = ?", (class_id,)) if class_id is not None else ("", ())
        with self.snapshot(), self._guard("is damaged"):
            metrics = self._image_metrics()
            rows = self._db.execute(
                "SELECT e.cell, e.class, e.niche, e.birth, g.batch, g.mother, g.father, e.log_odds, e.margin,"
                " e.search_log_odds, e.search_margin, e.png, e.sha256, e.bytes_per_pixel,"
                " e.verdict, e.verdict_by, COALESCE(m.method, 'evolved'), g.genome"
                " FROM elites e LEFT JOIN genomes g ON g.birth = e.birth LEFT JOIN methods m ON m.birth = e.birth"
                f" {where} ORDER BY e.class, e.niche",
                values,
            ).fetchall()
            sound = [checked(EliteRow(*row)) for row in rows]
            whole = self.genomes(row.birth for row in sound)
        return [replace(row, genome=whole[row.birth], image_metrics=metrics.get(row.cell, ())) for row in sound]

    def _image_metrics(self) -> dict[int, tuple[ImageMetric, ...]]:
        """By cell, the image metrics of its elite, by name."""
        found: dict[int, tuple[ImageMetric, ...]] = {}
        for cell, *row in self._db.execute("SELECT cell, name, value, reference FROM image_metrics ORDER BY cell, name"):
            metric = ImageMetric(*row)
            if not isinstance(metric.value, float):
                raise ValueError(f"cell {cell}: {metric.name} is {metric.value!r}, not a number")
            found[cell] = (*found.get(cell, ()), metric)
        return found

    def cells(self) -> set[int]:
        """The cells that have an elite."""
        with self._guard("is damaged"):
            return {int(cell) for (cell,) in self._db.execute("SELECT cell FROM elites")}

    def genomes(self, births: Iterable[int]) -> dict[int, bytes]:
        """The packed genomes of these births, whole; one that is missing or damaged raises StoreError."""
        wanted = set(births)
        found: dict[int, bytes] = {}
        with self._guard("is damaged"):
            for birth in sorted(wanted):
                self._whole(birth, found)
        return {birth: found[birth] for birth in wanted}

    def steps(self) -> dict[int, int]:
        """By birth, the number of differences between a genome and a whole one; whole genomes are left out."""
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
        """The genome of birth; it is added to found, as are those that it is a difference from."""
        line: list[bytes] = []  # differences, the youngest first
        at = birth
        while at not in found:
            row = self._db.execute("SELECT genome, steps, mother FROM genomes WHERE birth = ?", (at,)).fetchone()
            if row is None:
                raise StoreError(f"{self.path} is damaged: the genome of birth {at} is missing")
            if row[1] == 0:
                found[at] = row[0]
                break
            if len(line) > MAX_STEPS:
                raise StoreError(f"{self.path} is damaged: the genome of birth {birth} is a difference from nothing whole")
            line.append(row[0])
            at = row[2]
        genome = found[at]
        for delta in reversed(line):
            genome = apply_difference(delta, genome)
        found[birth] = genome
        return genome

    def descent(self, birth: int) -> list[AncestorRow]:
        """From this genome back along the mothers to one without a mother."""
        line: list[AncestorRow] = []
        with self._guard("cannot be read"):
            while birth >= 0:
                row = self._db.execute(
                    "SELECT birth, batch, mother, father FROM genomes WHERE birth = ?", (birth,)
                ).fetchone()
                if row is None or (line and row[0] >= line[-1].birth):
                    raise StoreError(f"{self.path} is damaged: the descent breaks off at birth {birth}")
                line.append(AncestorRow(*row))
                birth = line[-1].mother
        return line

    def ancestry(self, births: Iterable[int]) -> dict[int, ParentsRow]:
        """By birth the parents of these genomes and of all that they descend from, by mothers and fathers."""
        found: dict[int, ParentsRow] = {}
        wanted = set(births)
        with self._guard("cannot be read"):
            while wanted:
                birth = wanted.pop()
                row = self._db.execute("SELECT batch, mother, father FROM genomes WHERE birth = ?", (birth,)).fetchone()
                if row is None or max(row[1:]) >= birth:
                    raise StoreError(f"{self.path} is damaged: the descent breaks off at birth {birth}")
                found[birth] = ParentsRow(*row)
                wanted |= {parent for parent in row[1:] if parent >= 0 and parent not in found}
        return found

    def origins(self) -> dict[int, GenomeId]:
        """By birth where the genomes of a merged or polished run come from; of any other run empty."""
        with self._guard("is damaged"):
            rows = self._db.execute("SELECT birth, source_run, source_birth FROM origins ORDER BY birth").fetchall()
            return {int(birth): GenomeId(str(run), int(source)) for birth, run, source in rows}

    def methods(self) -> dict[int, str]:
        """By birth the method that made a genome, of those that variation did not make."""
        with self._guard("is damaged"):
            return {int(birth): str(method) for birth, method in self._db.execute("SELECT birth, method FROM methods")}

    def improvements(self) -> list[ImprovementRow]:
        """By cell, in the order in which its image came out better."""
        with self._guard("is damaged"):
            rows = self._db.execute(
                "SELECT cell, forwards, backwards, score, log_odds FROM improvements ORDER BY cell, rowid"
            ).fetchall()
            return [ImprovementRow(*row) for row in rows]

    def cell_history(self, birth: int | None = None) -> list[CellChange]:
        """In the order in which elites were replaced; those of one birth, which are all of one batch, by cell."""
        where, values = ("WHERE birth = ? ORDER BY cell", (birth,)) if birth is not None else ("ORDER BY id", ())
        with self._guard("cannot be read"):
            rows = self._db.execute(
                f"SELECT cell, birth, batch, log_odds, margin, switched FROM cell_history {where}", values
            ).fetchall()
            return [CellChange(*row)._replace(switched=bool(row[5])) for row in rows]

    def incumbents(self) -> list[Incumbent]:
        """By cell, its elite after the cell's last change."""
        with self._guard("cannot be read"):
            rows = self._db.execute(
                "SELECT cell, birth, log_odds, margin FROM cell_history"
                " WHERE id IN (SELECT MAX(id) FROM cell_history GROUP BY cell) ORDER BY cell"
            ).fetchall()
            return [Incumbent(*row) for row in rows]

    def counts(self) -> tuple[int, int]:
        """(wins, switches): changes of cells other than first fillings, and how many of them were goal switches."""
        with self._guard("cannot be read"):
            n, cells, switches = self._db.execute(
                "SELECT COUNT(*), COUNT(DISTINCT cell), COALESCE(SUM(switched), 0) FROM cell_history"
            ).fetchone()
        return n - cells, switches

    def metrics(self) -> list[MetricsRow]:
        """In the order of batches."""
        with self._guard("is damaged"):
            rows = self._db.execute("SELECT batch, seconds, row FROM metrics ORDER BY batch").fetchall()
            return [MetricsRow(int(batch), float(seconds), dict(_json(row))) for batch, seconds, row in rows]

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

    def quarantine(self) -> list[QuarantineRow]:
        """The genomes that were set aside, by birth."""
        with self._guard("is damaged"):
            rows = self._db.execute(
                "SELECT birth, batch, mother, father, genome, reason FROM quarantine ORDER BY birth"
            ).fetchall()
            return [QuarantineRow(*row) for row in rows]

    def commits(self) -> list[Commit]:
        """In the order of commits; only a search in free mode keeps them."""
        with self._guard("is damaged"):
            rows = self._db.execute("SELECT position, batch, drawn_after FROM commits ORDER BY position").fetchall()
            return [Commit(*row) for row in rows]

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

    def _meta_values(self) -> dict[str, Any]:
        with self._guard("cannot be read"):
            return {key: _json(value) for key, value in self._db.execute("SELECT key, value FROM meta")}

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            raise StoreError(f"{self.path} {what} ({error})") from None


def _json(text: str) -> Any:
    """The JSON in a column; ValueError also for a lone surrogate in it, which nothing that is written later could hold."""
    found = json.loads(text)
    json.dumps(found, ensure_ascii=False).encode()
    return found
