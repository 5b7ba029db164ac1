"""The command `evofool polish`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evofool.cli.console_attacks import progress_text
from evofool.cli.options import Classes, Streams, Trust, class_ids
from evofool.errors import RecipeError
from evofool.printer import print_lines, status

if TYPE_CHECKING:
    from evofool.attacks.polish import PolishPlan
    from evofool.attacks.session import AttackProgress

RUN = typer.Argument(metavar="RUN", help="The run whose elites are improved; it is not modified.")
OUT = typer.Option(metavar="NEW", help="Folder of the new run; RUN-polished by default. A run begun there is continued.")
PARAMETERS = typer.Option(
    "--parameters",
    metavar="weights|pixels",
    help="What the gradient changes; by default the CPPN's weights where there are any, else pixels.",
)
BUDGET = typer.Option(min=0, help="Forward passes for each elite; 0: 17 passes, with --surrogate 5.")
CHANGES = typer.Option(
    "--set", metavar="KEY=VALUE", help="rate=0.01: the step size in pixels; grow=false: add no edges to the graphs."
)
SURROGATES = typer.Option(
    "--surrogate",
    metavar="SPEC",
    help="Use the gradients of this network in place of the target's, which judges the images; may be repeated "
    "(docs/surrogates.md).",
)
THREADS = typer.Option(min=0, help="Torch threads of one pass; 0: as many as RUN has.")


def polish(
    folder: Annotated[Path, RUN],
    out: Annotated[Path | None, OUT] = None,
    parameters: Annotated[str, PARAMETERS] = "",
    budget: Annotated[int, BUDGET] = 0,
    classes: Classes = None,
    changes: Annotated[list[str] | None, CHANGES] = None,
    surrogates: Annotated[list[str] | None, SURROGATES] = None,
    trust: Trust = False,
    threads: Annotated[int, THREADS] = 0,
    streams: Streams = 0,
) -> None:
    """Improve a run's elites by gradient ascent, and keep the better images as a new run.

    The gradients are the target's own, or with --surrogate those of other networks.

    With --parameters weights an image stays one that a CPPN draws; with pixels it does not. Images that score higher
    replace their elites, are marked as polished and have the originals as parents (mothers); the other elites stay. The
    new run can be shown, exported, verified and merged with RUN, and evolution can start from it (evofool run RECIPE
    --parents NEW). Its curve counts forward passes. Ctrl-C saves the finished elites, and the same command continues.
    """
    import numpy as np

    from evofool.attacks.polish import PolishPlan
    from evofool.attacks.polish import polish as polish_run
    from evofool.cli.console import interrupts, report
    from evofool.recipe import override
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        folder, labels = stored.folder, tuple(stored.labels)
    if surrogates and parameters:
        raise RecipeError("--surrogate climbs in pixels, or canvases if RUN has these; leave --parameters out")
    chosen = class_ids(classes, labels, str(folder))
    settings = _settings(override({}, changes or []))
    new = out or folder.with_name(f"{folder.resolve().name}-polished")

    def begun(plan: "PolishPlan", done: int, elites: int) -> None:
        start = f"Continuing {new} at {done:,} of {elites:,} elites" if done else f"New run in {new}"
        print_lines(
            f"{start}: {elites:,} elites of {folder} polished by {plan.by}, {plan.budget:,} forward passes each, "
            f"rate {plan.rate:g}",
        )

    with interrupts("Stopping; the finished elites are saved ...") as interrupted, status() as show_status:

        def tick(p: "AttackProgress") -> bool:
            show_status(lambda: progress_text(p).replace("classes", "elites"))
            return bool(interrupted)

        named = tuple(surrogates or ())
        plan = PolishPlan(parameters, tuple(chosen), budget, threads=threads, surrogates=named, **settings)
        done = polish_run(folder, new, plan, trust=trust, streams=streams, on_start=begun, tick=tick)
    for note in done.notes:
        print_lines(f"Warning: {note}.")
    if not len(done.before):
        print_lines("Stopped before the first elites were finished; nothing was saved. The same command starts again.")
        raise typer.Exit(130)
    report(new, None)
    print_lines(
        f"Polished: {done.polished:,} of {len(done.before):,} elites; median log-odds {np.median(done.before):.2f} before, "
        f"{np.median(done.after):.2f} after; {done.forwards:,} forward and {done.backwards:,} backward passes."
    )
    if len(done.before) < done.elites:
        print_lines(f"Stopped after {len(done.before):,} of {done.elites:,} elites. The same command continues.")
        raise typer.Exit(130)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """rate and grow; RecipeError for any other, and for what they cannot be."""
    for name, value in given.items():
        if name not in ("rate", "grow"):
            raise RecipeError(f'polish has no setting "{name}"; it has rate, grow')
        if name == "rate" and type(value) not in (int, float):
            raise RecipeError(f"polish: rate is a number, not {value!r}")
        if name == "grow" and type(value) is not bool:
            raise RecipeError(f"polish: grow is true or false, not {value!r}")
    return given
