"""The command `evofool merge`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.printer import print_lines

RUNS = typer.Argument(metavar="RUN...", help="Folders of runs of one target, merged runs included; they are not modified.")
OUT = typer.Option(metavar="RUN", help="A new folder for the merged run.")


def merge(folders: Annotated[list[Path], RUNS], out: Annotated[Path, OUT]) -> None:
    """Merge runs of one target into a new run with the best elite of every class (and niche).

    Best by the stored log-odds (or margin, as the recipes rank). The runs must share target, niches, search.rank,
    search.unlike and the kind of genome; seeds, budgets and mutation rates may differ. The order and grouping of the runs do
    not change the result, and runs that are still going on can be merged again later. A merged run can be shown, exported,
    verified and traced, but its search cannot be continued. What people said of the images (evofool quiz) goes
    along.
    """
    from evofool.cli.console import report
    from evofool.quiz.store import copy_answers
    from evofool.run.merge import merge as merge_runs

    merged = merge_runs(folders, out)
    answered = copy_answers(folders, out)
    for source in merged.sources:
        inside = "" if source.own_folder else f" ({source.name}, {source.id[:8]})"
        print_lines(
            f"{source.folder}{inside}: {source.evaluations:,} evaluations, best in {source.cells} of {merged.cells} cells"
        )
    if answered:
        print_lines(f"{answered} sessions of people who said what they see: copied too")
    report(out, None)
