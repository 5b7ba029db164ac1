"""A run that ranks in one number format and measures in another, and its last checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evofool
import evofool.run.verify
from evofool.errors import RecipeError, TargetError
from evofool.recipe import Recipe
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.scores import confidence, log_odds
from evofool.search.evaluate import AnswersWithdrawn
from evofool.targets import Target
from tests.run.cases import recipe, unbroken
from tests.stored import content
from tests.synthetic import CLASSES, fake


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
