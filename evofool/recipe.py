"""Recipes: what a run does, from a TOML file. Rooms below take plain arguments, never a recipe."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from evofool.errors import RecipeError
from evofool.recipe_encodings import (
    CanvasCPPNPart,
    CanvasPart,
    CPPNPart,
    DirectPart,
    LatentPart,
    MutationPart,
    OperatorsPart,
)
from evofool.recipe_parts import (
    ComputePart,
    FolderName,
    NichesPart,
    Part,
    RayPart,
    SavePart,
    SearchPart,
    StopPart,
    SurrogatePart,
)
from evofool.text import shortened
from evofool.toml_file import MAX_DEPTH, read_toml, value_of
from genomes import Encoding


class Recipe(Part):
    """A whole run. Only stop, save, search.lag and the keys that do not change results may change once it has begun."""

    name: FolderName = "run"
    """Names the run's folder, `runs/NAME`; the name of the recipe's file if not given."""
    target: str = "lenet"
    """The classifier, in the grammar of targets."""
    encoding: Annotated[DirectPart | CPPNPart | CanvasPart | LatentPart, Field(discriminator="kind")]
    """What images are made of."""
    search: SearchPart = SearchPart()
    """How the search works."""
    niches: NichesPart | None = None
    """More than one elite for each class."""
    stop: StopPart
    """When the run ends."""
    compute: ComputePart = ComputePart()
    """How images are classified."""
    save: SavePart = SavePart()
    """When the run is saved."""

    @model_validator(mode="before")
    @classmethod
    def _can_climb(cls, data: Any) -> Any:
        """Checked first: a recipe that was written for an encoding of pixels has keys of it that others lack."""
        tables = [data.get(name) if isinstance(data, Mapping) else None for name in ("encoding", "search")]
        encoding, search = (table if isinstance(table, Mapping) else {} for table in tables)
        names = {"cppn": "CPPN", "latent": "latent"}
        if search.get("surrogate") is not None and encoding.get("kind") in names:
            raise ValueError(
                f"search.surrogate: {names[encoding['kind']]} genomes cannot climb on surrogates, whose gradients move "
                'pixels; use encoding.kind = "canvas" or "direct", or leave search.surrogate out'
            )
        return data

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.compute.chunk > self.search.batch:
            raise ValueError(f"compute.chunk {self.compute.chunk} is more than search.batch {self.search.batch}")
        return self

    @property
    def chunk(self) -> int:
        """Images per forward pass."""
        return self.compute.chunk or self.search.batch

    def build_encoding(self, shape: tuple[int, int, int], decoder: bytes | None = None) -> Encoding:
        """The encoding of images of this shape, (C, H, W). decoder: the file of a latent one, if a run has its copy."""
        if isinstance(self.encoding, LatentPart):
            return self.encoding.build(shape, decoder)
        return self.encoding.build(shape)

    def changed(self, changes: Sequence[str], where: str) -> "Recipe":
        """This recipe with --set changes applied; RecipeError names `where` and the key."""
        return parse(override(self.model_dump(mode="json", exclude_none=True), changes), where)

    def fixed(self) -> dict[str, Any]:
        """The keys that affect results, which a resumed run cannot change, but for search.lag. The target is left out,
        because its fingerprint identifies it, as are surrogates, and so are parents and the path of a decoder, because
        these are in the run's file (evofool.run.seeding, Reader.decoder).
        """
        return self.model_dump(
            mode="json",
            exclude={
                "name": True,
                "target": True,
                "encoding": {"decoder"},
                "stop": True,
                "save": True,
                "search": {"parents": True, "surrogate": {"targets"}},
                "compute": {"streams", "workers", "ray", "recheck", "recheck_tolerance"},
            },
        )


def load(recipe: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or the shipped one of that name, with --set changes ("search.seed=3") applied.

    RecipeError names file and key, or the change where the file alone is valid, and the nearest valid key.
    """
    path = find(recipe)
    try:
        return parse(from_file(path, changes), str(path))
    except RecipeError:
        if not changes or not _valid(path, ()):
            raise
    guilty = [change for change in changes if not _valid(path, (change,))] or changes
    return parse(from_file(path, changes), " ".join(f"--set {shortened(change)}" for change in guilty))


def _valid(path: Path, changes: Sequence[str]) -> bool:
    try:
        parse(from_file(path, changes), "")
    except RecipeError:
        return False
    return True


def from_file(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file as plain data, with --set changes applied; "name" defaults to the file's. RecipeError if unreadable."""
    data = read_toml(path)
    data.setdefault("name", path.stem)
    return override(data, changes)


def find(recipe: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one."""
    path = Path(recipe)
    # os.path: a name that is too long or has a NUL is that of no file, and no error.
    if path.suffix == ".toml" or os.path.isfile(path):
        if not os.path.exists(path):
            raise RecipeError(f"there is no recipe {shortened(path, 300)}")
        return path
    for shipped in shipped_recipes():
        if shipped.stem == str(recipe):
            return shipped
    if str(recipe) in [p.stem for p in shipped_benches()]:
        raise RecipeError(f"{recipe} is a benchmark, of many runs: evofool bench {recipe}")
    if str(recipe) in [p.stem for p in shipped_sets()]:
        raise RecipeError(f"{recipe} is a set, of many runs: evofool set build {recipe}")
    names = [p.stem for p in shipped_recipes()]
    near = difflib.get_close_matches(str(recipe), names, 1)
    if near:
        hint = f' Did you mean "{near[0]}"?'
    else:
        hint = f" To attack another target with a recipe: --set target={shortened(recipe)}" if ":" in str(recipe) else ""
    raise RecipeError(
        f'there is no recipe, recipe file, or folder of a run or sweep "{shortened(recipe)}".{hint} '
        f"The shipped recipes are {', '.join(names)}"
    )


def shipped_recipes() -> list[Path]:
    """The recipes of runs, beside the package in a checkout, inside it once installed."""
    return [path for path in _shipped() if path not in (*shipped_benches(), *shipped_sets())]


def shipped_benches() -> list[Path]:
    """The recipes of benchmarks (bench/plan.py), in the same place."""
    return [path for path in _shipped() if path.name.startswith("bench-")]


def shipped_sets() -> list[Path]:
    """The recipes of sets of fooling images (fooling_set/recipe.py), in the same place."""
    return [path for path in _shipped() if path.name.startswith("set-")]


def _shipped() -> list[Path]:
    packed = Path(str(resources.files("evofool"))) / "recipes"
    folder = packed if packed.is_dir() else packed.parent.parent / "runs"
    return sorted(folder.glob("*.toml"))


def override(data: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """data with each "a.b=value" applied. The value is TOML; a bare word is a string; an empty value removes the key."""
    out: dict[str, Any] = _copy(data)
    for change in changes:
        key, sign, text = change.partition("=")
        where = f"--set {shortened(change)}"
        if not sign or not key.strip():
            raise RecipeError(f"{where}: has to be KEY=VALUE, as in --set search.seed=3")
        *parents, leaf = key.strip().split(".")
        if len(parents) >= MAX_DEPTH:
            raise RecipeError(f"{where}: its key has {len(parents) + 1:,} parts, more than {MAX_DEPTH}")
        at = out
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise RecipeError(f"{where}: {parent} is not a table")
        if not text.strip():
            at.pop(leaf, None)
            continue
        at[leaf] = value_of(text, where)
    return out


def parse(data: Mapping[str, Any], where: str) -> Recipe:
    """Recipe from plain data; RecipeError lists every fault with its key."""
    try:
        # Strict JSON-like data: TOML has lists where the model has tuples, and whole numbers where it has floats.
        return Recipe.model_validate(_tuples(data))
    except ValidationError as error:
        raise RecipeError(f"{where}: {faults_text(error, _fault)}") from None


def faults_text(error: ValidationError, describe: Callable[[Any], str]) -> str:
    """What is wrong, as describe says of each of pydantic's faults; the first ten."""
    faults = error.errors(include_url=False)
    more = [f"and {len(faults) - _FAULTS:,} more"] if len(faults) > _FAULTS else []
    return "; ".join([*map(describe, faults[:_FAULTS]), *more])


_FAULTS = 10  # more are not read, and a file that is no recipe can have a million
_VARIATION = {
    "rate", "eta", "halve_every", "crossover", "eta_crossover", "rates", "initial_weight", "activation_set", "start",
    "sigma", "line", "limit",
}  # fmt: skip
"""Settings of an encoding that affect variation, but not how a genome is drawn or packed; these may differ."""
_SETTINGS = {"name": "kind", "mode": "color", "raw_coordinates": "coordinates"}
"""Settings that have another name in a recipe."""


def drawing(encoding: Any) -> dict[str, Any]:
    """The settings that affect how a genome of this encoding is drawn and packed, under the keys of a recipe."""
    return {f"encoding.{name}": value for name, value in _drawing(encoding).items()}


def _drawing(encoding: Any) -> dict[str, Any]:
    names = ["name", *(f.name for f in fields(encoding) if f.compare and f.name not in _VARIATION)]
    compared = {_SETTINGS.get(name, name): getattr(encoding, name) for name in names}
    if "coordinates" in compared:
        compared["coordinates"] = "raw" if compared["coordinates"] else "centred"
    if is_dataclass(inner := compared.pop("cppn", None)):  # the CPPNs of canvases
        compared |= {f"cppn.{name}": value for name, value in _drawing(inner).items()}
    return compared


_TABLES: dict[str, type[BaseModel]] = {
    "search": SearchPart,
    "niches": NichesPart,
    "stop": StopPart,
    "compute": ComputePart,
    "ray": RayPart,
    "save": SavePart,
    "mutation": MutationPart,
    "cppn": CanvasCPPNPart,
    "rates": OperatorsPart,
    "surrogate": SurrogatePart,
}
_ENCODINGS: dict[str, type[BaseModel]] = {"direct": DirectPart, "cppn": CPPNPart, "canvas": CanvasPart, "latent": LatentPart}


def _fault(item: Any) -> str:
    # The names that pydantic gives to kinds of an encoding and to alternatives of a union are left out.
    loc = item["loc"][:1] + item["loc"][2:] if item["loc"][:1] == ("encoding",) and len(item["loc"]) > 1 else item["loc"]
    unknown = loc[-1:] if item["type"] == "extra_forbidden" else ()  # the user's own key, which may look like such a name
    known = [str(p) for p in loc[: len(loc) - len(unknown)] if "[" not in str(p) and "constrained" not in str(p)]
    path = [*known, *map(str, unknown)]
    key = shortened(".".join(path)) or "recipe"
    if item["type"] == "extra_forbidden":
        valid = _keys(path[:-1], item["loc"])
        near = difflib.get_close_matches(path[-1], valid, 1, 0.5)
        hint = f'; did you mean "{".".join([*path[:-1], near[0]])}"?' if near else f"; valid keys: {', '.join(valid)}"
        return f'unknown key "{key}"{hint}'
    if item["type"] == "missing":
        return f'"{key}" is missing'
    shown = "" if isinstance(item["input"], dict) else f" (it is {shortened(repr(item['input']))})"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _keys(path: list[str], loc: tuple[Any, ...]) -> list[str]:
    """The valid keys of the table at path."""
    model: type[BaseModel] = Recipe
    for part in path:
        if part == "encoding":
            model = _ENCODINGS[loc[1]]
            continue
        model = _TABLES.get(part, model)
    return list(model.model_fields)


def _copy(data: Any) -> Any:
    return {k: _copy(v) for k, v in data.items()} if isinstance(data, Mapping) else data


def _tuples(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {k: _tuples(v) for k, v in data.items()}
    return tuple(_tuples(v) for v in data) if isinstance(data, list) else data
