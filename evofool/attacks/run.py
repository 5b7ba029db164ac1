"""Run an attack on many classes and save the images as an ordinary run, which can be interrupted and resumed."""

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evofool.ascend.approximation import STRAIGHT_THROUGH, Approximation, GradientSource
from evofool.ascend.hooks import no_gradients
from evofool.ascend.loop import STUCK, AscentResult, OnAnswers, Tick
from evofool.ascend.straight_through import StraightThrough
from evofool.ascend.substitute import Lesson, train_substitute
from evofool.attacks import gradient, visualisation
from evofool.attacks.black_box.nes import nes
from evofool.attacks.black_box.random_search import noise, random_search
from evofool.attacks.black_box.square import square
from evofool.attacks.session import AttackProgress, Session, metrics_rows
from evofool.errors import RecipeError
from evofool.images import is_large
from evofool.machine import torch_threads
from evofool.recipe import Recipe, parse
from evofool.run.attack_file import Image, ImageGroup, chunk_of, commit, float32_logits, improvement_rows, open_attack
from evofool.scores import log_odds, margin, needed_log_odds
from evofool.targets import Target

_GROUP_BYTES = 1 << 29  # memory for the states of a group, at about ten tensors of an image's size per item
# The network that computes gradients differs from the one that scores images in the last bits.
_SLACK = 1e-3  # log-odds beyond target_confidence at which an attack stops

_LATER = {("losses", "margin")}  # settings that plans did not have before, with the values of then; they are not stored


class Method(NamedTuple):
    """A published method of `evofool baseline`."""

    attack: Callable[..., AscentResult]
    gradients: bool
    what: str
    budget: int = 0  # default number of forward passes per class; 0: as published
    shared: bool = False  # each image competes in all classes, so all classes are one group


METHODS: dict[str, Method] = {
    "nguyen": Method(gradient.nguyen, True, "ascent on p; setting=plain, l2, blur or sparse (Nguyen 2015)"),
    "simonyan": Method(gradient.simonyan, True, "the class model: logit less L2 (Simonyan 2014)"),
    "erhan": Method(gradient.erhan, True, "on a sphere, from nine starts; single units: evofool units (Erhan 2009)"),
    "inceptionism": Method(visualisation.inceptionism, True, "class visualisation in octaves, less TV (Mordvintsev 2015)"),
    "fourier": Method(visualisation.fourier, True, "Fourier space, robust transforms; meant to be recognisable (Olah 2017)"),
    "maco": Method(visualisation.maco, True, "phases only, under crops; meant to be recognisable (Fel 2023)"),
    "apgd": Method(gradient.apgd, True, "Auto-PGD on the margin, from noise (Croce & Hein 2020)"),
    "square": Method(square, False, "Square attack without a source image (Andriushchenko 2020)", 1000),
    "nes": Method(nes, False, "natural evolution strategy on low-frequency pixels (Ilyas 2018)", 1000),
    "random": Method(random_search, False, "random images, each scored in every class: random search", 1000, True),
    "noise": Method(noise, False, "one image of noise per class, without selection: a control", 1),
}  # fmt: skip


@dataclass(frozen=True)
class AttackPlan:
    """A method and its arguments: everything that determines the results of a run, and is stored in it.

    classes: () means all. budget: 0 means the method's default. target_confidence: a class ends once its image reaches it;
    1 means never. With rank "margin" it ends at a margin that only such images have. group: how many classes climb at the
    same time; 0 means as many as fit in half a gigabyte. microbatch: as in ascend. chunk: images that are scored at once.
    microbatch and chunk 0: chosen by the image size. gradients: what a method that uses gradients climbs instead of the
    target's own; the queries of a substitute model are the first ones of the budget, the same number for each class.
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
    gradients: GradientSource | None = None

    def settled(self, target: Target) -> "AttackPlan":
        """The plan with all defaults filled in for this target; RecipeError or TargetError if it is not possible."""
        method = METHODS.get(self.method)
        if method is None:
            raise RecipeError(f'there is no baseline "{self.method}"; there are {", ".join(METHODS)}')
        if method.gradients and target.network is None:
            raise no_gradients(target)
        settings = settings_of(self.method, self.settings)
        if method.budget == 1 and self.budget > 1:
            raise RecipeError(f"{self.method} makes one image per class; leave out the budget of {self.budget}")
        if self.rank not in ("log_odds", "margin"):
            raise RecipeError(f'there is no rank "{self.rank}"; there are log_odds, margin')
        if not 0 < self.target_confidence <= 1:
            raise RecipeError(f"target_confidence has to lie in (0, 1], not {self.target_confidence}")
        k = len(target.labels)
        classes = self.classes or tuple(range(k))
        if len(set(classes)) != len(classes) or not all(0 <= c < k for c in classes):
            raise RecipeError(f"classes have to be distinct numbers in 0..{k - 1}, not {list(classes)[:12]}")
        big = is_large(target.shape)
        fitting = _GROUP_BYTES // (40 * math.prod(target.shape) * max(1, settings.get("restarts", 1)))
        group = len(classes) if method.shared else self.group or max(1, min(len(classes), fitting))
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
            self.gradients,
        )


def settings_of(method: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method, beside the options that all methods have: the defaults with these changes.

    RecipeError for an unknown setting, one of another type, and a number below 0 or not finite.
    """
    parameters = inspect.signature(METHODS[method].attack).parameters.values()
    settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "rank"}
    for name, value in changes.items():
        if name not in settings:
            raise RecipeError(f'{method} has no setting "{name}"; it has {", ".join(settings) or "none"}')
        if isinstance(settings[name], float) and type(value) is int:
            value = float(value)
        if type(value) is not type(settings[name]):
            raise RecipeError(f"{method}: {name} has to be a value like {settings[name]!r}, not {value!r}")
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise RecipeError(f"{method}: {name} has to be finite and at least 0, not {value!r}")
        settings[name] = value
    return settings


@dataclass(frozen=True)
class AttackOutcome:
    """How far an attack came. notes: what a user should know of single classes, such as that they have no image."""

    done: int  # classes
    classes: int
    images: int  # in the run
    notes: tuple[str, ...]


def run_baseline(
    plan: AttackPlan,
    target: Target,
    folder: Path,
    streams: int = 0,
    on_start: Callable[[AttackPlan, int], None] = lambda plan, done: None,
    tick: Callable[[AttackProgress], bool] = lambda progress: False,
    on_answers: OnAnswers | None = None,
) -> AttackOutcome:
    """Run the attack of plan and save its images as a run in folder; resume it if it was started there before.

    The elite of a class is the image made for it, with the scores that `target.logits` gives, as in every run. A class
    without an image has no elite, and a note says so. A group of classes is saved when all of them are done. on_start(plan
    with defaults, classes done) is called once, tick(progress) after every step; if it returns True the attack stops, and
    the unfinished group is dropped. streams: passes at once (0: the target's choice); they do not change results.
    on_answers: is called as by Ascent, with classes for items; their forward passes include the queries of a substitute
    model. StoreError or RecipeError if folder holds another run, TargetError if it was started with another target.
    """
    plan = plan.settled(target)
    with torch_threads(plan.threads):  # for the validation, whose bits depend on their number
        store, state = open_attack(folder, target, _recipe(plan, target, folder), _described(plan), plan.chunk)
    with Session(store, state, target, len(plan.classes), tick) as session:
        on_start(plan, session.done)
        approximation = _approximation(plan, target) if session.goes_on else None
        while session.goes_on:
            classes = plan.classes[session.done : session.done + plan.group]
            began = time.perf_counter()
            with torch_threads(plan.threads):
                calls = _Calls(session.tick(len(classes)), on_answers)
                result = _attack(plan, target, classes, streams, calls, approximation)
                if result.interrupted:
                    break
                logits = float32_logits(target, result.images, plan.chunk)
            _save(session, plan, target, _Group(classes, result, logits, target.multilabel), time.perf_counter() - began)
        return AttackOutcome(session.done, len(plan.classes), len(store.cells()), tuple(session.state.notes))


def _approximation(plan: AttackPlan, target: Target) -> Approximation | None:
    """What the attack climbs instead of the target's gradients; a substitute model is trained now."""
    source = plan.gradients
    if source is None:
        return None
    if source.kind == STRAIGHT_THROUGH:
        return StraightThrough(source.start, source.end, source.operations)
    with torch_threads(plan.threads):
        return train_substitute(target, Lesson(source.queries), plan.seed)


class _Calls(NamedTuple):
    """What an attack calls."""

    tick: Tick
    on_answers: OnAnswers | None

    def of(self, classes: Sequence[int], spent: int) -> OnAnswers | None:
        """on_answers of the attack on these classes, each of which has used so many passes before."""
        report = self.on_answers
        if report is None:
            return None
        of = np.array(classes, np.int64)
        return lambda items, forwards, logits: report(of[items], forwards + spent, logits)


def _attack(
    plan: AttackPlan,
    target: Target,
    classes: Sequence[int],
    streams: int,
    calls: _Calls,
    approximation: Approximation | None,
) -> AscentResult:
    spent = math.ceil(plan.gradients.queries / len(plan.classes)) if plan.gradients else 0
    method = METHODS[plan.method]
    stop_at = math.inf
    if plan.target_confidence < 1:
        # The margin is at most log(K - 1) above the log-odds.
        above = math.log(len(target.labels) - 1) if plan.rank == "margin" else 0.0
        stop_at = needed_log_odds(plan.target_confidence) + _SLACK + above
    options: dict[str, Any] = {
        "rank": plan.rank, "seed": plan.seed, "budget": plan.budget - spent, "stop_at": stop_at, "tick": calls.tick,
        "on_answers": calls.of(classes, spent),
    }  # fmt: skip
    if method.gradients:
        options |= {"microbatch": plan.microbatch, "streams": streams or target.streams, "approximation": approximation}
    else:
        options |= {"chunk": plan.chunk}
    result = method.attack(target, classes, **options, **plan.settings)
    if spent:
        result.forwards += spent
        result.improvements = [found._replace(forwards=found.forwards + spent) for found in result.improvements]
    return result


@dataclass(frozen=True)
class _Group:
    """Classes that are done."""

    classes: Sequence[int]
    result: AscentResult
    logits: np.ndarray  # (n, K), of result.images
    multilabel: bool  # of the target

    @property
    def valid(self) -> np.ndarray:
        """(n,) bool: whether the class has an image."""
        return (self.result.scores > -np.inf) & np.isfinite(self.logits).all(axis=1)

    def images(self, first: int) -> list[Image]:
        """The images to save, with births from first on. Equal images are stored once, under the same birth."""
        odds, margins = (score(self.logits, self.multilabel) for score in (log_odds, margin))
        births: dict[bytes, int] = {}
        images, valid = [], self.valid
        for k, c in enumerate(self.classes):
            if valid[k]:
                pixels = self.result.images[k]
                birth = births.setdefault(pixels.tobytes(), first + k)
                images.append(Image(birth, c, pixels.tobytes(), pixels, float(odds[k, c]), float(margins[k, c])))
        return images

    def notes(self, labels: Sequence[str]) -> list[str]:
        names = [labels[c] for c in self.classes]
        return [
            *(f"{names[item]}: {note}" for item, note in self.result.notes),
            *(f"{names[item]}: {STUCK}" for item in self.result.stuck),
            *(f"{name}: it has no image" for name, valid in zip(names, self.valid, strict=True) if not valid),
        ]


def _save(session: Session, plan: AttackPlan, target: Target, group: _Group, seconds: float) -> None:
    """Write a group that is done in one transaction."""
    store = session.store
    images = group.images(session.done)
    new = improvement_rows(group.result, group.classes, group.valid)
    state = session.state_after(group.result, group.notes(target.labels))
    finished = f"all {state.done} classes are done" if state.done == len(plan.classes) else None
    rows = metrics_rows([*store.improvements(), *new], len(plan.classes))
    if METHODS[plan.method].shared:  # an image may be the best of several classes
        distinct = len({image.birth for image in images})
        rows = [(at, {**row, "distinct": min(row["distinct"], distinct)}) for at, row in rows]
    commit(store, state, ImageGroup(images, plan.method, rows, new), seconds, finished, target)
    session.state = state


def _recipe(plan: AttackPlan, target: Target, folder: Path) -> Recipe:
    """The recipe in the run's file: how its genomes are rendered and its images scored."""
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
    """The plan as JSON values."""
    settings = {name: value for name, value in plan.settings.items() if (name, value) not in _LATER}
    described = {**plan.__dict__, "classes": list(plan.classes), "settings": settings}
    del described["gradients"]  # plans without it stay as they were stored before there was such a key
    return described if plan.gradients is None else {**described, "gradients": asdict(plan.gradients)}
