"""The records of a cell's answers: enough for every threshold, few, and the same after an interruption."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from evofool.attacks import run as attacks
from evofool.bench.acceptance import FEATURES, MARGIN, SEEN, AcceptanceScore, AcceptanceScores, PairScale, top_two
from evofool.bench.arms import evolves, search_recipe
from evofool.bench.cell import run_cell
from evofool.bench.cell_job import CellJob
from evofool.bench.collect import _other_traces
from evofool.bench.prepare import PreparedTarget
from evofool.bench.seen_answers import _HEAD, FILE, SeenAnswers, read_seen
from evofool.bench.trace import read_trace, read_trace_of_score
from evofool.errors import StoreError
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target

ALL = tuple(range(10))


def job(folder: Path, arm: str, queries: int = 200) -> CellJob:
    made = CellJob(folder, "lenet", arm, 0, queries, ALL)
    return replace(made, changes=("search.random=0",)) if evolves(arm) else made


def test_no_image_that_is_the_first_to_reach_a_threshold_is_without_a_record(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    logits = (draw.normal(size=(600, 4)) * 3).astype(np.float32)
    logits[100] = logits[99]
    logits[200, 1] = np.nan
    logits[300] = 7.0  # no class is first
    likeness = draw.normal(size=600)
    with SeenAnswers(tmp_path, lambda rows, classes: likeness[rows]) as answers:
        answers.begin(lambda records: np.ones(len(records), bool))
        for begin in range(0, 600, 16):  # rows: as if each chunk was the part of one pass that begins there
            answers.note(None, begin + 1 + np.arange(len(logits[begin : begin + 16])), logits[begin : begin + 16], begin)
    seen = read_seen(tmp_path)
    assert seen is not None
    assert len(seen) < 200
    sound = np.isfinite(logits).all(1) & (top_two(logits)[0] > top_two(logits)[1])
    tops, seconds = top_two(logits)
    for c in range(4):
        of = np.flatnonzero(sound & (logits.argmax(1) == c))
        ours = seen[seen["class"] == c]
        for low, high in draw.normal(size=(200, 2)) * 4:
            hits = of[(tops[of] >= low) & (seconds[of] <= high)] + 1
            found = ours["at"][(ours["top"] >= low) & (ours["second"] <= high)]
            assert found.min(initial=10**6) == hits.min(initial=10**6)
        for level in np.linspace(-3, 4, 40):
            assert ours["at"][ours["similarity"] >= level].min(initial=10**6) == (
                of[likeness[of].astype(np.float32) >= np.float32(level)] + 1
            ).min(initial=10**6)


def test_an_image_that_was_not_compared_by_its_features_leaves_a_record_even_if_others_beat_it(tmp_path: Path) -> None:
    logits = np.array([[9, 0, 0], [5, 1, 0], [4, 2, 0], [0, 3, 1]], np.float32)
    for name, likeness, rows in (("all", [0.5] * 4, [1, 4]), ("some", [0.5, np.nan, np.nan, 0.5], [1, 2, 4])):
        (tmp_path / name).mkdir()
        with SeenAnswers(tmp_path / name, partial(lambda of, rows, _: of[rows], np.array(likeness))) as answers:
            answers.begin(lambda records: np.ones(len(records), bool))
            answers.note(None, np.arange(1, 5), logits)
        seen = read_seen(tmp_path / name)
        assert seen is not None
        assert seen["at"].tolist() == rows


def traces(folder: Path, queries: int) -> tuple[list[list[float]], list[list[float]]]:
    scale = PairScale(np.linspace(0, 30, 50), np.linspace(-10, 20, 50))
    seen = read_seen(folder)
    assert seen is not None
    with StoredRun(folder) as stored:
        margin = read_trace_of_score(stored, seen, ALL, queries, lambda s: s["top"].astype(float) - s["second"])
        known = read_trace(stored, ALL, queries)
        pair = read_trace_of_score(stored, seen, ALL, queries, lambda s: scale(s["top"], s["second"]))
    for c in ALL:  # of records only images whose arg-max is the class have a place
        positive = known.margins[c] > 0
        assert margin.queries[c].tolist() == known.queries[c][positive].tolist()
        assert margin.margins[c].tolist() == pytest.approx(known.margins[c][positive].tolist())
    return [list(q) for q in pair.queries], [list(v) for v in pair.margins]


@pytest.mark.parametrize("arm", ["cppn", "per-class", "random", "nes", "square", "apgd", "noise"])
def test_records_have_the_margins_of_the_run_in_the_order_of_queries(arm: str, tmp_path: Path) -> None:
    assert run_cell(job(tmp_path, arm).to_dict()) is not None
    queries, values = traces(tmp_path, 200)
    if arm != "noise":
        assert max(map(len, values)) > 1
    assert all(at[-1] <= 200 for at in queries if at)


def test_an_interrupted_search_has_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cell(job(tmp_path / "whole", "cppn").to_dict()) is not None
    with monkeypatch.context() as patch:
        advance = Run.advance
        patch.setattr(Run, "advance", lambda run, tick: advance(run, tick, batches=3))
        assert run_cell(job(tmp_path / "cut", "cppn").to_dict()) is None
    with (tmp_path / "cut" / FILE).open("ab") as file:  # written after the checkpoint, by a process that was killed
        late = np.zeros(1, SEEN)
        late["at"], late["top"] = 199, 99
        file.write(late.tobytes() + b"torn")
    assert run_cell(job(tmp_path / "cut", "cppn").to_dict()) is not None
    assert traces(tmp_path / "cut", 200) == traces(tmp_path / "whole", 200)


def test_an_interrupted_attack_has_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled = attacks.AttackPlan.settled
    monkeypatch.setattr(attacks.AttackPlan, "settled", lambda plan, of: replace(settled(plan, of), group=4))
    assert run_cell(job(tmp_path / "whole", "nes").to_dict()) is not None
    assert run_cell(job(tmp_path / "cut", "nes").to_dict(), lambda report: report["done"] >= 100) is None
    with StoredRun(tmp_path / "cut") as stored:
        assert stored.meta.attack is not None
        assert 0 < stored.meta.attack.done < 10
    assert run_cell(job(tmp_path / "cut", "nes").to_dict()) is not None
    assert traces(tmp_path / "cut", 200) == traces(tmp_path / "whole", 200)


def test_a_cell_that_was_begun_without_records_ends_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        advance = Run.advance
        patch.setattr(Run, "advance", lambda run, tick: advance(run, tick, batches=3))
        assert run_cell(job(tmp_path, "cppn").to_dict()) is None
    (tmp_path / FILE).unlink()
    assert run_cell(job(tmp_path, "cppn").to_dict()) is not None
    assert read_seen(tmp_path) is None


def test_a_cell_is_left_out_of_a_score_that_some_of_its_records_do_not_have(tmp_path: Path) -> None:
    ready = job(tmp_path, "random")
    assert run_cell(ready.to_dict()) is not None
    seen = read_seen(tmp_path)
    assert seen is not None
    scored = np.arange(10) != 3  # class 3 has no real images to compare with, and counts in no score
    acceptance = AcceptanceScores(dict.fromkeys((MARGIN, FEATURES), cast(AcceptanceScore, None)))
    prepared = cast(PreparedTarget, SimpleNamespace(acceptance=acceptance, calibration=SimpleNamespace(scored=scored)))
    for missing, scores in ((seen["class"] == 3, [FEATURES]), (seen["at"] == seen["at"][seen["class"] != 3][-1], [])):
        records = seen.copy()
        records["similarity"] = np.where(missing, np.nan, 0.5)
        (tmp_path / FILE).write_bytes(_HEAD + records.tobytes())
        with StoredRun(tmp_path) as stored:
            assert list(_other_traces(ready, stored, prepared)) == scores


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_seen(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"something else")
    with pytest.raises(StoreError, match=f"{FILE} is damaged; delete the folder"):
        read_seen(tmp_path)


def test_the_search_that_is_watched_is_the_same(tmp_path: Path) -> None:
    assert run_cell(job(tmp_path / "cell", "cppn").to_dict()) is not None
    network = target("lenet")
    with Run.start(search_recipe(job(tmp_path / "cell", "cppn"), network), tmp_path / "plain", network) as run:
        run.advance()
    with StoredRun(tmp_path / "cell") as one, StoredRun(tmp_path / "plain") as other:
        assert [e.summary() for e in one.elites()] == [e.summary() for e in other.elites()]
