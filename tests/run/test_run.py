"""A run, stopped by a person or by a kill: it ends where an unbroken one does."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evofool.machine import machine, torch_threads
from evofool.recipe import parse
from evofool.run.lags import drawn_after
from evofool.run.replay import replay
from evofool.run.run import Run, row_after
from evofool.run.stored import StoredRun
from evofool.search.evaluate import Order
from tests.run.cases import ENCODINGS, parity, recipe, unbroken
from tests.stored import content
from tests.synthetic import CLASSES, fake, linear

NICHES = {"descriptor": "mirror_symmetry", "edges": [0.6, 0.68]}


CASES = [
    pytest.param(encoding, lag, competition, niches, 1, id=f"{encoding}-lag{lag}-{competition}{'-niches' if niches else ''}")
    for encoding in ENCODINGS
    for lag in (0, 3)
    for competition in ("all", "per-class")
    for niches in ((None, NICHES) if encoding != "latent" else (None,))  # digits, as small as this, all lie in one niche
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


def test_a_class_that_has_its_best_image_from_the_start_does_not_hide_that_others_climb(tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        z = linear(images) / 16
        z[:, 0] = np.logaddexp.reduce(z[:, 1:], axis=1) + 30  # the same log-odds for every image
        return z

    with Run.start(recipe(stop={"evaluations": 1600}), tmp_path, fake(forward)) as run:
        run.advance(batches=1)
        first = run.archive.log_odds.copy()
        run.advance()
        assert run.archive.log_odds.max() == pytest.approx(first.max(), abs=1e-3)
        assert np.median(run.archive.log_odds - first) > 0.1
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


# --- lags


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
