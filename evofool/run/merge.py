"""Runs of one target merged into one: per cell the best elite of them all, with its whole descent.

Many searches that know nothing of one another are the way past what one driver can commit. Merging is a set union with a
maximum per cell: in whatever order, grouping or repetition runs are merged, the same archive comes out.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from evofool.errors import RecipeError, StoreError, TargetError
from evofool.recipe import drawing, parse
from evofool.run.store import FILE, Checkpoint, EliteRow, NewElite, Store
from evofool.run.stored import StoredRun

_NOT_WRITTEN = "could not be written and nothing of it is left; the runs that were to be merged are as they were"
_SOURCE = ("id", "recipe", "machine", "device", "backend", "evaluations", "seconds", "answers")
"""What meta["merged"] tells of each source. machine, device and backend say by what its elites were measured."""


class Node(NamedTuple):
    """A genome of any run: the run that made it, by id, and its birth there."""

    run: str
    birth: int


@dataclass(frozen=True)
class Source:
    """One search that went into a merged run."""

    id: str
    name: str
    folder: Path  # where it was read
    own: bool  # that folder is its own, not a merged run's
    evaluations: int
    cells: int  # that its elites hold in the merged run


@dataclass(frozen=True)
class Merged:
    """What became of a merge. sources are in the order in which they were first met."""

    folder: Path
    sources: tuple[Source, ...]
    cells: int  # that have an elite
    evaluations: int  # of all sources


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Write the run `out` that holds, of every cell, the best elite of these runs, and all that these descend from.

    Best by the measured float32 log-odds, or margin where the recipes rank by it, of the elites as of each run's last whole
    checkpoint; of equals the lower (run id, birth) wins. A merged run stands for the runs that went into it; of a run that
    is met twice, once as it was and once further on, both are merged, and the evaluations of the further one count.
    Births are numbered anew, by (run id, birth there); Store.origins() tells them. Runs that go on meanwhile may be merged.

    StoreError, TargetError or RecipeError if a run is missing or damaged, if the runs differ in classifier, rank, niches or
    in how a genome is drawn, if two copies of one run give genomes of one birth that are not the same, or if out is there
    already. Then nothing is written.
    """
    if not folders:
        raise StoreError("there is nothing to merge: name at least one run")
    _refuse_out(folders, out)
    parts, champions, quarantine = _read(folders)
    lines = _descent(parts, champions)
    number = {node: birth for birth, node in enumerate(sorted(lines.keys() | quarantine.keys()))}
    meta, state = _description(parts, out)
    cell_history = _cell_history(lines, champions, number)
    checkpoint = Checkpoint(
        state={**state, "shown_changes": len(cell_history)},
        genomes=_genomes(parts, lines, number),
        cell_history=cell_history,
        elites=[_elite(champion, number) for _, champion in sorted(champions.items())],
        metrics=(),
        quarantine=[_set_aside(node, row, number) for node, row in sorted(quarantine.items())],
        made=_made(parts, lines, number),
        origins=[(birth, node.run, node.birth) for node, birth in number.items()],
    )
    _write(out, meta, checkpoint)
    held = Counter(champion.node.run for champion in champions.values())
    sources = [
        Source(id_, entry["recipe"]["name"], part.folder, not part.origins, entry["evaluations"], held[id_])
        for id_, (entry, part) in _further(parts).items()
    ]
    return Merged(out, tuple(sources), len(champions), sum(source.evaluations for source in sources))


# -- reading


@dataclass(frozen=True)
class _Part:
    """What the merge needs to know of one of the folders."""

    folder: Path
    likeness: dict[str, Any]  # what has to be the same in all of them
    target: dict[str, Any]
    sources: list[dict[str, Any]]  # as meta["merged"] lists them, by ascending id
    origins: dict[int, tuple[str, int]]  # empty where the folder holds a search of its own
    references: dict[str, Any]  # what its elites' images were compared with

    def node(self, birth: int) -> Node:
        if not self.origins:
            return Node(self.sources[0]["id"], birth)
        if birth not in self.origins:
            raise StoreError(f"{self.folder} is damaged: it does not tell which run birth {birth} comes from")
        return Node(*self.origins[birth])

    def there(self, parent: int) -> int:
        """The birth that a parent had in its own run, which is its child's too; -1 for none."""
        return self.node(parent).birth if parent >= 0 else -1


@dataclass(frozen=True)
class _Champion:
    """An elite that holds its cell, or may come to."""

    node: Node
    part: int
    row: EliteRow
    pixels: int
    rank: str

    @property
    def place(self) -> tuple[Any, ...]:
        """The least of them wins. Copies of one elite are told apart to the last, so that no order of reading matters: the
        better measured one is before the other, one that was judged before one that was not, one of whose image more was
        found out before one of which less was."""
        r = self.row
        best, other = (r.margin, r.log_odds) if self.rank == "margin" else (r.log_odds, r.margin)
        judged = (r.verdict == "unjudged", r.verdict, r.verdict_by or "", -len(r.image_metrics), r.image_metrics)
        return (-best, self.node, -other, -r.search_log_odds, -r.search_margin, *judged)


class _Aside(NamedTuple):
    """A row of quarantine; parents as births in its own run, -1 for none and for one that a merge has left out."""

    batch: int
    mother: int
    father: int
    genome: bytes
    why: str


def _read(folders: Sequence[Path]) -> tuple[list[_Part], dict[int, _Champion], dict[Node, _Aside]]:
    """Everything but descent: the folders, the best elite of each cell, the genomes that were set aside."""
    parts: list[_Part] = []
    champions: dict[int, _Champion] = {}
    quarantine: dict[Node, _Aside] = {}
    for place, folder in enumerate(folders):
        with StoredRun(folder) as stored, stored.store.snapshot():
            part = _part(stored)
            parts.append(part)
            _refuse_unlike(parts[0], part)
            for elite in stored.elites():
                row = elite.row
                if row.digest() != row.sha256 or row.cell != row.class_id * stored.niches + row.niche:
                    raise StoreError(
                        f"{folder}: the elite of class {row.class_id} ({elite.label}) is not what its hash says; "
                        f"evofool verify {folder} tells more. Leave this run out"
                    )
                pixels = stored.encoding.height * stored.encoding.width
                champion = _Champion(part.node(row.birth), place, row, pixels, stored.recipe.search.rank)
                if row.cell not in champions or champion.place < champions[row.cell].place:
                    champions[row.cell] = champion
            for birth, batch, mother, father, genome, why in stored.store.quarantine():
                node = part.node(birth)
                row_ = _Aside(batch, part.there(mother), part.there(father), genome, why)
                quarantine[node] = _both(node, quarantine.get(node, row_), row_, folder)
    return parts, champions, quarantine


def _part(stored: StoredRun) -> _Part:
    folder, recipe = stored.folder, stored.recipe
    meta = stored.store.description()
    try:
        target = meta["target"]
        if "id" not in meta:
            raise StoreError(f"{folder} has no id to tell it from other runs: it is older than merging. Leave it out")
        likeness = {
            "labels": stored.labels,
            "shape": list(stored.shape),
            "fingerprint": target["fingerprint"],
            "search.rank": recipe.search.rank,
            "niches.descriptor": recipe.niches.descriptor if recipe.niches else None,
            "niches.edges": list(recipe.niches.edges) if recipe.niches else None,
            **drawing(stored.encoding),
        }
        if "merged" not in meta:
            source = {
                "id": meta["id"],
                "recipe": meta["recipe"],
                "machine": meta["machine"],
                "device": str(target["details"].get("device", "cpu")),
                "backend": target["details"].get("backend"),
                "evaluations": stored.elites_as_of,
                "seconds": meta["seconds"],
                "answers": meta.get("answers", 0),
            }
            return _Part(folder, likeness, target, [source], {}, stored.store.references())
        origins = stored.store.origins()
        if not origins:
            raise StoreError(f"{folder} has saved nothing: its merge was broken off. Remove it, and merge its runs again")
        sources = [{key: source[key] for key in _SOURCE} for source in meta["merged"]]
        sources.sort(key=lambda source: source["id"])
        return _Part(folder, likeness, target, sources, origins, stored.store.references())
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder} is damaged: its description lacks {error}") from None


def _refuse_unlike(one: _Part, other: _Part) -> None:
    """The error that fits if the two cannot be merged; it names the first thing that they differ in."""
    for key in [*one.likeness, *other.likeness]:
        a: Any = one.likeness.get(key)
        b: Any = other.likeness.get(key)
        if a == b:
            continue
        if key in ("labels", "shape", "fingerprint"):
            if key == "labels":
                c = next((c for c, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
                a, b = (f"{len(a)} of them", f"{len(b)}") if c is None else (f"class {c} is {a[c]!r}", f"{b[c]!r}")
            raise TargetError(
                f"{one.folder} ({one.target['name']}) and {other.folder} ({other.target['name']}) cannot be merged: their "
                f"targets are different classifiers ({key}: {a} and {b}). Merge the runs of each target by themselves"
            )
        raise RecipeError(
            f"{one.folder} and {other.folder} cannot be merged: {key} is {a!r} in the first and {b!r} in the second. Runs "
            "that are merged have to agree in search.rank, in niches and in how a genome is drawn; leave one out, or search "
            f"again with the other's {key}"
        )


def _both(node: Node, a: _Aside, b: _Aside, folder: Path) -> _Aside:
    """One row of quarantine as two runs have it."""
    if (a.batch, a.genome) != (b.batch, b.genome):
        raise _different_ways(node, [folder])
    return _Aside(a.batch, max(a.mother, b.mother), max(a.father, b.father), a.genome, max(a.why, b.why))


# -- descent


@dataclass
class _Line:
    """A genome that is kept: where it comes from, the cells that it won, and which folders have it."""

    batch: int
    mother: int  # births in its own run, -1 for none
    father: int
    cell_history: list[tuple[int, int, float, float, int]]  # cell, batch, log_odds, margin, switched
    copies: list[tuple[int, int]]  # places in the list of folders, births there


def _descent(parts: Sequence[_Part], champions: dict[int, _Champion]) -> dict[Node, _Line]:
    """The champions and all that they descend from. A genome that several folders have has to be the same in all."""
    lines: dict[Node, _Line] = {}
    for place, part in enumerate(parts):
        births = {champion.row.birth for champion in champions.values() if champion.part == place}
        if not births:
            continue
        with Store.open(part.folder) as store:
            for birth, (batch, mother, father) in store.ancestry(births).items():
                node = part.node(birth)
                cell_history = [(c, at, odds, gap, switched) for c, _, at, odds, gap, switched in store.cell_history(birth)]
                if any(cell not in champions for cell, *_ in cell_history):
                    raise StoreError(
                        f"{part.folder} is damaged: an elite is missing; evofool verify {part.folder} tells more. "
                        "Leave this run out"
                    )
                line = _Line(batch, part.there(mother), part.there(father), cell_history, [(place, birth)])
                known = lines.setdefault(node, line)
                if known is line:
                    continue
                known.copies.append((place, birth))
                if (known.batch, known.mother, known.father, known.cell_history) != (
                    batch,
                    line.mother,
                    line.father,
                    cell_history,
                ):
                    raise _different_ways(node, [parts[place].folder for place, _ in known.copies])
    return lines


def _made(parts: Sequence[_Part], lines: dict[Node, _Line], number: dict[Node, int]) -> list[tuple[int, str]]:
    """What made the genomes that no variation made."""
    found: dict[int, str] = {}
    for part in parts:
        with Store.open(part.folder) as store:
            for birth, how in store.made().items():
                if part.node(birth) in lines:
                    found[number[part.node(birth)]] = how
    return sorted(found.items())


def _different_ways(node: Node, folders: Sequence[Path]) -> StoreError:
    return StoreError(
        f"{' and '.join(map(str, folders))}: copies of one run (id {node.run}) have gone different ways, and birth "
        f"{node.birth} is not the same genome in all of them. Merge one of the copies only"
    )


def _genomes(
    parts: Sequence[_Part], lines: dict[Node, _Line], number: dict[Node, int]
) -> Iterator[tuple[int, int, int, int, bytes, int]]:
    """Rows for the store, read one by one: big pixels would not fit into memory.

    A genome that is stored as a difference is copied as it is, since its mother, whose genome it needs, is kept too.
    """
    for run, nodes in groupby(sorted(lines), key=lambda node: node.run):
        of_run = list(nodes)
        places = {place for node in of_run for place, _ in lines[node].copies}
        with contextlib.ExitStack() as stack:
            stores = {place: stack.enter_context(Store.open(parts[place].folder)) for place in places}
            for node in of_run:
                line = lines[node]
                found = {stores[place].stored(birth) for place, birth in line.copies}
                # Stored otherwise is no other genome yet: another zlib may have compressed it.
                if len(found) > 1 and len({stores[p].genomes([birth])[birth] for p, birth in line.copies}) > 1:
                    raise _different_ways(node, [parts[place].folder for place, _ in line.copies])
                mother, father = (number[Node(run, b)] if b >= 0 else -1 for b in (line.mother, line.father))
                yield number[node], line.batch, mother, father, *min(found)


# -- what is written


def _cell_history(
    lines: dict[Node, _Line], champions: dict[int, _Champion], number: dict[Node, int]
) -> list[tuple[int, int, int, float, float, int]]:
    """The cells that those that are kept won, by birth and cell; a cell's last row is that of its elite."""
    cell_history = [
        (cell, number[node], batch, log_odds, margin, switched)
        for node, line in lines.items()
        for cell, batch, log_odds, margin, switched in line.cell_history
    ]
    return sorted(cell_history, key=lambda change: (number[champions[change[0]].node] == change[1], change[1], change[0]))


def _elite(champion: _Champion, number: dict[Node, int]) -> NewElite:
    row = champion.row
    return NewElite(
        class_id=row.class_id,
        niche=row.niche,
        cell=row.cell,
        birth=number[champion.node],
        scores=(row.log_odds, row.margin, row.search_log_odds, row.search_margin),
        png=row.png,
        pixels=champion.pixels,
        verdict=row.verdict,
        verdict_by=row.verdict_by,
        image_metrics=row.image_metrics,
    )


def _set_aside(node: Node, row: _Aside, number: dict[Node, int]) -> tuple[int, int, int, int, bytes, str]:
    """Its parents are named where they are kept for an elite's sake."""
    mother, father = (number.get(Node(node.run, birth), -1) for birth in (row.mother, row.father))
    return number[node], row.batch, mother, father, row.genome, row.why


def _further(parts: Sequence[_Part]) -> dict[str, tuple[dict[str, Any], _Part]]:
    """By id every source, with the folder that has it; of one that is met twice, the one that went further."""
    sources: dict[str, tuple[dict[str, Any], _Part]] = {}

    def progress(source: dict[str, Any]) -> tuple[Any, ...]:
        return source["evaluations"], source["seconds"], source["answers"], json.dumps(source, sort_keys=True)

    for part in parts:
        for source in part.sources:
            known = sources.setdefault(source["id"], (source, part))
            if progress(source) > progress(known[0]):
                sources[source["id"]] = source, part
    return sources


def _description(parts: Sequence[_Part], out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """meta of the merged run, and what of it is written together with the elites."""
    sources = [source for _, (source, _) in sorted(_further(parts).items())]
    first = sources[0]
    recipe = {**first["recipe"], "name": out.resolve().name}
    recipes = [parse(source["recipe"], f"the recipe of run {source['id']}") for source in sources]
    parse(recipe, f"{out}: a run's name is its folder's")
    # Equal bits may be asked for only if every score was measured by one kind of machine, in passes of one size.
    kinds: dict[str, dict[str, Any]] = {}
    for source, its in zip(sources, recipes, strict=True):
        kind = {**source["machine"], "device": source["device"], "backend": source["backend"], "chunk": its.chunk}
        kinds[json.dumps(kind, sort_keys=True)] = kind
    meta = {
        "id": uuid4().hex,
        "merged": sources,
        "recipe": recipe,
        "target": min(parts, key=lambda part: part.sources[0]["id"]).target,
        "speed": None,
        "machine": first["machine"] if len(kinds) == 1 else {"several kinds": [kinds[kind] for kind in sorted(kinds)]},
        "committed": 0,
        "shown": 0,
        "shown_changes": 0,
        "last_progress": 0,
        "seconds": 0.0,
        "finished": None,
        "answers": 0,
        "warnings": [],
    }
    batches = sum(source["evaluations"] // its.search.batch for source, its in zip(sources, recipes, strict=True))
    state = {
        "committed": batches,
        "shown": batches,
        "seconds": sum(source["seconds"] for source in sources),
        "answers": sum(source["answers"] for source in sources),
        "finished": f"merged from {len(sources)} run{'s' if len(sources) > 1 else ''}",
    }
    references = _references(parts)
    return meta, state | ({"references": references} if references else {})


def _references(parts: Sequence[_Part]) -> dict[str, Any]:
    """What the elites' images were compared with; of one that runs tell differently, always the same words."""
    told = [(key, what) for part in parts for key, what in part.references.items()]
    return dict(sorted(told, key=lambda one: (one[0], json.dumps(one[1], sort_keys=True)), reverse=True))


def _refuse_out(folders: Sequence[Path], out: Path) -> None:
    homes = {(folder.parent if folder.name == FILE else folder).resolve() for folder in folders}
    if out.resolve() in homes:
        raise StoreError(f"{out} is one of the runs to be merged, and is only read; pass another --out")
    if (out / FILE).exists():
        raise StoreError(f"{out} holds a run already, and a merge makes a new one; pass another --out")


def _write(out: Path, meta: dict[str, Any], checkpoint: Checkpoint) -> None:
    """The new run in out, or nothing."""
    store = Store.create(out, meta)
    try:
        store.save(checkpoint, _NOT_WRITTEN)
    except BaseException:
        store.withdraw()
        raise
    store.close()
