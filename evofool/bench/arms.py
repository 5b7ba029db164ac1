"""The arms of a benchmark: ways of looking for fooling images, each of which becomes an ordinary run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evofool.attacks.run import METHODS, AttackPlan, settings_of
from evofool.errors import RecipeError
from evofool.recipe import Recipe, load, override, parse
from evofool.run.imported import BIG
from evofool.targets import Target


class Arm(NamedTuple):
    """A row of the protocol. kind: search, black (asks only), white (needs gradients), floor."""

    kind: str
    what: str
    recipe: str = ""  # of a search: the shipped recipes that its settings are from, RECIPE for the shape's "mnist-"
    competition: str = "all"
    method: str = ""  # of the others: evofool baseline's


ARMS: dict[str, Arm] = {
    "direct": Arm("search", "MAP-Elites over pixels", "direct"),
    "cppn": Arm("search", "MAP-Elites over CPPNs", "cppn"),
    "per-class": Arm("search", "the control: CPPNs that climb for one class each, nothing shared", "cppn", "per-class"),
    "random": Arm("black", "random images, each tried in every class", method="random"),
    "square": Arm("black", "Square attack, class by class (Andriushchenko 2020)", method="square"),
    "nes": Arm("black", "evolution strategy on low-frequency pixels, class by class (Ilyas 2018)", method="nes"),
    "apgd": Arm("white", "Auto-PGD on the margin, class by class (Croce & Hein 2020)", method="apgd"),
    "fourier": Arm("white", "Fourier space under robust transforms, class by class (Olah 2017)", method="fourier"),
    "noise": Arm("floor", "one image of noise a class, nothing selected", method="noise"),
}

SHARING = ("per-class", "nes", "apgd")
"""The arms that cppn is compared with where the question is whether sharing between classes helps."""


def refuse_unknown(arms: Sequence[str]) -> None:
    """RecipeError for an arm that there is not."""
    for name in arms:
        if name not in ARMS:
            raise RecipeError(f'there is no arm "{name}"; there are {", ".join(ARMS)}')


def can_do(arm: str, target: Target) -> bool:
    """Whether the target gives what the arm needs."""
    return ARMS[arm].kind != "white" or target.differentiable


def search_recipe(
    arm: str,
    target: Target,
    *,
    seed: int,
    queries: int,
    name: str,
    classes: Sequence[int] | None = None,
    changes: Sequence[str] = (),
    number_format: str = "float32",
    rank: str = "margin",
) -> Recipe:
    """The recipe of a search arm: the shipped one for images of this size, ranked as said, to so many evaluations.

    Where no batch size goes into them it ends a few before, never after. classes: those that are searched for, None: all.
    changes: as --set has them, over all of it. Streams and workers are left at one and none: cells are done side by side.
    """
    row = ARMS[arm]
    family = "imagenet" if min(target.shape[1:]) >= BIG else "mnist"
    shipped = load(f"{family}-{row.recipe}")
    data = override(shipped.model_dump(mode="json", exclude_none=True), changes)
    most = min(data.get("search", {}).get("batch", 16), queries)
    size = min(range(most, most // 2, -1), key=lambda b: queries % b)  # the largest of those that leave least over
    data |= {"name": name, "target": target.name, "stop": {"evaluations": queries - queries % size}}
    search = {"seed": seed, "batch": size, "rank": rank, "competition": row.competition}
    if classes is not None and len(classes) < len(target.labels):
        search["classes"] = list(classes)
    data["search"] = data.get("search", {}) | search
    data["compute"] = data.get("compute", {}) | {"format": number_format, "streams": 1, "workers": 0}
    return parse(data, f"arm {arm}")


def baseline_plan(
    arm: str,
    *,
    classes: Sequence[int],
    seed: int,
    queries: int,
    settings: Mapping[str, Any] | None = None,
    rank: str = "margin",
) -> AttackPlan:
    """What a baseline arm does: its classes share the queries equally, each forward pass being one."""
    method = ARMS[arm].method
    each = METHODS[method].budget if ARMS[arm].kind == "floor" else queries // len(classes)
    return AttackPlan(method, tuple(classes), dict(settings or {}), each, rank, seed)


def least_queries(arm: str, classes: int, settings: Mapping[str, Any] | None = None) -> int:
    """The least total budget that an arm can do anything with."""
    kind, method = ARMS[arm].kind, ARMS[arm].method
    if kind == "search":
        return 1
    if kind == "white":
        known = settings_of(method, settings or {})
        return classes * (3 if known.get("transformed") else 2) * known.get("restarts", 1)
    return classes


def refuse_small(
    arms: Sequence[str], budget: int, classes: int, who: str, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """RecipeError where a budget does not go round the classes of a target, who, in one of the arms."""
    for arm in arms:
        least = least_queries(arm, classes, (settings or {}).get(arm))
        if budget < least:
            raise RecipeError(
                f"{who}: a budget of {budget:,} queries is too small for {classes:,} classes: {arm} needs at least "
                f"{least:,}; raise the budget, or leave the arm out"
            )


def settings_for(arm: str, changes: Sequence[str]) -> dict[str, Any]:
    """The settings of a baseline arm from --set changes; RecipeError for what its method does not have."""
    return settings_of(ARMS[arm].method, override({}, changes))
