"""Attacks that end early, with an error, or at outputs that are not finite."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.ascend.loop import AscentResult
from evofool.attacks.run import (
    METHODS,
    AttackPlan,
    Method,
    run_baseline,
    settings_of,
)
from evofool.errors import RecipeError
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.scores import log_odds, margin, needed_log_odds
from evofool.targets import Target
from tests.attacks.samples import CLASSES, LABELS, Tiny, each_method, tiny

# --- errors


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (AttackPlan("pgd"), 'no baseline "pgd"; there are nguyen, .*noise'),
        (AttackPlan("apgd", settings={"octaves": 2}), 'apgd has no setting "octaves"; it has restarts, rate'),
        (AttackPlan("apgd", settings={"restarts": "two"}), "apgd: restarts has to be a value like 1, not 'two'"),
        (AttackPlan("apgd", settings={"restarts": 2.0}), r"apgd: restarts has to be a value like 1, not 2\.0"),
        (AttackPlan("apgd", settings={"restarts": True}), "apgd: restarts has to be a value like 1, not True"),
        (AttackPlan("fourier", settings={"transformed": 1}), "fourier: transformed has to be a value like True, not 1"),
        (AttackPlan("apgd", settings={"rate": -0.5}), r"apgd: rate has to be finite and at least 0, not -0\.5"),
        (AttackPlan("apgd", settings={"rate": math.nan}), "apgd: rate has to be finite and at least 0, not nan"),
        (AttackPlan("fourier", settings={"rate": math.inf}), "fourier: rate has to be finite and at least 0, not inf"),
        (AttackPlan("apgd", settings={"restarts": 0}), r"restarts has to lie in 1\.\.256, not 0"),
        (AttackPlan("inceptionism", settings={"octaves": 999}), r"octaves has to lie in 1\.\.256, not 999"),
        (
            AttackPlan("inceptionism", settings={"scale": 0}),
            r"scale, .*, has to lie in \[1, 4\], not 0\.0",
        ),
        (AttackPlan("nguyen", settings={"setting": "nice"}), 'no setting "nice"; there are plain, l2, blur, sparse'),
        (AttackPlan("apgd", budget=1), "a budget of 1 forward passes is too small; it has to be at least 2"),
        (
            AttackPlan("erhan", budget=17),
            "budget of 17 forward passes is too small for 9 restarts; it has to be at least 18",
        ),
        (AttackPlan("noise", budget=2), "noise makes one image per class; leave out the budget of 2"),
        (AttackPlan("apgd", rank="loss"), 'no rank "loss"; there are log_odds, margin'),
        (
            AttackPlan("apgd", target_confidence=0.0),
            r"target_confidence has to lie in \(0, 1\], not 0\.0",
        ),
        (
            AttackPlan("apgd", target_confidence=1.5),
            r"target_confidence has to lie in \(0, 1\], not 1\.5",
        ),
        (
            AttackPlan("apgd", target_confidence=math.nan),
            r"target_confidence has to lie in \(0, 1\], not nan",
        ),
        (AttackPlan("apgd", (5,)), r"classes have to be distinct numbers in 0\.\.4, not \[5\]"),
        (AttackPlan("apgd", (1, 2, 1)), r"classes have to be distinct numbers in 0\.\.4, not \[1, 2, 1\]"),
        (AttackPlan("apgd", seed=-1), r"apgd: search.seed: .*greater than or equal to 0 \(it is -1\)"),
        (AttackPlan("square", seed=1 << 62), r"square: search.seed: .*less than"),
    ],
)
def test_errors_name_what_is_wrong_with_a_plan_and_no_folder_is_made(tmp_path: Path, plan: AttackPlan, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        run_baseline(plan, tiny(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_are_accepted_for_float_settings() -> None:
    assert settings_of("simonyan", {"rate": 2, "decay": 0, "blur": 1}) == {"rate": 2.0, "decay": 0.0, "blur": 1.0}
    assert settings_of("apgd", {}) == {"restarts": 1, "rate": 0.03, "losses": "margin"}


@each_method
def test_the_settings_of_a_method_exclude_the_common_options(method: str) -> None:
    common = {"budget", "rank", "seed", "stop_at", "microbatch", "streams", "tick", "chunk", "target", "classes"}
    settings = settings_of(method, {})
    assert not common & settings.keys()
    assert all(isinstance(value, (bool, int, float, str)) for value in settings.values())
    assert json.loads(json.dumps(settings)) == settings


# --- ending early


@pytest.mark.parametrize("rank", ["log_odds", "margin"])
@pytest.mark.parametrize("method", ["apgd", "simonyan", "fourier", "square"])
def test_a_class_that_ends_early_has_the_target_confidence(tmp_path: Path, lenet: Target, method: str, rank: str) -> None:
    target_confidence, budget = 0.9, 60
    run_baseline(
        AttackPlan(method, (0, 3, 6, 7), budget=budget, rank=rank, target_confidence=target_confidence), lenet, tmp_path
    )
    with StoredRun(tmp_path) as stored:
        ends: dict[int, int] = {}
        for cell, forwards, *_ in stored.store.improvements():
            ends[cell] = forwards
        early = {cell for cell, forwards in ends.items() if forwards < budget}
        assert early
        assert stored.evaluations < 4 * budget
        for e in stored.elites():
            assert e.row.class_id not in early or e.confidence >= target_confidence


@pytest.mark.parametrize("rank", ["log_odds", "margin"])
def test_attacks_stop_just_above_the_target_confidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    levels: list[float] = []

    def attack(found: Target, classes: list[int], **options: Any) -> AscentResult:
        levels.append(options["stop_at"])
        n, none = len(classes), np.zeros(len(classes), np.int64)
        return AscentResult(np.zeros((n, *found.shape), np.uint8), None, np.full(n, -np.inf), none, none, none)

    monkeypatch.setitem(METHODS, "stub", Method(attack, True, ""))
    for k, target_confidence in enumerate((0.99, 1.0)):
        run_baseline(AttackPlan("stub", rank=rank, target_confidence=target_confidence), tiny(), tmp_path / str(k))
    level, never = levels
    assert never == math.inf
    # The lowest confidence with this score: all other classes are equal.
    logits = np.zeros((1, CLASSES), np.float32)
    logits[0, 0] = level + (0 if rank == "margin" else math.log(CLASSES - 1))
    assert (log_odds(logits) if rank == "log_odds" else margin(logits))[0, 0] == pytest.approx(level, abs=1e-6)
    assert log_odds(logits)[0, 0] == pytest.approx(needed_log_odds(0.99) + 1e-3, abs=1e-5)


# --- outputs that are not finite


def test_classes_with_nan_outputs_are_named_and_the_others_are_kept(tmp_path: Path) -> None:
    net = Tiny()
    found = tiny(net)

    def breaks(plan: AttackPlan, done: int) -> None:  # once the target is validated
        net.broken = 0.5

    outcome = run_baseline(AttackPlan("nguyen", budget=12), found, tmp_path, on_start=breaks)
    assert outcome.done == CLASSES
    with StoredRun(tmp_path) as stored:
        kept = [e.row.class_id for e in stored.elites()]
        missing = [label for c, label in enumerate(LABELS) if c not in kept]
        assert 0 < len(kept) < CLASSES
        assert outcome.images == len(kept)
        assert [note for note in outcome.notes if note.endswith("it has no image")] == [
            f"{label}: it has no image" for label in missing
        ]
        for label in missing:
            assert any(note.startswith(f"{label}: its score was NaN") for note in outcome.notes)
        assert verify(stored, tiny()).faults == ()
        # Their passes count, and their confidence counts as 0.
        last = stored.rows()[-1]
        assert last["evaluations"] == stored.evaluations
        assert last["distinct"] == len(kept)
        assert last["min"] == 0.0
    assert run_baseline(AttackPlan("nguyen", budget=12), found, tmp_path).notes == outcome.notes


def test_an_image_whose_final_logits_are_nan_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tiny()

    def breaks(plan: AttackPlan, done: int) -> None:
        original = found.logits

        def with_nan(images: np.ndarray, *more: Any) -> np.ndarray:
            logits = original(images, *more).copy()
            logits[1] = np.nan
            return logits

        monkeypatch.setattr(found, "logits", with_nan)

    outcome = run_baseline(AttackPlan("apgd", budget=5), found, tmp_path, on_start=breaks)
    assert outcome.notes == ("bee: it has no image",)
    with StoredRun(tmp_path) as stored:
        assert [e.label for e in stored.elites()] == ["ant", "cat", "dog", "elk"]
        last = stored.rows()[-1]
        assert (last["distinct"], last["evaluations"], last["min"]) == (4, stored.evaluations, 0.0)
