"""What `evofool measure RUN --through` prints: how many elites still fool the target behind each pipeline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from evofool.printer import Table, print_json, print_lines, status

if TYPE_CHECKING:
    import numpy as np

    from evofool.run.survival import Survival


def measure_through(folder: Path, through: str, trust: bool, as_json: bool) -> None:
    """Print how many elites fool the run's target as the pipelines of a list deliver them.

    Nothing is stored but the answers of a black box.
    """
    from evofool.machine import keep_memory
    from evofool.run.stored import StoredRun
    from evofool.run.survival import survival
    from evofool.targets.pipelines import pipelines, refuse_misfits

    made = pipelines(through, "--through")
    keep_memory()
    try:
        with StoredRun(folder) as stored, status() as show_status:
            refuse_misfits(made, stored.meta.target.shape, "--through")
            report: Callable[[str], None] = lambda text: show_status(lambda: text)  # noqa: E731
            found = survival(stored, made, trust, report)
    except KeyboardInterrupt:
        print_lines("Interrupted; nothing was stored")
        raise typer.Exit(130) from None
    if as_json:
        print_json({"run": str(folder), "target": stored.meta.target.name, **found.as_json()})
    else:
        _print(found)


def _print(found: "Survival") -> None:
    import numpy as np

    from evofool.run.survival import LEVELS

    elites = len(found.elites)
    table = Table()
    table.column("elites")
    for head in ("keep their class", *(f"p >= {level:g}" for level in LEVELS), "median p"):
        table.column(head, right=True)

    def kept(holds: "Mapping[str, np.ndarray]") -> list[str]:
        return [f"{n:,} of {of:,} ({n / of:.0%})" if of else "-" for n, of in found.kept(holds).values()]

    def median(confidence: "np.ndarray") -> str:
        return f"{np.median(confidence):.4f}" if elites else "-"

    before = [f"{int(values.sum()):,} of {elites:,}" for values in found.stored.holds().values()]
    table.row("as stored", *before, median(found.stored.confidence))
    for name, held in found.by_pipeline.items():
        table.row(name, *kept(held.holds()), median(held.confidence))
    if len(found.by_pipeline) > 1:
        table.row("every pipeline", *kept(found.everywhere()))
    table.print()
    requests = f", {found.requests:,} requests" if found.requests else ""
    print_lines("", f"Shares are of the elites for which it holds as stored. Queries: {found.queries:,}{requests}.")
