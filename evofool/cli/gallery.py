"""The command `evofool gallery`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.in_browser import OPEN, PORT, import_server, in_browser, quiz_desk

ROOTS = typer.Argument(metavar="[ROOT]...", help="Folders with runs, benchmarks and explanations; by default runs.")
ASK = typer.Option("--ask", help="Add a page to draw or upload an image on, and to see what a run's target says of it.")
TARGET = typer.Option("--target", metavar="SPEC", help="With --ask: ask this classifier, too (see `evofool targets list`).")


def gallery(
    roots: Annotated[list[Path] | None, ROOTS] = None,
    port: Annotated[int, PORT] = 0,
    opened: Annotated[bool, OPEN] = True,
    ask: Annotated[bool, ASK] = False,
    target: Annotated[str | None, TARGET] = None,
) -> None:
    """Show runs in a browser: their images as a grid, live while they evolve, and as they were at any time before.

    The server listens on this machine only, and answers only the browser that opens the address that it prints. A button
    explains an image, another one lets a search go on, and people can be asked what they see (`evofool quiz`); nothing else
    changes a run's folder. Ctrl-C ends it.
    A server is asked about drawings only with a limit: --target "https://...?max_requests=100".
    """
    from evofool.errors import RecipeError

    if target is not None and not ask:
        raise RecipeError("--target names the classifier that --ask asks: add --ask")
    serve = import_server()
    with in_browser("Gallery", opened) as begun:
        serve(roots or [Path("runs")], quiz_desk(None), port, begun, asking=ask, asked=target)
