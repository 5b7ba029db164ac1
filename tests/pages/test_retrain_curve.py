"""The curve of a retraining: its axes include all values, and its line is labelled."""

from typing import Any

import pytest

from evofool.pages import retrain_curve as module
from evofool.pages.confidence_axis import to_log_odds
from evofool.pages.retrain_curve import retrain_curve


def row(iteration: int, median: float, recalled: float | None) -> dict[str, Any]:
    limits = {"low": median - 0.1, "high": median + 0.01}
    return {
        "iteration": iteration,
        "accuracy": [0.99],
        "median": median,
        "of_images": limits,
        "confidences": [[median - 0.2, median]],
        "paper_recalled": recalled,
    }


def test_the_paper_s_points_lie_on_the_plot_although_the_measured_ones_are_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "png", lambda figure, axes: drawn.append(axes) or b"")
    retrain_curve([row(1, 0.9, 0.9999), row(2, 0.7, 0.8)])
    ((upper, lower),) = drawn
    assert upper.get_ylim()[1] > to_log_odds(0.9999)
    assert "required accuracy, 0.98" in lower.get_legend_handles_labels()[1]


def test_without_rows_there_is_no_curve() -> None:
    with pytest.raises(ValueError, match="at least one iteration"):
        retrain_curve([])
