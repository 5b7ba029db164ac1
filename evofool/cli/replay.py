"""The command `evofool replay`."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import RAY, Trust
from evofool.printer import print_lines

if TYPE_CHECKING:
    from evofool.run.run import Run

RUN = typer.Argument(metavar="RUN", help="A run's folder; it is not modified.")
OUT = typer.Option(metavar="RUN", help="Keep the repeated run in this folder; it is deleted by default.")
WORKERS = typer.Option(min=0, help="Classify in this number of Ray processes; 0: in this process. Does not change results.")


def replay(
    folder: Annotated[Path, RUN],
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int, WORKERS] = 0,
    ray: Annotated[str, RAY] = "local",
    trust: Trust = False,
) -> None:
    """Repeat a run's search, batch by batch, and check that the result is bit-identical.

    A search in free mode repeats the order of commits that its file has recorded; any other follows from its recipe. Exits
    with 1 and names what differs. Takes as long as the search itself.
    """
    from evofool.cli.console import describe, display, interrupts
    from evofool.errors import VerifyError
    from evofool.run.replay import replay as repeat

    with tempfile.TemporaryDirectory() as scratch, interrupts() as interrupted, contextlib.ExitStack() as shown:
        draw: list[Callable[[Run], None]] = []

        def begun(run: "Run") -> None:
            describe(run)
            draw.append(shown.enter_context(display(run)))

        found = repeat(
            folder,
            out or Path(scratch) / "again",
            trust=trust,
            workers=workers,
            address=ray,
            begun=begun,
            tick=lambda run: draw[0](run) or bool(interrupted),
        )
    if found.batches < found.of:
        print_lines(f"Interrupted after {found.batches:,} of {found.of:,} batches; the result is not known")
        raise typer.Exit(130)
    if found.differences:
        kind = "" if found.same_machine else " (this machine is of another kind than the run's, so last bits may differ)"
        raise VerifyError(f"{folder} is not reproduced: {'; '.join(found.differences)} differ{kind}")
    print_lines(f"{folder} is reproduced: {found.of:,} batches, archive and lineage bit-identical")
