"""The headline: the union over the suite compared with a slow count, its interval, and its sentence in all cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evofool.bench import statistics
from evofool.bench.headline import (
    FOOLED,
    SUITE,
    ArmAcceptance,
    _limits,
    headline,
    headline_details,
    headline_lines,
    headline_sentences,
    second_sentence,
)
from tests.bench import samples


def acceptance(key: int, seeds: list[int], classes: int = 10, scale: float = 2000) -> ArmAcceptance:
    """Queries of which some are over a budget of 2,000, so that they are NaN; the thresholds multiply them by 1/2 to 2."""
    draw = np.random.default_rng(key)
    at = draw.exponential(scale, (len(seeds), classes)).round() + 1
    replicates = at * np.geomspace(0.5, 2, 30)[:, None, None]
    reached = 1 / (1 + at / 1000)
    again = np.clip(reached * np.linspace(0.9, 1.1, 30)[:, None, None], 0, 1)
    return ArmAcceptance(
        seeds, np.where(at > 2000, np.nan, at), np.where(replicates > 2000, np.nan, replicates), reached, again
    )


def part(arm: ArmAcceptance, rows: Sequence[int], seeds: Sequence[int]) -> ArmAcceptance:
    """Some rows of an arm, as if they were of these seeds."""
    _, at, replicates, reached, again = arm
    rows = list(rows)
    return ArmAcceptance(seeds, at[rows], replicates[:, rows], reached[rows], again[:, rows])


def suite(seeds: list[int] | None = None, classes: int = 10, scale: float = 2000) -> dict[str, ArmAcceptance]:
    return {arm: acceptance(key, seeds or [3, 4, 5, 6], classes, scale) for key, arm in enumerate(SUITE)}


def result(row: dict[str, Any] | None, classes: int = 10) -> dict[str, Any]:
    made = samples.results(1)[0]
    made["target"] |= {"classes": classes, "scored_classes": classes}
    made["scores"]["headline"] = row
    return made


def sentence(value: float, low: float | None, high: float | None, classes: int, **changed: Any) -> str:
    row = {
        "queries_per_class": 100, "attack_queries_per_class": 100.0, "classes": classes, "arms": list(SUITE),
        "left_out": {}, "score": "margin", "value": value, "low": low, "high": high, "by_score": {"margin": {}},
        "queries": {"value": 7.2, "low": 6.1, "high": 12.4}, "reached": {"value": 0.9, "low": 0.8, "high": 1.0},
    }  # fmt: skip
    return whole_headline(result(row | changed, classes))


def test_a_class_counts_if_any_arm_of_the_suite_fools_it_in_the_same_seed():
    arms = suite()
    found = headline({"margin": arms | {"cppn": acceptance(9, [3, 4, 5, 6], scale=1)}}, 10, 2000, {})
    assert found is not None
    shares = []
    for row in range(4):
        fooled = [any(arm.at[row, c] <= 1000 for arm in arms.values()) for c in range(10)]
        shares.append(sum(fooled) / 10)
    assert found["per_seed"] == pytest.approx(shares)
    assert found["value"] == pytest.approx(np.mean(shares))
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    assert (found["arms"], found["seeds"], found["score"]) == (list(SUITE), [3, 4, 5, 6], "margin")
    assert (found["queries_per_class"], found["attack_queries_per_class"]) == (100, 200)
    alone = [headline({"margin": {arm: arms[arm]}}, 10, 2000, {}) for arm in SUITE]
    assert all(row is not None and row["value"] < found["value"] for row in alone)


def test_arms_are_paired_by_the_number_of_the_seed():
    arms = suite()
    turned = part(arms["apgd"], range(4)[::-1], [6, 5, 4, 3])
    assert headline({"margin": arms | {"apgd": turned}}, 10, 2000, {}) == headline({"margin": arms}, 10, 2000, {})
    fewer = part(arms["apgd"], [1, 3], [4, 6])
    found, whole = (headline({"margin": arms | {"apgd": apgd}}, 10, 2000, {}) for apgd in (fewer, arms["apgd"]))
    assert found is not None
    assert whole is not None
    assert found["seeds"] == [4, 6]
    assert found["per_seed"] == whole["per_seed"][1::2]


def test_the_interval_of_one_score_is_that_of_a_share_with_its_thresholds():
    arms = suite()
    found = headline({"margin": arms}, 10, 2000, {})
    assert found is not None
    joint = np.fmin.reduce([arm.replicates for arm in arms.values()])
    interval = statistics.share_interval(found["per_seed"], (joint <= 1000).mean(axis=-1), 10)
    assert (found["low"], found["high"]) == (interval.low, interval.high)
    narrow = statistics.share_interval(found["per_seed"], None, 10)
    assert narrow.low is not None
    assert found["low"] < narrow.low


def test_of_several_scores_the_easiest_counts_and_its_limits_allow_for_the_choice():
    by_score = {"margin": suite(scale=2500), "pair": suite(scale=2000), "features": suite(scale=3500)}
    found = headline(by_score, 10, 2000, {})
    assert found is not None
    rows = found["by_score"]
    assert found["score"] == "pair"
    assert found["value"] == rows["pair"]["value"] == max(row["value"] for row in rows.values())
    assert found["per_seed"] == rows["pair"]["per_seed"]
    assert (found["low"], found["high"]) == tuple(max(row[limit] for row in rows.values()) for limit in ("low", "high"))
    alone = headline({"pair": by_score["pair"]}, 10, 2000, {})
    assert alone is not None
    assert rows["pair"]["low"] < alone["low"]
    assert rows["pair"]["high"] > alone["high"]


def test_the_second_figure_is_the_mean_share_of_real_images_that_the_best_image_reaches():
    by_score = {"margin": suite(scale=3000), "pair": suite(scale=2000)}
    found = headline(by_score, 10, 2000, {})
    alone = headline({"margin": by_score["margin"]}, 10, 2000, {})
    assert found is not None
    assert alone is not None
    arms = by_score["margin"].values()
    means = [np.mean([max(arm.reached[row, c] for arm in arms) for c in range(10)]) for row in range(4)]
    assert alone["reached"]["per_seed"] == pytest.approx(means)
    assert alone["reached"]["value"] == pytest.approx(np.mean(means))
    joint = np.max([arm.reached_replicates for arm in arms], axis=0).mean(axis=-1)
    interval = statistics.share_interval(alone["reached"]["per_seed"], joint)
    assert (alone["reached"]["low"], alone["reached"]["high"]) == (interval.low, interval.high)
    rows = [row["reached"] for row in found["by_score"].values()]
    limits = {limit: max(row[limit] for row in rows) for limit in ("low", "high")}
    assert found["reached"] == {"score": "pair", **rows[1], **limits}


def test_the_geometric_mean_of_the_queries_that_a_class_takes():
    arms = suite()
    found = headline({"margin": arms}, 10, 2000, {})
    assert found is not None
    means = []
    for row in range(4):
        each = [min([100.0, *(arm.at[row, c] / 10 for arm in arms.values() if arm.at[row, c] <= 1000)]) for c in range(10)]
        means.append(np.prod(each) ** 0.1)
    queries = found["queries"]
    assert queries["per_seed"] == pytest.approx(means)
    assert queries["value"] == pytest.approx(np.prod(means) ** 0.25)
    assert 1 < queries["low"] < queries["value"] < queries["high"] < 100
    rarely = headline({"margin": suite(scale=20_000)}, 10, 2000, {})
    assert rarely is not None
    assert rarely["queries"]["value"] < rarely["queries"]["high"] <= 100
    scores = {"margin": suite(scale=900), "pair": suite(scale=3000)}
    several = headline(scores, 10, 2000, {})
    assert several is not None
    rows = [row["queries"] for row in several["by_score"].values()]
    limits = {limit: min(row[limit] for row in rows) for limit in ("low", "high")}
    assert several["queries"] == {"score": "margin", **rows[0], **limits}


def alike(at: np.ndarray, reached: np.ndarray) -> dict[str, Any]:
    """The headline of one arm without variance of the thresholds; at and reached are (S, 10)."""
    again = [np.repeat(figure[None], 20, axis=0) for figure in (at, reached)]
    found = headline({"margin": {"apgd": ArmAcceptance(range(len(at)), at, again[0], reached, again[1])}}, 10, 1000, {})
    assert found is not None
    return found


@pytest.mark.parametrize(("seeds", "most", "least"), [(2, 0.343, 9.38), (3, 0.244, 18.5), (5, 0.154, 34.5)])
def test_where_no_seed_fools_anything_both_figures_are_bounds(seeds: int, most: float, least: float) -> None:
    found = alike(np.full((seeds, 10), np.nan), np.zeros((seeds, 10)))
    queries, reached = found["queries"], found["reached"]
    assert (queries["value"], queries["high"]) == (100, None)
    assert queries["low"] == pytest.approx(least, rel=0.01)
    assert queries["low"] == pytest.approx(100 / 1000 ** found["high"]), "as if the share's limit took one query a class"
    assert (reached["value"], reached["low"], reached["high"]) == (0, None, pytest.approx(most, abs=1e-3))


def test_seeds_in_which_nothing_is_fooled_give_the_queries_a_low_limit_only() -> None:
    at = np.full((4, 10), np.nan)
    at[1:] = [[50.0], [80.0], [100.0]]
    found = alike(at, np.full((4, 10), 0.5))["queries"]
    assert found["value"] == pytest.approx((100 * 5 * 8 * 10) ** 0.25)
    assert 1 < found["low"] < found["value"]
    assert found["high"] is None


def test_equal_seeds_give_no_interval_of_width_0() -> None:
    found = alike(np.full((5, 10), 20.0), np.full((5, 10), 0.5))
    assert (found["queries"]["value"], found["queries"]["low"], found["queries"]["high"]) == (pytest.approx(2), None, None)
    assert found["reached"]["low"] < 0.49 < 0.51 < found["reached"]["high"]
    assert alike(np.full((2, 10), 20.0), np.ones((2, 10)))["reached"]["low"] == pytest.approx(0.657, abs=1e-3)


def test_an_arm_that_lacks_a_score_is_missing_under_this_score_alone() -> None:
    whole, others = suite(), suite(scale=300)
    del others["apgd"]
    found = headline({"margin": whole, "features": others}, 10, 2000, {})
    alone = headline({"features": others}, 10, 2000, {})
    assert found is not None
    assert alone is not None
    assert (found["score"], found["arms"]) == ("features", list(SUITE))
    assert [row["arms"] for row in found["by_score"].values()] == [list(SUITE), ["canvas", "square"]]
    assert found["value"] == alone["value"]
    text = "Under features there are no records of apgd, so the figures under it are lower bounds."
    assert text in whole_headline(result(found))
    assert "Under features, a class takes" in second_sentence(result(found))
    assert "queries of each of the 2 attacks" in second_sentence(result(found))
    for row in found["by_score"].values():
        del row["arms"]
    assert "no records" not in whole_headline(result(found)), "an older result does not name them"


def test_the_greatest_of_several_shares_is_in_the_interval_as_often_as_it_says():
    draw, truths, inside = np.random.default_rng(5), np.array([0.7, 0.75, 0.75]), 0
    for _ in range(200):
        scores = {}
        for name, truth in enumerate(truths):
            at = np.where(draw.random((5, 10)) < truth, 1.0, np.nan)
            twice = np.stack([at, at])
            scores[str(name)] = {"apgd": ArmAcceptance(range(5), at, twice, np.ones_like(at), np.ones_like(twice))}
        found = headline(scores, 10, 1000, {})
        assert found is not None
        inside += found["low"] <= truths.max() <= found["high"]
    assert inside >= 186


@pytest.mark.parametrize(("budget", "queries"), [(1000, 100), (999, 99), (10, 1), (50_000, 100)])
def test_a_smaller_budget_gives_the_queries_that_it_has(budget: int, queries: int):
    found = headline({"margin": suite()}, 10, budget, {})
    assert found is not None
    assert found["queries_per_class"] == queries


def test_without_a_query_a_class_an_arm_or_a_common_seed_there_is_no_headline():
    arms = suite()
    others = part(arms["apgd"], range(4), [7, 8, 9, 10])
    assert headline({"margin": arms}, 10, 9, {}) is None
    assert headline({"margin": {}}, 10, 1000, {}) is None
    assert headline({"margin": arms, "pair": {}}, 10, 1000, {}) == headline({"margin": arms}, 10, 1000, {})
    assert headline({"margin": {"cppn": arms["apgd"]}}, 10, 1000, {}) is None
    assert headline({"margin": arms | {"apgd": others}}, 10, 1000, {}) is None


def test_one_seed_has_no_interval():
    found = headline({"margin": suite([0])}, 10, 2000, {})
    assert found is not None
    assert (found["low"], found["high"]) == (None, None)
    assert "One seed, so there is no interval." in whole_headline(result(found))


def whole_headline(result: dict[str, Any]) -> str:
    return " ".join(headline_sentences(result))


def test_on_a_console_the_headline_is_a_plain_sentence_and_a_short_line() -> None:
    some = result(headline({name: suite() for name in ("margin", "pair")}, 10, 1000, {}))
    row = some["scores"]["headline"]
    row["queries"] |= {"value": 2.6, "low": 1.9, "high": 3.7}
    row["reached"] |= {"value": 0.94, "low": 0.9, "high": 0.97}
    first, second = headline_lines(some)
    assert first == headline_sentences(some)[0]
    assert second == (
        "On average a class takes 2.6 (1.9 to 3.7) queries, and has an image rated as high as 94% (90% to 97%) of real "
        "images."
    )
    assert max(map(len, (first, second, FOOLED))) < 125
    assert headline_details(some) == f"{whole_headline(some)} {second_sentence(some)}"
    assert headline_lines(result(None)) == headline_sentences(result(None))
    assert headline_details(result(None)) == whole_headline(result(None))


def test_the_sentence():
    by = "within 100 queries a class by canvas, square or apgd"
    assert sentence(0.93, 0.89, 0.96, 100) == f"Of 100 classes, 93 (89 to 96) are fooled {by}. {FOOLED}"
    assert sentence(0.84, 0.6, 0.95, 10) == f"Of 10 classes, 8.4 (6 to 9.5) are fooled {by}. {FOOLED}"
    assert sentence(0.0, 0.0, 0.02, 10).startswith("Of 10 classes, 0 (0 to 0.2) are fooled")
    assert sentence(1.0, 0.91, 1.0, 10).startswith("Of 10 classes, 10 (9.1 to 10) are fooled")
    assert sentence(0.1, 0.01, 0.3, 10).startswith("Of 10 classes, 1 (0.1 to 3) is fooled")
    assert sentence(1.0, 0.756, None, 10) == f"Of 10 classes, 10 (at least 7.5) are fooled {by}. {FOOLED}"
    assert sentence(0.0, None, 0.244, 10) == f"Of 10 classes, 0 (at most 2.5) are fooled {by}. {FOOLED}"
    assert sentence(0.999, 0.99, 0.9999, 1000).startswith("Of 1,000 classes, 999 (990 to 1,000) are fooled")
    assert sentence(0.9, 0.7951, None, 10).startswith("Of 10 classes, 9 (at least 7.9) are"), "limits are rounded outward"
    assert sentence(0.5, 0.2901, 0.7099, 100).startswith("Of 100 classes, 50 (29 to 71) are")
    assert sentence(0.5, 0.29, 0.7, 1000).startswith("Of 1,000 classes, 500 (290 to 700) are"), "0.29 * 1000 is below 290"
    assert sentence(0.0001, 0.0, 0.999, 100).startswith("Of 100 classes, <1 (0 to 100) are fooled")


def test_the_sentence_says_what_is_missing():
    left_out = {"apgd": "needs gradients, and this target gives none"}
    few = {"queries_per_class": 1, "attack_queries_per_class": 1.9}
    text = sentence(0.5, None, None, 10, arms=["canvas", "square"], left_out=left_out, **few)
    assert text == (
        f"Of 10 classes, 5 are fooled within 1 query a class by canvas or square. {FOOLED} The budget allows "
        "no more queries than that; the protocol has 100. Not measured: apgd: needs gradients, and this target gives none. "
        "One seed, so there is no interval."
    )
    text = sentence(0.5, 0.4, 0.6, 10, attack_queries_per_class=1000.0)
    assert text.endswith(f"{FOOLED} square and apgd ran with 1,000 queries a class, and may fool more with 100 alone.")
    assert "alone" not in sentence(0.5, 0.4, 0.6, 10, attack_queries_per_class=1000.0, arms=["canvas"])
    assert f" a class by canvas. {FOOLED}" in sentence(0.5, 0.4, 0.6, 10, arms=["canvas"])
    several = {"margin": {}, "pair": {}}
    text = sentence(0.5, 0.4, 0.6, 10, by_score=several, score="pair")
    assert text.endswith(
        f"{FOOLED} Images are rated by 2 acceptance scores (margin, pair), each with a threshold of its own; the one under "
        "which most classes are fooled counts: pair."
    )
    some = result(headline({"margin": suite(classes=5)}, 5, 500, {}))
    assert whole_headline(some).startswith("Of 5 scored classes (the target has 10), ")
    some["scores"]["arms"]["apgd"]["gradients"] = "student"
    assert " by canvas, square or apgd (through a substitute model)." in whole_headline(some)


def test_the_sentence_has_images_where_an_image_takes_several_queries():
    found = result(headline({"margin": suite()}, 10, 1000, {}))
    for options, text in (
        ({"average": 16}, "100 queries a class (6.25 images of 16 queries each) by"),
        ({"views": 25, "average": 4}, "100 queries a class (1 image of 100 queries each) by"),
        ({}, "100 queries a class by"),
    ):
        assert f" are fooled within {text} canvas, square or apgd." in whole_headline(
            {**found, "target": {**found["target"], **options}}
        )


def test_the_second_sentence():
    some = result(headline({"margin": suite(classes=5)}, 5, 500, {}), 5)
    row = some["scores"]["headline"]
    row["queries"] |= {"value": 7.21, "low": 6.1, "high": 12.4}
    row["reached"] |= {"value": 0.956, "low": 0.9, "high": 0.9996}
    assert second_sentence(some) == (
        "The best image of a class is rated no lower than 96% (90% to 100%) of real images. A class takes 7.2 (6.1 to 13) "
        "queries of each of the 3 attacks until it is fooled: the geometric mean, where a class that is not fooled counts "
        "as 100."
    )
    for figure in ("queries", "reached"):
        row[figure] |= {"low": None, "high": None}
    assert "than 96% of real images. A class takes 7.2 queries of each" in second_sentence(some)
    del row["reached"]
    assert second_sentence(some).startswith("A class takes 7.2 queries of each"), "of an earlier evofool"
    row["by_score"]["pair"], row["queries"]["score"] = row["by_score"]["margin"], "pair"
    assert second_sentence(some).startswith("Under pair, a class takes 7.2 queries of each of the 3 attacks until")
    row["arms"] = row["by_score"]["pair"]["arms"] = ["apgd"]
    assert second_sentence(some).startswith("Under pair, a class takes 7.2 queries until")
    del row["queries"]["score"]
    assert second_sentence(some).startswith("A class takes 7.2 queries until"), "of an earlier evofool"
    assert second_sentence(result(None)) == second_sentence({**some, "valid": False}) == ""


def test_results_without_a_headline_say_so():
    assert whole_headline(result(None)) == (
        "No headline: none of canvas, square, apgd was measured with at least one query a class."
    )
    older = samples.results(1)[0]
    del older["scores"]["headline"]
    assert whole_headline(older) == "The result has no headline: it was written by an earlier evofool."
    assert whole_headline({**older, "valid": False}) == "Not measured: the evaluation is invalid."


def test_without_a_common_seed_the_sentence_says_so():
    found = result(None)
    found["scores"]["arms"] = {"canvas": {"seeds": [0]}, "apgd": {"seeds": [1]}, "noise": {"seeds": [0, 1]}}
    assert whole_headline(found) == "No headline: no seed is valid for all of canvas, apgd."


def test_a_bound_of_one_score_bounds_the_easiest_on_the_side_that_it_knows() -> None:
    below, inside, above = ({"low": None, "high": 0.2}, {"low": 0.5, "high": 0.7}, {"low": 0.8, "high": None})
    assert _limits([inside, below], max) == {"low": 0.5, "high": 0.7}
    assert _limits([inside, above], max) == {"low": 0.8, "high": None}
    assert _limits([below, above], min) == {"low": None, "high": 0.2}
    assert _limits([inside, above], min) == {"low": 0.5, "high": 0.7}
    assert _limits([{"low": None, "high": None}] * 2, max) == {"low": None, "high": None}


@pytest.mark.parametrize(("seeds", "low"), [(3, 0.756), (5, 0.846)])
def test_where_every_class_is_fooled_in_every_seed_the_headline_is_a_bound(seeds: int, low: float) -> None:
    at = np.full((seeds, 10), 20.0)
    ones = np.ones((20, seeds, 10))
    arm = ArmAcceptance(list(range(seeds)), at, np.repeat(at[None], 20, axis=0), ones[0], ones)
    found = headline({"margin": {"apgd": arm}}, 10, 1000, {})
    assert found is not None
    assert (found["value"], found["low"], found["high"]) == (1.0, pytest.approx(low, abs=1e-3), None)
