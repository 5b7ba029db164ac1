"""The command `evofool baseline`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import Classes, class_ids
from evofool.errors import RecipeError, ScoreError

if TYPE_CHECKING:
    from evofool.attacks.run import AttackProgress

METHOD = typer.Argument(
    metavar="METHOD", help="nguyen, simonyan, erhan, inceptionism, fourier, apgd; square, nes, random, noise."
)
TARGET = typer.Argument(metavar="TARGET", help="The classifier, as evofool targets list has it.")
OUT = typer.Option(metavar="RUN", help="Folder of the run; runs/METHOD-TARGET unless given. One begun there goes on.")
BUDGET = typer.Option(min=0, help="Forward passes for each class; 0: as published.")
TARGET_CONFIDENCE = typer.Option(help="A class is done at this confidence of its 8-bit image; 1: never before its budget.")
RANK = typer.Option(metavar="log_odds|margin", help="What the best image of a class is chosen by.")
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method: --set setting=l2, --set restarts=5.")
SEED = typer.Option(min=0, help="Keys every draw.")
THREADS = typer.Option(min=1, help="Torch threads of a pass.")
STREAMS = typer.Option(min=0, help="Passes at once; 0: as many as pay. Decides no bit.")


def baseline(
    method: Annotated[str, METHOD],
    target: Annotated[str, TARGET] = "lenet",
    classes: Classes = None,
    out: Annotated[Path | None, OUT] = None,
    budget: Annotated[int, BUDGET] = 0,
    target_confidence: Annotated[float, TARGET_CONFIDENCE] = 1.0,
    rank: Annotated[str, RANK] = "log_odds",
    changes: Annotated[list[str] | None, CHANGES] = None,
    seed: Annotated[int, SEED] = 0,
    threads: Annotated[int, THREADS] = 1,
    streams: Annotated[int, STREAMS] = 0,
) -> None:
    """Make fooling images by a published method, one for each class, as a run beside those of evolution.

    With gradients: nguyen (setting=plain, l2, blur or sparse), simonyan, erhan, inceptionism, fourier (made to be
    recognisable), apgd (the strongest). Without, for black boxes too: square, nes, random, and noise, the floor. The run
    can be shown, exported and verified like any other, and evolution can go on from it (evofool run RECIPE --parents RUN).
    Its curve counts forward passes. Ctrl-C keeps the classes that are done; the same command goes on.
    """
    from evofool.attacks.run import METHODS, AttackPlan, run_baseline
    from evofool.cli.console import interrupts, report, status
    from evofool.cli.console_attacks import progress_text
    from evofool.export.image_file import file_name
    from evofool.recipe import override
    from evofool.targets import target as load_target

    if method not in METHODS:
        listed = "\n".join(f"  {name:<13}{row.what}" for name, row in METHODS.items())
        raise RecipeError(f'there is no baseline "{method}"; there are\n{listed}')
    folder = out or Path("runs") / f"{method}-{file_name(target)}"
    found = load_target(target, folder)
    settings = override({}, changes or [])
    plan = AttackPlan(
        method=method,
        classes=tuple(class_ids(classes, found.labels, found.name)),
        settings=settings,
        budget=budget,
        rank=rank,
        seed=seed,
        target_confidence=target_confidence,
        threads=threads,
    )

    def begun(settled: AttackPlan, done: int) -> None:
        going_on = f"Going on with {folder} at {done} of {len(settled.classes)} classes" if done else f"New run in {folder}"
        shown = ", ".join(f"{k}={v}" for k, v in settled.settings.items())
        passes = f"{settled.budget:,} forward pass{'es' if settled.budget > 1 else ''} a class"
        limit = passes if settled.budget else "its published budget"
        print(
            f"{going_on}: {method} against {found.name} ({len(settled.classes)} classes), seed {seed}, {limit}", flush=True
        )
        if shown:
            print(f"  settings {shown}", flush=True)

    with interrupts("Stopping; the classes that are done are saved ...") as interrupted, status() as say:

        def tick(p: "AttackProgress") -> bool:
            say(lambda: progress_text(p))
            return bool(interrupted)

        outcome = run_baseline(plan, found, folder, streams, begun, tick)
    for note in outcome.notes:
        print(f"Warning: {note}.")
    if not outcome.done:
        print("Stopped before the first classes were done; nothing was kept. Begin again with the same command.")
        raise typer.Exit(130)
    if not outcome.images:
        raise ScoreError(
            f"{folder}: none of {outcome.done} classes has come to an image; {found.name} answers what is no number"
        )
    report(folder, None)
    if outcome.done < outcome.classes:
        print(f"Stopped after {outcome.done} of {outcome.classes} classes. The same command goes on.")
        raise typer.Exit(130)
