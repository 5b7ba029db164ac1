"""The looks part of a benchmark: how far the elites of every cell lie from real images, beside noise and real ones."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.looks.looks import FEATURES, Looks, quantiles_of
from evofool.bench.looks.of_runs import judge_run, of_runs
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready
from evofool.errors import EvofoolError
from evofool.targets import Target
from evofool.targets import target as load_target

Figures = dict[str, dict[str, dict[str, float] | None]]
"""By arm or control, by figure, its quantiles over seeds and classes; None where it means nothing."""


class Looking:
    """Looks at the cells of targets, one after another; what targets of the same kind of images share is made once."""

    def __init__(self, recipe: BenchRecipe, say: Callable[[str], None]) -> None:
        self.recipe, self.say = recipe, say
        self._made: dict[Any, tuple[Looks, Figures]] = {}

    def __call__(self, one: Ready, cells: Mapping[str, Mapping[int, Path]]) -> tuple[Figures, list[str]]:
        """The figures of a target's valid cells, by arm and seed, and of the controls; written into the cells too.

        And what is to be said: EvofoolError's words where they could not be had; of a target that is the independent network
        itself that its features are None.
        """
        assert one.target is not None
        name = one.entry.name
        try:
            itself = self._network is not None and self._network.fingerprint() == one.target.fingerprint()
            looks, controls = self._looks(one, None if itself else self._network)
            for seeds in cells.values():
                for folder in seeds.values():
                    judge_run(folder, looks)
            figures: Figures = {arm: dict(quantiles_of(of_runs(seeds.values()))) for arm, seeds in cells.items()}
        except EvofoolError as error:
            return {}, [f"{name}: how its elites look was not measured: {error}"]
        figures |= controls
        if not itself:
            return figures, []
        said = "it is the independent network itself, so its elites were not compared by features: [looks] network = another"
        return {kind: {**told, FEATURES: None} for kind, told in figures.items()}, [f"{name}: {said}"]

    @cached_property
    def _network(self) -> Target | None:
        assert self.recipe.looks is not None
        spec = self.recipe.looks.network
        return None if spec is None else load_target(spec)

    def _looks(self, one: Ready, network: Target | None) -> tuple[Looks, Figures]:
        assert one.target is not None
        assert one.real is not None
        assert one.calibration is not None
        fed = one.target.details.get("preprocessing", {})
        key = one.target.shape, fed.get("resize"), fed.get("interpolation"), one.calibration.sha256, network is None
        if key not in self._made:
            looks = Looks.of(
                one.target,
                one.real,
                reference_rows=np.flatnonzero(~one.calibration.control),
                held_out_rows=np.flatnonzero(one.calibration.control),
                network=network,
                say=self.say,
            )
            self._made[key] = looks, {kind: dict(quantiles_of(told)) for kind, told in looks.controls().items()}
        return self._made[key]
