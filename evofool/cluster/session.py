"""This process's session with Ray: joining a cluster or starting one, calls that cannot hang, and leaving."""

import atexit
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

import ray

from evofool.cluster.settings import RayOptions
from evofool.cluster.watch import ClusterWatch, HelperThread
from evofool.errors import ClusterError, RecipeError

_OBJECT_STORE_BYTES = 1 << 29  # of a Ray that is started here; messages are small
_PING = 10.0  # seconds
_JOIN = 25.0  # seconds to join a cluster; Ray ends this process after 30 if the node here does not answer
_START = 180.0  # seconds to start a Ray here
TRANSFER = 600.0  # seconds that a call may take which sends or fetches a folder's files
_ANSWER = 30.0  # seconds that a call may take by default
_LEAVE = 20.0  # seconds to leave a cluster, or to end the one that was started here
_LEAVE_LOST = 5.0  # the same, if the cluster is lost

T = TypeVar("T")


@dataclass
class _Session:
    """users: evaluators and task pools that use Ray. owned: one of them joined or started it.

    abandoned: why this process cannot use Ray any more, which hangs in a thread of it; "" if it can.
    """

    users: int = 0
    owned: bool = False
    watch: ClusterWatch | None = None
    thread: HelperThread | None = None  # in which Ray is started and ended
    abandoned: str = ""
    silence: ExitStack = field(default_factory=ExitStack)


_SESSION = _Session()
_CONNECTING = threading.Lock()


def connect(options: RayOptions, workers: int) -> None:
    """Join a Ray cluster, or start one on this machine; each caller has to call disconnect().

    A cluster that this process has joined already is used as it is, and one that another thread is joining is waited for.
    RecipeError if the address cannot be reached; ClusterError if Ray does not answer in time.
    """
    with _CONNECTING:
        _connect(options, workers)


def _connect(options: RayOptions, workers: int) -> None:
    if _SESSION.abandoned:
        raise ClusterError(f"Ray cannot be used any more by this process ({_SESSION.abandoned}); start the command again")
    if not ray.is_initialized():
        _SESSION.silence.enter_context(_silence())
        try:
            _start_or_join(options, workers)
        except BaseException:
            _SESSION.silence.close()
            raise
        _SESSION.owned = True
    if _SESSION.watch is None:
        _SESSION.watch = ClusterWatch()
    _SESSION.users += 1


def ping(address: str) -> None:
    """OSError if nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _PING).close()


def ask(what: Callable[[], T], seconds: float = _ANSWER) -> T:
    """what(), a call of Ray. ClusterError if the cluster is lost, or does not answer in so many seconds."""
    return _watch().call(what, seconds)


def owns_cluster() -> bool:
    """Whether connect() has started the cluster, with room for every worker and no other user."""
    return _SESSION.owned and _watch().own


def check_cluster() -> None:
    """ClusterError if the cluster is lost."""
    _watch().check()


def result(answer: Any, seconds: float = _ANSWER) -> Any:
    """ray.get of a ray.ObjectRef that is ready."""
    return ask(lambda: ray.get(answer), seconds)


def ready(answers: Sequence[Any], seconds: float, enough: int = 1) -> list[Any]:
    """ray.wait: those of some ray.ObjectRefs that are ready, once there are enough of them or the time is up."""
    wanted = min(enough, len(answers))
    return ask(lambda: ray.wait(list(answers), num_returns=wanted, timeout=seconds), seconds + _ANSWER)[0]


def disconnect() -> None:
    """End one use of Ray; the last one leaves a cluster that was joined here, and shuts down one that was started here."""
    _SESSION.users -= 1
    if _SESSION.users:
        return
    watch, _SESSION.watch = _watch(), None
    watch.close()
    if _SESSION.owned:
        _SESSION.owned = False
        _leave(watch)
        _SESSION.silence.close()


def abandoned() -> bool:
    """Whether Ray hangs in this process, which then has to end by end_process."""
    return bool(_SESSION.abandoned)


def end_process(status: int) -> None:
    """End this process at once, without what Python and Ray do at the end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


# -- inside


def _watch() -> ClusterWatch:
    assert _SESSION.watch is not None, "connect() comes first"
    return _SESSION.watch


def _start_or_join(options: RayOptions, workers: int) -> None:
    # No usage statistics, and no warning about devices that Ray hides from actors without GPUs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A lost worker's calls are repeated: errors of its abandoned answers are not reported.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # A Ray that is started here would wait for its first processes with Python's lock held, without end if they hang.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    settings: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    settings |= {"address": options.address, "runtime_env": options.runtime_env()}
    if options.address == "local":
        settings |= {"num_cpus": max(1, ceil(workers * options.cpus)), "include_dashboard": False}
        settings["object_store_memory"] = _OBJECT_STORE_BYTES
    try:
        if options.address not in ("local", "auto"):
            # Ray itself would keep trying for minutes.
            ping(options.address)
        if options.address == "local":
            _in_time(lambda: ray.init(**settings), _START)
        else:
            with _without_stderr():  # Ray prints each attempt
                _in_time(lambda: ray.init(**settings), _JOIN)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, TimeoutError):
            _abandon(reason)
            logs = "what it waits for is in its logs, /tmp/ray/session_latest/logs"
            raise ClusterError(f'compute.ray.address "{options.address}": {reason}; {logs}') from None
        if isinstance(error, OSError):
            reason = (
                f"no Ray answers there ({reason}); start one with `ray start --head`, or use --ray local. A cluster that "
                "requires a token needs RAY_AUTH_MODE=token here"
            )
        raise RecipeError(f'compute.ray.address "{options.address}": {reason}') from None


@contextmanager
def _silence() -> Iterator[None]:
    """Ray prints to this process's output what raylets report, such as the last lines of a log. Ours says what matters."""
    printer = getattr(ray._private.worker, "print_to_stdstream", None)
    if printer is not None:
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
    yield
    if printer is not None:
        ray._private.worker.print_to_stdstream = printer


@contextmanager
def _without_stderr() -> Iterator[None]:
    """What is written to file descriptor 2 is lost, also by code that is not Python's."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _in_time(call: Callable[[], T], seconds: float) -> T:
    """call(), which starts or ends Ray, made in another thread. TimeoutError after so many seconds; it hangs there then."""
    # Its processes end with the thread that has started them.
    _SESSION.thread = _SESSION.thread or HelperThread()
    _SESSION.thread.begin(call)
    try:
        value, error = _SESSION.thread.answer(seconds)
    except Empty:
        raise TimeoutError(f"Ray does not answer in {seconds:g} s") from None
    if error is not None:
        raise error
    result: T = value
    return result


def _leave(watch: ClusterWatch) -> None:
    """Without waiting for ever, and without leaving processes behind."""
    children = [pid for parent in watch.pids() for pid in _children(parent)]
    if watch.lost:
        _kill(watch.pids())  # a process that is stopped would be waited for
    try:
        _in_time(ray.shutdown, _LEAVE if watch.own or not watch.lost else _LEAVE_LOST)
    except TimeoutError as error:
        _kill(watch.pids())
        _abandon(str(error))
    # A worker that is stopped does not notice that its cluster has ended.
    _kill(pid for pid in children if _is_worker(pid))


def _abandon(reason: str) -> None:
    _SESSION.abandoned = reason
    # Ray's own end would wait for what hangs; without it, the end of the interpreter crashes.
    atexit.unregister(ray.shutdown)
    atexit.register(end_process, 1)


def _children(parent: int) -> Iterator[int]:
    """The processes that one has started, as far as this machine has /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(parent):
                yield int(entry.name)


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    return False


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
