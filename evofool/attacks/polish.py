"""Polish a run's elites by gradient ascent, and save the better images as a new run."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.hooks import ForwardPass, no_gradients
from evofool.ascend.loop import Ascent, AscentResult, Tick, ascend, to_uint8
from evofool.ascend.objectives import Objective
from evofool.ascend.params import Param, Pixels
from evofool.ascend.rules import APGD
from evofool.ascend.scaled_weights import ScaledWeights
from evofool.ascend.surrogates import Climb, Surrogates
from evofool.attacks.session import AttackProgress, Session, metrics_rows
from evofool.attacks.surrogate_climb import climb, judge_of, record_after
from evofool.descriptors import DESCRIPTORS, Descriptor, bins
from evofool.errors import RecipeError, StoreError
from evofool.images import is_large
from evofool.machine import torch_threads
from evofool.recipe import Recipe
from evofool.recipe_encodings import DirectPart
from evofool.recipe_parts import ComputePart, StopPart
from evofool.run.attack_file import Image, ImageGroup, Seed, commit, float32_logits, improvement_rows, open_attack
from evofool.run.meta import Seeds
from evofool.run.schema import GenomeId
from evofool.run.store import Store
from evofool.run.stored import Elite, StoredRun
from evofool.run.surrogate_record import record_of
from evofool.scores import log_odds, margin
from evofool.targets import Target
from evofool.targets import target as load_target
from genomes import CPPN, Encoding, Genomes
from genomes.cppn.complete import complete

METHOD = "polish"
BY = ("weights", "pixels")
BY_SURROGATES = "surrogates"
_BUDGET = {"weights": 17, "pixels": 17, BY_SURROGATES: 5}  # forward passes per elite
_RATE = {"weights": 0.003, "pixels": 2 / 255, BY_SURROGATES: 2.5 / 255}
_GROUP = 64  # elites at most that are polished and saved at a time
_GROUP_BYTES = 1 << 29  # memory for their states, at about ten tensors of an image's size per elite


@dataclass(frozen=True)
class PolishPlan:
    """What is polished, and how: everything that determines the results of the new run, and is stored in it.

    by: "weights": the weights of the elite's CPPN are varied, so that the image stays one that a CPPN renders; "pixels": the
    pixels are varied, whatever the encoding; "": weights where there are any. classes: () means all. budget: forward passes
    per elite, each but the last with a backward pass (0: 17). rate: how far the first step moves pixels on [0, 1], for each
    weight or each pixel (0: 0.003 for weights, 2/255 for pixels). grow: graphs get all edges that they could have, at weight
    0, and these are varied too, which takes more memory and gains more. threads: torch threads of a pass (0: as in the run).

    surrogates: the specs of networks whose gradients are used in place of the target's (by is then "surrogates"): pixels, or
    canvases, climb them, by steps whose root mean square is rate (0: 2.5/255), and every forward pass of the target but the
    first one judges a climb (budget 0: 5 passes).

    The other fields are filled in by polish: run and elites identify the elites (the run's id; a hash); group elites climb
    at the same time; microbatch is that of ascend; chunk images are scored at once.
    """

    by: str = ""
    classes: tuple[int, ...] = ()
    budget: int = 0
    rate: float = 0.0
    grow: bool = True
    threads: int = 0
    surrogates: tuple[str, ...] = ()
    run: str = ""
    elites: str = ""
    group: int = 0
    microbatch: int = 0
    chunk: int = 0
    method: str = METHOD


@dataclass(frozen=True)
class PolishOutcome:
    """How far polishing came."""

    elites: int
    before: np.ndarray  # (done,) float64, log-odds of the elites that are done, by cell
    after: np.ndarray  # (done,) float64, log-odds in the new run
    polished: int  # elites that were replaced by a better image
    forwards: int
    backwards: int
    notes: tuple[str, ...]


def polish(
    folder: Path,
    out: Path,
    plan: PolishPlan = PolishPlan(),
    *,
    target: Target | None = None,
    trust: bool = False,
    streams: int = 0,
    on_start: Callable[[PolishPlan, int, int], None] = lambda plan, done, elites: None,
    tick: Callable[[AttackProgress], bool] = lambda progress: False,
) -> PolishOutcome:
    """Maximise the elites of the run in folder further, and save the result as a run in out; resume it if started before.

    Each elite climbs the log-odds of its class, or the margin if its run ranks by margins. A genome that is the elite of
    several classes climbs for each of them separately. In a run with niches each niche's elite climbs, and only images
    inside its niche count.

    An image replaces its elite if its score in 8 bits, by `target.logits`, is higher. Such an image is marked as made by
    "polish", and its mother is the original, which is stored as a seed. The other elites stay. A group of elites is saved
    when all of them are done. on_start(plan with defaults, elites done, elites) is called once, tick(progress) after every
    step; if it returns True polishing stops, and the unfinished group is dropped. target: the run's own by default (trust as
    in StoredRun.target). streams: passes at once (0: the target's choice); they do not change results.

    With surrogates each elite climbs log-odds by their gradients, and one query of the target judges each climb.

    TargetError for a target without gradients, if no surrogate is named; StoreError or RecipeError if the run has nothing to
    polish, or if out holds another run.
    """
    with StoredRun(folder) as stored:
        if out.resolve() == stored.folder.resolve():
            raise StoreError(f"{out} is the run to be polished, which is not modified; pass another --out")
        source = _read(stored, BY_SURROGATES if plan.surrogates else plan.by, plan.classes)
        target = stored.own_target(target, trust)
    if target.network is None and not plan.surrogates:
        raise no_gradients(target)
    plan = _settled(plan, source, target)
    surrogates = _surrogates(source, plan, target)
    recipe = _recipe(source, plan, out)
    seeds = Seeds(run=source.run, number=len(source.births))
    described = {**plan.__dict__, "classes": list(plan.classes), "surrogates": list(plan.surrogates)}
    if surrogates is None:
        del described["surrogates"]
    with torch_threads(plan.threads):  # for the validation, whose bits depend on their number
        store, state = open_attack(out, target, recipe, described, plan.chunk, seeds, record_of(surrogates))
    with Session(store, state, target, len(source.elites), tick) as session:
        on_start(plan, session.done, session.items)
        while session.goes_on:
            group = source.part(session.done, plan.group)
            began = time.perf_counter()
            with torch_threads(plan.threads):
                ticked = session.tick(len(group.elites))
                at_once = streams or target.streams
                if surrogates is None:
                    result, genomes = _climb(group, plan, target, at_once, ticked)
                else:
                    result, genomes = _climb_surrogates(group, plan, target, surrogates, at_once, ticked)
                if result.interrupted:
                    break
                images = _PolishedImages.of(group, plan, target, result, genomes)
                _save(session, source, images, target, began, surrogates)
        return _outcome(store, session)


# -- what is polished


@dataclass(frozen=True)
class _Source:
    """The elites to polish, by cell, with what is needed of their run."""

    folder: Path
    run: str
    by: str
    recipe: Recipe
    elites: Sequence[Elite]
    encoding: Encoding  # of the new run
    births: Mapping[int, int]  # birth in the source run -> birth in the new run
    genomes: Mapping[int, bytes]  # by birth in the source run, packed

    def part(self, first: int, number: int) -> "_Source":
        return replace(self, elites=self.elites[first : first + number])

    def images(self) -> np.ndarray:
        """uint8 (n, C, H, W)."""
        return np.stack([elite.image for elite in self.elites])

    def packed(self) -> list[bytes]:
        """The elites' genomes, of the new run's encoding."""
        if _keeps(self.by, self.recipe.encoding.kind):
            return [self.genomes[elite.row.birth] for elite in self.elites]
        return [self.encoding.pack(image) for image in self.images()]

    def sound_genomes(self) -> Genomes:
        """The same, unpacked; StoreError if one of them does not render its elite's image."""
        genomes = self.encoding.unpack(self.packed())
        wrong = (self.encoding.render(genomes) != self.images()).any(axis=(1, 2, 3))
        if wrong.any():
            raise _damaged(self.folder, self.elites[int(wrong.argmax())], "is not the image that its genome renders")
        return genomes


def _read(stored: StoredRun, by: str, classes: Sequence[int]) -> _Source:
    folder, recipe = stored.folder, stored.recipe
    by = by or ("weights" if recipe.encoding.kind == "cppn" else "pixels")
    if by not in (*BY, BY_SURROGATES):
        raise RecipeError(f'the parameters to polish are {" or ".join(BY)}, not "{by}" (--parameters)')
    if by == "weights" and recipe.encoding.kind != "cppn":
        raise RecipeError(f"{folder} has {recipe.encoding.kind} images, which have no weights; pass --parameters pixels")
    with stored.store.snapshot():
        elites = stored.elites()
        genomes = stored.store.genomes(elite.row.birth for elite in elites)
        run = stored.meta.id
    if classes:
        held = {elite.row.class_id for elite in elites}
        if missing := [c for c in classes if c not in held]:
            names = ", ".join(f"{c} ({stored.labels[c]})" for c in missing[:6])
            raise RecipeError(f"{folder} has no elite of class {names}{' ...' if len(missing) > 6 else ''} to polish")
        elites = [elite for elite in elites if elite.row.class_id in classes]
    for elite in elites:
        if elite.row.digest() != elite.row.sha256:
            raise _damaged(folder, elite, "does not match its hash")
    births = {birth: k for k, birth in enumerate(sorted({elite.row.birth for elite in elites}))}
    part = recipe.encoding if _keeps(by, recipe.encoding.kind) else DirectPart(kind="direct")
    return _Source(folder, run, by, recipe, elites, part.build(stored.shape), births, genomes)


def _keeps(by: str, kind: str) -> bool:
    """Whether the new run has the encoding of the run that is polished; else it has pixels."""
    return by == "weights" or kind == "direct" or (by == BY_SURROGATES and kind == "canvas")


def _surrogates(source: _Source, plan: PolishPlan, target: Target) -> Surrogates | None:
    if not plan.surrogates:
        return None
    networks = [load_target(spec) for spec in plan.surrogates]
    return Surrogates(networks, target, source.encoding, Climb(rate=plan.rate * 255))


def _damaged(folder: Path, elite: Elite, what: str) -> StoreError:
    r = elite.row
    return StoreError(f"{folder}: the elite of class {r.class_id} ({elite.label}) {what}; run evofool verify {folder}")


def _settled(plan: PolishPlan, source: _Source, target: Target) -> PolishPlan:
    """The plan with all defaults filled in; RecipeError names an invalid value."""
    if plan.budget and plan.budget < 2:
        raise RecipeError(
            f"a budget of {plan.budget} forward passes is too small; the elite takes one, and each step takes one"
        )
    if plan.rate < 0 or not math.isfinite(plan.rate):
        raise RecipeError(f"rate, the size of the first step, has to be finite and at least 0, not {plan.rate}")
    on_cpu = target.network is None or target.network.device.type == "cpu"
    digest = hashlib.sha256("".join(elite.row.sha256 for elite in source.elites).encode()).hexdigest()
    return PolishPlan(
        run=source.run,
        elites=f"{len(source.elites)}, SHA-256 {digest[:32]}",
        by=source.by,
        classes=tuple(sorted(set(plan.classes))),
        budget=plan.budget or _BUDGET[source.by],
        surrogates=plan.surrogates,
        rate=plan.rate or _RATE[source.by],
        grow=plan.grow and source.by == "weights",
        group=max(1, min(_GROUP, _GROUP_BYTES // (40 * math.prod(target.shape)))),
        microbatch=(2 if is_large(target.shape) else 64) if on_cpu else 32,
        chunk=source.recipe.chunk,
        threads=plan.threads or source.recipe.compute.threads,
    )


def _recipe(source: _Source, plan: PolishPlan, out: Path) -> Recipe:
    """The recipe of the new run: as the source's in what determines rendering, ranking and cells."""
    r = source.recipe
    kept = _keeps(plan.by, r.encoding.kind)
    return Recipe(
        name=out.resolve().name or METHOD,
        target=r.target,
        encoding=r.encoding if kept else DirectPart(kind="direct"),
        search=r.search.model_copy(update={"parents": None, "surrogate": None, "unlike": None}),
        niches=r.niches,
        stop=StopPart(evaluations=plan.budget * len(source.elites)),
        compute=ComputePart(chunk=plan.chunk, threads=plan.threads, format="float32"),
    )


# -- the climb


def _climb(group: _Source, plan: PolishPlan, target: Target, streams: int, tick: Tick) -> tuple[AscentResult, np.ndarray]:
    """The ascent of a group of elites, and the genomes of the best images."""
    assert target.network is not None
    rows = [elite.row for elite in group.elites]
    images = group.images()
    param: Param
    if plan.by == "weights":
        assert isinstance(group.encoding, CPPN)
        genomes = group.sound_genomes()
        if plan.grow:
            genomes = complete(genomes, group.encoding.channels)
        param = ScaledWeights(group.encoding, genomes, target.network.device)
    else:
        param = Pixels(torch.from_numpy(images).to(target.network.device) / 255)
    of = torch.tensor([row.class_id for row in rows])
    odds = objectives.log_odds(of)
    objective = odds if group.recipe.search.rank == "log_odds" else objectives.margin(of)
    select_by, niches = objective, group.recipe.niches
    if niches:
        wanted = np.array([row.niche for row in rows])
        select_by = _inside(objective, DESCRIPTORS[niches.descriptor], niches.edges, wanted)
    ascent = Ascent(param, objective, APGD(plan.rate), plan.budget - 1, select_by=select_by, secondary=odds)
    keys = [row.cell for row in rows]
    result = ascend(target, ascent, keys, microbatch=plan.microbatch, streams=streams, tick=tick)
    if isinstance(param, ScaledWeights):
        assert result.states is not None
        return result, param.genomes(result.states, torch.arange(len(rows)))
    return result, result.images


def _climb_surrogates(
    group: _Source, plan: PolishPlan, target: Target, surrogates: Surrogates, streams: int, tick: Tick
) -> tuple[AscentResult, np.ndarray]:
    """The climbs of a group of elites, and the genomes of the best images."""
    cells = [elite.row.cell for elite in group.elites]
    classes, wanted = (np.array([getattr(e.row, name) for e in group.elites]) for name in ("class_id", "niche"))
    niches = group.recipe.niches

    def inside(items: np.ndarray, images: np.ndarray) -> np.ndarray:
        assert niches is not None
        return bins(DESCRIPTORS[niches.descriptor](images), niches.edges) == wanted[items]

    judge = judge_of(target, plan.chunk, classes, group.recipe.search.rank, inside if niches else None)
    genomes, queries = group.sound_genomes(), plan.budget
    return climb(surrogates, genomes, classes, cells, judge, queries=queries, streams=streams, tick=tick)


def _inside(score: Objective, descriptor: Descriptor, edges: Sequence[float], niches: np.ndarray) -> Objective:
    """score, but -inf for an image outside of its item's niche; niches (n,)."""

    def score_inside(forward: ForwardPass, images: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        values = score(forward, images, items)
        outside = torch.from_numpy(bins(descriptor(to_uint8(images.detach())), edges) != niches[items.cpu().numpy()])
        return values.masked_fill(outside.to(values.device), -torch.inf)

    return Objective(score_inside, score.layers, score.logits)


# -- what is saved


@dataclass(frozen=True)
class _PolishedImages:
    """A group that is done. Arrays have a row for each of its elites."""

    group: _Source
    result: AscentResult
    genomes: np.ndarray
    images: np.ndarray  # uint8 (n, C, H, W), rendered from genomes
    scores: np.ndarray  # (2, n), log-odds and margins of images, each of its elite's class
    original_scores: np.ndarray  # (2, n), of the elites

    @classmethod
    def of(
        cls, group: _Source, plan: PolishPlan, target: Target, result: AscentResult, genomes: np.ndarray
    ) -> "_PolishedImages":
        images = group.encoding.render(genomes)
        own = np.arange(len(images)), [elite.row.class_id for elite in group.elites]
        scores = []
        for each in (images, group.images()):
            logits = float32_logits(target, each, plan.chunk)
            scores.append(np.stack([score(logits, target.multilabel)[own] for score in (log_odds, margin)]))
        return cls(group, result, genomes, images, *scores)

    def originals(self) -> list[Image]:
        odds, margins = self.original_scores.tolist()
        rows = zip(self.group.elites, self.group.packed(), strict=True)
        return [
            Image(
                self.group.births[elite.row.birth], elite.row.class_id, packed, elite.image,
                odds[k], margins[k], niche=elite.row.niche,
            )
            for k, (elite, packed) in enumerate(rows)
        ]  # fmt: skip

    def better(self, first: int) -> list[Image]:
        """The images with a higher score than their elites, with births from first on."""
        by = ("log_odds", "margin").index(self.group.recipe.search.rank)
        better = self.scores[by] > self.original_scores[by]
        images = []
        for k, elite in enumerate(self.group.elites):
            c, niche, mother = elite.row.class_id, elite.row.niche, self.group.births[elite.row.birth]
            if better[k] and self.result.scores[k] > -np.inf:
                packed = self.group.encoding.pack(self.genomes[k])
                odds, own_margin = self.scores[:, k].tolist()
                images.append(Image(first + k, c, packed, self.images[k], odds, own_margin, mother, niche))
        return images

    def notes(self) -> list[str]:
        return [f"{self.group.elites[item].label}: {note}" for item, note in self.result.notes]


def _save(
    session: Session, source: _Source, done: _PolishedImages, target: Target, began: float, surrogates: Surrogates | None
) -> None:
    """Write a group that is done in one transaction."""
    store, first = session.store, session.done == 0
    cells = [elite.row.cell for elite in done.group.elites]
    new = improvement_rows(done.result, cells, np.isfinite(done.result.scores))
    state = session.state_after(done.result, done.notes())
    niches = len(source.recipe.niches.edges) + 1 if source.recipe.niches else 1
    images = ImageGroup(
        done.better(len(source.births) + session.done),
        METHOD,
        # The niches of a class climb separately, but the metrics are those of classes.
        metrics_rows([*store.improvements(), *new], len(source.elites)) if niches == 1 else (),
        new,
        seeds=_seeds(source) if first else (),
        origins={birth: GenomeId(source.run, original) for original, birth in source.births.items()} if first else {},
        originals=done.originals(),
        niches=niches,
        surrogates=record_after(
            store.meta().surrogates, surrogates, done.result, [e.row.class_id for e in done.group.elites]
        ),
    )
    finished = f"all {state.done} elites are done" if state.done == len(source.elites) else None
    commit(store, state, images, time.perf_counter() - began, finished, target)
    session.state = state


def _seeds(source: _Source) -> list[Seed]:
    """The originals; a genome that is the elite of several cells is listed once."""
    found: dict[int, Seed] = {}
    for elite, packed in zip(source.elites, source.packed(), strict=True):
        method = "seed" if elite.row.method == "evolved" else elite.row.method
        found.setdefault(elite.row.birth, Seed(source.births[elite.row.birth], packed, method))
    return list(found.values())


def _outcome(store: Store, session: Session) -> PolishOutcome:
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    history = store.cell_history()
    for change in history:
        first.setdefault(change.cell, change.log_odds)
        last[change.cell] = change.log_odds
    cells = sorted(first)
    before, after = (np.array([values[cell] for cell in cells]) for values in (first, last))
    polished = len(history) - len(cells)
    state = session.state
    passes = state.forwards, state.backwards
    return PolishOutcome(session.items, before, after, polished, *passes, tuple(state.notes))
