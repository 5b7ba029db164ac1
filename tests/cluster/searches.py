"""Searches of the tests on Ray, their odd targets, and the processes of Ray."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evofool
from evofool.recipe import Recipe, parse
from evofool.run.run import Run
from evofool.run.store import Store

HOME = Path(evofool.__file__).parent.parent
OURS = "import sys; from evofool.cli.app import main; main()"
TARGETS = '''
"""Five classes of 1x6x6 images. About one image in MANY is of each special kind; `tame` lets these win nothing."""
import os, time
import numpy as np

MANY = 831  # gives a search of 960 images one of each kind, late

def linear(images):
    weights = np.random.default_rng(9).integers(-8, 9, (36, 5))
    return (images.reshape(len(images), -1).astype(np.int64) @ weights / 256.0).astype(np.float32)

def special(images):
    flat = images.reshape(len(images), -1).astype(np.int64)
    calm = flat.std(axis=1) < 1  # the patterns that validation uses
    return np.where(calm, 0, flat @ np.arange(3, 39) % MANY)

class Answer:
    shape, labels = (1, 6, 6), ["a", "b", "c", "d", "e"]
    def __init__(self, does): self.does = does
    def __call__(self, images):
        logits, kinds = linear(images), special(images)
        return self.does(logits, kinds)

def by_row(logits):
    """What a processor does that rounds otherwise in another row, only more of it."""
    return logits + np.arange(len(logits), dtype=np.float32)[:, None] * np.linspace(0, 1e-3, 5, dtype=np.float32)

def plain(): return Answer(lambda logits, kinds: logits)

def tame():
    def does(logits, kinds):
        logits = by_row(logits)
        logits[(kinds >= 1) & (kinds <= 4)] = [0, -1000, 0, -1000, -1000]  # a and c are past even odds by then
        return logits
    return Answer(does)

def wild():
    def does(logits, kinds):
        if (kinds == 1).any(): os._exit(1)
        if (kinds == 2).any(): raise ValueError("an odd image")
        if (kinds == 3).any():
            open(f"hangs-{os.getpid()}", "w").close()
            time.sleep(600)
        logits = by_row(logits)
        logits[kinds == 4] = np.nan
        return logits
    return Answer(does)

def in_a_worker():
    import sys
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None

def broken():
    def does(logits, kinds):
        if in_a_worker(): raise ValueError("nothing works")
        return logits
    return Answer(does)

def slow():
    def does(logits, kinds):
        time.sleep(0.002 * (kinds[0] % 7))
        return logits
    return Answer(does)

def long():
    def does(logits, kinds):
        time.sleep(0.1)
        return logits
    return Answer(does)

def sick():
    """The first process that is a worker breaks everything from its 100th image on."""
    seen = [0]
    first = in_a_worker() and not os.path.exists("was_sick")
    if first: open("was_sick", "w").close()
    def does(logits, kinds):
        seen[0] += len(logits)
        if first and 100 < seen[0]: logits[:] = np.nan
        return logits
    return Answer(does)

def huge():
    def does(logits, kinds):
        if in_a_worker() and len(logits) == 8: raise MemoryError
        return logits
    return Answer(does)

def endless():
    if in_a_worker(): time.sleep(600)
    return plain()

def near():
    import torch
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 5))
    net.shape, net.labels = Answer.shape, Answer.labels
    return net

def here_alone():
    answer = plain()
    if in_a_worker(): answer.labels = ["a", "b", "c", "d", "E"]
    return answer
'''


def ray_processes() -> set[int]:
    """Processes that Ray has started on this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/raylet" in line or b"gcs_server" in line or line.startswith(b"ray::"):
                found.add(int(entry.name))
    return found


def wait_for(what: Any, seconds: float = 300.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(what())


def recipe(target: str = "plain", workers: int = 0, evaluations: int = 960, **parts: Any) -> Recipe:
    data = {
        "target": f"python:odd_targets:{target}",
        "encoding": {"kind": "direct", "crossover": 0.3},
        "search": {"seed": 3, "batch": 16, "lag": 3} | parts.pop("search", {}),
        "compute": {"chunk": 8, "workers": workers, "streams": 1, "ray": parts.pop("ray", {})},
        "stop": parts.pop("stop", {"evaluations": evaluations}),
        **parts,
    }
    return parse(data, "test")


def await_workers(run: Run) -> None:
    """Until all are ready: on a busy machine a short search may be done before the last one is."""
    while any(one["state"] != "working" for one in run.evaluator.workers()):
        run.evaluator._step()  # type: ignore[attr-defined]


def finished(folder: Path, one: Recipe, tick: Any = None) -> list[dict[str, Any]]:
    """Finish the run; returns its workers at the end."""
    with Run.start(one, folder) as run:
        assert run.advance(tick, every=0.01)
        return run.evaluator.workers()


def evofool_command(*words: Any, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", OURS, *map(str, words)],
        capture_output=True, text=True, timeout=300, check=False, env=environment_of(**environment),
    )  # fmt: skip


def environment_of(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")]), **more}


def committed(folder: Path) -> int:
    if not (folder / "run.db").exists():
        return 0
    with Store.open(folder) as store:
        return int(store.meta().committed)
