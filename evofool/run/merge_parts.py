"""The runs to be merged: their best elites, their quarantine, and what has to be the same in all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evofool.errors import RecipeError, StoreError, TargetError
from evofool.recipe import drawing
from evofool.run.meta import MergedSource, TargetRecord
from evofool.run.schema import EliteRow, GenomeId
from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class SourceRun:
    """One of the runs to be merged, as read from its folder."""

    folder: Path
    signature: dict[str, Any]  # has to be the same in all runs
    target: TargetRecord
    sources: list[MergedSource]  # by ascending id
    origins: dict[int, GenomeId]  # empty unless the run was merged
    references: dict[str, Any]  # what elites' images were compared with
    decoder: bytes | None  # of a latent encoding; the same in all runs

    def id_of(self, birth: int) -> GenomeId:
        if not self.origins:
            return GenomeId(self.sources[0].id, birth)
        if birth not in self.origins:
            raise StoreError(f"{self.folder} is damaged: it has no origin of birth {birth}")
        return self.origins[birth]

    def source_birth(self, parent: int) -> int:
        """The birth of a parent in the run that made it and its child; -1 for none."""
        return self.id_of(parent).birth if parent >= 0 else -1


@dataclass(frozen=True)
class BestElite:
    """The best elite of a cell so far."""

    genome_id: GenomeId
    run_index: int
    row: EliteRow
    pixels: int
    rank: str

    @property
    def order(self) -> tuple[Any, ...]:
        """The least one wins. Copies of one elite have an order too, so that the order of reading does not matter: the
        better score first, then one with more image metrics."""
        r = self.row
        best, other = (r.margin, r.log_odds) if self.rank == "margin" else (r.log_odds, r.margin)
        metrics = -len(r.image_metrics), r.image_metrics
        return (-best, self.genome_id, -other, -r.search_log_odds, -r.search_margin, *metrics)


class QuarantinedGenome(NamedTuple):
    """A quarantined genome; parents as births in the run that made it, -1 for none and for those that a merge left out."""

    batch: int
    mother: int
    father: int
    genome: bytes
    reason: str


def read_runs(folders: Sequence[Path]) -> tuple[list[SourceRun], dict[int, BestElite], dict[GenomeId, QuarantinedGenome]]:
    """Everything but ancestors: the folders, the best elite of each cell, the quarantined genomes."""
    runs: list[SourceRun] = []
    best_elites: dict[int, BestElite] = {}
    quarantine: dict[GenomeId, QuarantinedGenome] = {}
    for index, folder in enumerate(folders):
        with StoredRun(folder) as stored, stored.store.snapshot():
            run = _source_run(stored)
            runs.append(run)
            _refuse_incompatible(runs[0], run)
            for elite in stored.elites():
                row = elite.row
                if row.digest() != row.sha256 or row.cell != row.class_id * stored.niches + row.niche:
                    raise StoreError(
                        f"{folder}: the elite of class {row.class_id} ({elite.label}) is not what its hash says; "
                        f"evofool verify {folder} says more. Leave this run out"
                    )
                pixels = stored.encoding.height * stored.encoding.width
                best = BestElite(run.id_of(row.birth), index, row, pixels, stored.recipe.search.rank)
                if row.cell not in best_elites or best.order < best_elites[row.cell].order:
                    best_elites[row.cell] = best
            for q in stored.store.quarantine():
                genome_id = run.id_of(q.birth)
                found = QuarantinedGenome(
                    q.batch, run.source_birth(q.mother), run.source_birth(q.father), q.genome, q.reason
                )
                quarantine[genome_id] = _same_genome(genome_id, quarantine.get(genome_id, found), found, folder)
    return runs, best_elites, quarantine


def _source_run(stored: StoredRun) -> SourceRun:
    folder, recipe = stored.folder, stored.recipe
    meta, decoder = stored.store.meta(), stored.store.decoder()
    target = meta.target
    signature = {
        "labels": stored.labels,
        "shape": list(stored.shape),
        "fingerprint": target.fingerprint,
        "search.rank": recipe.search.rank,
        "search.unlike": recipe.search.unlike,
        "the real digits of search.unlike": meta.unlike.sha256 if meta.unlike else None,
        "niches.descriptor": recipe.niches.descriptor if recipe.niches else None,
        "niches.edges": list(recipe.niches.edges) if recipe.niches else None,
        **drawing(stored.encoding),
    }
    if meta.merged is None:
        source = MergedSource(
            id=meta.id,
            recipe=meta.recipe,
            machine=meta.machine,
            position=meta.position,
            device=str(target.details.get("device", "cpu")),
            backend=target.details.get("backend"),
            evaluations=stored.elites_as_of,
            seconds=meta.seconds,
            answers=meta.answers,
            drifts=meta.drifts,
            unlike=meta.unlike,
        )
        return SourceRun(folder, signature, target, [source], {}, meta.references, decoder)
    origins = stored.store.origins()
    if not origins:
        raise StoreError(f"{folder} has saved nothing: its merge was broken off. Remove it, and merge its runs again")
    sources = sorted(meta.merged, key=lambda source: source.id)
    return SourceRun(folder, signature, target, sources, origins, meta.references, decoder)


def _refuse_incompatible(first: SourceRun, other: SourceRun) -> None:
    """Raise the error that names the first difference, if the two cannot be merged."""
    for key in [*first.signature, *other.signature]:
        a: Any = first.signature.get(key)
        b: Any = other.signature.get(key)
        if a == b:
            continue
        if key in ("labels", "shape", "fingerprint"):
            if key == "labels":
                c = next((c for c, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
                a, b = (f"{len(a)} of them", f"{len(b)}") if c is None else (f"class {c} is {a[c]!r}", f"{b[c]!r}")
            raise TargetError(
                f"{first.folder} ({first.target.name}) and {other.folder} ({other.target.name}) cannot be merged: their "
                f"targets are different classifiers ({key}: {a} and {b}). Merge the runs of each target by themselves"
            )
        raise RecipeError(
            f"{first.folder} and {other.folder} cannot be merged: {key} is {_said(a)} in the first and {_said(b)} in the "
            "second. Runs that are merged have to agree in search.rank, in search.unlike, in niches and in how a genome is "
            f"drawn; leave one out, or search again with the other's {key}"
        )


def _same_genome(genome_id: GenomeId, a: QuarantinedGenome, b: QuarantinedGenome, folder: Path) -> QuarantinedGenome:
    """The quarantined genome that two runs have."""
    if (a.batch, a.genome) != (b.batch, b.genome):
        raise copies_differ(genome_id, [folder])
    return QuarantinedGenome(a.batch, max(a.mother, b.mother), max(a.father, b.father), a.genome, max(a.reason, b.reason))


def copies_differ(genome_id: GenomeId, folders: Sequence[Path]) -> StoreError:
    return StoreError(
        f"{' and '.join(map(str, folders))}: copies of one run (id {genome_id.run}) have gone different ways, and birth "
        f"{genome_id.birth} is not the same genome in all of them. Merge one of the copies only"
    )


def _said(value: object) -> str:
    """A value of a recipe in an error."""
    return "not given" if value is None else repr(value)
