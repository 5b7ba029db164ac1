"""The command `evofool export`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.console import print_drifts
from evofool.printer import print_lines

RUN = typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")
TO = typer.Argument(metavar="DIR", help="Where to write; created if it does not exist.")
SIZE = typer.Option(
    min=1,
    max=16384,
    help="Draw CPPNs and canvases of cosines this many pixels wide; canvases of pixels are resampled.",
)
LAYOUT = typer.Option(
    "--format",
    metavar="imagefolder|parquet",
    help="PNGs in one folder per class, or one Parquet table in the form of Hugging Face data sets.",
)
RUNNERS_UP = typer.Option(
    "--runners-up",
    help="Write the runners-up, too: the other genomes that the search keeps of each class (search.keep), as `evofool show "
    "--class C --list` lists them, with the scores that it ranks by.",
)
LICENSE = typer.Option(metavar="SPDX", help="The licence of the images, for the data card: CC-BY-4.0, CC0-1.0, ...")


def export(
    folder: Annotated[Path, RUN],
    to: Annotated[Path, TO],
    size: Annotated[int | None, SIZE] = None,
    layout: Annotated[str, LAYOUT] = "imagefolder",
    license: Annotated[str | None, LICENSE] = None,
    runners_up: Annotated[bool, RUNNERS_UP] = False,
) -> None:
    """Write a run's elites as a data set: PNGs with a CSV and the CPPNs as JSON, or Parquet.

    File names have label, confidence and birth id: DIR/3_3/3_0.999912_5120.png. README.md is a data card. Hugging Face's
    library loads either form without changes. Works while the run goes on.
    """
    from evofool.export.export import export as write_files
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        exported = write_files(stored, to, size, layout, license, runners_up)
        others = exported.runners_up
        what = "" if others is None else f" and {others} runners-up"
        print_lines(f"{exported.images - (others or 0)} elites{what} written to {to}")
        if exported.resampled:
            print_lines(f"{exported.resampled} of them are resampled: their canvases are pixels, which have no other size")
        print_drifts(stored)
