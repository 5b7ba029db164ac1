"""A target that fails during a run: errors, NaN, too little memory, images that are set aside."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evofool.errors import ScoreError, TargetError
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from tests.run.cases import HOME, recipe, unbroken
from tests.stored import content
from tests.synthetic import fake, linear


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
