"""A run's elites as ordinary files: PNGs in ImageFolder layout, a table, genomes."""

import csv
import re
from pathlib import Path

import numpy as np

from evofool.elites import Elite, StoredRun, to_json
from evofool.errors import StoreError
from evofool.images import save_png
from genomes import CPPN


def export(run: StoredRun, folder: Path, size: int | None = None) -> int:
    """Write DIR/<class>_<label>/<label>_<confidence>_<birth>.png, DIR/elites.csv and, for CPPNs, genomes beside the PNGs.

    size redraws CPPNs with that many pixels on the longer side; pixels have one size only (StoreError). Returns the number
    of elites. The CSV scores are those of the stored size.
    """
    elites = run.elites()
    if size is not None and not isinstance(run.encoding, CPPN):
        raise StoreError(f"{run.folder}: its genomes are pixels and have one size; --size is for CPPN runs")
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; export writes a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty; export into a new folder, or old and new champions would lie side by side")
    digits = len(str(len(run.labels) - 1))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "elites.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["file", *elites[0].summary()])
            table.writeheader()
            for elite in elites:
                home = folder / f"{elite.row.class_id:0{digits}d}_{file_name(elite.label)}"
                home.mkdir(exist_ok=True)
                path = home / f"{stem(elite, run)}.png"
                if size is None:
                    path.write_bytes(elite.row.png)
                else:
                    save_png(_redrawn(run, elite, size), path)
                if isinstance(run.encoding, CPPN):
                    path.with_suffix(".json").write_text(to_json(run.genome_json(elite)) + "\n", encoding="utf-8")
                table.writerow({"file": path.relative_to(folder).as_posix(), **elite.summary()})
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror})") from None
    return len(elites)


def stem(elite: Elite, run: StoredRun) -> str:
    """label_confidence_birth, with the niche where there are several."""
    niche = f"_niche{elite.row.niche}" if run.recipe.niches else ""
    return f"{file_name(elite.label)}_{elite.confidence:.6f}_{elite.row.birth}{niche}"


def file_name(label: str) -> str:
    """A label as part of a file name: letters, digits, dash and underscore, 40 characters at the most."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", label).strip("_")[:40] or "class"


def _redrawn(run: StoredRun, elite: Elite, size: int) -> np.ndarray:
    _, height, width = run.shape
    scale = size / max(height, width)
    genome = run.unpack([elite.row.genome])
    return run.encoding.render(genome, (max(1, round(height * scale)), max(1, round(width * scale))))[0]
