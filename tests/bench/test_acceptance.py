"""Rules of acceptance in the form of the command line."""

import numpy as np
import pytest

from evofool.bench.acceptance_rule import AcceptanceRule, parse_acceptance_rule
from evofool.errors import RecipeError
from evofool.scores import confidence, log_odds, margin


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("p>=0.9", AcceptanceRule("p", 0.9)),
        (" p > 0.9 ", AcceptanceRule("p", 0.9, strict=True)),
        ("margin>=3", AcceptanceRule("margin", 3.0)),
        ("log_odds >= 2", AcceptanceRule("log_odds", 2.0)),
        ("log_odds>-1e1", AcceptanceRule("log_odds", -10.0, strict=True)),
    ],
)
def test_a_rule_is_parsed_and_printed(text: str, rule: AcceptanceRule) -> None:
    assert parse_acceptance_rule(text) == rule
    assert parse_acceptance_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.9", "is no rule"),
        ("p=0.9", "is no rule"),
        ("p<0.9", "is no rule"),
        ("", "is no rule"),
        ("p>=0.9 or margin>=3", "is no rule"),
        ("P>=0.9", 'nothing is accepted by "P"'),
        ("energy>=3", 'nothing is accepted by "energy"'),
        ("p>=90%", "90% is no level of p"),
        ("p>=1", "1 is no level of p"),
        ("p>0", "0 is no level of p"),
        ("p>=nan", "nan is no level of p"),
        ("margin>=-1", "-1 is no level of margin"),
        ("log_odds>=inf", "inf is no level of log_odds"),
    ],
)
def test_invalid_rules_are_refused_with_the_valid_forms(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"{message}.*write p>=0.9 .*, margin>=3 .* or log_odds>=2"):
        parse_acceptance_rule(text)


def test_images_are_accepted_as_by_a_slow_evaluation_of_the_rule() -> None:
    logits = np.random.default_rng([6, 1]).normal(0, 3, (400, 4)).astype(np.float32)
    odds, margins = log_odds(logits), margin(logits)
    for text in ("p>=0.9", "p>0.3", "margin>=3", "margin>0", "log_odds>=2", "log_odds>-5"):
        name, level = text.replace("=", "").split(">")
        slow = np.zeros(logits.shape, bool)
        for b, z in enumerate(logits.astype(np.float64)):
            for c in range(4):
                p = np.exp(z[c] - z.max()) / np.exp(z - z.max()).sum()
                score = {"p": p, "margin": z[c] - max(np.delete(z, c)), "log_odds": np.log(p / (1 - p))}[name]
                slow[b, c] = z.argmax() == c and score >= float(level)
        found = parse_acceptance_rule(text).accepts(odds, margins)
        assert found.dtype == bool
        assert np.array_equal(found, slow)
        assert 0 < found.sum() < found.size


def test_a_strict_rule_excludes_its_level_and_ties_and_nan_are_never_accepted() -> None:
    level = np.array([2.0, 2.0, np.nan])
    margins = np.array([1.0, 0.0, np.nan])
    assert AcceptanceRule("log_odds", 2.0).accepts(level, margins).tolist() == [True, False, False]
    assert AcceptanceRule("log_odds", 2.0, strict=True).accepts(level, margins).tolist() == [False, False, False]
    assert AcceptanceRule("margin", 0.0).accepts(level, margins).tolist() == [True, False, False]


def test_confidences_that_a_softmax_rounds_to_1_are_distinguished() -> None:
    rule = parse_acceptance_rule("p>=0.999999999999")
    assert confidence(40.0) == 1.0
    assert rule.accepts(np.array([27.0, 28.0]), np.array([27.0, 28.0])).tolist() == [False, True]
