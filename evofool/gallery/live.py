"""What has changed in a run, as server-sent events: every browser tab of a run is served by one watcher of its file."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import EvofoolError
from evofool.explain.phrases import confidence_text
from evofool.gallery.levels import level_of
from evofool.gallery.open_runs import OpenRun, OpenRuns
from evofool.printer import duration
from evofool.run.schema import EliteKey
from evofool.scores import confidence

_INTERVAL = 0.25  # seconds between two looks at a file
_ALIVE = 15.0  # seconds after which a comment is sent, so that a browser that is gone is noticed
_HIGH = 0.99


def standing(run: OpenRun) -> dict[str, Any]:
    """How far a run is: evaluations, time, the confidence of the median log-odds, how many cells have at least 0.99, and why
    it has ended.
    """
    odds = np.array([key.log_odds for key in run.keys.values()])
    meta = run.stored.meta
    return {
        "evaluations": run.stored.evaluations,
        "time": duration(meta.seconds),
        "median": confidence_text(float(np.median(odds))) if len(odds) else "none",
        "high": int((np.asarray(confidence(odds)) >= _HIGH).sum()) if len(odds) else 0,
        "cells": len(run.keys),
        "finished": meta.finished,
    }


def news(run: OpenRun) -> dict[str, Any]:
    """The first event of a stream: how far the run is, and all its elites."""
    return {"standing": standing(run), "changed": [_changed(key) for key in run.keys.values()]}


@dataclass
class _Watched:
    """One run's file, its elites as they were last seen, and a queue for each tab."""

    folder: Path
    keys: dict[int, EliteKey]
    version: tuple[int, str | None]  # evaluations, why it has ended
    tabs: set["asyncio.Queue[str]"] = field(default_factory=set)
    task: "asyncio.Task[None] | None" = None


class Watchers:
    """The watchers of the runs that some tab shows. Each reads its file only when another process has written to it."""

    def __init__(self, runs: OpenRuns) -> None:
        self._runs = runs
        self._watched: dict[Path, _Watched] = {}

    async def events(self, folder: Path) -> AsyncIterator[str]:
        """The text of a stream of events, without end: first the state now, then each change.

        An event is {"standing": ..., "changed": [[cell, name of the picture, confidence, level], ...]}.
        """
        first, keys = await self._runs.read(folder, lambda run: (standing(run), dict(run.keys)))
        watched = self._watched.get(folder)
        if watched is None:
            watched = self._watched[folder] = _Watched(folder, keys, (first["evaluations"], first["finished"]))
            watched.task = asyncio.create_task(self._watch(watched))
        queue: asyncio.Queue[str] = asyncio.Queue()
        watched.tabs.add(queue)
        try:
            yield _event({"standing": first, "changed": [_changed(key) for key in keys.values()]})
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _ALIVE)
                except TimeoutError:
                    event = ": \n\n"
                if not event:
                    return
                yield event
        finally:
            watched.tabs.discard(queue)
            if not watched.tabs and watched.task is not None:
                watched.task.cancel()
                self._watched.pop(folder, None)

    def close(self) -> None:
        """End all streams."""
        for watched in self._watched.values():
            for queue in watched.tabs:
                queue.put_nowait("")

    async def _watch(self, watched: _Watched) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                now, keys = await self._runs.read(watched.folder, lambda run: (standing(run), run.keys))
            except EvofoolError as error:
                self._send(watched, {"fault": str(error)})
                continue
            version = now["evaluations"], now["finished"]
            changed = [_changed(key) for cell, key in keys.items() if watched.keys.get(cell) != key]
            if changed or version != watched.version:
                watched.keys, watched.version = dict(keys), version
                self._send(watched, {"standing": now, "changed": changed})

    def _send(self, watched: _Watched, content: dict[str, Any]) -> None:
        for queue in watched.tabs:
            queue.put_nowait(_event(content))


def _changed(key: EliteKey) -> list[Any]:
    return [key.cell, f"{key.birth}-{key.sha256}", confidence_text(key.log_odds), level_of(key.log_odds)]


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, allow_nan=False)}\n\n"
