"""What a benchmark is to do: bench.toml <-> BenchRecipe. Strict and frozen, as recipe.py is for runs."""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evofool.bench.arms import ARMS, refuse_small, refuse_unknown, search_recipe, settings_for
from evofool.errors import RecipeError
from evofool.export.export import file_name
from evofool.recipe import from_file, shipped_benches
from evofool.recipe import load as load_run
from evofool.targets import Target

DETECTORS = ("msp", "max-logit", "energy", "mahalanobis")
DEFENCES = ("none", "outlier-exposure", "reject-class")
QUICK = ("cppn", "per-class", "random", "apgd", "noise")
"""The arms where none are asked for: the question of sharing, the strongest attack and the floor."""

_OWN = ("name", "target", "search.seed", "search.rank", "search.competition", "search.classes", "stop", "compute")
"""Keys of a search's recipe that the benchmark sets for all arms alike."""

Level = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TargetPart(_Part):
    """One classifier, or several copies of a digit network that are trained first (bench/retraining/training.py).

    target: a spec. train: a defence ("none", "outlier-exposure", "reject-class"), with copies and epochs. name: in results,
    the spec's own unless given; copies are numbered. group: networks that are told of together, the name unless given.
    defends: the group that this one is said to be harder to fool than. top1: the accuracy on the real images that the target
    is declared to have.
    """

    target: str | None = Field(None, min_length=1)
    train: Literal["none", "outlier-exposure", "reject-class"] | None = None
    copies: int = Field(1, ge=1, le=100)
    epochs: int | None = Field(None, ge=1, le=10_000)
    name: str = Field("", pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=60)
    group: str = ""
    defends: str = ""
    top1: Level | None = None

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
    """set: changes of the arm's recipe, or of its method's settings, as --set has them ("search.batch=32")."""

    set: tuple[str, ...] = ()


class DetectorsPart(_Part):
    """Detectors of what is out of distribution. arm: whose elites; adaptive: it is also let search against each of them.

    fit: a folder of labelled real images that Mahalanobis is fitted on, instead of those that set thresholds.
    """

    names: tuple[Literal["msp", "max-logit", "energy", "mahalanobis"], ...] = DETECTORS  # type: ignore[assignment]
    arm: str = "cppn"
    adaptive: bool = True
    fit: str | None = None

    @field_validator("arm")
    @classmethod
    def _known(cls, arm: str) -> str:
        refuse_unknown([arm])
        if ARMS[arm].kind != "search":
            raise ValueError("has to be one that searches: " + ", ".join(a for a in ARMS if ARMS[a].kind == "search"))
        return arm


class ImageMetricsPart(_Part):
    """The metrics of evofool/image_metrics. network: the spec of an independent network, whose features are compared too."""

    network: str | None = None


class BenchRecipe(_Part):
    """A whole benchmark. Every number of queries is that of all classes together.

    images: a folder of labelled real images, or "digits". first_seed, seeds: seeds first_seed, first_seed + 1, ...
    workers: cells done side by side, by Ray's processes (0: one after the other, in this one); ray: the cluster's address.
    format: the number format that searches rank by; other than "float32", dividing all logits may change a bit.
    """

    name: str = Field("bench", pattern=r"^[^/\\\x00]*[^/\\\x00. ][^/\\\x00]*$")
    images: str = Field(min_length=1)
    targets: tuple[TargetPart, ...] = Field(min_length=1)
    arms: tuple[str, ...] = Field(QUICK, min_length=1)
    arm: dict[str, ArmPart] = {}
    budgets: tuple[Annotated[int, Field(ge=1, le=10**9)], ...] = Field((1_000, 10_000), min_length=1)
    seeds: int = Field(5, ge=1, le=1000)
    first_seed: int = Field(0, ge=0, lt=1 << 32)
    format: str = "float32"
    detectors: DetectorsPart | None = None
    image_metrics: ImageMetricsPart | None = None
    transfer: bool = False
    workers: int = Field(0, ge=0, le=100_000)
    ray: str = "local"

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
            if ARMS[name].kind == "search":
                _refuse_changes(name, part.set)
            else:
                settings_for(name, part.set)
        if self.detectors and self.detectors.arm not in self.arms:
            raise ValueError(f"detectors.arm {self.detectors.arm} is none of the arms {', '.join(self.arms)}")
        self._refuse_twins()
        self._refuse_strangers()
        return self

    def _refuse_twins(self) -> None:
        """Networks that are trained alike are the same ones, and would be counted as independent."""
        seen = set()
        for part in self.targets:
            if part.train is None:
                continue
            if (part.train, part.each_epochs) in seen:
                raise ValueError(
                    f'train = "{part.train}" with {part.each_epochs} epochs is there twice, and would be the same networks '
                    "again; give it once, with more copies"
                )
            seen.add((part.train, part.each_epochs))

    def _refuse_strangers(self) -> None:
        """Whoever defends a group has to be compared with one that there is."""
        there = [part.family for part in self.targets]
        for part in self.targets:
            others = [family for family in dict.fromkeys(there) if family != part.family]
            if part.defends and part.defends not in others:
                near = difflib.get_close_matches(part.defends, others, 1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                listed = f"there are {', '.join(others)}" if others else "there is none beside it"
                raise ValueError(
                    f'targets: {part.called} defends "{part.defends}", which is no other group or name; {listed}{hint}'
                )

    @property
    def each_seed(self) -> tuple[int, ...]:
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def budget(self) -> int:
        """The largest: what every cell gets."""
        return self.budgets[-1]

    def changes(self, arm: str) -> tuple[str, ...]:
        """What is set of an arm."""
        return self.arm[arm].set if arm in self.arm else ()

    def refuse_small(self, classes: int, who: str, differentiable: bool = True) -> None:
        """RecipeError where a budget does not go round the classes of a target."""
        arms = [arm for arm in self.arms if differentiable or ARMS[arm].kind != "white"]
        settings = {arm: settings_for(arm, self.changes(arm)) for arm in arms if ARMS[arm].kind != "search"}
        refuse_small(arms, self.budget, classes, who, settings)

    def refuse_settings(self, target: Target) -> None:
        """RecipeError where the settings of a search arm are none for images of a target's shape."""
        for arm in self.arms:
            if ARMS[arm].kind == "search":
                changes, queries = self.changes(arm), self.budget
                made = search_recipe(
                    arm, target, seed=0, queries=queries, name=arm, changes=changes, number_format=self.format
                )
                made.encoding.build(target.shape)

    def fixed(self) -> dict[str, Any]:
        """What decides figures, as plain JSON: all but where the work is done and which seeds, arms and targets it has."""
        return self.model_dump(
            mode="json",
            exclude={
                "name",
                "workers",
                "ray",
                "seeds",
                "first_seed",
                "arms",
                "targets",
                "transfer",
                "image_metrics",
                "detectors",
            },
        )


def load(bench: str | Path, changes: Sequence[str] = ()) -> BenchRecipe:
    """The bench recipe in a file, or the shipped one of that name, with --set changes laid over it. RecipeError if none."""
    path = Path(bench)
    if path.suffix != ".toml" or not path.is_file():
        shipped = {p.stem: p for p in shipped_benches()}
        if str(bench) not in shipped:
            near = difflib.get_close_matches(str(bench), shipped, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise RecipeError(f"{bench} is no bench recipe; shipped are {', '.join(shipped)}, or name a .toml file{hint}")
        path = shipped[str(bench)]
    return parse(from_file(path, changes), str(path))


def parse(data: Any, where: str) -> BenchRecipe:
    """BenchRecipe from plain data; RecipeError lists every fault with its key."""
    try:
        return BenchRecipe.model_validate(_tuples(data))
    except ValidationError as error:
        faults = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            near = difflib.get_close_matches(str(item["loc"][-1]) if item["loc"] else "", _keys(), 1)
            hint = f' (did you mean "{near[0]}"?)' if item["type"] == "extra_forbidden" and near else ""
            words = (
                "there is no such key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
            )
            faults.append(f"{key}: {words}{hint}" if key else words)
        raise RecipeError(f"{where}: " + "; ".join(faults)) from None


def _refuse_changes(arm: str, changes: Sequence[str]) -> None:
    """RecipeError unless the changes fit a search arm's recipe: the one for photographs or the one for digits."""
    for change in changes:
        key = change.partition("=")[0].strip()
        own = next((own for own in _OWN if f"{key}.".startswith(f"{own}.") or f"{own}.".startswith(f"{key}.")), None)
        if own:
            raise RecipeError(
                f"arm.{arm}.set: {change}: {own} is the benchmark's, not an arm's (seeds, budgets and format are those of "
                "all arms; the rank and who competes are the protocol's)"
            )
    faults = []
    for family in ("mnist", "imagenet"):
        try:
            load_run(f"{family}-{ARMS[arm].recipe}").changed(changes, f"arm.{arm}.set")
        except RecipeError as error:
            faults.append(error)
    if len(faults) == 2:
        raise faults[0]


def _keys() -> list[str]:
    models = (BenchRecipe, TargetPart, ArmPart, DetectorsPart, ImageMetricsPart)
    return [key for model in models for key in model.model_fields]


def _tuples(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: _tuples(v) for k, v in data.items()}
    return tuple(_tuples(v) for v in data) if isinstance(data, (list, tuple)) else data
