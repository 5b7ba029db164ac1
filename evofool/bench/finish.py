"""The end of a benchmark: its cells become JSON, a table of elites, and the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evofool.bench.cell_plan import CellPlan
from evofool.bench.collect import collect_cells
from evofool.bench.likeness_stage import LikenessStage
from evofool.bench.plan import BenchRecipe
from evofool.bench.prepare import InvalidTarget
from evofool.bench.report.formatting import SHOWN
from evofool.bench.result_file import is_other_file
from evofool.bench.results import ScoredTarget, invalid_json, score_target, scored_json
from evofool.bench.summary import summary as summarize
from evofool.errors import EvofoolError, StoreError
from evofool.json_file import read_json, write_json
from evofool.run.stored import StoredRun
from evofool.targets.redaction import without_folders
from evofool.whole_file import write_whole

if TYPE_CHECKING:
    from evofool.pages.sheet import Tile

RESULTS, SUMMARY, ELITES = "results", "summary.json", "elites.parquet"
_LIST, _LIST_SCHEMA = "files.json", "evofool.report-files"

Folders = Mapping[str, Mapping[str, Mapping[int, Path]]]
"""By target, arm and seed, the folders of valid cells."""


@dataclass(frozen=True)
class BenchOutcome:
    """How a benchmark ended. results: the JSON of every target, by name; notes: what could not be written or measured.

    cells: by target, arm and seed, the folders of the valid cells of targets that were measured.
    """

    folder: Path
    results: dict[str, dict[str, Any]]
    summary: dict[str, Any]
    interrupted: bool
    notes: tuple[str, ...]
    cells: dict[str, dict[str, dict[int, Path]]] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether every target was measured."""
        return not self.interrupted and all(result["valid"] for result in self.results.values())


def finish(
    recipe: BenchRecipe,
    targets: Sequence[CellPlan | InvalidTarget],
    failures: Mapping[Path, str],
    folder: Path,
    report: Callable[[str], None],
) -> BenchOutcome:
    """Score every target by its cells, and write results/TARGET.json, summary.json, elites.parquet and the report.

    failures: by folder, why a cell failed in this process.
    """
    scored: list[ScoredTarget | InvalidTarget] = []
    for plan in targets:
        if isinstance(plan, InvalidTarget):
            scored.append(plan)
        else:
            report(f"scoring {plan.prepared.name}")
            scored.append(score_target(recipe, collect_cells(plan, failures)))
    valid = [target for target in scored if isinstance(target, ScoredTarget) and target.valid]
    image_metrics, notes = _image_metrics(recipe, valid, report)
    look, likeness = LikenessStage(), dict[str, Any]()
    for target in valid:
        report(f"looking at the images of {target.name}'s elites")
        likeness[target.name] = look(target.prepared, target.scoring, target.folders)
    # What is published names no folder of this machine.
    hidden = partial(without_folders, known=[folder, recipe.images])
    results = {
        target.name: scored_json(recipe, target, image_metrics.get(target.name, {}), likeness.get(target.name))
        if isinstance(target, ScoredTarget)
        else invalid_json(recipe, target)
        for target in scored
    }
    results = {name: _without_folders(result, hidden) for name, result in results.items()}
    _write_results(folder / RESULTS, results)
    total = summarize(recipe, results)
    if recipe.transfer:
        from evofool.bench.transfer.transfer_stage import accepted_by, transferred

        report("measuring transfer between targets")
        arm = "cppn" if "cppn" in recipe.arms else recipe.arms[0]
        measured = [(target.prepared, target.folders.get(arm, {})) for target in valid]
        total["transfer"], more = transferred(arm, measured, report)
        notes += more
        for name, row in accepted_by(arm, total["transfer"]).items():
            results[name]["scores"]["transfer"] = row
        _write_results(folder / RESULTS, results)
    notes = [hidden(note) for note in notes]
    write_json(folder / SUMMARY, total)
    folders = {target.name: target.folders for target in valid}
    report("writing the table of elites")
    notes += _write_table(folder, folders)
    report("writing the report")
    _write_report(folder, results, total, folders, notes)
    return BenchOutcome(folder, results, total, False, tuple(notes), folders)


def _image_metrics(
    recipe: BenchRecipe, valid: Sequence[ScoredTarget], report: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """By target, the figures of image_metrics_stage, and notes; none unless the recipe has image_metrics."""
    if recipe.image_metrics is None:
        return {}, []
    from evofool.bench.image_metrics_stage import ImageMetricsStage

    measure = ImageMetricsStage(recipe.image_metrics, report)
    figures, notes = {}, []
    for target in valid:
        report(f"measuring the images of {target.name}'s elites")
        figures[target.name], more = measure(target.prepared, target.folders)
        notes += more
    return figures, notes


def _without_folders(result: Mapping[str, Any], hidden: Callable[[str], str]) -> dict[str, Any]:
    """The result with all folders of this machine removed from its messages."""
    arms = {
        name: {**arm, "invalid": {seed: hidden(reason) for seed, reason in arm["invalid"].items()}}
        for name, arm in result["scores"]["arms"].items()
    }
    flags = [{**flag, "message": hidden(flag["message"])} for flag in result["flags"]]
    return {**result, "flags": flags, "scores": {**result["scores"], "arms": arms}}


def _write_results(folder: Path, results: Mapping[str, dict[str, Any]]) -> None:
    """Write a file for each target; results of targets that are no longer in the recipe are deleted, their cells kept."""
    for name, result in results.items():
        write_json(folder / f"{name}.json", result)
    for path in folder.glob("*.json"):
        if path.stem not in results and not is_other_file(path):
            _delete(path, "a target that is no longer in the recipe")


def _write_table(folder: Path, folders: Folders) -> list[str]:
    """Write elites.parquet; a note if that fails."""
    from evofool.export.parquet import write_elites

    cells = [
        (cell, {"target": name, "arm": arm, "seed": seed})
        for name, arms in folders.items()
        for arm, seeds in arms.items()
        for seed, cell in seeds.items()
    ]
    if not cells:
        return []
    try:
        write_elites(folder / ELITES, cells)
    except EvofoolError as error:
        return [f"{ELITES} was not written: {error}"]
    return []


def _write_report(
    folder: Path,
    results: Mapping[str, Mapping[str, Any]],
    total: Mapping[str, Any],
    folders: Folders,
    notes: Sequence[str],
) -> None:
    """Write the pages and pictures of the report, report.html last; those of the earlier report are deleted then.

    A list of them is kept beside them, so that files of others in the folder stay.
    """
    from evofool.bench.report.bench_report import FOLDER, bench_report

    tiles = {
        name: {arm: partial(_tiles, next(iter(seeds.values()))) for arm, seeds in arms.items()}
        for name, arms in folders.items()
    }
    beside = folder / FOLDER
    earlier = _listed(beside / _LIST)
    written = set()
    for path, content in bench_report(list(results.values()), dict(total), tiles, list(notes)):
        file = folder / path
        write_whole(file, content)
        written.add(file)
    for file in (beside / path for path in _paths(beside) & earlier):
        if file not in written:
            _delete(file, "an earlier report")
    ours = sorted(file.relative_to(beside).as_posix() for file in written if beside in file.parents)
    write_json(beside / _LIST, {"schema": _LIST_SCHEMA, "version": 1, "files": ours})


def _delete(file: Path, of: str) -> None:
    try:
        file.unlink()
    except OSError as error:
        raise StoreError(f"{file} is of {of} and cannot be deleted ({error.strerror})") from None


def _paths(folder: Path) -> set[str]:
    """The files in a folder and those below, by their paths from it."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def _listed(path: Path) -> set[str]:
    """The paths of a list of the report's files; none if there is no list, or a damaged one."""
    try:
        files = read_json(path, _LIST_SCHEMA, 1, "delete it").get("files")
    except StoreError:
        return set()
    return {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()


def _tiles(cell: Path) -> "list[Tile]":
    """A cell's elites: all, or the SHOWN with the highest margins, in order of classes."""
    from evofool.pages.sheet import Tile

    with StoredRun(cell) as stored:
        elites = sorted(stored.elites(), key=lambda e: -e.row.margin)[:SHOWN]
        elites = sorted(elites, key=lambda e: e.row.class_id)
        return [Tile(elite.image, elite.label, elite.confidence, log_odds=elite.row.log_odds) for elite in elites]
