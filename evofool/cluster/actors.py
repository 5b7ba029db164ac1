"""Actors of workers. Some may be started before they are needed: a process takes seconds to import what it needs."""

import threading
from typing import Any

import ray

from evofool.cluster.session import ask
from evofool.cluster.settings import RayOptions

STARTING = threading.Lock()
"""Held by a thread that is starting spare actors; new_actor() waits for it."""
_SPARE: list[tuple[RayOptions, Any]] = []


def new_actor(options: RayOptions) -> Any:
    """An actor that no other worker uses."""
    with STARTING:
        spare = next((pair for pair in _SPARE if pair[0] == options), None)
        if spare:
            _SPARE.remove(spare)
            return spare[1]
    return _start(options)


def start_spare(options: RayOptions, number: int) -> None:
    """Start actors that new_actor() takes. STARTING has to be held."""
    for _ in range(number):
        _SPARE.append((options, ask(lambda: _start(options))))


def end_spare() -> None:
    """End the actors that nobody has taken."""
    while _SPARE:
        _, actor = _SPARE.pop()
        ask(lambda: ray.kill(actor))  # noqa: B023


def _start(options: RayOptions) -> Any:
    from evofool.cluster.worker import Worker  # PyTorch, which Ray is not to wait for

    return ray.remote(Worker).options(**options.remote_options(), max_restarts=0).remote()
