"""Kernels that a first run compiles in another process, while this one imports torch and loads its target."""

import numpy as np

from evofool import scores
from genomes import compilation
from genomes.cppn import render_numba

STAGES = (
    "genomes.cppn.first_calls:random",
    "genomes.cppn.first_calls:programs",
    f"{__name__}:first_scores",
    "genomes.cppn.first_calls:vary",
    "genomes.cppn.first_calls:render",
)
"""In the order in which a run needs them; the last one takes longest, and until it is done numpy draws."""


def compile_ahead(encoding: str) -> None:
    """Begin to compile the kernels of an encoding (a recipe's encoding.kind) that are not on disk yet; return at once.

    Of CPPNs, and of canvases, which begin as CPPNs. Other encodings compile little.
    """
    if encoding in ("cppn", "canvas"):
        compilation.begin(STAGES, last=render_numba.kernel)


def first_scores() -> None:
    """Compile the kernels of evofool.scores."""
    logits = np.zeros((1, 2), np.float32)
    scores.log_odds(logits)
    scores.margin(logits)
