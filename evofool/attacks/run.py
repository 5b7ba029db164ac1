"""A baseline as an ordinary run: its images in a run's file, group after group of classes, so that it can be broken off."""

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evofool.ascend.hooks import refused
from evofool.ascend.loop import STUCK, AscentResult, Tick
from evofool.attacks import gradient
from evofool.attacks.black_box.nes import nes
from evofool.attacks.black_box.random_search import noise, random_search
from evofool.attacks.black_box.square import square
from evofool.errors import RecipeError
from evofool.images import is_large
from evofool.machine import torch_threads
from evofool.recipe import Recipe, parse
from evofool.run.checkpoints import row_after
from evofool.run.imported import Image, chunk_of, climbed, commit, let_go, metrics_row, opened, plain
from evofool.run.schema import ImprovementRow
from evofool.run.store import Store
from evofool.scores import confidence, log_odds, margin, needed_log_odds
from evofool.targets import Target

_GROUP_BYTES = 1 << 29  # what a group's states may take, at about ten tensors of an image's size each
# The network that gradients are taken through is not the plain one to the bit.
_HAIR = 1e-3  # log-odds that are asked for beyond `target_confidence`


class Method(NamedTuple):
    """A published method, as `evofool baseline` knows it."""

    climb: Callable[..., AscentResult]
    gradients: bool
    what: str
    budget: int = 0  # forward passes a class, where none are given; 0: the method knows
    together: bool = False  # images are shared between classes, which therefore make one group


METHODS: dict[str, Method] = {
    "nguyen": Method(gradient.nguyen, True, "ascent on p; setting=plain, l2, blur or sparse (Nguyen 2015)"),
    "simonyan": Method(gradient.simonyan, True, "the class model: logit less L2 (Simonyan 2014)"),
    "erhan": Method(gradient.erhan, True, "on a sphere, from nine starts; single units: evofool units (Erhan 2009)"),
    "inceptionism": Method(gradient.inceptionism, True, "class visualisation in octaves, less TV (Mordvintsev 2015)"),
    "fourier": Method(gradient.fourier, True, "Fourier space under robust transforms: made to be recognisable (Olah 2017)"),
    "apgd": Method(gradient.apgd, True, "Auto-PGD on the margin, from noise: the strongest (Croce & Hein 2020)"),
    "square": Method(square, False, "Square attack without a source image (Andriushchenko 2020)", 1000),
    "nes": Method(nes, False, "natural evolution strategy on low-frequency pixels (Ilyas 2018)", 1000),
    "random": Method(random_search, False, "random images, each tried in every class", 1000, True),
    "noise": Method(noise, False, "one image of noise per class, nothing selected: the floor", 1),
}  # fmt: skip

_COMMON = ("budget", "queries", "rank", "seed", "stop_at", "microbatch", "streams", "tick", "chunk")


@dataclass(frozen=True)
class AttackProgress:
    """What a display shows of a baseline under way."""

    classes: int
    done: int  # classes that are done and saved
    group: int  # classes that are climbing
    step: int
    steps: int
    done_here: int  # of the done ones in this sitting
    forwards: int  # that these took
    took: float  # seconds that these took
    seconds: float  # of this sitting


@dataclass(frozen=True)
class AttackPlan:
    """Which method is to do what: everything that decides the bits of a baseline's run, and is stored with it.

    classes: () means all. budget: 0 means the method's default. target_confidence: a class ends once its image reaches it;
    1 means never. With rank "margin" it ends at a margin that only such images have. group: how many classes climb at the
    same time; 0 means as many as fit in half a gigabyte. microbatch: as in ascend. chunk: images that are scored at once.
    microbatch and chunk 0: chosen by the image size.
    """

    method: str
    classes: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: int = 0
    rank: str = "log_odds"
    seed: int = 0
    target_confidence: float = 1.0
    group: int = 0
    microbatch: int = 0
    chunk: int = 0
    threads: int = 1

    def settled(self, target: Target) -> "AttackPlan":
        """With everything chosen that was left to be; RecipeError or TargetError names what cannot be."""
        method = METHODS.get(self.method)
        if method is None:
            raise RecipeError(f'there is no baseline "{self.method}"; there are {", ".join(METHODS)}')
        if method.gradients and target.network is None:
            raise refused(target)
        settings = settings_of(self.method, self.settings)
        if method.budget == 1 and self.budget > 1:
            raise RecipeError(f"{self.method} asks one image for each class and has no use for a budget of {self.budget}")
        if self.rank not in ("log_odds", "margin"):
            raise RecipeError(f'there is no rank "{self.rank}"; there are log_odds, margin')
        if not 0 < self.target_confidence <= 1:
            raise RecipeError(f"target_confidence has to lie in (0, 1], not {self.target_confidence}")
        k = len(target.labels)
        classes = self.classes or tuple(range(k))
        if len(set(classes)) != len(classes) or not all(0 <= c < k for c in classes):
            raise RecipeError(f"classes are different numbers in 0..{k - 1}, not {list(classes)[:12]}")
        big = is_large(target.shape)
        room = _GROUP_BYTES // (40 * math.prod(target.shape) * max(1, settings.get("restarts", 1)))
        group = len(classes) if method.together else self.group or max(1, min(len(classes), room))
        on_cpu = target.network is None or target.network.device.type == "cpu"
        return AttackPlan(
            self.method,
            classes,
            settings,
            self.budget or method.budget,
            self.rank,
            self.seed,
            self.target_confidence,
            group,
            self.microbatch or ((2 if big else 64) if on_cpu else 32),
            self.chunk or min(chunk_of(target), group),
            self.threads,
        )


def settings_of(method: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method that others do not have: their defaults, and these changes.

    RecipeError for a setting that is not there, one of another type, and a number below 0 or not finite.
    """
    parameters = inspect.signature(METHODS[method].climb).parameters.values()
    settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _COMMON}
    for name, value in changes.items():
        if name not in settings:
            raise RecipeError(f'{method} has no setting "{name}"; it has {", ".join(settings) or "none"}')
        if isinstance(settings[name], float) and type(value) is int:
            value = float(value)
        if type(value) is not type(settings[name]):
            raise RecipeError(f"{method}: {name} is like {settings[name]!r}, not {value!r}")
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise RecipeError(f"{method}: {name} is a number from 0 up, not {value!r}")
        settings[name] = value
    return settings


@dataclass(frozen=True)
class AttackOutcome:
    """How far a baseline came. notes: what a user should know of classes, and which of them are left without an image."""

    done: int  # classes
    classes: int
    images: int  # that the run has
    notes: tuple[str, ...]


def run_baseline(
    plan: AttackPlan,
    target: Target,
    folder: Path,
    streams: int = 0,
    begun: Callable[[AttackPlan, int], None] = lambda plan, done: None,
    tick: Callable[[AttackProgress], bool] = lambda progress: False,
) -> AttackOutcome:
    """Do what plan says, and keep it as a run in folder; go on where it was broken off if it was begun there.

    The run's elite of a class is the image that was made for it, with the scores of the plain network, as in every run; a
    class for which nothing came out has none, and a note. A group of classes is kept when all of them are done;
    tick(progress), called after every step, ends the work when it says so, and what the group under way has come to is
    dropped. streams passes at once (0: as many as pay); they decide no bit. StoreError or RecipeError if folder has another
    run, TargetError if its target was another.
    """
    plan = plan.settled(target)
    store, state = opened(folder, target, _recipe(plan, target, folder), _described(plan), plan.chunk)
    notes: list[str] = list(state["notes"])
    told_to_stop = False

    def heard(progress: AttackProgress) -> bool:
        nonlocal told_to_stop
        told_to_stop = tick(progress)
        return told_to_stop

    try:
        begun(plan, state["done"])
        began, at_first = time.perf_counter(), state
        while state["done"] < len(plan.classes) and not told_to_stop:
            classes = plan.classes[state["done"] : state["done"] + plan.group]
            ticked = ticking(heard, len(plan.classes), len(classes), state, at_first, began)
            before = time.perf_counter()
            with torch_threads(plan.threads):
                climbs = _climb(plan, target, classes, streams, ticked)
                if climbs.interrupted:
                    break
                logits = plain(target, climbs.images, plan.chunk)
            sound = (climbs.scores > -np.inf) & np.isfinite(logits).all(axis=1)
            notes += _notes([target.labels[c] for c in classes], climbs, sound)
            spent = time.perf_counter() - before
            state = _save(store, plan, target, classes, climbs, sound, logits, state, notes, spent)
        images = len(store.cells())
    except BaseException:
        let_go(store, state, failed=True)
        raise
    let_go(store, state)
    return AttackOutcome(state["done"], len(plan.classes), images, tuple(notes))


def _climb(plan: AttackPlan, target: Target, classes: Sequence[int], streams: int, tick: Tick) -> AscentResult:
    method = METHODS[plan.method]
    level = math.inf
    if plan.target_confidence < 1:
        # Of K classes log-odds are at most log(K - 1) below the margin.
        below = math.log(len(target.labels) - 1) if plan.rank == "margin" else 0.0
        level = needed_log_odds(plan.target_confidence) + _HAIR + below
    how: dict[str, Any] = {"rank": plan.rank, "seed": plan.seed, "stop_at": level, "tick": tick}
    if method.gradients:
        how |= {"budget": plan.budget, "microbatch": plan.microbatch, "streams": streams or target.streams}
    else:
        how |= {"queries": plan.budget, "chunk": plan.chunk}
    return method.climb(target, classes, **how, **plan.settings)


def _notes(names: Sequence[str], climbs: AscentResult, sound: np.ndarray) -> list[str]:
    """The notes of a group, which classes nothing moved, and which are left without an image: not sound (n,)."""
    return [
        *(f"{names[item]}: {words}" for item, words in climbs.notes),
        *(f"{names[item]}: {STUCK}" for item in climbs.stuck),
        *(f"{name}: it is left without an image" for name, found in zip(names, sound, strict=True) if not found),
    ]


def ticking(
    tick: Callable[[AttackProgress], bool],
    classes: int,
    group: int,
    state: Mapping[str, Any],
    at_first: Mapping[str, Any],
    began: float,
) -> Tick:
    """A tick of ascend's that tells where the whole stands; state now, and at_first, when this sitting began."""
    done, forwards = (state[key] - at_first[key] for key in ("done", "forwards"))
    took = time.perf_counter() - began
    return lambda step, steps: tick(
        AttackProgress(classes, state["done"], group, step, steps, done, forwards, took, time.perf_counter() - began)
    )


def _recipe(plan: AttackPlan, target: Target, folder: Path) -> Recipe:
    """What a run's file has to say of how its genomes are drawn and its images scored."""
    parts = {
        "name": folder.resolve().name or plan.method,
        "target": target.name,
        "encoding": {"kind": "direct"},
        "search": {"seed": plan.seed, "batch": plan.chunk, "rank": plan.rank, "competition": "per-class"},
        "stop": {"evaluations": max(1, plan.budget) * len(plan.classes)},
        "compute": {"chunk": plan.chunk, "threads": plan.threads, "format": "float32"},
    }
    return parse(parts, plan.method)


def _described(plan: AttackPlan) -> dict[str, Any]:
    """plan as it is stored: plain JSON."""
    return {**plan.__dict__, "classes": list(plan.classes), "settings": dict(plan.settings)}


def _save(
    store: Store,
    plan: AttackPlan,
    target: Target,
    classes: Sequence[int],
    climbs: AscentResult,
    sound: np.ndarray,
    logits: np.ndarray,
    state: Mapping[str, Any],
    notes: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """Write a group that is done, in one transaction: images that are sound (n,), and passes; returns the new state."""
    first = state["done"]
    odds, gaps = log_odds(logits), margin(logits)
    births: dict[bytes, int] = {}  # of one group only one image can stand in several classes
    images = []
    for k, c in enumerate(classes):
        if sound[k]:
            pixels = climbs.images[k]
            birth = births.setdefault(pixels.tobytes(), first + k)
            images.append(Image(birth, c, pixels.tobytes(), pixels, float(odds[k, c]), float(gaps[k, c])))
    new = climbed(climbs, classes, sound)
    state = {
        **state,
        "done": first + len(classes),
        "forwards": state["forwards"] + int(climbs.forwards.sum()),
        "backwards": state["backwards"] + int(climbs.backwards.sum()),
        "notes": list(notes),
    }
    all_done = state["done"] == len(plan.classes)
    finished = f"all {state['done']} classes are done" if all_done else None
    rows = side_by_side([*store.improvements(), *new], len(plan.classes))
    if METHODS[plan.method].together:  # a class's image may be another's too
        rows = [(at, {**row, "distinct": min(row["distinct"], len(births))}) for at, row in rows]
    commit(store, state, images, plan.method, seconds, finished, target.queries, rows, new)
    return state


def side_by_side(improvements: Sequence[ImprovementRow], classes: int) -> list[tuple[int, dict[str, Any]]]:
    """(forward passes of each class, metrics row) as if all classes had climbed at once, out of Store.improvements().

    Classes do not touch one another, so the order in which they climb changes nothing. evaluations: forward passes of all,
    the last improvement of a class telling how many it took. Of `classes` classes those without an image count as 0.
    """
    by_cell: dict[int, list[tuple[int, float]]] = {}
    for row in improvements:
        by_cell.setdefault(row.cell, []).append((row.forwards, row.log_odds))
    climbs = list(by_cell.values())
    ends = np.array([climb[-1][0] for climb in climbs], np.int64)
    p, at_place, held = np.zeros(max(classes, len(climbs))), [0] * len(climbs), np.zeros(len(climbs), bool)
    rows, at = [], 0
    while len(ends) and at < ends.max():
        at = row_after(at)
        for k, climb in enumerate(climbs):
            while at_place[k] < len(climb) and climb[at_place[k]][0] <= at:
                odds = climb[at_place[k]][1]
                if odds > -math.inf:
                    p[k], held[k] = confidence(odds), True
                at_place[k] += 1
        rows.append((at, metrics_row(p, at, int(np.minimum(ends, at).sum()), int(held.sum()))))
    return rows
