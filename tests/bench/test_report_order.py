"""A report names a winner only where it is shown that the targets, or the attacks, differ."""

from collections.abc import Sequence
from typing import Any

import pytest

from evofool.bench.report.overview import strongest
from evofool.bench.report.places import (
    CLASSES,
    QUERIES,
    Figures,
    Fooled,
    easier,
    listed,
    no_difference,
    places,
    tied_first,
)
from evofool.bench.report.ranking import ranking_head, ranking_lead, sorted_results
from evofool.bench.report.target_page import attacks_section
from evofool.bench.statistics import share_interval
from evofool.pages.html_page import NOTHING
from tests.bench.report_pages import ARMS, THREE
from tests.bench.samples import results


def q50(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "bound": ">=" if value is None or high is None else "=", "low": low, "high": high}


def test_places_are_what_intervals_that_do_not_overlap_allow() -> None:
    given = {"a": q50(10, 8, 12), "b": q50(14, 11, 20), "c": q50(30, 21, 40), "d": q50(None, 10_000), "e": q50(50)}
    rows = {name: Figures(row) for name, row in given.items()}
    assert {name: str(place) for name, place in places(rows).items()} == {
        "a": "1 to 3", "b": "1 to 3", "c": "3 to 4", "d": "4 to 5", "e": "1 to 5"
    }  # fmt: skip
    assert tied_first(rows) == ["a", "b", "e"]
    assert tied_first(rows, most=True) == ["d", "e"]
    assert str(places({"a": Figures(q50(1))})["a"]) == "1"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 others"


def fooled(*by_seed: Sequence[int], of: int = 10, classes: str = "abcdefghij", **given: Any) -> Fooled:
    """The share that is fooled if in each seed these of the classes are, with the interval that a result has."""
    hits = {str(seed): [k in fooled for k in range(of)] for seed, fooled in enumerate(by_seed)}
    share = share_interval([sum(row) / of for row in hits.values()], None, of).to_dict()
    return Fooled(share, tuple(classes), hits, **given)


ALL, TWO = range(10), (3, 7)
CENSORED = q50(None, None)  # as of two seeds, of which neither fools half of the classes


def test_where_queries_are_censored_the_classes_that_are_fooled_are_compared_in_pairs() -> None:
    strong = Figures(q50(200, 20, 9_000), fooled(ALL, ALL), 2_000)
    weak = Figures(CENSORED, fooled((3,), TWO), 2_000)
    assert (easier(strong, weak), easier(weak, strong)) == (CLASSES, "")
    assert {name: str(place) for name, place in places({"weak": weak, "strong": strong}).items()} == {
        "weak": "2", "strong": "1"
    }  # fmt: skip
    assert easier(Figures(CENSORED, fooled(ALL, ALL)), weak) == CLASSES, "neither has a limit"
    capped = (Figures(q50(5, 1, 100), strong.fooled, 100), Figures(q50(60, 20, 100), weak.fooled, 100))
    assert easier(*capped) == CLASSES, "a limit at the most queries tells nothing"
    assert easier(Figures(CENSORED, fooled((1, 2, 3), TWO)), weak) == "", "a difference that seeds may give"
    assert easier(Figures(CENSORED, fooled(ALL)), Figures(CENSORED, fooled(TWO))) == "", "one seed"
    assert easier(Figures(CENSORED, fooled(ALL, ALL, thresholds="other", variance=0.1)), weak) == "", "other thresholds"


def test_classes_do_not_decide_where_queries_do() -> None:
    """Two intervals within the budget that overlap show no difference, whatever the classes."""
    few, many = (Figures(q50(100, 80, 120), fooled(*[range(n)] * 5), 2_000) for n in (5, 10))
    assert easier(many, few) == easier(few, many) == ""
    later = Figures(q50(300, 200, 400), fooled(*[ALL] * 5), 2_000)
    assert (easier(few, later), easier(later, few)) == (QUERIES, "")


def test_without_the_same_classes_and_seeds_the_intervals_of_the_shares_are_compared() -> None:
    strong = Figures(CENSORED, fooled(*[ALL] * 5))
    for other in (fooled(*[TWO] * 5, classes="0123456789"), Fooled(fooled(*[TWO] * 5).share)):
        assert easier(strong, Figures(CENSORED, other)) == CLASSES
    wide = fooled(*[range(n) for n in (1, 3, 10, 10, 10)], classes="0123456789")
    assert easier(strong, Figures(CENSORED, wide)) == ""


def test_where_two_figures_contradict_each_other_the_sentence_says_so() -> None:
    rows = {
        "a": Figures(q50(100, 80, 120), fooled(*[range(1)] * 10), 2_000),
        "b": Figures(q50(300, 200, 400), fooled(*[ALL] * 10), 2_000),
        "c": Figures(CENSORED, fooled(*[range(7)] * 10), 2_000),
    }
    shown = [easier(rows[better], rows[worse]) for better, worse in ("ab", "bc", "ca")]
    assert shown == [QUERIES, CLASSES, CLASSES]
    assert tied_first(rows) == ["a", "b", "c"]
    assert no_difference(rows, list(rows)).startswith("No order of a, b and c: queries, and the classes fooled")


def compared(first: Fooled, second: Fooled) -> list[dict[str, Any]]:
    """Two targets with two seeds and no Q50, of which all arms fool these classes."""
    found = two(CENSORED, CENSORED)
    for result, of in zip(found, (first, second), strict=True):
        del result["scores"]["headline"]
        for arm in result["scores"]["arms"].values():
            arm["seeds"] = [0, 1]
            arm["r95"][-1] |= of.share
            arm["accepted_at"] = {seed: [50 if hit else None for hit in hits] for seed, hits in of.by_seed.items()}
    return found


def test_the_sentence_says_which_figure_it_rests_on() -> None:
    found = compared(fooled(ALL, ALL), fooled((3,), TWO))
    by = "by classes fooled after 10,000 queries over all"
    since = "since their intervals of queries cannot be compared"
    assert ranking_lead(found) == (
        f"lenet-2015 is the hardest to fool: {by} (0.15) against lenet (1.00), {since}. "
        f"lenet is the easiest to fool: {by} (1.00) against lenet-2015 (0.15), {since}."
    )
    assert [result["target"]["name"] for result in sorted_results(found)] == ["lenet-2015", "lenet"]
    assert [row[1] for row in ranking_head(found, {}).tables[0].rows] == ["1", "2"]
    alike = compared(fooled((3, 4), TWO), fooled((3,), TWO))
    assert ranking_lead(alike) == (
        "No difference shown between lenet-2015 and lenet, neither by queries nor by the classes fooled within the budget."
    )
    arms = found[0]["scores"]["arms"]
    arms["cppn"] |= {"q50": q50(50, 40, 60)}
    arms["direct"] |= {"q50": q50(150, 140, 160)}
    arms["per-class"]["accepted_at"] = {seed: [1] + [None] * 9 for seed in "01"}
    arms["per-class"]["r95"][-1] |= {"value": 0.1, "low": None, "high": 0.4}
    assert attacks_section(found[0]).lead == (
        "cppn needs fewer queries than direct, and fools more classes within 10,000 queries over all (1.00) than per-class "
        "(0.10), whose intervals of queries cannot be compared with its own."
    )


def test_the_strongest_attack_is_not_said_to_be_apart_from_one_that_it_was_not_shown_to_differ_from() -> None:
    """direct takes fewer queries than cppn, cppn fools more classes than per-class, and direct and per-class are alike."""
    found = compared(fooled(ALL, ALL), fooled(ALL, ALL))[0]
    arms = found["scores"]["arms"]
    for name, row, of in (
        ("direct", q50(50, 40, 60), fooled(range(4), range(4))),
        ("cppn", q50(150, 140, 160), fooled(ALL, ALL)),
        ("per-class", CENSORED, fooled((3,), TWO)),
    ):
        arms[name] |= {
            "q50": row,
            "accepted_at": {s: [50 if hit else None for hit in hits] for s, hits in of.by_seed.items()},
        }
        arms[name]["r95"][-1] |= of.share
    assert attacks_section(found).lead == (
        "direct needs fewer queries than cppn; between it and per-class no difference is shown."
    )


def two(first: dict[str, Any], second: dict[str, Any], arms: list[str] = THREE) -> list[dict[str, Any]]:
    """Two targets whose arms all have this Q50."""
    found = results(2, arms, 20)
    for result, row in zip(found, (first, second), strict=True):
        for arm in result["scores"]["arms"].values():
            arm["q50"] = row
    return found


def test_a_winner_is_named_only_where_the_intervals_do_not_overlap() -> None:
    apart = two(q50(100, 90, 110), q50(200, 150, 260))
    lead = ranking_lead(apart)
    assert lead == (
        "lenet-2015 is the hardest to fool (20 queries a class). lenet is the easiest to fool (10 queries a class)."
    )
    assert [result["target"]["name"] for result in sorted_results(apart)] == ["lenet-2015", "lenet"]
    (table,) = ranking_head(apart, {}).tables
    assert [row[1] for row in table.rows] == ["1", "2"]
    together = two(q50(100, 90, 210), q50(200, 150, 260))
    assert ranking_lead(together).startswith("No difference shown between lenet-2015 and lenet: ")
    (table,) = ranking_head(together, {}).tables
    assert [row[1] for row in table.rows] == ["1 to 2", "1 to 2"]
    assert ranking_lead(two(q50(100), q50(200))).startswith("No difference shown"), "one seed"
    beyond = two(q50(None, 10_000), q50(200, 150, 260))
    assert ranking_lead(beyond).startswith("lenet is the hardest to fool (> 1,000 queries a class).")


def test_targets_whose_headlines_do_not_compare_are_ordered_by_their_strongest_attack() -> None:
    found = two(q50(100, 90, 110), q50(200, 150, 260), ARMS)
    for result, queries in zip(found, (50.0, 5.0), strict=True):
        result["scores"]["headline"]["queries"] = {"value": queries, "low": queries - 1, "high": queries + 1}
    assert ranking_lead(found).startswith("lenet is the hardest to fool (50 queries a class).")
    found[0]["scores"]["arms"]["apgd"] |= {"gradients": "student"}
    assert ranking_lead(found).startswith("lenet-2015 is the hardest to fool (20 queries a class).")
    note = "By the strongest attack on each target. Their headlines do not compare; what differs: attacks. "
    assert ranking_head(found, {}).tables[0].under.startswith(note)


@pytest.mark.parametrize("option", ["average", "views"])
def test_targets_that_take_other_numbers_of_queries_for_an_image_have_no_order(option: str) -> None:
    found = two(q50(100, 90, 110), q50(1600, 1500, 1700))
    found[1]["target"][option] = 16
    assert ranking_lead(found) == (
        "Not compared, because an image takes another number of queries on each target: lenet was measured with one answer "
        f"to each image; lenet-2015 was measured with {option}=16."
    )
    assert sorted_results(found) == found
    assert [row[1] for row in ranking_head(found, {}).tables[0].rows] == [NOTHING, NOTHING]
    found[0]["target"][option] = 16
    assert ranking_lead(found).startswith("lenet-2015 is the hardest to fool")


def test_of_attacks_too_no_strongest_one_is_named_where_intervals_overlap() -> None:
    found = two(q50(100, 90, 110), q50(100, 90, 110))[0]
    assert attacks_section(found).lead == "No difference shown between direct, cppn and per-class: their intervals overlap."
    found["scores"]["arms"]["per-class"]["q50"] = q50(50, 40, 60)
    assert attacks_section(found).lead == "per-class needs the fewest queries; its interval overlaps no other."
    (table,) = attacks_section(found).tables
    assert [(row[0].text, row[-1]) for row in table.rows] == [("per-class", "1"), ("direct", "2 to 3"), ("cppn", "2 to 3")]


def test_with_a_single_seed_a_note_explains_the_missing_intervals() -> None:
    targets = results(2, THREE, 20)
    assert "Brackets: 95% intervals over seeds." in ranking_head(targets, {}).tables[0].under
    for result in targets:
        result["protocol"] = result["protocol"] | {"seeds": [0]}
    assert "One seed: no intervals." in ranking_head(targets, {}).tables[0].under


def test_the_strongest_arm_has_the_lowest_q50_or_if_all_are_censored_the_most_classes() -> None:
    found = results(1, points=20)[0]
    arms = found["scores"]["arms"]
    for arm in arms.values():
        arm["q50"]["value"] = None
        for row in arm["r95"]:
            row["value"] = 0.1
    arms["square"]["r95"][-1]["value"] = 0.4
    arms["noise"]["r95"][-1]["value"] = 0.9
    assert strongest(found, black_box=True) == "square"
    arms["nes"]["q50"]["value"] = 9_000.0
    arms["fourier"]["q50"]["value"] = 8_000.0
    assert strongest(found, black_box=True) == "nes"
    assert strongest(found, black_box=False) == "fourier"
    assert strongest(found | {"valid": False}, black_box=True) is None
