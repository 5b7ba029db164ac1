"""The image metrics of a benchmark: how far the elites of every cell lie from real images, beside noise and real ones."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evofool.ascend.draws import Draws
from evofool.attacks.black_box.random_search import drawn
from evofool.bench.network_features import NetworkFeatures
from evofool.bench.plan import ImageMetricsPart
from evofool.bench.prepare import PreparedTarget
from evofool.bench.statistics import AT, quantiles
from evofool.errors import EvofoolError
from evofool.image_metrics.metrics import ImageMetrics
from evofool.image_metrics.names import FEATURES
from evofool.run.measure import measure_run, stored_metrics
from evofool.targets import Target
from evofool.targets import target as load_target

CONTROLS = ("uniform-noise", "smooth-noise", "real")

Figures = dict[str, dict[str, dict[str, float] | None]]
"""By arm or control, by metric, its quantiles over seeds and classes; None where it is not measured."""


class ImageMetricsStage:
    """Measures the cells of targets, one target after another; what targets of equal input share is computed once."""

    def __init__(self, part: ImageMetricsPart, report: Callable[[str], None]) -> None:
        self.part, self.report = part, report
        self._made: dict[Any, tuple[ImageMetrics, Figures]] = {}

    def __call__(self, prepared: PreparedTarget, cells: Mapping[str, Mapping[int, Path]]) -> tuple[Figures, list[str]]:
        """The figures of a target's valid cells, by arm and seed, and of the controls; values are stored in the cells too.

        And notes: the message of an EvofoolError where nothing could be measured; where the target is the independent
        network itself, that its features are None.
        """
        name = prepared.name
        try:
            itself = self._network is not None and self._network.fingerprint() == prepared.target.fingerprint()
            metrics, controls = self._metrics(prepared, None if itself else self._network)
            for seeds in cells.values():
                for folder in seeds.values():
                    measure_run(folder, metrics)
            figures: Figures = {arm: dict(quantiles_of(stored_metrics(seeds.values()))) for arm, seeds in cells.items()}
        except EvofoolError as error:
            return {}, [f"{name}: the image metrics of its elites were not measured: {error}"]
        figures |= controls
        if not itself:
            return figures, []
        note = (
            f"{name}: it is the independent network itself, so its elites were not compared by features; "
            "give another one: [image_metrics] network"
        )
        return {kind: {**values, FEATURES: None} for kind, values in figures.items()}, [note]

    @cached_property
    def _network(self) -> Target | None:
        return None if self.part.network is None else load_target(self.part.network)

    def _metrics(self, prepared: PreparedTarget, network: Target | None) -> tuple[ImageMetrics, Figures]:
        target, calibration = prepared.target, prepared.calibration
        preprocessing = target.details.get("preprocessing", {})
        resizing = preprocessing.get("resize"), preprocessing.get("interpolation")
        key = target.shape, *resizing, calibration.sha256, network is None
        if key not in self._made:
            metrics = ImageMetrics.of(
                target,
                prepared.real,
                reference_rows=np.flatnonzero(~calibration.control),
                held_out_rows=np.flatnonzero(calibration.control),
                features=None if network is None else NetworkFeatures(network),
                report=self.report,
            )
            controls = measure_controls(metrics)
            self._made[key] = metrics, {kind: dict(quantiles_of(values)) for kind, values in controls.items()}
        return self._made[key]


def measure_controls(metrics: ImageMetrics, count: int = 64, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """The metrics (n,) of control images, by kind of control and name.

    count images each of uniform noise and of smooth noise (as `evofool baseline noise` draws them), and the examples of the
    held-out real images. In a space in which noise does not come near 100 the figures of elites say little: on photographs
    of 224x224 the flat histograms of uniform noise are nearer to real ones, by HOG, than real ones are to each other.
    """
    noise = [drawn(kind, Draws(seed, range(count), 0), metrics.shape) for kind in ("uniform", "smooth")]
    return dict(zip(CONTROLS, (metrics(images) for images in (*noise, metrics.examples)), strict=True))


def quantiles_of(values: Mapping[str, np.ndarray], at: Sequence[int] = AT) -> dict[str, dict[str, float]]:
    """By name, the quantiles of its values (statistics.quantiles); names without values are left out."""
    return {name: quantiles(each, at) for name, each in values.items() if len(each)}
