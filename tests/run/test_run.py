"""A run, stopped by its rules, by a person or by a kill: it ends where an unbroken one does."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evofool
import evofool.run.verify
from evofool.errors import RecipeError, ScoreError, StoreError, TargetError
from evofool.machine import machine, torch_threads
from evofool.recipe import Recipe, load, parse
from evofool.run.lags import drawn_after
from evofool.run.reader import FILE
from evofool.run.replay import replay
from evofool.run.run import Run, row_after
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.scores import confidence, log_odds
from evofool.search.evaluate import AnswersWithdrawn, Order
from evofool.targets import Target
from tests.synthetic import CLASSES, SIDE, fake, linear

HOME = Path(evofool.__file__).parent.parent
ENCODINGS: dict[str, dict[str, Any]] = {
    "cppn": {"kind": "cppn"},
    "direct": {"kind": "direct", "crossover": 0.3},
    "canvas": {"kind": "canvas", "mirror": 1},
}
NICHES = {"descriptor": "mirror_symmetry", "edges": [0.6, 0.68]}


def parity(images: np.ndarray, high: float) -> np.ndarray:
    """Two answers are all there is: class 0 by whether the first pixel is odd."""
    z = np.full((len(images), CLASSES), -1.0, np.float32)
    z[:, 0] += (images[:, 0, 0, 0] % 2) * high
    return z


def recipe(encoding: str = "direct", stop: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    search = {"seed": 3, "batch": 8, **parts.pop("search", {})}
    data = {
        "target": "fake",
        "encoding": ENCODINGS[encoding],
        "search": search,
        "stop": stop or {"evaluations": 480},
        **parts,
    }
    return parse(data, "test")


_OWN = {"id", "seconds", "answers", "workers"}
"""What two runs of one recipe may differ in; a kill costs some answers."""


def content(folder: Path) -> dict[str, Any]:
    """Everything that a run has stored, its timings left out."""
    with Store.open(folder) as store:
        return {
            "elites": store.elites(),
            "cell_history": store.cell_history(),
            "runners_up": store.runners_up(),
            "metrics": [(m.batch, m.row) for m in store.metrics()],
            "pending": [(p.batch, *(a.tolist() for a in p[1:5]), p.drawn_after) for p in store.pending()],
            "quarantine": store.quarantine(),
            "counts": store.counts(),
            "genomes": store.genomes(store.births()),
            "meta": store.meta().model_dump(exclude=_OWN),
        }


def unbroken(folder: Path, what: Recipe, target: Target | None = None) -> dict[str, Any]:
    with Run.start(what, folder, target or fake()) as run:
        assert run.advance()
    return content(folder)


CASES = [
    pytest.param(encoding, lag, competition, niches, 1, id=f"{encoding}-lag{lag}-{competition}{'-niches' if niches else ''}")
    for encoding in ENCODINGS
    for lag in (0, 3)
    for competition in ("all", "per-class")
    for niches in (None, NICHES)
]
CASES += [
    pytest.param("direct", 0, "all", None, 4, id="direct-keep4"),
    pytest.param("cppn", 3, "per-class", NICHES, 4, id="cppn-lag3-per-class-niches-keep4"),
]


@pytest.mark.parametrize(("encoding", "lag", "competition", "niches", "keep"), CASES)
def test_a_run_interrupted_at_any_batch_and_resumed_ends_where_an_unbroken_one_does(
    tmp_path: Path, encoding: str, lag: int, competition: str, niches: dict[str, Any] | None, keep: int
) -> None:
    search = {"lag": lag, "competition": competition, "keep": keep}
    what = recipe(encoding, search=search, **({"niches": niches} if niches else {}))
    expected = unbroken(tmp_path / "unbroken", what)
    assert len(expected["elites"]) > CLASSES if niches else len(expected["elites"]) == CLASSES
    assert expected["counts"][0] > 10
    folder = tmp_path / "broken"
    with Run.start(what, folder, fake()) as run:
        assert run.advance(batches=0) is None
        assert run.advance(batches=1) is None
    for batches in (1, 1, 2, 13, 20, None):
        with Run.resume(folder, target=fake()) as run:
            before = content(folder)
            assert before["meta"]["committed"] == run.strategy.committed
            run.advance(batches=batches)
    assert content(folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "lag", "keep"), [("cppn", 0, 1), ("direct", 0, 1), ("cppn", 3, 1), ("direct", 3, 1), ("direct", 3, 4)]
)
def test_a_run_killed_anywhere_goes_on_from_its_last_checkpoint_to_the_same_end(
    tmp_path: Path, encoding: str, lag: int, keep: int
) -> None:
    """A kill is a copy of the files at that moment: what was not yet saved is in neither."""
    what = recipe(encoding, search={"lag": lag, "keep": keep}, save={"seconds": 3600.0})
    expected = unbroken(tmp_path / "unbroken", what)
    saves, kills = {0, 4, 5, 21, 40}, {0, 3, 4, 11, 22, 40, 58}
    copies: list[Path] = []

    def tick(run: Run) -> bool:
        batch = run.strategy.committed - 1
        if batch in kills:
            copies.append(shutil.copytree(run.folder, tmp_path / f"killed after {batch}"))
        if batch in saves:
            run.save()
        return False

    with Run.start(what, tmp_path / "run", fake()) as run:
        copies.append(shutil.copytree(run.folder, tmp_path / "killed at once"))
        run.advance(tick, every=0.0)
    assert content(tmp_path / "run") == expected
    assert len(copies) == 8
    committed = []
    for copied in copies:
        with Run.resume(copied, target=fake()) as run:
            committed.append(run.strategy.committed)
            run.advance()
        assert content(copied) == expected
    assert committed == [0, 0, 1, 1, 6, 22, 22, 41]


def test_the_elites_replay_from_the_reigns_and_the_metrics_from_the_archive(tmp_path: Path) -> None:
    what = recipe("cppn", search={"competition": "argmax"}, niches=NICHES)
    stored = unbroken(tmp_path / "run", what)
    last = {cell: (birth, log_odds, margin) for cell, birth, _, log_odds, margin, _ in stored["cell_history"]}
    assert last == {e.cell: (e.birth, e.log_odds, e.margin) for e in stored["elites"]}
    for e in stored["elites"]:
        assert e.cell == e.class_id * 3 + e.niche
        assert e.sha256 == e.digest()
    wins, switches = stored["counts"]
    final = stored["metrics"][-1][1]
    assert (final["wins"], final["switches"]) == (wins, switches)
    assert final["distinct"] == len({e.birth for e in stored["elites"]})


def test_metrics_rows_thin_out_and_always_hold_the_first_and_the_last_batch(tmp_path: Path) -> None:
    stored = unbroken(tmp_path / "run", recipe(stop={"evaluations": 8 * 300}))
    batches = [batch for batch, _ in stored["metrics"]]
    assert batches[0] == 0
    assert batches[-1] == 299
    assert all(b == row_after(a) for a, b in pairwise(batches[:-1]))
    assert [row["gen"] for _, row in stored["metrics"]] == batches
    assert [row["evaluations"] for _, row in stored["metrics"]] == [8 * (b + 1) for b in batches]
    assert len(batches) < 200


def test_a_genome_at_its_largest_weight_can_be_read_back(tmp_path: Path) -> None:
    """A limit that is no float32 itself: a weight at the limit must still be within it."""
    what = parse(
        {
            "target": "fake",
            "encoding": {"kind": "cppn", "weight_limit": 1.1, "mutation": {"weight": 1.0, "eta": 1.0}},
            "search": {"batch": 8},
            "stop": {"evaluations": 400},
        },
        "test",
    )
    expected = unbroken(tmp_path / "unbroken", what)
    with Run.start(what, tmp_path / "run", fake()) as run:
        run.advance(batches=25)
    with Run.resume(tmp_path / "run", target=fake()) as run:
        run.advance()
    assert content(tmp_path / "run") == expected


# --- ranking in one number format, measuring in another


def photo_network(seed: int = 0) -> Target:
    """A small convolutional network for 64x64 RGB, with formats of its own to rank by."""
    torch.manual_seed(seed)
    parts = [torch.nn.Conv2d(3, 8, 5, 4), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2)]
    network = torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.LazyLinear(CLASSES))
    network(torch.zeros(2, 3, 64, 64))
    with torch.no_grad():
        network[-1].weight *= 4
    return Target.from_module(network, None, (3, 64, 64), name="photos")


class ByRow(torch.nn.Module):
    """The same, but in a later row of a chunk each logit is a little larger, by another amount."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + torch.arange(len(x))[:, None] * torch.linspace(0, 1e-3, CLASSES)


def photo_network_by_row() -> Target:
    network = photo_network().network
    assert network is not None
    return Target.from_module(ByRow(network.module), None, (3, 64, 64), name="photos by row")


def ranked_in_bfloat16(stop: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    return recipe("cppn", stop or {"evaluations": 160}, compute={"format": "bfloat16", "chunk": 4}, **parts)


def test_elites_are_measured_again_in_plain_float32_and_the_ranking_is_kept_beside(tmp_path: Path) -> None:
    target = photo_network()
    with Run.start(ranked_in_bfloat16(), tmp_path / "run", target) as run:
        assert run.recipe.compute.format == "bfloat16"
        run.advance()
        ranked, best = run.archive.log_odds.copy(), run.best()
    with StoredRun(tmp_path / "run") as stored:
        elites = stored.elites()
        images = np.stack([e.image for e in elites])
        assert [e.row.search_log_odds for e in elites] == ranked.tolist()
        assert [e.row.log_odds for e in elites] == best.tolist()
        every = np.arange(len(elites))
        plain = log_odds(target.logits(images))[every, every]
        assert [e.row.log_odds for e in elites] == pytest.approx(plain.tolist(), abs=1e-4)
        assert 0 < np.abs(ranked - plain).max() < 0.5
        verdict = evofool.run.verify.verify(stored, target)
        assert not verdict.faults
        assert verdict.exact


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("photos", [photo_network, photo_network_by_row])
def test_a_run_ranked_in_bfloat16_ends_the_same_however_it_is_cut_and_with_any_workers(
    tmp_path: Path, lag: int, photos: Callable[[], Target]
) -> None:
    what = ranked_in_bfloat16(search={"lag": lag})
    expected = unbroken(tmp_path / "unbroken", what, photos())
    assert bool(expected["meta"]["position"]["tolerance"]) == (photos is photo_network_by_row)
    threads = what.changed(["compute.streams=3", "save.seconds=0"], "test")
    Run.start(threads, tmp_path / "cut", photos()).__exit__()
    for batches in (1, 7, 3, 9):
        with Run.resume(tmp_path / "cut", threads, photos()) as run:
            run.advance(batches=batches)
    found = content(tmp_path / "cut")
    for part in ("recipe", "answers"):
        expected["meta"].pop(part, None)
        found["meta"].pop(part, None)
    assert found == expected


def test_what_the_validation_asked_is_counted_in_a_run_that_is_killed_before_its_first_checkpoint(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path / "run", fake()) as run:
        killed = shutil.copytree(run.folder, tmp_path / "killed")
        asked = run.answers
        run.advance()
        expected = run.answers
    assert asked > 0
    with Run.resume(killed, target=fake()) as run:
        assert run.answers == asked
        run.advance()
        assert run.answers == expected


def test_a_checkpoint_without_pictures_is_enough_to_go_on_from(tmp_path: Path) -> None:
    what = ranked_in_bfloat16({"evaluations": 240}, save={"seconds": 3600.0})
    expected = unbroken(tmp_path / "unbroken", what, photo_network())
    copies: list[Path] = []

    def tick(run: Run) -> bool:
        batch = run.strategy.committed - 1
        if batch in (3, 9, 15, 22):
            run.save(whole=batch == 9)
            copies.append(shutil.copytree(run.folder, tmp_path / f"killed after {batch}"))
        return False

    with Run.start(what, tmp_path / "run", photo_network()) as run:
        run.advance(tick, every=0.0)
    behind = []
    for copied in copies:
        with StoredRun(copied) as stored:
            behind.append(stored.meta.committed - stored.meta.shown)
            if stored.meta.shown:
                assert not evofool.run.verify.verify(stored, photo_network()).faults
        with Run.resume(copied, target=photo_network()) as run:
            run.advance()
        found = content(copied)
        assert found == expected
    assert behind == [4, 0, 6, 13]


def test_a_checkpoint_is_written_once_its_checks_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed: list[int] = []
    what = recipe(stop={"evaluations": 48}, save={"seconds": 0})
    with Run.start(what, tmp_path / "run", fake()) as run:
        monkeypatch.setattr(run.evaluator, "mark", lambda: run.strategy.committed)
        monkeypatch.setattr(run.evaluator, "confirmed", lambda mark: bool(agreed) and mark <= agreed[-1])
        seen: list[tuple[int, int]] = []

        def tick(run: Run) -> bool:
            done, stored = run.strategy.committed, run.store.meta().committed
            seen.append((done, stored))
            agreed.append(done - 2)  # the checks of a batch are completed two batches later
            return False

        monkeypatch.setattr(run.evaluator, "confirm", lambda: agreed.append(run.strategy.committed))
        run.advance(tick, every=0.0)
        assert all(stored <= max(0, done - 2) for done, stored in seen)
        assert max(stored for _, stored in seen) > 0
        assert run.store.meta().committed == 6
    assert content(tmp_path / "run") == unbroken(tmp_path / "unbroken", what)


@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("saved", [1, 2])
def test_answers_that_are_withdrawn_at_the_end_add_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: int, lag: int
) -> None:
    """Before the partial or the whole one of the last checkpoints is written: then nothing is left to search."""
    what = recipe(stop={"evaluations": 160}, search={"lag": lag})
    expected = unbroken(tmp_path / "unbroken", what)
    confirmed: list[int] = []
    with Run.start(what, tmp_path / "run", fake()) as run:

        def confirm() -> None:
            confirmed.append(1)
            if len(confirmed) == saved:
                raise AnswersWithdrawn("worker 7 is wrong")

        monkeypatch.setattr(run.evaluator, "confirm", confirm)
        assert run.advance() == "stop.evaluations = 160 is reached"
        assert run.strategy.evaluations == 160
    found = content(tmp_path / "run")
    for name in ("elites", "cell_history", "pending", "counts", "genomes"):
        assert found[name] == expected[name], name
    assert found["meta"]["finished"] == expected["meta"]["finished"]


def test_elites_are_measured_again_by_the_next_command_if_that_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["class 2 differs"]
    monkeypatch.setattr("evofool.run.run.differing_elites", lambda *_: found[0] if found else None)
    with Run.start(recipe(stop={"evaluations": 160}), tmp_path / "run", fake()) as run:
        with pytest.raises(TargetError, match="class 2 differs"):
            run.advance()
        assert run.store.meta().finished is None
    with Run.resume(tmp_path / "run", target=fake()) as run, pytest.raises(TargetError, match="class 2 differs"):
        run.advance()
    found.clear()
    with Run.resume(tmp_path / "run", target=fake()) as run:
        assert run.advance() == "stop.evaluations = 160 is reached"
        assert run.store.meta().finished == "stop.evaluations = 160 is reached"
        found.append("not looked at again")
        assert run.advance() == "stop.evaluations = 160 is reached"


@pytest.mark.parametrize("keep", [1, 4])
def test_a_run_whose_answers_are_withdrawn_goes_back_to_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    what = recipe(save={"seconds": 0}, search={"keep": keep})
    with Run.start(what, tmp_path / "run", fake()) as run:
        results, withdrawn = run.evaluator.results, list[int]()

        def wrong_once(give_up: Any) -> Any:
            for order, winners in results(give_up):
                if len(withdrawn) < 2 and run.strategy.committed == 3:
                    run.archive.log_odds += 1.0
                    withdrawn.append(run.strategy.committed)
                    raise AnswersWithdrawn("worker 7 is wrong")
                yield order, winners

        monkeypatch.setattr(run.evaluator, "results", wrong_once)
        assert run.advance()
        assert withdrawn == [3, 3]
        assert "at which all workers agreed, from 24, because worker 7 is wrong" in run.warnings[-1]
    stored, expected = content(tmp_path / "run"), unbroken(tmp_path / "unbroken", what)
    assert {**stored, "meta": {**stored["meta"], "warnings": [], "repeated": 0}} == expected


@pytest.mark.parametrize("earlier", [0, 9])
def test_a_run_killed_in_its_last_checkpoint_has_its_elites_brought_up_to_date(tmp_path: Path, earlier: int) -> None:
    what = ranked_in_bfloat16({"evaluations": 240}, save={"seconds": 3600.0})
    expected = unbroken(tmp_path / "unbroken", what, photo_network())

    def tick(run: Run) -> bool:
        if run.strategy.committed == earlier:
            run.save()
        elif run.finished:
            run.save(whole=False)
            shutil.copytree(run.folder, tmp_path / "killed")
        return False

    with Run.start(what, tmp_path / "run", photo_network()) as run:
        run.advance(tick, every=0.0)
    with StoredRun(tmp_path / "killed") as stored:
        assert stored.meta.finished
        assert stored.meta.shown == earlier
    with Run.resume(tmp_path / "killed", target=photo_network()) as run:
        assert run.advance() == "stop.evaluations = 240 is reached"
    assert content(tmp_path / "killed") == expected


def test_a_confidence_to_stop_at_has_to_be_measured_not_ranked(tmp_path: Path) -> None:
    with Run.start(ranked_in_bfloat16({"confidence": 0.35, "evaluations": 50_000}), tmp_path, photo_network()) as run:
        assert run.advance() == "stop.confidence = 0.35 is reached in every class"
        assert (confidence(run.best()) >= 0.35).all()
        measured = [row.log_odds for row in run.store.elites()]
    assert (confidence(np.array(measured)) >= 0.35).all()


def test_a_number_format_that_the_target_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'compute\.format is "bfloat16"; fake has float32 on this machine'):
        Run.start(ranked_in_bfloat16(), tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()


def test_an_error_of_somebody_s_own_code_saves_the_run_and_is_told_as_the_target_s(tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        if sick:
            raise KeyError("their own fault")
        return linear(images)

    sick: list[int] = []
    with Run.start(recipe(), tmp_path, fake(forward)) as run:
        run.advance(batches=5)
        sick.append(1)
        with pytest.raises(TargetError, match=r"fake: failed on 8 images \(KeyError: 'their own fault'\)"):
            run.advance()
    with Run.resume(tmp_path, target=fake()) as run:
        assert run.strategy.committed == 5
        run.advance()
    assert content(tmp_path) == unbroken(tmp_path / "unbroken", recipe())


def test_a_memory_that_is_too_small_in_mid_run_is_told_with_the_way_out(tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        if sick:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return linear(images)

    sick: list[int] = []
    with Run.start(recipe(), tmp_path, fake(forward)) as run:
        run.advance(batches=5)
        sick.append(1)
        with pytest.raises(
            TargetError, match=r"does not hold 8 images 1 times at once; resume with --set compute\.streams=1"
        ):
            run.advance()


def test_a_target_that_fails_its_validation_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="different images are identical"):
        Run.start(recipe(), tmp_path / "run", fake(lambda x: np.ones((len(x), CLASSES), np.float32)))
    assert not (tmp_path / "run").exists()


def test_a_target_may_be_named_in_other_words_if_it_is_the_same(tmp_path: Path) -> None:
    weights = tmp_path / "a.safetensors"
    shutil.copyfile(HOME / "evofool" / "targets" / "weights" / "lenet.safetensors", weights)
    what = load("mnist-direct", ["stop.evaluations=40", "stop.confidence=", f"target=lenet?weights={weights}"])
    with Run.start(what, tmp_path / "run") as run:
        run.advance(batches=2)
    weights.rename(tmp_path / "b.safetensors")
    with pytest.raises(TargetError, match=r"there is no weights file .*a\.safetensors"):
        Run.resume(tmp_path / "run")
    moved = what.changed([f"target=lenet?weights={tmp_path / 'b.safetensors'}"], "test")
    with Run.resume(tmp_path / "run", moved) as run:
        assert run.advance() == "stop.evaluations = 40 is reached"
    with StoredRun(tmp_path / "run") as stored:
        assert stored.recipe.target == f"lenet?weights={tmp_path / 'b.safetensors'}"


# --- stop rules


def test_a_run_stops_at_its_number_of_evaluations(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"evaluations": 41}), tmp_path, fake()) as run:
        assert run.advance() == "stop.evaluations = 41 is reached"
        assert run.strategy.evaluations == 48
        assert run.strategy.evaluations == 48
        assert run.answers == run.target.queries >= 48, "validation is counted too"


def test_a_run_stops_when_its_seconds_are_over(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"seconds": 0.05}), tmp_path, fake()) as run:
        assert run.advance() == "stop.seconds = 0.05 is reached"
        assert run.seconds >= 0.05


def test_a_run_stops_when_every_class_is_at_its_confidence(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"confidence": 0.9, "evaluations": 100_000}), tmp_path, fake()) as run:
        assert run.advance() == "stop.confidence = 0.9 is reached in every class"
        assert (run.progress().confidences >= 0.9).all()
        last = [r for r in run.store.cell_history() if r.batch == run.strategy.committed - 1]
        assert last, "the batch before was not enough"


def test_a_run_stops_when_nothing_has_changed_for_a_number_of_batches(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"no_progress": 7}), tmp_path, fake(lambda x: parity(x, 1.0))) as run:
        assert run.advance() == "stop.no_progress = 7 is reached: no elite was replaced in the last batches"
        assert run.strategy.committed == 8
    with Run.start(recipe(stop={"no_progress": 3}), tmp_path / "climbs", fake()) as run:
        run.advance()
        changed = {r.batch for r in run.store.cell_history()}
        assert run.strategy.committed - 1 - max(changed) == 3
        quiet = np.diff([*sorted(changed)])
        assert quiet.max() <= 3


def test_the_first_stop_rule_that_holds_ends_a_run(tmp_path: Path) -> None:
    stop = {"evaluations": 80, "confidence": 0.999999, "no_progress": 10_000, "seconds": 3600}
    with Run.start(recipe(stop=stop), tmp_path, fake()) as run:
        assert run.advance() == "stop.evaluations = 80 is reached"


def test_a_run_that_has_ended_stays_so_until_its_limit_is_moved(tmp_path: Path) -> None:
    what = recipe(stop={"evaluations": 160})
    with Run.start(what, tmp_path / "run", fake()) as run:
        run.advance()
        assert run.advance() == "stop.evaluations = 160 is reached"
        assert run.strategy.evaluations == 160
    ended = content(tmp_path / "run")
    with Run.resume(tmp_path / "run", target=fake()) as run:
        assert run.finished == "stop.evaluations = 160 is reached"
        assert run.advance() == "stop.evaluations = 160 is reached"
    assert content(tmp_path / "run") == ended
    further = what.changed(["stop.evaluations=480", "save.seconds=0", "name=other"], "test")
    with Run.resume(tmp_path / "run", further, fake()) as run:
        assert run.advance() == "stop.evaluations = 480 is reached"
    whole, parts = unbroken(tmp_path / "whole", recipe()), content(tmp_path / "run")
    for what_is_the_same in ("elites", "cell_history", "pending", "counts", "genomes"):
        assert parts[what_is_the_same] == whole[what_is_the_same]
    assert parts["meta"]["recipe"]["stop"] == {"evaluations": 480}


def test_tick_interrupts_a_run_after_its_batch_and_everything_is_saved(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path, fake()) as run:
        assert run.advance(lambda run: run.strategy.committed == 13, every=0.0) is None
        assert run.progress().saved == run.strategy.evaluations == 13 * 8
        assert run.finished is None
    stored = content(tmp_path)
    assert stored["meta"]["committed"] == 13
    assert stored["meta"]["finished"] is None


# --- progress, warnings, threads


def test_progress_says_what_the_archive_holds(tmp_path: Path) -> None:
    seen = []
    with Run.start(recipe(stop={"evaluations": 160, "seconds": 3600}), tmp_path, fake()) as run:
        run.advance(lambda run: bool(seen.append(run.progress())), every=0.0)
        assert [p.evaluations for p in seen] == [8 * (k + 1) for k in range(20)]
        assert all(a.seconds <= b.seconds for a, b in pairwise(seen))
        assert seen[-1].seconds_left == 0.0
        assert all(p.seconds_left is not None and p.seconds_left <= 3600 for p in seen)
        last = run.progress()
        assert last.confidences.shape == (CLASSES,)
        assert last.median == float(np.median(last.confidences))
        assert last.at_99 == int((last.confidences >= 0.99).sum())
        assert last.distinct == len(set(run.archive.birth.tolist()) - {-1})


@pytest.mark.parametrize("lag", [0, 3])
def test_a_run_that_stagnates_from_the_start_says_what_to_check(tmp_path: Path, lag: int) -> None:
    flat = lambda x: parity(x, 1e-3)  # noqa: E731
    what = recipe(stop={"evaluations": 1600}, search={"lag": lag})
    with Run.start(what, tmp_path, fake(flat, preprocessing={"scale": 7})) as run:
        run.advance(batches=120)
        assert run.warnings == []
        run.advance()
        assert len(run.warnings) == 1
    with StoredRun(tmp_path) as stored:
        (warning,) = stored.meta.warnings
    for part in ("there is hardly any improvement since the first batch", "input scaling", "'scale': 7", "trained network"):
        assert part in warning
    with Run.resume(tmp_path, target=fake(flat, preprocessing={"scale": 7})) as run:
        assert run.warnings == [warning]


def test_a_run_that_climbs_is_not_warned_of(tmp_path: Path) -> None:
    for encoding in ENCODINGS:
        with Run.start(recipe(encoding, stop={"evaluations": 2000}), tmp_path / encoding, fake()) as run:
            run.advance()
            assert run.warnings == []


def test_torch_s_threads_are_the_recipe_s_during_a_run_and_as_before_afterwards(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen = set()

    def forward(images: np.ndarray) -> np.ndarray:
        seen.add(torch.get_num_threads())
        return linear(images)

    with Run.start(recipe(compute={"threads": before + 1}), tmp_path, fake(forward)) as run:
        run.advance(batches=3)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), torch_threads(before + 2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_what_decides_last_bits_is_written_down_in_plain_words() -> None:
    here = machine(3)
    assert here["threads"] == 3
    assert here == machine(3) != machine(4)
    assert set(here) >= {"cpu", "capability", "system", "torch", "numpy", "numba"}
    assert all(isinstance(v, str | int) for v in here.values())


# --- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search.seed=4", r"search\.seed = 3, not 4"),
        ("search.batch=9", r"search\.batch = 8, not 9"),
        ("search.competition=per-class", r"search\.competition = 'all', not 'per-class'"),
        ("encoding.eta=3.0", r"encoding\.eta = "),
        ("compute.format=bfloat16", r"compute\.format = 'float32', not 'bfloat16'"),
        ("compute.threads=2", r"compute\.threads = 1, not 2"),
        ("niches={descriptor='mirror_symmetry', edges=[0.5]}", r"niches.* = None, not "),
    ],
)
def test_a_run_keeps_its_recipe_and_the_changed_key_is_named(tmp_path: Path, change: str, message: str) -> None:
    what = recipe()
    with Run.start(what, tmp_path, fake()) as run:
        run.advance(batches=2)
    before = content(tmp_path)
    with pytest.raises(RecipeError, match=message) as caught:
        Run.resume(tmp_path, what.changed([change], "test"), fake())
    assert "only stop.*, save.*, search.lag, compute.streams, compute.workers, compute.ray.* and compute.recheck*" in str(
        caught.value
    )
    assert "--out" in str(caught.value)
    assert content(tmp_path) == before
    Run.resume(tmp_path, target=fake()).__exit__()


def test_a_run_goes_on_with_its_own_target_only(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path, fake(weights_sha256="a")) as run:
        run.advance(batches=2)
    others = [
        fake(weights_sha256="b"),
        fake(),
        Target("fake", list("abcde"), (1, SIDE, SIDE), linear, {"weights_sha256": "a"}),
    ]
    for other in others:
        with pytest.raises(TargetError, match=r"the target fake is not the one that this run began with"):
            Run.resume(tmp_path, target=other)
    elsewhere = fake(weights_sha256="a", backend="torch 99", device="cuda")
    with Run.resume(tmp_path, target=elsewhere) as run:
        run.advance(batches=2)


def test_a_run_cannot_be_started_where_there_is_one_or_opened_twice(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path, fake()) as run:
        with pytest.raises(StoreError, match="in use"):
            Run.resume(tmp_path, target=fake())
        run.advance(batches=2)
        with StoredRun(tmp_path) as stored:
            assert len(stored.elites()) == CLASSES
    with pytest.raises(StoreError, match="has a run already"):
        Run.start(recipe(), tmp_path, fake())


def test_arguments_of_the_wrong_type_are_named(tmp_path: Path) -> None:
    name: Any = "mnist-cppn"
    nowhere: Any = None
    recipe, folder = load(name), tmp_path / "run"
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: Run.start(name, folder), "recipe is 'mnist-cppn' (str); it has to be a Recipe"),
        (lambda: Run.start(recipe, nowhere), "folder is None (NoneType); it has to be a path"),
        (lambda: Run.start(recipe, folder, name), "target is 'mnist-cppn' (str); it has to be a Target"),
    ]
    for call, message in wrong:
        with pytest.raises(RecipeError, match=re.escape(message)):
            call()
    assert not folder.exists()


def test_a_recipe_that_does_not_fit_its_target_leaves_no_folder(tmp_path: Path) -> None:
    colour = parse({"encoding": {"kind": "cppn", "color": "rgb"}, "stop": {"evaluations": 1}}, "test")
    with pytest.raises(RecipeError, match=r'encoding\.color "rgb" has 3 channels, the target takes 1'):
        Run.start(colour, tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("search", [{}, {"competition": "per-class"}])
def test_only_the_classes_that_are_searched_for_are_filled_and_counted(tmp_path: Path, search: dict[str, Any]) -> None:
    what = recipe(search=search | {"classes": [CLASSES - 1, 0]}, stop={"confidence": 0.5, "evaluations": 8_000})
    with Run.start(what, tmp_path, fake()) as run:
        assert run.recipe.search.classes == (0, CLASSES - 1)
        assert run.advance() == "stop.confidence = 0.5 is reached in every class"
        assert len(run.progress().confidences) == 2
        assert run.logbook[-1]["min"] >= 0.5
    with StoredRun(tmp_path) as stored:
        assert [e.row.class_id for e in stored.elites()] == [0, CLASSES - 1] == stored.classes


@pytest.mark.parametrize(
    ("classes", "message"), [([1, 1], "names a class twice"), ([], "at least 1 item"), ([0, CLASSES], "not ")]
)
def test_classes_that_there_are_not_are_refused(tmp_path: Path, classes: list[int], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"search\.classes: .*{message}"):
        Run.start(recipe(search={"classes": classes}), tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()


def test_unfinite_scores_end_a_run_by_their_batch_and_what_was_saved_stays(tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        z = linear(images)
        if sick:
            z[:, 2] = np.nan
        return z

    sick: list[int] = []
    with Run.start(recipe(), tmp_path, fake(forward)) as run:
        run.advance(batches=12)
        before = content(tmp_path)
        sick.append(1)
        with pytest.raises(TargetError, match="fails on every image of batch 12: the answer to it is NaN"):
            run.advance()
    after = content(tmp_path)
    assert {**after, "pending": []} == {**before, "pending": []}
    with Run.resume(tmp_path, target=fake()) as run:
        run.advance()
    healed, expected = content(tmp_path), unbroken(tmp_path / "unbroken", recipe())
    assert healed == expected


@pytest.mark.parametrize("lags", [(0, 3), (3, 0), (4, 1, 6)], ids=str)
def test_a_run_that_continues_with_another_lag_can_be_killed_and_replayed(tmp_path: Path, lags: tuple[int, ...]) -> None:
    first, *others = (recipe(search={"lag": lag}) for lag in lags)
    drawn: dict[int, int] = {}

    def advance(run: Run, batches: int | None) -> None:
        order = run.strategy.order

        def noting() -> Order:
            one = order()
            drawn[one.batch] = one.drawn_after
            return one

        run.strategy.order = noting  # type: ignore[method-assign]
        run.advance(batches=batches)

    with Run.start(first, tmp_path / "run", fake()) as run:
        advance(run, 10)
    killed = tmp_path / "killed"
    for other in others:
        shutil.rmtree(killed, ignore_errors=True)
        with Run.resume(tmp_path / "run", other, fake()) as run:
            shutil.copytree(tmp_path / "run", killed)  # before anything is evaluated
            advance(run, 15)
        for batches in (1, 14):
            with Run.resume(killed, target=fake()) as run:
                run.advance(batches=batches)
        assert content(killed) == content(tmp_path / "run")
    with Run.resume(tmp_path / "run", target=fake()) as run:
        assert run.recipe.search.lag == lags[-1]
        advance(run, None)
        assert [drawn_after(batch, lags[-1], run.lags) for batch in sorted(drawn)] == [
            drawn[batch] for batch in sorted(drawn)
        ]
        assert [one.lag for one in run.lags] == list(lags)
    again = replay(tmp_path / "run", tmp_path / "again", fake())
    assert (again.batches, again.differences) == (60, ())


def test_a_recipe_without_a_lag_continues_with_that_of_the_run(tmp_path: Path) -> None:
    with Run.start(recipe(search={"lag": 2}), tmp_path, fake()) as run:
        run.advance(batches=3)
    for lag, search in ((2, {}), (0, {"lag": 0}), (0, {}), (1, {"lag": 1}), (0, {"lag": 0})):
        with Run.resume(tmp_path, recipe(search=search), fake()) as run:
            assert run.recipe.search.lag == lag
            assert len(run.lags) == (0 if lag == 2 else 2), "a lag that no batch was drawn with is forgotten"


@pytest.mark.parametrize("streams", [1, 3])
def test_images_that_break_the_target_are_set_aside_and_the_run_goes_on(tmp_path: Path, streams: int) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        z, bright = linear(images), (images.reshape(len(images), -1).mean(axis=1) > 150) & bool(begun)
        if bright.any() and streams == 3:
            raise ValueError("too bright")
        z[bright, 1] = np.nan
        return z

    begun: list[int] = []  # filled after the target is validated
    what = recipe(compute={"chunk": 4, "streams": streams}, search={"lag": 2})
    with Run.start(what, tmp_path, fake(forward)) as run:
        begun.append(1)
        assert run.advance() == "stop.evaluations = 480 is reached"
        rows = run.store.quarantine()
        assert 1 <= len(rows) <= 16
        assert all(f"birth {row.birth}, of batch {row.batch}, is quarantined" in "\n".join(run.warnings) for row in rows)
        reason = "too bright" if streams == 3 else "NaN or infinite"
        assert all(reason in row.reason for row in rows)
        for row in rows:
            genome = run.encoding.unpack([row.genome])
            assert run.encoding.render(genome).mean() > 150
        held = {change.birth for change in run.store.cell_history()}
        assert not held & {row.birth for row in rows}
    with Run.resume(tmp_path, what.changed(["stop.evaluations=960"], "test"), fake(forward)) as run:
        run.advance()
    begun.clear()
    with Run.start(what.changed(["stop.evaluations=960"], "test"), tmp_path / "unbroken", fake(forward)) as run:
        begun.append(1)
        run.advance()
    same = [{k: v for k, v in content(folder).items() if k != "meta"} for folder in (tmp_path, tmp_path / "unbroken")]
    assert same[0] == same[1]
    begun.clear()
    again = replay(tmp_path, tmp_path / "again", fake(forward), begun=lambda run: begun.append(1))
    assert again.differences == ()


HANGS = """
import time
import numpy as np
from tests.synthetic import linear
class Hangs:
    shape, labels = (1, 6, 6), [str(c) for c in range(5)]
    def __call__(self, images):
        if (images[:, 0, 0, 0] == 7).any(): time.sleep(3600)
        return linear(images)
"""


@pytest.mark.slow
def test_an_image_that_hangs_a_callable_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text(HANGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    what = recipe(stop={"evaluations": 64}).model_copy(update={"target": "python:hanging:Hangs?timeout=0.5"})
    with Run.start(what, tmp_path / "run") as run:
        assert run.advance() == "stop.evaluations = 64 is reached"
        (row,) = run.store.quarantine()
        assert "0.5 s" in row.reason
        assert run.encoding.render(run.encoding.unpack([row.genome]))[0, 0, 0, 0] == 7


def test_too_many_images_that_break_the_target_end_the_run(tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        z = linear(images)
        z[(images[:, 0, 0, 0] % 8 == 0) & bool(begun)] = np.inf
        return z

    begun: list[int] = []  # filled after the target is validated
    with Run.start(recipe(), tmp_path, fake(forward)) as run:
        begun.append(1)
        with pytest.raises(ScoreError, match="More than 16 images"):
            run.advance()
    with StoredRun(tmp_path) as stored:
        assert 0 < len(stored.quarantine()) <= 16
        assert stored.meta.committed > 0


def test_a_damaged_genome_is_named_on_resuming(tmp_path: Path) -> None:
    with Run.start(recipe("cppn"), tmp_path, fake()) as run:
        run.advance(batches=20)
        run.store._db.execute("UPDATE genomes SET genome = substr(genome, 2)")
    with pytest.raises(StoreError, match=f"{FILE} is damaged: a packed CPPN"):
        Run.resume(tmp_path, target=fake())


# --- real signals, in processes of their own


def evofool_process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-m", "evofool", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it holds or the process has ended by itself, which is no fault: then there was nothing to interrupt."""
    while process.poll() is None and not condition():
        time.sleep(0.01)


def committed(folder: Path) -> int:
    try:
        with Store.open(folder) as store:
            return int(store.meta().committed)
    except StoreError:
        return -1


def options(*changes: str) -> Sequence[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.mark.slow
def test_a_process_killed_again_and_again_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    changes = ("stop.evaluations=8000", "stop.confidence=", "save.seconds=0", "search.lag=1")
    with Run.start(load("mnist-direct", changes), tmp_path / "unbroken") as run:
        run.advance()
    folder = tmp_path / "run"
    kills = 0
    arguments = ["run", "mnist-direct", "--out", str(folder), *options(*changes)]
    for beyond in (0, 40):
        begun = max(0, committed(folder))
        process = evofool_process(*arguments, cwd=tmp_path)
        wait_for(lambda goal=begun + beyond: committed(folder) > goal, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        arguments = ["run", str(folder)]
    assert kills
    with Run.resume(folder) as run:
        run.advance()
    assert content(folder) == content(tmp_path / "unbroken") | {"meta": content(folder)["meta"]}


def test_the_first_batch_is_saved_at_once(tmp_path: Path) -> None:
    """So that a run which is killed every few seconds advances each time."""
    seen: list[int] = []
    with Run.start(recipe(save={"seconds": 1e6}), tmp_path / "run", fake()) as run:
        run.advance(lambda run: bool(seen.append(committed(run.folder))), every=0, batches=2)
        assert seen == [0, 1]


@pytest.mark.slow
def test_a_run_saves_when_its_terminal_closes(tmp_path: Path) -> None:
    """Then it gets SIGHUP, and whatever it prints fails."""
    changes = ("stop.evaluations=1000000000", "stop.confidence=", "save.seconds=1000000")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        line = [sys.executable, "-m", "evofool", "run", "mnist-direct", "--out", "mine", *options(*changes)]
        os.execve(sys.executable, line, environment)
    while b"images/s" not in os.read(terminal, 1 << 16) and committed(tmp_path / "mine") < 1:
        pass
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert committed(tmp_path / "mine") > 1
    assert not (tmp_path / "mine" / f"{FILE}-wal").exists()
    assert (tmp_path / "mine" / "elites.png").is_file()


@pytest.mark.slow
def test_ctrl_c_finishes_the_batch_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    changes = ("stop.evaluations=1000000000", "stop.confidence=", "save.seconds=0")
    process = evofool_process("run", "mnist-direct", "--out", "mine", *options(*changes), cwd=tmp_path)
    wait_for(lambda: committed(tmp_path / "mine") > 0, process)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Finishing the batch and saving" in err
    assert "evofool run mine" in out.splitlines()[-1]
    assert (tmp_path / "mine" / "elites.png").is_file()
    assert not (tmp_path / "mine" / f"{FILE}-wal").exists()
    stored = content(tmp_path / "mine")
    with Run.resume(tmp_path / "mine") as run:
        assert run.strategy.committed == stored["meta"]["committed"]
        run.advance(batches=3)
