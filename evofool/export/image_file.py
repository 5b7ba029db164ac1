"""An elite's picture as a file for others: what it is called, and its bytes, at any size where it has none of its own."""

import re
from collections.abc import Sequence

import numpy as np

from evofool.errors import StoreError
from evofool.images import encode_png
from evofool.run.stored import Elite, ListedElite, ListedRunnerUp, StoredRun
from evofool.text import to_json
from genomes import Canvas, Direct, Latent


def file_name(label: str) -> str:
    """A label as part of a file name: letters, digits, dash and underscore, 40 characters at the most."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", label).strip("_")[:40] or "class"


def stem(elite: ListedElite, run: StoredRun) -> str:
    """label_confidence_birth, with the niche where there are several, and the place of a runner-up."""
    niche = f"_niche{elite.row.niche}" if run.recipe.niches else ""
    place = f"_place{elite.place}" if isinstance(elite, ListedRunnerUp) else ""
    return f"{file_name(elite.label)}_{elite.confidence:.6f}_{elite.row.birth}{niche}{place}"


def home(elite: ListedElite, run: StoredRun) -> str:
    """The folder of an elite's class: 003_tiger_shark."""
    return class_folder(elite.row.class_id, run.labels)


def class_folder(class_id: int, labels: Sequence[str]) -> str:
    """The folder of a class among these labels: 003_tiger_shark."""
    digits = len(str(len(labels) - 1))
    return f"{class_id:0{digits}d}_{file_name(labels[class_id])}"


def genome_text(elite: ListedElite, run: StoredRun) -> str:
    """The elite's genome, as JSON in a file."""
    return to_json(run.genome_json(elite)) + "\n"


def picture(elite: ListedElite, run: StoredRun, size: int | None = None) -> bytes:
    """The PNG as stored, or of a runner-up as its genome is drawn; with size drawn again or resampled (resampled), with that
    many pixels on the longer side.
    """
    if size is None and isinstance(elite, Elite):
        return elite.row.png
    _, height, width = run.shape
    scale = 1 if size is None else size / max(height, width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    drawn: np.ndarray = run.encoding.render(run.genome(elite), shape)[0]
    return encode_png(drawn)


def refuse_size(run: StoredRun, size: int | None) -> None:
    """StoreError for a size, where the run's genomes are pixels and have one already."""
    if size is not None and isinstance(run.encoding, Direct):
        raise StoreError(
            f"{run.folder}: its genomes are pixels and have one size; --size is for CPPN, canvas and latent runs"
        )


def resampled(elites: Sequence[ListedElite], run: StoredRun) -> int:
    """How many pictures of another size are resampled: those of decoders, and canvases of pixels
    (genomes.Canvas.has_any_size)."""
    if isinstance(run.encoding, Latent):
        return len(elites)
    if not isinstance(run.encoding, Canvas):
        return 0
    return sum(not run.encoding.has_any_size(run.genome(elite))[0] for elite in elites)
