"""The page of a detector on HOG: the windows of other photographs that it scores highest, inverted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evofool.errors import ImageError
from evofool.explain.folder import ExplanationFolder
from evofool.explain.hog import glyphs, grey
from evofool.explain.hog_detector import CELLS, Detection, Detector, detect, object_features, score, train_detector
from evofool.explain.hog_inversion import invert
from evofool.explain.hog_model import LONGEST, MOST_PHOTOGRAPHS, HogModel, reduced
from evofool.explain.hog_page import model_text
from evofool.explain.input_picture import read_photograph
from evofool.explain.parts_hog import EXPLAINED, MEANINGS, SOURCE
from evofool.explain.phrases import counted
from evofool.images import encode_png, quantise
from evofool.pages.html_page import Picture, Section, html_page
from evofool.targets.photos import image_files

LEAST_THINGS, LEAST_OTHERS = 10, 15
"""Pictures of a thing and photographs without it: those that are not held out are LEAST_PICTURES of each."""
_SHOWN = 160  # pixels, the side of a picture on a detector's page
_INVERTED = ("paired", "direct")
_HIGHEST = (
    "Below are the windows with the highest scores, one a photograph: the window, its HOG, and two images made from "
    f"that HOG alone, by {MEANINGS['paired']}, and by {MEANINGS['direct']}."
)


class NamedImage(NamedTuple):
    """uint8 (C, H, W) and the file that it comes from."""

    file: Path
    image: np.ndarray


class FiringCounts(NamedTuple):
    """How a detector does on pictures that it was not learned from.

    things: held-out pictures of the thing; threshold: the score that half of them reach; fired: how many windows of the
    held-out photographs without the thing reach it too. worst: the highest detection of a photograph, for those photographs
    where it is highest.
    """

    things: int
    threshold: float
    fired: int
    photographs: int
    worst: list[tuple[NamedImage, Detection]]


def detector_page(
    things: Path,
    others: Path,
    model: HogModel,
    folder: Path,
    *,
    top: int = 12,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> tuple[FiringCounts, ExplanationFolder]:
    """Learn a detector of the things in a folder of pictures, and write a page of what it sees in other photographs.

    Every fourth picture of the thing and every second photograph of `others`, which should not show it, are held out: the
    page is about these. ImageError for fewer than 10 pictures or 15 photographs, and if no photograph has room for a window.
    """
    output = ExplanationFolder(folder)
    on_progress(f"reading {things} and {others}")
    objects, photographs = read_folder(things), read_folder(others)
    for what, given, least, part, source in (
        ("pictures of the thing", objects, LEAST_THINGS, "every fourth", things),
        ("photographs without it", photographs, LEAST_OTHERS, "every second", others),
    ):
        if len(given) < least:
            raise ImageError(
                f"{source}: {len(given)} {what} are too few; a detector needs at least {least}, of which {part} one is "
                "held out"
            )
    held_out = objects[3::4]
    learned = [one.image for k, one in enumerate(objects) if k % 4 != 3]
    try:
        detector = train_detector(learned, [one.image for one in photographs[::2]], seed=seed, on_progress=on_progress)
    except ImageError as error:
        raise ImageError(f"{others}: {error}, once its longer side is at most {LONGEST}") from None
    counts = _counts(detector, held_out, photographs[1::2], top, on_progress)
    shown = _detector_pictures(detector, learned, model)
    head = Section("", [_HIGHEST, EXPLAINED], SOURCE, lead=_lead(things, counts), pictures=shown)
    sections = [_highest(k, one, found, model) for k, (one, found) in enumerate(counts.worst, 1)]
    for section in (head, *sections):
        output.add("" if section is head else section.title, section.pictures)
    foot = [
        f"A linear SVM on windows of {CELLS} x {CELLS} cells, learned from {counted(len(learned), 'picture')} of "
        f"{things.name} and {counted(len(photographs[::2]), 'photograph')} of {others.name}. Seed {seed}.",
        model_text(model),
    ]
    title = f"What a detector of {things.name} sees in other photographs"
    output.write(html_page(title, [head, *sections], foot, [path.name for path in output.pictures]))
    return counts, output


def read_folder(folder: Path) -> list[NamedImage]:
    """The pictures of a folder, at any depth, by path, as RGB and reduced to 320 pixels; unreadable ones are left out.

    Of more than 2,000 files so many are taken, evenly spaced.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder of pictures")
    found = []
    for file in image_files(folder, MOST_PHOTOGRAPHS):
        try:
            found.append(NamedImage(file, reduced(read_photograph(file, 3)[0])))
        except ImageError:
            continue
    return found


def _counts(
    detector: Detector,
    things: Sequence[NamedImage],
    others: Sequence[NamedImage],
    top: int,
    on_progress: Callable[[str], None],
) -> FiringCounts:
    on_progress(f"looking for the highest windows in {counted(len(others), 'photograph')}")
    threshold = float(np.median([score(detector, object_features(one.image)) for one in things]))
    fired, worst = 0, []
    for number, one in enumerate(others):
        detections = detect(detector, one.image, number, above=min(threshold, -1.0))
        fired += sum(found.score >= threshold for found in detections)
        worst += [(one, found) for found in detections[:1]]
    worst.sort(key=lambda pair: -pair[1].score)
    return FiringCounts(len(things), threshold, fired, len(others), worst[:top])


def _lead(things: Path, counts: FiringCounts) -> str:
    return (
        f"The median score of {counted(counts.things, 'held-out picture')} of {things.name} is {counts.threshold:.2f}. In "
        f"{counted(counts.photographs, 'photograph')} without them, {counted(counts.fired, 'window')} "
        f"{'scores' if counts.fired == 1 else 'score'} as high."
    )


def _detector_pictures(detector: Detector, learned: Sequence[np.ndarray], model: HogModel) -> list[Picture]:
    mean = np.mean([object_features(image) for image in learned], 0)
    return [
        _picture("Weights", glyphs(detector.weights), "edges that raise the score"),
        _picture("Mean HOG", glyphs(mean), "of the pictures learned from"),
        _picture("Mean HOG, inverted", quantise(0.5 + 0.2 * invert(mean, "paired", model))[None], MEANINGS["paired"]),
    ]


def _highest(rank: int, one: NamedImage, found: Detection, model: HogModel) -> Section:
    window = one.image[:, found.top : found.top + found.side, found.left : found.left + found.side]
    shade = grey(window)
    inverses = {
        method: quantise(shade.mean() + shade.std() * invert(found.features, method, model))[None] for method in _INVERTED
    }
    return Section(
        f"{rank}. Score {found.score:.2f}",
        pictures=[
            _picture("Window", window, one.file.name),
            _picture("HOG", glyphs(found.features), ""),
            *(_picture(f"Inverse, {method}", picture, "") for method, picture in inverses.items()),
        ],
    )


def _picture(title: str, image: np.ndarray, caption: str) -> Picture:
    return Picture(title, encode_png(np.ascontiguousarray(image)), caption, width=_SHOWN)
