"""Images that were chosen in a grid, for a download: which ones an address names."""

import re

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

_MOST = 100_000  # cells
_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


def chosen_cells(query: QueryParams) -> set[int]:
    """The cells of `cells=0-9,12` and of each `cell=3`. HTTPException 400 for none, too many, or what is no such list."""
    cells: set[int] = set()
    count = 0  # of numbers in all parts, so that repeated ranges cost nothing
    for part in [*query.getlist("cell"), *filter(None, ",".join(query.getlist("cells")).split(","))]:
        found = _PART.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise HTTPException(400, "A selection is a list of cells, such as cells=0-9,12.")
        count += last - first + 1
        if count > _MOST:
            raise HTTPException(400, f"A selection has at most {_MOST:,} images.")
        cells.update(range(first, last + 1))
    if not cells:
        raise HTTPException(400, "Choose images to export: tick them in the grid.")
    return cells
