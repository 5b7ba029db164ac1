"""Which arms a gate against earlier results measures, and which of them decide."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from evofool.ascend.approximation import SUBSTITUTE
from evofool.bench.arms import ARMS, refuse_unknown
from evofool.bench.compare import ComparableResult
from evofool.bench.gate.earlier import EarlierResults
from evofool.bench.gate.gate_verdict import Check, Status
from evofool.errors import RecipeError
from evofool.targets import Target

DECIDING = ("apgd",)
"""The arms that decide unless others are named: those whose queries vary little between seeds and between trainings."""

_CANNOT_DECIDE = ("random",)  # unless it is named: it reaches too few classes to find a change
_CLASSES_APART = ("square", "nes", "apgd", "fourier")


@dataclass
class ArmChoice:
    """measured: the arms to measure; deciding: those of them that decide. checks: arms that are invalid already."""

    measured: list[str] = field(default_factory=list)
    deciding: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, arm: str, reason: str) -> None:
        """Do not measure an arm. If it decides, that is an invalid check."""
        if arm in self.deciding:
            self.checks.append(Check(title(arm), "invalid", reason, arm=arm))
        else:
            self.notes.append(f"{arm}: left out; {reason}")
        self.measured = [other for other in self.measured if other != arm]


def searching_arms(earlier: EarlierResults) -> list[str]:
    """The arms of the earlier results that search; RecipeError if there is none, or an unknown one."""
    arms = earlier.first.protocol.arms
    refuse_unknown(arms)
    searching = [arm for arm in arms if ARMS[arm].kind != "floor"]
    if not searching:
        raise RecipeError(f"the earlier result has no arm that searches ({', '.join(arms)}), and nothing to compare")
    return searching


def choose_arms(earlier: EarlierResults, target: Target, named: Sequence[str] = ()) -> ArmChoice:
    """The arms of the earlier results that search, or of these those that are named, which then all decide.

    If none are named, DECIDING decide, or all arms if neither side can have DECIDING. If one side has a deciding arm and the
    other cannot have it, the gate is invalid. Any other arm that is missing on one side is left out, with a note.
    """
    refuse_unknown(named)
    searching = searching_arms(earlier)
    for arm in named:
        if arm not in searching:
            raise RecipeError(
                f"--arms {arm}: the earlier result has no such arm to compare with; it has {', '.join(searching)}"
            )
    possible = [arm for arm in named or searching if earlier.seeds(arm) or (earlier.arms(arm) and _can(arm, target))]
    low = [arm for arm in possible if arm in DECIDING]
    choice = ArmChoice(list(named or searching), list(named) or low or possible)
    for arm in named or searching:
        if not (earlier.seeds(arm) and _can(arm, target)):
            choice.leave_out(arm, _missing(arm, earlier, target))
    if not named and not low and choice.measured:
        choice.notes.append(
            f"all arms decide ({', '.join(choice.deciding)}), since there is no {' or '.join(DECIDING)}, neither now nor "
            "before; their queries vary more, so that the gate finds less: docs/gate.md has their error rates"
        )
    return choice


def without_masked(choice: ArmChoice, now: ComparableResult, earlier: EarlierResults) -> ArmChoice:
    """The choice after the target was measured: an arm that climbed a substitute model on one side only does not decide.

    A substitute model takes more queries than the target's own gradients would, so the ratio says nothing about the target.
    The same holds for an arm that was left out because gradients are masked. The arms without gradients decide instead. If
    none of these was measured, the arm fails if gradients are masked now, and is invalid if they were masked before.
    """

    def sources(arm: str) -> tuple[bool, list[bool]]:
        """Whether it climbs a substitute model, or nothing, now; whether it climbed one in each earlier result."""
        found = now.scores.arms.get(arm)
        substitute = (found is None and now.gradients is not None) or (found is not None and found.gradients == SUBSTITUTE)
        return substitute, [each.gradients == SUBSTITUTE for each in earlier.arms(arm)]

    def lost(arm: str) -> bool:
        substitute, before = sources(arm)
        return ARMS[arm].kind == "white" and any(substitute != was for was in before)

    gone = [arm for arm in choice.deciding if lost(arm)]
    if not gone:
        return choice
    kept = [arm for arm in choice.deciding if arm not in gone]
    kept = kept or [arm for arm in choice.measured if ARMS[arm].kind != "white" and arm not in _CANNOT_DECIDE]
    masked = sources(gone[0])[0]
    found = f" ({now.gradients.masked})" if masked and now.gradients else ""
    why = f"its gradients are {'' if masked else 'not '}masked{found}, and were {'not ' if masked else ''}before"
    if kept:
        notes = [*choice.notes, f"{', '.join(gone)}: does not decide, since {why}; {', '.join(kept)} decides instead"]
        return replace(choice, deciding=kept, notes=notes)
    remedy = "add one to the earlier result" if masked else "measure the earlier target again"
    message = f"{why}, and no arm without gradients was measured that could decide: {remedy}"
    status: Status = "fails" if masked else "invalid"
    checks = [Check(title(arm), status, message, arm=arm) for arm in gone]
    measured = [arm for arm in choice.measured if arm not in gone]
    return replace(choice, measured=measured, deciding=[], checks=checks)


def attacks_classes_apart(arm: str, gradients: Collection[str] = ()) -> bool:
    """Whether an arm attacks each class by itself, with random numbers of its own.

    gradients: what it climbed instead of masked gradients, "" for none; classes of a seed climb the same substitute model.
    """
    return arm in _CLASSES_APART and SUBSTITUTE not in gradients


def title(arm: str) -> str:
    """The name of an arm's check."""
    return f"{arm}: queries against before"


def _can(arm: str, target: Target) -> bool:
    return ARMS[arm].kind != "white" or target.differentiable


def _missing(arm: str, earlier: EarlierResults, target: Target) -> str:
    """Why an arm cannot be compared."""
    if not earlier.arms(arm):
        return "it was left out before"
    if earlier.seeds(arm):
        return f"it needs gradients, which {target.name} does not give, and the earlier target gave them"
    if _can(arm, target):
        reason = earlier.faults(arm) or "it has no seed"
        return f"it is not valid in the earlier result, so measure that again: {reason}"
    return "it needs gradients, and neither had them"
