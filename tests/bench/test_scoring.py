"""Scores from traces, compared with a slow version, and their properties."""

from dataclasses import replace

import numpy as np
import pytest

from evofool.bench.acceptance import MARGIN, PAIR, AcceptanceScores
from evofool.bench.calibration import Calibration, halves
from evofool.bench.scoring import CellData, Scoring, flags
from evofool.bench.trace import Trace

BUDGETS = (10, 100, 1000)


def calibration(divide: float = 1.0, k: int = 5, right: float = 3.0) -> Calibration:
    draw = np.random.default_rng(0)
    classes = draw.integers(0, k, 800)
    logits = draw.normal(size=(800, k))
    logits[np.arange(800), classes] += right
    return Calibration((logits / divide).astype(np.float32), classes, halves(classes), "", "", tuple(map(str, range(k))))


def cell(seed: int, strength: float, divide: float = 1.0, k: int = 5) -> CellData:
    draw = np.random.default_rng([seed, 7])
    queries = tuple(np.sort(draw.choice(1000, 20, replace=False)) + 1 for _ in range(k))
    margins = tuple((np.sort(draw.normal(strength, 2, 20)) / divide).astype(np.float32).astype(float) for _ in range(k))
    logits = (draw.normal(size=(k, k)) / divide).astype(np.float32)
    return CellData(Trace(queries, margins, 1000), np.arange(k), logits, 1000, 0, 1010)


def scoring(divide: float = 1.0, **arms: float) -> Scoring:
    cells = {arm: {seed: cell(seed, strength, divide) for seed in range(4)} for arm, strength in arms.items()}
    return Scoring(calibration(divide), cells, BUDGETS, replicates=20)


def test_shares_and_q50_equal_a_slow_count():
    s = scoring(cppn=1.0)
    arm, tau = s.arm("cppn"), s.calibration.tau5
    for b, budget in enumerate(BUDGETS):
        shares = []
        for cell_data in s.cells["cppn"].values():
            hits = [
                any(
                    q <= budget and m >= tau[c] and m > 0
                    for q, m in zip(cell_data.trace.queries[c], cell_data.trace.margins[c], strict=True)
                )
                for c in range(5)
            ]
            shares.append(np.mean(hits))
        assert arm["r95"][b]["per_seed"] == pytest.approx(shares)
        assert arm["r95"][b]["value"] == pytest.approx(np.mean(shares))
        assert arm["r95"][b]["queries_per_class"] == budget / 5
    for seed, half in enumerate(arm["q50"]["per_seed"]):
        at = [q for q in arm["accepted_at"][str(seed)] if q is not None]
        assert half == (sorted(at)[2] if len(at) >= 3 else None)
    curve = arm["curve"]
    assert curve["queries"][-1] == 1000
    assert set(BUDGETS) <= set(curve["queries"])
    assert curve["value"] == sorted(curve["value"])
    assert curve["value"][-1] == arm["r95"][-1]["value"]


def test_r50_is_never_above_r95_and_intervals_contain_their_value():
    arm = scoring(cppn=4.0).arm("cppn")
    for easy, hard in zip(arm["r95"], arm["r50"], strict=True):
        assert hard["value"] <= easy["value"]
        low, high = easy["low"], easy["high"]
        assert low is None or low <= easy["value"]
        assert high is None or easy["value"] <= high
        assert easy["bound"] == ("<=" if low is None else ">=" if high is None else "=")


def test_dividing_all_logits_by_four_changes_no_score():
    a, b = scoring(cppn=2.0, **{"per-class": 1.0}, nes=3.0), scoring(4.0, cppn=2.0, **{"per-class": 1.0}, nes=3.0)
    for arm in ("cppn", "per-class", "nes"):
        assert a.arm(arm) == b.arm(arm)
        assert a.raw(arm) != b.raw(arm)
    assert a.sharing() == b.sharing()


def test_seeds_beyond_the_budget_do_not_count_as_the_budget():
    some, none = (scoring(cppn=strength).arm("cppn")["q50"] for strength in (-3.2, -99.0))
    assert 0 < some["per_seed"].count(None) < 4
    assert (some["bound"], some["high"], some["censored"]) == (">=", None, some["per_seed"].count(None))
    assert none == {
        "value": None, "bound": ">=", "low": None, "high": None, "censored": 4, "per_seed": [None] * 4,
        "queries_per_class": None, "threshold_variance": 0.0,
    }  # fmt: skip


def test_without_a_temperature_there_is_no_confidence_at_one():
    confident = Scoring(calibration(right=99.0), {"cppn": {0: cell(0, 1.0)}}, BUDGETS, replicates=5)
    assert confident.arm("cppn")["calibrated_confidence"] is None
    assert scoring(cppn=1.0).arm("cppn")["calibrated_confidence"].keys() == {"5", "25", "50", "75", "95"}


def test_sharing_is_over_one_where_the_other_arm_needs_more_queries():
    figures = scoring(cppn=6.0, **{"per-class": 2.0}, apgd=9.0).sharing()
    assert figures["per-class"]["value"] > 1
    assert figures["apgd"]["value"] < 1
    assert "nes" not in figures, "an arm that was not measured is not compared"


def test_suspicious_results_are_flagged():
    arms = scoring(cppn=5.0, apgd=-9.0, nes=5.0)
    figures = {name: arms.arm(name) for name in ("cppn", "apgd", "nes")}
    messages = " ".join(flag["message"] for flag in flags(figures))
    assert "white-box arms are accepted in fewer classes than others" in messages
    assert "apgd is accepted in no more classes after 1,000 queries than after 10" in messages
    assert flags({name: figures[name] for name in ("cppn", "nes")}) == []


def test_an_arm_below_noise_is_flagged_but_random_search_is_not():
    arms = scoring(cppn=5.0, apgd=-9.0, random=-9.0, noise=5.0)
    figures = {name: arms.arm(name) for name in ("cppn", "apgd", "random", "noise")}
    messages = [flag["message"] for flag in flags(figures) if "fewer classes than noise" in flag["message"]]
    assert len(messages) == 1
    assert messages[0].startswith("apgd is accepted in fewer classes than noise (0.00 of them, noise in 1.00)")


def test_a_class_without_an_image_counts_as_not_fooled():
    full = cell(0, 9.0)
    empty = np.zeros(0, np.int64), np.zeros(0)
    trace = Trace((*full.trace.queries[:4], empty[0]), (*full.trace.margins[:4], empty[1]), 1000)
    part = CellData(trace, np.arange(4), full.logits[:4], 1000, 0, 1000)
    arm = Scoring(calibration(), {"nes": {0: part}}, BUDGETS, replicates=5).arm("nes")
    assert arm["accepted_at"]["0"][4] is None
    assert arm["r95"][-1]["value"] <= 0.8
    assert arm["calibrated_confidence"]["5"] < 0.2
    assert all(np.isfinite(v) for v in arm["scaled_margins"].values())


def test_a_headline_has_every_score_that_any_arm_of_the_suite_has() -> None:
    c = calibration()
    scores = AcceptanceScores(dict.fromkeys((MARGIN, PAIR), c.margin_score))
    square = {seed: replace(cell(seed, -4.0), by_score={PAIR: cell(seed, 9.0).trace}) for seed in range(4)}
    cells = {"square": square, "apgd": {seed: cell(seed, -4.0) for seed in range(4)}}
    found = Scoring(c, cells, BUDGETS, replicates=20, acceptance=scores).headline({})
    alone = Scoring(c, {"square": square}, BUDGETS, replicates=20, acceptance=scores).headline({})
    assert found is not None
    assert alone is not None
    assert {score: row["arms"] for score, row in found["by_score"].items()} == {MARGIN: ["square", "apgd"], PAIR: ["square"]}
    assert (found["score"], found["arms"]) == (PAIR, ["square", "apgd"])
    assert found["by_score"][PAIR] == alone["by_score"][PAIR]
