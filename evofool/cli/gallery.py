"""The command `evofool gallery`."""

import threading
import webbrowser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from evofool.printer import print_lines

ROOTS = typer.Argument(metavar="[ROOT]...", help="Folders with runs, benchmarks and explanations; by default runs.")
PORT = typer.Option(min=0, max=65535, help="The port of this machine to listen on; 0 takes a free one.")
ASK = typer.Option("--ask", help="Add a page to draw or upload an image on, and to see what a run's target says of it.")
TARGET = typer.Option("--target", metavar="SPEC", help="With --ask: ask this classifier, too (see `evofool targets list`).")
OPEN = typer.Option("--open/--no-open", help="Open the gallery in a browser.")


def gallery(
    roots: Annotated[list[Path] | None, ROOTS] = None,
    port: Annotated[int, PORT] = 0,
    opened: Annotated[bool, OPEN] = True,
    ask: Annotated[bool, ASK] = False,
    target: Annotated[str | None, TARGET] = None,
) -> None:
    """Show runs in a browser: their images as a grid, live while they evolve, and as they were at any time before.

    The server listens on this machine only, and answers only the browser that opens the address that it prints. A button
    explains an image, another one lets a search go on; nothing else changes a run's folder. Ctrl-C ends it.
    A server is asked about drawings only with a limit: --target "https://...?max_requests=100".
    """
    from evofool.errors import RecipeError

    if target is not None and not ask:
        raise RecipeError("--target names the classifier that --ask asks: add --ask")

    try:
        from evofool.gallery.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "jinja2"):
            raise
        raise RecipeError(
            f"the gallery needs {error.name}, which is not installed: pip install 'evofool[gallery]'"
        ) from None

    with TemporaryDirectory(prefix="evofool-gallery-") as folder:

        def begun(address: str) -> None:
            print_lines(f"Gallery: {address}", "Ctrl-C ends it")
            if opened:
                # Other users of the machine can read a browser's arguments: the token is in a file that they cannot read.
                page = Path(folder) / "open.html"
                page.touch(0o600)
                page.write_text(f'<meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
                # In a thread: a browser of the terminal would keep the server from beginning.
                threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()

        serve(roots or [Path("runs")], port, begun, ask, target)
