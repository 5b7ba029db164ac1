"""What a benchmark's folder is bound to, in its bench.json: the plan, and what each target was measured as.

The rule: until there is a cell everything may still change; from then on what the cells rest on may not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evofool.bench.entries import Entry
from evofool.bench.json_file import read_json, write_json
from evofool.bench.plan import BenchRecipe, parse
from evofool.errors import RecipeError, StoreError
from evofool.run.reader import FILE

STATE, CELLS = "bench.json", "cells"
SCHEMA, VERSION = "evofool.bench.plan", 2


@dataclass(frozen=True)
class Known:
    """What a target was calibrated as; "" before it is.

    images: SHA-256 of the real images as it sees them; listing: of their files (real.listing); notes: the validation's.
    faulty: whether something was wrong with its answers the last time.
    """

    spec: str = ""
    fingerprint: str = ""
    images: str = ""
    listing: str = ""
    notes: tuple[str, ...] = ()
    faulty: bool = False


class Bound:
    """A folder's bench.json, written anew with every change.

    RecipeError where there are cells of another plan; StoreError for a file that is damaged.
    """

    def __init__(self, recipe: BenchRecipe, folder: Path) -> None:
        self.folder = folder
        self._recipe = recipe
        self._targets: dict[str, Known] = {}
        if (folder / STATE).is_file():
            fixed, _, self._targets = _read(folder)
            if begun(folder):
                self._refuse_other(fixed)
        self._write()

    def begun(self, name: str) -> bool:
        """Whether the target of this name has a cell, done or under way."""
        return begun(self.folder, name)

    def pinned(self) -> dict[str, str]:
        """The specs by name of the targets that have cells."""
        return {name: known.spec for name, known in self._targets.items() if self.begun(name)}

    def name(self, listed: Iterable[Entry]) -> None:
        """Note what the targets are called; names that are no more, and have no cell, are forgotten."""
        there = {name: known for name, known in self._targets.items() if self.begun(name)}
        there |= {entry.name: replace(self.known(entry.name), spec=entry.spec) for entry in listed}
        self._targets = there
        self._write()

    def known(self, name: str) -> Known:
        """What the target of this name was calibrated as."""
        return self._targets.get(name, Known())

    def keep(self, name: str, known: Known) -> None:
        """Note what the target of this name was calibrated as."""
        self._targets[name] = known
        self._write()

    def _refuse_other(self, fixed: Mapping[str, Any]) -> None:
        wanted = self._recipe.fixed()
        for key in sorted({*fixed, *wanted}):
            if fixed.get(key) != wanted.get(key):
                raise RecipeError(
                    f"{self.folder} holds a benchmark with {key} = {fixed.get(key)!r}, asked for is {wanted.get(key)!r}; "
                    f"its cells would not belong together: take another --out, or delete {self.folder / CELLS} to begin "
                    "anew. Targets, arms, seeds and workers may change"
                )

    def _write(self) -> None:
        write_json(
            self.folder / STATE,
            {
                "schema": SCHEMA,
                "version": VERSION,
                "fixed": self._recipe.fixed(),
                "recipe": self._recipe.model_dump(mode="json"),
                "targets": {name: asdict(known) for name, known in self._targets.items()},
            },
        )


def begun(folder: Path, name: str = "") -> bool:
    """Whether there is a cell, done or under way, in a benchmark's folder: of the target of this name, or of any."""
    cells = folder / CELLS
    return any((cells / name).glob(f"*/{FILE}") if name else cells.glob(f"*/*/{FILE}"))


def begun_with(folder: Path) -> BenchRecipe | None:
    """The recipe that a folder was last gone on with; None where it has no cell."""
    return parse(_read(folder)[1], str(folder / STATE)) if (folder / STATE).is_file() and begun(folder) else None


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Known]]:
    """(fixed, recipe, targets) of bench.json."""
    remedy = f"an older benchmark cannot go on: take another --out, or delete {folder}"
    told = read_json(folder / STATE, SCHEMA, VERSION, remedy)
    try:
        targets = {
            name: Known(**known | {"notes": tuple(known.get("notes", ()))})
            for name, known in told.get("targets", {}).items()
        }
        return dict(told["fixed"]), dict(told["recipe"]), targets
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{folder / STATE} is damaged ({type(error).__name__}: {error}); take another --out, or delete {folder}"
        ) from None
