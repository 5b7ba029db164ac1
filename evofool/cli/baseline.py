"""The command `evofool baseline`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import Classes, Seed, Streams, class_ids
from evofool.errors import RecipeError, ScoreError
from evofool.printer import print_lines, status

if TYPE_CHECKING:
    from evofool.attacks.session import AttackProgress

METHOD = typer.Argument(
    metavar="METHOD", help="nguyen, simonyan, erhan, inceptionism, fourier, maco, apgd; square, nes, random, noise."
)
TARGET = typer.Argument(metavar="TARGET", help="The classifier, as `evofool targets list` names it.")
OUT = typer.Option(
    metavar="RUN", help="Folder of the run; runs/METHOD-TARGET by default. A run that was begun there is continued."
)
BUDGET = typer.Option(min=0, help="Forward passes for each class; 0: the published number.")
TARGET_CONFIDENCE = typer.Option(
    help="Stop a class when its 8-bit image reaches this confidence; 1: spend the whole budget."
)
RANK = typer.Option(metavar="log_odds|margin", help="The score by which the best image of a class is chosen: the highest.")
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method: --set setting=l2, --set restarts=5.")
THREADS = typer.Option(min=1, help="Torch threads of one pass.")


def baseline(
    method: Annotated[str, METHOD],
    target: Annotated[str, TARGET] = "lenet",
    classes: Classes = None,
    out: Annotated[Path | None, OUT] = None,
    budget: Annotated[int, BUDGET] = 0,
    target_confidence: Annotated[float, TARGET_CONFIDENCE] = 1.0,
    rank: Annotated[str, RANK] = "log_odds",
    changes: Annotated[list[str] | None, CHANGES] = None,
    seed: Seed = 0,
    threads: Annotated[int, THREADS] = 1,
    streams: Streams = 0,
) -> None:
    """Make one fooling image for each class by a published method.

    With gradients: nguyen (setting=plain, l2, blur or sparse), simonyan, erhan, inceptionism, fourier and maco (made to be
    recognisable), apgd (Auto-PGD). Without gradients, for black boxes too: square, nes, random (random search), and noise
    (one image per class, a control). The result is a run: it can be shown, exported and verified like any other, and
    evolution can start from it (evofool run RECIPE --parents RUN). Its curve counts forward passes. Ctrl-C saves the
    finished classes, and the same command continues.
    """
    from evofool.attacks.run import METHODS, AttackPlan, run_baseline
    from evofool.cli.console import interrupts, report
    from evofool.cli.console_attacks import progress_text
    from evofool.export.image_file import file_name
    from evofool.recipe import override
    from evofool.targets import target as load_target

    if method not in METHODS:
        listed = [f"  {name:<13}{row.what}" for name, row in METHODS.items()]
        raise RecipeError(f'there is no baseline "{method}"; there are', *listed)
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
        start = f"Continuing {folder} at {done} of {len(settled.classes)} classes" if done else f"New run in {folder}"
        shown = ", ".join(f"{k}={v}" for k, v in settled.settings.items())
        passes = f"{settled.budget:,} forward pass{'es' if settled.budget > 1 else ''} a class"
        limit = passes if settled.budget else "its published budget"
        print_lines(f"{start}: {method} against {found.name} ({len(settled.classes)} classes), seed {seed}, {limit}")
        if shown:
            print_lines(f"  settings {shown}")

    with interrupts("Stopping; the finished classes are saved ...") as interrupted, status() as show_status:

        def tick(p: "AttackProgress") -> bool:
            show_status(lambda: progress_text(p))
            return bool(interrupted)

        outcome = run_baseline(plan, found, folder, streams, begun, tick)
    for note in outcome.notes:
        print_lines(f"Warning: {note}.")
    if not outcome.done:
        print_lines("Stopped before the first classes were finished; nothing was saved. The same command starts again.")
        raise typer.Exit(130)
    if not outcome.images:
        raise ScoreError(
            f"{folder}: none of {outcome.done} classes has an image, because the outputs of {found.name} are not finite"
        )
    report(folder, None)
    if outcome.done < outcome.classes:
        print_lines(f"Stopped after {outcome.done} of {outcome.classes} classes. The same command continues.")
        raise typer.Exit(130)
