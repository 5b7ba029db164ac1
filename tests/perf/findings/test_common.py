"""The verdicts on statements of docs/findings.md."""

import math

import pytest

from tests.perf.findings.common import interval, judge


def test_the_interval_is_student_s() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == pytest.approx((2.0, 4.302653 / math.sqrt(3)), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


@pytest.mark.parametrize(
    ("values", "limits", "verdict"),
    [
        ([1.0, 1.1, 1.2], {"above": 0.5}, "held"),
        ([1.0, 1.1, 1.2], {"above": 2.0}, "refuted"),
        ([1.0, 1.1, 1.2], {"above": 1.1}, "not shown"),
        ([1.0, 1.1, 1.2], {"below": 2.0}, "held"),
        ([1.0, 1.1, 1.2], {"below": 0.5}, "refuted"),
        ([1.0, 1.1, 1.2], {"below": 1.1}, "not shown"),
        ([1.0, 1.0, 1.0], {"above": 1.0}, "not shown"),
        ([1.0, 1.0, 1.0], {"below": 1.0}, "not shown"),
        ([1.0, 1.0, 1.0], {"above": 0.9}, "held"),
        ([1.0, math.nan, 1.0], {"above": 0.5}, "not shown"),
    ],
)
def test_a_statement_is_judged_by_its_interval(values: list[float], limits: dict[str, float], verdict: str) -> None:
    assert judge(0, "a number", values, **limits) == verdict  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{}, {"above": 1.0, "below": 2.0}])
def test_a_statement_has_one_limit(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one limit"):
        judge(0, "a number", [1.0, 2.0], **limits)  # type: ignore[arg-type]
