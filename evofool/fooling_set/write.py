"""Writing a set: its rows in three layouts, set.json, the metadata and the data card, as a whole or not at all."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evofool.fooling_set.card import description, set_card
from evofool.fooling_set.croissant import FILE as CROISSANT
from evofool.fooling_set.croissant import croissant
from evofool.fooling_set.index import CONFIDENT, SetIndex, file_record
from evofool.fooling_set.layouts import IMAGES, METADATA, all_layouts
from evofool.fooling_set.rows import Row
from evofool.json_file import write_json
from evofool.text import visible_lines
from evofool.whole_folder import whole_folder

MARK = "files.json"  # the list of the set's files: whole_folder replaces a folder that has no others


@dataclass(frozen=True)
class SetOrigin:
    """What a set has beside its rows: the fields of SetIndex with these names."""

    name: str
    version: str
    evofool: str
    recipe: Mapping[str, Any]
    classifiers: Mapping[str, Mapping[str, Any]]
    sample: int = 0


def write_set(folder: Path, origin: SetOrigin, cells: Iterable[list[Row]]) -> SetIndex:
    """Write a set of these rows into a folder. A set that is there is replaced; StoreError if the folder has other files."""
    title, sizes = origin.recipe.get("title") or origin.name, Counter[str]()
    counts: dict[str, dict[str, Counter[str]]] = {name: {} for name in origin.classifiers}
    with whole_folder(folder, MARK) as draft:
        with all_layouts(draft, list(counts)) as write_rows:
            for rows in cells:
                write_rows(rows)
                for row in rows:
                    _count(counts[row.values["classifier"]].setdefault(row.values["arm"], Counter()), row)
                    sizes["png"] += len(row.png)
                    sizes["genome"] += len(row.values["genome"] or "")
                    sizes["judged"] += row.values["verdict"] is not None
                    sizes["measured"] += row.values["nearest_real_hog_percentile"] is not None
        index = SetIndex(
            **vars(origin),
            counts={name: {arm: dict(of) for arm, of in by_arm.items()} for name, by_arm in counts.items()},
            images=sum(of["images"] for by_arm in counts.values() for of in by_arm.values()),
            png_bytes=sizes["png"],
            genome_bytes=sizes["genome"],
            files={path: file_record(draft / path) for path in _files(draft)},
        )
        index.write(draft)
        card = visible_lines(set_card(index, title, sizes["judged"], sizes["measured"]))
        (draft / "README.md").write_text(card, encoding="utf-8")
        cite = f"{title}, version {index.version}, made by evofool {index.evofool}"
        write_json(draft / CROISSANT, croissant(index, title, description(index), cite))
    return index


def _count(counts: Counter[str], row: Row) -> None:
    """Add an image to the counts of its classifier and arm (SetIndex.counts)."""
    counts["images"] += 1
    counts["predicted"] += row.values["margin"] > 0
    counts["confident"] += row.values["margin"] > 0 and row.values["confidence"] >= CONFIDENT


def _files(draft: Path) -> list[str]:
    """The files that are listed with their hashes: all but the images of the layout of folders."""
    every = sorted(path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file())
    return [path for path in every if path == METADATA or not path.startswith(f"{IMAGES}/")]
