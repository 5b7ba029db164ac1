"""The picture of docs/fooling-set.md: images of one digit network and of two networks of ImageNet, by arm.

python -m tests.perf.findings.picture SET docs/fooling-set.jpg

Seed 0: the ten digits of undefended-1, and the ten images of which SqueezeNet and EfficientNet-Lite0 are surest.
"""

import argparse
from pathlib import Path
from typing import Any

from PIL import Image

from evofool.fooling_set.rows import COLUMNS
from evofool.fooling_set.table import read_table
from evofool.images import decode_png
from evofool.pages.sheet import Tile, contact_sheet
from tests.perf.findings.common import ARMS

DIGITS, NETWORKS = "undefended-1", ("torchvision_squeezenet1_0", "efficientnet-lite0")
ON_PHOTOGRAPHS = ("cppn", "canvas", "apgd")
COLUMNS_SHOWN, SIDE, SCALE = 10, 110, 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    rows = read_table(given.set, COLUMNS, images=True)
    tiles = [tile(row) for arm in ARMS for row in of_cell(rows, DIGITS, arm)]
    for network in NETWORKS:
        for arm in ON_PHOTOGRAPHS:
            surest = sorted(of_cell(rows, network, arm), key=lambda row: -row["confidence"])
            tiles += [tile(row) for row in surest[:COLUMNS_SHOWN]]
    sheet = contact_sheet(tiles, COLUMNS_SHOWN, SIDE).convert("RGB")
    smaller = sheet.resize((round(sheet.width * SCALE), round(sheet.height * SCALE)), Image.Resampling.LANCZOS)
    smaller.save(given.picture, quality=72, optimize=True)


def of_cell(rows: list[dict[str, Any]], classifier: str, arm: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["classifier"], row["arm"], row["seed"]) == (classifier, arm, 0)]


def tile(row: dict[str, Any]) -> Tile:
    image = decode_png(row["image"]["bytes"], row["id"])
    if len(image) == 1:  # pixels of digits are shown large
        image = image.repeat(3, axis=0).repeat(5, axis=1).repeat(5, axis=2)
    return Tile(image, f"{row['arm']}: {row['label_name']}", row["confidence"])


if __name__ == "__main__":
    main()
