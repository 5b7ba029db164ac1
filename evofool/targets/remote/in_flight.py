"""Several requests of one call at the same time, with their results in order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from evofool.errors import BudgetError
from evofool.targets.remote.client import GRACE

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class InFlight:
    """Does jobs in threads, at most at_once at the same time. May be used by several threads, which share these."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._pool: ThreadPoolExecutor | None = None

    def results(
        self,
        jobs: Sequence[_Job],
        do: Callable[[_Job], _Result],
        before_each: Callable[[], None],
        cancel: Callable[[], None],
    ) -> Iterator[_Result]:
        """do(job) for every job, in the order of jobs.

        before_each is called by the caller's thread before a job begins. After an error no other job begins; those in
        progress are cancelled with `cancel` and have GRACE left, in which their answers may still be recorded. After a
        BudgetError they are waited for, since they are paid for.
        """
        if len(jobs) < 2 or self._at_once == 1:
            for job in jobs:
                before_each()
                yield do(job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._at_once, "requests")
        begun: deque[Future[_Result]] = deque()  # whose results were not yielded
        try:
            for job in jobs:
                while len(running := [future for future in begun if not future.done()]) >= self._at_once:
                    wait(running, return_when=FIRST_COMPLETED)
                _raise_failure(begun)
                while begun and begun[0].done():
                    yield begun.popleft().result()
                before_each()
                begun.append(self._pool.submit(do, job))
            wait(begun, return_when=FIRST_EXCEPTION)
            _raise_failure(begun)
            while begun:
                yield begun.popleft().result()
        except BudgetError:
            wait(begun)
            raise
        except BaseException:
            cancel()
            wait(begun, timeout=2 * GRACE)  # they are cut off after GRACE, and need a moment to end
            raise


def _raise_failure(futures: "deque[Future[_Result]]") -> None:
    """The error of the first one that failed, if any has; rather one that is not about the limit of requests."""
    errors = [error for future in futures if future.done() and (error := future.exception())]
    if errors:
        raise next((error for error in errors if not isinstance(error, BudgetError)), errors[0])
