"""What heads an explanation: the target's warnings, and a decision that is close or near a guess."""

from pathlib import Path

import numpy as np
import pytest

from evofool.explain.cautions import doubts, warnings_of
from evofool.explain.options import ExplanationOptions
from evofool.explain.page import explain
from evofool.explain.part_result import Progress
from evofool.scores import log_odds
from evofool.targets import Target


def scoring(*logits: float, notes: list[str] | None = None) -> Target:
    """A black box that gives every image these logits, for classes a, b, c ..."""
    labels = list("abcdefghij") if len(logits) <= 10 else list(map(str, range(len(logits))))
    row = np.array(logits, np.float32)
    details = {"notes": notes or []}
    return Target("box", labels[: len(logits)], (1, 8, 8), lambda images: row[None].repeat(len(images), 0), details)


def said(*logits: float) -> list[str]:
    return doubts(scoring(*logits), log_odds(np.array([logits], np.float64))[0])


def logits_of(*p: float) -> list[float]:
    return np.log(p).tolist()


def test_a_clear_decision_has_no_doubts() -> None:
    assert said(5.0, 0.0, 0.0) == []
    assert said(*logits_of(0.55, 0.43, 0.02)) == []  # the second has less than 1 / 1.25 of the first
    assert said(3.0, 0.0) == []
    assert said(800.0, 0.0, 0.0) == []


def test_two_confidences_that_differ_little_are_named() -> None:
    assert said(*logits_of(0.48, 0.50, 0.02)) == [
        "box hardly tells this from its second choice: b 0.500000, a 0.480000 (confidences)"
    ]


def test_a_tie_of_three_classes_is_near_a_guess_and_the_first_counts() -> None:
    guess, tie = said(0.0, 0.0, 0.0)
    assert guess == (
        "box prefers no class clearly: its highest confidence is 0.333333, and equal confidences in its 3 classes would be "
        "0.333333"
    )
    assert tie == (
        "box hardly tells its first 3 choices apart: a 0.333333, b 0.333333, c 0.333333 (confidences); of equal confidences "
        "the first class counts"
    )


def test_close_classes_beyond_the_third_are_counted() -> None:
    _, close = said(*([0.0] * 9), -4.0)
    assert "its first 9 choices apart: a 0.110885, b 0.110885, c 0.110885 and 6 more (confidences)" in close


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_a_guess_has_less_than_1_5_times_the_odds_of_equal_confidences(classes: int) -> None:
    def doubted(factor: float) -> bool:
        odds = np.full(classes, -20.0)
        odds[0] = np.log(factor / (classes - 1))
        target = scoring(*np.zeros(classes))
        return any("prefers no class clearly" in line for line in doubts(target, odds))

    assert doubted(1.4)
    assert not doubted(1.6)


def test_warnings_are_the_targets_and_the_runs_each_once_without_folders() -> None:
    target = scoring(1.0, 0.0, notes=["untrained: random weights", "rounds"])
    assert warnings_of(target, ["rounds", "of '/home/ann/run 1/labels.txt'"]) == [
        "untrained: random weights",
        "rounds",
        "of 'labels.txt'",
    ]


def test_warnings_head_the_page_and_are_reported_once(tmp_path: Path) -> None:
    notes = ["untrained: random weights"]

    def scores(images: np.ndarray) -> np.ndarray:
        if len(images) > 1 and len(notes) == 1:
            notes.append("answers are rounded")  # as a black box does, after some of its answers
        return np.array([[0.1, 0.0, -4.0]], np.float32).repeat(len(images), 0)

    target = Target("box", ["a", "b", "c"], (1, 8, 8), scores, {"notes": notes})
    lines: list[str] = []

    def report(event: str | Progress) -> None:
        if isinstance(event, str):
            lines.append(event)

    options = ExplanationOptions(warnings=["rewound to 64 evaluations"])
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, 2:5, 2:5] = 255
    found = explain(target, image, 0, tmp_path, source="dot.png", options=options, report=report)
    wanted = [
        "untrained: random weights",
        "answers are rounded",
        "rewound to 64 evaluations",
        "box hardly tells this from its second choice: a 0.520451, b 0.470924 (confidences)",
    ]
    assert found.warnings == wanted
    assert sorted(line for line in lines if line.startswith("Warning")) == sorted(f"Warning: {text}." for text in wanted)
    assert lines.index(f"Warning: {wanted[0]}.") < lines.index(
        next(line for line in lines if line.startswith("occlusion (1 of "))
    )
    page = found.page.read_text(encoding="utf-8")
    places = [page.index(f'<p class="caution">Warning: {text}.</p>') for text in wanted]
    assert sorted(places) == places
    assert page.index("<h1>") < places[0]
    assert places[-1] < page.index("box classifies this image as a:")
