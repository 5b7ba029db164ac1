"""A sample of a set: a small set with some images of each classifier and arm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evofool.errors import RecipeError, StoreError
from evofool.export.image_file import class_folder
from evofool.fooling_set.index import SetIndex, folder_of
from evofool.fooling_set.layouts import DECODERS
from evofool.fooling_set.rows import COLUMNS, Row, matrix_columns
from evofool.fooling_set.table import read_table
from evofool.fooling_set.write import SetOrigin, write_set
from evofool.text import shortened

_NEEDED = ("label", "group", "label_name", "classifier", "arm", "confidence", "margin", "sha256")
"""The columns that are never empty, beside id."""


def sample(source: Path, out: Path, images: int, classifiers: Sequence[str] = ()) -> SetIndex:
    """Write a set of at most `images` images of each classifier and arm of a set, evenly spaced in the order of its table.

    Of n images those at places floor((k + 1/2) n / images). classifiers: the names of those whose images are taken; all if
    empty. Answers are those of all classifiers of the whole set, so columns of the matrix are the same. StoreError if there
    is no set, or a damaged one, and RecipeError for a classifier that it has not; nothing is written then.
    """
    index = SetIndex.read(source)
    if unknown := [name for name in classifiers if name not in index.classifiers]:
        raise RecipeError(
            f"{shortened(source)} has no classifier {shortened(unknown[0])}; it has {', '.join(index.classifiers)}"
        )
    columns = {"label": "int64", **COLUMNS, **matrix_columns(list(index.classifiers))}
    rows = read_table(source, columns, images=True)
    places: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        if classifiers and row["classifier"] not in classifiers:
            continue
        places.setdefault((row["classifier"], row["arm"]), []).append(place)
    kept = sorted(place for every in places.values() for place in _spread(every, images))
    origin = SetOrigin(index.name, index.version, index.evofool, index.recipe, index.classifiers, images)
    return write_set(out, origin, [[_row(rows[place], index, source)] for place in kept])


def _spread(places: list[int], most: int) -> list[int]:
    """Of the places at most so many, evenly spaced."""
    if len(places) <= most:
        return places
    return [places[(2 * k + 1) * len(places) // (2 * most)] for k in range(most)]


def _row(found: dict[str, Any], index: SetIndex, source: Path) -> Row:
    if missing := [name for name in _NEEDED if found[name] is None]:
        raise StoreError(f"{folder_of(source)} is damaged: image {found['id']} has no {missing[0]}")
    png = found["image"]["bytes"]
    values = {name: value for name, value in found.items() if name != "image"}
    try:
        home = class_folder(values["label"], index.classifiers[values["classifier"]]["labels"])
        decoder = None
        if (name := values["decoder_sha256"]) is not None:
            decoder = (folder_of(source) / DECODERS / f"{Path(name).name}.safetensors").read_bytes()
        return Row(values, png, f"{Path(values['group']).name}/{home}", decoder)
    except (KeyError, IndexError, TypeError, OSError) as error:
        raise StoreError(f"{folder_of(source)} is damaged: image {values['id']} ({type(error).__name__}: {error})") from None
