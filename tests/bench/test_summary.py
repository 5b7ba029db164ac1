"""What was stated beforehand is printed as it came out, whichever way."""

from typing import Any

import pytest

from evofool.bench.plan import parse
from evofool.bench.summary import summary

RECIPE = parse(
    {
        "images": "digits",
        "targets": [
            {"train": "none", "name": "plain", "copies": 5},
            {"train": "outlier-exposure", "name": "hard", "copies": 5, "defends": "plain"},
        ],
        "arms": ["cppn", "nes", "random", "noise"],
        "budgets": [100, 1000],
    },
    "here",
)


def arm(kind: str, shares: list[float], q50: float | None = 300.0, censored: int = 0) -> dict[str, Any]:
    points = [
        {"queries": q, "value": share, "low": None, "high": None} for q, share in zip((100, 1000), shares, strict=True)
    ]
    q = {"value": q50, "bound": ">=" if censored else "=", "low": None, "high": None, "censored": censored}
    return {"kind": kind, "seeds": [0], "r95": points, "q50": q}


def result(
    group: str = "", q50: float | None = 300.0, censored: int = 0, valid: bool = True, **changes: Any
) -> dict[str, Any]:
    arms = {
        "cppn": arm("search", [0.3, 0.9], q50, censored),
        "nes": arm("black", [0.2, 0.8]),
        "random": arm("black", [0.1, 0.1]),
        "noise": arm("floor", [0.1, 0.1]),
    } | changes.pop("arms", {})
    control = {"accepted": 0.95, "images": 100, "standard_error": 0.01, "holds": True} | changes.pop("control", {})
    scores = {"controls": {"real": control}, "arms": arms, "detectors": changes.pop("detectors", [])}
    return {"valid": valid, "target": {"name": "x", "group": group}, "scores": scores}


def said(results: dict[str, Any], words: str) -> dict[str, Any]:
    (found,) = [one for one in summary(RECIPE, results)["statements"] if words in one["statement"]]
    return found


def test_evolution_against_random_search_is_held_or_missed_budget_by_budget():
    assert said({"a": result()}, "than random search")["held"] is True
    tie = result(arms={"cppn": arm("search", [0.1, 0.9])})
    told = said({"a": result(), "b": tie}, "than random search")
    assert told["held"] is False
    assert "at 100 on 1 of 2 targets" in told["figures"]
    assert "b at 100 (0.10, 0.10)" in told["figures"]


def test_noise_has_to_be_below_every_searching_arm_and_random_is_none():
    told = said({"a": result()}, "noise is accepted in fewer")
    assert told["held"] is True
    assert "do no better than noise on 1" in told["figures"]
    low = result(arms={"nes": arm("black", [0.0, 0.1])})
    assert said({"a": low}, "noise is accepted in fewer")["held"] is False


Networks = list[tuple[float | None, int]]  # Q50 and how many seeds of it are censored


def networks(plain: Networks, hard: Networks) -> dict[str, Any]:
    told = {f"plain-{k}": result("plain", *one) for k, one in enumerate(plain)}
    return told | {f"hard-{k}": result("hard", *one) for k, one in enumerate(hard)}


def exact(*q50: float) -> Networks:
    return [(q, 0) for q in q50]


def test_a_defence_is_judged_by_independently_trained_networks():
    told = said(networks(exact(*[100] * 5), exact(*[250] * 5)), "at least 2 times")
    assert told["held"] is True
    assert "2.50 times [2.50, 2.50] (5 and 5 independently trained networks)" in told["figures"]
    assert said(networks(exact(*[100] * 5), exact(*[150] * 5)), "at least 2 times")["held"] is False
    few = said(networks(exact(*[100] * 3), exact(*[900] * 3)), "at least 2 times")
    assert few["held"] is None
    assert "needs 5 of each" in few["figures"]


SPREAD = exact(90, 100, 110, 95, 105)


@pytest.mark.parametrize(
    ("plain", "hard", "held", "words"),
    [
        (exact(*[600] * 5), [(None, 5)] * 5, None, ">= 1.67 times [1.67 and more] ("),
        (exact(*[100] * 5), [(None, 5)] * 5, True, ">= 10.00 times"),
        (SPREAD, [*SPREAD[1:], (500, 2)], None, ">= 1.4"),
        (SPREAD, [(300, 1), *exact(300, 300, 300, 300)], True, ">= 3."),
        ([(300, 1), *exact(310, 290, 300, 300)], exact(*[705] * 5), None, "<= 2.35 times [at most 2."),
        ([(300, 1), *exact(310, 290, 300, 300)], exact(*[450] * 5), False, "<= 1.50 times [at most 1."),
        ([(None, 5)] * 5, [(None, 5)] * 5, None, "unknown (5 and 5"),
        ([(900, 1)] * 5, [(950, 2)] * 5, None, "unknown (5 and 5"),
    ],
)
def test_a_bound_from_below_never_misses_and_one_from_above_never_holds(
    plain: Networks, hard: Networks, held: bool | None, words: str
):
    told = said(networks(plain, hard), "at least 2 times")
    assert told["held"] is held
    assert words in told["figures"]
    assert ("a larger one would tell" in told["figures"]) == (held is None)


def test_a_group_is_told_with_an_interval_over_networks():
    groups = summary(RECIPE, networks(exact(100, 200, 400, 100, 200), exact(*[250] * 5)))["groups"]
    told = groups["plain"]["arms"]["cppn"]["q50"]
    assert (told["networks"], told["censored"], told["bound"]) == (5, 0, "=")
    assert told["low"] < told["value"] < told["high"]
    assert told["value"] == pytest.approx((100 * 200 * 400 * 100 * 200) ** 0.2)


def test_a_group_with_censored_networks_is_a_bound_and_with_nothing_else_beyond_the_budget():
    def told(plain: Networks) -> dict[str, Any]:
        groups = summary(RECIPE, networks(plain, exact(*[250] * 5)))["groups"]
        assert list(groups["plain"]["networks"]["cppn"]) == [f"plain-{k}" for k in range(5)]
        found: dict[str, Any] = groups["plain"]["arms"]["cppn"]["q50"]
        return found

    assert told([(None, 5)] * 5) == {
        "value": None, "bound": ">=", "low": 1000, "high": None, "networks": 5, "censored": 5,
    }  # fmt: skip
    some = told([(None, 5), (400, 1), *exact(100, 200, 300)])
    assert (some["bound"], some["high"], some["censored"]) == (">=", None, 2)
    assert some["value"] == pytest.approx((1000 * 400 * 100 * 200 * 300) ** 0.2)


def test_an_adaptive_attack_is_held_against_the_static_one_by_detector():
    def rows(static: float, adaptive: float) -> list[dict[str, Any]]:
        return [
            {"detector": "energy", "kind": "static", "auroc": static},
            {"detector": "energy", "kind": "adaptive", "auroc": adaptive},
            {"detector": "msp", "kind": "static", "auroc": 0.9},
        ]

    held = said({"a": result(detectors=rows(0.9, 0.4))}, "energy: evolving against it")
    assert held["held"] is True
    assert "mean 0.900 static, 0.400 adaptive" in held["figures"]
    missed = said({"a": result(detectors=rows(0.9, 0.4)), "b": result(detectors=rows(0.5, 0.6))}, "energy: evolving")
    assert missed["held"] is False


def test_what_is_invalid_enters_nothing():
    told = summary(RECIPE, {"a": result(), "b": result(valid=False, arms={"cppn": arm("search", [0.0, 0.0])})})
    assert told["invalid"] == ["b"]
    (statement,) = [one for one in told["statements"] if "than random search" in one["statement"]]
    assert statement["held"] is True


def test_the_positive_control_is_told_of_all_targets_that_have_one():
    off = result(valid=False, control={"accepted": 0.8, "holds": False})
    told = said({"a": result(), "b": off}, "of the disjoint half")
    assert told["held"] is False
    assert "0.800 to 0.950 on 2 targets" in told["figures"]
    assert said({"a": result()}, "of the disjoint half")["figures"] == "0.950 on 1 target"
