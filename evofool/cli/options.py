"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow the run's stored target to run code or to send requests to a server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON, with numbers that are not rounded.")]
Classes = Annotated[
    str | None, typer.Option("--classes", help="Numbers, ranges and labels, as in 0,5-9,coffee; all classes by default.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random draw.")]
RAY = typer.Option(metavar="local|auto|HOST:PORT", help="The Ray cluster to join; local starts one.")
Streams = Annotated[
    int, typer.Option(min=0, help="Passes at the same time; 0: chosen automatically. Does not change results.")
]


class WithDefault(TyperGroup):
    """A group whose command `run` is the default: `evofool bench bench-digits` is `evofool bench run bench-digits`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before arguments that begin with no command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def class_ids(text: str | None, labels: tuple[str, ...], name: str) -> list[int]:
    """The classes of a list like "0,5-9,coffee", each once, in the order of the list; empty for None.

    name is the target or the run that has the labels. TargetError for a class that is not among them, with the nearest
    labels.
    """
    from evofool.targets.labels import class_of
    from evofool.text import whole_number

    ids: list[int] = []
    for part in [] if text is None else text.split(","):
        entry = part.strip()
        low, dash, high = entry.partition("-")
        first, last = whole_number(low), whole_number(high)
        if entry not in labels and dash and first is not None and last is not None and first <= last < len(labels):
            ids += range(first, last + 1)
        else:
            ids.append(class_of(entry, labels, name))
    return list(dict.fromkeys(ids))
