"""Starts Ray beside other work, so that a search with workers begins sooner."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from evofool.cluster.session import connect, disconnect, is_awaited
from evofool.cluster.settings import RayOptions
from evofool.errors import EvofoolError

_PATIENCE = 5.0  # seconds that a start may take to end after an error; then it is left alone


@contextmanager
def started_ahead(options: RayOptions, workers: int) -> Iterator[None]:
    """Start a Ray on this machine while the caller loads and validates a target; connect() waits until it has started.

    If the caller does not wait for it yet, as many of its processes as there are processors also import what workers need:
    more at once would make the first one late. If Ray cannot be started, the next connect() raises the error. At the end
    Ray is shut down if nothing else has connected.
    """
    if options.address != "local" or not workers:
        yield
        return
    connected: list[bool] = []
    over, done = threading.Event(), threading.Event()

    def start() -> None:
        try:
            connect(options, workers)
            connected.append(True)
            if not over.is_set() and not is_awaited():
                imports = ray.remote(_import_worker).options(**options.remote_options())
                for _ in range(min(workers, os.cpu_count() or 1)):
                    imports.remote()
        except (EvofoolError, RayError):
            pass
        finally:
            done.set()

    threading.Thread(target=start, daemon=True).start()
    patience: float | None = None
    try:
        yield
    except BaseException:
        patience = _PATIENCE  # Ctrl-C does not wait for a start that hangs
        raise
    finally:
        over.set()
        done.wait(patience)
        if connected:
            disconnect()


def _import_worker() -> None:
    """In a process of Ray, which becomes a worker afterwards."""
    import evofool.cluster.worker  # noqa: F401
