"""Files of reports and explanations, as they are, under a policy that lets no script run."""

from pathlib import PurePosixPath

from starlette.exceptions import HTTPException
from starlette.responses import Response

from evofool.explain.folder import PAGE
from evofool.gallery.catalogue import REPORT, Entry
from evofool.gallery.security import REPORT_POLICY

TYPES = {".html": "text/html; charset=utf-8", ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif"}
"""By suffix of the files that are shown."""
_LARGEST = 1 << 28  # bytes


def page(entry: Entry, path: str) -> Response:
    """A page or a picture of a report or an explanation; path: relative to its folder, empty for its first page.

    404 for anything else: other kinds of files, and paths that lead out of the folder, also through links.
    """
    name = path or (REPORT if entry.kind == "bench" else PAGE)
    headers = {"content-security-policy": REPORT_POLICY}
    content = file_of(entry, name)
    return Response(content, media_type=TYPES[PurePosixPath(name).suffix], headers=headers)


def file_of(entry: Entry, name: str) -> bytes:
    """The content of a page or a picture, as of `page`; name: relative to the folder."""
    asked = PurePosixPath(name)
    kind = TYPES.get(asked.suffix)
    missing = HTTPException(404, "There is no such page or picture in this folder.")
    if kind is None or asked.is_absolute() or ".." in asked.parts or "\\" in name or "\0" in name:
        raise missing
    folder = entry.folder.resolve()
    try:
        file = folder.joinpath(*asked.parts).resolve()
        if not file.is_relative_to(folder) or not file.is_file() or file.stat().st_size > _LARGEST:
            raise missing
        return file.read_bytes()
    except OSError:  # a name that is too long, or a file that may not be read
        raise missing from None
