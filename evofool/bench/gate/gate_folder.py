"""Where both programs of the gate work."""

from itertools import count
from pathlib import Path

from evofool.bench.json_file import write_json
from evofool.targets import Target

_JUDGED = "judged.json"


def gate_folder(folder: Path, name: str, target: Target) -> Path:
    """The folder that a gate's cells are in: the same for the same name, so that work goes on there.

    Of a black box, which can change without a trace, a new one (NAME-2, ...) once a verdict was given.
    """
    places = (folder / (name if k == 1 else f"{name}-{k}") for k in count(1))
    return next(place.absolute() for place in places if not (target.counts_persist and (place / _JUDGED).exists()))


def mark_judged(home: Path, target: Target) -> None:
    """Note that a verdict was given by what is in here."""
    if target.counts_persist and home.is_dir():
        write_json(home / _JUDGED, {"target": target.name})
