"""Searches on Ray actors: the same bits as in one process, even if workers die; images that break it are quarantined."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evofool
from evofool.cluster import session
from evofool.cluster.ahead import started_ahead
from evofool.cluster.evaluator import RayEvaluator
from evofool.cluster.format_choice import choose_on_worker
from evofool.cluster.jobs import OrderJob
from evofool.cluster.settings import RayOptions
from evofool.cluster.slots import WorkerSlot
from evofool.cluster.work import Job
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.recipe import Recipe
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.search.local_evaluator import LocalEvaluator
from genomes import Key
from tests.cluster.searches import (
    OURS,
    TARGETS,
    await_workers,
    committed,
    environment_of,
    evofool_command,
    finished,
    ray_processes,
    recipe,
    wait_for,
)
from tests.stored import course

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """A Ray for this module, with resources for six workers; afterwards none of its processes is left."""
    import ray

    before = ray_processes()
    started = ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield started.address_info["gcs_address"]
    ray.shutdown()
    # Its agents look for a killed Ray for a minute.
    assert wait_for(lambda: not ray_processes() - before)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the targets' module, in which workers look for it too."""
    (tmp_path / "odd_targets.py").write_text(TARGETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_targets", raising=False)
    return tmp_path


RUN = ["run", "mnist-cppn", "--set", "search.lag=3", "--set", "stop.confidence=", "--set", "stop.evaluations=600"]


def test_a_killed_search_with_a_local_ray_continues(here: Path) -> None:
    line = [sys.executable, "-c", OURS, *RUN, "--workers", "1", "--out", "run", "--set", "stop.evaluations=100000"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment_of()) as process:
        assert wait_for(lambda: committed(here / "run") > 10)
        process.kill()
        process.communicate()
    so_far = committed(here / "run") * 12
    evaluations = f"stop.evaluations={so_far + 120}"
    assert evofool_command("run", "run", "--set", evaluations, "--workers", "0").returncode == 0
    assert evofool_command("replay", "run").returncode == 0


@pytest.mark.parametrize(
    "parts",
    [
        {"search": {"lag": 0, "keep": 8}},
        {"search": {"lag": 8, "keep": 8, "competition": "argmax", "selection": "lagging"}, "encoding": {"kind": "cppn"}},
        {
            "search": {"lag": 1, "rank": "margin", "competition": "per-class", "selection": "lagging"},
            "niches": {"descriptor": "mirror_symmetry", "edges": [0.6, 0.68]},
        },
        {
            "search": {"lag": 1, "selection": "lagging", "tournament": 6, "random": 40},
            "encoding": {"kind": "direct", "start": "shades"},
        },
        {
            "search": {"lag": 8, "surrogate": {"targets": ["python:odd_targets:near"], "steps": 3}},
            "encoding": {"kind": "canvas", "size": 64, "cosines": 24},
        },
        {"search": {"lag": 1}, "encoding": {"kind": "latent", "sigma": 0.3}},
    ],
    ids=[
        "no lag, runners-up",
        "CPPNs, lag 8, runners-up, argmax",
        "niches, classes of their own, margins",
        "random images of many brightnesses, tournament of six",
        "surrogates, canvas of cosines",
        "codes of a decoder",
    ],
)
def test_any_number_of_workers_gives_the_same_bits_as_none(here: Path, parts: dict[str, Any]) -> None:
    finished(here / "none", recipe(**parts))
    for workers in (1, 3):
        each = finished(here / f"{workers}", recipe(workers=workers, **parts))
        assert len(each) == workers
        assert sum(one["images"] for one in each) >= 960
        assert course(here / f"{workers}") == course(here / "none")


@pytest.mark.parametrize("lag", [0, 8])
def test_canvases_with_runners_up_and_surrogates_are_the_same_bits_with_0_1_2_and_4_workers(here: Path, lag: int) -> None:
    """And in a run that is killed and goes on with another number, which can be verified and replayed."""
    surrogate = {"targets": ["python:odd_targets:near"], "steps": 3, "after": 200}
    search = {"lag": lag, "keep": 8, "random": 160, "selection": "lagging", "surrogate": surrogate}

    def with_workers(number: int) -> Recipe:
        return recipe(workers=number, evaluations=480, search=search, encoding={"kind": "canvas", "size": 64})

    finished(here / "0", with_workers(0))
    whole = course(here / "0")
    assert whole["runners_up"]
    assert whole["surrogates"].children > 100
    for workers in (1, 2):
        assert len(finished(here / f"{workers}", with_workers(workers))) == workers
        assert course(here / f"{workers}") == whole
    run = Run.start(with_workers(4), here / "4")
    await_workers(run)
    assert run.advance(batches=22) is None
    assert sum(one["images"] > 0 for one in run.evaluator.workers()) > (1 if lag else 0)
    run.store.close(failed=True)
    run.evaluator.close()
    with Run.resume(here / "4", with_workers(0), trust=True) as run:
        assert run.advance()
    assert course(here / "4") == whole
    with StoredRun(here / "4") as stored:
        assert verify(stored, trust=True).faults == ()
    assert replay(here / "4", here / "again", trust=True).differences == ()
    assert course(here / "again") == whole


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost(here: Path) -> None:
    one = recipe("slow", evaluations=2400)
    finished(here / "unbroken", one)
    killed: list[int] = []

    def kill(run: Run) -> bool:
        ready = [w for w in run.evaluator.workers() if w["pid"] and w["pid"] not in killed and w["images"]]
        if ready and run.strategy.evaluations > 500 * len(killed) and len(killed) < 3:
            killed.append(ready[0]["pid"])
            os.kill(ready[0]["pid"], signal.SIGKILL)
        return False

    each = finished(here / "broken", recipe("slow", workers=2, evaluations=2400), kill)
    assert len(killed) == 3
    assert sum(w["restarts"] for w in each) >= 2, "the last one may not have been missed before the end"
    assert course(here / "broken") == course(here / "unbroken")


@pytest.fixture
def only_hanging_calls_time_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a call is up once its worker has left a note that it hangs, however busy the machine is."""
    check = RayEvaluator._check_workers

    def check_workers(evaluator: RayEvaluator) -> None:
        for slot in evaluator._slots:
            if slot.calls and slot.info is not None and (here / f"hangs-{slot.info.pid}").exists():
                slot.since = -math.inf
        check(evaluator)

    monkeypatch.setattr(RayEvaluator, "_check_workers", check_workers)


@pytest.fixture
def suspects_sent_with_others(monkeypatch: pytest.MonkeyPatch) -> list[OrderJob]:
    """The jobs that had failed and were with a worker together with another call."""
    found: list[OrderJob] = []
    send = WorkerSlot.send

    def send_and_note(slot: WorkerSlot, job: Job) -> None:
        send(slot, job)
        jobs = [call.job for call in slot.calls]
        if len(jobs) > 1:
            found.extend(job for job in jobs if isinstance(job, OrderJob) and job.failures)

    monkeypatch.setattr(WorkerSlot, "send", send_and_note)
    return found


@pytest.mark.usefixtures("only_hanging_calls_time_out")
def test_images_that_kill_raise_hang_or_are_nan_are_quarantined_and_others_are_not_affected(
    here: Path, suspects_sent_with_others: list[OrderJob]
) -> None:
    finished(here / "tame", recipe("tame"))
    wild = recipe("wild", workers=2, ray={"timeout": 3600.0, "retries": 1})
    finished(here / "wild", wild)
    assert not suspects_sent_with_others
    tame, found = course(here / "tame"), course(here / "wild")
    assert found["quarantine"]
    with StoredRun(here / "wild") as stored:
        why = {row.reason.split(" (")[0] for row in stored.store.quarantine()}
        images = stored.encoding.render(stored.unpack([row.genome for row in stored.store.quarantine()]))
        notes = " ".join(stored.meta.warnings)
    import odd_targets

    kinds = odd_targets.special(images)
    assert set(kinds.tolist()) == {1, 2, 3, 4}, "every special kind occurred, and nothing else was quarantined"
    assert any("died" in text for text in why)
    assert any("no answer in" in text for text in why)
    assert all(f"birth {row[0]}, of batch {row[1]}" in notes for row in found["quarantine"]), "reported to the user"
    # `tame` answers those images so that they win nothing, in one process: all else is the same.
    assert {**tame, "quarantine": found["quarantine"]} == found
    shown = evofool_command("show", here / "wild")
    assert "4 images in quarantine" in shown.stdout
    assert shown.stdout.count("the worker's process died") == 1
    with pytest.raises(RecipeError, match="quarantine broke the target"):
        replay(here / "wild", here / "again")


def test_a_target_that_always_fails_ends_the_search_with_its_own_message(here: Path) -> None:
    with Run.start(recipe("broken", workers=1), here / "run") as run, pytest.raises(TargetError, match="nothing works"):
        run.advance()


def test_free_mode_commits_in_order_of_arrival_and_can_be_replayed(here: Path) -> None:
    free = recipe("slow", workers=3, search={"mode": "free", "lag": 0})
    with Run.start(free, here / "free") as run:
        await_workers(run)
        assert run.advance(every=0.01)
        each = run.evaluator.workers()
    assert min(w["images"] for w in each) > 0
    with Store.open(here / "free") as store:
        record = store.commits()
        open_ones = [(p.batch, p.drawn_after) for p in store.pending()]
    batches = [commit.batch for commit in record]
    assert len(batches) == 60
    assert batches != sorted(batches), "a later batch was faster"
    assert sorted([*batches, *(batch for batch, _ in open_ones)]) == list(range(len(batches) + len(open_ones)))
    again = replay(here / "free", here / "again", trust=True)
    assert (again.batches, again.of, again.differences) == (60, 60, ())
    assert course(here / "again")["elites"] == course(here / "free")["elites"]
    with Store.open(here / "again") as store:
        assert store.commits() == record
        assert [(p.batch, p.drawn_after) for p in store.pending()] == open_ones


def test_a_free_search_draws_parents_of_a_long_call_when_its_worker_has_nothing_else_to_do(here: Path) -> None:
    free = recipe("long", workers=3, search={"mode": "free"}, stop={"evaluations": 320})
    with Run.start(free, here / "free") as run:
        await_workers(run)
        run.advance()
    with Store.open(here / "free") as store:
        in_progress = [commit.batch - commit.drawn_after for commit in store.commits()]
    assert max(in_progress) == 2, "beside each batch there were two others, one at each other worker"


def test_an_interrupted_free_search_continues_and_can_be_replayed(here: Path) -> None:
    free = recipe("slow", workers=2, search={"mode": "free", "lag": 0})
    with Run.start(free, here / "free") as run:
        assert run.advance(lambda run: run.strategy.committed > 20, every=0.0) is None
    with Run.resume(here / "free", trust=True) as run:
        assert 20 < run.strategy.committed < 60
        assert run.advance()
    assert replay(here / "free", here / "again", trust=True).differences == ()


def test_a_replay_names_differences(here: Path) -> None:
    finished(here / "run", recipe())
    with Store.open(here / "run", write=True) as store:
        store._db.execute("UPDATE cell_history SET log_odds = log_odds + 1 WHERE id = 5")
        store._db.execute("UPDATE genomes SET father = -1 WHERE birth IN (SELECT max(birth) FROM genomes WHERE father >= 0)")
    found = replay(here / "run", here / "again", trust=True)
    assert found.differences == ("elites of each cell and their scores", "descent")
    with pytest.raises(StoreError, match="has a run already"):
        replay(here / "run", here / "again", trust=True)


def test_workers_give_the_same_reference_logits_as_this_process(here: Path) -> None:
    with Run.start(recipe(workers=2), here / "run") as run:
        genomes = run.encoding.random(19, Key(1, 2))
        local = LocalEvaluator(run.batch_evaluator)
        births = list(range(100, 119))
        assert np.array_equal(run.evaluator.reference_logits(births, genomes), local.reference_logits(births, genomes))


def test_a_search_goes_from_none_to_workers_and_back(here: Path) -> None:
    finished(here / "unbroken", recipe())
    with Run.start(recipe(), here / "run") as run:
        run.advance(batches=10)
    for workers, batches in ((2, 20), (0, 10), (1, None)):
        with Run.resume(here / "run", recipe(workers=workers), trust=True) as run:
            run.advance(batches=batches)
    assert course(here / "run") == course(here / "unbroken")


def test_a_worker_with_another_target_is_refused(here: Path) -> None:
    with Run.start(recipe("here_alone", workers=1), here / "run") as run, pytest.raises(TargetError, match="put the same"):
        run.advance()


def test_a_search_that_waits_for_resources_notes_what_is_needed_and_available(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.start_up._NOTE", 0.5)
    big = recipe(workers=1, ray={"memory": 100_000.0})
    with Run.start(big, here / "run") as run:
        assert run.advance(lambda run: bool(run.warnings), every=0.1) is None
        assert "each needs 1 CPU, 100,000 GiB of memory, available: 6 CPU" in run.warnings[0]


def test_ray_starts_beside_other_work_and_stays_for_those_who_use_it() -> None:
    import ray

    users = session._SESSION.users
    with started_ahead(RayOptions(), 2):
        session.connect(RayOptions(), 2)
    assert session._SESSION.users == users + 1
    session.disconnect()
    assert ray.is_initialized(), "this module's own Ray"


def test_a_lag_too_small_for_the_workers_is_noted(here: Path) -> None:
    with Run.start(recipe(workers=4, search={"lag": 0}), here / "run") as run:
        assert any("search.lag 0" in note and "2 of 4 workers" in note for note in run.evaluator.notes)
    with Run.start(recipe(workers=4, search={"lag": 3}), here / "enough") as run:
        assert not run.evaluator.notes


def test_workers_are_refused_for_a_target_without_a_spec(here: Path) -> None:
    import odd_targets

    unnamed = evofool.targets.Target("mine", list("abcde"), (1, 6, 6), odd_targets.linear, {})
    with pytest.raises(TargetError, match="workers build their target from its spec"):
        Run.start(recipe(workers=1), here / "run", unnamed)


def test_a_run_on_several_kinds_of_machine_is_verified_within_a_tolerance(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(here / "alike", recipe(workers=1))
    with StoredRun(here / "alike") as stored:
        alike = stored.meta.machine
        assert verify(stored, trust=True).exact
    with monkeypatch.context() as patch:
        patch.setattr("evofool.search.local_evaluator.machine", lambda threads: {"cpu": "another"})
        with Run.start(recipe(), here / "both") as run:
            run.advance(batches=5)
    with monkeypatch.context() as patch:
        patch.setattr("evofool.cluster.evaluator.machine", lambda threads: {"cpu": "another"})
        with Run.resume(here / "both", recipe(workers=1), trust=True) as run:
            run.advance()
            assert any("another kind of machine (cpu" in note for note in run.warnings)
    with StoredRun(here / "both") as stored:
        assert stored.meta.machine == {"several kinds": [{"cpu": "another"}, alike]}
        assert not verify(stored, trust=True).exact


def test_number_formats_can_be_chosen_on_a_worker(cluster: str) -> None:
    options = RayOptions(address=cluster)
    choice = choose_on_worker("lenet", 8, 1, options)
    assert (choice.number_format, choice.chunk) == ("float32", 8)
    with pytest.raises(TargetError, match="nowhere"):
        choose_on_worker("nowhere", 8, 1, options)
    with Run.start(recipe(workers=1), Path("run")) as run:
        assert run.evaluator.reference_logits([1], run.encoding.random(1, Key(0, 0))).shape == (1, 5), (
            "Ray was not shut down"
        )


def test_an_image_is_quarantined_only_after_a_second_process_failed(here: Path) -> None:
    """A process that has gone sick breaks every image that it gets; a fresh one does not."""
    finished(here / "healthy", recipe())
    each = finished(here / "sick", recipe("sick", workers=1))
    assert each[0]["restarts"] == 1
    assert course(here / "sick") == course(here / "healthy")


def test_too_little_memory_for_a_chunk_ends_the_search(here: Path) -> None:
    with (
        Run.start(recipe("huge", workers=1), here / "run") as run,
        pytest.raises(TargetError, match="does not hold 8 images"),
    ):
        run.advance()


def test_a_target_that_is_never_loaded_by_workers_is_a_failed_start(here: Path) -> None:
    with (
        Run.start(recipe("endless", workers=1, ray={"timeout": 0.2}), here / "run") as run,
        pytest.raises(
            TargetError,
            match=r"no worker can be started: (its target was not loaded|Ray has not started its process) in 0\.8 seconds",
        ),
    ):
        run.advance()


def test_seconds_end_a_search_that_waits_for_workers(here: Path) -> None:
    waits = recipe(workers=1, ray={"memory": 100_000.0}, stop={"seconds": 1.0})
    with Run.start(waits, here / "run") as run:
        assert run.advance() is None
        assert run.seconds < 30


def test_a_replay_during_a_run_compares_the_batches_at_its_start(here: Path) -> None:
    with Run.start(recipe(), here / "run") as run:
        run.advance(batches=20)
        found = replay(here / "run", here / "again", trust=True, begun=lambda _: run.advance(batches=10))
    assert (found.of, found.differences) == (20, ())


# --- the command


def test_the_command_joins_a_cluster_and_show_lists_its_workers(here: Path, cluster: str) -> None:
    done = evofool_command(*RUN, "--workers", "2", "--ray", cluster, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert f"2 Ray workers ({cluster})" in done.stdout
    table = evofool_command("show", "run", "--workers")
    rows = [line.split() for line in table.stdout.splitlines()[1:3]]
    assert [row[0] for row in rows] == ["0", "1"]
    assert "working" in {row[1] for row in rows} <= {"working", "starting"}
    shown = json.loads(evofool_command("show", "run", "--workers", "--json").stdout)
    assert sum(one["images"] for one in shown["workers"]) >= 600
    assert all(0 <= one["busy"] <= 1 and one["restarts"] == 0 for one in shown["workers"])
    assert all(one["device"] == "cpu" for one in shown["workers"] if one["state"] == "working")
    for change in ("stop.evaluations=1200", "target=lenet"):
        refused = evofool_command("run", "run", "--set", change)
        assert refused.returncode == 2, "the file alone names the cluster"
        assert "if you trust it, add --trust" in refused.stderr
    local = evofool_command("run", "run", "--set", "stop.evaluations=1200", "--workers", "0")
    assert local.returncode == 0, local.stderr
    assert evofool_command("replay", "run").returncode == 0


def test_an_unreachable_ray_is_reported_in_one_sentence(here: Path) -> None:
    done = evofool_command(*RUN, "--workers", "1", "--ray", "127.0.0.1:1", "--out", "run")
    assert done.returncode == 2
    assert "no Ray answers there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "run").exists()


def test_ray_is_imported_only_for_workers(here: Path) -> None:
    code = "import sys, atexit; atexit.register(lambda: print('ray' in sys.modules)); " + OURS
    done = subprocess.run(
        [sys.executable, "-c", code, *RUN, "--out", "run"], capture_output=True, text=True, env=environment_of(), check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
def test_a_ray_that_is_lost_ends_the_search_with_one_sentence(here: Path, process: str) -> None:
    words = [*RUN, "--workers", "1", "--out", "run", "--set", "stop.evaluations=1000000", "--set", "save.seconds=1"]
    line = [sys.executable, "-c", OURS, *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment_of()) as driver:
        assert wait_for(lambda: committed(here / "run") > 0 or driver.poll() is not None)
        (pid,) = [pid for pid in children(driver.pid) if process.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(pid, signal.SIGKILL)
        printed, complaint = driver.communicate(timeout=300)
    assert driver.returncode == 2
    assert complaint.count("\n") == 1, complaint
    assert f"has failed (its process {process} has ended); what is saved is safe" in complaint
    assert "evaluations are saved; continue with:" in complaint
    assert "raylet)" not in printed
    assert evofool_command("verify", "run").returncode == 0


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(parent):
                found.append(int(entry.name))
        except OSError:
            pass
    return found
