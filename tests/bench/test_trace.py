"""The trace of a run: when each class's best image improved."""

import numpy as np
import pytest

from evofool.attacks.run import run_baseline
from evofool.bench.arms import attack_plan, search_recipe
from evofool.bench.cell_job import CellJob
from evofool.bench.trace import Trace, read_trace
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target as load_target


def slow_accepted(trace: Trace, taus: np.ndarray) -> np.ndarray:
    out = np.full(taus.shape, np.nan)
    for b, row in enumerate(taus):
        for c, tau in enumerate(row):
            for at, margin in zip(trace.queries[c], trace.margins[c], strict=True):
                if margin >= tau and margin > 0:
                    out[b, c] = at
                    break
    return out


def test_a_class_is_accepted_by_the_first_image_above_its_threshold():
    draw = np.random.default_rng(0)
    margins = tuple(np.sort(draw.normal(size=n) * 3) for n in (0, 1, 5, 40))
    queries = tuple(np.sort(draw.choice(1000, len(m), replace=False)) + 1 for m in margins)
    trace = Trace(queries, margins, 1000)
    taus = draw.normal(size=(50, 4)) * 3
    taus[0] = [0.0, margins[1][0], margins[2][2], margins[3][10]]
    assert np.array_equal(trace.accepted_at(taus), slow_accepted(trace, taus), equal_nan=True)
    assert trace.best()[0] == -np.inf
    for within in (0, queries[1][0], 300, 700.5, 1000):
        of = [[m for at, m in zip(queries[c], margins[c], strict=True) if at <= within] for c in range(4)]
        assert trace.best(within).tolist() == [max(row, default=-np.inf) for row in of]


def test_a_search_counts_every_image_as_a_query(tmp_path):
    target = load_target("lenet")
    recipe = search_recipe(CellJob(tmp_path / "cell", "lenet", "cppn", 1, 300, tuple(range(10))), target)
    with Run.start(recipe, tmp_path / "cell", target) as run:
        run.advance()
        best, births = run.archive.margin.copy(), run.archive.birth.copy()
        assert recipe.search.rank == "margin"
        assert run.strategy.evaluations == 300, "a batch that goes into the budget"
    with StoredRun(tmp_path / "cell") as stored:
        trace, less = read_trace(stored, range(10), 300), read_trace(stored, range(10), 100)
    assert [at[-1] for at in trace.queries] == (births + 1).tolist()
    assert trace.best() == pytest.approx(best, abs=0)
    assert all((np.diff(m) > 0).all() for m in trace.margins)
    assert max(at[-1] for at in less.queries) <= 100


def test_classes_of_a_baseline_count_as_if_attacked_in_parallel(tmp_path):
    target = load_target("lenet")
    plan = attack_plan(CellJob(tmp_path / "cell", "lenet", "nes", 0, 120, (2, 5, 7)))
    assert plan.budget == 40
    run_baseline(plan, target, tmp_path / "cell")
    with StoredRun(tmp_path / "cell") as stored:
        trace = read_trace(stored, [2, 5, 7], 120)
        rows = stored.store.improvements()
        margins = {e.row.class_id: e.row.margin for e in stored.elites()}
    assert trace.best().tolist() == [margins[c] for c in (2, 5, 7)]
    firsts = [min(forwards for cell, forwards, *_ in rows if cell == c) for c in (2, 5, 7)]
    assert [at[0] for at in trace.queries] == [3 * f for f in firsts]
    assert all(at[-1] <= 120 for at in trace.queries)
