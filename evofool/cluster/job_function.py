"""Calling the function of a job: its result, or a JobFailure that says why there is none. Independent of Ray."""

import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evofool.errors import EvofoolError, Interrupted

JobFunction = Callable[..., Any]


@dataclass(frozen=True)
class JobFailure:
    """The outcome of a job that has no result.

    kind "error": it raised an EvofoolError of class `name` with this message, or ran out of memory; also a StoreError if its
    folder cannot be read, or the files that its worker sent cannot be written. "died": its workers died, one after another.
    "fault": it raised another exception, of class `name`; message says where.
    """

    kind: str
    message: str
    name: str = ""


@dataclass(frozen=True)
class RunningJob:
    """A job that is being done.

    node: the name of the machine. attempt: how many workers had it before, and died. first, last: the first and the last
    report of this attempt, None before there is one, and seconds between them.
    """

    node: str
    attempt: int = 0
    first: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    seconds: float = 0.0


def call_job(name: str, job: Mapping[str, Any], on_progress: Callable[[Mapping[str, Any]], bool]) -> Any:
    """The result of the job, None if it was interrupted, or a JobFailure for the exception that it raised."""
    try:
        function = _function(name)
        reports = "on_progress" in inspect.signature(function).parameters
        return function(job, on_progress=on_progress) if reports else function(job)
    except Interrupted:
        return None
    except EvofoolError as error:
        return failure_of(error)
    except MemoryError:
        return JobFailure("error", "out of memory", "MemoryError")
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}, line {last.lineno})"
        return JobFailure("fault", message, type(error).__name__)


def failure_of(error: EvofoolError) -> JobFailure:
    return JobFailure("error", str(error), type(error).__name__)


def name_of(function: str | JobFunction) -> str:
    """package.module:function; an assertion fails if a worker could not import the function by that name."""
    name = function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"
    found = _function(name)
    assert found is function or isinstance(function, str), f"{name} is another function"
    return name


def _function(name: str) -> JobFunction:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
