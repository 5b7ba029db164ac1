"""The steps of confidence by which tiles are marked and chosen."""

from evofool.scores import confidence

LEVELS = (0.5, 0.9, 0.99, 0.999)


def level_of(log_odds: float) -> int:
    """How many of LEVELS the confidence reaches: 0 to 4."""
    p = float(confidence(log_odds))
    return sum(p >= level for level in LEVELS)
