"""The end of a benchmark: its cells become JSON, a table of elites, and the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evofool.bench.cell import record
from evofool.bench.detector_stage import detected
from evofool.bench.json_file import write_json
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready
from evofool.bench.report.formatting import SHOWN
from evofool.bench.results import Place, result
from evofool.bench.summary import summary as summed_up
from evofool.errors import EvofoolError, StoreError
from evofool.run.stored import StoredRun
from evofool.targets.redaction import without_folders

RESULTS, SUMMARY, ELITES, REPORT = "results", "summary.json", "elites.parquet", "report.html"


@dataclass(frozen=True)
class Outcome:
    """How a benchmark ended. results: the JSON of every target, by name; notes: what could not be written or measured."""

    folder: Path
    results: dict[str, dict[str, Any]]
    summary: dict[str, Any]
    interrupted: bool
    notes: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether every target was measured."""
        return not self.interrupted and all(one["valid"] for one in self.results.values())


def finish(
    recipe: BenchRecipe,
    ready: Sequence[Ready],
    places: Sequence[Place],
    words: Mapping[Path, str],
    folder: Path,
    say: Callable[[str], None],
) -> Outcome:
    """Score every target by its cells, and write results/TARGET.json, summary.json, elites.parquet and report.html.

    words: by folder, why a cell came to nothing in this sitting.
    """
    results: dict[str, dict[str, Any]] = {}
    valid: dict[str, dict[str, dict[int, Path]]] = {}
    notes: list[str] = []
    for one in ready:
        say(f"scoring {one.entry.name}")
        own = [place for place in places if place.ready is one]
        guarded, bad = _guarded([place for place in own if place.guard], words)
        one.warnings += bad
        told, folders = result(recipe, one, [place for place in own if not place.guard], words)
        valid[one.entry.name] = folders
        if recipe.detectors and told["valid"]:
            rows, left_out = detected(recipe, one, folders.get(recipe.detectors.arm, {}), guarded)
            told["scores"]["detectors"] = rows
            told["flags"] += [{"level": "warning", "message": words_of} for words_of in left_out]
        results[one.entry.name] = told
    if recipe.image_metrics:
        from evofool.bench.image_metrics_stage import ImageMetricsStage

        measure = ImageMetricsStage(recipe, say)
        for one in ready:
            if results[one.entry.name]["valid"]:
                say(f"measuring the images of {one.entry.name}'s elites")
                figures, said = measure(one, valid[one.entry.name])
                results[one.entry.name]["scores"]["image_metrics"] = figures
                notes += said
    # What goes to others tells of no folder of this machine.
    hidden = partial(without_folders, known=[folder, recipe.images])
    _write_results(folder / RESULTS, results, hidden)
    total = summed_up(recipe, results)
    if recipe.transfer:
        from evofool.bench.transfer.transfer_stage import transferred

        say("asking targets about each other's elites")
        arm = "cppn" if "cppn" in recipe.arms else recipe.arms[0]
        total["transfer"], more = transferred(arm, ready, valid, say)
        notes += more
    notes = [hidden(note) for note in notes]
    write_json(folder / SUMMARY, total)
    say("writing the table of elites")
    notes += _table(folder, valid)
    say("writing the report")
    _report(folder, results, total, valid, notes)
    return Outcome(folder, results, total, False, tuple(notes))


def _write_results(folder: Path, results: Mapping[str, dict[str, Any]], hidden: Callable[[str], str]) -> None:
    """One file for each target, and none of a target that is measured no more: its cells are there, should it come back."""
    for name, told in results.items():
        told["flags"] = [{**flag, "message": hidden(flag["message"])} for flag in told["flags"]]
        for arm in told["scores"]["arms"].values():
            arm["invalid"] = {seed: hidden(why) for seed, why in arm["invalid"].items()}
        write_json(folder / f"{name}.json", told)
    for path in folder.glob("*.json"):
        if path.stem not in results:
            path.unlink()


def _guarded(places: Sequence[Place], words: Mapping[Path, str]) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """By detector and seed, the folders of valid cells of guarded targets; and what is to be said of the others."""
    found: dict[str, dict[int, Path]] = {}
    bad: dict[tuple[str, str], list[int]] = {}
    for place in places:
        why = words.get(place.folder, "")
        try:
            told = None if why else record(place.folder)
            if not why and told is None:
                why = "it is not done"
            if told is not None:
                if told["fingerprint"] != place.fingerprint:
                    why = "it was made with another detector or target"
                elif told["faults"]:
                    why = f"its saved images do not score what was stored: {told['faults'][0]}"
        except EvofoolError as error:
            why = str(error)
        if why:
            bad.setdefault((f"{place.arm} against {place.guard}", why), []).append(place.seed)
        else:
            found.setdefault(place.guard, {})[place.seed] = place.folder
    return found, [f"{what}: {len(seeds)} cell(s) are left out: {why}" for (what, why), seeds in bad.items()]


def _table(folder: Path, valid: Mapping[str, Mapping[str, Mapping[int, Path]]]) -> list[str]:
    """Write elites.parquet; what is to be said where that cannot be."""
    from evofool.export.parquet import write_elites

    cells = [
        (home, {"target": name, "arm": arm, "seed": seed})
        for name, arms in valid.items()
        for arm, seeds in arms.items()
        for seed, home in seeds.items()
    ]
    if not cells:
        return []
    try:
        write_elites(folder / ELITES, cells)
    except EvofoolError as error:
        return [f"{ELITES} was not written: {error}"]
    return []


def _report(
    folder: Path,
    results: Mapping[str, Mapping[str, Any]],
    total: Mapping[str, Any],
    valid: Mapping[str, Mapping[str, Mapping[int, Path]]],
    notes: Sequence[str],
) -> None:
    from evofool.bench.report.bench_report import bench_report

    sheets = {name: {arm: _sheet(next(iter(seeds.values()))) for arm, seeds in arms.items()} for name, arms in valid.items()}
    page = bench_report(list(results.values()), dict(total), sheets, list(notes))
    draft = folder / f"{REPORT}.new"
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(folder / REPORT)
    except OSError as error:
        raise StoreError(f"{folder / REPORT} cannot be written ({error.strerror})") from None


def _sheet(home: Path) -> bytes:
    """A contact sheet of a cell's elites, a PNG: all of them, or the SHOWN surest."""
    import io

    from evofool.pages.sheet import Tile, contact_sheet

    with StoredRun(home) as stored:
        elites = sorted(stored.elites(), key=lambda e: -e.row.margin)[:SHOWN]
        elites = sorted(elites, key=lambda e: e.row.class_id)
        tiles = [Tile(elite.image, elite.label, elite.confidence, log_odds=elite.row.log_odds) for elite in elites]
    buffer = io.BytesIO()
    contact_sheet(tiles, tile=_TILE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


_TILE = 84
