"""The number format of a search on a machine that lacks its device: a worker tries them."""

import os
import time
from contextlib import suppress

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from evofool.cluster.room import shortage_text
from evofool.cluster.session import ask, connect, disconnect, ready, result
from evofool.cluster.settings import RayOptions
from evofool.errors import EvofoolError, RecipeError, TargetError
from evofool.targets import target
from evofool.targets.speed import FormatChoice, choose_format

_TIMEOUT = 300.0  # seconds that a worker may take to start and to try number formats
_POLL = 1.0  # seconds


def choose_on_worker(spec: str, chunk: int, threads: int, options: RayOptions) -> FormatChoice:
    """targets.speed.choose_format, run as a worker: for a search on a machine that lacks the device."""
    connect(options, 1)
    try:
        task = ray.remote(_choose).options(**options.remote_options(), max_retries=options.retries)
        answer = ask(lambda: task.remote(spec, chunk, threads, os.getcwd()))
        end = time.monotonic() + _TIMEOUT
        while not ready([answer], _POLL):
            if time.monotonic() > end:
                with suppress(RayError):
                    ask(lambda: ray.cancel(answer, force=True))
                raise RecipeError(
                    f"no worker has tried the number formats of {spec} in {_TIMEOUT:g} s "
                    f"({ask(lambda: shortage_text(options))}). Name a format, as in --set compute.format=bfloat16"
                )
        return result(answer)
    except RayTaskError as error:
        if isinstance(error.cause, EvofoolError):
            raise type(error.cause)(*error.cause.args) from None
        raise TargetError(f"{spec}: a worker cannot try its number formats: {error.cause}") from None
    except RayError as error:
        raise TargetError(f"{spec}: a worker cannot try its number formats ({type(error).__name__})") from None
    finally:
        disconnect()


def _choose(spec: str, chunk: int, threads: int, folder: str) -> FormatChoice:
    with suppress(OSError):
        os.chdir(folder)
    torch.set_num_threads(threads)
    return choose_format(target(spec), chunk)
