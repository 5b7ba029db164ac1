"""Whether earlier results are enough for a strict gate, found from their own spread before anything is measured."""

from collections.abc import Sequence

from evofool.bench.gate.against_arms import attacks_classes_apart
from evofool.bench.gate.against_check import CONFIDENCE, MARGIN
from evofool.bench.gate.earlier import EarlierResults
from evofool.bench.gate.log_ratio import MOST, POWER, needed_seeds, needed_trainings
from evofool.errors import RecipeError


def refuse_few(earlier: EarlierResults, arms: Sequence[str]) -> list[str]:
    """Notes on how many seeds the arms need, and, with several earlier results, how many of these.

    RecipeError, with the numbers, if there are fewer: a target that is as hard to fool as before would then fail too often.
    """
    few: list[str] = []
    enough: list[str] = []
    for arm in arms:
        seeds = earlier.seeds(arm)
        if len(seeds) < 2:
            raise RecipeError(
                f"--strict: {arm} has {len(seeds)} seed in the earlier result, which does not show how much seeds differ: "
                "measure the earlier target again with at least 2"
            )
        before = earlier.queries(arm, seeds)
        apart = attacks_classes_apart(arm, earlier.gradients(arm))
        needs = [needed_seeds(each, earlier.first.budget, apart, MARGIN, CONFIDENCE) for each in before]
        need = None if None in needs else max(n for n in needs if n is not None)
        _sort(few, enough, arm, "seeds", need, len(seeds))
        if len(earlier) > 1:
            trainings = needed_trainings(before, earlier.first.budget, MARGIN, CONFIDENCE)
            _sort(few, enough, arm, "earlier results", trainings, len(earlier))
    if few:
        raise RecipeError(
            f"--strict: {'; '.join(few)}. With fewer, more than {1 - POWER:.0%} of targets that are as hard to fool as "
            "before would fail. Measure the earlier target again with more, or leave --strict out"
        )
    return [f"strict: {'; '.join(enough)}"]


def _sort(few: list[str], enough: list[str], arm: str, what: str, need: int | None, have: int) -> None:
    if need is None:
        few.append(f"{arm} needs over {MOST:,} {what}, as far as their spread tells; there are {have}")
    else:
        (enough if have >= need else few).append(
            f"{arm} needs {need} {what}, by the spread of the earlier; there are {have}"
        )
