"""What each page of the gallery says, as values for its template."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from starlette.exceptions import HTTPException

from evofool.explain.folder import PAGE
from evofool.explain.phrases import confidence_text, signed, three_decimals
from evofool.gallery.catalogue import Entry
from evofool.gallery.grid import SORTS, WORDS, View, drawn, side_of, tiles
from evofool.gallery.levels import LEVELS, level_of
from evofool.gallery.live import standing
from evofool.gallery.open_runs import OpenRun
from evofool.gallery.thumbnails import SIDES
from evofool.image_metrics.names import HAS_OWN_SHAPE
from evofool.run.lineage import ancestors
from evofool.run.schema import IMAGE_METRICS, EliteKey
from evofool.run.stored import ListedElite
from evofool.targets.redaction import public_name, without_folders
from evofool.text import visible

_LONGEST_LINE = 400  # ancestors on the page of a descent: the first one, and the last ones
_SHORTEST_LINE = 6  # the same in a copy of a large run
COPIED_PIXELS = 4_000_000
"""Of a run in a copy: pixels of earlier images, over all cells, and as many of its replay."""


_FILTERS: dict[str, Callable[[Any], str]] = {
    "visible": visible,
    "thousands": lambda number: f"{number:,}",
    "confidence": confidence_text,
    "three_decimals": three_decimals,
    "signed": signed,
}


def filters(static: bool) -> dict[str, Callable[[Any], str]]:
    """Of the templates. static: names of targets and messages are without the folders of this machine."""
    public: dict[str, Callable[[Any], str]] = {"target_name": public_name, "told": without_folders}
    return _FILTERS | (public if static else dict.fromkeys(public, str))


def earlier_shown(run: OpenRun, static: bool) -> int:
    """How many earlier elites of a cell, or ancestors of an image, a page shows; in a copy of a large run fewer."""
    if not static:
        return _LONGEST_LINE
    _, height, width = run.stored.shape
    return max(_SHORTEST_LINE, min(_LONGEST_LINE, COPIED_PIXELS // (height * width * max(1, len(run.keys)))))


@dataclass(frozen=True)
class ListedRun:
    """A run on the first page. words: that it is found by, in lower case. fault: why it cannot be read, or ""."""

    entry: Entry
    target: str = ""
    encoding: str = ""
    kind: str = ""
    seed: int = 0
    standing: Mapping[str, Any] | None = None
    preview: Sequence[str] = ()
    fault: str = ""

    @property
    def words(self) -> str:
        return f"{self.entry.name} {self.target} {self.encoding} {self.kind}".lower()


def listed_run(run: OpenRun, entry: Entry) -> ListedRun:
    recipe, meta = run.stored.recipe, run.stored.meta
    best = sorted(run.keys.values(), key=lambda key: -key.log_odds)[:6]
    return ListedRun(
        entry,
        meta.target.name,
        encoding_of(run),
        kind_of(run),
        recipe.search.seed,
        standing(run),
        [f"/run/{entry.id}/elite/{key.birth}-{key.sha256}.png?side=56" for key in best],
    )


def faulty_run(entry: Entry, fault: str) -> ListedRun:
    return ListedRun(entry, fault=fault)


def kind_of(run: OpenRun) -> str:
    """What made a run: "search", "merged", or the method of an attack."""
    meta = run.stored.meta
    if meta.merged is not None:
        return "merged"
    return "search" if meta.attack is None else str(meta.attack.plan.get("method", "attack"))


def encoding_of(run: OpenRun) -> str:
    return "" if run.stored.meta.attack is not None else str(run.stored.recipe.encoding.kind)


def head(run: OpenRun, entry: Entry) -> dict[str, Any]:
    """What the head of every page of a run says."""
    meta = run.stored.meta
    return {
        "entry": entry,
        "target": meta.target.name,
        "kind": kind_of(run),
        "encoding": encoding_of(run),
        "seed": run.stored.recipe.search.seed,
        "standing": standing(run),
        "warnings": meta.warnings,
        "shape": run.stored.shape,
    }


def grid_page(run: OpenRun, entry: Entry, view: View) -> dict[str, Any]:
    found = tiles(run, view)
    history = run.history
    return {
        **head(run, entry),
        "tiles": found,
        "view": view,
        "sorts": SORTS,
        "words": WORDS,
        "asked": bool(run.verdicts),
        "levels": LEVELS,
        "sides": SIDES,
        "side": side_of(run, view),
        "niches": run.stored.niches,
        "classes": len(run.stored.classes),
        "replayable": history is not None,
        "why_not": "" if history is not None else _no_history(run),
        "batch": run.stored.recipe.search.batch,
        "last": run.stored.evaluations,
    }


def places_at(run: OpenRun, view: View) -> dict[str, Any]:
    """The tiles of a grid after some evaluations, as JSON: by cell its picture, confidence and level."""
    if run.history is None:
        raise HTTPException(404, _no_history(run))
    side = side_of(run, view)
    now = run.history.at(run.stored.evaluations if view.at is None else view.at)
    return {
        "places": {
            str(cell): [drawn(place, side), confidence_text(place.log_odds), level_of(place.log_odds)]
            for cell, place in now.items()
        },
    }


def _no_history(run: OpenRun) -> str:
    what = "It was merged from several runs" if run.stored.meta.merged is not None else "An attack made it, not a search"
    return f"{what}, so there is no archive as of earlier evaluations."


def elite_of(run: OpenRun, cell: int) -> ListedElite:
    """The elite of a cell; HTTPException if there is none."""
    found = next((elite for elite in run.listed if elite.row.cell == cell), None)
    if found is None:
        raise HTTPException(404, "This class has no image yet.")
    return found


def explained_birth(entry: Entry) -> int | None:
    """The birth of the elite that an explanation is of, as its page says it; None if it says none."""
    try:
        page = (entry.folder / PAGE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"elite of class \d+ of [^<]*, birth (\d{1,15})\b", page)
    return int(found[1]) if found else None


def evolvable(run: OpenRun) -> int:
    """The evaluations of a search so far; HTTPException for a run that cannot go on."""
    if not run.stored.meta.searched:
        raise HTTPException(400, "Only a search can go on: this run was merged, or made by an attack.")
    return run.stored.evaluations


def cell_page(run: OpenRun, entry: Entry, cell: int, explanations: Sequence[Entry], static: bool = False) -> dict[str, Any]:
    cells, found = [elite.row.cell for elite in run.listed], elite_of(run, cell)
    of_class = (elite for elite in run.listed if elite.row.class_id == found.row.class_id)
    best = max(of_class, key=lambda elite: elite.row.log_odds)
    place, row, store = cells.index(cell), found.row, run.stored.store
    metrics = {metric.name: metric.value for metric in row.image_metrics}
    graph_text = "" if encoding_of(run) != "cppn" else _graph_text(run.genome_json(row.birth))
    replaced = run.history.of_cell(cell) if run.history is not None else []
    held = [change for change in store.cell_history(row.birth) if change.cell != cell]
    return {
        **head(run, entry),
        "elite": found,
        "row": row,
        "level": level_of(row.log_odds),
        "before": cells[place - 1] if place else None,
        "after": cells[place + 1] if place + 1 < len(cells) else None,
        "position": (place + 1, len(cells)),
        "metrics": [(name, metrics[name]) for name in IMAGE_METRICS if name in metrics and name != HAS_OWN_SHAPE],
        "graph_text": graph_text,
        "people": verdict.with_counts(run.stored.labels) if (verdict := run.verdicts.get(row.cell)) else "",
        "shaped": metrics.get(HAS_OWN_SHAPE) == 1,
        "replaced": replaced[-earlier_shown(run, static) :],
        "replacements": len(replaced),
        "best_of_class": found.row.cell == best.row.cell,
        "also": sorted({run.stored.labels[change.cell // run.stored.niches] for change in held}),
        "explanations": [(one, birth) for one in explanations for birth in [explained_birth(one)] if birth is not None]
        if found.row.cell == best.row.cell
        else [],
        "niches": run.stored.niches,
        "bigger": encoding_of(run) in ("cppn", "canvas"),
        "factor": max(1, 448 // max(run.stored.shape[1:])),
    }


def _graph_text(genome: Mapping[str, Any]) -> str:
    """The graph of a CPPN in a sentence, for people who do not see its drawing."""
    nodes, edges = genome.get("nodes", []), genome.get("edges", [])
    return f"A network of {len(nodes)} nodes and {len(edges)} edges that computes each pixel from its place."


def graph(run: OpenRun, birth: int) -> str:
    """The drawing of a CPPN, as SVG."""
    from evofool.pages.graph import graph_svg

    if encoding_of(run) != "cppn":
        raise HTTPException(404, "Only CPPNs are graphs.")
    return graph_svg(run.genome_json(birth))


def descent_page(run: OpenRun, entry: Entry, birth: int, static: bool = False) -> dict[str, Any]:
    run.genome_json(birth)  # LookupError for one that was never an elite
    line = ancestors(run.stored, birth)
    labels = run.stored.labels
    steps = [
        {
            "birth": one.birth,
            "mother": one.mother,
            "father": one.father,
            "held": ", ".join(labels[c] for c in one.held),
            "runner_up": ", ".join(labels[c] for c in one.runner_up),
            "switched": one.switched,
            "method": one.method,
        }
        for one in line
    ]
    most = earlier_shown(run, static)
    left_out = max(0, len(steps) - most)
    if left_out:
        steps = [steps[0], *steps[-(most - 1) :]]
    current = [elite for elite in run.listed if elite.row.birth == birth]
    return {
        **head(run, entry),
        "steps": steps,
        "left_out": left_out,
        "birth": birth,
        "switches": sum(one.switched for one in line),
        "current": current,
        "factor": max(1, 336 // max(run.stored.shape[1:])),
    }


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison. best: by class its best elite. width: of its images."""

    entry: Entry
    target: str
    fingerprint: str
    labels: Sequence[str]
    kind: str
    evaluations: int
    best: Mapping[int, EliteKey]
    width: int


class ComparedClass(NamedTuple):
    """A class of a comparison: its best elite in either run."""

    label: str
    a: EliteKey | None
    b: EliteKey | None

    @property
    def difference(self) -> float | None:
        """How far the second one's log-odds are above the first one's; None where one is missing."""
        return self.b.log_odds - self.a.log_odds if self.a and self.b else None


def compared_run(run: OpenRun, entry: Entry) -> ComparedRun:
    best: dict[int, EliteKey] = {}
    for key in run.keys.values():
        class_id = key.cell // run.stored.niches
        if class_id not in best or key.log_odds > best[class_id].log_odds:
            best[class_id] = key
    target = run.stored.meta.target
    kind = encoding_of(run) or kind_of(run)
    return ComparedRun(
        entry, target.name, target.fingerprint, target.labels, kind, run.stored.evaluations, best, run.stored.shape[2]
    )


def compare_page(a: ComparedRun, b: ComparedRun, by_difference: bool) -> dict[str, Any]:
    """The best images of two runs, class by class. HTTPException for runs against different targets."""
    if a.fingerprint != b.fingerprint:
        raise HTTPException(
            400,
            f"{a.entry.name} and {b.entry.name} cannot be compared: they were made against different targets "
            f"({a.target} and {b.target}, or the same name with other weights), so their scores do not mean the same.",
        )
    rows = [ComparedClass(a.labels[c], a.best.get(c), b.best.get(c)) for c in sorted({*a.best, *b.best})]
    if by_difference:
        rows.sort(key=lambda row: -abs(row.difference or 0.0))
    differences = [row.difference for row in rows if row.difference is not None]
    return {
        "a": a,
        "b": b,
        "rows": rows,
        "by_difference": by_difference,
        "side": 112,
        "median": float(np.median(differences)) if differences else None,
        "higher": sum(d > 0 for d in differences),
        "both": len(differences),
    }
