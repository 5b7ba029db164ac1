"""Runs that no search makes: those of baselines, units and polishing. Their files are read like those of searches.

meta.attack has the plan that such a run was made by, and how much of it is done.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from evofool.ascend.loop import AscentResult
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.images import encode_png, is_large
from evofool.machine import machine
from evofool.recipe import Recipe
from evofool.run.drift_marks import DriftMarks
from evofool.run.meta import AttackState, PositionRecord, RunMeta, Seeds, SurrogatesRecord, TargetRecord
from evofool.run.reader import FILE
from evofool.run.schema import Checkpoint, GenomeId, ImprovementRow, MetricsRow, NewElite
from evofool.run.store import Store
from evofool.run.surrogate_record import refuse_other_surrogates
from evofool.search.records import CellChange, Offspring
from evofool.targets import Target
from evofool.targets.validation import validate

_DERIVED = ("group", "microbatch", "chunk")  # settings that follow from the others unless given


class Image(NamedTuple):
    """An image that wins a cell, with its float32 scores."""

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


def open_attack(
    folder: Path,
    target: Target,
    recipe: Recipe,
    plan: Mapping[str, Any],
    chunk: int,
    seeds: Seeds | None = None,
    surrogates: SurrogatesRecord | None = None,
) -> tuple[Store, AttackState]:
    """The file of a run that follows this plan, created or, if the folder has it already, opened; and its state.

    seeds: of a new file, the genomes that images come from; the first commit has to have them. surrogates: the ones that a
    new file names. StoreError, RecipeError or TargetError if folder has anything else, or if the target is invalid.
    """
    queries_before = 0 if target.counts_persist else target.queries
    if (folder / FILE).exists():
        store = Store.open(folder, write=True)
        try:
            meta = store.meta()
            if meta.committed or meta.attack is None:
                state = _resumed_state(meta, folder, target, plan, queries_before)
                refuse_other_surrogates(surrogates, meta.surrogates, folder)
                return store, state
        except BaseException:
            store.close(failed=True)
            raise
        store.withdraw()  # killed before anything was saved: begin again
    validation = validate(target, chunk, folder)
    if validation.position is None:
        raise TargetError(f"{target.name}: " + "; ".join(validation.faults))
    state = AttackState(plan=dict(plan), queries_before=queries_before)
    meta = RunMeta(
        id=uuid4().hex,
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        target=TargetRecord(**target.description()),
        machine=machine(recipe.compute.threads),
        position=PositionRecord(**validation.position.to_dict()),
        warnings=[*target.details.get("notes", ()), *validation.notes],
        seeds=seeds,
        attack=state,
        surrogates=surrogates,
    )
    return Store.create(folder, meta), state


def _resumed_state(meta: RunMeta, folder: Path, target: Target, plan: Mapping[str, Any], queries_before: int) -> AttackState:
    state = meta.attack
    if state is None:
        raise StoreError(f"{folder} holds another kind of run; pass another --out")
    if meta.target.fingerprint != target.fingerprint():
        raise TargetError(
            f"{folder} was begun with {meta.target.name}, and {target.name} is another classifier (labels, "
            "preprocessing or weights differ); pass another --out"
        )
    began, wanted = _flat(state.plan), _flat(plan)
    # The method is named first, since of another one all settings differ; those that follow from others are named last.
    for key in ["method", *sorted({*wanted, *began} - {"method", *_DERIVED}), *_DERIVED]:
        if began.get(key) != wanted.get(key):
            raise RecipeError(
                f"{folder} was begun with {key} = {_short(began.get(key))}, not {_short(wanted.get(key))}; "
                "pass another --out"
            )
    return state.model_copy(update={"queries_before": 0 if target.counts_persist else queries_before - meta.answers})


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    """plan, with its settings at the same level."""
    return {**{k: v for k, v in plan.items() if k != "settings"}, **plan.get("settings", {})}


@dataclass(frozen=True)
class ImageGroup:
    """What a group of classes, elites or units adds to the run's file when it is done."""

    images: Sequence[Image]
    method: str  # that made the images
    metrics: Sequence[tuple[int, Mapping[str, Any]]] = ()  # numbered; a row replaces an older one of its number
    improvements: Sequence[ImprovementRow] = ()
    seeds: Sequence[Seed] = ()  # genomes that the images come from
    origins: Mapping[int, GenomeId] = field(default_factory=dict)  # by birth, where seeds come from
    originals: Sequence[Image] = ()  # images of seeds, which win their cells before `images` do
    niches: int = 1  # of a class
    surrogates: SurrogatesRecord | None = None  # the new record, where there is one

    def cell(self, image: Image) -> int:
        return image.class_id * self.niches + image.niche


def commit(
    store: Store, state: AttackState, group: ImageGroup, seconds: float, finished: str | None, target: Target
) -> None:
    """One checkpoint: the images of group win their cells, and state replaces the old one.

    seconds are added to the run's. A black box is checked before the last one; DriftError if it does not agree.
    """
    meta = store.meta()
    batch = meta.committed
    marks = DriftMarks(target, None, meta, store.path.parent)
    marks.end(batch + 1, finished)
    marks.note(batch + 1)
    images = [*group.originals, *group.images]
    changes = [CellChange(group.cell(i), i.birth, batch, i.log_odds, i.margin, False) for i in images]
    elites = [
        NewElite(i.class_id, i.niche, cell, i.birth, (i.log_odds, i.margin) * 2, encode_png(i.pixels), i.pixels[0].size)
        for cell, i in {group.cell(i): i for i in images}.items()
    ]
    total = meta.seconds + seconds
    made = {i.birth: Offspring(i.birth, batch, i.mother, -1, i.genome, 0) for i in group.images}
    store.save(
        Checkpoint(
            state={
                "attack": state,
                "committed": batch + 1,
                "shown": batch + 1,
                "shown_changes": meta.shown_changes + len(changes),
                "last_progress": batch,
                "seconds": total,
                "finished": finished,
                "answers": target.queries - state.queries_before,
                **({"surrogates": group.surrogates} if group.surrogates else {}),
                **marks.state(),
            },
            genomes=[*(Offspring(s.birth, batch, -1, -1, s.genome, 0) for s in group.seeds), *made.values()],
            cell_history=changes,
            elites=elites,
            metrics=[MetricsRow(number, total, row) for number, row in group.metrics],
            methods={**{s.birth: s.method for s in group.seeds}, **dict.fromkeys(made, group.method)},
            improvements=group.improvements,
            origins=group.origins,
        )
    )


def mark_drift(store: Store, target: Target, error: BaseException | None) -> None:
    """If a drift stopped the run, mark the elites since the target last agreed with its first answers, and say so in it."""
    meta = store.meta()
    marks = DriftMarks(target, None, meta, store.path.parent)
    if marks.stopped(error, meta.committed, np.array([elite.batch for elite in store.elites()], np.int64)):
        store.save(Checkpoint(state=marks.state(), genomes=(), cell_history=(), elites=(), metrics=()))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def chunk_of(target: Target) -> int:
    """The default number of images in a forward pass."""
    return 16 if is_large(target.shape) else 64


def metrics_row(p: np.ndarray, gen: int, evaluations: int, distinct: int) -> dict[str, Any]:
    """A row like a search's (evolve.statistics) of the classes' confidences p (K,), 0 where a class has no image."""
    quantiles = {n: float(np.quantile(p, q)) for n, q in (("median", 0.5), ("q25", 0.25), ("q75", 0.75), ("min", 0))}
    levels = {name: int((p >= level).sum()) for name, level in (("at_99", 0.99), ("at_9999", 0.9999))}
    counts = {"gen": gen, "nevals": evaluations, "evaluations": evaluations, "distinct": distinct, "wins": 0, "switches": 0}
    return {**counts, **quantiles, **levels}


def close_attack(store: Store, state: AttackState, failed: bool = False) -> None:
    """Close the file; if nothing was saved, delete it."""
    if state.done:
        store.close(failed)
    else:
        store.withdraw()


def float32_logits(target: Target, images: np.ndarray, chunk: int) -> np.ndarray:
    """(n, K) float32: the target's float32 logits, chunk images at a time."""
    parts = [target.logits(images[at : at + chunk], chunk) for at in range(0, len(images), chunk)]
    return np.concatenate(parts)


def improvement_rows(result: AscentResult, cells: Sequence[int], sound: np.ndarray) -> list[ImprovementRow]:
    """Rows of Store.improvements(): each time that an item's image came out better, and where its ascent ended.

    cells: (n,) of the items. sound: (n,) bool; an item that is not sound has no image, so only its end has a row.
    """
    rows = []
    best = dict.fromkeys(range(len(cells)), (-math.inf, -math.inf))
    for found in result.improvements:
        if sound[found.item]:
            best[found.item] = found.score, found.secondary
            rows.append(ImprovementRow(cells[found.item], found.forwards, found.backwards, *best[found.item]))
    ends = [
        ImprovementRow(cells[k], int(result.forwards[k]), int(result.backwards[k]), *scores) for k, scores in best.items()
    ]
    return rows + ends
