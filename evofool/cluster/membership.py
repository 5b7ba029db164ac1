"""This process in a Ray: joining a cluster or starting one, what a worker reserves there, and parting again."""

import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from evofool.errors import EvofoolError, RecipeError, TargetError
from evofool.targets import target
from evofool.targets.speed import Choice, choose

_STORE_BYTES = 1 << 29  # shared memory of a Ray of our own: what travels is small
_CONNECT = 10.0  # seconds until nobody answers
_CHOICE = 300.0  # seconds that a worker may take to begin and to try number formats


@dataclass
class _Membership:
    """This process in a Ray: how many evaluators use it, and whether one of them joined or started it."""

    users: int = 0
    ours: bool = False


_MEMBERSHIP = _Membership()


def connect(address: str, workers: int, cpus: float, environment: dict[str, Any]) -> None:
    """Join a Ray cluster, or start one of our own on this machine; whoever does so has to leave().

    One that this process has joined already is used as it is. RecipeError if the address cannot be reached.
    """
    if ray.is_initialized():
        _MEMBERSHIP.users += 1
        return
    # What Ray would send home, and a warning about devices that it hides from actors without GPUs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What a lost worker was asked is asked again: what became of its answers is of no interest.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    quiet["runtime_env"] = _lists(environment) or None
    try:
        if address not in ("local", "auto"):
            # Ray itself would go on trying for minutes.
            knock(address)
        if address == "local":
            ray.init(
                address="local",
                num_cpus=max(1, ceil(workers * cpus)),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError):
            words = (
                f"no Ray answers there ({words}); start one with `ray start --head`, or take --ray local. One that has a "
                "token wants RAY_AUTH_MODE=token here"
            )
        raise RecipeError(f'compute.ray.address "{address}": {words}') from None
    _MEMBERSHIP.users += 1
    _MEMBERSHIP.ours = True


def knock(address: str) -> None:
    """OSError if nobody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()


def leave() -> None:
    """The last one to leave a Ray that was joined, or started, here parts from it, or ends it."""
    _MEMBERSHIP.users -= 1
    if _MEMBERSHIP.ours and not _MEMBERSHIP.users:
        _MEMBERSHIP.ours = False
        ray.shutdown()


def choose_there(
    spec: str,
    chunk: int,
    threads: int,
    *,
    address: str,
    cpus: float,
    gpus: float,
    memory: float,
    resources: dict[str, float],
    placement: str,
    environment: dict[str, Any],
) -> Choice:
    """targets.speed.choose, where a worker would be: for a search on a machine that lacks the device."""
    connect(address, 1, cpus, environment)
    try:
        chooser = ray.remote(_choose).options(**reserved(cpus, gpus, memory, resources, placement, environment))
        answer = chooser.remote(spec, chunk, threads, os.getcwd())
        came, _ = ray.wait([answer], timeout=_CHOICE)
        if not came:
            raise RecipeError(
                f"no worker has tried the number formats of {spec} in {_CHOICE:g} s: it asks for "
                f"{in_words({'CPU': cpus, 'GPU': gpus, 'memory': memory * 2**30, **resources})}, free are "
                f"{in_words(ray.available_resources()) or 'none'}. Name one, as in --set compute.format=bfloat16"
            )
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, EvofoolError):
            raise type(error.cause)(*error.cause.args) from None
        raise TargetError(f"{spec}: a worker cannot try its number formats: {error.cause}") from None
    except RayError as error:
        raise TargetError(f"{spec}: a worker cannot try its number formats ({type(error).__name__})") from None
    finally:
        leave()


def _choose(spec: str, chunk: int, threads: int, folder: str) -> Choice:
    with suppress(OSError):
        os.chdir(folder)
    torch.set_num_threads(threads)
    return choose(target(spec), chunk)


def reserved(
    cpus: float, gpus: float, memory: float, resources: dict[str, float], placement: str, environment: dict[str, Any]
) -> dict[str, Any]:
    """What a worker reserves, in Ray's words."""
    options: dict[str, Any] = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "resources": resources or None,
        "scheduling_strategy": placement,
    }
    if memory:
        options["memory"] = int(memory * 2**30)
    if environment:
        options["runtime_env"] = _lists(environment)
    return options


def _lists(value: Any) -> Any:
    """Plain data with its tuples as lists, which is what Ray wants."""
    if isinstance(value, dict):
        return {key: _lists(one) for key, one in value.items()}
    return [_lists(one) for one in value] if isinstance(value, tuple) else value


def in_words(amounts: Mapping[str, float]) -> str:
    """What Ray counts, in words; memory, which it counts in bytes, in GiB."""
    shown = {k: v for k, v in sorted(amounts.items()) if v and not k.startswith(("node:", "object_store"))}
    return ", ".join(f"{v / 2**30:,.0f} GiB of memory" if k == "memory" else f"{v:g} {k}" for k, v in shown.items())
