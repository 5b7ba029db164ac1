"""The folder that a gate works in."""

from itertools import count
from pathlib import Path

from evofool.json_file import write_json
from evofool.targets import Target

_VERDICT = "verdict.json"


def gate_folder(folder: Path, name: str, target: Target) -> Path:
    """The folder of a gate's cells: the same for the same name, so that an interrupted gate continues there.

    For a black box, which can change unnoticed, a new one (NAME-2, ...) after each verdict.
    """
    folders = (folder / (name if k == 1 else f"{name}-{k}") for k in count(1))
    return next(path.absolute() for path in folders if not (target.counts_persist and (path / _VERDICT).exists()))


def mark_verdict_given(folder: Path, target: Target) -> None:
    """Record that a verdict was given from this folder."""
    if target.counts_persist and folder.is_dir():
        write_json(folder / _VERDICT, {"target": target.name})
