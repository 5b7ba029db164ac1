"""Workers that have not answered yet: which of them hang, what their failures mean, and what the user is told."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from ray.exceptions import RayActorError, RayError

from evofool.cluster.room import has_room, shortage_text, with_process
from evofool.cluster.session import ask, owns_cluster
from evofool.cluster.settings import RayOptions
from evofool.cluster.slots import WorkerSlot
from evofool.cluster.worker import WorkerInfo
from evofool.errors import TargetError
from evofool.image_metrics.unlike import Unlike
from evofool.search.evaluate import BatchEvaluator

FIRST = 4  # times `timeout` that a worker may take to start, and its first call: networks are loaded and compiled there
_POLL = 1.0  # seconds between looks at which workers have got a process
_NOTE = 20.0  # seconds without a worker after which a note says what is waited for
_MAX_FAILURES = 3  # starts of a worker that fail in a row, while none works, end the search
_MAX_DEATHS = 7  # starts of every worker that end in its death, before any has ever answered, end the search


class StartUp:
    """A start fails if the worker reports an error or hangs; a process that dies may have been killed, and is no failure.

    So deaths end the search only where no worker has ever answered, and every one has died so often in a row (over a minute,
    since the pauses between starts grow): the target may kill whatever loads it.
    """

    def __init__(self, options: RayOptions, workers: int) -> None:
        self.answered = False  # by any worker
        self._options, self._workers = options, workers
        self._limit = FIRST * options.timeout
        self._failures: Counter[int] = Counter()  # by the worker's number, since its last answer
        self._deaths: Counter[int] = Counter()
        self._next_poll = 0.0
        self._none_since = time.monotonic()
        self._noted: set[str] = set()

    def answer(self, number: int) -> None:
        """A worker has answered a call."""
        self.answered = True
        self._failures[number] = 0

    def failed(self, number: int, reason: str, others_work: bool) -> None:
        """TargetError if a worker could not start once too often."""
        self._failures[number] += 1
        if self._failures[number] >= _MAX_FAILURES and not others_work:
            raise TargetError(f"no worker can be started: {reason}")

    def died(self, number: int) -> None:
        """TargetError if no worker has ever answered, and all of them have died too often."""
        self._deaths[number] += 1
        if not self.answered and min(self._deaths[n] for n in range(self._workers)) >= _MAX_DEATHS:
            times = f"{_MAX_DEATHS} times in a row"
            raise TargetError(
                f"no worker can be started: each one's process was killed or crashed {times} before it had answered; the "
                "target may need more memory (compute.ray.memory), or crash where it is loaded (try --workers 0)"
            )

    def hanging(self, slots: Sequence[WorkerSlot], now: float) -> Iterator[tuple[WorkerSlot, str]]:
        """The workers that take too long to start, and why that is a failure; "" if they only wait for room."""
        starting = [slot for slot in slots if slot.building is not None]
        if now >= self._next_poll and (unplaced := [slot for slot in starting if not slot.placed]):
            self._next_poll = now + _POLL
            placed = ask(lambda: with_process(slot.actor for slot in unplaced))
            for slot in unplaced:
                if slot.actor in placed:
                    slot.placed, slot.since = True, now
        for slot in starting:
            if now - slot.since <= self._limit:
                continue
            if slot.placed:
                yield slot, f"its target was not loaded in {self._limit:g} seconds"
            else:
                room = ask(lambda: has_room(self._options, owns_cluster()))
                yield (
                    slot,
                    f"Ray has not started its process in {self._limit:g} seconds, although it has room" if room else "",
                )

    def note(self, slots: Sequence[WorkerSlot], working: bool, now: float) -> str:
        """What is waited for, once no worker has worked for a while; "" if that was said, or some work."""
        if working:
            self._none_since, self._noted = now, set()
        starting = [slot for slot in slots if slot.building is not None]
        if now - self._none_since <= _NOTE or not starting:
            return ""
        loading = sum(bool(slot.placed) for slot in starting)
        kind = "loading" if loading else "room" if ask(lambda: has_room(self._options, owns_cluster())) else "no room"
        if kind in self._noted:
            return ""
        self._noted.add(kind)
        if kind == "no room":
            return f"no worker is running: {ask(lambda: shortage_text(self._options))}; waiting for resources"
        what = f"{loading} of {len(slots)} load the target" if loading else "their processes are being started"
        return (
            f"no worker is ready after {now - self._none_since:.0f} seconds: {what}; each may take {self._limit:g} seconds"
        )


def start_error(error: RayError) -> str:
    """What a worker reports that could not start; "" if its process was killed or crashed without a report."""
    if isinstance(error, RayActorError) and not error.actor_init_failed:
        return ""
    lines = str(error).strip().splitlines()  # the last line is what was raised there, if anything was
    reason = lines[-1].strip() if lines else type(error).__name__
    hint = "; install on every node what is installed here" if "No module named" in reason else ""
    return f"a worker's process cannot start: {reason}{hint}"


def unfit(info: WorkerInfo, batch_evaluator: BatchEvaluator) -> str:
    """Why a worker that has built its target cannot be used for a search; "" if it can."""
    target, surrogates, permits = batch_evaluator.target, batch_evaluator.surrogates, batch_evaluator.permits
    if info.fingerprint != target.fingerprint():
        return (
            f"{info.node} has another {target.name} than this machine: labels, preprocessing or weights differ; put the "
            "same files there"
        )
    if surrogates and info.surrogates != surrogates.fingerprints:
        return (
            f"{info.node} has other surrogates than this machine: labels, preprocessing or weights differ; put the same "
            "files there"
        )
    if isinstance(permits, Unlike) and not permits.same_as(info.unlike):
        return (
            f"{info.node} measures likeness to digits (search.unlike) otherwise than this machine; install there what is "
            "installed here: evofool, numpy and pillow"
        )
    return ""
