"""A run behind a pipeline, end to end; and how many elites of any run still fool their target behind one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evofool.errors import TargetError
from evofool.images import to_pil
from evofool.recipe import Recipe, load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.survival import survival
from evofool.run.verify import verify
from evofool.scores import confidence, log_odds
from evofool.targets import target
from evofool.targets.pipelines import pipelines
from evofool.targets.remote.serve import serving

THROUGH = "lenet?through=jpeg:30,shift:1&through_by=least"


def recipe(spec: str, evaluations: int = 120) -> Recipe:
    return load("mnist-cppn", [f"target={spec}", f"stop.evaluations={evaluations}", "stop.confidence="])


def started(folder: Path, spec: str, evaluations: int = 120) -> Path:
    with Run.start(recipe(spec, evaluations), folder) as run:
        run.advance()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("through") / "run", THROUGH)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    to_pil(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))[None]


def test_a_run_behind_pipelines_verifies_and_is_resumed_with_the_same_ones_only(folder: Path) -> None:
    with StoredRun(folder) as stored:
        verdict = verify(stored)
        assert (verdict.faults, verdict.comparison) == ((), "bit-identical")
        images, classes = (
            np.stack([e.image for e in stored.elites()]),
            np.array([e.row.class_id for e in stored.elites()]),
        )
        own = np.array([e.row.log_odds for e in stored.elites()])
    again = target(THROUGH).logits(images, 12)
    assert np.array_equal(log_odds(again)[np.arange(10), classes], own)
    assert not np.allclose(log_odds(target("lenet").logits(images))[np.arange(10), classes], own)
    with Run.resume(folder, recipe(THROUGH, 132)) as run:
        run.advance()
        assert run.strategy.evaluations == 132
    other = recipe(THROUGH.replace("shift:1", "shift:2"), 144)
    with pytest.raises(TargetError, match="is not the one that this run began with"):
        Run.resume(folder, other)


def test_elites_are_counted_by_what_the_plain_target_answers_to_what_is_delivered(folder: Path) -> None:
    with StoredRun(folder) as stored:
        found = survival(stored, pipelines("same,jpeg:30,shift:1", ""))
        elites = stored.elites()
    plain, rows = target("lenet"), np.arange(10)
    classes = np.array([e.row.class_id for e in elites])
    logits = plain.logits(np.stack([jpeg(e.image, 30) for e in elites]))
    held = found.by_pipeline["jpeg:30"]
    np.testing.assert_array_equal(held.called, logits.argmax(1))
    np.testing.assert_allclose(held.confidence, confidence(log_odds(logits)[rows, classes]), atol=1e-6)
    own = np.array([e.confidence for e in elites])
    sure = own > 0.5
    assert sure.any()
    # The run's own score is the least over its pipelines.
    least = np.minimum(held.confidence, found.by_pipeline["shift:1"].confidence)
    np.testing.assert_allclose(own[sure], least[sure], atol=1e-6)
    assert found.stored.own.tolist() == [e.row.margin > 0 for e in elites]
    told = found.as_json()
    both = (own >= 0.9) & (held.confidence >= 0.9)
    assert told["pipelines"]["jpeg:30"]["0.9"] == {"kept": int(both.sum()), "of": int((own >= 0.9).sum())}
    assert told["every_pipeline"]["class"]["kept"] <= min(told["pipelines"][p]["class"]["kept"] for p in found.by_pipeline)
    assert told["queries"] == 3 * len({e.row.png for e in elites})


@pytest.mark.parametrize("options", ["", "?through=jpeg:30,shift:1"])
def test_a_server_is_asked_once_and_with_trust_only(tmp_path: Path, options: str) -> None:
    """Also a server whose run has its own through=."""
    with serving(target("lenet")) as url:
        folder = started(tmp_path / "run", f"{url}{options}", 24)
        with StoredRun(folder) as stored:
            with pytest.raises(TargetError, match="--trust"):
                survival(stored, pipelines("jpeg:50", ""))
            first, again = (survival(stored, pipelines("jpeg:50", ""), trust=True) for _ in range(2))
    assert first.queries > 0
    assert first.requests > 0
    assert (again.queries, again.requests) == (0, 0)
    assert first.as_json()["pipelines"] == again.as_json()["pipelines"]
