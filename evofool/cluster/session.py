"""This process's session with Ray: joining a cluster or starting one, what is free there, and leaving."""

import logging
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from evofool.cluster.settings import RayOptions, amounts_text
from evofool.errors import EvofoolError, RecipeError, TargetError
from evofool.targets import target
from evofool.targets.speed import FormatChoice, choose_format

_OBJECT_STORE_BYTES = 1 << 29  # of a Ray that is started here; messages are small
_CONNECT_TIMEOUT = 10.0  # seconds
_CHOICE_TIMEOUT = 300.0  # seconds that a worker may take to start and to try number formats


@dataclass
class _Session:
    """users: evaluators and task pools that use Ray. owned: one of them joined or started it."""

    users: int = 0
    owned: bool = False


_SESSION = _Session()
_CONNECTING = threading.Lock()


def connect(options: RayOptions, workers: int) -> None:
    """Join a Ray cluster, or start one on this machine; each caller has to call disconnect().

    A cluster that this process has joined already is used as it is, and one that another thread is joining is waited for.
    RecipeError if the address cannot be reached.
    """
    with _CONNECTING:
        _connect(options, workers)


def _connect(options: RayOptions, workers: int) -> None:
    if ray.is_initialized():
        _SESSION.users += 1
        return
    # No usage statistics, and no warning about devices that Ray hides from actors without GPUs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A lost worker's calls are repeated: errors of its abandoned answers are not reported.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    quiet["runtime_env"] = options.runtime_env()
    address = options.address
    try:
        if address not in ("local", "auto"):
            # Ray itself would keep trying for minutes.
            ping(address)
        if address == "local":
            ray.init(
                address="local",
                num_cpus=max(1, ceil(workers * options.cpus)),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError):
            reason = (
                f"no Ray answers there ({reason}); start one with `ray start --head`, or use --ray local. A cluster that "
                "requires a token needs RAY_AUTH_MODE=token here"
            )
        raise RecipeError(f'compute.ray.address "{address}": {reason}') from None
    _SESSION.users += 1
    _SESSION.owned = True


def ping(address: str) -> None:
    """OSError if nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()


def disconnect() -> None:
    """End one use of Ray; the last one leaves a cluster that was joined here, and shuts down one that was started here."""
    _SESSION.users -= 1
    if _SESSION.owned and not _SESSION.users:
        _SESSION.owned = False
        ray.shutdown()


def shortage_text(options: RayOptions) -> str:
    """What each worker needs and what the cluster has available, for a message."""
    available = amounts_text(ray.available_resources())
    return f"each needs {amounts_text(options.requested()) or 'nothing'}, available: {available or 'nothing'}"


def choose_on_worker(spec: str, chunk: int, threads: int, options: RayOptions) -> FormatChoice:
    """targets.speed.choose_format, run as a worker: for a search on a machine that lacks the device."""
    connect(options, 1)
    try:
        answer = ray.remote(_choose).options(**options.remote_options()).remote(spec, chunk, threads, os.getcwd())
        ready, _ = ray.wait([answer], timeout=_CHOICE_TIMEOUT)
        if not ready:
            raise RecipeError(
                f"no worker has tried the number formats of {spec} in {_CHOICE_TIMEOUT:g} s ({shortage_text(options)}). "
                "Name a format, as in --set compute.format=bfloat16"
            )
        return ray.get(answer)
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
