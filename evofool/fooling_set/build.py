"""Building a set of fooling images: the cells of a benchmark without thresholds, every classifier's answers, three layouts.

The stages: train and prepare the classifiers -> run the cells -> measure their images -> answer -> write. Each leaves files
from which the same call goes on after an interruption; only the last is done as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from evofool.bench.real import DIGITS, RealImages, real_images
from evofool.bench.scheduler import run_cells
from evofool.cluster.settings import RayOptions
from evofool.errors import ImageError, Interrupted, RecipeError, StoreError
from evofool.export.card import own_version
from evofool.fooling_set.answers import answer_all
from evofool.fooling_set.index import WRITTEN, SetIndex
from evofool.fooling_set.prepare import SetClassifier, listed_entries, prepare, train_missing
from evofool.fooling_set.recipe import SetRecipe
from evofool.fooling_set.rows import Row, rows_of
from evofool.fooling_set.write import MARK, SetOrigin, write_set
from evofool.image_metrics.metrics import MIN_REAL_IMAGES, ImageMetrics
from evofool.image_metrics.own_shape import OwnShape
from evofool.json_file import write_json
from evofool.machine import torch_threads
from evofool.run.measure import measure_run
from evofool.sweep.folder import locked_folder
from evofool.sweep.runner import OnProgress, Workers, WorkProgress, reporter
from evofool.sweep.status import StatusFile
from evofool.targets.redaction import last_part, public_name, without_folders
from evofool.whole_folder import refuse_foreign

MANIFEST, SCHEMA, VERSION = "build.json", "evofool.set.build", 1


@dataclass(frozen=True)
class SetOutcome:
    """How a build ended. folder: of the set, once it is written. index: None if the build was interrupted."""

    folder: Path
    index: SetIndex | None


def build_set(recipe: SetRecipe, folder: Path, on_progress: OnProgress = lambda progress: False) -> SetOutcome:
    """Build the set of a recipe in a folder, or go on with it there; the set itself is written to folder/set.

    What is done stays: trained networks, cells, measures and answers. Cells of another recipe are moved aside. The set of an
    earlier build is replaced, as a whole. On one kind of machine the same recipe gives the same bytes, with any number of
    workers and interruptions.

    RecipeError or TargetError, before any cell, for what cannot be built, and StoreError where folder/set has files of
    others. StoreError if a cell fails or does not score what was stored: the set is not written, the other cells are kept,
    and the same call tries again.
    """
    with locked_folder(folder, "set of fooling images", MANIFEST), StatusFile(folder) as status:

        def report(progress: WorkProgress) -> bool:
            if not progress.total:
                status.message(progress.message)
            return on_progress(progress)

        say = reporter(report)
        try:
            refuse_foreign(folder / WRITTEN, MARK)
            listed = listed_entries(recipe, folder)
            for group in recipe.groups:
                if group.images not in (None, DIGITS) and not Path(group.images or "").is_dir():
                    raise RecipeError(f"groups: {group.name}: images: there is no folder {group.images} (or write {DIGITS})")
            write_json(folder / MANIFEST, {"schema": SCHEMA, "version": VERSION, "recipe": recipe.fixed()})
            workers = Workers(recipe.workers, RayOptions(**recipe.ray.model_dump()))
            train_missing(listed, folder, workers, report, status)
            with threadpool_limits(1):
                classifiers = prepare(recipe, listed, folder, say)
            _run(classifiers, folder, workers, report, status)
            with torch_threads(1), threadpool_limits(1):
                _measure(classifiers, say)
                answer_all(classifiers, folder, say)
                return SetOutcome(folder / WRITTEN, _write(recipe, classifiers, folder, say))
        except Interrupted:
            status.state = "interrupted"
            return SetOutcome(folder / WRITTEN, None)


def _run(
    classifiers: Sequence[SetClassifier], folder: Path, workers: Workers, on_progress: OnProgress, status: StatusFile
) -> None:
    """Run the cells that are not done. StoreError if one failed, or its saved images do not score what was stored."""
    from evofool.bench.cell import read_record

    cells = [cell for classifier in classifiers for cell in classifier.cells]
    outcome = run_cells(cells, folder, workers, on_progress, status)
    if outcome.interrupted:
        raise Interrupted
    faults = {}
    for cell, failure in zip(cells, outcome.failures, strict=True):
        record = None if failure else read_record(cell.folder)
        if fault := failure or "; ".join(record["faults"] if record else ["it is not done"]):
            faults["/".join(cell.folder.parts[-2:])] = fault
    if faults:
        name, reason = next(iter(faults.items()))
        raise StoreError(
            f"{len(faults)} of {len(cells)} cells failed, so the set is not written; the others are kept, and the same "
            f"command tries again. The first is {name}: {reason}"
        )


def _measure(classifiers: Sequence[SetClassifier], report: Callable[[str], None]) -> None:
    """Compare the images of groups that have real images with these. Classifiers of equal input share what is computed."""
    made: dict[Any, tuple[ImageMetrics, OwnShape | None]] = {}
    for classifier in classifiers:
        images = classifier.group.images
        if images is None:
            continue
        report(f"measuring the images of {classifier.name}")
        preprocessing = classifier.target.details.get("preprocessing", {})
        resizing = preprocessing.get("resize"), preprocessing.get("interpolation")
        key = images, classifier.target.shape, classifier.target.labels, resizing
        if key not in made:
            real = real_images(images, classifier.target)
            made[key] = _metrics(classifier, real, images, report)
        for cell in classifier.cells:
            measure_run(cell.folder, made[key][0], report, made[key][1])


def _metrics(
    classifier: SetClassifier, real: RealImages, images: str, report: Callable[[str], None]
) -> tuple[ImageMetrics, OwnShape | None]:
    if len(real) < MIN_REAL_IMAGES:
        raise ImageError(f"{images}: {len(real)} real images, and percentiles among them need at least {MIN_REAL_IMAGES}")
    metrics = ImageMetrics.of(classifier.target, real, report=report)
    if images != DIGITS or real.source != DIGITS:
        return metrics, None
    return metrics, OwnShape(real.some(np.arange(len(real))), real.classes, metrics.held_out_rows)


def _write(recipe: SetRecipe, classifiers: Sequence[SetClassifier], folder: Path, report: Callable[[str], None]) -> SetIndex:
    """Write the set, whole or not at all."""
    total = sum(len(classifier.cells) for classifier in classifiers)

    def reported() -> Iterator[list[Row]]:
        for number, rows in enumerate(rows_of(classifiers, folder), 1):
            report(f"writing the set: {number} of {total} cells")
            yield rows

    records = {classifier.name: _record(classifier) for classifier in classifiers}
    origin = SetOrigin(recipe.name, recipe.version, own_version(), _public(recipe), records)
    return write_set(folder / WRITTEN, origin, reported())


def _public(recipe: SetRecipe) -> dict[str, Any]:
    """The recipe without folders of this machine."""
    data = recipe.fixed()
    for group in data["groups"]:
        if group.get("images"):
            group["images"] = Path(group["images"]).name
        for part in group.get("arm", {}).values():
            if "set" in part:
                part["set"] = [_without_folder(change) for change in part["set"]]
        for part in group["targets"]:
            if part.get("target"):
                part["target"] = public_name(part["target"])
    return data


def _without_folder(change: str) -> str:
    """A --set change with the name of a file in place of its path."""
    key, sign, value = change.partition("=")
    return f"{key}{sign}{last_part(value)}"


def _record(classifier: SetClassifier) -> dict[str, Any]:
    """What set.json has of a classifier."""
    target = classifier.target
    return {
        "group": classifier.group.name,
        "spec": public_name(target.name),
        "fingerprint": target.fingerprint(),
        "weights_sha256": target.details.get("weights_sha256"),
        "defence": classifier.entry.stated_defence or classifier.entry.defence,
        "shape": list(target.shape),
        "labels": list(target.labels),
        "notes": [without_folders(note) for note in classifier.notes],
    }
