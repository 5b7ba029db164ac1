"""The command `evofool export`."""

from pathlib import Path
from typing import Annotated

import typer

RUN = typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")
TO = typer.Argument(metavar="DIR", help="Where to write; made if it is not there.")
SIZE = typer.Option(min=1, max=16384, help="Redraw CPPNs this many pixels wide: they have no resolution.")
LAYOUT = typer.Option(
    "--format",
    metavar="imagefolder|parquet",
    help="PNGs in a folder for each class, or one Parquet table as Hugging Face's data sets are.",
)
LICENSE = typer.Option(metavar="SPDX", help="The images' licence, for the data card: CC-BY-4.0, CC0-1.0, ...")


def export(
    folder: Annotated[Path, RUN],
    to: Annotated[Path, TO],
    size: Annotated[int | None, SIZE] = None,
    layout: Annotated[str, LAYOUT] = "imagefolder",
    license: Annotated[str | None, LICENSE] = None,
) -> None:
    """Write the elites as PNGs in ImageFolder layout, with a CSV and, for CPPNs, their genomes as JSON; or as Parquet.

    File names carry label, confidence and birth id: DIR/3_3/3_0.999912_5120.png. README.md is a data card, and either folder
    is a data set that Hugging Face's library loads as it is. Works while the run goes on.
    """
    from evofool.export.export import export as write_files
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        print(f"{write_files(stored, to, size, layout, license)} elites written to {to}")
