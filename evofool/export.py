"""A run's elites for others: as ordinary files in ImageFolder layout, or as a table of Hugging Face's data sets."""

import csv
from collections import Counter
from pathlib import Path

from evofool.data_card import Exported, card, refuse_license
from evofool.dataset import write_elites
from evofool.elite_file import file_name, picture, refuse_size, stem
from evofool.elites import Elite, StoredRun, to_json
from evofool.errors import RecipeError, StoreError
from genomes import CPPN

LAYOUTS = ("imagefolder", "parquet")


def export(
    run: StoredRun, folder: Path, size: int | None = None, layout: str = "imagefolder", license: str | None = None
) -> int:
    """Write the elites into folder, which is new or empty, with a data card, README.md. Returns the number of elites.

    "imagefolder": DIR/<class>_<label>/<label>_<confidence>_<birth>.png, DIR/elites.csv and, for CPPNs, genomes beside the
    PNGs. "parquet": DIR/data/train-00000-of-00001.parquet, as dataset.write_elites has it. Either folder is a data set that
    `datasets` loads as it is.

    size redraws CPPNs with that many pixels on the longer side; pixels have one size only (StoreError). Scores are those of
    the stored size. license: an SPDX identifier for the card. RecipeError for a layout or a licence that is none; StoreError
    for a folder that is not empty or cannot be written.
    """
    if layout not in LAYOUTS:
        raise RecipeError(f'there is no layout "{layout}" to export; there are {" and ".join(LAYOUTS)}')
    refuse_license(license)
    refuse_size(run, size)
    elites = run.elites()
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; export writes a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty; export into a new folder, or old and new champions would lie side by side")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if layout == "parquet":
            number = write_elites(folder / "data" / "train-00000-of-00001.parquet", [(run.folder, {})], size)
        else:
            number = _image_folder(run, elites, folder, size)
        made = Counter(elite.row.made for elite in elites)
        exported = Exported(layout, number, len({elite.row.class_id for elite in elites}), made, size, license)
        (folder / "README.md").write_text(card(run, exported), encoding="utf-8")
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror})") from None
    return number


def _image_folder(run: StoredRun, elites: list[Elite], folder: Path, size: int | None) -> int:
    digits = len(str(len(run.labels) - 1))
    with open(folder / "elites.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["file", *elites[0].summary()])
        table.writeheader()
        for elite in elites:
            home = folder / f"{elite.row.class_id:0{digits}d}_{file_name(elite.label)}"
            home.mkdir(exist_ok=True)
            path = home / f"{stem(elite, run)}.png"
            path.write_bytes(picture(elite, run, size))
            if isinstance(run.encoding, CPPN):
                path.with_suffix(".json").write_text(to_json(run.genome_json(elite)) + "\n", encoding="utf-8")
            table.writerow({"file": path.relative_to(folder).as_posix(), **elite.summary()})
    return len(elites)
