"""Starts Ray and workers beside other work, so that a search with workers begins sooner."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ray.exceptions import RayError

from evofool.cluster.actors import STARTING, end_spare, start_spare
from evofool.cluster.session import connect, disconnect
from evofool.cluster.settings import RayOptions
from evofool.errors import EvofoolError

_PATIENCE = 5.0  # seconds that a start may take to end after an error; then it is left alone


@contextmanager
def started_ahead(options: RayOptions, workers: int) -> Iterator[None]:
    """Start a Ray on this machine while the caller loads and validates a target; connect() waits until it has started.

    As many workers' processes as there are processors are started too: more at once would make the first one late. If Ray
    cannot be started, the next connect() raises the error. At the end Ray is shut down if nothing else has connected.
    """
    if options.address != "local" or not workers:
        yield
        return
    connected: list[bool] = []
    over, done = threading.Event(), threading.Event()

    def start() -> None:
        try:
            with STARTING:
                connect(options, workers)
                connected.append(True)
                if not over.is_set():
                    start_spare(options, min(workers, os.cpu_count() or 1))
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
            with suppress(EvofoolError, RayError):
                end_spare()
            disconnect()
