"""The folder of an explanation: its page, its pictures, and the pictures of an earlier explanation."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from evofool.errors import StoreError
from evofool.pages.html_page import Picture, files_of

PAGE = "index.html"


class ExplanationFolder:
    """Nothing is touched before the first `write`. That removes the pictures of the explanation that was here before, and
    no other file: a name that is taken gets a number. StoreError for a folder that cannot be, or holds another's page.

    pictures: the files of this explanation, in order.
    """

    def __init__(self, path: Path) -> None:
        standing = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not standing.is_dir():
            raise StoreError(f"{standing} is a file, so {path} cannot be a folder; name another by --out DIR")
        self.path, self.page = path, path / PAGE
        self.pictures: list[Path] = []
        self._earlier = self._left_behind()
        self._waiting: list[tuple[Path, bytes]] = []

    def add(self, part: str, pictures: Sequence[Picture]) -> None:
        """Names for a part's pictures, which the next `write` writes."""
        for picture in pictures:
            words = re.sub(r"[^a-z0-9]+", "-", f"{part} {picture.title}".lower()).strip("-")[:60] or "picture"
            file, number = self.path / f"{words}.png", 1
            while file in self.pictures or (file not in self._earlier and file.exists()):
                number += 1
                file = self.path / f"{words}-{number}.png"
            self.pictures.append(file)
            self._waiting.append((file, picture.png))

    def write(self, page: str) -> None:
        """The page, and the pictures that are new. Of two pages one is there whole, whenever this is ended."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # The page first: it tells of its pictures, so none is ever left that no page knows.
            draft = self.path / f".{PAGE}.new"
            draft.write_text(page, encoding="utf-8")
            for file in self._earlier:
                file.unlink(missing_ok=True)
            os.replace(draft, self.page)
            for file, png in self._waiting:
                file.write_bytes(png)
        except OSError as error:
            raise StoreError(f"{error.filename or self.path} cannot be written ({error.strerror or error})") from None
        self._earlier, self._waiting = set(), []

    def _left_behind(self) -> set[Path]:
        if not self.page.exists():
            return set()
        try:
            names = files_of(self.page.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing that can be read, or no text
            names = None
        if names is None:
            raise StoreError(
                f"{self.page} is no page of `evofool explain` and is left alone; name another folder by --out DIR"
            )
        return {self.path / name for name in names}
