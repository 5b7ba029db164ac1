"""The command `evofool morph`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.morph_chairs import CHAIRS, morph_chairs
from evofool.cli.morph_run import morph_run
from evofool.cli.options import AsJson, Trust

WHAT = typer.Argument(metavar="chairs|RUN", help="What is mixed: chairs, or the elites of a run of codes.")
FIRST = typer.Argument(metavar="A", help="The chair at the beginning, 0 to 99; of a run the class, a number or a label.")
LAST = typer.Argument(metavar="B", help="The chair or class at the end.")
AZIMUTH = typer.Option(
    min=0, max=30, help="Chairs: from where it is seen, one of 31 directions around it, 0 from its front; 4 by default."
)
ELEVATION = typer.Option(min=0, max=1, help="Chairs: 0 is seen from 20 degrees above, 1 from 40; 0 by default.")
MODEL = typer.Option(metavar="FILE", help="Chairs: another generator than the one that evofool brings along.")
STEPS = typer.Option(min=2, max=1000, help="Runs: images on the way, each one query; 49 by default.")
OUT = typer.Option(metavar="DIR", help="Where to write; chairs-A-B or RUN/morph-A-B by default.")


def morph(
    what: Annotated[str, WHAT],
    first: Annotated[str, FIRST],
    last: Annotated[str, LAST],
    azimuth: Annotated[int | None, AZIMUTH] = None,
    elevation: Annotated[int | None, ELEVATION] = None,
    model: Annotated[Path | None, MODEL] = None,
    steps: Annotated[int | None, STEPS] = None,
    out: Annotated[Path | None, OUT] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Draw what lies between two chairs, or between the elites of two classes.

    `evofool morph chairs A B` writes a page and an animation, morph.gif, of one chair that becomes another (Dosovitskiy
    2015). A small network draws them; it has learned 100 chairs made of boxes.

    `evofool morph RUN A B` writes the same of the images whose codes lie on the line between those of two elites: the
    confidences along the way, and the two images around each change of the predicted class. For runs of codes, such as
    `evofool run mnist-latent`.
    """
    from evofool.errors import ImageError

    of_chairs = {"--azimuth": azimuth, "--elevation": elevation, "--model": model}
    wrong = {"--steps": steps} if what == CHAIRS else of_chairs
    if given := [name for name, value in wrong.items() if value is not None]:
        raise ImageError(f"{given[0]} is of {'runs' if what == CHAIRS else 'chairs'}; leave it out")
    if what == CHAIRS:
        morph_chairs(
            first,
            last,
            azimuth=4 if azimuth is None else azimuth,
            elevation=elevation or 0,
            model=model,
            out=out,
            as_json=as_json,
        )
    elif not Path(what).exists():
        raise ImageError(f'evofool morphs {CHAIRS} and the elites of a run, and there is no folder "{what}"')
    else:
        morph_run(Path(what), first, last, steps=steps or 49, out=out, trust=trust, as_json=as_json)
