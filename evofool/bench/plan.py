"""The recipe of a benchmark: bench.toml <-> BenchRecipe. Strict and frozen, as recipe.py is for runs."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evofool.bench.arms import (
    ARMS,
    SURROGATE,
    all_changes,
    changed_recipe,
    evolves,
    refuse_small,
    refuse_unknown,
    search_recipe,
    settings_for,
)
from evofool.bench.cell_job import CellJob, JobSurrogate
from evofool.bench.headline import SUITE
from evofool.errors import RecipeError
from evofool.export.image_file import file_name
from evofool.recipe import faults_text, from_file, override, shipped_benches
from evofool.recipe import parse as parse_run
from evofool.recipe_parts import FolderName, NumberFormat, RayPart
from evofool.targets import Target
from evofool.text import shortened

DETECTORS = ("msp", "max-logit", "energy", "mahalanobis")
QUICK = (*SUITE, "cppn", "per-class", "noise")
"""The default arms: the headline's suite, the question of sharing, and the floor."""

_SHARED_KEYS = (
    *("name", "target", "search.seed", "search.rank", "search.competition", "search.classes", "stop", "compute"),
    "search.surrogate.targets",
)
"""Keys of a search's recipe that the benchmark sets for all arms alike."""

_NOT_FIXED = {
    *("name", "workers", "ray", "seeds", "first_seed", "arms", "targets", "surrogates"),
    *("transfer", "image_metrics", "detectors"),
}
"""Keys of a benchmark that may change while there are cells. Cells of other surrogates are done again."""

Level = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class TargetPart(_Part):
    """One classifier, or several copies of a digit network that are trained first (bench/retraining/training.py)."""

    target: str | None = Field(None, min_length=1)
    """A classifier, in the grammar of targets."""
    train: Literal["none", "outlier-exposure", "reject-class", "adversarial"] | None = None
    """Digit networks that are trained first: `none` as usual, the others with a defence. `outlier-exposure` and
    `reject-class` learn from images without digits, `adversarial` from the worst images near the digits.
    """
    copies: int = Field(1, ge=1, le=100)
    """How many are trained, each from a seed of its own."""
    epochs: int | None = Field(None, ge=1, le=10_000)
    """The epochs of their training; 20 if not given."""
    name: str = Field("", pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=60)
    """The name in results; the name of the target or of the defence if not given. Copies are numbered."""
    group: str = ""
    """Networks with the same group are reported together; the name if not given."""
    defence: str = Field("", max_length=100)
    """The defence that the network has, in a few words, for the board; the value of `train` if not given."""
    defends: str = ""
    """The name or group of the networks that this one is stated to be harder to fool than. The report says whether that
    held.
    """
    top1: Level | None = None
    """Its accuracy on the real images. A target that is well below it is invalid. Published values are known for
    published weights.
    """

    @model_validator(mode="after")
    def _one(self) -> "TargetPart":
        if (self.target is None) == (self.train is None):
            raise ValueError("give either target, a spec, or train, a defence of a digit network")
        if self.target is not None and (self.copies != 1 or self.epochs is not None):
            raise ValueError("copies and epochs are for what is trained")
        return self

    @property
    def called(self) -> str:
        """Its name: as given, else that of its spec (up to "?") or of its defence."""
        return self.name or self.train or file_name((self.target or "").partition("?")[0]).lower()

    @property
    def family(self) -> str:
        """The group that `defends` is about."""
        return self.group or self.called

    @property
    def each_epochs(self) -> int:
        """The epochs that a copy is trained."""
        from evofool.bench.retraining.training import EPOCHS

        return self.epochs or EPOCHS


class ArmPart(_Part):
    """Changes of one arm."""

    set: tuple[str, ...] = ()
    """Changes such as `["search.batch=32"]`: keys of a run's recipe for an arm that evolves, settings of its method for
    the others. Keys that all arms share are refused: `target`, `stop`, `compute`, `search.seed`, `search.rank`,
    `search.competition`, `search.classes`, and `search.surrogate.targets`, which `surrogates` names.
    """


class DetectorsPart(_Part):
    """Out-of-distribution detectors, evaluated on fooling images."""

    names: tuple[Literal["msp", "max-logit", "energy", "mahalanobis"], ...] = DETECTORS  # type: ignore[assignment]
    """The detectors."""
    arm: str = "cppn"
    """The arm whose elites are evaluated; one that evolves."""
    adaptive: bool = True
    """Whether that arm also searches against each detector."""
    fit: str | None = None
    """A folder of labelled real images that Mahalanobis is fitted to, instead of the images that set the thresholds."""

    @field_validator("arm")
    @classmethod
    def _known(cls, arm: str) -> str:
        refuse_unknown([arm])
        if ARMS[arm].kind != "search":
            raise ValueError("has to be one that searches: " + ", ".join(a for a in ARMS if ARMS[a].kind == "search"))
        return arm


class ImageMetricsPart(_Part):
    """Distances of images to real images (evofool.image_metrics)."""

    network: str | None = None
    """An independent classifier whose features are compared too."""


class BenchRecipe(_Part):
    """A whole benchmark. Every number of queries is the total over all classes."""

    name: FolderName = "bench"
    """Names the benchmark's folder, `runs/NAME`; the name of the file if not given."""
    images: str = Field(min_length=1)
    """A folder of labelled real images, or `digits`: the 2,500 that the extra `bench` brings."""
    targets: tuple[TargetPart, ...] = Field(min_length=1)
    """The classifiers."""
    arms: tuple[str, ...] = Field(QUICK, min_length=1)
    """The ways to search for fooling images."""
    arm: dict[str, ArmPart] = {}
    """Changes of single arms."""
    surrogates: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=16)
    """Networks with gradients, in the grammar of targets, which the arm `surrogate` climbs. A target is never its own
    surrogate: it is left out of its list. A network of the target's own family helps, an unrelated one does not.
    """
    budgets: tuple[Annotated[int, Field(ge=1, le=10**9)], ...] = Field((1_000, 10_000), min_length=1)
    """Numbers of queries, in ascending order. Every cell gets the last one; results are reported at each."""
    classes: int | None = Field(None, ge=2, le=10**6)
    """The number of classes that are attacked and scored, if fewer than there are: of the classes with real images, in
    the order of the labels, evenly spaced ones. All images set the thresholds. All classes if not given.
    """
    seeds: int = Field(5, ge=1, le=1000)
    """The number of seeds."""
    first_seed: int = Field(0, ge=0, lt=1 << 32)
    """The first seed; the others follow it."""
    format: NumberFormat = "float32"
    """The number format that arms search with (`compute.format`). With another one than `float32`, dividing all logits by
    a number may change results.
    """
    detectors: DetectorsPart | None = None
    """Detectors to evaluate."""
    image_metrics: ImageMetricsPart | None = None
    """Distances to real images to measure."""
    transfer: bool = False
    """Whether every target is also shown the elites of the others."""
    workers: int = Field(0, ge=0, le=100_000)
    """Processes of Ray that do cells in parallel; 0: one cell after the other. Does not change results."""
    ray: RayPart = RayPart()
    """Where workers run and what each reserves: the keys of a run's `compute.ray`, such as `ray.gpus`. A text is short for
    `ray.address`.
    """

    @field_validator("ray", mode="before")
    @classmethod
    def _table(cls, ray: Any) -> Any:
        return _ray_table(ray)

    @field_validator("ray")
    @classmethod
    def _of_runs(cls, ray: RayPart) -> RayPart:
        for key in ("in_flight", "quarantine"):
            if getattr(ray, key) != RayPart.model_fields[key].default:
                raise ValueError(f"{key} is for the workers of a single search; here each worker runs whole cells")
        return ray

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        refuse_unknown(arms)
        if len(set(arms)) != len(arms):
            raise ValueError(f"an arm is named twice: {', '.join(arms)}")
        return arms

    @field_validator("budgets")
    @classmethod
    def _ascend(cls, budgets: tuple[int, ...]) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(budgets)):
            raise ValueError(f"{list(budgets)} have to ascend")
        return budgets

    @model_validator(mode="after")
    def _fits(self) -> "BenchRecipe":
        refuse_unknown(list(self.arm))
        for name, part in self.arm.items():
            if evolves(name):
                _refuse_changes(name, part.set)
            else:
                settings_for(name, part.set)
        if self.detectors and self.detectors.arm not in self.arms:
            raise ValueError(f"detectors.arm {self.detectors.arm} is not one of the arms {', '.join(self.arms)}")
        self._refuse_equal_training()
        self._refuse_unknown_groups()
        return self

    def _refuse_equal_training(self) -> None:
        """Networks that are trained alike are the same networks, and would be counted as independent."""
        seen = set()
        for part in self.targets:
            if part.train is None:
                continue
            if (part.train, part.each_epochs) in seen:
                raise ValueError(
                    f'train = "{part.train}" with {part.each_epochs} epochs is given twice, which gives the same networks '
                    "again; give it once, with more copies"
                )
            seen.add((part.train, part.each_epochs))

    def _refuse_unknown_groups(self) -> None:
        """The group that a target defends has to exist."""
        families = [part.family for part in self.targets]
        for part in self.targets:
            others = [family for family in dict.fromkeys(families) if family != part.family]
            if part.defends and part.defends not in others:
                near = difflib.get_close_matches(part.defends, others, 1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                listed = f"there are {', '.join(others)}" if others else "there is no other"
                raise ValueError(
                    f'targets: {part.called} defends "{part.defends}", which is not another group or name; {listed}{hint}'
                )

    @property
    def each_seed(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def budget(self) -> int:
        """The largest budget, which every cell gets."""
        return self.budgets[-1]

    def changes(self, arm: str) -> tuple[str, ...]:
        """The --set changes of an arm: those of the recipe, and the arm's own."""
        return all_changes(arm, self.arm[arm].set if arm in self.arm else ())

    def refuse_small(self, classes: int, name: str, differentiable: bool = True, per_image: int = 1) -> None:
        """RecipeError where the budget is too small for the number of classes of a target, `name`.

        per_image: the queries that an image takes.
        """
        arms = [arm for arm in self.arms if differentiable or ARMS[arm].kind != "white"]
        refuse_small(arms, self.budget, classes, name, self.settings(), per_image)

    def settings(self) -> dict[str, dict[str, Any]]:
        """By arm that does not evolve, its settings."""
        return {arm: settings_for(arm, self.changes(arm)) for arm in self.arms if not evolves(arm)}

    def refuse_settings(self, target: Target) -> None:
        """RecipeError where the settings of an arm that evolves do not fit images of a target's shape."""
        for arm in self.arms:
            if evolves(arm):
                classes = tuple(range(len(target.labels)))
                job = CellJob(Path(arm), target.name, arm, 0, self.budget, classes, self.changes(arm), self.format)
                surrogates = tuple(JobSurrogate(spec, "") for spec in self.surrogates) if arm == SURROGATE else ()
                search_recipe(replace(job, surrogates=surrogates), target).build_encoding(target.shape)

    def fixed(self) -> dict[str, Any]:
        """The part that figures depend on, as plain JSON: without where the work is done, seeds, arms and targets."""
        return self.model_dump(mode="json", exclude=_NOT_FIXED)


def load(bench: str | Path, changes: Sequence[str] = ()) -> BenchRecipe:
    """The bench recipe in a file, or the shipped one of that name, with --set changes applied. RecipeError if none."""
    path = Path(bench)
    if path.suffix != ".toml" or not os.path.exists(path):
        shipped = {p.stem: p for p in shipped_benches()}
        if str(bench) not in shipped:
            near = difflib.get_close_matches(str(bench), shipped, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise RecipeError(
                f"{shortened(bench)} is not a bench recipe; shipped are {', '.join(shipped)}, or give a .toml file{hint}"
            )
        path = shipped[str(bench)]
    data = from_file(path)
    if "ray" in data:
        data["ray"] = _ray_table(data["ray"])  # so that changes of single keys can be applied
    return parse(override(data, changes), str(path))


def parse(data: Any, where: str) -> BenchRecipe:
    """BenchRecipe from plain data; RecipeError lists every error with its key."""
    try:
        return BenchRecipe.model_validate(_tuples(data))
    except ValidationError as error:
        raise RecipeError(f"{where}: {faults_text(error, _fault)}") from None


def _fault(item: Any) -> str:
    key = shortened(".".join(str(part) for part in item["loc"]))
    message: str = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "there is no such key" + _hint([str(part) for part in item["loc"]])
    return f"{key}: {message}" if key else message


def _refuse_changes(arm: str, changes: Sequence[str]) -> None:
    """RecipeError unless the changes fit the recipe of an arm that evolves: the one for photographs or that for digits."""
    for change in changes:
        key = change.partition("=")[0].strip()
        shared = next((k for k in _SHARED_KEYS if f"{key}.".startswith(f"{k}.") or f"{k}.".startswith(f"{key}.")), None)
        if shared:
            raise RecipeError(
                f"arm.{arm}.set: {change}: {shared} cannot be set for one arm (the benchmark sets seeds, budgets and format "
                "for all arms; the protocol sets rank and competition)"
            )
    faults = []
    for large in (False, True):
        try:
            parse_run(changed_recipe(arm, large, changes, ["lenet"]), f"arm.{arm}.set")  # the surrogate's name has no part
        except RecipeError as error:
            faults.append(error)
    if len(faults) == 2:
        raise faults[0]


def _hint(path: Sequence[str]) -> str:
    """Which key may be meant by one that does not exist."""
    if path == ["compute"]:
        return " (workers and ray.* say where cells run; format is the number format that searches rank by)"
    models = (BenchRecipe, TargetPart, ArmPart, DetectorsPart, ImageMetricsPart)
    keys = [key for model in models for key in model.model_fields]
    keys += [key for key in RayPart.model_fields if key not in keys]
    near = difflib.get_close_matches(path[-1], keys, 1)
    if not near:
        return ""
    of_ray = near[0] in RayPart.model_fields and path[:-1] != ["ray"]
    return f' (did you mean "{"ray." if of_ray else ""}{near[0]}"?)'


def _ray_table(ray: Any) -> Any:
    return {"address": ray} if isinstance(ray, str) else ray


def _tuples(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: _tuples(v) for k, v in data.items()}
    return tuple(_tuples(v) for v in data) if isinstance(data, (list, tuple)) else data
