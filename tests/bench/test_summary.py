"""The outcomes of statements made beforehand, and intervals over groups of networks."""

from typing import Any

import pytest

from evofool.bench.plan import parse
from evofool.bench.summary import summary

RECIPE = parse(
    {
        "images": "digits",
        "targets": [
            {"train": "none", "name": "undefended", "copies": 5},
            {"train": "outlier-exposure", "name": "hard", "copies": 5, "defends": "undefended"},
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
    control = {"accepted": 0.95, "images": 100, "standard_error": 0.01, "met": True} | changes.pop("control", {})
    scores = {"controls": {"real": control}, "arms": arms, "detectors": changes.pop("detectors", [])}
    return {"valid": valid, "target": {"name": "x", "group": group}, "scores": scores}


def statement(results: dict[str, Any], part: str) -> dict[str, Any]:
    (found,) = [row for row in summary(RECIPE, results)["statements"] if part in row["statement"]]
    return found


def test_evolution_is_compared_with_random_search_at_every_budget():
    assert statement({"a": result()}, "than random search")["met"] is True
    tie = result(arms={"cppn": arm("search", [0.1, 0.9])})
    found = statement({"a": result(), "b": tie}, "than random search")
    assert found["met"] is False
    assert "at 100 on 1 of 2 targets" in found["figures"]
    assert "b at 100 (0.10, 0.10)" in found["figures"]


def test_noise_has_to_be_below_the_strongest_arm_that_searches():
    found = statement({"a": result()}, "noise fools fewer")
    assert found["met"] is True
    assert "fool no more classes than noise on 1" in found["figures"]
    one_low = result(arms={"nes": arm("black", [0.0, 0.1])})
    assert statement({"a": one_low}, "noise fools fewer")["met"] is True
    all_low = result(arms={"nes": arm("black", [0.0, 0.1]), "cppn": arm("search", [0.0, 0.05])})
    found = statement({"a": result(), "b": all_low}, "noise fools fewer")
    assert found["met"] is False
    assert "on 1 of 2 targets; not on b (0.10, nes 0.10)" in found["figures"]


def test_where_nothing_is_fooled_at_all_statements_are_undecided():
    nothing = result(arms={name: arm("search", [0.0, 0.0]) for name in ("cppn", "nes", "random", "noise")})
    for part in ("noise fools fewer", "than random search"):
        assert statement({"a": nothing}, part)["met"] is None
        found = statement({"a": result(), "b": nothing}, part)
        assert found["met"] is None
        assert "undecided" in found["figures"]
        assert "b" in found["figures"].partition("undecided")[2]
    early = result(arms={name: arm("search", [0.0, 0.5 * (name == "cppn")]) for name in ("cppn", "random")})
    found = statement({"a": early}, "than random search")
    assert (found["met"], "undecided, since both fool no class: a at 100" in found["figures"]) == (None, True)


Networks = list[tuple[float | None, int]]  # Q50 and how many seeds of it are censored


def networks(undefended: Networks, hard: Networks) -> dict[str, Any]:
    found = {f"undefended-{k}": result("undefended", *q50) for k, q50 in enumerate(undefended)}
    return found | {f"hard-{k}": result("hard", *q50) for k, q50 in enumerate(hard)}


def exact(*q50: float) -> Networks:
    return [(q, 0) for q in q50]


def test_a_defence_is_measured_on_independently_trained_networks():
    found = statement(networks(exact(*[100] * 5), exact(*[250] * 5)), "at least 2 times")
    assert found["met"] is True
    assert "2.50 times [2.50, 2.50] (5 and 5 independently trained networks)" in found["figures"]
    assert statement(networks(exact(*[100] * 5), exact(*[150] * 5)), "at least 2 times")["met"] is False
    few = statement(networks(exact(*[100] * 3), exact(*[900] * 3)), "at least 2 times")
    assert few["met"] is None
    assert "needs 5 networks of each" in few["figures"]


def test_a_mean_of_several_answers_is_no_defence():
    """An image takes 16 queries then, so that the same network has 16 times the Q50."""
    found = networks(exact(*[60] * 5), exact(*[960] * 5))
    assert statement(found, "at least 2 times")["met"] is True
    for k in range(5):
        found[f"hard-{k}"]["target"] |= {"average": 16}
    row = statement(found, "at least 2 times")
    assert row["met"] is None
    assert row["figures"].startswith("not compared, because an image takes several queries on some: ")


SPREAD = exact(90, 100, 110, 95, 105)


@pytest.mark.parametrize(
    ("undefended", "hard", "met", "figures"),
    [
        (exact(*[600] * 5), [(None, 5)] * 5, None, "1.67 times [at least 1.67] ("),
        (exact(*[100] * 5), [(None, 5)] * 5, True, "10.00 times [at least 10.00] ("),
        (SPREAD, [*SPREAD[1:], (500, 2)], None, "1.05 times [at least 0.9"),
        (SPREAD, [(300, 1), *exact(300, 300, 300, 300)], True, "3.01 times [at least 2."),
        ([(300, 1), *exact(310, 290, 300, 300)], exact(*[705] * 5), None, "2.35 times [at most 2."),
        ([(300, 1), *exact(310, 290, 300, 300)], exact(*[450] * 5), False, "1.50 times [at most 1."),
        ([(None, 5)] * 5, [(None, 5)] * 5, None, "unknown (5 and 5"),
        ([(900, 1)] * 5, [(950, 2)] * 5, None, "unknown (5 and 5"),
    ],
)
def test_a_lower_bound_never_refutes_a_statement_and_an_upper_bound_never_confirms_it(
    undefended: Networks, hard: Networks, met: bool | None, figures: str
):
    found = statement(networks(undefended, hard), "at least 2 times")
    assert found["met"] is met
    assert figures in found["figures"]
    assert ("increase the budget" in found["figures"]) == (met is None)
    assert "Q50 counts as a bound, not as a number" in found["figures"]


def test_a_group_has_an_interval_over_networks():
    groups = summary(RECIPE, networks(exact(100, 200, 400, 100, 200), exact(*[250] * 5)))["groups"]
    found = groups["undefended"]["arms"]["cppn"]["q50"]
    assert (found["networks"], found["censored"], found["bound"]) == (5, 0, "=")
    assert found["low"] < found["value"] < found["high"]
    assert found["value"] == pytest.approx((100 * 200 * 400 * 100 * 200) ** 0.2)


def test_a_group_with_censored_networks_is_a_bound():
    def found(undefended: Networks) -> dict[str, Any]:
        groups = summary(RECIPE, networks(undefended, exact(*[250] * 5)))["groups"]
        assert list(groups["undefended"]["networks"]["cppn"]) == [f"undefended-{k}" for k in range(5)]
        found: dict[str, Any] = groups["undefended"]["arms"]["cppn"]["q50"]
        return found

    assert found([(None, 5)] * 5) == {
        "value": None, "bound": ">=", "low": 1000, "high": None, "networks": 5, "censored": 5,
    }  # fmt: skip
    some = found([(None, 5), (400, 1), *exact(100, 200, 300)])
    assert (some["bound"], some["high"], some["censored"]) == (">=", None, 2)
    assert some["value"] == pytest.approx(300), "the median"


def test_adaptive_elites_are_compared_with_static_ones_for_each_detector():
    def rows(static: float, adaptive: float) -> list[dict[str, Any]]:
        return [
            {"detector": "energy", "kind": "static", "auroc": static},
            {"detector": "energy", "kind": "adaptive", "auroc": adaptive},
            {"detector": "msp", "kind": "static", "auroc": 0.9},
        ]

    met = statement({"a": result(detectors=rows(0.9, 0.4))}, "energy: evolving against it")
    assert met["met"] is True
    assert "mean 0.900 static, 0.400 adaptive" in met["figures"]
    not_met = statement({"a": result(detectors=rows(0.9, 0.4)), "b": result(detectors=rows(0.5, 0.6))}, "energy: evolving")
    assert not_met["met"] is False


def test_an_invalid_target_enters_no_statement():
    found = summary(RECIPE, {"a": result(), "b": result(valid=False, arms={"cppn": arm("search", [0.0, 0.0])})})
    assert found["invalid"] == ["b"]
    (found,) = [row for row in found["statements"] if "than random search" in row["statement"]]
    assert found["met"] is True


def test_the_positive_control_covers_all_targets_that_have_one():
    off = result(valid=False, control={"accepted": 0.8, "met": False})
    found = statement({"a": result(), "b": off}, "held-out real images")
    assert found["met"] is False
    assert "0.800 to 0.950 on 2 targets" in found["figures"]
    assert statement({"a": result()}, "held-out real images")["figures"] == "0.950 on 1 target"
