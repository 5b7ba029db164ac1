"""The command `evofool gate`."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.errors import EvofoolError, RecipeError
from evofool.printer import print_lines, status

if TYPE_CHECKING:
    from evofool.bench.gate.gate import GateOptions
    from evofool.bench.gate.gate_verdict import GateVerdict, Status
    from evofool.sweep.runner import WorkProgress

TARGET = typer.Argument(metavar="TARGET", help="The classifier, as `evofool targets list` names it.")
RESULTS = typer.Argument(
    metavar="[RESULT.json]...", help="With --against: results of more trainings of the same network.", show_default=False
)
AGAINST = typer.Option(
    metavar="RESULT.json",
    help="A result of `evofool bench`, or several, of networks that were trained alike: fail if it is shown that the target "
    "became easier to fool.",
)
STRICT = typer.Option(
    "--strict", help="With --against: fail unless it is shown that the target did not become easier to fool."
)
ACCEPT = typer.Option(
    metavar="RULE", help="The target's acceptance rule in production: 'p>=0.9', 'margin>=3' or 'log_odds>=2'."
)
SHARE = typer.Option(
    "--max-fooled", min=0.0, max=1.0, help="With --accept: the largest share of classes that may be fooled."
)
BUDGET = typer.Option(min=1, help="With --accept: queries of all classes together.")
ARMS = typer.Option(
    metavar="ARM,ARM",
    help="With --accept: the attacks, by default cppn,random,apgd; white-box arms are left out for a black box. With "
    "--against: the arms of the result that are measured and decide; by default all are measured, and apgd decides.",
)
SURROGATES = typer.Option(
    "--surrogate",
    metavar="SPEC",
    help="Another network whose gradients the arm surrogate climbs; may be repeated. With --against, where those of the "
    "result are now.",
)
SEEDS = typer.Option(min=1, help="With --accept: the number of seeds.")
IMAGES = typer.Option(metavar="DIR", help="Labelled real images, or digits; with --against the images of the result.")
OUT = typer.Option(metavar="DIR", help="Folder of the cells; runs/gate-TARGET by default. The same command continues there.")
_SHOWN: "dict[Status, str]" = {"informs": "INFO", "passes": "PASS", "fails": "FAIL", "invalid": "INVALID"}

WORKERS = typer.Option(
    min=0, help="Run cells in parallel in this number of Ray processes; 0: one after the other, in this process."
)
JUNIT = typer.Option(metavar="FILE", help="Write JUnit XML for a CI system.")
METRICS = typer.Option(metavar="FILE", help="Write the figures as OpenMetrics text, for GitLab's metrics reports.")
MARKDOWN = typer.Option(metavar="FILE", help="Write a summary in Markdown; an existing file is appended to.")


def gate(
    context: typer.Context,
    target: Annotated[str, TARGET],
    results: Annotated[list[Path] | None, RESULTS] = None,
    against: Annotated[list[Path] | None, AGAINST] = None,
    strict: Annotated[bool, STRICT] = False,
    accept: Annotated[str | None, ACCEPT] = None,
    max_fooled: Annotated[float, SHARE] = 0.5,
    budget: Annotated[int | None, BUDGET] = None,
    arms: Annotated[str | None, ARMS] = None,
    surrogate: Annotated[list[str] | None, SURROGATES] = None,
    seeds: Annotated[int, SEEDS] = 3,
    images: Annotated[str | None, IMAGES] = None,
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int, WORKERS] = 0,
    junit: Annotated[Path | None, JUNIT] = None,
    markdown: Annotated[Path | None, MARKDOWN] = None,
    metrics: Annotated[Path | None, METRICS] = None,
) -> None:
    """Fail a CI build whose classifier is too easily fooled. Exit status 0: passed, 1: failed, 2: invalid evaluation.

    --against RESULT.json measures the target by the protocol of an earlier result. It fails if it is shown (95%) that
    fooling a class takes less than 0.75 times the queries of before. With results of several trainings of the network it
    also has to take fewer than one more training would, since networks that are trained alike differ by chance. With
    --strict it fails unless it is shown that it takes at least 0.75 times the queries; if the results have too few seeds
    to show this, the gate says how many it needs and is invalid.

    --accept RULE attacks the target with --budget queries and fails if more than --max-fooled (a share, 0 to 1) of the
    classes have an image that satisfies RULE.
    """
    from evofool.bench.gate.gate import GateOptions, invalid, run_gate
    from evofool.bench.gate.outputs import GateOutputs
    from evofool.cli.console import interrupts
    from evofool.errors import Interrupted

    outputs = GateOutputs(junit, markdown, metrics)
    options = GateOptions(
        target=target,
        against=[*(against or []), *(results or [])] if against else [],
        strict=strict,
        accept=accept,
        max_fooled=max_fooled,
        budget=budget,
        arms=None if arms is None else [arm.strip() for arm in arms.split(",") if arm.strip()],
        surrogates=surrogate or [],
        seeds=seeds,
        images=images,
        folder=out,
        workers=workers,
    )
    with interrupts("Saving the unfinished cells ...") as interrupted, status() as show_status:

        def on_progress(p: "WorkProgress") -> bool:
            from evofool.cli.console_jobs import progress_text

            with suppress(BrokenPipeError):  # nobody reads the progress; the exit status still counts
                show_status(lambda: progress_text(p, "cell"))
            return bool(interrupted)

        try:
            outputs.begin(target)
            _refuse_ignored(context, options, results or [])
            verdict = run_gate(options, on_progress)
        except Interrupted:
            print_lines("Interrupted; finished cells are saved. The same command continues.")
            raise typer.Exit(130) from None
        except EvofoolError as error:
            verdict = invalid(target, error)
    unwritten = outputs.end(verdict)
    try:
        _print(verdict)
        for fault in unwritten:
            if all(fault not in check.message for check in verdict.checks):
                print_lines(f"evofool: {fault}", error=True)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(2 if unwritten else verdict.exit_status)


def _refuse_ignored(context: typer.Context, options: "GateOptions", results: Sequence[Path]) -> None:
    """RecipeError for what the form of the gate that was asked for would ignore."""
    if results and not options.against:
        raise RecipeError("results are for --against, not for --accept")
    for name in ("max_fooled", "budget", "seeds") if options.against else ():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise RecipeError(f"--{name.replace('_', '-')} is for --accept; --against uses the settings of the result")


def _print(verdict: "GateVerdict") -> None:
    for number, line in enumerate(verdict.headline):
        print_lines(f"  {line}" if number else line)
    for check in verdict.checks:
        print_lines(f"{_SHOWN[check.status]:<8} {check.name}: {check.message}")
    for note in verdict.notes:
        print_lines(f"Note: {note}")
    print_lines(f"The gate of {verdict.target}: {_SHOWN[verdict.status]} (exit status {verdict.exit_status})")
