"""The arms of a benchmark: methods of searching for fooling images, each of which becomes an ordinary run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evofool.ascend.approximation import STRAIGHT_THROUGH, SUBSTITUTE
from evofool.attacks.run import METHODS, AttackPlan, settings_of
from evofool.bench.cell_job import CellJob
from evofool.errors import RecipeError
from evofool.images import is_large
from evofool.recipe import Recipe, load, override, parse
from evofool.targets import Target


class ArmDefinition(NamedTuple):
    """A row of the protocol.

    kind: "search" and "black" use the target's outputs only, "surrogate" also has the weights of other networks (a transfer
    attack, no black box), "white" needs the target's gradients, "floor" searches for nothing. recipes: of an arm that
    evolves, the shipped recipes for images of digits' size and of photographs' size. method: of the others, the method of
    `evofool baseline`. changes: --set changes of the method that the arm has unless others are given.
    """

    kind: str
    description: str
    recipes: tuple[str, str] | None = None
    competition: str = "all"
    method: str = ""
    changes: tuple[str, ...] = ()


ARMS: dict[str, ArmDefinition] = {
    "direct": ArmDefinition("search", "MAP-Elites over pixels", ("mnist-direct", "imagenet-direct")),
    "cppn": ArmDefinition("search", "MAP-Elites over CPPNs", ("mnist-cppn", "imagenet-cppn")),
    "canvas": ArmDefinition("search", "MAP-Elites over canvases", ("mnist-canvas", "imagenet")),
    "latent": ArmDefinition("search", "MAP-Elites over codes of a decoder", ("mnist-latent", "imagenet-latent")),
    "per-class": ArmDefinition(
        "search",
        "the control: CPPNs, each class searched by itself, nothing shared",
        ("mnist-cppn", "imagenet-cppn"),
        "per-class",
    ),
    "random": ArmDefinition("black", "random images, each tried in every class", method="random"),
    "square": ArmDefinition("black", "Square attack, class by class (Andriushchenko 2020)", method="square"),
    "nes": ArmDefinition("black", "evolution strategy on low-frequency pixels, class by class (Ilyas 2018)", method="nes"),
    "surrogate": ArmDefinition(
        "surrogate",
        "MAP-Elites over canvases that climb other networks' gradients",
        ("mnist-canvas", "imagenet-surrogate"),
    ),
    "apgd": ArmDefinition(
        "white",
        "Auto-PGD on margin and logit at the same time, class by class (Croce & Hein 2020)",
        method="apgd",
        changes=("losses=margin+logit",),
    ),
    "fourier": ArmDefinition("white", "Fourier space under robust transforms, class by class (Olah 2017)", method="fourier"),
    "noise": ArmDefinition("floor", "one image of noise a class, nothing selected", method="noise"),
}

SURROGATE = "surrogate"
_SURROGATE_SHARE = 0.9  # of the children, where the recipe has no surrogates of its own

SHARING = ("per-class", "nes", "apgd")
"""The arms that cppn is compared with to answer whether sharing between classes helps."""


_BEFORE = {"apgd": ("losses=margin",)}

CLIMBED = {STRAIGHT_THROUGH: "straight through", SUBSTITUTE: "through a substitute model"}
"""What a white-box arm climbs instead of masked gradients (ascend.approximation)."""


def refuse_unknown(arms: Sequence[str]) -> None:
    """RecipeError for an arm that does not exist."""
    for name in arms:
        if name not in ARMS:
            raise RecipeError(f'there is no arm "{name}"; there are {", ".join(ARMS)}')


def arm_title(name: str, arm: Mapping[str, Any]) -> str:
    """The name of an arm; of a white-box arm against masked gradients also what it climbs instead."""
    climbed = arm.get("gradients")
    return f"{name} ({CLIMBED.get(climbed, climbed)})" if climbed else name


def all_changes(arm: str, changes: Sequence[str]) -> tuple[str, ...]:
    """The --set changes of an arm: the given ones, and its own of settings that are not given."""
    return (*_not_given(ARMS[arm].changes, changes), *changes)


def earlier_changes(arm: str, changes: Sequence[str]) -> tuple[str, ...]:
    """The --set changes of an arm as a result states them: of results from before it had its own, the ones it had then."""
    return (*_not_given(_BEFORE.get(arm, ()), changes), *changes)


def _not_given(own: Sequence[str], changes: Sequence[str]) -> list[str]:
    given = {change.partition("=")[0].strip() for change in changes}
    return [change for change in own if change.partition("=")[0] not in given]


def is_applicable(arm: str, target: Target) -> bool:
    """Whether the target gives what the arm needs: gradients, for white-box arms."""
    return ARMS[arm].kind != "white" or target.differentiable


def evolves(arm: str) -> bool:
    """Whether the arm is an evolutionary search, with the keys of a run's recipe."""
    return ARMS[arm].recipes is not None


def changed_recipe(arm: str, large: bool, changes: Sequence[str], surrogates: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe of an arm that evolves as plain data: the shipped one for images of this size, with --set changes.

    surrogates: specs, for the arm of that name. Its children climb as the recipe says, on digits after twice the number of
    first random images. ValueError for an arm that does not evolve.
    """
    recipes = ARMS[arm].recipes
    if recipes is None:
        raise ValueError(f"the arm {arm} does not evolve")
    data = load(recipes[large]).model_dump(mode="json", exclude_none=True)
    if arm == SURROGATE:
        search = data["search"]
        climbs = search.get("surrogate", {"share": _SURROGATE_SHARE, "after": 2 * search["random"]})
        search["surrogate"] = climbs | {"targets": list(surrogates)}
    return override(data, changes)


def search_recipe(job: CellJob, target: Target) -> Recipe:
    """The recipe of an arm that evolves: that for images of this size, with the job's seed, rank, classes and budget.

    The number of evaluations is a multiple of the batch size: the budget, or a few below it, never above. The job's changes
    override the shipped values. Streams are 1 and workers 0: several cells run side by side instead.
    """
    arm = ARMS[job.arm]
    data = changed_recipe(job.arm, is_large(target.shape), job.changes, [network.spec for network in job.surrogates])
    most = min(data.get("search", {}).get("batch", 16), job.images)
    batch = min(range(most, most // 2, -1), key=lambda b: job.images % b)  # the largest of those with the least remainder
    data |= {"name": job.folder.name, "target": target.name, "stop": {"evaluations": job.images - job.images % batch}}
    search = {"seed": job.seed, "batch": batch, "rank": job.rank, "competition": arm.competition}
    if len(job.classes) < len(target.labels):
        search["classes"] = list(job.classes)
    data["search"] = data.get("search", {}) | search
    data["compute"] = data.get("compute", {}) | {"format": job.format, "streams": 1, "workers": 0}
    return parse(data, f"arm {job.arm}")


def attack_plan(job: CellJob) -> AttackPlan:
    """The plan of an arm that is no search: its classes share the images equally, each of which is a forward pass."""
    arm = ARMS[job.arm]
    settings = settings_for(job.arm, job.changes)
    per_class = METHODS[arm.method].budget if arm.kind == "floor" else job.images // len(job.classes)
    plan = AttackPlan(arm.method, tuple(job.classes), settings, per_class, job.rank, job.seed)
    return replace(plan, gradients=job.gradients)


def least_queries(arm: str, classes: int, settings: Mapping[str, Any] | None = None) -> int:
    """The smallest number of images of all classes together with which an arm can run."""
    kind, method = ARMS[arm].kind, ARMS[arm].method
    if evolves(arm):
        return 1
    if kind == "white":
        known = settings_of(method, settings or {})
        return classes * (3 if known.get("transformed") else 2) * known.get("restarts", 1)
    return classes


def refuse_small(
    arms: Sequence[str],
    budget: int,
    classes: int,
    name: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    per_image: int = 1,
) -> None:
    """RecipeError where the budget is too small for the number of classes of a target, `name`, in one of the arms.

    per_image: the queries that an image takes.
    """
    for arm in arms:
        least = per_image * least_queries(arm, classes, (settings or {}).get(arm))
        if budget < least:
            raise RecipeError(
                f"{name}: a budget of {budget:,} queries is too small for {classes:,} classes: {arm} needs at least "
                f"{least:,}; raise the budget, or leave the arm out"
            )


def settings_for(arm: str, changes: Sequence[str]) -> dict[str, Any]:
    """The settings of an arm that is no search, from --set changes; RecipeError for an unknown setting."""
    return settings_of(ARMS[arm].method, override({}, changes))
