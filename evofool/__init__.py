"""evofool: evolve images that a classifier is sure about and that are nothing of the kind.

    import evofool
    run = evofool.Run.start(evofool.load_recipe("mnist-cppn"), "runs/mine")
    run.advance()
    run.archive.best()

Names are loaded when they are first used, so `import evofool` is quick and loads neither torch nor ray.
"""

import os
from importlib import import_module
from typing import Any

# MKL, which multiplies matrices for torch on x86 processors, rounds a row of a product by where it lies, unless this is
# set before the first product of the process (evofool.machine.mkl_mode). A value that the user has set stands.
os.environ.setdefault("MKL_CBWR", "AUTO")

_HOMES = {
    "Run": "evofool.run.run",
    "load_recipe": "evofool.recipe",
    "Recipe": "evofool.recipe",
    "target": "evofool.targets",
    "Target": "evofool.targets",
    "Preprocessing": "evofool.targets",
    "EvofoolError": "evofool.errors",
    "StoredRun": "evofool.run.stored",
}

__all__ = ["EvofoolError", "Preprocessing", "Recipe", "Run", "StoredRun", "Target", "load_recipe", "target"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"evofool has no {name!r}; it has {', '.join(__all__)}")
    home = import_module(_HOMES[name])
    return getattr(home, "load" if name == "load_recipe" else name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
