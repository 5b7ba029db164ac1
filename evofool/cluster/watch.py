"""Whether the Ray cluster that this process has joined still answers.

Ray's own calls wait for a cluster that is lost, or end this process without a word. So a thread asks the cluster, and calls
that need it are made in another thread, which is left alone where it hangs.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import ray

from evofool.errors import ClusterError

_INTERVAL = 0.5  # seconds between looks at this machine's part of the cluster
_ASK_INTERVAL = 5.0  # seconds between requests to the cluster's head
_UNREACHABLE = 20.0  # seconds for which nothing listens at the head, after which the cluster is lost; Ray waits for 60
_SILENT = 30.0  # seconds without an answer of the head, after which the cluster is lost
_CALL = 30.0  # seconds that a call may take by default
_ESSENTIAL = ("gcs_server", "raylet")  # the processes of a cluster that it cannot do without

T = TypeVar("T")


class HelperThread:
    """A thread that makes calls for another one, one at a time. It does not keep the process from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._run, name="evofool-ray", daemon=True).start()

    def begin(self, call: Callable[[], Any]) -> None:
        self._calls.put(call)

    def answer(self, seconds: float) -> tuple[Any, BaseException | None]:
        """What the call returned and raised; queue.Empty if it takes longer."""
        return self._answers.get(timeout=seconds)

    def end(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._answers.put((call(), None))
            except BaseException as error:
                self._answers.put((None, error))
            del call


class ClusterWatch:
    """lost: why the cluster cannot be used any more, "" while it can. own: whether this process has started it."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self.lost = ""
        self._head, self._node_id = context.gcs_address, context.get_node_id()
        self._processes = _own_processes()
        self.own = bool(self._processes)
        self._raylet: tuple[str, int] | None = None  # where this machine's part of the cluster listens
        self._closed = threading.Event()
        self._answered = self._reached = self._looked = time.monotonic()
        self._helper: HelperThread | None = None
        for work in (self._watch, self._ask):
            threading.Thread(target=work, name=f"evofool{work.__name__}", daemon=True).start()

    def check(self) -> None:
        """ClusterError if the cluster is lost."""
        if self.lost:
            raise ClusterError(self.lost)

    def call(self, what: Callable[[], T], seconds: float = _CALL) -> T:
        """what(), called in another thread. ClusterError if the cluster is lost, or after so many seconds."""
        self._look()  # Ray ends this process where it finds out by itself
        self.check()
        helper, self._helper = self._helper or HelperThread(), None  # one that hangs is not used again
        helper.begin(what)
        waited, last = 0.0, time.monotonic()
        while True:
            try:
                value, error = helper.answer(_INTERVAL)
            except Empty:
                now = time.monotonic()
                waited, last = waited + min(now - last, 2 * _INTERVAL), now  # this process may have been stopped for a while
                if waited > seconds:
                    self._lose(f"no answer for {seconds:g} s")
                self.check()
                continue
            self._helper = helper
            if error is not None:
                self._look()
                self.check()  # what is lost explains any error
                raise error
            result: T = value
            return result

    def pids(self) -> list[int]:
        """Of the processes that this process has started for the cluster."""
        return [process.pid for process in self._processes.values()]

    def close(self) -> None:
        self._closed.set()
        if self._helper:
            self._helper.end()

    # -- inside

    def _watch(self) -> None:
        last = time.monotonic()
        while not self.lost and not self._closed.wait(_INTERVAL):
            now = time.monotonic()
            if now - last > 10 * _INTERVAL:  # this process was stopped for a while
                self._answered = self._reached = now
            last = now
            self._look()
            if _listens(self._head, _SILENT):
                self._reached = time.monotonic()
            elif now - self._reached > _UNREACHABLE:
                self._lose(f"nothing listens there for {_UNREACHABLE:g} s")
            if now - self._answered > _SILENT + _ASK_INTERVAL:
                self._lose(f"no answer for {_SILENT:g} s")

    def _ask(self) -> None:
        """In a thread of its own, since it may wait for ever."""
        while not self.lost and not self._closed.is_set():
            with suppress(Exception):  # an error is no answer
                nodes = {node["NodeID"]: node for node in ray.nodes()}
                self._answered = time.monotonic()
                own = nodes.get(self._node_id)
                if own and not own["Alive"] and not self._closed.is_set():
                    self._lose("this machine does not answer its head")
                elif own:
                    self._raylet = own["NodeManagerAddress"], own["NodeManagerPort"]
            self._closed.wait(_ASK_INTERVAL)

    def _look(self) -> None:
        """At what can be seen on this machine at once."""
        for name, process in self._processes.items():
            if process.poll() is not None and not self._closed.is_set():
                self._lose(f"its process {name} has ended")
        if not self.own and self._raylet and not self.lost and time.monotonic() - self._looked > _INTERVAL / 10:
            self._looked = time.monotonic()
            if not _listens("{}:{}".format(*self._raylet), _SILENT) and not self._closed.is_set():
                self._lose("its process raylet on this machine has ended")

    def _lose(self, reason: str) -> None:
        if self.own:
            text = f"the Ray instance that this process has started has failed ({reason}); what is saved is safe"
        else:
            text = (
                f"the Ray cluster at {self._head} is lost ({reason}); what is saved is safe: continue on another cluster, "
                "or without workers"
            )
        self.lost = self.lost or text


def _own_processes() -> dict[str, Any]:
    """The essential processes of the cluster that this process has started, by name; none if it has joined one."""
    node: Any = getattr(ray._private.worker, "_global_node", None)
    started = getattr(node, "all_processes", {})
    return {name: infos[0].process for name, infos in started.items() if name in _ESSENTIAL and infos}


def _listens(address: str, seconds: float) -> bool:
    """Whether anything listens at HOST:PORT; one that is only slow does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as connection:
            # Closed at once, since there are many of these.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except TimeoutError:
        return True
    except OSError:
        return False
    return True
