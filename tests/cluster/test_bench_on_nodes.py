"""A benchmark on two nodes that do not see the driver's folder: one is killed, and the results are those without workers."""

import json
from pathlib import Path

import pytest

from evofool.bench.bench import run_bench
from evofool.bench.cell import RECORD
from tests.perf.bench_on_nodes import calls, noted_nets, on_nodes, recipe, two_nodes, without_timings

pytestmark = pytest.mark.slow

pytest.importorskip("mlxtend")

QUERIES, ARMS = 2400, ["cppn"]


def test_a_cell_whose_node_is_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTED_PAUSE", "0.03")  # for each call of a worker, so that the node is killed amid its cell
    with noted_nets(tmp_path) as note:
        alone = run_bench(recipe(1, 2, QUERIES, ARMS), tmp_path / "alone")
        note.unlink()
        with two_nodes() as cluster:
            bench = recipe(1, 2, QUERIES, ARMS, 2, cluster.address)
            outcome, killer, _, status = on_nodes(bench, tmp_path / "nodes", cluster, 1)
        _, reserved = calls(note)
    assert without_timings(outcome.results) == without_timings(alone.results)
    assert len(killer.kills) == 1
    assert [job.state for job in status.jobs] == ["done", "done"]
    (lost,) = (job for job in status.jobs if job.restarts)
    assert killer.kills[0].before[lost.name] > 0.1 * lost.total, "so much had come to the driver"
    assert lost.repeated < 0.9 * lost.total, "and it did not begin again"
    assert {json.loads(text)["GPU"] for text in reserved if text != "{}"} == {1.0}
    assert all((tmp_path / "nodes" / job.folder / RECORD).is_file() for job in status.jobs)
