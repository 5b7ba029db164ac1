"""The command `evofool replay`."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import Trust

if TYPE_CHECKING:
    from evofool.run.run import Run

RUN = typer.Argument(metavar="RUN", help="A run's folder; it is only read.")
OUT = typer.Option(metavar="RUN", help="Folder to keep the second run in; thrown away unless given.")
WORKERS = typer.Option(min=0, help="Classify in so many processes of Ray's, as `evofool run` does; they change no bit.")
RAY = typer.Option(metavar="local|auto|HOST:PORT", help="The Ray cluster to join.")


def replay(
    folder: Annotated[Path, RUN],
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int, WORKERS] = 0,
    ray: Annotated[str, RAY] = "local",
    trust: Trust = False,
) -> None:
    """Do a run's search again, batch by batch as it was committed, and say whether it comes to the same bits.

    A search in free mode has its order of commits in its file; for any other the recipe is enough. Exits with 1 and names
    what differs. Takes as long as the search itself.
    """
    from evofool.cli.console import describe, display, interrupts
    from evofool.errors import VerifyError
    from evofool.run.replay import replay as again

    with tempfile.TemporaryDirectory() as scratch, interrupts() as interrupted, contextlib.ExitStack() as shown:
        draw: list[Callable[[Run], None]] = []

        def begun(run: "Run") -> None:
            describe(run)
            draw.append(shown.enter_context(display(run)))

        found = again(
            folder,
            out or Path(scratch) / "again",
            trust=trust,
            workers=workers,
            address=ray,
            begun=begun,
            tick=lambda run: draw[0](run) or bool(interrupted),
        )
    if found.batches < found.of:
        print(f"Interrupted after {found.batches:,} of {found.of:,} batches: nothing can be said")
        raise typer.Exit(130)
    if found.differences:
        kind = "" if found.same_machine else " (this is another kind of machine than the run's: last bits may differ)"
        raise VerifyError(f"{folder} comes out otherwise when it is done again: {'; '.join(found.differences)} differ{kind}")
    print(f"{folder} comes out the same when it is done again: {found.of:,} batches, every bit of archive and descent")
