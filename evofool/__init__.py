"""evofool: evolve images that a classifier is sure about and that were not drawn to show anything.

    import evofool

    target = evofool.Target.from_module(
        my_network, labels, shape=(1, 28, 28), preprocessing=evofool.Preprocessing(mean=(0.1307,), std=(0.3081,))
    )
    recipe = evofool.load_recipe("mnist-cppn", ["stop.evaluations=2000"])
    with evofool.Run.start(recipe, "runs/mine", target) as run:
        run.advance()
        print(run.best())  # log-odds of each class's best image

Names are loaded when they are first used: `import evofool` is quick and loads neither torch nor ray.
"""

import os
from typing import TYPE_CHECKING

from evofool.lazy import lazy

__version__ = "0.2.0"

# MKL, which multiplies matrices for torch on x86 processors, rounds a row of a product by where it lies, unless this is
# set before the first product of the process (evofool.machine.mkl_mode). A value that the user has set stands.
os.environ.setdefault("MKL_CBWR", "AUTO")
# cuBLAS's, without which products in several streams of a GPU may differ in their last bits (evofool.targets.cuda).
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if TYPE_CHECKING:
    from evofool import bench as bench
    from evofool import explain as explain
    from evofool.errors import EvofoolError as EvofoolError
    from evofool.recipe import Recipe as Recipe
    from evofool.recipe import load as load_recipe
    from evofool.run.run import Run as Run
    from evofool.run.stored import StoredRun as StoredRun
    from evofool.run.verify import verify as verify
    from evofool.targets import Preprocessing as Preprocessing
    from evofool.targets import Target as Target
    from evofool.targets import target as target
else:
    __getattr__ = lazy(
        __name__,
        {
            "EvofoolError": "evofool.errors",
            "Preprocessing": "evofool.targets",
            "Recipe": "evofool.recipe",
            "Run": "evofool.run.run",
            "StoredRun": "evofool.run.stored",
            "Target": "evofool.targets",
            "bench": "evofool.bench",
            "explain": "evofool.explain",
            "load_recipe": "evofool.recipe:load",
            "target": "evofool.targets",
            "verify": "evofool.run.verify",
        },
    )

__all__ = [
    "EvofoolError",
    "Preprocessing",
    "Recipe",
    "Run",
    "StoredRun",
    "Target",
    "__version__",
    "bench",
    "explain",
    "load_recipe",
    "target",
    "verify",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
