"""The recipe of a set of fooling images: set.toml <-> SetRecipe. Strict and frozen, as the recipes of benchmarks are."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evofool.bench.arms import SURROGATE
from evofool.bench.plan import ArmPart, BenchRecipe, TargetPart
from evofool.bench.plan import parse as parse_bench
from evofool.errors import RecipeError
from evofool.recipe import faults_text, from_file, override, shipped_sets
from evofool.recipe_parts import FolderName, NumberFormat, RayPart
from evofool.text import shortened

_NO_IMAGES = "none"  # a benchmark needs real images for its thresholds; a set has none


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class SetArmPart(ArmPart):
    """Changes of one arm, as in a benchmark, and its number of queries."""

    budget: int | None = Field(None, ge=1, le=10**9)
    """The number of queries of a cell of this arm, where it is not the group's."""


class GroupPart(_Part):
    """Classifiers whose images are made in the same ways: a benchmark without thresholds."""

    name: FolderName
    """The name of the group, and of its folder of images."""
    targets: tuple[TargetPart, ...] = Field(min_length=1)
    """The classifiers, as those of a benchmark. Their names are different in the whole set."""
    arms: tuple[str, ...] = Field(min_length=1)
    """The encodings and attacks, named as the arms of a benchmark."""
    arm: dict[str, SetArmPart] = {}
    """Changes of single arms."""
    budget: int = Field(ge=1, le=10**9)
    """The number of queries of a cell: one classifier, one arm, one seed, all classes together."""
    format: NumberFormat = "float32"
    """The number format that arms which evolve search with (`compute.format`). Images are always scored in float32. `auto`
    may choose another one in another build, so that the images differ.
    """
    classes: Annotated[int, Field(ge=1)] | Annotated[tuple[str | int, ...], Field(min_length=1)] | None = None
    """The classes that images are made for: a list of labels or numbers, or how many, evenly spaced in the order of the
    labels. All classes if not given.
    """
    images: str | None = None
    """Labelled real images that the fooling images are compared with (`evofool measure`): a folder, or `digits`. Nothing is
    compared if not given.
    """

    def budget_of(self, arm: str) -> int:
        """The number of queries of a cell of an arm."""
        return (self.arm[arm].budget if arm in self.arm else None) or self.budget


class SetRecipe(_Part):
    """A whole set of fooling images."""

    name: FolderName = "set"
    """Names the folder, `runs/NAME`; the name of the file if not given."""
    version: str = Field("1.0.0", pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$")
    """The version of the set, three numbers."""
    title: str = Field("", max_length=120)
    """What the data card calls the set; its name if not given."""
    published: str = Field("", pattern=r"^(\d{4}-\d{2}-\d{2})?$")
    """The day of its publication, YYYY-MM-DD, for the metadata; not stated if not given."""
    groups: tuple[GroupPart, ...] = Field(min_length=1)
    """The groups of classifiers."""
    seeds: int = Field(3, ge=1, le=1000)
    """The number of seeds."""
    first_seed: int = Field(0, ge=0, lt=1 << 32)
    """The first seed; the others follow it."""
    workers: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Processes of Ray that do cells in parallel; 0: one cell after the other. Does not change results."""
    ray: RayPart = RayPart()
    """Where workers run and what each reserves, as in a benchmark."""

    def bench(self, group: GroupPart) -> BenchRecipe:
        """The benchmark whose cells the group's images are. RecipeError for what a benchmark refuses."""
        of_benchmarks = {"targets", "arms", "arm", "format"}
        data = group.model_dump(
            mode="json", exclude_unset=True, include=of_benchmarks, exclude={"arm": {"__all__": {"budget"}}}
        )
        data |= {"name": group.name, "images": group.images or _NO_IMAGES, "budgets": [group.budget]}
        data |= {"seeds": self.seeds, "first_seed": self.first_seed}
        return parse_bench(data, f"groups: {group.name}")

    def fixed(self) -> dict[str, Any]:
        """The part that the set depends on, as plain JSON: without where the work is done."""
        return self.model_dump(mode="json", exclude={"workers", "ray"}, exclude_unset=True) | {"name": self.name}


def load(recipe: str | Path, changes: Sequence[str] = ()) -> SetRecipe:
    """The recipe in a file, or the shipped one of that name, with --set changes applied. RecipeError if there is none."""
    path = Path(recipe)
    if path.suffix != ".toml" or not os.path.exists(path):
        shipped = {p.stem: p for p in shipped_sets()}
        if str(recipe) not in shipped:
            near = difflib.get_close_matches(str(recipe), shipped, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise RecipeError(
                f"{shortened(recipe)} is no recipe of a set; shipped are {', '.join(shipped)}, or give a .toml file{hint}"
            )
        path = shipped[str(recipe)]
    data = from_file(path)
    return parse(override(data, changes), str(path))


def with_more(recipe: SetRecipe, targets: Sequence[str] = (), images: Sequence[str] = ()) -> SetRecipe:
    """The recipe with more classifiers, each GROUP=SPEC, and with other real images for its groups, each GROUP=DIR.

    RecipeError for a group that it has not.
    """
    if not targets and not images:
        return recipe
    data = recipe.model_dump(mode="json", exclude_unset=True) | {"name": recipe.name}
    groups = {group["name"]: group for group in data["groups"]}
    for option, form, given in (("--target", "SPEC", targets), ("--images", "DIR", images)):
        for text in given:
            name, sign, value = text.partition("=")
            if not sign or not value or name not in groups:
                raise RecipeError(
                    f"{option} {shortened(text)}: has to be GROUP={form}, and the groups of {recipe.name} are "
                    f"{', '.join(groups)}"
                )
            if option == "--images":
                groups[name]["images"] = value
            else:
                groups[name]["targets"] = [*groups[name]["targets"], {"target": value}]
    return parse(data, "the command line")


def parse(data: Mapping[str, Any], where: str) -> SetRecipe:
    """SetRecipe from plain data; RecipeError lists every error with its key."""
    try:
        recipe = SetRecipe.model_validate(_tuples(data))
    except ValidationError as error:
        raise RecipeError(f"{where}: {faults_text(error, _fault)}") from None
    names = [group.name for group in recipe.groups]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"{where}: groups: two have the name {twice[0]}")
    for group in recipe.groups:
        if SURROGATE in group.arms:
            raise RecipeError(
                f"{where}: groups: {group.name}: arms: {SURROGATE} climbs other networks, which a set does not name; leave "
                "it out"
            )
        recipe.bench(group)
    return recipe


def _fault(item: Any) -> str:
    key = shortened(".".join(str(part) for part in item["loc"]))
    message = "there is no such key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else str(message)


def _tuples(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _tuples(value) for key, value in data.items()}
    return tuple(_tuples(value) for value in data) if isinstance(data, (list, tuple)) else data
