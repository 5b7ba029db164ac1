"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")]
Trust = Annotated[bool, typer.Option("--trust", help="Follow a stored target that is code to import or a server to ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, exact numbers.")]
