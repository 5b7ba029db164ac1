"""The command `evofool invert`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import AsJson, Seed
from evofool.printer import print_json, print_lines

if TYPE_CHECKING:
    from evofool.explain.hog_model import HogModel

_HOG, _DETECTOR = "hog", "detector"
_WHAT = f"{_HOG} or {_DETECTOR}"

WHAT = typer.Argument(
    metavar=_WHAT.replace(" or ", "|").upper(),
    help="What is inverted: hog, the HOG of an image; detector, the highest windows of a detector on HOG.",
)
SOURCE = typer.Argument(
    metavar="IMAGE|DIR", help="An image file; for a detector a folder with at least 10 pictures of one thing."
)
SCAN = typer.Option(metavar="DIR", help="Of a detector: at least 15 photographs that do not show the thing.")
METHOD = typer.Option(
    metavar="METHOD,METHOD", help="Of an image: paired, ridge, elda, direct; by default all that the model has."
)
TRAIN = typer.Option(
    metavar="DIR",
    help="Learn the inverses from the photographs of this folder, once; of more than 2,000 from so many, evenly spaced. By "
    "default a small model is used.",
)
MODEL = typer.Option(metavar="FILE", help="A model that --train has written.")
SIZE = typer.Option(
    min=56, max=2000, metavar="PIXELS", help="The longer side that the image is resampled to; at most 320 by default."
)
TOP = typer.Option(min=1, max=100, help="How many windows are shown, the highest one of each photograph.")
OUT = typer.Option(metavar="DIR", help="Where to write; IMAGE-hog or DIR-detector by default.")


def invert(
    what: Annotated[str, WHAT],
    source: Annotated[Path, SOURCE],
    scan: Annotated[Path | None, SCAN] = None,
    method: Annotated[str | None, METHOD] = None,
    train: Annotated[Path | None, TRAIN] = None,
    model: Annotated[Path | None, MODEL] = None,
    size: Annotated[int | None, SIZE] = None,
    top: Annotated[int, TOP] = 12,
    out: Annotated[Path | None, OUT] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a code holds: images that are made from the code alone (HOGgles, Vondrick 2013).

    `evofool invert hog IMAGE` writes a page with inverses of the image's histogram of oriented gradients, and how near they
    come to the image. `evofool invert detector DIR --scan PHOTOGRAPHS` learns a detector of the thing in DIR, a linear SVM
    on HOG, and writes a page of its highest windows in PHOTOGRAPHS, inverted: what it sees in them.
    """
    from threadpoolctl import threadpool_limits

    from evofool.errors import ImageError
    from evofool.machine import keep_memory, torch_threads

    if what not in (_HOG, _DETECTOR):
        raise ImageError(f'evofool inverts {_WHAT}, not "{what}"')
    if train is not None and model is not None:
        raise ImageError("--train learns a model and --model names one; give one of them")
    keep_memory()
    say: Callable[[str], None] = (lambda _line: None) if as_json else print_lines
    # One thread: results do not depend on the machine's cores.
    with torch_threads(1), threadpool_limits(1):
        if what == _HOG:
            if scan is not None:
                raise ImageError("--scan is of a detector: evofool invert detector DIR --scan PHOTOGRAPHS")
            names = _methods(method)
            if not source.is_file():
                raise ImageError(f"there is no {source}: name an image file")
            _invert_image(source, names, _model(train, model, say), size, out, seed, as_json, say)
        else:
            if scan is None:
                raise ImageError("a detector needs photographs that do not show the thing: --scan PHOTOGRAPHS")
            if method is not None or size is not None:
                raise ImageError("--method and --size are of an image: evofool invert hog IMAGE")
            for folder in (source, scan):
                if not folder.is_dir():
                    raise ImageError(f"{folder} is not a folder of pictures")
            _invert_detector(source, scan, _model(train, model, say), top, out, seed, as_json, say)


def _model(train: Path | None, file: Path | None, say: Callable[[str], None]) -> "HogModel":
    from evofool.explain.hog_file import learned_model, load_model, shipped_model

    if train is not None:
        found, path = learned_model(train, on_progress=say)
        say(f"Model: {path}")
        return found
    return shipped_model() if file is None else load_model(file)


def _methods(text: str | None) -> list[str]:
    """The methods that an option names; empty for all."""
    from evofool.errors import ImageError
    from evofool.explain.hog_inversion import METHODS

    names = [] if text is None else [name.strip() for name in text.split(",") if name.strip()]
    for name in names or ([] if text is None else [text]):
        if name not in METHODS:
            raise ImageError(f'--method: "{name}" is not a method; they are {", ".join(METHODS)}')
    return names


def _invert_image(
    file: Path,
    chosen: list[str],
    model: "HogModel",
    size: int | None,
    out: Path | None,
    seed: int,
    as_json: bool,
    say: Callable[[str], None],
) -> None:
    from evofool.errors import ImageError
    from evofool.explain.hog_image import to_cells
    from evofool.explain.hog_inversion import METHODS
    from evofool.explain.hog_page import hog_page
    from evofool.explain.input_picture import read_photograph

    possible = [name for name in METHODS if name != "elda" or len(model.exemplars)]
    for name in chosen:
        if name not in possible:
            raise ImageError(f"the model has no windows of photographs, which {name} averages; learn one by --train DIR")
    names = chosen or possible
    read, change = read_photograph(file, 3)
    image = to_cells(read, size)
    notes = [change] if change else []
    if image.shape != read.shape:
        notes.append(f"{file.name}: resampled to {image.shape[2]} x {image.shape[1]} pixels")
    for line in notes:
        say(line)
    folder = out or file.with_name(f"{file.stem}-hog")
    found, output = hog_page(image, names, model, folder, name=file.name, notes=notes, seed=seed, on_progress=say)
    if as_json:
        keys = ("ncc", "sharpness", "hog_distance")
        print_json(
            {
                "source": file.name,
                "methods": {
                    one.method: dict(zip(keys, one.likeness.typical() or (None,) * 3, strict=True)) for one in found
                },
                "page": str(output.page),
                "pictures": [str(path) for path in output.pictures],
            }
        )
        return
    for one in found:
        typical = one.likeness.typical()
        if typical is not None:
            ncc, sharpness, distance = typical
            say(f"{one.method}: NCC {ncc:.3f}, sharpness {sharpness:.3f}, HOG distance {distance:.3f}")
    say(f"Page: {output.page}")


def _invert_detector(
    things: Path,
    scan: Path,
    model: "HogModel",
    top: int,
    out: Path | None,
    seed: int,
    as_json: bool,
    say: Callable[[str], None],
) -> None:
    from evofool.explain.hog_detector_page import detector_page

    things = things.resolve()
    folder = out or things.with_name(f"{things.name}-detector")
    counts, output = detector_page(things, scan.resolve(), model, folder, top=top, seed=seed, on_progress=say)
    if as_json:
        print_json(
            {
                "things": counts.things,
                "threshold": counts.threshold,
                "fired": counts.fired,
                "photographs": counts.photographs,
                "highest": [
                    {
                        "file": str(one.file),
                        "score": found.score,
                        "fires": found.score >= counts.threshold,
                        "left": found.left,
                        "top": found.top,
                        "side": found.side,
                    }
                    for one, found in counts.worst
                ],
                "page": str(output.page),
                "pictures": [str(path) for path in output.pictures],
            }
        )
        return
    windows = "1 window" if counts.fired == 1 else f"{counts.fired} windows"
    say(
        f"The median score of {counts.things} held-out pictures is {counts.threshold:.2f}; {windows} of "
        f"{counts.photographs} held-out photographs score{'s' if counts.fired == 1 else ''} as high"
    )
    say(f"Page: {output.page}")
