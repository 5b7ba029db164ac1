"""The grid of a run: its cells as tiles, sorted and chosen by what the address says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from evofool.explain.phrases import confidence_text
from evofool.gallery.history import Place
from evofool.gallery.levels import level_of
from evofool.gallery.open_runs import OpenRun
from evofool.gallery.thumbnails import SIDES
from evofool.image_metrics.names import HAS_OWN_SHAPE, OWN_SHAPE
from evofool.quiz.verdicts import Verdict, Word
from evofool.run.stored import ListedElite
from evofool.scores import confidence

SORTS = ("class", "log-odds", "margin", "birth", "bytes", "shape")
WORDS = ("recognised", "taken for another class", "unrecognised", "open", "nobody was asked")
"""What people say of an elite, as a grid is chosen by: the verdicts, and that there is none."""
_KEYS: dict[str, Callable[[ListedElite], float]] = {
    "class": lambda elite: elite.row.cell,
    "log-odds": lambda elite: -elite.row.log_odds,
    "margin": lambda elite: -elite.row.margin,
    "birth": lambda elite: -elite.row.birth,
    "bytes": lambda elite: elite.row.bytes_per_pixel,
    "shape": lambda elite: _metric(elite, OWN_SHAPE, float("inf")),  # the most like its class first
}


NOTHING = "none yet"
"""The confidence of a cell without an image."""


@dataclass(frozen=True)
class View:
    """What the address of a grid says.

    text: words that a label has. least: the lowest confidence, 0 to 1. size: of a picture, one of SIDES, or 0: by the number
    of tiles. at, beside: evaluations after which the archive is shown, and a second number of them to compare with; None:
    the archive as it is now, and no comparison. said: one of WORDS, or "" for any.
    """

    sort: str = "class"
    text: str = ""
    least: float = 0.0
    niche: int | None = None
    size: int = 0
    at: int | None = None
    beside: int | None = None
    said: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "View":
        """Of the parameters of an address; what is invalid or unknown is left at its default."""
        sort, size, least = query.get("sort", ""), _whole(query.get("size")), _number(query.get("least"))
        return cls(
            sort if sort in SORTS else "class",
            query.get("text", "")[:100],
            min(1.0, max(0.0, least)),
            _whole(query.get("niche")),
            size if size in SIDES else 0,
            _whole(query.get("at")),
            _whole(query.get("beside")),
            said if (said := query.get("said", "")) in WORDS else "",
        )

    def query(self, **changes: Any) -> str:
        """The parameters of the address of this view, changed; what is at its default is left out."""
        other = replace(self, **changes)
        defaults = View()
        names = ("sort", "text", "least", "niche", "size", "at", "beside", "said")
        return urlencode({n: getattr(other, n) for n in names if getattr(other, n) not in (getattr(defaults, n), None)})


@dataclass(frozen=True)
class Tile:
    """A cell of the grid. picture: the address of its image below the run's. beside: of the image to compare it with, or "".

    level: 0 to 4, how many of LEVELS the confidence reaches. said: what people see in it, or "". shaped: by the measure of
    its class's shape.
    """

    cell: int
    niche: int
    label: str
    confidence: str
    level: int
    picture: str
    beside: str = ""
    beside_text: str = ""
    said: str = ""
    shaped: bool = False


def tiles(run: OpenRun, view: View) -> list[Tile]:
    """The tiles of a grid, in order. size is that of view, by default chosen by how many classes there are."""
    side = side_of(run, view)
    if view.at is not None and run.history is not None:
        return _earlier(run, view, side)
    found = []
    for elite in sorted(run.listed, key=lambda elite: (_KEYS[view.sort](elite), elite.row.cell)):
        row = elite.row
        verdict = run.verdicts.get(row.cell)
        if _shown(view, elite.label, row.class_id, row.niche, row.log_odds) and view.said in ("", _word(verdict)):
            found.append(
                Tile(
                    row.cell,
                    row.niche,
                    elite.label,
                    confidence_text(row.log_odds),
                    level_of(row.log_odds),
                    f"elite/{row.birth}-{row.sha256}.png?side={side}",
                    said=verdict.text(run.stored.labels) if verdict else "",
                    shaped=_metric(elite, HAS_OWN_SHAPE) == 1,
                )
            )
    return found


def _metric(elite: ListedElite, name: str, missing: float = 0.0) -> float:
    return next((metric.value for metric in elite.row.image_metrics if metric.name == name), missing)


def _word(verdict: Verdict | None) -> str:
    """Of WORDS."""
    return (
        {Word.RECOGNISED: WORDS[0], Word.TAKEN: WORDS[1], Word.UNRECOGNISED: WORDS[2], Word.OPEN: WORDS[3]}[verdict.word]
        if verdict
        else WORDS[4]
    )


def side_of(run: OpenRun, view: View) -> int:
    """Pixels of the pictures of a grid."""
    return view.size or (112 if len(run.stored.classes) > 60 else 224)


def _earlier(run: OpenRun, view: View, side: int) -> list[Tile]:
    assert run.history is not None
    assert view.at is not None
    then = run.history.at(view.at)
    other = run.history.at(view.beside) if view.beside is not None else {}
    niches, found = run.stored.niches, []
    # A cell that had no image yet has a place too: the slider fills it.
    for cell in sorted({*then, *other, *run.keys}, key=lambda cell: _order(view, cell, then)):
        place, second = then.get(cell), other.get(cell)
        class_id, niche = divmod(cell, niches)
        label = run.stored.labels[class_id]
        if _shown(view, label, class_id, niche, place.log_odds if place else float("-inf")):
            found.append(
                Tile(
                    cell,
                    niche,
                    label,
                    confidence_text(place.log_odds) if place else NOTHING,
                    level_of(place.log_odds) if place else 0,
                    drawn(place, side) if place else "",
                    drawn(second, side) if second else "",
                    confidence_text(second.log_odds) if second else NOTHING,
                )
            )
    return found


def drawn(place: Place, side: int) -> str:
    """The address, below the run's, of a genome's image."""
    return f"drawn/{place.birth}.png?side={side}"


def _order(view: View, cell: int, then: Mapping[int, Place]) -> tuple[float, int]:
    """By log-odds or birth where these are asked for, else by class: the history has no more."""
    place = then.get(cell)
    if view.sort == "log-odds":
        return (-place.log_odds if place else float("inf"), cell)
    if view.sort == "birth":
        return (-place.birth if place else float("inf"), cell)
    return (0.0, cell)


def _shown(view: View, label: str, class_id: int, niche: int, log_odds: float) -> bool:
    words = view.text.lower().split()
    return (
        all(word in label.lower() or word == str(class_id) for word in words)
        and (view.niche is None or view.niche == niche)
        and float(confidence(log_odds)) >= view.least
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


def _number(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if value == value else 0.0
