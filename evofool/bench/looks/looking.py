"""The looks part of a benchmark: how far the elites of every cell lie from real images, beside noise and real ones."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.looks.looks import Looks, judge_run, of_runs, quantiles
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready
from evofool.errors import EvofoolError
from evofool.targets import target as load_target

Figures = dict[str, dict[str, dict[str, float]]]
"""By arm or control, by figure, its quantiles over seeds and classes."""


class Looking:
    """Looks at the cells of targets, one after another; what targets of the same kind of images share is made once."""

    def __init__(self, recipe: BenchRecipe, say: Callable[[str], None]) -> None:
        self.recipe, self.say = recipe, say
        self._made: dict[Any, tuple[Looks, Figures]] = {}

    def __call__(self, one: Ready, cells: Mapping[str, Mapping[int, Path]]) -> tuple[Figures, list[str]]:
        """The figures of a target's valid cells, by arm and seed, and of the controls; written into the cells too.

        And what is to be said: EvofoolError's words where they could not be had.
        """
        try:
            looks, controls = self._looks(one)
            for seeds in cells.values():
                for folder in seeds.values():
                    judge_run(folder, looks)
            figures = {arm: quantiles(of_runs(seeds.values())) for arm, seeds in cells.items()}
        except EvofoolError as error:
            return {}, [f"{one.entry.name}: how its elites look was not measured: {error}"]
        return figures | controls, []

    def _looks(self, one: Ready) -> tuple[Looks, Figures]:
        assert one.target is not None
        assert one.real is not None
        assert one.calibration is not None
        assert self.recipe.looks is not None
        fed = one.target.details.get("preprocessing", {})
        key = one.target.shape, fed.get("resize"), fed.get("interpolation"), one.calibration.sha256
        if key not in self._made:
            spec = self.recipe.looks.network
            looks = Looks.of(
                one.target,
                one.real,
                reference_rows=np.flatnonzero(~one.calibration.control),
                held_out_rows=np.flatnonzero(one.calibration.control),
                network=None if spec is None else load_target(spec),
                say=self.say,
            )
            self._made[key] = looks, {kind: quantiles(told) for kind, told in looks.controls().items()}
        return self._made[key]
