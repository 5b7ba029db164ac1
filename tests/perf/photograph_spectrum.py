"""Measure the Fourier magnitude of photographs that the attack `maco` holds fixed, and write the file that is shipped.

    python -m tests.perf.photograph_spectrum                a second of a core

Six colour photographs of scikit-image (astronaut, chelsea, coffee, rocket: public domain or CC0) and scikit-learn (china,
flower: CC BY 2.0), as the squares along their longer side, of 256 x 256 pixels.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage
import sklearn.datasets
from PIL import Image

from evofool.ascend import spectrum
from evofool.images import from_pil

SIDE = 256
FROM_SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
FROM_SKLEARN = ("china.jpg", "flower.jpg")
SQUARES = 3  # of a photograph, evenly spread


def files() -> list[Path]:
    """The photographs."""
    theirs = [Path(skimage.__file__).parent / "data" / name for name in FROM_SKIMAGE]
    return theirs + [Path(sklearn.datasets.__file__).parent / "images" / name for name in FROM_SKLEARN]


def squares(file: Path) -> list[np.ndarray]:
    """uint8 (3, 256, 256) each; one for a photograph that is square."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    side = min(picture.size)
    lefts = {round(k * (picture.width - side) / (SQUARES - 1)) for k in range(SQUARES)}
    tops = {round(k * (picture.height - side) / (SQUARES - 1)) for k in range(SQUARES)}
    boxes = [(left, top, left + side, top + side) for left in sorted(lefts) for top in sorted(tops)]
    return [from_pil(picture.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for box in boxes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=spectrum.SHIPPED)
    args = parser.parse_args()
    each = [squares(file) for file in files()]
    # Every photograph has the same weight, whatever its shape.
    tables = [spectrum.measure_photographs(of_one) for of_one in each]
    spectrum.write_table(args.out, np.log(np.exp(tables).mean(0)), [file.name for file in files()])
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
