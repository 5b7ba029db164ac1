"""Work that a page starts: one command of evofool at a time, in a process of its own, with what it says."""

import asyncio
import signal
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from evofool.errors import EvofoolError

_LINES = 200  # of what a command says that are kept
_LONGEST = 1 << 16  # bytes of a line
_PATIENCE = 20.0  # seconds for a command to save after an interrupt


class JobError(EvofoolError):
    """A job cannot be started now."""


@dataclass
class Job:
    """A command under way or ended. title: what it does, for people. status: its exit status; None while it runs."""

    number: int
    title: str
    arguments: Sequence[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    status: int | None = None
    stopped: bool = False

    def state(self) -> dict[str, Any]:
        """Plain values, for the page."""
        ended = self.status is not None
        return {
            "number": self.number,
            "title": self.title,
            "command": " ".join(["evofool", *self.arguments]),
            "line": self.lines[-1] if self.lines else "",
            "ended": ended,
            "failed": ended and self.status != 0 and not self.stopped,
            "stopped": self.stopped,
        }


class Jobs:
    """One command at a time. A job that was started goes on when its page is closed, and is interrupted with the server."""

    def __init__(self) -> None:
        self.last: Job | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, title: str, arguments: Sequence[str]) -> Job:
        """Run `evofool ARGUMENTS`. JobError while another command runs."""
        if self.last is not None and self.last.status is None:
            raise JobError(f"one at a time: {self.last.title} is under way. Wait for its end, or stop it")
        job = Job(1 if self.last is None else self.last.number + 1, title, list(arguments))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "evofool", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST,
            start_new_session=True,  # Ctrl-C in the terminal reaches the server alone, which interrupts the command once
        )
        self.last = job
        self._task = asyncio.create_task(self._follow(job, self._process))
        return job

    def stop(self) -> None:
        """Interrupt the command that runs, as Ctrl-C does: it saves what it has."""
        # Once: a second interrupt would end it before it has saved.
        if self.last is not None and self.last.status is None and not self.last.stopped and self._process is not None:
            self.last.stopped = True
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    async def close(self) -> None:
        """Interrupt it, and wait until it has saved; it is killed if it does not end."""
        self.stop()
        if self._task is None or self._process is None:
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._task), _PATIENCE)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._task

    async def _follow(self, job: Job, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than _LONGEST
                continue
            if not line:
                break
            if text := line.decode("utf-8", "replace").strip():
                job.lines.append(text)
        job.status = await process.wait()
