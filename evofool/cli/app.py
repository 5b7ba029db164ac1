"""The command line: the app, its groups and main(). A command imports what it needs when it runs, so help is quick."""

import contextlib
import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from evofool.cli.baseline import baseline
from evofool.cli.bench import bench
from evofool.cli.dream import dream
from evofool.cli.explain import explain
from evofool.cli.export import export
from evofool.cli.fooling_set import fooling_set
from evofool.cli.gallery import gallery
from evofool.cli.gate import gate
from evofool.cli.init import init
from evofool.cli.invert import invert
from evofool.cli.lineage import lineage
from evofool.cli.measure import measure
from evofool.cli.merge import merge
from evofool.cli.morph import morph
from evofool.cli.polish import polish
from evofool.cli.quiz import quiz
from evofool.cli.replay import replay
from evofool.cli.run import run
from evofool.cli.score_set import score_set
from evofool.cli.show import show
from evofool.cli.sweep import sweep
from evofool.cli.targets import targets
from evofool.cli.train_decoder import train_decoder
from evofool.cli.transfer import transfer
from evofool.cli.units import units
from evofool.cli.verdicts import verdicts
from evofool.cli.verify import verify
from evofool.printer import escape_foreign_messages, print_lines, print_traceback
from evofool.text import visible

PANELS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Launch": {
        "run": run,
        "sweep": sweep,
        "baseline": baseline,
        "units": units,
        "polish": polish,
        "train-decoder": train_decoder,
        "init": init,
    },
    "Inspect": {
        "gallery": gallery,
        "show": show,
        "explain": explain,
        "dream": dream,
        "invert": invert,
        "morph": morph,
        "lineage": lineage,
        "export": export,
        "merge": merge,
        "verify": verify,
        "replay": replay,
        "measure": measure,
        "quiz": quiz,
        "verdicts": verdicts,
    },
    "Benchmark": {"bench": bench, "gate": gate, "transfer": transfer, "score-set": score_set, "set": fooling_set},
    "Targets": {"targets": targets},
}
"""The commands and groups by the panel of `evofool --help` that lists them, in its order."""


class _Commands(TyperGroup):
    """The commands in the order of their panels. Usage errors quote arguments with control characters escaped."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the panels."""
        return [name for panel in PANELS.values() for name in panel]

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _visible_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _visible_usage_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            print_lines("", "Interrupted", error=True)
            raise typer.Exit(130) from None


@contextlib.contextmanager
def _visible_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Of Click, which Typer has a copy of: its exceptions have no public name there.
        if message := getattr(error, "format_message", None):
            error.format_message = functools.partial(visible, message())  # type: ignore[attr-defined]
        raise


def unwrapped(text: str) -> str:
    """text with each paragraph on one line, so that the terminal wraps it once. Indented lines stay as they are."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


app = typer.Typer(
    name="evofool",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=unwrapped("""Evolve fooling images: images that a classifier assigns to a class with high
confidence, and that were not drawn to depict anything.

A [bold]run[/bold] keeps the best image of every class in a folder, as one SQLite file. Begin with

    evofool run mnist-cppn          evolve images for ten digits, in seconds
    evofool show runs/mnist-cppn    show its best images as a table
    evofool targets list            list the classifiers that can be attacked
"""),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import evofool

        print_lines(f"evofool {evofool.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for panel, commands in PANELS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            for group_command in command.registered_commands:
                group_command.help = unwrapped(inspect.getdoc(group_command.callback) or "")
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel, help=unwrapped(inspect.getdoc(command) or ""))(command)


def main() -> None:
    """The console command. A user's error ends in one sentence on standard error and an exit status."""
    try:
        _run_command()
    except SystemExit as end:
        session = sys.modules.get("evofool.cluster.session")
        if session is not None and session.abandoned():
            session.end_process(end.code if isinstance(end.code, int) else bool(end.code))
        raise


def _run_command() -> None:
    from evofool.errors import EvofoolError, VerifyError

    escape_foreign_messages()
    # A label that the terminal's encoding lacks is escaped; it does not end the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except VerifyError as error:
        _fail(error, 1)
    except EvofoolError as error:
        _fail(error, 2)
    except ModuleNotFoundError as error:
        _fail(f"the Python package {error.name} is missing; install evofool again with pip", 2)
    except MemoryError:
        _fail("out of memory; a smaller search.batch or compute.chunk needs less", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("EVOFOOL_TRACEBACK"):
            print_traceback(error)
            sys.exit(70)
        _fail(f"{type(error).__name__}: {error}. This is a bug in evofool; EVOFOOL_TRACEBACK=1 shows where", 70)


def _fail(message: str | Exception, status: int) -> None:
    lines = message.args if isinstance(message, Exception) else (message,)
    print_lines(*(f"evofool: {line}" if n == 0 else line for n, line in enumerate(lines)), error=True)
    sys.exit(status)
