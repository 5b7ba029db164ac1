"""The command evofool baseline: what it says, what it leaves, how it ends."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.attacks import run as baseline_run
from evofool.attacks.run import METHODS, AttackOutcome, AttackPlan, run_baseline
from evofool.attacks.session import AttackProgress
from evofool.cli import console
from evofool.cli.console_attacks import progress_text
from evofool.cli.options import class_ids
from evofool.errors import TargetError
from evofool.run.stored import StoredRun
from evofool.targets import Target, target
from tests.commands import Call

BOX = """
import numpy as np
from evofool.targets import Target

class Box:
    shape = (1, 6, 6)
    labels = ["ant", "bee", "cat"]

    def __call__(self, images):
        weights = np.random.default_rng(9).integers(-8, 9, (36, 3))
        return (images.reshape(len(images), -1).astype(np.int64) @ weights / 1024.0).astype(np.float32)
"""


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A black box by name."""
    (tmp_path / "boxes_of_mine.py").write_text(BOX)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "boxes_of_mine", raising=False)
    return "python:boxes_of_mine:Box"


def stop(monkeypatch: pytest.MonkeyPatch, when: Callable[[AttackProgress], bool]) -> None:
    """Have the user press Ctrl-C when this is so."""
    noted: list[int] = []

    def run(
        plan: AttackPlan, found: Target, folder: Path, streams: int, begun: Any, tick: Callable[[AttackProgress], bool]
    ) -> AttackOutcome:
        return run_baseline(plan, found, folder, streams, begun, lambda p: tick(p) or when(p) or bool(noted))

    monkeypatch.setattr(baseline_run, "run_baseline", run)


# --- a run


def test_it_makes_a_run_that_other_commands_read(call: Call, tmp_path: Path) -> None:
    made = call("baseline", "apgd", "lenet", "--classes", "3,7-8", "--budget", "30", "--out", "runs/a")
    assert (made.code, made.err) == (0, "")
    lines = made.out.splitlines()
    assert lines[:2] == [
        "New run in runs/a: apgd against lenet (3 classes), seed 0, 30 forward passes a class",
        "  settings restarts=1, rate=0.03, losses=margin",
    ]
    # Of the classes that it is about, not of all.
    assert re.fullmatch(
        r"90 forward and \d+ backward passes in \d+ s: [123] of 3 classes at 0\.99 or more, [123] at 0\.9999 or more; "
        r"median 1\.0000 \(log-odds \d+\.\d\)\.",
        lines[-3],
    )
    assert lines[-2:] == ["Contact sheet: runs/a/elites.png", "Curve:         runs/a/curve.png"]
    assert (tmp_path / "runs/a/elites.png").is_file()
    assert (tmp_path / "runs/a/curve.png").is_file()
    shown = call("show", "runs/a")
    assert shown.code == 0
    assert shown.out.count(" apgd ") == 3
    assert "3 elites, 3 different images; 90 forward and " in shown.out
    one = call("show", "runs/a", "--class", "7")
    assert "birth       1 in batch 0; no parents, made by apgd" in one.out
    verified = call("verify", "runs/a")
    assert verified.code == 0
    assert "runs/a passes: 3 elites" in verified.out
    assert call("export", "runs/a", "files").out == "3 elites written to files\n"
    refused = call("run", "runs/a")
    assert refused.code == 2
    assert "was made by apgd, not by a search" in refused.err
    again = call("baseline", "apgd", "lenet", "--classes", "3,7-8", "--budget", "30", "--out", "runs/a")
    assert again.code == 0
    assert again.out.startswith("Continuing runs/a at 3 of 3 classes: apgd against lenet")
    other = call("baseline", "apgd", "lenet", "--classes", "3,7-8", "--budget", "31", "--out", "runs/a")
    assert other.code == 2
    assert other.err == "evofool: runs/a was begun with budget = 30, not 31; pass another --out\n"


def test_its_folder_is_named_by_method_and_target(call: Call, tmp_path: Path) -> None:
    made = call("baseline", "noise")
    assert made.code == 0
    assert made.out.startswith("New run in runs/noise-lenet: noise against lenet (10 classes), seed 0, ")
    assert (tmp_path / "runs" / "noise-lenet" / "run.db").is_file()


def test_evolution_goes_on_from_it(call: Call) -> None:
    call("baseline", "apgd", "--budget", "30", "--out", "apgd")
    run = call("run", "mnist-direct", "--parents", "apgd", "--out", "run", "--set", "stop.evaluations=64")
    assert run.code == 0
    assert "which begins with 10 genomes of " in run.out
    with StoredRun(Path("apgd")) as before, StoredRun(Path("run")) as after:
        assert after.rows()[0]["at_99"] >= before.rows()[-1]["at_99"] > 5


def test_a_black_box_is_attacked_by_queries_and_gradients_are_refused(call: Call, box: str) -> None:
    made = call("baseline", "square", box, "--budget", "40", "--out", "square")
    assert (made.code, made.err) == (0, "")
    assert "120 forward and 0 backward passes in" in made.out
    assert call("verify", "square", "--trust").code == 0
    refused = call("baseline", "apgd", box, "--out", "apgd")
    assert refused.code == 2
    assert (
        "it has neither gradients nor layers. Use a black-box attack (evofool baseline square, nes, random)" in refused.err
    )
    assert not Path("apgd").exists()


def test_the_target_confidence_ends_it_early(call: Call) -> None:
    made = call("baseline", "apgd", "--budget", "60", "--target-confidence", "0.99", "--out", "a")
    assert made.code == 0
    evaluations = int(re.search(r"^([\d,]+) forward", made.out, re.M)[1].replace(",", ""))  # type: ignore[index]
    assert evaluations < 600
    assert "10 of 10 classes at 0.99 or more" in made.out


def test_units_are_maximised(call: Call, tmp_path: Path) -> None:
    made = call("units", "lenet", "fc1:7", "conv2:3", "--set", "restarts=2", "--budget", "20", "--out", "u")
    assert (made.code, made.err) == (0, "")
    # Before them there is progress, where the machine is slow.
    first, second = [line for line in made.out.splitlines() if "activation" in line]
    assert re.fullmatch(r"fc1:7  activation [\d.]+, 2 starts, spread \(deviation / mean\) [\d.]+", first)
    assert second.startswith("conv2:3  activation ")
    files = {path.name for path in (tmp_path / "u").iterdir()}
    assert files >= {"run.db", "units.json", "units.png", "unit-fc1-7.png", "unit-conv2-3.png", "elites.png", "curve.png"}
    assert call("verify", "u").code == 0
    again = call("units", "lenet", "fc1:7", "conv2:3", "--set", "restarts=2", "--budget", "20", "--out", "u")
    assert again.code == 0
    assert again.out.startswith("u has all of these units already.\n")


def test_its_help_names_every_method(call: Call) -> None:
    text = call("baseline", "--help").out
    assert [name for name in METHODS if name not in text] == []


# --- interrupted


def test_interrupted_it_keeps_the_classes_that_are_done_and_goes_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    settled = AttackPlan.settled

    def grouped(plan: AttackPlan, found: Target) -> AttackPlan:
        return settled(AttackPlan(**{**plan.__dict__, "group": 4}), found)

    monkeypatch.setattr(AttackPlan, "settled", grouped)
    command = ("baseline", "apgd", "--budget", "12", "--out", "a")
    with monkeypatch.context() as pressed:
        stop(pressed, lambda p: p.done == 4)
        broken = call(*command)
    assert broken.code == 130
    assert broken.out.endswith("Stopped after 4 of 10 classes. The same command continues.\n")
    assert "48 forward and " in broken.out
    assert "ended" not in call("show", "a").out.replace("not ended yet", "")
    whole = call(*command)
    assert whole.code == 0
    assert whole.out.startswith("Continuing a at 4 of 10 classes: apgd against lenet (10 classes), seed 0, ")
    assert "120 forward and " in whole.out


def test_interrupted_before_a_class_is_done_it_leaves_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(monkeypatch, lambda p: p.step == 2)
    broken = call("baseline", "apgd", "--budget", "12", "--out", "a")
    assert broken.code == 130
    assert broken.out.endswith(
        "Stopped before the first classes were finished; nothing was saved. The same command starts again.\n"
    )
    assert not Path("a").exists()


def test_interrupted_units_leave_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed:
        def __init__(self, message: str) -> None:
            self.message = message

        def __enter__(self) -> list[int]:
            return [1]

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(console, "interrupts", Pressed)
    broken = call("units", "lenet", "fc1:7", "--out", "u")
    assert broken.code == 130
    assert broken.out.endswith("Stopped before the units were done; nothing was kept.\n")
    assert not Path("u").exists()


# --- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pgd",), 'there is no baseline "pgd"; there are\n  nguyen       ascent on p; setting=plain'),
        (("apgd", "lenett"), "lenett"),
        (("apgd", "--set", "octaves=3"), 'apgd has no setting "octaves"; it has restarts, rate, losses'),
        (("apgd", "--set", "restarts=two"), "apgd: restarts has to be a value like 1, not 'two'"),
        (("apgd", "--set", "restarts"), "--set restarts: has to be KEY=VALUE"),
        (("apgd", "--set", "restarts=0"), "restarts has to lie in 1..256, not 0"),
        (("fourier", "--set", "rate=-1"), "fourier: rate has to be finite and at least 0, not -1.0"),
        (("noise", "--set", "kind=loud"), "loud"),
        (("nguyen", "--set", "setting=nice"), 'there is no setting "nice"; there are plain, l2, blur, sparse'),
        (("apgd", "--rank", "loss"), 'there is no rank "loss"; there are log_odds, margin'),
        (
            ("apgd", "--target-confidence", "0"),
            "target_confidence has to lie in (0, 1], not 0.0",
        ),
        (("apgd", "--budget", "1"), "a budget of 1 forward passes is too small; it has to be at least 2"),
        (("apgd", "--classes", "10"), "lenet: no class 10; its classes are 0 to 9, by number or by label"),
        (("apgd", "--seed", str(1 << 62)), "search.seed"),
    ],
)
def test_an_error_is_reported_in_a_sentence_and_nothing_is_left(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = call("baseline", *arguments, "--out", "run")
    assert result.code == 2
    assert message in result.err
    assert result.err.startswith("evofool: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fc9:7",), 'lenet: no layer "fc9"; there are 5, the nearest fc'),
        (("fc1",), "unit fc1 has to be LAYER:CHANNEL or LAYER:CHANNEL:Y:X, as in fc1:7"),
        (("fc1:9999",), 'unit fc1:9999: layer "fc1" of lenet is'),
        (("fc1:7", "--set", "octaves=2"), 'erhan has no setting "octaves"'),
    ],
)
def test_an_error_of_a_unit_is_reported_in_a_sentence(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = call("units", "lenet", *arguments, "--out", "run")
    assert result.code == 2
    assert result.err.startswith("evofool: ")
    assert message in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option", [("--budget", "-1"), ("--seed", "-1"), ("--threads", "0"), ("--streams", "-1"), ("--budget", "x")]
)
def test_numbers_out_of_range_are_refused(call: Call, tmp_path: Path, option: tuple[str, str]) -> None:
    assert call("baseline", "apgd", *option).code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_numbers_is_told_class_by_class(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    found = target("lenet")
    whole = found.logits
    spoilt = [c for c in range(10) if c != 3]

    def run(plan: AttackPlan, _: Target, folder: Path, streams: int, begun: Any, tick: Any) -> AttackOutcome:
        def logits(images: np.ndarray, *more: Any) -> np.ndarray:
            answer = whole(images, *more).copy()
            answer[spoilt] = np.nan
            return answer

        def breaks(settled: AttackPlan, done: int) -> None:
            monkeypatch.setattr(found, "logits", logits)
            begun(settled, done)

        return run_baseline(plan, found, folder, streams, breaks, tick)

    monkeypatch.setattr(baseline_run, "run_baseline", run)
    some = call("baseline", "apgd", "--budget", "20", "--out", "some")
    assert some.code == 0
    for c in spoilt:
        assert f"Warning: {c}: it has no image." in some.out
    assert "1 of 10 classes at 0.99 or more" in some.out
    assert "median 0.0000" in some.out
    spoilt.append(3)
    monkeypatch.setattr(found, "logits", whole)
    none = call("baseline", "apgd", "--budget", "20", "--out", "none")
    assert none.code == 2
    assert "none: none of 10 classes has an image, because" in none.err


# --- classes and progress


def test_classes_by_numbers_ranges_and_labels() -> None:
    labels = ("ant", "5", "black-footed ferret", "3-4", "dog", "elk")
    assert class_ids(None, labels, "fake") == []
    assert class_ids("ant", labels, "fake") == [0]
    assert class_ids("0, 2-4,elk", labels, "fake") == [0, 2, 3, 4, 5]
    assert class_ids("black-footed ferret,3-4", labels, "fake") == [2, 3]  # a label is a label, whatever it looks like
    assert class_ids("5", labels, "fake") == [1]
    assert class_ids("4,dog,3-4,4-4", labels, "fake") == [4, 3]
    assert class_ids("1-2,2-3", labels, "fake") == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6", "fake: no class 6; its classes are 0 to 5, by number or by label"),
        ("ante", "fake: no class ante; its classes are 0 to 5, by number or by label; did you mean ant"),
        ("2-9", "fake: no class 2-9;"),
        ("4-2", "fake: no class 4-2;"),
        ("-1", "fake: no class -1;"),
        ("1-", "fake: no class 1-;"),
        ("", "fake: no class "),
        ("1,,2", "fake: no class "),
    ],
)
def test_a_class_that_is_not_there_is_named(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        class_ids(text, ("ant", "bee", "cat", "dog", "elk", "fox"), "fake")


def test_progress_in_words() -> None:
    first = AttackProgress(classes=100, done=0, group=10, step=0, steps=100, done_here=0, forwards=0, took=0.0, seconds=0.5)
    assert progress_text(first) == "0 of 100 classes done; 10 climbing, step 0 of 100"
    half = AttackProgress(100, 0, 10, 50, 100, 0, 0, took=0.0, seconds=5.0)  # five classes' worth of work in five seconds
    assert progress_text(half) == "0 of 100 classes done, about 1 min 35 s left; 10 climbing, step 50 of 100"
    # Gone on with at 40 classes, 20 more done in 20 seconds with 2,000 passes, and five classes' worth in 5 more.
    later = AttackProgress(100, 60, 10, 500, 1000, 20, 2000, took=20.0, seconds=25.0)
    assert progress_text(later) == (
        "60 of 100 classes done, 100 forward passes/s, about 35 s left; 10 climbing, step 500 of 1,000"
    )
