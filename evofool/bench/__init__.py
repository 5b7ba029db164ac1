"""The protocol that scores how well classifiers resist fooling: arms, transfer, detectors, statistics, report, gate.

load_bench() reads a benchmark's recipe; run_bench() carries it out. Both are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from evofool.lazy import lazy

if TYPE_CHECKING:
    from evofool.bench.bench import run_bench as run_bench
    from evofool.bench.plan import BenchRecipe as BenchRecipe
    from evofool.bench.plan import load as load_bench
    from evofool.sweep.runner import WorkProgress as WorkProgress
else:
    __getattr__ = lazy(
        __name__,
        {
            "BenchRecipe": "evofool.bench.plan",
            "WorkProgress": "evofool.sweep.runner",
            "load_bench": "evofool.bench.plan:load",
            "run_bench": "evofool.bench.bench",
        },
    )

__all__ = ["BenchRecipe", "WorkProgress", "load_bench", "run_bench"]
