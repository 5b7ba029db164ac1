"""The folder of an explanation: its page, its pictures, and the pictures of an earlier explanation."""

import re
from collections.abc import Sequence
from pathlib import Path

from evofool.errors import StoreError
from evofool.pages.html_page import Picture, files_of, is_unfinished
from evofool.whole_file import whole_file, write_whole

PAGE = "index.html"


class ExplanationFolder:
    """A folder that does not change before the first `write`, which removes the pictures of an earlier explanation.

    No other file is removed or overwritten: a name that is in use gets a number. StoreError for a folder that cannot be
    created, and for one with a page that evofool did not write.

    pictures: the files of this explanation, in order. keeps: an earlier page is finished, and stays until one is
    written that is finished, too.
    """

    def __init__(self, path: Path) -> None:
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not existing.is_dir():
            raise StoreError(f"{existing} is a file, so {path} cannot be a folder; name another by --out DIR")
        self.path, self.page = path, path / PAGE
        self.pictures: list[Path] = []
        self.keeps = False
        self._earlier = self._left_behind()
        self._waiting: list[tuple[Path, bytes]] = []

    def add(self, part: str, pictures: Sequence[Picture]) -> None:
        """Names for a part's pictures, which the next `write` writes."""
        for picture in pictures:
            slug = re.sub(r"[^a-z0-9]+", "-", f"{part} {picture.title}".lower()).strip("-")[:60] or "picture"
            file, number = self.path / f"{slug}.png", 1
            while file in self.pictures or (file not in self._earlier and file.exists()):
                number += 1
                file = self.path / f"{slug}-{number}.png"
            self.pictures.append(file)
            self._waiting.append((file, picture.png))

    def write(self, page: str) -> None:
        """Write the page and the new pictures. An interruption leaves either the earlier page or the new one, complete.

        Nothing is written for an unfinished page where an earlier one is finished; the pictures wait for the next page.
        """
        if self.keeps and is_unfinished(page):
            return
        self.keeps = False
        # The page first: it lists its pictures, so that no picture is ever left without a page that lists it.
        with whole_file(self.page) as draft:
            draft.write_text(page, encoding="utf-8")
            for file in self._earlier:
                file.unlink(missing_ok=True)
        for file, png in self._waiting:
            write_whole(file, png)
        self._earlier, self._waiting = set(), []

    def _left_behind(self) -> set[Path]:
        if not self.page.exists():
            return set()
        try:
            page = self.page.read_text(encoding="utf-8")
            names, self.keeps = files_of(page), not is_unfinished(page)
        except (OSError, ValueError):  # unreadable, or not text
            names = None
        if names is None:
            raise StoreError(f"{self.page} was not written by evofool and is not changed; name another folder by --out DIR")
        return {self.path / name for name in names}
