"""Image metrics of runs: measuring the elites' images, storing the values in the run, and reading them back."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import ImageError, TargetError
from evofool.image_metrics.metrics import CHUNK, ImageMetrics
from evofool.image_metrics.names import BYTES_PER_PIXEL, HAS_OWN_SHAPE, HOG, OWN_SHAPE, PIXELS
from evofool.image_metrics.own_shape import OwnShape
from evofool.images import decode_png
from evofool.run.schema import EliteRecord, ImageMetric
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.targets import Target


def measure_run(
    folder: Path,
    metrics: ImageMetrics,
    report: Callable[[str], None] | None = None,
    own_shape: OwnShape | None = None,
) -> int:
    """Write the image metrics of its elites' images into a run; returns how many elites were measured.

    own_shape: of the same real images, to measure whether elites have the shape of their classes; those of classes without
    real images have no such metric.

    An elite that has all the metrics, against the same real images, is skipped. All metrics of an elite are against one set
    of real images: values against others are removed, also those of a space that is not measured now. The run is locked
    meanwhile, as by everything that writes it; after an interruption the values that were written are kept. TargetError if
    the network of the features is the one that the run attacked, ImageError if the images have another shape.
    """
    with Store.open(folder, write=True) as store:
        with StoredRun(folder) as stored:
            if stored.shape != metrics.shape:
                raise ImageError(f"{folder} has images of shape {stored.shape}, and these real ones are {metrics.shape}")
            fingerprint = stored.meta.target.fingerprint
            if metrics.network is not None and metrics.network.fingerprint() == fingerprint:
                raise TargetError(
                    f"{metrics.network.name}: this is the network that {folder} attacked; features have to be those of "
                    "another one"
                )
            rows = [elite.row for elite in stored.elites()]
        known = store.meta().references
        wanted = {(name, metrics.references.get(name, "")) for name in metrics.names if name != BYTES_PER_PIXEL}
        shapes = own_shape.classes.tolist() if own_shape else []
        compared = {(name, metrics.references[HOG]) for name in (OWN_SHAPE, HAS_OWN_SHAPE)}
        stale = {row.cell: [m.name for m in row.image_metrics if _is_stale(m, metrics, known)] for row in rows}
        todo = [
            row
            for row in rows
            if stale[row.cell]
            or not (wanted | compared if row.class_id in shapes else wanted)
            <= {(m.name, m.reference) for m in row.image_metrics}
        ]
        cells: dict[bytes, list[int]] = {}  # by image: one that holds many cells is measured once
        for row in todo:
            cells.setdefault(row.png, []).append(row.cell)
        classes = {row.cell: row.class_id for row in rows}
        images = list(cells)
        for begin in range(0, len(images), CHUNK):
            part = images[begin : begin + CHUNK]
            drawn = np.stack([decode_png(png, f"{folder}, cell {cells[png][0]}", metrics.shape) for png in part])
            values = metrics(drawn)
            measured = [
                (cell, ImageMetric(name, float(values[name][k]), reference))
                for k, png in enumerate(part)
                for cell in cells[png]
                for name, reference in sorted(wanted)
            ]
            if own_shape:
                places = [(k, cell) for k, png in enumerate(part) for cell in cells[png] if classes[cell] in shapes]
                found, flags = own_shape(drawn[[k for k, _ in places]], np.array([classes[cell] for _, cell in places]))
                for name, column in ((OWN_SHAPE, found), (HAS_OWN_SHAPE, flags)):
                    measured += [
                        (cell, ImageMetric(name, float(value), metrics.references[HOG]))
                        for (_, cell), value in zip(places, column, strict=True)
                    ]
            store.set_image_metrics(
                measured,
                metrics.reference_details,
                [(cell, name) for png in part for cell in cells[png] for name in stale[cell]],
            )
            if report:
                report(f"{begin + len(part):,} of {len(images):,} images of {folder}")
        return len(todo)


def stale_references(folder: Path, metrics: ImageMetrics) -> list[dict[str, Any]]:
    """The details of the references that stored values compare with and that measure_run would replace."""
    with StoredRun(folder) as stored:
        known = stored.store.meta().references
        rows = [elite.row for elite in stored.listed()]
    keys = {m.reference for row in rows for m in row.image_metrics if _is_stale(m, metrics, known)}
    return [details for key, details in known.items() if key in keys]


def _is_stale(measured: ImageMetric, metrics: ImageMetrics, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a value compares with real images that are not those of metrics."""
    reference = known.get(measured.reference, {}).get("real", measured.reference)
    return bool(measured.reference) and reference != metrics.references[PIXELS]


def unloaded_target(stored: StoredRun) -> Target:
    """A run's classifier without its network: it has the shape, labels and preprocessing, so that real images can be read.

    TargetError if it is queried.
    """

    def refuse(images: np.ndarray) -> np.ndarray:
        raise TargetError(f"{stored.folder}: its classifier is not loaded and cannot be queried")

    record = stored.meta.target
    return Target(record.name, stored.labels, stored.shape, refuse, record.details)


def stored_metrics(folders: Iterable[Path]) -> dict[str, np.ndarray]:
    """By name (n,) float64, the stored image metrics of the runs' elites; elites that were not measured are left out."""
    found: dict[str, list[float]] = {}
    for folder in folders:
        with StoredRun(folder) as stored:
            for row in (elite.row for elite in stored.listed()):
                for name, value in metrics_of(row).items():
                    found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def metrics_of(row: EliteRecord) -> dict[str, float]:
    """The stored image metrics of an elite, by name."""
    return {**{m.name: m.value for m in row.image_metrics}, BYTES_PER_PIXEL: row.bytes_per_pixel}
