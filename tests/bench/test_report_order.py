"""A report names a winner only where it is shown that the targets, or the attacks, differ."""

from typing import Any

import pytest

from evofool.bench.report.overview import strongest
from evofool.bench.report.places import listed, places, tied_first
from evofool.bench.report.ranking import ranking_head, ranking_lead, sorted_results
from evofool.bench.report.target_page import attacks_section
from evofool.pages.html_page import NOTHING
from tests.bench.report_pages import ARMS, THREE
from tests.bench.samples import results


def q50(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "bound": ">=" if value is None or high is None else "=", "low": low, "high": high}


def test_places_are_what_intervals_that_do_not_overlap_allow() -> None:
    rows = {"a": q50(10, 8, 12), "b": q50(14, 11, 20), "c": q50(30, 21, 40), "d": q50(None, 10_000), "e": q50(50)}
    assert {name: str(place) for name, place in places(rows).items()} == {
        "a": "1 to 3", "b": "1 to 3", "c": "3 to 4", "d": "4 to 5", "e": "1 to 5"
    }  # fmt: skip
    assert tied_first(rows) == ["a", "b", "e"]
    assert tied_first(rows, most=True) == ["d", "e"]
    assert str(places({"a": q50(1)})["a"]) == "1"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 others"


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
