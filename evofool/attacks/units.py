"""Activation maximisation of single units (Erhan 2009), saved as a run, with the classes that the images are assigned to."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool.ascend.hooks import Hooks, no_gradients, unknown_layer
from evofool.ascend.loop import STUCK, Tick
from evofool.attacks import gradient
from evofool.attacks.run import settings_of
from evofool.errors import TargetError
from evofool.images import is_large, save_picture, save_png
from evofool.machine import torch_threads
from evofool.pages.sheet import Tile, contact_sheet
from evofool.recipe import Recipe, parse
from evofool.run.attack_file import Image, ImageGroup, chunk_of, commit, float32_logits, metrics_row, open_attack
from evofool.scores import confidence, log_odds, margin
from evofool.targets import Target
from evofool.targets.redaction import short_name
from evofool.text import to_json, whole_number
from evofool.whole_file import write_whole

_Unit = tuple[str, tuple[int, ...]]
"""A layer's name and an index into it."""


@dataclass(frozen=True)
class UnitPlan:
    """Which units, and how: everything that determines the results of a run, and is stored in it.

    units: "LAYER:CHANNEL" (in a map, its middle) or "LAYER:CHANNEL:Y:X". settings: those of erhan. budget: forward passes
    per unit (0: as published).
    """

    units: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: int = 0
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class UnitOutcome:
    """Notes and a line for each unit. done: whether all units are done; otherwise nothing was saved."""

    lines: tuple[str, ...]
    done: bool = True


def run_units(plan: UnitPlan, target: Target, folder: Path, streams: int = 0, tick: Tick | None = None) -> UnitOutcome:
    """Maximise each unit of plan from several starts (gradient.units), and save the images as a run in folder.

    A unit has no class, so each image competes in all classes, as in evolution. Besides the run, folder gets the best image
    of each unit as unit-LAYER-INDEX.png, units.json with the activations of all starts, and the contact sheet units.png.
    tick is called after every step of a layer; if it returns True, nothing is saved. streams: passes at once (0: the
    target's choice); they do not change results. TargetError for a layer or a unit that does not exist, RecipeError for a
    setting; StoreError or RecipeError if folder holds another run.
    """
    names = list(dict.fromkeys(plan.units))
    units = [unit_of(target, name) for name in names]
    settings = settings_of("erhan", plan.settings)
    chunk = chunk_of(target)
    described = {
        "method": "erhan", "units": names, "settings": settings,
        "budget": plan.budget, "seed": plan.seed, "threads": plan.threads,
    }  # fmt: skip
    with torch_threads(plan.threads):  # for the validation, whose bits depend on their number
        store, state = open_attack(folder, target, _recipe(plan, target, folder, chunk), described, chunk)
    if state.done:
        store.close()
        return UnitOutcome((f"{folder} has all of these units already.",))
    began = time.perf_counter()
    try:
        with torch_threads(plan.threads):
            result = _attack(target, units, plan, settings, streams, tick)
            if result is None:
                store.withdraw()
                return UnitOutcome(("Stopped before the units were done; nothing was kept.",), done=False)
            logits = float32_logits(target, result.images, chunk)
        best, winners = _winners(result, logits, target.multilabel)
        state = state.advanced(len(target.labels), result.forwards, result.backwards, result.notes)
        row = metrics_row(best, 1, result.forwards, len({w.birth for w in winners}))
        _pictures(target, folder, units, result, logits)
        spent = time.perf_counter() - began
        group = ImageGroup(winners, "erhan", [(1, row)])
        commit(store, state, group, spent, f"all {len(names)} units are done", target)
    except BaseException:
        store.withdraw()
        raise
    store.close()
    return UnitOutcome((*result.notes, *result.lines(units)))


def unit_of(target: Target, text: str) -> _Unit:
    """(layer, index) of "LAYER:CHANNEL", which in a map means its middle, or of a name with a full index.

    TargetError, with the layer's shape, if there is no such unit.
    """
    if target.network is None:
        raise no_gradients(target)
    layer, *numbers = text.split(":")
    index = tuple(number for number in map(whole_number, numbers) if number is not None)
    if not numbers or len(index) < len(numbers):
        raise TargetError(f"unit {text} has to be LAYER:CHANNEL or LAYER:CHANNEL:Y:X, as in fc1:7")
    if layer not in dict(target.network.module.named_modules()):
        raise unknown_layer(target, layer)
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        shape = tuple(hooks.forward(torch.zeros(1, *target.shape)).layer(layer).shape[1:])
    sides = " x ".join(map(str, shape))
    if len(index) != len(shape) and not (len(index) == 1 and len(shape) == 3):
        named = {1: "LAYER:CHANNEL", 2: "LAYER:TOKEN:FEATURE", 3: "LAYER:CHANNEL or LAYER:CHANNEL:Y:X"}
        form = named.get(len(shape), f"an index of {len(shape)} numbers")
        raise TargetError(f'unit {text}: layer "{layer}" of {target.name} is {sides}; name a unit as {form}')
    for number, side in zip(index, shape, strict=False):
        if number >= side:
            raise TargetError(f'unit {text}: layer "{layer}" of {target.name} is {sides}: {number} is not in 0..{side - 1}')
    return layer, index


@dataclass(frozen=True)
class _UnitImages:
    """The images of all starts of all units, unit after unit."""

    images: np.ndarray  # uint8 (units * restarts, C, H, W)
    activations: np.ndarray  # (units * restarts,) float64
    restarts: int
    forwards: int
    backwards: int
    notes: list[str]

    def lines(self, units: Sequence[_Unit]) -> list[str]:
        """A line for each unit."""
        lines = []
        for unit, each in zip(units, self.activations.reshape(-1, self.restarts), strict=True):
            known = np.isfinite(each).all() and each.mean() != 0
            spread = f", spread (deviation / mean) {each.std() / abs(each.mean()):.3f}" if known else ""
            lines.append(f"{_name(*unit)}  activation {each.max():.4g}, {self.restarts} starts{spread}")
        return lines


def _recipe(plan: UnitPlan, target: Target, folder: Path, chunk: int) -> Recipe:
    parts = {
        "name": folder.resolve().name or "units",
        "target": target.name,
        "encoding": {"kind": "direct"},
        "search": {"seed": plan.seed, "batch": chunk},
        "stop": {"evaluations": 1},
        "compute": {"chunk": chunk, "threads": plan.threads, "format": "float32"},
    }
    return parse(parts, "erhan")


def _attack(
    target: Target,
    units: Sequence[_Unit],
    plan: UnitPlan,
    settings: Mapping[str, Any],
    streams: int,
    tick: Tick | None,
) -> _UnitImages | None:
    """None if tick stopped it. Layer after layer, since a pass stops at the layer that it reads."""
    n = settings["restarts"]
    images = np.zeros((len(units) * n, *target.shape), np.uint8)
    activations = np.full(len(units) * n, -np.inf)
    forwards = backwards = 0
    notes: list[str] = []
    for layer in dict.fromkeys(name for name, _ in units):
        positions = [k for k, (name, _) in enumerate(units) if name == layer]
        result = gradient.units(
            target, layer, [units[k][1] for k in positions], budget=plan.budget, seed=plan.seed, tick=tick,
            streams=streams or target.streams, microbatch=2 if is_large(target.shape) else 64, **settings,
        )  # fmt: skip
        if result.interrupted:
            return None
        rows = np.concatenate([np.arange(k * n, (k + 1) * n) for k in positions])
        images[rows], activations[rows] = result.images, result.scores
        forwards, backwards = forwards + int(result.forwards.sum()), backwards + int(result.backwards.sum())
        all_notes = result.notes + [(item, STUCK) for item in result.stuck]
        notes += [f"{_name(*units[positions[item // n]])}, start {item % n}: {note}" for item, note in all_notes]
    return _UnitImages(images, activations, n, forwards, backwards, notes)


def _winners(result: _UnitImages, logits: np.ndarray, multilabel: bool) -> tuple[np.ndarray, list[Image]]:
    """The best confidence of each class (K,), and the images that are elites: each image competes in all classes."""
    odds, margins = log_odds(logits, multilabel), margin(logits, multilabel)
    odds[~np.isfinite(result.activations) | ~np.isfinite(logits).all(1)] = -np.inf
    best = odds.argmax(0)
    images = result.images
    winners = [
        Image(int(row), c, images[row].tobytes(), images[row], float(odds[row, c]), float(margins[row, c]))
        for c, row in enumerate(best)
        if np.isfinite(odds[row, c])
    ]
    return np.asarray(confidence(odds[best, np.arange(len(best))])), winners


def _pictures(target: Target, folder: Path, units: Sequence[_Unit], result: _UnitImages, logits: np.ndarray) -> None:
    entries, tiles = [], []
    for k, unit in enumerate(units):
        name = _name(*unit)
        each = result.activations[k * result.restarts : (k + 1) * result.restarts]
        best = k * result.restarts + int(each.argmax())
        predicted = int(logits[best].argmax())
        odds = float(log_odds(logits[best : best + 1], target.multilabel)[0, predicted])
        p = float(confidence(odds))
        file = f"unit-{name.replace(':', '-').replace('/', '_')}.png"
        save_png(result.images[best], folder / file)
        label = target.labels[predicted]
        tiles.append(Tile(result.images[best], f"{name}: {label}", p, log_odds=odds))
        entries.append({"unit": name, "file": file, "activations": each.tolist(), "called": label, "confidence": p})
    title = f"{short_name(target.name)}: units, and the classes of their images"
    save_picture(contact_sheet(tiles, title=title), folder / "units.png")
    write_whole(folder / "units.json", to_json(entries) + "\n")


def _name(layer: str, index: Sequence[int]) -> str:
    return f"{layer}:{':'.join(map(str, index))}"
