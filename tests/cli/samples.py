"""Short runs for tests of commands."""

import re
import sqlite3
from pathlib import Path

from evofool.recipe import load
from evofool.run.reader import FILE
from evofool.run.run import Run
from tests.commands import Result

TINY = ("stop.evaluations=640", "stop.confidence=", "search.batch=16")


def settings(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def made(recipe: str, folder: Path, *changes: str) -> Path:
    with Run.start(load(recipe, [*TINY, *changes]), folder) as run:
        run.advance()
    return folder


def damage(folder: Path, *statements: str) -> None:
    database = sqlite3.connect(folder / FILE)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def one_sentence(result: Result, message: str = "") -> None:
    assert result.code not in (0, None)
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("evofool: ")
    assert re.search(message, lines[0]), f"{message!r} is not in {lines[0]!r}"
