"""The sections of a report: sharing, groups, detectors, real images, and whether images look like their class."""

from typing import Any

import pytest

from evofool.bench.report.likeness import likeness_section, looked_sentence
from evofool.bench.report.sharing import sharing_section
from evofool.bench.report.target_page import target_images_section
from evofool.pages.html_page import TableCell
from tests.bench.report_pages import THREE, text_of, written
from tests.bench.samples import results, summary


@pytest.mark.parametrize(
    ("rows", "lead"),
    [
        ([(2.0, 1.5, 3.0)], "Yes: against the control, sharing saves queries."),
        ([(0.5, 0.3, 0.8)], "No: against the control, sharing costs queries."),
        ([(1.1, 0.8, 1.4)], "Undecided: against the control"),
        ([(2.0, 1.5, 3.0), (0.5, 0.3, 0.8)], "It depends on the target"),
        (
            [(2.0, 1.5, None), (1.1, 0.8, None)],
            "saves queries on the targets where the interval excludes 1 (fewer queries on 1 of 2 targets, more on 0, "
            "undecided on 1)",
        ),
        ([(None, None, None)], "Undecided: against the control"),
        ([(0.5, None, 0.9)], "No: against the control, sharing costs queries."),
    ],
)
def test_the_question_of_sharing_is_answered_for_every_outcome(rows: list[tuple[Any, ...]], lead: str) -> None:
    targets = results(len(rows), THREE, 20)
    for result, (ratio, low, high) in zip(targets, rows, strict=True):
        bound = "unknown" if ratio is None else ">=" if high is None else "<=" if low is None else "="
        row = {"value": ratio, "bound": bound, "low": low, "high": high, "pairs": 5, "censored": int(bound != "=")}
        result["scores"]["sharing"] = {"per-class": row}
    section = sharing_section(targets)
    assert lead in section.lead
    assert bool(section.plots) == any(ratio for ratio, _, _ in rows)


def test_without_the_arms_sharing_is_reported_as_not_measured() -> None:
    targets = results(1, THREE[:2], 20)
    assert "Not measured" in sharing_section(targets).lead
    targets[0]["scores"]["sharing"] = {
        "nes": {"value": 2.0, "bound": "=", "low": 1.5, "high": 3.0, "pairs": 5, "censored": 0}
    }
    assert "the arm per-class was not run" in sharing_section(targets).lead


def test_a_median_of_bounds_is_shown_as_a_bound() -> None:
    targets = results(3, THREE, 20)
    rows = [(2.0, ">="), (3.0, "="), (4.0, "=")]

    def sharing_text() -> str:
        for result, (ratio, bound) in zip(targets, rows, strict=True):
            limits = {"low": 1.5, "high": None if bound == ">=" else 9.0, "pairs": 5, "censored": 1}
            result["scores"]["sharing"] = {"per-class": {"value": ratio, "bound": bound, **limits}}
        return " ".join(sharing_section(targets).text)

    assert "the median ratio is >= 3.00" in sharing_text()
    rows[0] = (2.0, "=")
    assert "the median ratio is 3.00" in sharing_text()
    rows[0], rows[1] = (2.0, ">="), (3.0, "<=")
    assert "the median ratio" not in sharing_text()


def test_a_claim_needs_five_networks() -> None:
    targets = results(5, THREE, 20)
    data = summary(targets)
    text = text_of(written(targets, data))
    assert (
        "Fewer than 5 independently trained networks: undefended (3). These do not support a claim about a defence." in text
    )
    data["groups"]["undefended"]["targets"] = list("abcde")
    data["groups"]["outlier exposure"] = data["groups"]["undefended"]
    assert "do not support a claim" not in text_of(written(targets, data))


def test_a_censored_group_is_shown_as_a_bound() -> None:
    targets = results(5, THREE, 20)
    data = summary(targets)
    arms = data["groups"]["undefended"]["arms"]
    arms["per-class"] = {"q50": {"value": None, "bound": ">=", "low": 10_000, "high": None, "networks": 5, "censored": 5}}
    text = text_of(written(targets, data))
    assert "apgd\n240 [at least 150]\n3\n1" in text
    assert "per-class\n> 10,000 [at least 10,000]\n5\n5" in text


def test_the_number_of_images_of_each_seed_is_shown_for_detectors() -> None:
    targets = results(1, THREE, 20)
    for k, row in enumerate(targets[0]["scores"]["detectors"]):
        row["images"] = [7, 9, 8] if k else [1_000] * 3
    text = text_of(written(targets))
    assert "images per seed" in text
    assert "static\n7 to 9" in text
    assert "\n1,000\n" in text


def test_without_a_temperature_the_column_of_calibrated_confidence_is_empty() -> None:
    targets = results(1, THREE, 20)
    for arm in targets[0]["scores"]["arms"].values():
        arm["calibrated_confidence"] = None
    text = text_of(written(targets))
    assert "0.9997" not in text


@pytest.mark.parametrize(
    ("known", "reason"), [(0, "above the declared one, so"), (2500, "The weights were trained on some or all of them, so")]
)
def test_suspected_training_images_are_shown_with_the_reason(known: int, reason: str) -> None:
    targets = results(1, THREE, 20)
    targets[0]["images"] |= {"suspected_training": True, "declared_top1": 0.9, "trained_on": known}
    text = text_of(written(targets))
    assert "Suspected training images: lenet. " in text
    assert reason in text
    assert ("declared one, so" in text) == (not known)


def test_the_images_of_a_target_say_how_many_of_them_fool_it() -> None:
    result = results(1)[0]
    result["scores"]["arms"]["cppn"]["accepted_at"] = {"0": [12, None, None, 7], "1": [1, 2, 3, 4]}
    section = target_images_section(result, "cppn", [], [])
    assert "2 of 4 classes are fooled in this seed." in section.text[0]
    del result["scores"]["arms"]["cppn"]["accepted_at"]
    assert "in this seed" not in target_images_section(result, "cppn", [], []).text[0]


def test_until_somebody_has_looked_the_page_says_so_and_then_has_the_figures_with_and_without() -> None:
    (found,) = results(1, THREE, 20)
    assert looked_sentence([found]).startswith("Nobody has looked at the images")
    assert not likeness_section(found).tables
    share = {"value": 0.7, "low": 0.6, "high": 0.8}
    found["scores"]["likeness"] = {
        "queries_per_class": 100,
        "with": {"value": 0.9, "low": 0.8, "high": 1.0},
        "measure": {"images": 10, "alike": 2, "without": share},
        "people": None,
    }
    assert looked_sentence([found]).startswith("Nobody has looked at the images")
    (table,) = likeness_section(found).tables
    assert [row[1] for row in table.rows] == [TableCell("0.90", "[0.80, 1.00]"), TableCell("0.70", "[0.60, 0.80]")]
    found["scores"]["likeness"]["people"] = {"raters": 8, "images": 10, "alike": 1, "open": 3, "without": share}
    assert looked_sentence([found]) == "8 people looked at 10 images: 1 shows its class, 3 are undecided."
    (table,) = likeness_section(found).tables
    assert table.rows[2][2:] == ["10", "1"]
    assert "8 people looked" in text_of(written([found]))
