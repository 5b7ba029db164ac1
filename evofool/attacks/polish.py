"""Elites climbed on from by gradient: a run out of another's, where the better images take the places of their originals."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.evened import EvenedWeights
from evofool.ascend.hooks import Read, refused
from evofool.ascend.loop import AscentResult, Tick, ascend, to_uint8
from evofool.ascend.objectives import Objective
from evofool.ascend.params import Param, Pixels
from evofool.ascend.rules import APGD
from evofool.attacks.run import AttackProgress, side_by_side, ticking
from evofool.descriptors import DESCRIPTORS, Descriptor, bins
from evofool.errors import RecipeError, StoreError
from evofool.images import is_large
from evofool.machine import torch_threads
from evofool.recipe import ComputePart, DirectPart, Recipe, StopPart
from evofool.run.imported import Image, Seed, climbed, commit, let_go, opened, plain
from evofool.run.schema import GenomeId
from evofool.run.seeding import Seeds
from evofool.run.store import Store
from evofool.run.stored import Elite, StoredRun
from evofool.scores import log_odds, margin
from evofool.targets import Target
from genomes import CPPN, Encoding
from genomes.cppn.complete import complete

METHOD = "polish"
BY = ("weights", "pixels")
_BUDGET = {"weights": 17, "pixels": 17}  # forward passes an elite
_RATE = {"weights": 0.003, "pixels": 2 / 255}
_GROUP = 64  # elites at most that are kept together
_GROUP_BYTES = 1 << 29  # and what their states may take, at about ten tensors of an image's size each


@dataclass(frozen=True)
class PolishPlan:
    """What is polished, and how: everything that decides the bits of the new run, and is stored with it.

    run and elites tell which elites they were (the run's id; a hash). budget: forward passes for each. group elites climb
    side by side; the rest as in ascend.
    """

    run: str
    elites: str
    by: str
    classes: tuple[int, ...]
    budget: int
    rate: float
    grow: bool
    group: int
    microbatch: int
    chunk: int
    threads: int
    method: str = METHOD


@dataclass(frozen=True)
class PolishOutcome:
    """How far polishing came."""

    elites: int
    before: np.ndarray  # (done,) float64, log-odds of the elites that are done, by cell
    after: np.ndarray  # (done,) of what holds their cells now
    polished: int  # elites that a better image took the place of
    forwards: int
    backwards: int
    notes: tuple[str, ...]


def polish(
    folder: Path,
    out: Path,
    target: Target | None = None,
    *,
    by: str = "",
    classes: Sequence[int] = (),
    budget: int = 0,
    rate: float = 0.0,
    grow: bool = True,
    threads: int = 0,
    streams: int = 0,
    trust: bool = False,
    begun: Callable[[PolishPlan, int, int], None] = lambda plan, done, elites: None,
    tick: Callable[[AttackProgress], bool] = lambda progress: False,
) -> PolishOutcome:
    """Climb from the elites of the run in folder, and keep what comes of it as a run in out, which may have been begun.

    Each elite of `classes` (() are all) climbs the log-odds of its class, or the margin where its run ranks by that. by
    "weights": in the weights of its CPPN, so that the image stays what a CPPN draws; "pixels": in the image itself, of any
    encoding ("": weights where there are any). A genome that holds several classes climbs for each of them apart. With
    niches every niche's elite climbs, and only images that lie in its niche count. budget: forward passes for each elite,
    each but the last with a backward one; rate: how far the first step moves pixels on [0, 1], by each weight or each pixel
    (0: chosen). grow: graphs get the edges that they could have, at weight 0, and these climb too: they hold more, and gain
    more. threads of a pass (0: as the run has).

    An image takes its elite's place if the plain network ranks it higher, rounded to 8 bits: it is made by "polish", and
    its mother is the original, which is stored too, as a seed. The others stay as they were. A group of elites is
    kept when it is done; tick(progress), called after every step, ends the work when it says so, and what the group under
    way has come to is dropped. begun(plan, elites done, elites) is called once. target defaults to the run's own (trust as
    in StoredRun.target).

    TargetError for a target without gradients; StoreError or RecipeError if the run has nothing to be polished, or out
    holds anything but this, begun before.
    """
    with StoredRun(folder) as stored:
        if out.resolve() == stored.folder.resolve():
            raise StoreError(f"{out} is the run to be polished, and is only read; pass another --out")
        source = _read(stored, by, classes)
        target = stored.own_target(target, trust)
    if target.network is None:
        raise refused(target)
    plan = _plan(source, target, classes, budget, rate, grow, threads)
    recipe = _recipe(source, plan, out)
    seeds = Seeds(source.run, len(source.births))
    store, state = opened(out, target, recipe, {**plan.__dict__, "classes": list(plan.classes)}, plan.chunk, seeds)
    notes: list[str] = list(state["notes"])
    total = len(source.elites)
    told_to_stop = False

    def heard(progress: AttackProgress) -> bool:
        nonlocal told_to_stop
        told_to_stop = tick(progress)
        return told_to_stop

    try:
        begun(plan, state["done"], total)
        began, at_first = time.perf_counter(), state
        while state["done"] < total and not told_to_stop:
            group = source.part(state["done"], plan.group)
            before = time.perf_counter()
            with torch_threads(plan.threads):
                ticked = ticking(heard, total, len(group.elites), state, at_first, began)
                climbs, genomes = _climb(group, plan, target, streams or target.streams, ticked)
                if climbs.interrupted:
                    break
                notes += [f"{group.elites[item].label}: {words}" for item, words in climbs.notes]
                state = _save(store, source, group, target, plan, climbs, genomes, state, notes, before)
        outcome = _outcome(store, state, total)
    except BaseException:
        let_go(store, state, failed=True)
        raise
    let_go(store, state)
    return outcome


# -- what is polished


@dataclass(frozen=True)
class _Source:
    """Elites that are to be polished, by cell, and what their run says of them."""

    folder: Path
    run: str
    by: str
    recipe: Recipe
    elites: Sequence[Elite]
    encoding: Encoding  # of the new run
    births: Mapping[int, int]  # by birth there, that in the new run

    def part(self, first: int, number: int) -> "_Source":
        return replace(self, elites=self.elites[first : first + number])

    def images(self) -> np.ndarray:
        """uint8 (n, C, H, W)."""
        return np.stack([elite.image for elite in self.elites])

    def packed(self) -> list[bytes]:
        """The elites' genomes, of the new run's encoding."""
        if self.by == "weights" or self.recipe.encoding.kind == "direct":
            return [elite.row.genome for elite in self.elites]
        return [self.encoding.pack(image) for image in self.images()]


def _read(stored: StoredRun, by: str, classes: Sequence[int]) -> _Source:
    folder, recipe = stored.folder, stored.recipe
    by = by or ("weights" if recipe.encoding.kind == "cppn" else "pixels")
    if by not in BY:
        raise RecipeError(f'polishing goes by {" or ".join(BY)}, not by "{by}"')
    if by == "weights" and recipe.encoding.kind != "cppn":
        raise RecipeError(f"{folder} has {recipe.encoding.kind} images, which have no weights: use --parameters pixels")
    with stored.store.snapshot():
        elites = stored.elites()
        run = str(stored.meta.get("id", ""))
    if classes:
        held = {elite.row.class_id for elite in elites}
        if missing := [c for c in classes if c not in held]:
            names = ", ".join(f"{c} ({stored.labels[c]})" for c in missing[:6])
            raise RecipeError(f"{folder} has no elite of class {names}{' ...' if len(missing) > 6 else ''} to polish")
        elites = [elite for elite in elites if elite.row.class_id in classes]
    for elite in elites:
        if elite.row.digest() != elite.row.sha256:
            raise _damaged(folder, elite, "is not what its hash says")
    births = {birth: k for k, birth in enumerate(sorted({elite.row.birth for elite in elites}))}
    part = recipe.encoding if by == "weights" or recipe.encoding.kind == "direct" else DirectPart(kind="direct")
    return _Source(folder, run, by, recipe, elites, part.build(stored.shape), births)


def _damaged(folder: Path, elite: Elite, what: str) -> StoreError:
    r = elite.row
    return StoreError(
        f"{folder}: the elite of class {r.class_id} ({elite.label}) {what}; evofool verify {folder} tells more"
    )


def _plan(
    source: _Source, target: Target, classes: Sequence[int], budget: int, rate: float, grow: bool, threads: int
) -> PolishPlan:
    if budget and budget < 2:
        raise RecipeError(
            f"a budget of {budget} forward passes is too small: one is the elite's own, and each step takes one"
        )
    if rate < 0 or not math.isfinite(rate):
        raise RecipeError(f"rate is a step's size, over 0, not {rate}")
    assert target.network is not None
    on_cpu = target.network.device.type == "cpu"
    digest = hashlib.sha256("".join(elite.row.sha256 for elite in source.elites).encode()).hexdigest()
    return PolishPlan(
        run=source.run,
        elites=f"{len(source.elites)}, SHA-256 {digest[:32]}",
        by=source.by,
        classes=tuple(sorted(set(classes))),
        budget=budget or _BUDGET[source.by],
        rate=rate or _RATE[source.by],
        grow=grow and source.by == "weights",
        group=max(1, min(_GROUP, _GROUP_BYTES // (40 * math.prod(target.shape)))),
        microbatch=(2 if is_large(target.shape) else 64) if on_cpu else 32,
        chunk=source.recipe.chunk,
        threads=threads or source.recipe.compute.threads,
    )


def _recipe(source: _Source, plan: PolishPlan, out: Path) -> Recipe:
    """The source's recipe as far as it says how genomes are drawn, images ranked and cells told apart."""
    r = source.recipe
    kept = plan.by == "weights" or r.encoding.kind == "direct"
    return Recipe(
        name=out.resolve().name or METHOD,
        target=r.target,
        encoding=r.encoding if kept else DirectPart(kind="direct"),
        search=r.search.model_copy(update={"parents": None}),
        niches=r.niches,
        stop=StopPart(evaluations=plan.budget * len(source.elites)),
        compute=ComputePart(chunk=plan.chunk, threads=plan.threads, format="float32"),
    )


# -- the climb


def _climb(group: _Source, plan: PolishPlan, target: Target, streams: int, tick: Tick) -> tuple[AscentResult, np.ndarray]:
    """The ascent of a group of elites, and the genomes that it ends with."""
    assert target.network is not None
    rows = [elite.row for elite in group.elites]
    images = group.images()
    param: Param
    if plan.by == "weights":
        assert isinstance(group.encoding, CPPN)
        genomes = group.encoding.unpack(group.packed())
        wrong = (group.encoding.render(genomes) != images).any(axis=(1, 2, 3))
        if wrong.any():
            raise _damaged(group.folder, group.elites[int(wrong.argmax())], "is not what its genome draws")
        if plan.grow:
            genomes = complete(genomes, group.encoding.channels)
        param = EvenedWeights(group.encoding, genomes, target.network.device)
    else:
        param = Pixels(torch.from_numpy(images).to(target.network.device) / 255)
    of = torch.tensor([row.class_id for row in rows])
    odds = objectives.log_odds(of)
    wanted = odds if group.recipe.search.rank == "log_odds" else objectives.margin(of)
    niches = group.recipe.niches
    select_by = wanted
    if niches:
        select_by = _inside(wanted, DESCRIPTORS[niches.descriptor], niches.edges, np.array([row.niche for row in rows]))
    climbs = ascend(
        target,
        param,
        wanted,
        rule=APGD(plan.rate),
        steps=plan.budget - 1,
        keys=[row.cell for row in rows],
        select_by=select_by,
        beside=odds,
        microbatch=plan.microbatch,
        streams=streams,
        tick=tick,
    )
    if isinstance(param, EvenedWeights):
        assert climbs.states is not None
        return climbs, param.genomes(climbs.states, torch.arange(len(rows)))
    return climbs, climbs.images


def _inside(score: Objective, descriptor: Descriptor, edges: Sequence[float], niches: np.ndarray) -> Objective:
    """score, and -inf for an image that lies in another niche than its item's of niches (n,)."""

    def judged(read: Read, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        values = score(read, images, rows)
        there = bins(descriptor(to_uint8(images.detach())), edges)
        left = torch.from_numpy(there != niches[rows.cpu().numpy()])
        return values.masked_fill(left.to(values.device), -torch.inf)

    return Objective(judged, score.layers, score.logits)


# -- what is kept


def _save(
    store: Store,
    source: _Source,
    group: _Source,
    target: Target,
    plan: PolishPlan,
    climbs: AscentResult,
    genomes: np.ndarray,
    state: Mapping[str, Any],
    notes: Sequence[str],
    before: float,
) -> dict[str, Any]:
    """Write a group that is done, in one transaction; returns the new state."""
    first, births = state["done"], source.births
    images = group.encoding.render(genomes)
    originals = group.images()
    now, then = plain(target, images, plan.chunk), plain(target, originals, plan.chunk)
    score = log_odds if source.recipe.search.rank == "log_odds" else margin
    higher, lower = score(now), score(then)
    held, better = [], []
    measured = (log_odds(then), margin(then)), (log_odds(now), margin(now))
    for k, (elite, packed) in enumerate(zip(group.elites, group.packed(), strict=True)):
        c, niche, mother = elite.row.class_id, elite.row.niche, births[elite.row.birth]
        odds, gaps = (float(m[k, c]) for m in measured[0])
        held.append(Image(mother, c, packed, originals[k], odds, gaps, niche=niche))
        if higher[k, c] > lower[k, c] and climbs.scores[k] > -np.inf:
            odds, gaps = (float(m[k, c]) for m in measured[1])
            own = group.encoding.pack(genomes[k])
            better.append(Image(len(births) + first + k, c, own, images[k], odds, gaps, mother, niche))
    cells = [elite.row.cell for elite in group.elites]
    new = climbed(climbs, cells, np.isfinite(climbs.scores))
    state = {
        **state,
        "done": first + len(group.elites),
        "forwards": state["forwards"] + int(climbs.forwards.sum()),
        "backwards": state["backwards"] + int(climbs.backwards.sum()),
        "notes": list(notes),
    }
    all_done = state["done"] == len(source.elites)
    niches = len(source.recipe.niches.edges) + 1 if source.recipe.niches else 1
    commit(
        store,
        state,
        better,
        METHOD,
        time.perf_counter() - before,
        f"all {state['done']} elites are done" if all_done else None,
        target.queries,
        # A class's niches climb apart, and a curve is of classes.
        side_by_side([*store.improvements(), *new], len(source.elites)) if niches == 1 else (),
        new,
        seeds=_seeds(source) if not first else (),
        held=held,
        origins={birth: GenomeId(source.run, original) for original, birth in births.items()} if not first else {},
        niches=niches,
    )
    return state


def _seeds(source: _Source) -> list[Seed]:
    """The originals; a genome that holds several cells is one."""
    found: dict[int, Seed] = {}
    for elite, packed in zip(source.elites, source.packed(), strict=True):
        method = "seed" if elite.row.method == "evolved" else elite.row.method
        found.setdefault(elite.row.birth, Seed(source.births[elite.row.birth], packed, method))
    return list(found.values())


def _outcome(store: Store, state: Mapping[str, Any], elites: int) -> PolishOutcome:
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    history = store.cell_history()
    for change in history:
        first.setdefault(change.cell, change.log_odds)
        last[change.cell] = change.log_odds
    cells = sorted(first)
    before, after = (np.array([values[cell] for cell in cells]) for values in (first, last))
    polished = len(history) - len(cells)
    return PolishOutcome(elites, before, after, polished, state["forwards"], state["backwards"], tuple(state["notes"]))
