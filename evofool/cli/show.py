"""The command `evofool show`."""

from typing import Annotated

import typer

from evofool.cli.console import print_table, show_one
from evofool.cli.options import AsJson, RunFolder, Trust


def show(
    folder: RunFolder,
    which: Annotated[str | None, typer.Option("--class", help="One elite in full: a class number or a label.")] = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """The elites of a run as a table, or one of them in full.

    In full: its scores, what else the classifier saw, its parents and, for a CPPN, its genome, with the picture
    and the graph written beside the run. Works while the run goes on.
    """
    from evofool.run.stored import StoredRun, to_json

    with StoredRun(folder) as stored:
        if which is not None:
            show_one(stored, which, as_json, trust)
            return
        elites = stored.elites()
        if as_json:
            rows = stored.rows()
            print(
                to_json(
                    {
                        "run": str(folder),
                        "recipe": stored.meta["recipe"],
                        "target": stored.meta["target"],
                        "machine": stored.meta["machine"],
                        "evaluations": stored.evaluations,
                        "seconds": stored.meta["seconds"],
                        "elites_as_of": stored.elites_as_of,
                        "finished": stored.meta["finished"],
                        "warnings": stored.meta.get("warnings", []),
                        "quarantine": stored.quarantine(),
                        "metrics": rows,
                        "references": stored.store.references(),
                        "elites": [elite.summary() for elite in elites],
                    }
                )
            )
            return
        print_table(stored, elites)
