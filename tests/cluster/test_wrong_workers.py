"""Searches with a worker that answers wrongly: it is named, and the archive is that of a search without it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evofool.errors import TargetError
from evofool.recipe import Recipe, parse
from evofool.run.replay import content, differences, replay
from evofool.run.run import Run
from evofool.run.stored import StoredRun

pytestmark = pytest.mark.slow

TARGETS = '''
"""Five classes of 1x6x6 images. Of the processes that are workers the first is wrong."""
import os, sys
import numpy as np

def linear(images):
    weights = np.random.default_rng(9).integers(-8, 9, (36, 5))
    return (images.reshape(len(images), -1).astype(np.int64) @ weights / 256.0).astype(np.float32)

def is_first(name):
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None: return False
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

class Answer:
    shape, labels = (1, 6, 6), ["a", "b", "c", "d", "e"]
    def __init__(self, does, name="wrong", after=0):
        self.does, self.after, self.seen = does, after, 0
        self.wrong = does is not None and is_first(name)
    def __call__(self, images):
        self.seen += len(images)
        logits = linear(images)
        return self.does(logits) if self.wrong and self.seen > self.after else logits

def right(): return Answer(None)
def doubles(): return Answer(lambda z: z * 2)
def later(): return Answer(lambda z: z * 2, after=200)
def always_later(): return Answer(lambda z: z * 2, name=f"wrong-{os.getpid()}", after=200)

def now_and_then():
    def does(logits):
        if answer.seen % 80 < 8: logits[3] = np.nan
        return logits
    answer = Answer(does, after=100)
    return answer

def another_torch():
    import torch
    answer = Answer(lambda z: np.nextafter(z, np.float32(np.inf)))
    if answer.wrong: torch.__version__ = "1.0"
    return answer
'''


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wrong_targets.py").write_text(TARGETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_targets", raising=False)
    return tmp_path


def recipe(target: str, workers: int = 2, **search: Any) -> Recipe:
    data = {
        "target": f"python:wrong_targets:{target}",
        "encoding": {"kind": "direct", "crossover": 0.3},
        "search": {"seed": 3, "batch": 16, "lag": 3} | search,
        "compute": {"chunk": 8, "workers": workers, "streams": 1},
        "stop": {"evaluations": 1920},
        "save": {"seconds": 0.0},
    }
    return parse(data, "test")


def await_workers(run: Run, ready: Callable[[Run], bool]) -> None:
    """Until the workers are as wanted: on a busy machine one alone may be done before the other has started."""
    while not ready(run):
        run.evaluator._step()  # type: ignore[attr-defined]


def both_work(run: Run) -> bool:
    return all(one["state"] == "working" for one in run.evaluator.workers())


def one_is_named(run: Run) -> bool:
    return any(note.startswith("worker ") and "answers differently" in note for note in run.evaluator.notes)


def differing(one: Path, other: Path) -> list[str]:
    with StoredRun(one) as a, StoredRun(other) as b:
        return differences(content(a), content(b))


@pytest.fixture
def undisturbed(here: Path) -> Path:
    """The same search in this process."""
    with Run.start(recipe("right", workers=0), here / "undisturbed") as run:
        run.advance()
    return here / "undisturbed"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("doubles", "answers differently from this machine: largest difference"),
        ("another_torch", "it has torch 1.0, this machine torch 2"),
    ],
)
def test_a_worker_that_is_wrong_from_its_start_is_named_and_not_used(
    here: Path, undisturbed: Path, target: str, says: str
) -> None:
    with Run.start(recipe(target), here / "run") as run:
        await_workers(run, one_is_named)
        assert run.advance()
        (warning, *_) = [text for text in run.warnings if "answers differently" in text]
        assert says in warning
        assert warning.endswith("It is started once more")
        assert not any("rewound" in text for text in run.warnings), "it never got an order"
    assert differing(undisturbed, here / "run") == []


def test_a_worker_that_becomes_wrong_is_named_and_the_run_is_rewound(here: Path, undisturbed: Path) -> None:
    with Run.start(recipe("later"), here / "run") as run:
        await_workers(run, both_work)
        assert run.advance()
        (rewound,) = [text for text in run.warnings if text.startswith("rewound to")]
        assert "evaluations, the last checkpoint at which all workers agreed, from " in rewound
        assert ", because worker " in rewound
        repeated = run.repeated
    assert differing(undisturbed, here / "run") == []
    with StoredRun(here / "run") as stored:
        assert rewound in stored.meta.warnings
        assert stored.meta.repeated == repeated > 0, "images evaluated again are counted"
        assert stored.meta.answers - 1920 < 200, "the validation and the batches in progress, no checks"


def test_a_run_that_was_rewound_and_interrupted_can_be_resumed(here: Path, undisturbed: Path) -> None:
    with Run.start(recipe("later"), here / "run") as run:
        await_workers(run, both_work)
        assert run.advance(lambda run: any("rewound" in text for text in run.warnings), every=0.0) is None
    with Run.resume(here / "run", recipe("later", workers=0), trust=True) as run:
        assert run.advance()
    assert differing(undisturbed, here / "run") == []


def test_a_worker_that_answers_nan_now_and_then_is_named_and_no_image_is_quarantined(here: Path, undisturbed: Path) -> None:
    with Run.start(recipe("now_and_then"), here / "run") as run:
        await_workers(run, both_work)
        assert run.advance()
        # It may be a check that the worker answers so, not an order.
        says = ("fails on images that this machine classifies", "NaN or infinity where finite logits are expected")
        assert any(text.startswith("worker ") and any(part in text for part in says) for text in run.warnings)
    assert differing(undisturbed, here / "run") == [], "the quarantine is part of it"


def test_a_search_in_free_mode_is_rewound_as_well(here: Path) -> None:
    with Run.start(recipe("later", mode="free"), here / "run") as run:
        await_workers(run, both_work)
        assert run.advance()
        assert any(text.startswith("rewound to") for text in run.warnings)
    assert replay(here / "run", here / "again", trust=True).differences == ()


def test_a_search_ends_when_no_worker_is_left_and_keeps_what_was_agreed_on(here: Path, undisturbed: Path) -> None:
    with (
        Run.start(recipe("always_later"), here / "run") as run,
        pytest.raises(TargetError, match=r"no worker is left: worker \d on .* answers differently from this machine"),
    ):
        run.advance()
    with Run.resume(here / "run", recipe("always_later", workers=0), trust=True) as run:
        assert run.advance()
    assert differing(undisturbed, here / "run") == []


def test_elites_that_score_otherwise_at_the_end_are_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.start(recipe("right"), here / "run") as run:
        save = run._save

        def tampered(whole: bool, end: bool = False) -> None:
            save(whole, end)
            if whole:
                run.archive.log_odds[2] += 0.5

        monkeypatch.setattr(run, "_save", tampered)
        with pytest.raises(
            TargetError, match=r"1 elites do not have their stored scores: classes 2 \(c\); largest difference"
        ):
            run.advance()
