"""Attacks as runs: they can be shown, verified, merged and resumed like any other run."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evofool
from evofool.attacks.run import (
    METHODS,
    AttackOutcome,
    AttackPlan,
    run_baseline,
)
from evofool.attacks.session import AttackProgress
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.export.export import export
from evofool.images import decode_png
from evofool.recipe import load
from evofool.run.merge import merge
from evofool.run.reader import FILE
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.scores import confidence, log_odds, margin
from evofool.targets import Target, target
from tests.attacks.samples import CLASSES, LABELS, SIDE, Tiny, each_method, tiny

HOME = Path(evofool.__file__).parent.parent
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
GRADIENTS = [name for name, method in METHODS.items() if method.gradients]
BLACK_BOX = [name for name in METHODS if name not in GRADIENTS]


def box() -> Target:
    """A black box: linear in the pixels, in exact arithmetic."""
    weights = np.random.default_rng(9).integers(-8, 9, (SIDE * SIDE, CLASSES))

    def forward(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1).astype(np.int64) @ weights / 1024.0).astype(np.float32)

    return Target("box", LABELS, (1, SIDE, SIDE), forward, {})


def content(folder: Path) -> dict[str, Any]:
    """Everything that a run has stored except timings and ids."""
    with Store.open(folder) as store:
        meta = store.meta()
        assert meta.attack is not None
        state = meta.attack.model_dump(exclude={"queries_before"})
        return {
            "elites": store.elites(),
            "cell_history": store.cell_history(),
            "metrics": [(m.batch, m.row) for m in store.metrics()],
            "improvements": store.improvements(),
            "methods": store.methods(),
            "genomes": store.genomes({change.birth for change in store.cell_history()}),
            "state": state,
            "meta": meta.model_dump(include={"recipe", "committed", "shown", "finished", "answers", "warnings"}),
        }


def of(method: str, budget: int) -> int:
    """The budget, for a method that can have one."""
    return 1 if method == "noise" else budget


def stopping(classes: int) -> Callable[[AttackProgress], bool]:
    return lambda progress: progress.done >= classes


# --- an ordinary run


@each_method
def test_every_method_makes_a_run_that_can_be_verified_and_exported(tmp_path: Path, lenet: Target, method: str) -> None:
    classes, before = (7, 3), lenet.queries
    outcome = run_baseline(AttackPlan(method, classes, budget=of(method, 20)), lenet, tmp_path / "run")
    queries = lenet.queries - before
    assert outcome == AttackOutcome(2, 2, 2, ())
    with StoredRun(tmp_path / "run") as stored:
        elites = stored.elites()
        assert [e.row.class_id for e in elites] == [3, 7]
        assert {e.row.method for e in elites} == {method}
        assert stored.evaluations == stored.meta.attack.forwards <= 20 * len(classes)
        # Validation and the final scores are queries, too.
        assert stored.evaluations < queries == stored.meta.answers
        assert stored.rows()[-1]["evaluations"] == stored.evaluations
        assert stored.meta.finished == "all 2 classes are done"
        assert stored.genome_json(elites[0])["format"] == "evofool.direct"
        logits = lenet.logits(np.stack([e.image for e in elites]), stored.recipe.chunk)
        for e, odds, gaps in zip(elites, log_odds(logits), margin(logits), strict=True):
            assert (e.row.log_odds, e.row.margin) == (odds[e.row.class_id], gaps[e.row.class_id])
        verdict = verify(stored, lenet)
        assert verdict.exact
        assert verdict.faults == ()
        assert verdict.largest_difference == 0.0
        assert export(stored, tmp_path / "files").images == 2
        for e in elites:
            (path,) = (tmp_path / "files").glob(f"{e.row.class_id}_*/*.png")
            assert np.array_equal(decode_png(path.read_bytes()), e.image)


@each_method
@pytest.mark.parametrize("budget", [24, 31])
def test_no_class_uses_more_than_its_budget_and_all_passes_are_stored(tmp_path: Path, method: str, budget: int) -> None:
    found, classes = tiny(), (4, 0, 2)
    run_baseline(AttackPlan(method, classes, budget=of(method, budget)), found, tmp_path)
    with Store.open(tmp_path) as store:
        passes: dict[int, int] = {}
        for cell, forwards, *_ in store.improvements():
            passes[cell] = max(passes.get(cell, 0), forwards)
        state, answers = store.meta().attack, store.meta().answers
    assert state is not None
    assert set(passes) == set(classes)
    assert max(passes.values()) <= of(method, budget)
    assert sum(passes.values()) == state.forwards
    assert answers == found.queries
    validation = found.queries - state.forwards - len(classes)
    assert 0 < validation <= 15 + 7 * 64 + 32  # the last two: whether logits depend on the row in a chunk of 64


def test_restarts_share_the_budget_of_a_class(tmp_path: Path) -> None:
    run_baseline(AttackPlan("apgd", (0, 1), {"restarts": 4}, budget=31), tiny(), tmp_path)
    with StoredRun(tmp_path) as stored:
        assert stored.evaluations == 2 * 28


def test_all_classes_are_attacked_by_default(tmp_path: Path) -> None:
    seen: list[tuple[AttackPlan, int]] = []
    outcome = run_baseline(AttackPlan("noise"), tiny(), tmp_path, on_start=lambda plan, done: seen.append((plan, done)))
    assert outcome.classes == CLASSES
    ((plan, done),) = seen
    assert (plan.classes, plan.budget, plan.group, done) == (tuple(range(CLASSES)), 1, CLASSES, 0)


@pytest.mark.parametrize("method", BLACK_BOX)
def test_black_box_attacks_need_no_gradients(tmp_path: Path, method: str) -> None:
    found = box()
    run_baseline(AttackPlan(method, budget=of(method, 30)), found, tmp_path)
    with StoredRun(tmp_path) as stored:
        assert verify(stored, found).faults == ()
        assert len(stored.elites()) == CLASSES
        assert stored.meta.attack.backwards == 0


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_black_box_is_refused_by_gradient_attacks_and_no_folder_is_made(tmp_path: Path, method: str) -> None:
    with pytest.raises(TargetError, match=r"box: it has neither gradients nor layers.*square, nes, random"):
        run_baseline(AttackPlan(method), box(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_seed_determines_the_images(tmp_path: Path) -> None:
    found = tiny()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_baseline(AttackPlan("apgd", budget=5, seed=seed), found, tmp_path / name)
    a, b, c = (content(tmp_path / name)["elites"] for name in "abc")
    assert a == b
    assert [e.png for e in a] != [e.png for e in c]


def test_streams_do_not_change_results(tmp_path: Path) -> None:
    found = tiny()
    for streams in (1, 3):
        run_baseline(AttackPlan("apgd", budget=12, microbatch=1), found, tmp_path / str(streams), streams=streams)
    one, three = content(tmp_path / "1"), content(tmp_path / "3")
    del one["meta"], three["meta"]
    assert one == three


# --- other classifiers


def test_the_digit_network_of_2015_is_fooled(tmp_path: Path) -> None:
    weights = DATA / "lenet_caffe.safetensors"
    if not weights.is_file():
        pytest.skip("no shared weights")
    found = target(f"lenet-caffe?weights={weights}")
    run_baseline(AttackPlan("apgd", (0, 8), budget=40), found, tmp_path)
    with StoredRun(tmp_path) as stored:
        assert verify(stored).faults == ()
        assert min(e.confidence for e in stored.elites()) > 0.99


@pytest.mark.parametrize("method", ["nguyen", "fourier", "apgd", "inceptionism", "nes"])
def test_a_colour_network_of_torchvision_is_attacked(tmp_path: Path, method: str) -> None:
    spec = "torchvision:squeezenet1_1?weights=random&size=64"
    found = target(spec)
    run_baseline(AttackPlan(method, (1, 999), budget=12), found, tmp_path)
    with StoredRun(tmp_path) as stored:
        assert stored.recipe.target == found.name
        assert stored.shape == (3, 64, 64)
        assert verify(stored).faults == ()
        assert stored.evaluations <= 24


# --- interrupted and resumed


@pytest.mark.parametrize("method", ["apgd", "erhan", "inceptionism", "square"])
def test_an_attack_resumed_after_a_group_ends_like_an_uninterrupted_one(tmp_path: Path, lenet: Target, method: str) -> None:
    plan = AttackPlan(method, (9, 1, 4, 0, 3, 2, 5), budget=18, group=3)
    run_baseline(plan, lenet, tmp_path / "whole")
    first = run_baseline(plan, lenet, tmp_path / "broken", tick=stopping(3))
    assert (first.done, first.classes) == (3, 7)
    with StoredRun(tmp_path / "broken") as stored:  # it is a valid run already
        assert [e.row.class_id for e in stored.elites()] == [1, 4, 9]
        assert stored.meta.finished is None
        assert verify(stored, lenet).faults == ()
    run_baseline(plan, lenet, tmp_path / "broken", tick=stopping(6))
    starts: list[int] = []
    last = run_baseline(plan, lenet, tmp_path / "broken", on_start=lambda _, done: starts.append(done))
    assert starts == [6]
    assert last.done == 7
    whole, broken = content(tmp_path / "whole"), content(tmp_path / "broken")
    whole["meta"]["recipe"].pop("name"), broken["meta"]["recipe"].pop("name")
    # Queries of groups that were dropped are not counted.
    assert broken == whole
    again = run_baseline(plan, lenet, tmp_path / "broken")
    assert again == last
    after = content(tmp_path / "broken")
    after["meta"]["recipe"].pop("name")
    assert after == whole


def test_a_stop_at_the_last_step_of_a_group_keeps_that_group_and_starts_no_other(tmp_path: Path) -> None:
    outcome = run_baseline(AttackPlan("noise", group=2), tiny(), tmp_path, tick=lambda progress: True)
    assert (outcome.done, outcome.images) == (2, 2)
    outcome = run_baseline(AttackPlan("noise", group=2), tiny(), tmp_path, tick=stopping(2))
    assert (outcome.done, outcome.images) == (4, 4)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from evofool.attacks.run import AttackPlan, run_baseline
from evofool.targets import target

def tick(progress):
    if progress.done >= int(sys.argv[2]) and progress.step >= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return False

run_baseline(AttackPlan("apgd", (9, 1, 4, 0), budget=18, group=2), target("lenet"), Path(sys.argv[1]), tick=tick)
"""


@pytest.mark.slow
@pytest.mark.parametrize("done", [0, 2])
def test_a_killed_attack_that_is_resumed_ends_like_an_uninterrupted_one(tmp_path: Path, lenet: Target, done: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "run"), str(done)],
        env=environment, timeout=120, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    plan = AttackPlan("apgd", (9, 1, 4, 0), budget=18, group=2)
    starts: list[int] = []
    run_baseline(plan, lenet, tmp_path / "run", on_start=lambda _, at: starts.append(at))
    assert starts == [done]
    run_baseline(plan, lenet, tmp_path / "whole" / "run")
    whole, broken = content(tmp_path / "whole" / "run"), content(tmp_path / "run")
    # A run that was killed before its first group validates the target again.
    del whole["meta"]["answers"], broken["meta"]["answers"]
    assert broken == whole


@pytest.mark.parametrize("method", [name for name in METHODS if name != "noise"])  # noise is done after one step
def test_a_stop_before_the_first_group_is_done_leaves_no_folder(tmp_path: Path, method: str) -> None:
    outcome = run_baseline(AttackPlan(method, budget=40), tiny(), tmp_path / "run", tick=lambda progress: True)
    assert outcome == AttackOutcome(0, CLASSES, 0, ())
    assert list(tmp_path.iterdir()) == []


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run_baseline(AttackPlan("apgd", budget=9), tiny(), tmp_path, tick=lambda progress: True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_error_between_groups_keeps_the_groups_that_are_done(tmp_path: Path) -> None:
    def fail(progress: AttackProgress) -> bool:
        if progress.done:
            raise MemoryError
        return False

    plan = AttackPlan("apgd", budget=6, group=2)
    with pytest.raises(MemoryError):
        run_baseline(plan, tiny(), tmp_path / "run", tick=fail)
    assert run_baseline(plan, tiny(), tmp_path / "run").done == CLASSES
    with pytest.raises(MemoryError):
        run_baseline(plan, tiny(), tmp_path / "other", on_start=lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert not (tmp_path / "other").exists()


def test_progress_has_the_classes_done_and_their_time(tmp_path: Path) -> None:
    seen: list[AttackProgress] = []

    def tick(p: AttackProgress) -> bool:
        seen.append(p)
        return p.done == 4 and p.done_here == 4

    plan = AttackPlan("apgd", budget=6, group=2)
    run_baseline(plan, tiny(), tmp_path, tick=tick)
    assert {(p.classes, p.done, p.group, p.done_here, p.forwards) for p in seen} == {
        (5, 0, 2, 0, 0), (5, 2, 2, 2, 12), (5, 4, 1, 4, 24)
    }  # fmt: skip
    assert [p.step for p in seen if p.done == 2] == list(range(6))
    assert all(0 <= p.took <= p.seconds for p in seen)
    seen.clear()
    run_baseline(plan, tiny(), tmp_path, tick=tick)
    assert {(p.done, p.done_here, p.forwards) for p in seen} == {(4, 0, 0)}


# --- in a folder with something else


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "simonyan"}, "begun with method = 'apgd', not 'simonyan'"),
        ({"classes": (0, 2)}, r"begun with classes = \[0, 1\], not \[0, 2\]"),
        ({"settings": {"rate": 0.5}}, r"begun with rate = 0\.03, not 0\.5"),
        ({"settings": {"restarts": 2}}, "begun with restarts = 1, not 2"),
        ({"budget": 7}, "begun with budget = 6, not 7"),
        ({"rank": "margin"}, "begun with rank = 'log_odds', not 'margin'"),
        ({"seed": 1}, "begun with seed = 0, not 1"),
        ({"target_confidence": 0.9}, r"begun with target_confidence = 1\.0, not 0\.9"),
        ({"group": 1}, "begun with group = 2, not 1"),
        ({"microbatch": 1}, "begun with microbatch = 64, not 1"),
        ({"threads": 2}, "begun with threads = 1, not 2"),
    ],
)
def test_another_plan_is_refused_and_does_not_change_the_run(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"method": "apgd", "classes": (0, 1), "budget": 6}
    run_baseline(AttackPlan(**given), tiny(), tmp_path)
    before = content(tmp_path)
    with pytest.raises(RecipeError, match=message + "; pass another --out"):
        run_baseline(AttackPlan(**(given | change)), tiny(), tmp_path)
    assert content(tmp_path) == before


def test_another_classifier_is_refused(tmp_path: Path) -> None:
    run_baseline(AttackPlan("apgd", budget=6), tiny(), tmp_path)
    other = Tiny()
    with torch.no_grad():
        other.last.bias.add_(1)
    with pytest.raises(TargetError, match=r"begun with tiny, and tiny is another classifier \(labels, preprocessing or"):
        run_baseline(AttackPlan("apgd", budget=6), tiny(other), tmp_path)


def test_a_search_and_an_attack_do_not_resume_each_other(tmp_path: Path, lenet: Target) -> None:
    with Run.start(load("mnist-direct", ["stop.evaluations=32", "stop.confidence="]), tmp_path / "search", lenet) as run:
        run.advance()
    with pytest.raises(StoreError, match="search holds another kind of run; pass another --out"):
        run_baseline(AttackPlan("noise"), lenet, tmp_path / "search")
    run_baseline(AttackPlan("noise"), lenet, tmp_path / "noise")
    with pytest.raises(StoreError, match=r"was made by noise, not by a search.*evofool run RECIPE --parents"):
        Run.resume(tmp_path / "noise")
    with pytest.raises(StoreError, match="was not made by a search, and only searches can be replayed"):
        replay(tmp_path / "noise", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def again(plan: AttackPlan, done: int) -> None:
        with pytest.raises(StoreError, match="is in use"):
            run_baseline(AttackPlan("noise"), tiny(), tmp_path)

    run_baseline(AttackPlan("noise"), tiny(), tmp_path, on_start=again)


# --- together with evolution


def test_a_run_merged_of_a_search_and_an_attack_tells_their_elites_apart(tmp_path: Path, lenet: Target) -> None:
    with Run.start(load("mnist-direct", ["stop.evaluations=64", "stop.confidence="]), tmp_path / "search", lenet) as run:
        run.advance()
        searched = run.strategy.evaluations
    run_baseline(AttackPlan("apgd", (1, 2, 3), budget=30), lenet, tmp_path / "apgd")
    for order in (["search", "apgd"], ["apgd", "search"]):
        out = tmp_path / "-".join(order)
        merge([tmp_path / name for name in order], out)
        with StoredRun(out) as stored:
            made = {e.row.class_id: e.row.method for e in stored.elites()}
            assert made == {c: "apgd" if c in (1, 2, 3) else "evolved" for c in range(10)}
            assert stored.evaluations == searched + 90
            assert verify(stored, lenet).faults == ()


def test_merged_attacks_keep_the_better_image_of_each_class(tmp_path: Path, lenet: Target) -> None:
    for method in ("noise", "apgd"):
        run_baseline(AttackPlan(method, (2, 5), budget=of(method, 12)), lenet, tmp_path / method)
    run_baseline(AttackPlan("noise", (6,)), lenet, tmp_path / "more")
    merge([tmp_path / "noise", tmp_path / "apgd"], tmp_path / "two")
    merge([tmp_path / "more", tmp_path / "two"], tmp_path / "all")
    with StoredRun(tmp_path / "all") as stored:
        assert {e.row.class_id: e.row.method for e in stored.elites()} == {2: "apgd", 5: "apgd", 6: "noise"}


def test_evolution_starts_from_the_images_of_an_attack(tmp_path: Path, lenet: Target) -> None:
    run_baseline(AttackPlan("apgd", budget=15), lenet, tmp_path / "apgd")
    changes = ["stop.evaluations=96", "stop.confidence=", f"search.parents={tmp_path / 'apgd'}"]
    with Run.start(load("mnist-direct", changes), tmp_path / "run", lenet) as run:
        run.advance()
    with StoredRun(tmp_path / "apgd") as stored:
        before = {e.row.class_id: e.row.log_odds for e in stored.elites()}
    with StoredRun(tmp_path / "run") as stored:
        assert stored.rows()[0]["min"] >= min(confidence(odds) for odds in before.values())
        for e in stored.elites():
            assert e.row.log_odds >= before[e.row.class_id] - 1e-5  # in passes of another size
        assert set(stored.store.methods().values()) == {"apgd"}


def test_the_plan_is_stored_in_the_run(tmp_path: Path) -> None:
    run_baseline(AttackPlan("nguyen", (3,), {"setting": "l2"}, budget=10, seed=4, target_confidence=0.9), tiny(), tmp_path)
    with Store.open(tmp_path) as store:
        plan = store.meta().attack.plan
    assert plan == {
        "method": "nguyen", "classes": [3], "settings": {"setting": "l2", "early": 0.0, "late": 0.0}, "budget": 10,
        "rank": "log_odds", "seed": 4, "target_confidence": 0.9, "group": 1, "microbatch": 64, "chunk": 1, "threads": 1,
    }  # fmt: skip
    assert (tmp_path / FILE).is_file()
