"""The threshold at which a system that is deployed accepts an image: "p>=0.9", "margin>=3", "log_odds>=2"."""

import math
import re
from dataclasses import dataclass

import numpy as np

from evofool.errors import RecipeError
from evofool.scores import needed_log_odds

_RULE = re.compile(r"\s*(\w+)\s*(>=|>)\s*(\S+)\s*")
_ALLOWED = "p>=0.9 (a softmax's confidence, between 0 and 1), margin>=3 (from 0 up) or log_odds>=2, with >= or >"


@dataclass(frozen=True)
class AcceptanceRule:
    """kind "p", "margin" or "log_odds" reaches the level, or exceeds it where strict; and the class is the arg-max."""

    kind: str
    level: float
    strict: bool = False

    def accepts(self, log_odds: np.ndarray, margins: np.ndarray) -> np.ndarray:
        """Whether images are accepted as the class that they were made for: floats of one shape to bool of that shape.

        p is compared as log-odds, which do not saturate. A margin of 0 is a tie, and no arg-max; NaN is never accepted.
        """
        scores = np.asarray(margins if self.kind == "margin" else log_odds)
        level = needed_log_odds(self.level) if self.kind == "p" else self.level
        reached = scores > level if self.strict else scores >= level
        return reached & (np.asarray(margins) > 0)

    def __str__(self) -> str:
        return f"{self.kind} {'>' if self.strict else '>='} {self.level:g}"


def parse_acceptance_rule(text: str) -> AcceptanceRule:
    """Parse a rule. RecipeError, with the valid forms, for an invalid one."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise RecipeError(f'"{text}" is no rule of acceptance; write {_ALLOWED}')
    kind, sign, number = found.groups()
    if kind not in ("p", "margin", "log_odds"):
        raise RecipeError(f'"{text}": nothing is accepted by "{kind}"; write {_ALLOWED}')
    try:
        level = float(number)
    except ValueError:
        level = math.nan
    allowed = {"p": 0 < level < 1, "margin": 0 <= level < math.inf, "log_odds": math.isfinite(level)}
    if not allowed[kind]:
        raise RecipeError(f'"{text}": {number} is no level of {kind}; write {_ALLOWED}')
    return AcceptanceRule(kind, level, sign == ">")
