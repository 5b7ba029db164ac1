"""The command `evofool quiz`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.in_browser import OPEN, PORT, import_server, in_browser, quiz_desk
from evofool.cli.options import Classes, RunFolder, Trust, class_ids
from evofool.printer import print_lines

if TYPE_CHECKING:
    from evofool.gallery.catalogue import Catalogue

IMAGES = typer.Option(
    "--images",
    metavar="DIR",
    help="Labelled real images of the target's classes, which no rater has seen; digits need none. 10 are shown to a rater.",
)
HTML = typer.Option("--html", metavar="FILE", help="Write the quiz as one page that can be sent or hosted; serve nothing.")
SESSIONS = typer.Option(
    "--sessions",
    min=1,
    max=1000,
    help="How many sessions that page has, each with its own images and orders; every rater gets one by chance. "
    "By default 10, or as many as keep it below 20 MB.",
)


def quiz(
    folder: RunFolder,
    images: Annotated[Path | None, IMAGES] = None,
    classes: Classes = None,
    html: Annotated[Path | None, HTML] = None,
    sessions: Annotated[int | None, SESSIONS] = None,
    port: Annotated[int, PORT] = 0,
    opened: Annotated[bool, OPEN] = True,
    trust: Trust = False,
) -> None:
    """Ask people in a browser what they see in a run's elites.

    First a rater says what they see in each image, real ones and noise among them, then they choose from a list. Every
    answer is stored at once, in quiz.db beside the run: if the server is killed, the rater goes on where they were, under
    the same pseudonym. `evofool verdicts RUN` derives what may be said from 5 raters on. The server answers only the browser
    that opens the address that it prints. For people elsewhere, --html FILE writes a page; what they send back is stored by
    `evofool verdicts RUN --import FILE`. docs/quiz.md has the protocol.
    """
    from evofool.cli.console import refuse_unwritable, status
    from evofool.errors import RecipeError
    from evofool.run.stored import StoredRun

    serve = import_server()
    refuse_unwritable(html)
    if sessions is not None and html is None:
        raise RecipeError("--sessions says how many sessions the page of --html FILE has; give --html too")
    with StoredRun(folder) as stored:
        asked = class_ids(classes, tuple(stored.labels), str(folder)) or None
        desk = quiz_desk(images, trust, asked)
        desk.check(stored)
        desk.load(stored)
        folder = stored.folder
    if html is not None:
        from evofool.gallery.quiz_file import write_quiz

        with status() as show_status:
            made = write_quiz(folder, html, desk, sessions, lambda n: show_status(lambda: f"{n} sessions drawn"))
        number = "1 session" if made.sessions == 1 else f"{made.sessions} sessions"
        print_lines(
            f"{html}: {number} of {made.trials} trials, {made.size / 1e6:.2f} MB",
            f"evofool verdicts {folder} --import FILE stores what raters send back",
        )
        return

    def first(catalogue: "Catalogue") -> str:
        run = next(entry for entry in catalogue.scan() if entry.kind == "run" and entry.folder == folder.resolve())
        return f"/quiz/{run.id}"

    with in_browser("Quiz", opened) as begun:
        serve([folder], desk, port, begun, first)
