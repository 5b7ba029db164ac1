"""The command `evofool gallery`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.in_browser import OPEN, PORT, import_server, in_browser, quiz_desk
from evofool.printer import print_lines

ROOTS = typer.Argument(metavar="[ROOT]...", help="Folders with runs, benchmarks and explanations; by default runs.")
ASK = typer.Option("--ask", help="Add a page to draw or upload an image on, and to see what a run's target says of it.")
TARGET = typer.Option("--target", metavar="SPEC", help="With --ask: ask this classifier, too (see `evofool targets list`).")
STATIC = typer.Option(
    metavar="DIR", help="Serve nothing: write the pages as files into this folder, for a web server, and end."
)


def gallery(
    roots: Annotated[list[Path] | None, ROOTS] = None,
    port: Annotated[int, PORT] = 0,
    opened: Annotated[bool, OPEN] = True,
    ask: Annotated[bool, ASK] = False,
    target: Annotated[str | None, TARGET] = None,
    static: Annotated[Path | None, STATIC] = None,
) -> None:
    """Show runs in a browser: their images as a grid, live while they evolve, and as they were at any time before.

    The server listens on this machine only, and answers only the browser that opens the address that it prints. A button
    explains an image, another one lets a search go on, and people can be asked what they see (`evofool quiz`); nothing else
    changes a run's folder. Ctrl-C ends it.
    A server is asked about drawings only with a limit: --target "https://...?max_requests=100".
    """
    from evofool.errors import RecipeError
    from evofool.explain.phrases import counted

    if target is not None and not ask:
        raise RecipeError("--target names the classifier that --ask asks: add --ask")
    if static is not None and ask:
        raise RecipeError("--static writes files, which cannot ask a target: leave --ask out")
    serve, roots = import_server(), roots or [Path("runs")]
    if static is not None:
        from evofool.gallery.static_copy import write_static

        copied = write_static(roots, static, lambda name: print_lines(f"Writing {name}"))
        if copied.left_out:
            print_lines("Left out:", *(f"- {line}" for line in copied.left_out))
        counts = f"{counted(copied.runs, 'run')}, {copied.pages:,} pages, {copied.pictures:,} pictures"
        print_lines(f"{counts}, {copied.size / 1e6:.1f} MB: {static / 'index.html'}")
        return
    with in_browser("Gallery", opened) as begun:
        serve(roots, quiz_desk(None), port, begun, asking=ask, asked=target)
