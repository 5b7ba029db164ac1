"""The command `evofool bench reject-class`."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from evofool.printer import print_lines, status

SPEC = typer.Argument(
    metavar="SPEC", help="The network: lenet, efficientnet-lite0, torchvision:NAME, timm:NAME (see `evofool targets list`)."
)
RUNS = typer.Argument(metavar="RUN...", help="Runs whose images fool it.")
IMAGES = typer.Option(metavar="DIR|digits", help="Labelled real images; half of them are trained on, the others held out.")
SHARE = typer.Option("--fooling-share", help="The weight of the fooling images in the loss, as a share of the whole.")
DECAY = typer.Option(help="The weight of the squared weights in the loss, in units of each feature's standard deviation.")
MOST = typer.Option(min=1, help="Train on so many fooling images at the most, evenly spaced.")
OUT = typer.Option(metavar="DIR", help="Folder of the new weights and labels; runs/reject-class by default.")


def reject_class(
    spec: Annotated[str, SPEC],
    runs: Annotated[list[Path], RUNS],
    images: Annotated[str, IMAGES],
    fooling_share: Annotated[float, SHARE] = 0.5,
    decay: Annotated[float, DECAY] = 1e-3,
    most: Annotated[int, MOST] = 9_000,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Give an existing network a class "nothing" for fooling images: one more output of its last layer.

    Everything else in the network stays as it is: this is less than the retraining of Nguyen 2015 (section 3.5), and takes
    minutes at most, since each image passes through the network once. Prints how many images the new network rejects, and
    the spec that names it, to be attacked like any other target. The network has to end in a linear layer.
    """
    from evofool.bench.real import real_images
    from evofool.bench.retraining.reject_class import give_reject_class
    from evofool.machine import keep_memory

    keep_memory()
    with status() as show_status:
        found = give_reject_class(
            spec,
            runs,
            functools.partial(real_images, images),
            out or Path("runs") / "reject-class",
            share=fooling_share,
            decay=decay,
            most=most,
            on_progress=lambda text: show_status(lambda: text),
        )
    print_lines(
        f'{spec}: a class "nothing", trained on {found.fooling:,} fooling images and {found.trained_real:,} real ones',
        f"  rejected  {found.fooling_rejected / found.fooling:.2%} of these fooling images; "
        f"{found.real_rejected / found.real:.2%} of {found.real:,} held-out real images",
        f"  top-1     {found.top1_before:.4f} before and {found.top1:.4f} now, on the held-out real images",
        f"Target:  {found.spec}",
    )
