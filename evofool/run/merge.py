"""Runs of one target merged into one: the best elite of each cell, with all of its ancestors.

Independent searches can make more evaluations than one process can commit. Merging is a set union with a maximum for each
cell: the order, grouping and repetition of the merged runs do not change the archive.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

from evofool.errors import StoreError
from evofool.recipe import parse
from evofool.run.merge_parts import BestElite, QuarantinedGenome, SourceRun, copies_differ, read_runs
from evofool.run.meta import MergedSource, PositionRecord, RunMeta, UnlikeRecord
from evofool.run.reader import FILE
from evofool.run.schema import Checkpoint, GenomeId, NewElite, QuarantineRow
from evofool.run.store import Store
from evofool.search.records import CellChange, Offspring

_NOT_WRITTEN = "could not be written and nothing of it is left; the runs that were to be merged are as they were"


@dataclass(frozen=True)
class Source:
    """One search that went into a merged run."""

    id: str
    name: str
    folder: Path  # where it was read
    own_folder: bool  # the folder is that of the search, not of a merged run
    evaluations: int
    cells: int  # whose elites it made


@dataclass(frozen=True)
class Merged:
    """The outcome of a merge. sources are in the order in which they were first read."""

    folder: Path
    sources: tuple[Source, ...]
    cells: int  # that have an elite
    evaluations: int  # of all sources


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Write the run `out` with the best elite of each cell of these runs, and all ancestors of these.

    Elites are those of each run's last whole checkpoint. They are compared by float32 log-odds, or by margin if the recipes
    rank by it; ties go to the lower (run id, birth). A merged run counts as the runs that it was merged from. If two
    states of one run are given, both are merged, and the evaluations of the later one count. Births are numbered anew, by
    (run id, birth in that run); Store.origins() has these. Runs that are still going on can be merged.

    StoreError, TargetError or RecipeError if a run is missing or damaged, if the runs differ in classifier, rank, niches or
    in how a genome is drawn, if two copies of one run have different genomes of one birth, or if out exists. Then nothing
    is written.
    """
    if not folders:
        raise StoreError("there is nothing to merge: name at least one run")
    _refuse_out(folders, out)
    runs, best_elites, quarantine = read_runs(folders)
    lines = _descent(runs, best_elites)
    number = {genome_id: birth for birth, genome_id in enumerate(sorted(lines.keys() | quarantine.keys()))}
    meta, state = _description(runs, out)
    cell_history = _cell_history(lines, best_elites, number)
    checkpoint = Checkpoint(
        state={**state, "shown_changes": len(cell_history)},
        genomes=_genomes(runs, lines, number),
        cell_history=cell_history,
        elites=[_elite(best, number) for _, best in sorted(best_elites.items())],
        metrics=(),
        quarantine=[_quarantine_row(genome_id, row, number) for genome_id, row in sorted(quarantine.items())],
        methods=_methods(runs, lines, number),
        origins={birth: genome_id for genome_id, birth in number.items()},
    )
    _write(out, meta, checkpoint, runs[0].decoder)
    held = Counter(best.genome_id.run for best in best_elites.values())
    sources = [
        Source(id_, entry.recipe["name"], run.folder, not run.origins, entry.evaluations, held[id_])
        for id_, (entry, run) in _latest_sources(runs).items()
    ]
    return Merged(out, tuple(sources), len(best_elites), sum(source.evaluations for source in sources))


# -- descent


@dataclass
class _Line:
    """A genome that is kept: its parents, the cells that it won, and the folders that have it."""

    batch: int
    mother: int  # births in the run that made it, -1 for none
    father: int
    changes: list[CellChange]  # the cells that it won; birth is the one in that run
    copies: list[tuple[int, int]]  # (index of the folder, birth in its file)


def _descent(runs: Sequence[SourceRun], best_elites: dict[int, BestElite]) -> dict[GenomeId, _Line]:
    """The best_elites and all of their ancestors. A genome that several folders have has to be the same in all of them."""
    lines: dict[GenomeId, _Line] = {}
    for index, run in enumerate(runs):
        births = {best.row.birth for best in best_elites.values() if best.run_index == index}
        if not births:
            continue
        with Store.open(run.folder) as store:
            for birth, parents in store.ancestry(births).items():
                genome_id = run.id_of(birth)
                changes = [change._replace(birth=genome_id.birth) for change in store.cell_history(birth)]
                if any(change.cell not in best_elites for change in changes):
                    raise StoreError(
                        f"{run.folder} is damaged: an elite is missing; evofool verify {run.folder} says more. "
                        "Leave this run out"
                    )
                mother, father = run.source_birth(parents.mother), run.source_birth(parents.father)
                line = _Line(parents.batch, mother, father, changes, [(index, birth)])
                known = lines.setdefault(genome_id, line)
                if known is line:
                    continue
                known.copies.append((index, birth))
                if replace(line, copies=known.copies) != known:
                    raise copies_differ(genome_id, [runs[index].folder for index, _ in known.copies])
    return lines


def _methods(runs: Sequence[SourceRun], lines: dict[GenomeId, _Line], number: dict[GenomeId, int]) -> dict[int, str]:
    """By birth, what made the genomes that variation did not make."""
    found: dict[int, str] = {}
    for run in runs:
        with Store.open(run.folder) as store:
            for birth, method in store.methods().items():
                if run.id_of(birth) in lines:
                    found[number[run.id_of(birth)]] = method
    return dict(sorted(found.items()))


def _genomes(runs: Sequence[SourceRun], lines: dict[GenomeId, _Line], number: dict[GenomeId, int]) -> Iterator[Offspring]:
    """The genomes, read one by one: large ones would not all fit into memory.

    A genome that is stored as a difference is copied as it is, because its mother is kept too.
    """
    for run, ids in groupby(sorted(lines), key=lambda genome_id: genome_id.run):
        of_run = list(ids)
        indices = {index for genome_id in of_run for index, _ in lines[genome_id].copies}
        with contextlib.ExitStack() as stack:
            stores = {index: stack.enter_context(Store.open(runs[index].folder)) for index in indices}
            for genome_id in of_run:
                line = lines[genome_id]
                found = {stores[index].stored(birth) for index, birth in line.copies}
                # Different bytes may be the same genome: another version of zlib may have compressed it.
                if len(found) > 1 and len({stores[p].genomes([birth])[birth] for p, birth in line.copies}) > 1:
                    raise copies_differ(genome_id, [runs[index].folder for index, _ in line.copies])
                mother, father = (number[GenomeId(run, b)] if b >= 0 else -1 for b in (line.mother, line.father))
                yield Offspring(number[genome_id], line.batch, mother, father, *min(found))


# -- what is written


def _cell_history(
    lines: dict[GenomeId, _Line], best_elites: dict[int, BestElite], number: dict[GenomeId, int]
) -> list[CellChange]:
    """The changes of cells by the genomes that are kept, by birth and cell; the last one of a cell is by its elite."""
    changes = [change._replace(birth=number[genome_id]) for genome_id, line in lines.items() for change in line.changes]
    return sorted(changes, key=lambda c: (number[best_elites[c.cell].genome_id] == c.birth, c.birth, c.cell))


def _elite(best: BestElite, number: dict[GenomeId, int]) -> NewElite:
    row = best.row
    return NewElite(
        class_id=row.class_id,
        niche=row.niche,
        cell=row.cell,
        birth=number[best.genome_id],
        scores=(row.log_odds, row.margin, row.search_log_odds, row.search_margin),
        png=row.png,
        pixels=best.pixels,
        image_metrics=row.image_metrics,
    )


def _quarantine_row(genome_id: GenomeId, row: QuarantinedGenome, number: dict[GenomeId, int]) -> QuarantineRow:
    """Parents are kept where they are ancestors of an elite."""
    mother, father = (number.get(GenomeId(genome_id.run, birth), -1) for birth in (row.mother, row.father))
    return QuarantineRow(number[genome_id], row.batch, mother, father, row.genome, row.reason)


def _latest_sources(runs: Sequence[SourceRun]) -> dict[str, tuple[MergedSource, SourceRun]]:
    """By id every source, with the folder that has it; if there are two states of one, the later."""
    sources: dict[str, tuple[MergedSource, SourceRun]] = {}

    def progress(source: MergedSource) -> tuple[Any, ...]:
        return source.evaluations, source.seconds, source.answers, json.dumps(source.model_dump(), sort_keys=True)

    for run in runs:
        for source in run.sources:
            known = sources.setdefault(source.id, (source, run))
            if progress(source) > progress(known[0]):
                sources[source.id] = source, run
    return sources


def _description(runs: Sequence[SourceRun], out: Path) -> tuple[RunMeta, dict[str, Any]]:
    """The meta of the merged run, and the changes of it that are written together with the elites."""
    sources = [source for _, (source, _) in sorted(_latest_sources(runs).items())]
    first = sources[0]
    recipe = {**first.recipe, "name": out.resolve().name}
    recipes = [parse(source.recipe, f"the recipe of run {source.id}") for source in sources]
    parse(recipe, f"{out}: a run's name is its folder's")
    # Scores can be expected to be equal to the bit only if one kind of machine scored them, in chunks of one size.
    kinds: dict[str, dict[str, Any]] = {}
    for source, parsed in zip(sources, recipes, strict=True):
        kind = {**source.machine, "device": source.device, "backend": source.backend, "chunk": parsed.chunk}
        kinds[json.dumps(kind, sort_keys=True)] = kind
    meta = RunMeta(
        id=uuid4().hex,
        merged=sources,
        recipe=recipe,
        target=min(runs, key=lambda run: run.sources[0].id).target,
        machine=first.machine if len(kinds) == 1 else {"several kinds": [kinds[kind] for kind in sorted(kinds)]},
        position=_position([source.position for source in sources]),
        unlike=_unlike([source.unlike for source in sources if source.unlike]),
    )
    batches = sum(source.evaluations // parsed.search.batch for source, parsed in zip(sources, recipes, strict=True))
    state = {
        "committed": batches,
        "shown": batches,
        "seconds": sum(source.seconds for source in sources),
        "answers": sum(source.answers for source in sources),
        "finished": f"merged from {len(sources)} run{'s' if len(sources) > 1 else ''}",
        "references": _references(runs),
    }
    return meta, state


def _unlike(records: Sequence[UnlikeRecord]) -> UnlikeRecord | None:
    """One with what all sources turned away; they compared with the same real images."""
    if not records:
        return None
    counts = zip(*(record.turned_away for record in records), strict=True)
    return records[0].model_copy(update={"turned_away": [sum(of_class) for of_class in counts]})


def _position(positions: Sequence[PositionRecord]) -> PositionRecord:
    """One that holds for the images of all sources."""
    tolerances = [position.tolerance for position in positions]
    known = [tolerance for tolerance in tolerances if tolerance is not None]
    return PositionRecord(
        chunk=positions[0].chunk,
        dependent=any(position.dependent for position in positions),
        tolerance=max(known) if len(known) == len(tolerances) else None,
    )


def _references(runs: Sequence[SourceRun]) -> dict[str, Any]:
    """What elites' images were compared with. If runs describe a key differently, the order of runs does not matter."""
    entries = [(key, details) for run in runs for key, details in run.references.items()]
    return dict(sorted(entries, key=lambda entry: (entry[0], json.dumps(entry[1], sort_keys=True)), reverse=True))


def _refuse_out(folders: Sequence[Path], out: Path) -> None:
    homes = {(folder.parent if folder.name == FILE else folder).resolve() for folder in folders}
    if out.resolve() in homes:
        raise StoreError(f"{out} is one of the runs to be merged, and is only read; pass another --out")
    if (out / FILE).exists():
        raise StoreError(f"{out} has a run already, and a merge makes a new one; pass another --out")


def _write(out: Path, meta: RunMeta, checkpoint: Checkpoint, decoder: bytes | None) -> None:
    """The new run in out, or nothing."""
    store = Store.create(out, meta, decoder)
    try:
        store.save(checkpoint, _NOT_WRITTEN)
    except BaseException:
        store.withdraw()
        raise
    store.close()
