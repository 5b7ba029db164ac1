"""The command `evofool merge`."""

from pathlib import Path
from typing import Annotated

import typer

RUNS = typer.Argument(metavar="RUN...", help="Folders of runs of one target, merged ones among them; they are only read.")
OUT = typer.Option(metavar="RUN", help="Folder of the merged run; a new one.")


def merge(folders: Annotated[list[Path], RUNS], out: Annotated[Path, OUT]) -> None:
    """Merge runs of one target into a new run that holds the best elite of every class (and niche).

    Best by the measured log-odds (or margin, as the recipes rank). Runs have to share target, niches, search.rank and the
    kind of genome; seeds, budgets and mutation rates may differ. Order, grouping and repetition do not matter, and runs that
    go on meanwhile can be merged again later. The merged run can be shown, exported, verified and traced; no search goes on
    from it.
    """
    from evofool.cli.console import report
    from evofool.run.merge import merge as merge_runs

    merged = merge_runs(folders, out)
    for source in merged.sources:
        inside = "" if source.own else f" ({source.name}, {source.id[:8]})"
        print(f"{source.folder}{inside}: {source.evaluations:,} evaluations, holds {source.cells} of {merged.cells} cells")
    report(out, None)
