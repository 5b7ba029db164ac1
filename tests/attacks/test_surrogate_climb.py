"""`polish` by surrogates: judged by the target, in pixels and canvases, counted, resumed; any number of streams."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.attacks import polish as polishing
from evofool.attacks.polish import PolishOutcome, PolishPlan, polish
from evofool.errors import RecipeError, TargetError
from evofool.export.export import export
from evofool.recipe import parse
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.targets import Target
from tests.commands import Call
from tests.synthetic import fake, network

NETWORKS = {"one": network(1), "two": network(2), "three": network(3)}


def judged(seed: int = 1) -> Target:
    """A target without gradients that answers as network `seed` does, exactly rounded: no bit depends on an image's row."""
    return fake(lambda images: np.round(network(seed).logits(images), 3), (1, 12, 12))


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polishing, "load_target", NETWORKS.__getitem__)


def searched(folder: Path, kind: str, **search: Any) -> Path:
    recipe = {"target": "fake", "encoding": {"kind": kind}, "search": {"batch": 8} | search, "stop": {"evaluations": 40}}
    with Run.start(parse(recipe, "test"), folder, judged()) as run:
        run.advance()
    return folder


def polished(folder: Path, out: Path, streams: int = 1, tick: Any = lambda progress: False, **plan: Any) -> PolishOutcome:
    plan = {"surrogates": ("one", "two"), "budget": 3} | plan
    return polish(folder, out, PolishPlan(**plan), target=judged(), streams=streams, tick=tick)


def content(folder: Path) -> dict[str, Any]:
    with StoredRun(folder) as stored:
        births = stored.store.births()
        return {
            "elites": stored.store.elites(),
            "genomes": stored.store.genomes(births),
            "improvements": stored.store.improvements(),
            "surrogates": stored.meta.surrogates,
        }


@pytest.mark.parametrize(("kind", "kept"), [("canvas", "canvas"), ("direct", "direct"), ("cppn", "direct")])
def test_elites_climb_and_the_target_judges(tmp_path: Path, kind: str, kept: str) -> None:
    searched(tmp_path / "run", kind)
    done = polished(tmp_path / "run", tmp_path / "new")
    assert done.polished >= 3
    assert (done.after >= done.before).all()
    assert (done.forwards, done.backwards) == (5 * 3, 0)
    with StoredRun(tmp_path / "new") as stored:
        assert stored.recipe.encoding.kind == kept
        assert verify(stored, judged()).faults == ()
        assert {elite.row.method for elite in stored.elites()} >= {"polish"}
        found = stored.meta.surrogates
        assert found is not None
        assert (found.children, found.forwards, found.backwards) == (5 * 2, 5 * 2 * 14 * 2, 5 * 2 * 14 * 2)
        export(stored, tmp_path / "set")
        assert 'surrogates ["one", "two"]' in (tmp_path / "set" / "README.md").read_text()
    polished(tmp_path / "run", tmp_path / "streams", streams=3)
    assert content(tmp_path / "streams") == content(tmp_path / "new")


def test_it_is_resumed_group_by_group_with_the_same_surrogates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(tmp_path / "run", "direct", rank="margin")
    monkeypatch.setattr(polishing, "_GROUP", 2)
    polished(tmp_path / "run", tmp_path / "whole")
    done = polished(tmp_path / "run", tmp_path / "new", tick=lambda progress: progress.done == 2)
    assert len(done.before) == 2
    with pytest.raises(RecipeError, match="was begun with surrogates"):
        polished(tmp_path / "run", tmp_path / "new", surrogates=("one", "three"))
    monkeypatch.setitem(NETWORKS, "two", NETWORKS["three"])
    with pytest.raises(TargetError, match="is not the one that this run began with, network 2"):
        polished(tmp_path / "run", tmp_path / "new")
    monkeypatch.undo()
    monkeypatch.setattr(polishing, "load_target", NETWORKS.__getitem__)
    monkeypatch.setattr(polishing, "_GROUP", 2)
    assert len(polished(tmp_path / "run", tmp_path / "new").before) == 5
    assert content(tmp_path / "new") == content(tmp_path / "whole")


def test_the_command_refuses_parameters_beside_surrogates(tmp_path: Path, call: Call) -> None:
    searched(tmp_path / "run", "direct")
    result = call("polish", tmp_path / "run", "--surrogate", "one", "--parameters", "pixels")
    assert (result.code, "--surrogate climbs in pixels" in result.err) == (2, True)
