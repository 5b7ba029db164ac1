"""The templates of all pages, and the folder of the files that they load."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from evofool.gallery.pages import FILTERS

STATIC = Path(__file__).parent / "static"


def environment() -> Environment:
    """Values are escaped, and one that is missing is an error."""
    found = Environment(
        loader=PackageLoader("evofool.gallery"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.filters.update(FILTERS)
    return found
