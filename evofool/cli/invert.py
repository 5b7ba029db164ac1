"""The command `evofool invert`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.options import AsJson, Seed

_HOG, _DETECTOR = "hog", "detector"
_TOP = 12

WHAT = typer.Argument(
    metavar="HOG|DETECTOR|LAYER",
    help="What is inverted: hog, the HOG of an image; detector, the highest windows of a detector on HOG; a layer of "
    "--target, or logits (`evofool targets show SPEC --layers` lists layers).",
)
SOURCE = typer.Argument(
    metavar="IMAGE|DIR", help="An image file; for a detector a folder with at least 10 pictures of one thing."
)
TARGET = typer.Option(metavar="SPEC", help="Of a layer: its network (see `evofool targets list`).")
SCAN = typer.Option(metavar="DIR", help="Of a detector: at least 15 photographs that do not show the thing.")
METHOD = typer.Option(
    metavar="METHOD,METHOD", help="Of HOG: paired, ridge, elda, direct; by default all that the model has."
)
TRAIN = typer.Option(
    metavar="DIR",
    help="Learn from the pictures of this folder, once; of more than 2,000 from so many, evenly spaced. Without it a small "
    "model is used for HOG; for a layer the decoder that was learned last, or for digits one learned from MNIST's.",
)
MODEL = typer.Option(metavar="FILE", help="A model that --train has written.")
SIZE = typer.Option(
    min=56,
    max=2000,
    metavar="PIXELS",
    help="Of HOG: the longer side that the image is resampled to; at most 320 by default.",
)
TOP = typer.Option(
    min=1, max=100, help="Of a detector: how many windows are shown, the highest one of each photograph; 12 by default."
)
TOWARDS = typer.Option(metavar="IMAGE", help="Of a layer: also draw the codes between the image's and this one's.")
PERTURB = typer.Option(
    "--perturb", help="Of a layer: also draw its code binarised, and with half of its values dropped out."
)
NO_SEARCH = typer.Option("--no-search", help="Of a layer: without the inverse by search, which takes longer.")
EPOCHS = typer.Option(
    min=1, max=1000, help="Of a layer, with --train: how often each picture is learned from; 4 by default."
)
FEATURES = typer.Option(
    "--feature-loss",
    min=0.0,
    metavar="WEIGHT",
    help="Of a layer, with --train: learn also by the distance of the layer's output, with this weight; much slower.",
)
OUT = typer.Option(metavar="DIR", help="Where to write; IMAGE-hog, DIR-detector or IMAGE-LAYER by default.")


def invert(
    what: Annotated[str, WHAT],
    source: Annotated[Path, SOURCE],
    target: Annotated[str | None, TARGET] = None,
    scan: Annotated[Path | None, SCAN] = None,
    method: Annotated[str | None, METHOD] = None,
    train: Annotated[Path | None, TRAIN] = None,
    model: Annotated[Path | None, MODEL] = None,
    size: Annotated[int | None, SIZE] = None,
    top: Annotated[int | None, TOP] = None,
    towards: Annotated[Path | None, TOWARDS] = None,
    perturb: Annotated[bool, PERTURB] = False,
    no_search: Annotated[bool, NO_SEARCH] = False,
    epochs: Annotated[int | None, EPOCHS] = None,
    feature_loss: Annotated[float, FEATURES] = 0.0,
    out: Annotated[Path | None, OUT] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a code holds: images that are made from the code alone.

    `evofool invert hog IMAGE` writes a page with inverses of the image's histogram of oriented gradients, and how near they
    come to the image (HOGgles, Vondrick 2013). `evofool invert detector DIR --scan PHOTOGRAPHS` learns a detector of the
    thing in DIR, a linear SVM on HOG, and writes a page of its highest windows in PHOTOGRAPHS, inverted: what it sees in
    them. `evofool invert LAYER IMAGE --target SPEC --train PHOTOGRAPHS` trains a decoder that draws a picture from the
    layer's output (Dosovitskiy & Brox 2016), keeps it, and writes a page with its inverse of the image, beside an inverse
    by search (Mahendran & Vedaldi 2014). Ctrl-C ends the training after the last whole epoch.
    """
    from threadpoolctl import threadpool_limits

    from evofool.cli import invert_hog, invert_layer
    from evofool.errors import ImageError
    from evofool.machine import keep_memory, torch_threads

    if train is not None and model is not None:
        raise ImageError("--train learns a model and --model names one; give one of them")
    if not math.isfinite(feature_loss):
        raise ImageError(f"--feature-loss is a finite weight, not {feature_loss}")
    of_layer = {
        "--target": target is not None,
        "--towards": towards is not None,
        "--perturb": perturb,
        "--no-search": no_search,
        "--epochs": epochs is not None,
        "--feature-loss": feature_loss > 0,
    }
    if what in (_HOG, _DETECTOR):
        for option, given in of_layer.items():
            if given:
                raise ImageError(f"{option} is of a layer: evofool invert LAYER IMAGE --target SPEC")
    elif target is None:
        raise ImageError(
            f'evofool inverts {_HOG}, {_DETECTOR} and layers, not "{what}"; a layer needs its network: --target SPEC'
        )
    for option, given in (("--scan", scan is not None), ("--top", top is not None)):
        if given and what != _DETECTOR:
            raise ImageError(f"{option} is of a detector: evofool invert detector DIR --scan PHOTOGRAPHS")
    if what != _HOG and (method is not None or size is not None):
        raise ImageError("--method and --size are of HOG: evofool invert hog IMAGE")
    keep_memory()
    # One thread: results do not depend on the machine's cores.
    with torch_threads(1), threadpool_limits(1):
        if what == _HOG:
            invert_hog.image(source, method, train, model, size, out, seed, as_json)
        elif what == _DETECTOR:
            invert_hog.detector(source, scan, train, model, top or _TOP, out, seed, as_json)
        else:
            assert target is not None
            wanted = invert_layer.Wanted(target, what, train, model, epochs, feature_loss, seed)
            invert_layer.image(source, wanted, towards, perturb, not no_search, out, as_json)
