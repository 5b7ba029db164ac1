"""`evofool invert hog` and `evofool invert detector`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from evofool.printer import print_json, print_lines

if TYPE_CHECKING:
    from evofool.explain.hog_model import HogModel


def image(
    source: Path,
    method: str | None,
    train: Path | None,
    model: Path | None,
    size: int | None,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Write the page of an image's HOG, inverted, and print how near the inverses come."""
    from evofool.errors import ImageError

    say = _saying(as_json)
    names = _methods(method)
    if not source.is_file():
        raise ImageError(f"there is no {source}: name an image file")
    _invert_image(source, names, _model(train, model, say), size, out, seed, as_json, say)


def detector(
    source: Path,
    scan: Path | None,
    train: Path | None,
    model: Path | None,
    top: int,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Learn a detector, write the page of its highest windows, inverted, and print how often it fires."""
    from evofool.errors import ImageError

    say = _saying(as_json)
    if scan is None:
        raise ImageError("a detector needs photographs that do not show the thing: --scan PHOTOGRAPHS")
    for folder in (source, scan):
        if not folder.is_dir():
            raise ImageError(f"{folder} is not a folder of pictures")
    _invert_detector(source, scan, _model(train, model, say), top, out, seed, as_json, say)


def _saying(as_json: bool) -> Callable[[str], None]:
    return (lambda _line: None) if as_json else print_lines


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
