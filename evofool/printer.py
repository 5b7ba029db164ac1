"""Everything that evofool prints: lines, tables, JSON, live progress and tracebacks. No other file prints.

Text is printed by `evofool.text.visible`, so that no label, file name or message of a server can control the terminal.
"""

import contextlib
import errno
import io
import logging
import os
import stat
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from evofool.text import to_json, visible

if TYPE_CHECKING:
    from rich.console import Console


def print_lines(*lines: object, error: bool = False) -> None:
    """Print each argument as one line, to standard output or standard error; a newline within an argument is escaped."""
    text = "".join(f"{visible(line)}\n" for line in lines)
    with _unless_terminal_closed():
        print(text, end="", file=sys.stderr if error else sys.stdout, flush=True)


def print_json(data: Any) -> None:
    """Print data as indented JSON (evofool.text.to_json)."""
    print(to_json(data), flush=True)


class Table:
    """A table without borders, printed by `print`. Cells are plain text: they have no markup and stay on one line.

    rows: the cells as they are printed.
    """

    def __init__(self, title: str = "") -> None:
        self._title = title
        self._columns: list[tuple[str, Literal["left", "right"], bool]] = []
        self.rows: list[tuple[str, ...]] = []

    def column(self, *head: object, right: bool = False, no_wrap: bool = False) -> None:
        """Add a column; each argument is one line of its head."""
        self._columns.append(("\n".join(map(visible, head)), "right" if right else "left", no_wrap))

    def row(self, *cells: object) -> None:
        """Add a row; the cells that it lacks are empty."""
        self.rows.append(tuple(map(visible, cells)))

    def print(self) -> None:
        """Print it; wide where the output is no terminal, so that no number is cut."""
        from rich.table import Table as RichTable
        from rich.text import Text

        title = Text(visible(self._title)) if self._title else None
        table = RichTable(box=None, pad_edge=False, title=title, title_justify="left", title_style="")
        for head, justify, no_wrap in self._columns:
            table.add_column(Text(head), justify=justify, no_wrap=no_wrap)
        for row in self.rows:
            table.add_row(*map(Text, row))
        console = _console()
        (console if console.is_terminal else _console(width=200)).print(table)


@contextlib.contextmanager
def status() -> Iterator[Callable[..., None]]:
    """A function show_status(text, details): text() is the progress of long work, details() more lines for a terminal.

    On a terminal the lines are live and disappear at the end; elsewhere the text is printed from time to time.
    """
    console = _console()
    if not console.is_terminal:
        last = [time.perf_counter(), 2.0]

        def print_progress(text: Callable[[], str], details: Callable[[], list[str]] = list) -> None:
            if time.perf_counter() - last[0] >= last[1]:
                # 2, 3, 4.5 ... up to 60 seconds apart: short work prints something, long work does not fill a log.
                last[:] = time.perf_counter(), min(60.0, last[1] * 1.5)
                print_lines(text())

        yield print_progress
        return
    from rich.live import Live
    from rich.text import Text

    # Two lines: one would be cut at 80 columns. What is printed meanwhile appears above them.
    with Live(Text("starting ..."), console=console, transient=True, auto_refresh=False) as live:
        drawn = [0.0]

        def update(text: Callable[[], str], details: Callable[[], list[str]] = list) -> None:
            if time.perf_counter() - drawn[0] >= 0.1:
                drawn[0] = time.perf_counter()
                with _unless_terminal_closed():
                    live.update(Text("\n".join(map(visible, [*text().split("; "), *details()]))), refresh=True)

        yield update


def show_cursor() -> None:
    """Show the terminal's cursor, which the live display hides."""
    if sys.stderr.isatty():
        print("\x1b[?25h", end="", file=sys.stderr, flush=True)


def leave_terminal() -> None:
    """Print to nowhere instead of to a terminal that has closed: writing to it fails, and would end the work unsaved."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(io.UnsupportedOperation), open(os.devnull, "w") as nowhere:
            # A closed terminal is still a character device, although isatty() is false by then.
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                os.dup2(nowhere.fileno(), stream.fileno())


def print_traceback(error: BaseException) -> None:
    """Print an exception with its traceback to standard error."""
    print_lines(*"".join(traceback.format_exception(error)).rstrip("\n").split("\n"), error=True)


def escape_foreign_messages() -> None:
    """Escape what others print to standard error: warnings, log records without a handler, and uncaught exceptions."""
    warnings.formatwarning = _format_warning
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_LogFormatter())
    # Hooks that somebody else has set, such as a debugger or a test runner, stay.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda args: print_traceback(args.exc_value or args.exc_type())
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda args: print_traceback(args.exc_value or args.exc_type())


_format_warning_plainly = warnings.formatwarning


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return _format_warning_plainly(visible(message), category, visible(filename), lineno, line)


class _LogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print_traceback(error.with_traceback(trace))


@contextlib.contextmanager
def _unless_terminal_closed() -> Iterator[None]:
    """Print to a terminal that may have closed by now: SIGHUP may come only after the first write has failed."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        leave_terminal()


def _console(width: int | None = None) -> "Console":
    from rich.console import Console

    return Console(width=width)


def duration(seconds: float) -> str:
    """As in "12 s", "3 min 05 s", "2 h 10 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
