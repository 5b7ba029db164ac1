"""The command `evofool init`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.printer import print_lines
from evofool.whole_file import write_whole


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to copy the recipes; created if it does not exist.")],
) -> None:
    """Copy the shipped recipes into a folder, to edit and run them there. Existing files are kept."""
    from evofool.recipe import shipped_benches, shipped_recipes, shipped_sets

    for recipe in [*shipped_recipes(), *shipped_benches(), *shipped_sets()]:
        to = folder / recipe.name
        if to.exists():
            print_lines(f"kept    {to}")
        else:
            write_whole(to, recipe.read_bytes())
            print_lines(f"written {to}")
    print_lines(f"Edit one and run it:  evofool run {folder / 'mnist-cppn.toml'}")
