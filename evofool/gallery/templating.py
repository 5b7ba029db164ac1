"""The templates of all pages, and the folder of the files that they load."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from evofool.gallery.pages import filters

STATIC = Path(__file__).parent / "static"


def environment(static: bool = False) -> Environment:
    """Values are escaped, and one that is missing is an error. static: as of filters."""
    found = Environment(
        loader=PackageLoader("evofool.gallery"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.filters.update(filters(static))
    return found
