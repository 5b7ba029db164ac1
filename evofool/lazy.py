"""Names of a package that are imported when they are first used, so that importing the package is quick."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a package. homes: by public name the module that defines it, "module" or "module:other_name".

    AttributeError for any other name, with those that there are.
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"{package} has no {name!r}; it has {', '.join(homes)}")
        module, _, attribute = homes[name].partition(":")
        found = import_module(module)
        return found if found.__name__ == f"{package}.{name}" else getattr(found, attribute or name)

    return getattribute
