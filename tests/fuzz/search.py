"""Draws cases of an area, the same ones for the same seed."""

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.room import Area


def draw(area: Area, examples: int, seed: int | None, take: Callable[[Any], None], shrink: bool = False) -> None:
    """Call take for so many cases. seed None: the cases that hypothesis derives from this package alone."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=seed is None, phases=phases, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(area.cases)
    def each(case: Any) -> None:
        take(case)

    if seed is not None:
        each = hypothesis.seed(seed)(each)
    each()
