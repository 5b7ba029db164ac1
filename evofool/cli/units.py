"""The command `evofool units`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.options import Seed, Streams
from evofool.printer import print_lines, status

TARGET = typer.Argument(metavar="TARGET", help="A classifier with gradients, as `evofool targets list` names it.")
UNITS = typer.Argument(
    metavar="LAYER:INDEX...",
    help="Units to maximise: LAYER:CHANNEL (in a feature map: its central unit) or LAYER:CHANNEL:Y:X, as in conv2:7:4:4.",
)
OUT = typer.Option(metavar="RUN", help="Folder of the run; runs/units-TARGET by default.")
BUDGET = typer.Option(min=0, help="Forward passes for each unit; 0: the published number.")
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method: --set restarts=5.")
THREADS = typer.Option(min=1, help="Torch threads of one pass.")


def units(
    target: Annotated[str, TARGET],
    units: Annotated[list[str], UNITS],
    out: Annotated[Path | None, OUT] = None,
    budget: Annotated[int, BUDGET] = 0,
    changes: Annotated[list[str] | None, CHANGES] = None,
    seed: Seed = 0,
    threads: Annotated[int, THREADS] = 1,
    streams: Streams = 0,
) -> None:
    """Make images that maximise single units of a network, by gradient (Erhan 2009).

    A unit has no class, so its images compete in every class, as in evolution. The result is a run, with the best image
    of each unit as unit-LAYER-INDEX.png, all of them in units.png, and the activations in units.json. If it is
    interrupted, nothing is saved.
    """
    from evofool.attacks.units import UnitPlan, run_units
    from evofool.cli.console import interrupts, report
    from evofool.export.image_file import file_name
    from evofool.recipe import override
    from evofool.targets import target as load_target

    folder = out or Path("runs") / f"units-{file_name(target)}"
    with interrupts("Stopping ...") as interrupted, status() as show_status:
        plan = UnitPlan(units, override({}, changes or []), budget, seed, threads)

        def tick(step: int, steps: int) -> bool:
            show_status(lambda: f"step {step:,} of {steps:,}")
            return bool(interrupted)

        outcome = run_units(plan, load_target(target, folder), folder, streams, tick)
    for line in outcome.lines:
        print_lines(line)
    if not outcome.done:
        raise typer.Exit(130)
    report(folder, None)
