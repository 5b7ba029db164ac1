"""The command `evofool gate`."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.errors import EvofoolError, RecipeError
from evofool.printer import print_lines, print_traceback, status

if TYPE_CHECKING:
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
_ACCEPT_ARMS = ("cppn", "random", "apgd")
_SHOWN: "dict[Status, str]" = {"informs": "INFO", "passes": "PASS", "fails": "FAIL", "invalid": "INVALID"}

WORKERS = typer.Option(
    min=0, help="Run cells in parallel in this number of Ray processes; 0: one after the other, in this process."
)
JUNIT = typer.Option(metavar="FILE", help="Write JUnit XML for a CI system.")
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
    from evofool.bench.gate.gate_verdict import Check, GateVerdict
    from evofool.bench.gate.outputs import GateOutputs
    from evofool.cli.console import interrupts
    from evofool.errors import Interrupted

    outputs, began = GateOutputs(junit, markdown), time.perf_counter()
    with interrupts("Saving the unfinished cells ...") as interrupted:
        # Any error ends in status 2 and a report of the cause, so that a build cannot mistake it for a result.
        try:
            outputs.begin(target)
            with status() as show_status:

                def on_progress(p: "WorkProgress") -> bool:
                    from evofool.cli.console_jobs import progress_text

                    with suppress(BrokenPipeError):  # nobody reads the progress; the exit status still counts
                        show_status(lambda: progress_text(p, "cell"))
                    return bool(interrupted)

                if (not against) == (accept is None):
                    raise RecipeError("give one of --against RESULT.json and --accept RULE, for example --accept 'p>=0.9'")
                if against and target.endswith(".json"):
                    raise RecipeError(
                        f"{target} is no target: name it first, as in evofool gate TARGET --against A.json B.json"
                    )
                folder = out or _folder(target)
                named = _named(arms)
                if against:
                    from evofool.bench.gate.against_result import AgainstRule
                    from evofool.bench.gate.against_result import against as easier
                    from evofool.bench.result_file import load_result

                    _refuse_given(context, "max_fooled", "budget", "seeds")
                    last = [load_result(path) for path in [*against, *(results or [])]]
                    rule = AgainstRule(strict, named)
                    verdict = easier(target, last, images, folder, rule, on_progress, workers, surrogate or [])
                else:
                    from evofool.bench.gate.acceptance import parse_acceptance_rule
                    from evofool.bench.gate.at_threshold import GateAttacks, threshold

                    if results or strict:
                        raise RecipeError(f"{'--strict is' if strict else 'results are'} for --against, not for --accept")
                    if budget is None:
                        raise RecipeError(
                            "--accept needs --budget: the number of queries of an attack, of all classes together"
                        )
                    verdict = threshold(
                        target,
                        parse_acceptance_rule(accept or ""),
                        GateAttacks(_ACCEPT_ARMS if arms is None else named, budget, seeds, surrogate or []),
                        max_fooled=max_fooled,
                        folder=folder,
                        images=images,
                        on_progress=on_progress,
                        workers=workers,
                    )
        except Interrupted:
            print_lines("Interrupted; finished cells are saved. The same command continues.")
            raise typer.Exit(130) from None
        except (Exception, SystemExit) as error:  # a target's code may raise SystemExit
            check = Check("options" if isinstance(error, RecipeError) else "evaluation", "invalid", _error_text(error))
            verdict = GateVerdict(target, [check], time.perf_counter() - began)
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


def _folder(target: str) -> Path:
    from evofool.export.export import file_name

    return Path("runs") / f"gate-{file_name(target.partition('?')[0]).lower()}"


def _named(arms: str | None) -> list[str]:
    return [arm.strip() for arm in (arms or "").split(",") if arm.strip()]


def _refuse_given(context: typer.Context, *names: str) -> None:
    """RecipeError for an option that --against would ignore, because it takes it from the result."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise RecipeError(f"--{name.replace('_', '-')} is for --accept; --against uses the settings of the result")


def _error_text(error: BaseException) -> str:
    if isinstance(error, EvofoolError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is missing; install evofool again with pip"
    if isinstance(error, MemoryError):
        return "out of memory"
    if os.environ.get("EVOFOOL_TRACEBACK"):
        print_traceback(error)
    return f"{type(error).__name__}: {error}. This is a bug in evofool or in the target; EVOFOOL_TRACEBACK=1 shows where"


def _print(verdict: "GateVerdict") -> None:
    for check in verdict.checks:
        print_lines(f"{_SHOWN[check.status]:<8} {check.name}: {check.message}")
    for note in verdict.notes:
        print_lines(f"Note: {note}")
    print_lines(f"The gate of {verdict.target}: {_SHOWN[verdict.status]} (exit status {verdict.exit_status})")
