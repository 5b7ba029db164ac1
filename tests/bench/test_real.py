"""Labelled real images: the hash of their files."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from evofool.bench.real import RealImages, content_sha256


def test_the_hash_of_files_depends_on_bytes_and_labels_alone(tmp_path: Path) -> None:
    """Not on their names and order, nor on the number that a target gives to a class."""
    draw = np.random.default_rng(0)

    def made(folder: str, names: list[str], changed: bool = False) -> tuple[RealImages, Path]:
        files = [tmp_path / folder / name for name in names]
        (tmp_path / folder).mkdir()
        for k, file in enumerate(files):
            file.write_bytes(bytes([k, changed and k == 1]))
        return RealImages(folder, np.array([0, 0, 1]), lambda batch: iter(()), tuple(files)), files[0]

    first, file = made("a", ["x.png", "y.png", "z.png"])
    wanted = content_sha256(first, ["cat", "dog"])
    same, _ = made("b", ["3.png", "2.png", "1.png"])
    assert content_sha256(same, ["cat", "dog"]) == wanted
    turned = replace(same, classes=np.array([1, 0, 0]), files=same.files[::-1])
    assert content_sha256(turned, ["cat", "dog"]) == wanted
    assert content_sha256(replace(same, classes=np.array([1, 1, 0])), ["dog", "cat"]) == wanted
    assert content_sha256(same, ["cat", "cow"]) != wanted
    assert content_sha256(made("c", ["x.png", "y.png", "z.png"], changed=True)[0], ["cat", "dog"]) != wanted
    file.unlink()
    assert content_sha256(first, ["cat", "dog"]) == ""
    pixels = [draw.integers(0, 256, (3, 1, 4, 4), np.uint8) for _ in range(2)]
    unnamed = [
        content_sha256(RealImages("digits", np.arange(3), lambda batch, part=part: iter([(part, np.arange(3))])), "abc")
        for part in (*pixels, pixels[0])
    ]
    assert unnamed[0] == unnamed[2] != unnamed[1]
