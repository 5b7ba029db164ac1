"""A benchmark's folder and its bench.json: the recipe, and what each target was calibrated as.

Until there is a cell everything may change; from then on nothing may change that the cells depend on.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evofool.bench.entries import Entry
from evofool.bench.plan import BenchRecipe, parse
from evofool.errors import RecipeError, StoreError
from evofool.json_file import read_json, write_json
from evofool.run.reader import FILE
from evofool.sweep.folder import is_folder_name, locked_folder

MANIFEST, CELLS = "bench.json", "cells"
SCHEMA, VERSION = "evofool.bench.plan", 2


@dataclass(frozen=True)
class CalibratedAs:
    """What a target was calibrated as; "" before it is.

    images: SHA-256 of the real images as the target receives them; listing: of their files (real.listing); notes: of the
    target's validation. faulty: whether something was wrong with its outputs the last time. trained_on: how many of these
    images it was trained on (training_images.trained_on), -1 before that was looked up.
    """

    spec: str = ""
    fingerprint: str = ""
    images: str = ""
    listing: str = ""
    notes: tuple[str, ...] = ()
    faulty: bool = False
    trained_on: int = -1


class Manifest:
    """A folder's bench.json, rewritten at every change.

    RecipeError where there are cells of another recipe; StoreError for a damaged file.
    """

    def __init__(self, recipe: BenchRecipe, folder: Path) -> None:
        self.folder = folder
        self._recipe = recipe
        self._targets: dict[str, CalibratedAs] = {}
        if (folder / MANIFEST).is_file():
            fixed, _, self._targets = _read(folder)
            if has_cells(folder):
                self._refuse_other(fixed)
        self._write()

    def has_cells(self, name: str) -> bool:
        """Whether the target of this name has a cell, done or started."""
        return has_cells(self.folder, name)

    def pinned(self) -> dict[str, str]:
        """The specs by name of the targets that have cells."""
        return {name: calibrated.spec for name, calibrated in self._targets.items() if self.has_cells(name)}

    def set_names(self, listed: Iterable[Entry]) -> None:
        """Store the names of the targets; a name that is not listed is dropped, unless it has a cell."""
        kept = {name: calibrated for name, calibrated in self._targets.items() if self.has_cells(name)}
        kept |= {entry.name: replace(self.calibrated_as(entry.name), spec=entry.spec) for entry in listed}
        self._targets = kept
        self._write()

    def calibrated_as(self, name: str) -> CalibratedAs:
        """What the target of this name was calibrated as."""
        return self._targets.get(name, CalibratedAs())

    def set_calibrated_as(self, name: str, calibrated: CalibratedAs) -> None:
        """Store what the target of this name was calibrated as."""
        self._targets[name] = calibrated
        self._write()

    def _refuse_other(self, fixed: Mapping[str, Any]) -> None:
        wanted = self._recipe.fixed()
        for key in sorted({*fixed, *wanted}):
            if fixed.get(key) != wanted.get(key):
                raise RecipeError(
                    f"{self.folder} holds a benchmark with {key} = {fixed.get(key)!r}, and this one has "
                    f"{wanted.get(key)!r}; "
                    f"their cells cannot be mixed: take another --out, or delete {self.folder / CELLS} to start again. "
                    "Targets, arms, seeds and workers may change"
                )

    def _write(self) -> None:
        write_json(
            self.folder / MANIFEST,
            {
                "schema": SCHEMA,
                "version": VERSION,
                "fixed": self._recipe.fixed(),
                "recipe": self._recipe.model_dump(mode="json"),
                "targets": {name: asdict(calibrated) for name, calibrated in self._targets.items()},
            },
        )


@contextmanager
def open_manifest(recipe: BenchRecipe, folder: Path) -> Iterator[Manifest]:
    """The manifest of a benchmark's folder, which is created if needed and locked until the end.

    StoreError if the folder is in use, or not empty and no benchmark.
    """
    with locked_folder(folder, "benchmark", MANIFEST):
        yield Manifest(recipe, folder)


def has_cells(folder: Path, name: str = "") -> bool:
    """Whether a benchmark's folder has a cell, done or started: of the target of this name, or of any."""
    cells = folder / CELLS
    return any((cells / name).glob(f"*/{FILE}") if name else cells.glob(f"*/*/{FILE}"))


def stored_recipe(folder: Path) -> BenchRecipe | None:
    """The recipe of a folder's last session; None where it has no cell."""
    return parse(_read(folder)[1], str(folder / MANIFEST)) if (folder / MANIFEST).is_file() and has_cells(folder) else None


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, CalibratedAs]]:
    """(fixed, recipe, targets) of bench.json."""
    remedy = f"a benchmark of an older version cannot be continued: take another --out, or delete {folder}"
    record = read_json(folder / MANIFEST, SCHEMA, VERSION, remedy)
    try:
        targets = {name: _calibrated(name, values) for name, values in record.get("targets", {}).items()}
        return dict(record["fixed"]), dict(record["recipe"]), targets
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{folder / MANIFEST} is damaged ({type(error).__name__}: {error}); take another --out, or delete {folder}"
        ) from None


def _calibrated(name: str, values: Mapping[str, Any]) -> CalibratedAs:
    """What bench.json has of a target; ValueError or TypeError for a name that is no folder's, and for other values."""
    if not is_folder_name(name):
        raise ValueError(f"{name!r:.80} cannot be a target's name")
    found = CalibratedAs(**{**values, "notes": tuple(values.get("notes", ()))})
    texts = (found.spec, found.fingerprint, found.images, found.listing, *found.notes)
    flags = isinstance(found.faulty, bool) and type(found.trained_on) is int
    if not all(isinstance(text, str) for text in texts) or not flags:
        raise ValueError(f"target {name}: {values!r:.200}")
    return found
