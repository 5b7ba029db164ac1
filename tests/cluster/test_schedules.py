"""Searches with workers in this process, whose answers arrive in an order that is drawn, which Ray has but rarely."""

import pickle
import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evofool.cluster import evaluator, slots, start_up
from evofool.cluster.worker import Worker
from evofool.errors import TargetError
from evofool.recipe import Recipe, parse
from evofool.run.checkpoints import CheckpointWriter
from evofool.run.replay import content, differences
from evofool.run.run import Run
from evofool.run.stored import StoredRun

TARGETS = '''
"""Five classes of 1x6x6 images. A worker's target, and no other, is wrong from its 201st image on."""
import numpy as np

IN_A_WORKER = False

class Answer:
    shape, labels = (1, 6, 6), ["a", "b", "c", "d", "e"]
    def __init__(self): self.worker, self.seen = IN_A_WORKER, 0
    def __call__(self, images):
        self.seen += len(images)
        weights = np.random.default_rng(9).integers(-8, 9, (36, 5))
        logits = (images.reshape(len(images), -1).astype(np.int64) @ weights / 256.0).astype(np.float32)
        return logits * 2 if self.worker and self.seen > 200 else logits

def later(): return Answer()
'''


class Call:
    """What stands for a ray.ObjectRef: a call that an actor has got, and its result once it is made."""

    def __init__(self, actor: "Actor", method: str, arguments: tuple[Any, ...]) -> None:
        self.actor, self.method, self.done, self.value = actor, method, False, None
        # As on another machine, what was sent does not change any more; a setup is not changed.
        self.arguments = arguments if method == "build" else pickle.loads(pickle.dumps(arguments))  # noqa: S301


class Actor:
    """What stands for an actor: a worker in this process, which makes its oldest call when it is told to."""

    def __init__(self, speed: int) -> None:
        self.worker, self.calls, self.speed = Worker(), deque[Call](), speed

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> Call:
            self.calls.append(Call(self, method, arguments))
            return self.calls[-1]

        return type("Method", (), {"remote": staticmethod(remote)})

    def step(self) -> None:
        call = self.calls.popleft()
        targets = sys.modules["late_targets"]
        targets.IN_A_WORKER = True  # type: ignore[attr-defined]
        try:
            call.value = getattr(self.worker, call.method)(*call.arguments)
        finally:
            targets.IN_A_WORKER = False  # type: ignore[attr-defined]
        call.done = True


class Schedule:
    """Draws which actor answers next, and whether more than one has answered by then."""

    def __init__(self, seed: int) -> None:
        self.draws = random.Random(seed)

    def new_actor(self, options: object) -> Actor:
        return Actor(self.draws.choice([1, 1, 1, 4, 10]))

    def ready(self, calls: Sequence[Call], seconds: float, enough: int = 1) -> list[Call]:
        if seconds:
            while not any(call.done for call in calls):
                self._step(calls)
            if self.draws.random() < 0.5:
                for _ in range(self.draws.randint(0, 3)):
                    self._step(calls)
        return [call for call in calls if call.done]

    def _step(self, calls: Sequence[Call]) -> None:
        actors = list({id(call.actor): call.actor for call in calls if not call.done}.values())
        if actors:
            self.draws.choices(actors, [actor.speed for actor in actors])[0].step()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "late_targets.py").write_text(TARGETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "late_targets", raising=False)
    return tmp_path


@pytest.fixture
def scheduled(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that lets workers answer by a schedule of this seed, which decides when checkpoints are due too."""

    class NoDashboard:
        def update(self, *_: object) -> None: ...

    def use(seed: int) -> None:
        schedule = Schedule(seed)
        for module, name, stand_in in (
            (evaluator, "new_actor", schedule.new_actor),
            (evaluator, "ready", schedule.ready),
            (evaluator, "result", lambda call: call.value),
            (evaluator, "Dashboard", NoDashboard),
            (evaluator, "owns_cluster", lambda: False),
            *((evaluator, name, lambda *_: None) for name in ("connect", "disconnect", "check_cluster")),
            *((module, "ask", lambda what, *_: what()) for module in (evaluator, start_up)),
            (slots.ray, "kill", lambda actor: None),
            (start_up.StartUp, "hanging", lambda *_: iter(())),
            (start_up.StartUp, "note", lambda *_: ""),
            (CheckpointWriter, "due", lambda self, now: not self._held and schedule.draws.random() < 0.3),
            (CheckpointWriter, "whole_due", lambda self, now: schedule.draws.random() < 0.2),
        ):
            monkeypatch.setattr(module, name, stand_in)

    return use


def recipe(workers: int) -> Recipe:
    data = {
        "target": "python:late_targets:later",
        "encoding": {"kind": "direct", "crossover": 0.3},
        "search": {"seed": 3, "batch": 16, "lag": 3},
        "compute": {"chunk": 8, "workers": workers, "streams": 1},
        "stop": {"evaluations": 1920},
    }
    return parse(data, "test")


def test_nothing_is_kept_that_workers_answered_after_they_became_wrong_in_the_same_way(
    here: Path, scheduled: Callable[[int], None]
) -> None:
    """While this process checked one worker at a checkpoint, wrong results were kept with these schedules."""
    with Run.start(recipe(0), here / "undisturbed") as run:
        assert run.advance()
    with StoredRun(here / "undisturbed") as stored:
        expected = content(stored)
    for seed in (13, 15, 22):
        scheduled(seed)
        folder = here / str(seed)
        with Run.start(recipe(2), folder) as run, pytest.raises(TargetError, match="no worker is left"):
            run.advance()
        with Run.resume(folder, recipe(0), trust=True) as run:
            assert run.strategy.committed > 4
            assert run.advance()
        with StoredRun(folder) as stored:
            assert differences(expected, content(stored)) == []
