"""A gate, from what its user asks to the verdict."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evofool.bench.acceptance_rule import parse_acceptance_rule
from evofool.bench.gate.against_arms import searching_arms
from evofool.bench.gate.against_result import AgainstRule, against
from evofool.bench.gate.at_threshold import GateAttacks, threshold
from evofool.bench.gate.earlier import read_earlier
from evofool.bench.gate.gate_verdict import Check, GateVerdict
from evofool.bench.result_file import load_result
from evofool.errors import EvofoolError, Interrupted, RecipeError
from evofool.export.image_file import file_name
from evofool.printer import print_traceback
from evofool.sweep.runner import OnProgress

ACCEPT_ARMS = ("cppn", "random", "apgd")
"""The attacks of a gate with a rule of acceptance, unless others are named."""


@dataclass(frozen=True)
class GateOptions:
    """What is asked of a gate: either `against`, paths of earlier results, or `accept`, a rule, with a budget.

    arms: None for the default ones. folder: None for runs/gate-TARGET. The rest is as `evofool gate --help` says.
    """

    target: str
    against: Sequence[Path] = ()
    strict: bool = False
    accept: str | None = None
    max_fooled: float = 0.5
    budget: int | None = None
    arms: Sequence[str] | None = None
    surrogates: Sequence[str] = ()
    seeds: int = 3
    images: str | None = None
    folder: Path | None = None
    workers: int = 0


def run_gate(options: GateOptions, on_progress: OnProgress = lambda _: False) -> GateVerdict:
    """The verdict. Any error becomes an invalid check, so that a build cannot mistake it for a result.

    Interrupted if on_progress returns True.
    """
    began = time.perf_counter()
    try:
        return _verdict(options, on_progress)
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:  # a target's code may raise SystemExit
        return invalid(options.target, error, time.perf_counter() - began)


def invalid(target: str, error: BaseException, seconds: float = 0.0) -> GateVerdict:
    """The verdict on a target that could not be evaluated because of an error.

    With EVOFOOL_TRACEBACK the traceback of an error that is no EvofoolError is printed.
    """
    check = Check("options" if isinstance(error, RecipeError) else "evaluation", "invalid", _error_text(error))
    return GateVerdict(target, [check], seconds)


def arms_of(options: GateOptions) -> list[str]:
    """The arms that a gate will check: those that are named, or the results', or the default ones.

    RecipeError or StoreError if the results cannot be read.
    """
    if options.arms is not None:
        return list(options.arms)
    if options.against:
        return searching_arms(read_earlier([load_result(path) for path in options.against]))
    return list(ACCEPT_ARMS)


def _verdict(options: GateOptions, on_progress: OnProgress) -> GateVerdict:
    if bool(options.against) == (options.accept is not None):
        raise RecipeError("give one of --against RESULT.json and --accept RULE, for example --accept 'p>=0.9'")
    folder = options.folder or Path("runs") / f"gate-{file_name(options.target.partition('?')[0]).lower()}"
    if options.against:
        if options.target.endswith(".json"):
            raise RecipeError(
                f"{options.target} is no target: name it first, as in evofool gate TARGET --against A.json B.json"
            )
        return against(
            options.target,
            [load_result(path) for path in options.against],
            options.images,
            folder,
            AgainstRule(options.strict, options.arms or ()),
            on_progress,
            options.workers,
            options.surrogates,
        )
    if options.strict:
        raise RecipeError("--strict is for --against, not for --accept")
    if not 0 <= options.max_fooled <= 1:
        raise RecipeError(
            f"the largest share of classes that may be fooled has to be from 0 to 1, not {options.max_fooled:g}"
        )
    if options.seeds < 1 or (options.budget is not None and options.budget < 1):
        raise RecipeError(f"seeds ({options.seeds}) and budget ({options.budget}) have to be at least 1")
    if options.budget is None:
        raise RecipeError("--accept needs --budget: the number of queries of an attack, of all classes together")
    arms = ACCEPT_ARMS if options.arms is None else options.arms
    return threshold(
        options.target,
        parse_acceptance_rule(options.accept or ""),
        GateAttacks(arms, options.budget, options.seeds, options.surrogates),
        max_fooled=options.max_fooled,
        folder=folder,
        images=options.images,
        on_progress=on_progress,
        workers=options.workers,
    )


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
