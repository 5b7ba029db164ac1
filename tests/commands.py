"""Calling a command: what the fixture `call` of tests/conftest.py returns, and one command without the program around it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
import typer.testing


@dataclass(frozen=True)
class Result:
    """A finished command: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]
Runs = Callable[..., tuple[int, str]]
"""What the fixture `runs` returns: calls pytest with the plugin; the exit status and what was printed."""


def invoke(command: Callable[..., None], *arguments: str | Path) -> typer.testing.Result:
    """The function of one command, by itself: its exit code, its output and the exception that it raised."""
    app = typer.Typer()
    app.command()(command)
    return typer.testing.CliRunner().invoke(app, [str(argument) for argument in arguments])
