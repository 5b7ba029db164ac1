"""What `evofool run` decides before a run begins."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evofool.cli.app import app
from evofool.cli.run import _with_lag
from evofool.errors import StoreError, TargetError
from evofool.recipe import Recipe, load


class _Begun(StoreError):
    """Raised in place of a run that begins."""


@pytest.mark.parametrize(
    ("options", "lag", "says"),
    [
        ("mnist-cppn", 0, False),
        ("mnist-cppn --workers 1", 0, False),
        ("mnist-cppn --workers 4", 3, True),
        ("mnist-cppn --set compute.workers=4", 3, True),
        ("mnist-cppn --workers 4 --set compute.chunk=6", 1, True),
        ("mnist-cppn --workers 4 --set compute.ray.in_flight=2", 7, True),
        ("mnist-cppn --workers 4 --set search.lag=0", 0, False),
        ("mnist-cppn --workers 4 --set search.mode=free", 0, False),
        ("imagenet-cppn --workers 16", 1, False),  # it has a lag of its own
        ("mnist-direct --workers 8", 7, True),
    ],
)
def test_a_new_run_with_workers_gets_the_lag_that_they_need(
    options: str, lag: int, says: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Recipe] = []

    def start(recipe: Recipe, *_: Any) -> None:
        begun.append(recipe)
        raise _Begun

    monkeypatch.setattr("evofool.cli.run._start", start)
    CliRunner().invoke(app, ["run", *options.split(), "--out", str(tmp_path / "run")])
    assert begun[0].search.lag == lag
    assert begun[0].model_dump()["search"]["lag"] == lag, "it is stored"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["target=lenett"], 'no target is called "lenett".* did you mean "lenet"'),
        (["target=lenet?wieghts=x"], 'lenet: no option "wieghts"; did you mean "weights"'),
        (["target=http://host/p"], "a black box is queried by one process"),
        (["search.surrogate.targets=['lenett']"], 'no target is called "lenett"'),
    ],
)
def test_an_error_of_a_spec_is_reported_before_ray_is_started(
    changes: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("evofool.cli.run._ray_of", never)
    options = [part for change in changes for part in ("--set", change)]
    result = CliRunner().invoke(app, ["run", "mnist-canvas", "--workers", "2", "--out", str(tmp_path / "run"), *options])
    assert isinstance(result.exception, TargetError)
    assert re.search(message, str(result.exception))


def test_what_a_lag_costs_pixels_is_said() -> None:
    recipe, lines = _with_lag(load("mnist-direct", ["compute.workers=8"]))
    assert recipe.search.lag == 7
    assert "2.55 times at lag 8" in lines[1]
    assert "search.mode=free" in lines[1]
    assert len(_with_lag(load("mnist-cppn", ["compute.workers=8"]))[1]) == 1
