"""A chair that becomes another one, and sums of chairs: pictures from mixed features (Dosovitskiy 2015, section 5)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evofool.errors import ImageError
from evofool.explain.chairs.generator import ChairGenerator
from evofool.explain.chairs.renderer import AZIMUTHS, ELEVATIONS, render, view_grid
from evofool.explain.chairs.styles import random_styles
from evofool.explain.folder import ExplanationFolder
from evofool.images import encode_png, resized
from evofool.pages.animation import write_animation
from evofool.pages.html_page import Picture, Section, html_page

SOURCE = "Dosovitskiy, Springenberg & Brox 2015, Learning to generate chairs with convolutional networks, section 5."
_ENLARGED = 4
_STEPS = 6  # of the page, which has so many pictures in a row
_FRAMES = 25  # of the animation, one way


@dataclass(frozen=True)
class MorphOutput:
    """What morph_page has written. error: of the drawn pictures on the way, against rendered chairs of the mixed
    parameters; fade: the same of mixed pictures. Both are means of squares, of values on [0, 1]."""

    page: Path
    animation: Path
    pictures: list[Path]
    error: float
    fade: float


def chair_number(generator: ChairGenerator, text: str | int) -> int:
    """The number of a chair; ImageError for what is none."""
    count = generator.layout.styles
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < count:
        raise ImageError(f'there is no chair "{text}": they are numbered 0 to {count - 1}')
    return number


def mixed_features(generator: ChairGenerator, weights: np.ndarray) -> np.ndarray:
    """float32 (N, wide): the chairs' features, weighted and added. weights: (N, styles), rows of which the sum is 1."""
    return (weights @ generator.features()).astype(np.float32)


def morph(generator: ChairGenerator, first: int, last: int, view: np.ndarray, *, frames: int = _FRAMES) -> np.ndarray:
    """uint8 (frames, 3, S, S): from one chair to another in equal steps of their features; view: (2,), degrees.

    ImageError for a number that no chair has.
    """
    features = mixed_features(generator, _way(generator, first, last, frames))
    return generator.draw(features, np.tile(view, (frames, 1))).images


def morph_page(
    generator: ChairGenerator, first: int, last: int, folder: Path, *, azimuth: int = 4, elevation: int = 0
) -> MorphOutput:
    """Write a page and morph.gif, there and back, to a folder.

    azimuth, elevation: numbers of a view, of renderer.AZIMUTHS and ELEVATIONS. ImageError for a number that no chair has.
    """
    output = ExplanationFolder(folder)
    views_of = view_grid().reshape(len(ELEVATIONS), AZIMUTHS, 2)
    view = views_of[elevation, azimuth]
    weights = _way(generator, first, last, _STEPS)
    views = np.tile(view, (_STEPS, 1))
    drawn = generator.draw(mixed_features(generator, weights), views).images
    true = render(weights @ _styles(generator), views, size=generator.layout.size).images
    share = np.linspace(0, 1, _STEPS)[:, None, None, None]
    faded = (1 - share) * true[0] + share * true[-1]
    shares = [f"{round(100 * k / (_STEPS - 1))}%" for k in range(_STEPS)]
    round_views = views_of[elevation, : AZIMUTHS - 1 : 5]
    middle = mixed_features(generator, np.tile(weights[[0, -1]].mean(0), (len(round_views), 1)))
    between = slice(1, -1)
    error, fade = squared_error(drawn[between], true[between]).mean(), squared_error(faded[between], true[between]).mean()
    sections = [
        Section(
            "",
            [
                "The network knows chairs by number, from pictures alone. Between two of them it draws the mean of their "
                "features, which it never saw. The chairs are made of boxes, so the chair between, with the mean of the two "
                "chairs' lengths and colours, can be rendered beside it."
            ],
            SOURCE,
            lead=f"On the way the drawn pictures differ from rendered ones by {error:.4f}, a cross-fade by {fade:.4f} "
            "(mean square).",
        ),
        Section(f"Chair {first} to chair {last}, drawn", pictures=_pictures("Drawn", shares, drawn)),
        Section("The same way, rendered", pictures=_pictures("Rendered", shares, true)),
        Section(
            "Half way, turned",
            pictures=_pictures(
                "Turned", [f"{round(v[0])}°" for v in round_views], generator.draw(middle, round_views).images
            ),
        ),
    ]
    for section in sections:
        output.add("", section.pictures)
    frames = morph(generator, first, last, view)
    animation = folder / "morph.gif"
    write_animation(animation, map(_large, [*frames, *frames[-2:0:-1]]))
    notes = [
        f"Seen from {round(view[0])}° to its side and {round(view[1])}° above.",
        f"{animation.name}, beside this page, is the way there and back in {2 * len(frames) - 2} frames.",
    ]
    title = f"Chair {first} becomes chair {last}"
    output.write(html_page(title, sections, notes, [path.name for path in output.pictures]))
    return MorphOutput(output.page, animation, output.pictures, float(error), float(fade))


def squared_error(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean square of the difference of images, 0 to 255, over all but the first axes (..., C, H, W), on [0, 1]."""
    return np.square((images.astype(np.float32) - others) / 255).mean((-3, -2, -1))


def _way(generator: ChairGenerator, first: int, last: int, steps: int) -> np.ndarray:
    first, last = chair_number(generator, first), chair_number(generator, last)
    weights = np.zeros((steps, generator.layout.styles))
    share = np.linspace(0, 1, steps)
    weights[:, first] += 1 - share
    weights[:, last] += share
    return weights


def _styles(generator: ChairGenerator) -> np.ndarray:
    return random_styles(generator.layout.styles, generator.layout.seed)


def _pictures(title: str, captions: list[str], images: np.ndarray) -> list[Picture]:
    return [
        Picture(f"{title}, {caption}", encode_png(image), "", width=2 * image.shape[2])
        for caption, image in zip(captions, images, strict=True)
    ]


def _large(image: np.ndarray) -> np.ndarray:
    channels, height, width = image.shape
    return resized(image, (channels, _ENLARGED * height, _ENLARGED * width))
