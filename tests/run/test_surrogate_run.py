"""Runs whose children climb surrogates' gradients: keyed, counted, resumed, replayed, verified; what is refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evofool.ascend.surrogates import Surrogates
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.recipe import Recipe, parse
from evofool.run.lineage import lineage
from evofool.run.merge import merge
from evofool.run.meta import SurrogatesRecord
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from tests.commands import Call
from tests.stored import course

BATCH, STEPS = 8, 5
NETWORKS = '''
"""Targets of 1x6x6 images: one that is a function, and networks that are near it."""
import numpy as np, torch
from torch import nn

WEIGHTS = np.random.default_rng(9).integers(-8, 9, (36, 5))

class Exact:
    shape, labels = (1, 6, 6), ["a", "b", "c", "d", "e"]
    def __call__(self, images):
        return (images.reshape(len(images), -1).astype(np.int64) @ WEIGHTS / 256.0).astype(np.float32)

def near(seed, labels="abcde"):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, len(labels)))
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(WEIGHTS.T[:len(labels)]) + 6 * torch.randn(len(labels), 36))
    net.shape, net.labels = (1, 6, 6), list(labels)
    return net

def exact(): return Exact()
def first(): return near(1)
def second(): return near(2)
def third(): return near(3)
def foreign(): return near(3, "xyz")
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the targets' module."""
    (tmp_path / "near_targets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "near_targets", raising=False)
    return tmp_path


def recipe(part: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    surrogate = {"targets": ("python:near_targets:first", "python:near_targets:second"), "steps": STEPS, "after": 64}
    search = {"seed": 3, "batch": BATCH, "lag": 2, "keep": 3, "surrogate": surrogate | (part or {})}
    data = {
        "target": "python:near_targets:exact",
        "encoding": {"kind": "direct", "crossover": 0.3},
        "search": search | parts.pop("search", {}),
        "compute": {"streams": 1, "chunk": 8} | parts.pop("compute", {}),
        "stop": {"evaluations": 320},
        **parts,
    }
    return parse(data, "test")


def finished(folder: Path, one: Recipe) -> dict[str, Any]:
    with Run.start(one, folder) as run:
        assert run.advance()
    return course(folder)


def test_children_climb_from_the_evaluation_on_and_are_marked_and_counted(here: Path, call: Call) -> None:
    found = finished(here / "run", recipe())
    with StoredRun(here / "run") as stored:
        assert stored.meta.recipe["search"]["surrogate"]["targets"][0] == "python:near_targets:first"
        assert verify(stored, trust=True).faults == ()
        elites = stored.elites()
        assert "surrogate" in {elite.row.method for elite in elites}
        lines = [one for elite in elites for one in lineage(stored, elite.row.birth)]
        assert {one.method for one in lines} == {"evolved", "surrogate"}
        births = stored.store.methods()
        assert all(stored.store.stored(birth)[1] == 0 and parents.father == -1 and parents.mother >= 0
                   for birth, parents in stored.store.parents(births).items())  # fmt: skip
    assert min(births) >= 64
    record = found["surrogates"]
    assert [network.name for network in record.networks] == ["python:near_targets:first", "python:near_targets:second"]
    assert 100 < record.children < 156, "about half of 256"
    assert record.forwards == record.backwards == record.children * STEPS * 2
    with StoredRun(here / "run") as stored:
        assert stored.meta.answers < 320 + 100, "their passes are no queries"
    shown = call("show", here / "run").out
    line = " ".join(shown.split())
    assert f"{record.children:,} images climbed the gradients of python:near_targets:first" in line
    assert f"{record.forwards:,} forward and {record.forwards:,} backward passes, which are no queries" in line


def test_streams_and_chunks_and_classes_without_a_share_change_nothing(here: Path) -> None:
    whole = finished(here / "whole", recipe())
    assert finished(here / "streams", recipe(compute={"streams": 3, "chunk": 3})) == whole
    assert (
        finished(here / "none", recipe({"after": 10_000}))["elites"]
        == finished(here / "without", recipe(search={"surrogate": None}))["elites"]
    )


@pytest.mark.parametrize("encoding", [{"kind": "direct"}, {"kind": "canvas", "start": "waves"}], ids=["direct", "canvas"])
def test_a_run_that_is_killed_after_every_third_batch_ends_as_an_unbroken_one(here: Path, encoding: dict[str, Any]) -> None:
    one = recipe(encoding=encoding)
    whole = finished(here / "whole", one)
    run, reason = Run.start(one, here / "run"), None
    while not reason:
        reason = run.advance(batches=3)
        run.store.close(failed=True)
        run.evaluator.close()
        if not reason:
            run = Run.resume(here / "run", trust=True)
            assert run.strategy.climbed == 0 or run.store.meta().surrogates.climbs  # type: ignore[union-attr]
    assert course(here / "run") == whole


@pytest.mark.parametrize("lag", [0, 8])
def test_canvases_with_runners_up_random_images_and_surrogates_are_killed_resumed_verified_and_replayed(
    here: Path, lag: int
) -> None:
    surrogate = {"targets": ["python:near_targets:first"], "steps": 2, "after": 128}
    search = {"lag": lag, "keep": 8, "random": 80, "selection": "lagging", "surrogate": surrogate}
    one = recipe(encoding={"kind": "canvas", "size": 64}, search=search)
    whole = finished(here / "whole", one)
    assert whole["runners_up"]
    assert whole["surrogates"].children > 50
    run = Run.start(one, here / "run")
    for batches in (5, 11, 13):  # while all images are random, before any child climbs, and after
        assert run.advance(batches=batches) is None
        run.store.close(failed=True)
        run.evaluator.close()
        run = Run.resume(here / "run", trust=True)
    with run:
        assert run.advance()
    assert course(here / "run") == whole
    with StoredRun(here / "run") as stored:
        assert verify(stored, trust=True).faults == ()
    assert replay(here / "run", here / "again", trust=True).differences == ()
    assert course(here / "again") == whole


def test_a_replay_takes_children_that_climbed_as_they_are(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = finished(here / "run", recipe())
    made: list[int] = []
    children = Surrogates.children

    def counted(surrogates: Surrogates, *arguments: Any) -> Any:
        made.append(len(arguments[1]))
        return children(surrogates, *arguments)

    monkeypatch.setattr(Surrogates, "children", counted)
    assert replay(here / "run", here / "again", trust=True).differences == ()
    assert sum(made) <= found["surrogates"].children - len(found["methods"]) + 3 * BATCH  # those of the last orders
    assert course(here / "again") == found


def test_merged_runs_and_parents_keep_what_climbed(here: Path) -> None:
    encoding = {"kind": "canvas", "start": "waves"}
    finished(here / "one", recipe(encoding=encoding))
    finished(here / "two", recipe(encoding=encoding, search={"seed": 4}))
    with StoredRun(here / "one") as stored:
        merge([here / "one", here / "two"], here / "merged")
        made = {elite.row.method for elite in stored.elites()}
    with StoredRun(here / "merged") as stored:
        assert verify(stored, trust=True).faults == ()
        assert {elite.row.method for elite in stored.elites()} == made == {"evolved", "surrogate"}
    search = {"parents": str(here / "one"), "surrogate": None}
    with Run.start(recipe(encoding=encoding, search=search), here / "next") as run:
        assert set(run.store.methods().values()) == {"seed", "surrogate"}


def test_what_cannot_be_is_refused(here: Path) -> None:
    def refused(part: dict[str, Any], match: str) -> None:
        with pytest.raises(TargetError, match=match):
            Run.start(recipe(part), here / "refused")
        assert not (here / "refused").exists()

    refused({"targets": ("python:near_targets:exact",)}, "cannot be a surrogate: it has no gradients")
    refused({"targets": ("http://127.0.0.1:9/x",)}, "http://127.0.0.1:9/x cannot be a surrogate: it has no gradients")
    refused({"targets": ("python:near_targets:foreign",)}, "has no class of python:near_targets:exact")
    with pytest.raises(RecipeError, match=r'CPPN genomes cannot climb .*; use encoding.kind = "canvas" or "direct"'):
        recipe(encoding={"kind": "cppn"})
    with pytest.raises(RecipeError, match=r'did you mean "search.surrogate.share"'):
        recipe({"shar": 0.3})


def test_a_run_goes_on_with_the_surrogates_that_it_began_with_and_trusts_no_others(here: Path) -> None:
    with Run.start(recipe(), here / "run") as run:
        run.advance(batches=12)
    with pytest.raises(TargetError, match="names the surrogate python:near_targets:first, code to import"):
        Run.resume(here / "run")
    other = recipe({"targets": ("python:near_targets:first", "python:near_targets:third")})
    with pytest.raises(TargetError, match=r"the surrogate python:near_targets:third is not the one .* began with"):
        Run.resume(here / "run", other, trust=True)
    with pytest.raises(TargetError, match="this run began with another number of surrogates"):
        Run.resume(here / "run", recipe({"targets": ("python:near_targets:first",)}), trust=True)
    with pytest.raises(RecipeError, match=r"search\.surrogate\.share = 0\.5, not 0\.25"):
        Run.resume(here / "run", recipe({"share": 0.25}))
    with Run.resume(here / "run", recipe(), named={"target"}) as run:
        meta = run.store.meta()
        assert meta.surrogates is not None
        with pytest.raises(ValidationError, match="the target has no such class"):
            meta.updated(surrogates=meta.surrogates.model_copy(update={"climbs": {"3": [5]}}))
        damaged = SurrogatesRecord(networks=meta.surrogates.networks, climbs={str(meta.committed): [0]})
        with run.store._transaction() as tables:
            run.store._put(tables, meta.updated(surrogates=damaged).model_dump())
    with pytest.raises(StoreError, match=r"meta\.surrogates\.climbs of batch 12 has another length"):
        Run.resume(here / "run", trust=True)
