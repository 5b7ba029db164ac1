"""Erhan's units as a run: images that drive single units, and what the classifier calls them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool.ascend.hooks import Hooks, refused, unknown_layer
from evofool.ascend.loop import STUCK, Tick
from evofool.attacks import gradient
from evofool.attacks.run import settings_of
from evofool.errors import TargetError
from evofool.images import is_large, save_png
from evofool.machine import torch_threads
from evofool.pages.sheet import Tile, contact_sheet
from evofool.recipe import parse
from evofool.run.imported import Image, chunk_of, commit, metrics_row, opened
from evofool.scores import confidence, log_odds, margin
from evofool.targets import Target
from evofool.targets.redaction import short_name


@dataclass(frozen=True)
class UnitRun:
    """What came of it: a line for each unit, after the notes. done: they were climbed to the end, else nothing is kept."""

    lines: tuple[str, ...]
    done: bool = True


def run_units(
    target: Target,
    units: Sequence[str],
    folder: Path,
    *,
    settings: Mapping[str, Any],
    budget: int = 0,
    seed: int = 0,
    threads: int = 1,
    streams: int = 0,
    tick: Tick | None = None,
) -> UnitRun:
    """Climb each of the units "LAYER:CHANNEL" or "LAYER:CHANNEL:Y:X" from several starts (gradient.units), into a run.

    A unit stands for no class, so every image competes in every class, as in evolution. Beside the run: the best image of
    each unit as unit-LAYER-INDEX.png, units.json with the activations that all starts came to, and units.png, the sheet of
    them. settings are erhan's; budget: forward passes for each unit (0: as published). tick is called after every step of a
    layer; where it ends the work, nothing is kept. TargetError for a layer or a unit that is not there, RecipeError for a
    setting; StoreError or RecipeError if folder has another run.
    """
    units = list(dict.fromkeys(units))
    parsed = [unit_of(target, unit) for unit in units]
    chosen = settings_of("erhan", settings)
    chunk = chunk_of(target)
    parts = {
        "name": folder.resolve().name or "units",
        "target": target.name,
        "encoding": {"kind": "direct"},
        "search": {"seed": seed, "batch": chunk},
        "stop": {"evaluations": 1},
        "compute": {"chunk": chunk, "threads": threads, "format": "float32"},
    }
    recipe = parse(parts, "erhan")
    plan = {"method": "erhan", "units": units, "settings": chosen, "budget": budget, "seed": seed, "threads": threads}
    store, state = opened(folder, target, recipe, plan, chunk)
    if state["done"]:
        store.close()
        return UnitRun((f"{folder} has all of these units already.",))
    began = time.perf_counter()
    try:
        with torch_threads(threads):
            climbed = _climb(target, parsed, chosen, budget, seed, streams, tick)
            if climbed is None:
                store.withdraw()
                return UnitRun(("Stopped before the units were done; nothing was kept.",), done=False)
            images, scores, lines, total, notes = climbed
            answers = [target.logits(images[at : at + chunk], chunk) for at in range(0, len(images), chunk)]
        logits = np.concatenate(answers)
        odds, gaps = log_odds(logits), margin(logits)
        odds[~np.isfinite(scores) | ~np.isfinite(logits).all(1)] = -np.inf
        best = odds.argmax(0)
        winners = [
            Image(int(row), c, images[row].tobytes(), images[row], float(odds[row, c]), float(gaps[row, c]))
            for c, row in enumerate(best)
            if np.isfinite(odds[row, c])
        ]
        state = {**state, "done": len(target.labels), "forwards": total[0], "backwards": total[1], "notes": notes}
        p = np.asarray(confidence(odds[best, np.arange(len(best))]))
        row = metrics_row(p, 1, total[0], len({w.birth for w in winners}))
        _pictures(target, folder, parsed, images, scores, chosen["restarts"], logits)
        spent = time.perf_counter() - began
        commit(store, state, winners, "erhan", spent, f"all {len(units)} units are done", target.queries, [(1, row)])
    except BaseException:
        store.withdraw()
        raise
    store.close()
    return UnitRun((*notes, *lines))


def unit_of(target: Target, text: str) -> tuple[str, tuple[int, ...]]:
    """(layer, index) of "LAYER:CHANNEL", which in a map is its middle, or with an index into all of the layer's sides.

    TargetError, with the layer's sides, if there is no such unit.
    """
    if target.network is None:
        raise refused(target)
    layer, *numbers = text.split(":")
    if not numbers or not all(n.isdecimal() for n in numbers):
        raise TargetError(f"unit {text}: has to be LAYER:CHANNEL or LAYER:CHANNEL:Y:X, as in fc1:7")
    if layer not in dict(target.network.module.named_modules()):
        raise unknown_layer(target, layer)
    index = tuple(int(n) for n in numbers)
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        shape = tuple(hooks.read(torch.zeros(1, *target.shape)).layer(layer).shape[1:])
    sides = " x ".join(map(str, shape))
    if len(index) != len(shape) and not (len(index) == 1 and len(shape) == 3):
        named = {1: "LAYER:CHANNEL", 2: "LAYER:TOKEN:FEATURE", 3: "LAYER:CHANNEL or LAYER:CHANNEL:Y:X"}
        way = named.get(len(shape), f"an index of {len(shape)} numbers")
        raise TargetError(f'unit {text}: layer "{layer}" of {target.name} is {sides}; its units are named {way}')
    for number, side in zip(index, shape, strict=False):
        if number >= side:
            raise TargetError(
                f'unit {text}: layer "{layer}" of {target.name} is {sides}: {number} lies beyond 0 to {side - 1}'
            )
    return layer, index


def _climb(
    target: Target,
    units: Sequence[tuple[str, tuple[int, ...]]],
    settings: Mapping[str, Any],
    budget: int,
    seed: int,
    streams: int,
    tick: Tick | None,
) -> tuple[np.ndarray, np.ndarray, list[str], tuple[int, int], list[str]] | None:
    """Images and activations of all starts of all units, lines for people, passes, notes; None if tick ended it.

    Layer after layer, since a pass stops at the layer that it is for.
    """
    n = settings["restarts"]
    images = np.zeros((len(units) * n, *target.shape), np.uint8)
    scores = np.full(len(units) * n, -np.inf)
    forwards = backwards = 0
    notes: list[str] = []
    for layer in dict.fromkeys(name for name, _ in units):
        places = [k for k, (name, _) in enumerate(units) if name == layer]
        climbs = gradient.units(
            target, layer, [units[k][1] for k in places], budget=budget, seed=seed, tick=tick,
            streams=streams or target.streams, microbatch=2 if is_large(target.shape) else 64, **settings,
        )  # fmt: skip
        if climbs.interrupted:
            return None
        rows = np.concatenate([np.arange(k * n, (k + 1) * n) for k in places])
        images[rows], scores[rows] = climbs.images, climbs.scores
        forwards, backwards = forwards + int(climbs.forwards.sum()), backwards + int(climbs.backwards.sum())
        told = climbs.notes + [(item, STUCK) for item in climbs.stuck]
        notes += [f"{_name(*units[places[item // n]])}, start {item % n}: {words}" for item, words in told]
    lines = []
    for unit, each in zip(units, scores.reshape(-1, n), strict=True):
        whole = np.isfinite(each).all() and each.mean() != 0
        spread = f", spread (deviation / mean) {each.std() / abs(each.mean()):.3f}" if whole else ""
        lines.append(f"{_name(*unit)}  activation {each.max():.4g}, {n} starts{spread}")
    return images, scores, lines, (forwards, backwards), notes


def _pictures(
    target: Target,
    folder: Path,
    units: Sequence[tuple[str, tuple[int, ...]]],
    images: np.ndarray,
    scores: np.ndarray,
    restarts: int,
    logits: np.ndarray,
) -> None:
    told, tiles = [], []
    for k, unit in enumerate(units):
        name = _name(*unit)
        each = scores[k * restarts : (k + 1) * restarts]
        best = k * restarts + int(each.argmax())
        called = int(logits[best].argmax())
        odds = float(log_odds(logits[best : best + 1])[0, called])
        p = float(confidence(odds))
        file = f"unit-{name.replace(':', '-').replace('/', '_')}.png"
        save_png(images[best], folder / file)
        tiles.append(Tile(images[best], f"{name}: {target.labels[called]}", p, log_odds=odds))
        told.append(
            {"unit": name, "file": file, "activations": each.tolist(), "called": target.labels[called], "confidence": p}
        )
    title = f"{short_name(target.name)}: units, and what their images are called"
    contact_sheet(tiles, title=title).save(folder / "units.png")
    (folder / "units.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _name(layer: str, index: Sequence[int]) -> str:
    return f"{layer}:{':'.join(map(str, index))}"
