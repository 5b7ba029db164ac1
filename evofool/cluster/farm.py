"""Jobs done by Ray, each one a task, so many at a time: whatever becomes of one leaves the others alone.

A job is a run of its own, of minutes or hours. What a task's worker dies of is asked again here and not by Ray, which would
not say how often. One actor beside the driver, the desk, hears how far the jobs are and tells them when to end.
"""

import importlib
import inspect
import os
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evofool.cluster.carry import bring, forget, packed, restore, sees, token, unpack
from evofool.cluster.membership import connect, in_words, knock, leave, reserved
from evofool.errors import EvofoolError, RecipeError, StoreError
from evofool.machine import torch_threads

_GLANCE = 1.0  # seconds between looks at how things stand and at who asks us to stop
_PATIENCE = 20.0  # seconds without any job at work after which it is said what is waited for
_KNOCK = 5.0  # seconds between looks whether there still is a cluster; it is gone at the second one in vain
_GRACE = 20.0  # seconds that jobs which listen have to end, once they are told to

Work = Callable[..., Any]


@dataclass(frozen=True)
class Failure:
    """What became of a job instead of a result.

    kind "error": it raised an EvofoolError of class `name`, and words is its sentence; a StoreError also where its folder
    cannot be read, or what its worker sent of it cannot be written. "died": its workers died, one after another. "fault": it
    raised something else, of class `name`, and words say where.
    """

    kind: str
    words: str
    name: str = ""


@dataclass(frozen=True)
class Standing:
    """How the jobs stand. under_way: by the job's index, what it said of itself last; {} before it says anything."""

    total: int
    done: int
    failed: int  # of those that are done
    under_way: Mapping[int, Mapping[str, Any]]
    seconds: float
    note: str = ""  # what is waited for, while nothing is under way for long


def farm(
    work: str | Work,
    jobs: Sequence[Mapping[str, Any]],
    *,
    workers: int,
    shared: Path | None = None,
    address: str = "local",
    cpus: float = 1.0,
    gpus: float = 0.0,
    memory: float = 0.0,
    resources: Mapping[str, float] | None = None,
    placement: str = "DEFAULT",
    environment: Mapping[str, Any] | None = None,
    threads: int = 1,
    retries: int = 2,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[Standing], Any] = lambda standing: None,
) -> Iterator[tuple[int, Any]]:
    """Do work(job) for every job, at most `workers` at a time: (index, result or Failure) of each as they come.

    work is a function of a module, or its name as "package.module:function". A job and its result are plain data. Where work
    has a parameter `say`, it gets a function: say(plain mapping) tells `tick` how far the job is, and is true once the job
    should save and end. It may be called often: about once a second it sends.

    shared: every job has a "folder" below this one. A worker that cannot see it works in another, which has what was in the
    job's before, and what it left there is in the job's folder by the time that its index comes, whatever became of it.

    Each worker reserves cpus, gpus, memory (GiB) and resources, and runs torch with so many threads; a job whose worker dies
    is done again `retries` times. stop() and tick are called about once a second: where stop() is true, or the generator is
    closed, or left by an error, jobs that have said something are told to end and have 20 seconds for it, the others are
    killed. Their folders are those of runs that were broken off. RecipeError if there is no such Ray, or it is gone.
    """
    name = _named(work)
    asks = {"CPU": cpus, "GPU": gpus, "memory": memory * 2**30, **(resources or {})}
    connect(address, workers, cpus, dict(environment or {}))
    try:
        mark = token(shared) if shared else ""
        options = reserved(cpus, gpus, memory, dict(resources or {}), placement, dict(environment or {}))
        tasks = _Tasks(
            jobs, _Call(name, threads, os.getcwd(), str(shared.absolute()) if shared else "", mark), options, asks
        )
        try:
            yield from tasks.results(workers, retries, stop, tick)
        finally:
            tasks.end()
            if shared:
                forget(shared)
    finally:
        leave()


class _Call(NamedTuple):
    """What all tasks are told alike."""

    work: str
    threads: int
    cwd: str
    shared: str  # the driver's folder with a token, "" if there is none
    token: str


class _Reply(NamedTuple):
    value: Any  # result or Failure
    files: dict[str, bytes] | None  # what the job's folder is to hold, where it was not this one


@dataclass
class _Tasks:
    """The driver's side."""

    jobs: Sequence[Mapping[str, Any]]
    call: _Call
    options: dict[str, Any]
    asks: dict[str, float]
    flying: dict[Any, int] = field(default_factory=dict)  # ray.ObjectRef of a _Reply: index

    def __post_init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._desk: Any = ray.remote(_desk()).options(num_cpus=0, scheduling_strategy=here).remote()
        self._task = ray.remote(_work_in).options(**self.options, max_retries=0)
        self._head = ray.get_runtime_context().gcs_address
        self._told: dict[int, dict[str, Any]] = {}
        self._asked: Any = None  # ray.ObjectRef of what the desk was told
        self._knocked = self._busy = self._began = time.monotonic()
        self._in_vain = 0

    def results(
        self, workers: int, retries: int, stop: Callable[[], bool], tick: Callable[[Standing], Any]
    ) -> Iterator[tuple[int, Any]]:
        todo, strikes = deque(range(len(self.jobs))), [0] * len(self.jobs)
        done = failed = 0
        looked = -_GLANCE
        while todo or self.flying:
            if time.monotonic() - looked >= _GLANCE:
                looked = time.monotonic()
                if stop():
                    return
                tick(self._standing(done, failed))
            while todo and len(self.flying) < workers:
                index = todo.popleft()
                if (refused := self._send(index)) is not None:
                    done, failed = done + 1, failed + 1
                    yield index, refused
            if not self.flying:
                continue
            came, _ = ray.wait(list(self.flying), timeout=_GLANCE)
            for answer in came:
                index = self.flying.pop(answer)
                self._told.pop(index, None)
                try:
                    value = self._taken(index, answer)
                except RayError as error:
                    strikes[index] += 1
                    if strikes[index] <= retries:
                        todo.append(index)  # after the others, who may do without what it needs too much of
                        continue
                    words = (str(error).strip().splitlines() or [""])[0]
                    times = f"{retries + 1} times" if retries else "once"
                    value = Failure("died", f"its worker died {times}, at last by {type(error).__name__}: {words}")
                done, failed = done + 1, failed + isinstance(value, Failure)
                yield index, value

    def end(self) -> None:
        """Nothing is under way any more: who does not listen is killed, who does gets some time, and its folder comes."""
        if self._in_vain:  # Ray would wait for the head
            return
        try:
            self._look()
            self._desk.close.remote()
            listening = [answer for answer, index in self.flying.items() if self._told.get(index)]
            self._kill(set(self.flying) - set(listening))
            if listening:
                came, _ = ray.wait(listening, num_returns=len(listening), timeout=_GRACE)
                for answer in came:
                    with suppress(RayError):
                        self._taken(self.flying.pop(answer), answer)
        finally:
            self._kill(set(self.flying))
            ray.kill(self._desk)

    # -- inside

    def _send(self, index: int) -> Failure | None:
        """Let a worker have a job; why it cannot be, where its folder cannot be read."""
        job, files = dict(self.jobs[index]), []
        if self.call.shared:
            folder = Path(job["folder"]).absolute()
            job["folder"] = str(folder)
            try:
                restore(folder)
                # Behind a list: only who wants it fetches it.
                files = [ray.put(held)] if (held := packed(folder)) else []
            except StoreError as error:
                return _error(error)
        self.flying[self._task.remote(self.call, index, job, files, self._desk)] = index
        return None

    def _kill(self, answers: set[Any]) -> None:
        for answer in answers:
            del self.flying[answer]
            ray.cancel(answer, force=True)
        if answers:
            # Their processes are gone before anybody else opens their folders.
            ray.wait(list(answers), num_returns=len(answers), timeout=_GRACE)

    def _taken(self, index: int, answer: Any) -> Any:
        """The result of a task, once its files are where they belong; RayError if the worker died."""
        try:
            reply: _Reply = ray.get(answer)
        except RayTaskError as error:  # not the job's: that is in its reply
            hint = "; install on every node what is installed here" if "No module named" in str(error.cause) else ""
            return Failure(
                "fault", f"its worker cannot begin, or send what came of it: {error.cause}{hint}", type(error.cause).__name__
            )
        if reply.files is not None:
            try:
                bring(reply.files, Path(self.jobs[index]["folder"]).absolute())
            except StoreError as error:
                return _error(error)
        return reply.value

    def _standing(self, done: int, failed: int) -> Standing:
        self._look()
        now, note = time.monotonic(), ""
        flying = set(self.flying.values())
        told = {index: said for index, said in self._told.items() if index in flying}
        if told or not flying:
            self._busy = now
        elif now - self._busy > _PATIENCE:
            asked, there = in_words(self.asks), in_words(ray.available_resources())
            note = f"no worker is at work: each asks for {asked or 'nothing'}, free are {there or 'none'}; waiting for room"
        return Standing(len(self.jobs), done, failed, told, now - self._began, note)

    def _look(self) -> None:
        """What the desk was told since; RecipeError if the head of the cluster is gone: Ray would end this process later."""
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            with suppress(RayError):
                self._told = ray.get(self._asked)
            self._asked = None
        if self._asked is None:
            self._asked = self._desk.told.remote()
        if time.monotonic() - self._knocked < _KNOCK:
            return
        self._knocked = time.monotonic()
        try:
            knock(self._head)
            self._in_vain = 0
        except OSError as error:
            self._in_vain += 1
            if self._in_vain > 1:
                raise RecipeError(
                    f"the Ray cluster at {self._head} is gone ({error}); what is done is safe: go on with another cluster, "
                    "or without one"
                ) from None


def _desk() -> type:
    """The class of an actor beside the driver. Made in a function, it travels whole: its process loads no module of ours,
    nor torch."""

    class Desk:
        def __init__(self) -> None:
            self._told: dict[int, Any] = {}
            self._closing = False

        def say(self, index: int, told: Any) -> bool:
            self._told[index] = told
            return self._closing

        def told(self) -> dict[int, Any]:
            return self._told

        def close(self) -> None:
            self._closing = True

    return Desk


class _Say:
    """What a job tells the desk, never waiting for it; true once the job should end."""

    def __init__(self, desk: Any, index: int) -> None:
        self._desk, self._index = desk, index
        self._over, self._next = False, 0.0
        self._answer = desk.say.remote(index, {})

    def __call__(self, told: Mapping[str, Any]) -> bool:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with suppress(RayError):
                self._over = ray.get(self._answer)
            self._answer = None
        if self._answer is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _GLANCE
            self._answer = self._desk.say.remote(self._index, dict(told))
        return self._over


def _work_in(call: _Call, index: int, job: dict[str, Any], files: list[Any], desk: Any) -> _Reply:
    """The task: the job done in its own folder, or in one like it where the driver's disk cannot be seen."""
    say = _Say(desk, index)
    with suppress(
        OSError
    ):  # where relative paths and python: targets are looked for. Another machine may have no such folder
        os.chdir(call.cwd)
    with torch_threads(call.threads):
        if not call.shared or sees(call.shared, call.token):
            return _Reply(_outcome(call.work, job, say), None)
        with tempfile.TemporaryDirectory(prefix="evofool-") as place:
            folder = Path(place) / Path(job["folder"]).name
            if files:
                unpack(ray.get(files[0]), folder)
            value = _outcome(call.work, job | {"folder": str(folder)}, say)
            return _Reply(value, packed(folder) if folder.exists() else None)


def _outcome(name: str, job: dict[str, Any], say: _Say) -> Any:
    """The result of the job, or the Failure that what it raised is."""
    try:
        work = _found(name)
        return work(job, say=say) if "say" in inspect.signature(work).parameters else work(job)
    except EvofoolError as error:
        return _error(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}, line {last.lineno})"
        return Failure("fault", words, type(error).__name__)


def _error(error: EvofoolError) -> Failure:
    return Failure("error", str(error), type(error).__name__)


def _named(work: str | Work) -> str:
    """package.module:function; our own mistake if a worker could not find it so."""
    name = work if isinstance(work, str) else f"{work.__module__}:{work.__qualname__}"
    found = _found(name)
    assert found is work or isinstance(work, str), f"{name} is another function"
    return name


def _found(name: str) -> Work:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
