"""A sweep is a list of ordinary runs; an interrupted or killed one ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import evofool
from evofool.cli.sweep import seed_numbers, split_specs
from evofool.errors import RecipeError, StoreError
from evofool.recipe import Recipe, load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.sweep.runner import JobsOutcome, WorkProgress
from evofool.sweep.status import read_status
from evofool.sweep.sweep import plan_sweep, run_sweep
from tests.commands import Call
from tests.stored import course

HOME = Path(evofool.__file__).parent.parent
CHANGES = ("stop.confidence=", "stop.evaluations=240", "compute.format=float32")


def recipe(*changes: str) -> Recipe:
    return load("mnist-cppn", [*CHANGES, *changes])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The runs of two seeds, each by itself."""
    folders = [tmp_path_factory.mktemp("alone") / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        with Run.start(recipe(f"search.seed={seed}"), folder) as run:
            run.advance()
    return folders


def same(sweep: Path, alone: list[Path]) -> bool:
    return all(course(sweep / "lenet" / f"seed-{seed}") == course(folder) for seed, folder in enumerate(alone))


def test_each_run_is_an_ordinary_one_and_a_failed_one_does_not_stop_the_others(call: Call, alone: list[Path]) -> None:
    options = [word for change in CHANGES for word in ("--set", change)]
    done = call("sweep", "mnist-cppn", "--seeds", "0:2", "--targets", "lenet?std=1,2,lenet", *options, "--out", "s")
    assert done.code == 2
    assert "Sweep in s: 2 targets x 2 seeds = 4 runs of mnist-cppn" in done.out
    assert "lenet: lenet?std=1,2" in done.out
    assert done.err.count("std has 2 numbers") == 2
    assert "2 of 4 runs failed; the same command tries them again" in done.err
    assert (Path("s") / "lenet-2" / "seed-0" / "run.db").is_file()
    for seed, folder in enumerate(alone):
        assert course(Path("s") / "lenet-2" / f"seed-{seed}") == course(folder)
    shown = call("sweep", "show", "s")
    assert shown.code == 0
    assert "2 of 4 runs done, 2 failed; ended" in shown.out
    assert "lenet/seed-0 failed: lenet?std=1,2: std has 2 numbers" in shown.out
    jobs = {job["name"]: job for job in json.loads(call("sweep", "show", "s", "--json").out)["jobs"]}
    figures = jobs["lenet-2/seed-1"]["figures"]
    assert (figures["target"], figures["seed"], figures["evaluations"], figures["classes"]) == ("lenet", 1, 240, 10)
    with StoredRun(alone[1]) as stored:
        assert figures["confidence"] == sorted(e.confidence for e in stored.elites())[4:6][0] / 2 + (
            sorted(e.confidence for e in stored.elites())[5] / 2
        )
    assert "elites, " in call("show", "s/lenet-2/seed-0").out
    more = call("sweep", "mnist-cppn", "--seeds", "0:3", *options, "--out", "s")
    assert more.code == 0, more.err
    names = [path.parent.relative_to("s").as_posix() for path in sorted(Path("s").rglob("run.db"))]
    assert names == ["lenet-2/seed-0", "lenet-2/seed-1", "lenet-2/seed-2"], "a target keeps the name of its folder"
    assert all((Path("s") / name / picture).is_file() for name in names for picture in ("elites.png", "curve.png"))
    again = call("sweep", "s", "--set", "stop.evaluations=252")
    assert again.code == 0, again.err
    assert "Sweep in s: 1 target x 3 seeds = 3 runs of mnist-cppn" in again.out
    for name in names:
        with StoredRun(Path("s") / name) as stored:
            assert stored.evaluations == 252
    assert "--out is for new sweeps" in call("sweep", "s", "--out", "t").err
    manifest = Path("s/sweep.json")
    manifest.write_text(manifest.read_text().replace('"lenet-2": "lenet"', '"lenet-2": "python:code:target"'))
    assert "it names python:code:target, code to import, and" in call("sweep", "s").err
    manifest.write_text(manifest.read_text().replace("lenet-2", "../lenet-2"))
    for command in (["sweep", "s"], ["sweep", "mnist-cppn", *options, "--out", "s"]):
        assert "sweep.json is damaged: '../lenet-2' cannot be the name of a target" in call(*command).err


@pytest.mark.parametrize(
    ("target", "ends"), [("lenet", "evofool sweep s\n"), ("python:code:it", "evofool sweep s --trust\n")]
)
def test_an_interrupted_sweep_names_the_command_that_continues_it(
    target: str, ends: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.sweep.sweep.run_sweep", lambda *_: JobsOutcome(("",), True))
    stopped = call("sweep", "mnist-cppn", "--targets", target, "--out", "s")
    assert (stopped.code, stopped.out.endswith(ends)) == (130, True)


def test_an_interrupted_sweep_ends_as_an_uninterrupted_one(tmp_path: Path, alone: list[Path]) -> None:
    plan = plan_sweep(recipe(), tmp_path / "s", ["lenet"], [0, 1])
    reports = 0

    def on_progress(progress: WorkProgress) -> bool:
        nonlocal reports
        reports += 1
        return reports == 2

    assert run_sweep(plan, on_progress).interrupted
    assert read_status(plan.folder).state == "interrupted"
    outcome = run_sweep(plan)
    assert outcome.failures == ("", "")
    assert same(plan.folder, alone)
    before = {path: path.stat().st_mtime_ns for path in plan.folder.rglob("run.db")}
    assert run_sweep(plan).failures == ("", "")
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished run is not opened again"
    longer = plan_sweep(recipe("stop.evaluations=252"), plan.folder, ["lenet"], [0])
    assert run_sweep(longer).failures == ("",)
    with StoredRun(plan.folder / "lenet" / "seed-0") as stored:
        assert stored.evaluations == 252


@pytest.mark.slow
def test_a_killed_sweep_is_shown_as_it_was_left_and_the_same_command_continues(tmp_path: Path) -> None:
    changes = [word for change in (*CHANGES, "stop.evaluations=100000", "save.seconds=0") for word in ("--set", change)]
    command = [
        sys.executable,
        "-m",
        "evofool",
        "sweep",
        "mnist-cppn",
        "--seeds",
        "0:2",
        *changes,
        "--out",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(HOME)}
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                found = read_status(tmp_path / "s")
                if found.state == "running" and any(job.done > 200 for job in found.jobs):
                    break
            except StoreError:
                pass
            assert process.poll() is None
            time.sleep(0.1)
        first, second = found.jobs
        assert (first.state, second.state) == ("running", "waiting")
        assert first.rate > 0
        assert first.seconds_left is not None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = read_status(tmp_path / "s")
    assert found.state == "interrupted"
    assert [job.state for job in found.jobs] == ["interrupted", "waiting"]
    with StoredRun(tmp_path / "s" / "lenet" / "seed-0") as stored:
        saved = stored.evaluations
    assert saved > 0
    end = saved + 120
    plan = plan_sweep(recipe(f"stop.evaluations={end}"), tmp_path / "s", ["lenet"], [0])
    assert run_sweep(plan).failures == ("",)
    with StoredRun(tmp_path / "s" / "lenet" / "seed-0") as stored:
        assert stored.evaluations >= end
    (job,) = read_status(tmp_path / "s").jobs
    assert job.repeated == max(0, found.jobs[0].done - saved)


def test_other_recipes_and_other_folders_are_refused(tmp_path: Path) -> None:
    plan = plan_sweep(recipe("stop.evaluations=12"), tmp_path / "s", ["lenet"], [0])
    assert run_sweep(plan).failures == ("",)
    with pytest.raises(RecipeError, match=r"holds a sweep with search.batch = 12, not 8. Its runs keep theirs"):
        plan_sweep(recipe("search.batch=8"), tmp_path / "s", ["lenet"], [0])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match="is not empty and holds no sweep"):
        run_sweep(plan_sweep(recipe(), tmp_path / "other", ["lenet"], [0]))
    with pytest.raises(RecipeError, match="seeds have to be given, each once; given are 1, 1"):
        plan_sweep(recipe(), tmp_path / "new", ["lenet"], [1, 1])
    with pytest.raises(RecipeError, match=r"targets: .*lanet"):
        plan_sweep(recipe(), tmp_path / "new", ["lanet"], [1])


def test_seeds_are_numbers_and_ranges() -> None:
    assert seed_numbers("0:3,7, 10 : 12") == [0, 1, 2, 7, 10, 11]
    for text in ("", "3:3", "4:2", "a", "1:2:3", "-1", "0:99999999999999999999", ","):
        with pytest.raises(RecipeError, match="has to be whole numbers and ranges"):
            seed_numbers(text)
    with pytest.raises(RecipeError, match="are more than 10,000 seeds"):
        seed_numbers("0:100000")


def test_commas_within_the_options_of_a_target_do_not_separate() -> None:
    assert split_specs("lenet, timm:resnet18?mean=0.1,.2,-0.3&std=1,2,3,onnx:a.onnx") == [
        "lenet",
        "timm:resnet18?mean=0.1,.2,-0.3&std=1,2,3",
        "onnx:a.onnx",
    ]


def test_a_folder_without_jobs_has_no_status(call: Call) -> None:
    shown = call("bench", "show", "nowhere")
    assert shown.code == 2
    assert "nowhere has no benchmark and no sweep that was started" in shown.err
