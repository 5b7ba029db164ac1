"""The folder of a dream: its pictures, kept as they are made, and the settings that made them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evofool.errors import StoreError
from evofool.images import decode_png, save_png
from evofool.json_file import read_json, write_json

FILE, SCHEMA, VERSION = "dream.json", "evofool.dream", 1
"""The settings of the pictures in a folder."""


class DreamFolder:
    """Pictures by name, which a later dream of the same settings finds again.

    settings: all that determines the pictures, as JSON values. Nothing is written before `open`. StoreError for a path that
    is a file, and for a folder whose pictures have other settings or none.
    """

    def __init__(self, path: Path, settings: Mapping[str, str | int | float | None]) -> None:
        self.path, self._settings = path, dict(settings)
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file and cannot be a folder; name another by --out DIR")
        if (path / FILE).exists():
            earlier = read_json(path / FILE, SCHEMA, VERSION, "name another folder by --out DIR").get("settings")
            if not isinstance(earlier, dict):
                raise StoreError(f"{path / FILE} is damaged: it has no settings; name another folder by --out DIR")
            changed = [name for name, value in self._settings.items() if earlier.get(name) != value]
            if changed:
                raise StoreError(
                    f"{path} has pictures of another dream, {_difference(changed[0], earlier, self._settings)}; name "
                    "another folder by --out DIR"
                )
        elif path.exists() and any(path.glob("*.png")):
            raise StoreError(f"{path} has pictures that are not of a dream; name another folder by --out DIR")

    def open(self) -> None:
        """Create the folder and write the settings."""
        write_json(self.path / FILE, {"schema": SCHEMA, "version": VERSION, "settings": self._settings})

    def file(self, name: str) -> Path:
        return self.path / f"{name}.png"

    def has(self, name: str) -> bool:
        return self.file(name).exists()

    def get(self, name: str) -> np.ndarray:
        """uint8 (C, H, W); ImageError for a damaged file."""
        return decode_png(self.file(name).read_bytes(), str(self.file(name)))

    def add(self, name: str, image: np.ndarray) -> None:
        """Keep uint8 (C, H, W). An interruption leaves either the whole file or none."""
        save_png(image, self.file(name))


def _difference(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> str:
    if name in ("photograph", "target", "guide"):  # SHA-256, which tell a reader nothing
        return f"of another {name}"
    return f"with {name} {old.get(name)}, not {new[name]}"
