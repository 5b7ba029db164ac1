"""A stored run, open for reading: its elites with their labels, confidences and genomes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evofool.errors import EvofoolError, StoreError, TargetError
from evofool.images import decode_png
from evofool.recipe import Recipe, parse
from evofool.run.drift_marks import is_marked
from evofool.run.meta import DriftRecord
from evofool.run.schema import IMAGE_METRICS, EliteRecord, EliteRow, GenomeId
from evofool.run.store import Store
from evofool.scores import confidence
from genomes import Encoding, GenomeError, Genomes

if TYPE_CHECKING:
    from evofool.targets import Target


@dataclass(frozen=True)
class ListedElite:
    """The record of the best image of a class (and niche), without the image."""

    row: EliteRecord
    label: str
    drifted: bool = False  # made between a check of the black box that agreed and one that did not

    @property
    def confidence(self) -> float:
        return float(confidence(self.row.log_odds))

    def summary(self) -> dict[str, Any]:
        """Plain values, for JSON and CSV. log_odds, margin and confidence are natural-logarithm units and a probability."""
        r = self.row
        metrics = {metric.name: metric.value for metric in r.image_metrics}
        return {
            "class": r.class_id,
            "label": self.label,
            "niche": r.niche,
            "confidence": self.confidence,
            "log_odds": r.log_odds,
            "margin": r.margin,
            "search_log_odds": r.search_log_odds,  # ranked by, in the search's number format
            "search_margin": r.search_margin,
            "birth": r.birth,
            "batch": r.batch,
            "mother": r.mother,
            "father": r.father,
            "method": r.method,
            "bytes_per_pixel": r.bytes_per_pixel,
            **{name: metrics.get(name) for name in IMAGE_METRICS},  # None: not measured
            "drifted": self.drifted,
            "record_sha256": r.sha256,  # over class, niche, birth, scores and PNG
        }


@dataclass(frozen=True)
class Elite(ListedElite):
    """The best image of a class (and niche), with its record."""

    row: EliteRow
    shape: tuple[int, int, int] = field(kw_only=True)  # of the run's images

    @property
    def image(self) -> np.ndarray:
        """uint8 (C, H, W), decoded from the stored PNG; ImageError if it has another shape."""
        return decode_png(self.row.png, f"class {self.row.class_id} ({self.label})", self.shape)


@dataclass(frozen=True)
class ListedRunnerUp(ListedElite):
    """A genome of a list (search.keep) that is not the elite: place 1 is the next best. row has the scores that the search
    ranked by; its image is not stored and was not measured in float32, so what the summary has of these is None.
    """

    place: int = field(kw_only=True)

    def summary(self) -> dict[str, Any]:
        """As of an elite."""
        unknown = ("confidence", "log_odds", "margin", "bytes_per_pixel", "record_sha256")
        return {**super().summary(), **dict.fromkeys(unknown)}


@dataclass(frozen=True)
class ListedGenome:
    """A genome in the list of a class (and niche): the elite has the place 0. Scores are those that the search ranked by."""

    niche: int
    place: int
    birth: int
    mother: int  # a birth; -1: none
    father: int
    log_odds: float
    margin: float

    @property
    def confidence(self) -> float:
        return float(confidence(self.log_odds))


class StoredRun:
    """A run's file, open for reading, also while the run goes on."""

    def __init__(self, folder: Path | str) -> None:
        self.store = Store.open(Path(folder))
        self.folder = self.store.path.parent
        try:
            self.meta = self.store.meta()
            self.recipe: Recipe = parse(self.meta.recipe, str(self.store.path))
        except EvofoolError:
            self.store.close()
            raise
        self.labels: list[str] = self.meta.target.labels
        self.shape: tuple[int, int, int] = self.meta.target.shape
        self.encoding: Encoding = self._built()

    def _built(self) -> Encoding:
        try:
            decoder = self.store.decoder()
            if decoder is None and self.recipe.encoding.kind == "latent":
                raise StoreError(f"{self.store.path} is damaged: it has no decoder")
            return self.recipe.build_encoding(self.shape, decoder)
        except EvofoolError:
            self.store.close()
            raise

    def __enter__(self) -> "StoredRun":
        return self

    def __exit__(self, *exc: object) -> None:
        self.store.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A context in which meta, read again, and everything else that is read is of one checkpoint."""
        with self.store.snapshot():
            self.meta = self.store.meta()
            yield

    def elites(self, class_id: int | None = None) -> list[Elite]:
        """By class and niche, with their images; StoreError if the run has saved nothing yet."""
        rows = self.store.elites(class_id)
        self._refuse_none(rows, class_id)
        return [Elite(row, self.labels[row.class_id], self._drifted(row), shape=self.shape) for row in rows]

    def listed(self, class_id: int | None = None) -> list[ListedElite]:
        """As elites, without the images, which are not read."""
        rows = self.store.records(class_id)
        self._refuse_none(rows, class_id)
        return [ListedElite(row, self.labels[row.class_id], self._drifted(row)) for row in rows]

    def _refuse_none(self, rows: Sequence[object], class_id: int | None) -> None:
        if not rows:
            hint = "; if it was copied from a run that went on or was killed, copy run.db-wal too"
            what = f"has saved nothing yet{hint}" if class_id is None else f"has no elite of class {class_id} yet"
            raise StoreError(f"{self.folder} {what}")

    @property
    def drifts(self) -> list[DriftRecord]:
        """The drifts of a black box, of a merged run those of all its sources."""
        return [*self.meta.drifts, *(drift for source in self.meta.merged or () for drift in source.drifts)]

    def _drifted(self, row: EliteRecord) -> bool:
        if self.meta.merged is None:
            return is_marked(row.batch, self.meta.drifts)
        if not self.drifts:
            return False
        run = self._origins[row.birth].run if row.birth in self._origins else None
        return any(source.id == run and is_marked(row.batch, source.drifts) for source in self.meta.merged)

    @cached_property
    def _origins(self) -> dict[int, GenomeId]:
        return self.store.origins()

    @property
    def evaluations(self) -> int:
        """Of the search; of a merged run those of all its sources, of an attack the forward passes."""
        if self.meta.attack is not None:
            return self.meta.attack.forwards
        if self.meta.merged is not None:
            return sum(source.evaluations for source in self.meta.merged)
        return self.meta.committed * self.recipe.search.batch

    @property
    def elites_as_of(self) -> int:
        """The evaluations after which the stored elites were the elites: partial checkpoints do not store elites."""
        return self.meta.shown * self.recipe.search.batch if self.meta.searched else self.evaluations

    def quarantine(self) -> list[dict[str, Any]]:
        """The quarantined genomes, as plain values: birth, batch, mother, father, reason."""
        return [{k: v for k, v in row._asdict().items() if k != "genome"} for row in self.store.quarantine()]

    @property
    def niches(self) -> int:
        """Niches per class; cell = class * niches + niche."""
        return self.meta.niches

    @property
    def classes(self) -> list[int]:
        """The numbers of the classes that are searched for, ascending."""
        attacked = self.meta.attack.plan.get("classes", ()) if self.meta.attack else ()
        return sorted(attacked or self.recipe.search.classes or range(len(self.labels)))

    def class_id(self, text: str) -> int:
        """The class of a number or a label; TargetError names the nearest labels."""
        from evofool.targets.labels import class_of

        return class_of(text, self.labels, self.folder)

    def unpack(self, packed: Sequence[bytes]) -> Genomes:
        """A batch of stored genomes; StoreError if one of them is invalid."""
        try:
            return self.encoding.unpack(list(packed))
        except GenomeError as error:
            raise StoreError(f"{self.store.path} is damaged: {error}") from None

    def target(self, trust: bool = False, ignore_cache: bool = False) -> "Target":
        """The classifier that the run was made with, as of targets.stored_target."""
        from evofool.targets import stored_target

        return stored_target(self.recipe.target, self.folder, trust, ignore_cache)

    def own_target(
        self, given: "Target | None" = None, trust: bool = False, ignore_cache: bool = False, way_out: str = ""
    ) -> "Target":
        """given, or `target`; TargetError, ending with way_out, if it is not the classifier that the run was made with."""
        found = given or self.target(trust, ignore_cache)
        if found.fingerprint() != self.meta.target.fingerprint:
            raise TargetError(
                f"{self.folder}: the target {found.name} is not the one that this run was made with: its labels, "
                f"preprocessing or weights have changed since{way_out}"
            )
        return found

    def genomes(self, births: Sequence[int]) -> Genomes:
        """A batch of the genomes of these births; StoreError if one of them is missing or invalid."""
        return self.store.unpacked(births, self.encoding)

    def genome(self, elite: ListedElite) -> Genomes:
        """Of one elite, as a batch of one."""
        return self.genomes([elite.row.birth])

    def class_list(self, class_id: int) -> list[ListedGenome]:
        """The genomes that the cells of a class keep, by niche, from the best; StoreError if a cell keeps only one."""
        places = self._places(class_id)
        self._refuse_none(places, class_id)
        return [place for _, _, place in places]

    def runners_up(self) -> list[ListedRunnerUp]:
        """The genomes that are kept beside the elites, by class, niche and place; StoreError if a cell keeps only one."""
        methods, found = self.store.methods(), list[ListedRunnerUp]()
        for cell, batch, p in self._places():
            if p.place:
                scores = (p.log_odds, p.margin) * 2
                method = methods.get(p.birth, "evolved")
                made = p.birth, batch, p.mother, p.father
                row = EliteRecord(cell, cell // self.niches, p.niche, *made, *scores, "", 0.0, method)
                found.append(ListedRunnerUp(row, self.labels[row.class_id], self._drifted(row), place=p.place))
        return found

    def _places(self, class_id: int | None = None) -> list[tuple[int, int, ListedGenome]]:
        """(cell, batch, genome) of the lists of a class, or of all; StoreError if a cell keeps only one."""
        if self.meta.keep == 1:
            raise StoreError(f"{self.folder} keeps one genome a cell, its elite (search.keep is 1)")
        with self.store.snapshot():
            lists = self.store.lists(self.recipe.search.rank)
            mine = np.ones(len(lists.cells), bool) if class_id is None else lists.cells // self.niches == class_id
            parents = self.store.parents(lists.births[mine].tolist())
        places = np.arange(len(lists.cells)) - np.searchsorted(lists.cells, lists.cells)
        rows = zip(*(column[mine].tolist() for column in (lists.cells, places, *lists[1:])), strict=True)
        return [
            (cell, parents[birth].batch, ListedGenome(cell % self.niches, place, birth, *parents[birth][1:], *scores))
            for cell, place, birth, *scores in rows
        ]

    def genome_json(self, elite: ListedElite) -> dict[str, Any]:
        return self.encoding.to_json(self.genome(elite)[0])

    def rows(self) -> list[dict[str, Any]]:
        """The metrics, in order, each with its seconds of search."""
        return [{**m.row, "seconds": m.seconds} for m in self.store.metrics()]
