"""The tables of a run's file, and a named row for each of them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from evofool.image_metrics.names import FEATURES, HAS_OWN_SHAPE, HOG, OWN_SHAPE, PIXELS, TOTAL_VARIATION
from evofool.search.records import CellChange, Commit, Offspring, RunnerUp

IMAGE_METRICS = (PIXELS, HOG, FEATURES, TOTAL_VARIATION, OWN_SHAPE, HAS_OWN_SHAPE)
"""The image metrics that may be measured of an elite's image later; evofool/image_metrics defines them."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
-- every genome that was ever in the list of a cell; mother and father are births, -1 for the first ones. steps 0: genome is
-- whole; else it is the difference from its mother's (evofool/search/delta.py), and the whole one is that many differences
-- away, or it says what makes it again from its parents (evofool/search/remaking.py), and at most so many genomes have to be
-- made for it
CREATE TABLE genomes (birth INTEGER PRIMARY KEY, batch INTEGER NOT NULL, mother INTEGER NOT NULL,
                      father INTEGER NOT NULL, genome BLOB NOT NULL, steps INTEGER NOT NULL);
-- every time the elite of a cell was replaced, or its first one came, in order; cell = class * niches + niche
CREATE TABLE cell_history (id INTEGER PRIMARY KEY, cell INTEGER NOT NULL, birth INTEGER NOT NULL, batch INTEGER NOT NULL,
                     log_odds REAL NOT NULL, margin REAL NOT NULL, switched INTEGER NOT NULL);
CREATE INDEX cell_history_by_birth ON cell_history (birth);
-- the elites now. log_odds and margin are those of the float32 network, search_log_odds and search_margin those that the
-- search ranked by, in its own number format (the same where that is float32)
CREATE TABLE elites (cell INTEGER PRIMARY KEY, class INTEGER NOT NULL, niche INTEGER NOT NULL, birth INTEGER NOT NULL,
                     log_odds REAL NOT NULL, margin REAL NOT NULL, search_log_odds REAL NOT NULL,
                     search_margin REAL NOT NULL, png BLOB NOT NULL, sha256 TEXT NOT NULL,
                     bytes_per_pixel REAL NOT NULL);
-- measured of an elite's image later (Store.set_image_metrics); deleted when the elite is replaced. reference: the key, in
-- meta.references, of the real images that it was compared with; empty where there are none
CREATE TABLE image_metrics (cell INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, reference TEXT NOT NULL,
                       PRIMARY KEY (cell, name)) WITHOUT ROWID;
CREATE TABLE metrics (batch INTEGER PRIMARY KEY, seconds REAL NOT NULL, row TEXT NOT NULL);
-- orders under way at the checkpoint: little-endian int64 births, int64 incumbents, float64 thresholds
CREATE TABLE pending (batch INTEGER PRIMARY KEY, mothers BLOB NOT NULL, fathers BLOB NOT NULL,
                      incumbents BLOB NOT NULL, thresholds BLOB NOT NULL, drawn_after INTEGER NOT NULL);
-- genomes whose images kill, hang or break the target; whole
CREATE TABLE quarantine (birth INTEGER PRIMARY KEY, batch INTEGER NOT NULL, mother INTEGER NOT NULL,
                         father INTEGER NOT NULL, genome BLOB NOT NULL, reason TEXT NOT NULL);
-- only with search.mode "free": the order in which batches were committed, and after how many of them each one's parents
-- were drawn
CREATE TABLE commits (position INTEGER PRIMARY KEY, batch INTEGER NOT NULL, drawn_after INTEGER NOT NULL);
-- merged and polished runs: the id of the run that a genome comes from, and its birth in that run
CREATE TABLE origins (birth INTEGER PRIMARY KEY, source_run TEXT NOT NULL, source_birth INTEGER NOT NULL,
                      UNIQUE (source_run, source_birth));
-- genomes that were not made by variation: the method that made them ("apgd", "polish", ..., or "seed")
CREATE TABLE methods (birth INTEGER PRIMARY KEY, method TEXT NOT NULL);
-- only of baselines: each time that the image of a cell came out better, after so many passes that were spent on this cell,
-- and in its last row where its ascent ended. score is what was ranked by; -inf where the cell got no image
CREATE TABLE improvements (cell INTEGER NOT NULL, forwards INTEGER NOT NULL, backwards INTEGER NOT NULL, score REAL NOT NULL,
                           log_odds REAL NOT NULL);
"""
OPTIONAL_TABLES = {
    "runners_up": """
-- only with search.keep above 1: every time a genome entered the list of a cell without becoming its elite. The list is the
-- best `keep`, by score, then lower birth, of all that cell_history and this table have of the cell
CREATE TABLE runners_up (birth INTEGER NOT NULL, cell INTEGER NOT NULL, batch INTEGER NOT NULL, log_odds REAL NOT NULL,
                         margin REAL NOT NULL, PRIMARY KEY (birth, cell)) WITHOUT ROWID;
""",
    "decoder": """
-- only with encoding.kind "latent": the file that draws images from codes, whose SHA-256 the recipe has
CREATE TABLE decoder (file BLOB NOT NULL);
""",
}
"""Tables that only some runs have, by name."""


class ImageMetric(NamedTuple):
    """One metric of an elite's image: its name, one of IMAGE_METRICS, and the real images that it was compared with."""

    name: str
    value: float
    reference: str  # a key of meta.references, or "" where nothing was compared


class ParentsRow(NamedTuple):
    """Where a genome comes from: its batch and the births of its parents, -1 for none."""

    batch: int
    mother: int
    father: int


class AncestorRow(NamedTuple):
    """One genome of a line of mothers."""

    birth: int
    batch: int
    mother: int
    father: int


class EliteKey(NamedTuple):
    """Which elite a cell has: its birth, the digest of its record, and its log-odds."""

    cell: int
    birth: int
    sha256: str
    log_odds: float


class Lists(NamedTuple):
    """The genomes in the lists of cells, all (M,), by cell, and in one cell from the best, which is the elite."""

    cells: np.ndarray  # int64
    births: np.ndarray  # int64
    log_odds: np.ndarray  # float64, as are margins: what the search ranked by
    margins: np.ndarray


class MetricsRow(NamedTuple):
    """The state of the archive after a commit. seconds: of search until then."""

    batch: int
    seconds: float
    row: Mapping[str, Any]  # plain JSON


class QuarantineRow(NamedTuple):
    """A genome whose image kills, hangs or breaks the target."""

    birth: int
    batch: int
    mother: int
    father: int
    genome: bytes  # packed, whole
    reason: str


class GenomeId(NamedTuple):
    """A genome of any run: the run that made it, by id, and its birth in that run."""

    run: str
    birth: int


class ImprovementRow(NamedTuple):
    """The image of a cell came out better, or, in the cell's last row, its ascent ended."""

    cell: int
    forwards: int  # passes that were spent on this cell
    backwards: int
    score: float  # ranked by; -inf where the cell got no image
    log_odds: float


@dataclass(frozen=True)
class EliteRecord:
    """An elite as stored but for its image: its scores and parents, and what was measured of it later."""

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
    sha256: str
    bytes_per_pixel: float
    method: str  # what made its genome: "evolved", or the method's name
    image_metrics: tuple[ImageMetric, ...] = ()  # by name


@dataclass(frozen=True)
class EliteRow(EliteRecord):
    """An elite as stored, with its image."""

    png: bytes = field(kw_only=True)

    def digest(self) -> str:
        scores = (self.log_odds, self.margin, self.search_log_odds, self.search_margin)
        return elite_digest(self.class_id, self.niche, self.birth, scores, self.png)


@dataclass(frozen=True)
class NewElite:
    """An elite to be written. scores: log_odds, margin, search_log_odds, search_margin; pixels: height times width."""

    class_id: int
    niche: int
    cell: int
    birth: int
    scores: tuple[float, float, float, float]
    png: bytes
    pixels: int
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
    incumbents: np.ndarray  # (cells, keep) int64
    thresholds: np.ndarray  # (cells,) float64
    drawn_after: int


@dataclass(frozen=True)
class Checkpoint:
    """What one transaction writes: new rows of the tables, and the fields of meta that change."""

    state: Mapping[str, Any]  # fields of RunMeta that change
    genomes: Iterable[Offspring]  # read once
    cell_history: Sequence[CellChange]
    elites: Sequence[NewElite]
    metrics: Sequence[MetricsRow]
    pending: Sequence[Pending] = ()
    quarantine: Sequence[QuarantineRow] = ()
    commits: Sequence[Commit] = ()
    origins: Mapping[int, GenomeId] = field(default_factory=dict)  # by birth, where a genome comes from
    methods: Mapping[int, str] = field(default_factory=dict)  # by birth, what made a genome that variation did not make
    whole: Mapping[int, bytes] = field(default_factory=dict)  # by birth, genomes that replace those that are not whole
    improvements: Sequence[ImprovementRow] = ()
    runners_up: Sequence[RunnerUp] = ()
