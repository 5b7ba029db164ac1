"""The command `evofool morph`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.morph_chairs import CHAIRS, morph_chairs
from evofool.cli.options import AsJson

WHAT = typer.Argument(metavar="CHAIRS", help="What is mixed: chairs.")
FIRST = typer.Argument(metavar="A", help="The chair at the beginning, 0 to 99.")
LAST = typer.Argument(metavar="B", help="The chair at the end.")
AZIMUTH = typer.Option(min=0, max=30, help="From where it is seen: one of 31 directions around it, 0 from its front.")
ELEVATION = typer.Option(min=0, max=1, help="0 is seen from 20 degrees above, 1 from 40.")
MODEL = typer.Option(metavar="FILE", help="Another generator than the one that evofool brings along.")
OUT = typer.Option(metavar="DIR", help="Where to write; chairs-A-B by default.")


def morph(
    what: Annotated[str, WHAT],
    first: Annotated[str, FIRST],
    last: Annotated[str, LAST],
    azimuth: Annotated[int, AZIMUTH] = 4,
    elevation: Annotated[int, ELEVATION] = 0,
    model: Annotated[Path | None, MODEL] = None,
    out: Annotated[Path | None, OUT] = None,
    as_json: AsJson = False,
) -> None:
    """Draw what lies between two chairs (Dosovitskiy 2015).

    `evofool morph chairs A B` writes a page and an animation, morph.gif, of one chair that becomes another. A small network
    draws them; it has learned 100 chairs made of boxes.
    """
    from evofool.errors import ImageError

    if what != CHAIRS:
        raise ImageError(f'evofool morphs {CHAIRS}, not "{what}"')
    morph_chairs(first, last, azimuth=azimuth, elevation=elevation, model=model, out=out, as_json=as_json)
