"""A run's elites for others: as ordinary files in ImageFolder layout, or as a table of Hugging Face's data sets."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evofool.csv_file import write_csv
from evofool.errors import RecipeError, StoreError
from evofool.export.card import Exported, card, refuse_license
from evofool.export.image_file import genome_text, home, picture, refuse_size, resampled, stem
from evofool.export.parquet import write_run
from evofool.quiz.of_run import asked, told_in_words
from evofool.quiz.verdicts import Verdict, verdict_columns
from evofool.run.stored import ListedElite, ListedRunnerUp, StoredRun
from evofool.text import visible_lines
from evofool.whole_file import is_temporary
from genomes import CPPN, Latent

LAYOUTS = ("imagefolder", "parquet")
_UNFINISHED = ".evofool-export"
"""Lies in a folder that is not whole yet: the next export into it clears it, and begins anew."""
_CARD, _TABLE, _DATA, _DECODER = "README.md", "elites.csv", "data", "decoder.safetensors"
_OURS = re.compile(r"README\.md|elites\.csv|data|[0-9]+_[A-Za-z0-9_-]+")  # all that is written in a folder


def export(
    run: StoredRun,
    folder: Path,
    size: int | None = None,
    layout: str = "imagefolder",
    license: str | None = None,
    runners_up: bool = False,
) -> Exported:
    """Write the elites into folder, which is new or empty, with a data card, README.md. Returns what was written.

    "imagefolder": DIR/<class>_<label>/<label>_<confidence>_<birth>.png, DIR/elites.csv and, for CPPNs, genomes beside the
    PNGs. "parquet": DIR/data/train-00000-of-00001.parquet, as dataset.write_elites has it. Either folder is a data set that
    `datasets` loads as it is. Elites and card are of one checkpoint, though the run may go on.

    runners_up: the other genomes that the search keeps are written, too (StoreError if it keeps only elites). Their images
    are drawn, their scores are those that the search ranked by, and the column place is 0 for an elite, 1 for the next best.
    size draws CPPNs, and canvases that are CPPNs or have cosines, with that many pixels on the longer side, and resamples
    other canvases; pixels have one size only (StoreError). Scores are those of the stored size. license: an SPDX
    identifier for the card. RecipeError for a layout or a licence that is none; StoreError for a folder that is not empty
    or cannot be written: nothing is left there then, and what was left by an export that was killed is no hindrance.
    """
    if layout not in LAYOUTS:
        raise RecipeError(f'there is no layout "{layout}" to export; there are {" and ".join(LAYOUTS)}')
    refuse_license(license)
    refuse_size(run, size)
    with run.snapshot():
        elites = run.elites()
        # While a run goes on its lists may be newer than its elites.
        shown = {(elite.row.cell, elite.row.birth) for elite in elites}
        said = asked(run)
        others = [each for each in run.runners_up() if (each.row.cell, each.row.birth) not in shown] if runners_up else None
    images: list[ListedElite] = [*elites, *(others or ())]
    methods = Counter(image.row.method for image in images)
    exported = Exported(
        layout=layout,
        images=len(images),
        classes=len({elite.row.class_id for elite in elites}),
        methods=methods,
        size=size,
        resampled=0 if size is None else resampled(images, run),
        license=license,
        runners_up=None if others is None else len(others),
    )
    with _whole_or_nothing(folder):
        if layout == "parquet":
            write_run(folder / _DATA / "train-00000-of-00001.parquet", run, elites, others, size)
        else:
            verdicts = {elite.row.cell: verdict for elite, verdict in said.by_elite} if said else {}
            _image_folder(run, images, folder, size, verdicts, with_places=others is not None)
        (folder / _CARD).write_text(visible_lines(card(run, exported, told_in_words(said))), encoding="utf-8")
    return exported


def _image_folder(
    run: StoredRun,
    elites: list[ListedElite],
    folder: Path,
    size: int | None,
    verdicts: Mapping[int, Verdict],
    with_places: bool,
) -> None:
    rows = []
    for elite in elites:
        path = folder / home(elite, run) / f"{stem(elite, run)}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(elite, run, size))
        if isinstance(run.encoding, CPPN | Latent):
            path.with_suffix(".json").write_text(genome_text(elite, run), encoding="utf-8")
        place = {"place": elite.place if isinstance(elite, ListedRunnerUp) else 0} if with_places else {}
        # Runners-up are shown to nobody.
        verdict = None if isinstance(elite, ListedRunnerUp) else verdicts.get(elite.row.cell)
        own = elite.summary() | verdict_columns(verdict, run.labels)
        rows.append({"file": path.relative_to(folder).as_posix(), **place, **own})
    if isinstance(run.encoding, Latent):
        (folder / _DECODER).write_bytes(run.encoding.decoder)
    write_csv(folder / _TABLE, list(rows[0]), rows)


# --- all of it or nothing


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    """Within, the folder, which is made, is to be filled. What goes wrong empties it again.

    It may be the current folder, or a disk of its own: nothing is moved there from elsewhere.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; export writes a folder")
    note = folder / _UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if note.exists():
            _clear(folder)
        if any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty; export into a new folder, so that old and new elites are not mixed")
        note.touch()
        try:
            yield
        except BaseException:
            _clear(folder)
            raise
        note.unlink()
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror or error})") from None


def _clear(folder: Path) -> None:
    """Take away what an export has written in its folder, and nothing else."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) or is_temporary(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / _UNFINISHED).unlink()
