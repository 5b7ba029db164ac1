"""The page of the images that still fool a target, and the same as JSON, in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from evofool.bench.sets.survivors import By, Survivors
from evofool.json_file import write_json
from evofool.pages.html_page import NOTHING, Folded, KeyFigure, Picture, Section, Table, html_page
from evofool.pages.sheet import confidence_text, small_png
from evofool.targets.redaction import name_of, public_name
from evofool.whole_file import write_whole
from evofool.whole_folder import whole_folder

PAGE, DATA = "index.html", "survivors.json"
SHOWN = 300
"""The most pictures on a page; the JSON lists all images."""

_MARK = ".evofool-survivors"  # lists the files of a folder, so that the next page can replace them
_SIDE = 112  # pixels of a picture


class WriteSurvivors(Protocol):
    def __call__(self, survivors: Survivors) -> None:
        """Write the page and the JSON."""


@contextmanager
def survivors_folder(folder: Path) -> Iterator[WriteSurvivors]:
    """Within, a function that writes index.html and survivors.json; the folder appears when the block ends without an error.

    It may be new, empty, or one that this wrote before, which is replaced. StoreError, before the block, for another.
    """
    with whole_folder(folder, _MARK) as draft:

        def write(survivors: Survivors) -> None:
            write_whole(draft / PAGE, survivors_page(survivors).encode())
            write_json(draft / DATA, survivors.as_json())

        yield write


def survivors_page(survivors: Survivors) -> str:
    """The page as HTML: counts, by class and by classifier, and the images that still fool, by falling confidence."""
    target = public_name(survivors.scored.target.name)
    sections = [_counts(survivors)]
    if len(survivors.ranking):
        sections.append(_pictures(survivors))
    sections.append(Section("Counts", tables=_tables(survivors)))
    return html_page(f"Images that still fool {target}", sections)


def _counts(survivors: Survivors) -> Section:
    scored, judged, left = survivors.scored, int(survivors.judged.sum()), len(survivors.ranking)
    classes = len(set(scored.classes[survivors.ranking].tolist()))
    none = f"None of {judged:,} images fools it any more"
    some = f"{left:,} of {judged:,} images still fool it, of {classes:,} of {len(scored.best):,} classes"
    figures = [KeyFigure(f"{left:,}", "", "still fool"), KeyFigure(f"{judged - left:,}", "", "no longer fool")]
    if survivors.has_rejections:
        rejected = int((survivors.rejected & survivors.judged).sum())
        figures.append(KeyFigure(f"{rejected:,}", "", "of these are rejected"))
    return Section(
        "",
        [
            f"The set: {name_of(scored.images.source)}. An image fools if its intended class is predicted and reaches the "
            f"threshold: {survivors.rule}."
        ],
        cautions=survivors.cautions(),
        lead=some if left else none,
        figures=figures,
    )


def _pictures(survivors: Survivors) -> Section:
    rows = [int(row) for row in survivors.ranking]
    shown = [
        Picture(survivors.label(row), small_png(survivors.image(row), _SIDE), _confidences(survivors, row), _SIDE)
        for row in rows[:SHOWN]
    ]
    left_out = f" Shown are the first {SHOWN:,} of {len(rows):,}." if len(rows) > SHOWN else ""
    table = Table(
        ["image", "intended class", "when it was made", "now"],
        [[survivors.name(row), survivors.label(row), _then(survivors, row), _now(survivors, row)] for row in rows[:SHOWN]],
    )
    text = "The intended class, and the confidence in it now and when the image was made, from the highest now."
    return Section("Survivors", [text + left_out], pictures=shown, folded=[Folded("Their names", tables=[table])])


def _confidences(survivors: Survivors, row: int) -> str:
    now = _now(survivors, row)
    return now if survivors.then(row) is None else f"{now} now, {_then(survivors, row)} then"


def _then(survivors: Survivors, row: int) -> str:
    then = survivors.then(row)
    return NOTHING if then is None else confidence_text(then)


def _now(survivors: Survivors, row: int) -> str:
    return confidence_text(float(survivors.scored.p[row]))


def _tables(survivors: Survivors) -> list[Table]:
    kinds: list[By] = ["class"]
    if any(survivors.scored.images.classifiers):
        kinds.append("classifier")
    heads = {"class": "intended class", "classifier": "made for"}
    return [Table([heads[by], "images", "still fool", "highest confidence now"], _rows(survivors, by)) for by in kinds]


def _rows(survivors: Survivors, by: By) -> list[list[str]]:
    rows = []
    for name, members in survivors.groups(by).items():
        judged, left = int(survivors.judged[members].sum()), int(survivors.fools[members].sum())
        best = confidence_text(float(survivors.scored.p[members].max()))
        rows.append([name or "not known", f"{judged:,}", f"{left:,}", best])
    return rows
