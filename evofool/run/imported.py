"""A run that no search wrote: its file's description, and images committed to it, for baselines and what is like them.

Its meta has `attack`: the plan that it was made by, and how far that is done. Everything that reads a run reads it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from evofool.ascend.loop import AscentResult
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.images import encode_png, is_large
from evofool.machine import machine
from evofool.recipe import Recipe
from evofool.run.meta import AttackState, PositionRecord, RunMeta, Seeds, TargetRecord
from evofool.run.reader import FILE
from evofool.run.schema import Checkpoint, GenomeId, ImprovementRow, MetricsRow, NewElite
from evofool.run.store import Store
from evofool.search.records import CellChange, Offspring
from evofool.targets import Target
from evofool.targets.validation import validate

_CHOSEN = ("group", "microbatch", "chunk")  # each by what is before it


class Image(NamedTuple):
    """An image that is to hold a cell, measured by the plain network."""

    birth: int
    class_id: int
    genome: bytes  # packed
    pixels: np.ndarray  # uint8 (C, H, W)
    log_odds: float
    margin: float
    mother: int = -1
    niche: int = 0


class Seed(NamedTuple):
    """A genome that images come from: its birth, packed, and the method that made it."""

    birth: int
    genome: bytes
    method: str


def opened(
    folder: Path, target: Target, recipe: Recipe, plan: Mapping[str, Any], chunk: int, seeds: Seeds | None = None
) -> tuple[Store, AttackState]:
    """The run's file, made or, if this plan was begun there, gone on with; and its state.

    seeds: what a new file is to tell of the genomes that its images come from, which the first commit then has to bring.
    StoreError, RecipeError or TargetError if folder has anything else, or if a new target fails its validation.
    """
    asked = 0 if target.counts_persist else target.queries
    if (folder / FILE).exists():
        store = Store.open(folder, write=True)
        try:
            meta = store.meta()
            if meta.committed or meta.attack is None:
                return store, _going_on(meta, folder, target, plan, asked)
        except BaseException:
            store.close(failed=True)
            raise
        store.withdraw()  # killed before anything was saved: there is nothing to go on with
    validation = validate(target, chunk)
    if validation.position is None:
        raise TargetError(f"{target.name}: " + "; ".join(validation.faults))
    state = AttackState(plan=dict(plan), queries_before=asked)
    meta = RunMeta(
        id=uuid4().hex,
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        target=TargetRecord(**target.description()),
        machine=machine(recipe.compute.threads),
        position=PositionRecord(**validation.position.to_dict()),
        warnings=[*target.details.get("notes", ()), *validation.notes],
        seeds=seeds,
        attack=state,
    )
    return Store.create(folder, meta), state


def _going_on(meta: RunMeta, folder: Path, target: Target, plan: Mapping[str, Any], asked: int) -> AttackState:
    state = meta.attack
    if state is None:
        raise StoreError(f"{folder} holds another kind of run; pass another --out")
    if meta.target.fingerprint != target.fingerprint():
        raise TargetError(
            f"{folder} was begun with {meta.target.name}, and {target.name} is another classifier (labels, "
            "preprocessing or weights differ); pass another --out"
        )
    began, wanted = _flat(state.plan), _flat(plan)
    # Of another method all differs, and what is chosen by the rest is not what anybody named.
    for key in ["method", *sorted({*wanted, *began} - {"method", *_CHOSEN}), *_CHOSEN]:
        if began.get(key) != wanted.get(key):
            raise RecipeError(
                f"{folder} was begun with {key} = {_short(began.get(key))}, asked for is {_short(wanted.get(key))}; "
                "pass another --out"
            )
    return state.model_copy(update={"queries_before": 0 if target.counts_persist else asked - meta.answers})


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    """plan with its settings beside the rest."""
    return {**{k: v for k, v in plan.items() if k != "settings"}, **plan.get("settings", {})}


def commit(
    store: Store,
    state: AttackState,
    images: Sequence[Image],
    method: str,
    seconds: float,
    finished: str | None,
    answers: int,
    rows: Sequence[tuple[int, Mapping[str, Any]]] = (),
    improvements: Sequence[ImprovementRow] = (),
    seeds: Sequence[Seed] = (),
    held: Sequence[Image] = (),
    origins: Mapping[int, GenomeId] | None = None,
    niches: int = 1,
) -> None:
    """One checkpoint: images take their cells, and state takes the place of the old one.

    seconds are added to the run's. answers: target.queries by now. method: what made the images. rows: metrics, by a
    number that replaces an older row of the same. seeds: the genomes that the images come from; origins: the runs and
    births that these have elsewhere. held: images of seeds, which hold their cells before `images` do. niches: of a class.
    """
    meta = store.meta()
    batch = meta.committed
    cell = lambda i: i.class_id * niches + i.niche  # noqa: E731
    cell_history = [CellChange(cell(i), i.birth, batch, i.log_odds, i.margin, False) for i in [*held, *images]]
    elites = [
        NewElite(i.class_id, i.niche, cell(i), i.birth, (i.log_odds, i.margin) * 2, encode_png(i.pixels), i.pixels[0].size)
        for i in {cell(i): i for i in [*held, *images]}.values()
    ]
    total = meta.seconds + seconds
    own = {i.birth: Offspring(i.birth, batch, i.mother, -1, i.genome, 0) for i in images}
    store.save(
        Checkpoint(
            state={
                "attack": state,
                "committed": batch + 1,
                "shown": batch + 1,
                "shown_changes": meta.shown_changes + len(cell_history),
                "last_progress": batch,
                "seconds": total,
                "finished": finished,
                "answers": answers - state.queries_before,
            },
            genomes=[*(Offspring(s.birth, batch, -1, -1, s.genome, 0) for s in seeds), *own.values()],
            cell_history=cell_history,
            elites=elites,
            metrics=[MetricsRow(at, total, row) for at, row in rows],
            methods={**{s.birth: s.method for s in seeds}, **dict.fromkeys(own, method)},
            improvements=improvements,
            origins=origins or {},
        )
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def chunk_of(target: Target) -> int:
    """Images that are scored at once, unless something else is asked for."""
    return 16 if is_large(target.shape) else 64


def metrics_row(p: np.ndarray, gen: int, evaluations: int, distinct: int) -> dict[str, Any]:
    """A row like a search's (evolve.statistics) of the classes' confidences p (K,), 0 where a class has no image."""
    quantiles = {n: float(np.quantile(p, q)) for n, q in (("median", 0.5), ("q25", 0.25), ("q75", 0.75), ("min", 0))}
    levels = {name: int((p >= level).sum()) for name, level in (("at_99", 0.99), ("at_9999", 0.9999))}
    counts = {"gen": gen, "nevals": evaluations, "evaluations": evaluations, "distinct": distinct, "wins": 0, "switches": 0}
    return {**counts, **quantiles, **levels}


def let_go(store: Store, state: AttackState, failed: bool = False) -> None:
    """Close the file; of a run that has saved nothing, take it away."""
    if state.done:
        store.close(failed)
    else:
        store.withdraw()


def plain(target: Target, images: np.ndarray, chunk: int) -> np.ndarray:
    """(n, K) float32: what the target answers the plain way, chunk images at a time."""
    parts = [target.logits(images[at : at + chunk], chunk) for at in range(0, len(images), chunk)]
    return np.concatenate(parts)


def climbed(climbs: AscentResult, cells: Sequence[int], sound: np.ndarray) -> list[ImprovementRow]:
    """Rows of Store.improvements(): when each item's image came out better, and where its climb ended.

    cells (n,) are the items'; what is not sound (n,) has no image, and only its end.
    """
    rows = []
    best = dict.fromkeys(range(len(cells)), (-math.inf, -math.inf))
    for found in climbs.improvements:
        if sound[found.item]:
            best[found.item] = found.score, found.secondary
            rows.append(ImprovementRow(cells[found.item], found.forwards, found.backwards, *best[found.item]))
    ends = [
        ImprovementRow(cells[k], int(climbs.forwards[k]), int(climbs.backwards[k]), *scores) for k, scores in best.items()
    ]
    return rows + ends
