"""Lines, tables, progress and others' messages are printed with escapes instead of control characters."""

import io
import logging
import subprocess
import sys
import warnings

import pytest

from evofool.errors import StoreError, TargetError, VerifyError
from evofool.printer import Table, escape_foreign_messages, print_json, print_lines, print_traceback, status

HOSTILE = "a\x1b]0;PWN\x07\nb\u202e"
SHOWN = r"a\x1b]0;PWN\x07\nb\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_argument_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines("one", HOSTILE, "", 3)
    print_lines(HOSTILE, error=True)
    assert capsys.readouterr() == (f"one\n{SHOWN}\n\n3\n", f"{SHOWN}\n")


def test_an_error_escapes_its_message_and_keeps_its_lines() -> None:
    assert str(TargetError(HOSTILE)) == SHOWN
    assert str(VerifyError("fails:", f"  {HOSTILE}")) == f"fails:\n  {SHOWN}"
    error = StoreError(HOSTILE, "two")  # of an OSError the second argument would be the text of an error number
    assert (error.args, str(error), error.errno) == ((HOSTILE, "two"), f"{SHOWN}\ntwo", None)


def test_cells_of_a_table_are_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(HOSTILE)
    table.column("two", "lines")
    table.column(HOSTILE, right=True)
    table.row("[bold]x[/bold]", HOSTILE)
    table.row("alone")
    table.print()
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert "[bold]x[/bold]" in out
    assert out.count(SHOWN) == 3


def test_progress_on_a_terminal_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    with status() as show_status:
        show_status(lambda: HOSTILE, lambda: [HOSTILE])
        print_lines(HOSTILE)
    assert "\x1b]" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert out.getvalue().count(r"\x1b]0;PWN\x07") >= 3


def test_json_is_printed_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": f"{HOSTILE}\x7f\x9d"})
    assert '"a\\u001b]0;PWN\\u0007\\nb\\u202e\\u007f\\u009d"' in capsys.readouterr().out


def test_messages_of_others_are_escaped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    formatter = logging.lastResort and logging.lastResort.formatter
    try:
        escape_foreign_messages()
        assert f"UserWarning: {SHOWN}\n" in warnings.formatwarning(UserWarning(HOSTILE), UserWarning, "x.py", 1)
        assert logging.lastResort is not None
        record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "%s", (HOSTILE,), None)
        assert logging.lastResort.format(record) == SHOWN
    finally:
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(formatter)
    print_traceback(ValueError(HOSTILE))
    assert "ValueError: a\\x1b]0;PWN\\x07\nb\\u202e\n" in capsys.readouterr().err


def test_an_uncaught_exception_is_escaped() -> None:
    code = (
        "import threading; from evofool.printer import escape_foreign_messages; escape_foreign_messages()\n"
        "def fail(): raise ValueError('\\x1b]0;PWN')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join(); fail()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count(r"ValueError: \x1b]0;PWN") == 2
    assert "\x1b" not in done.stderr
