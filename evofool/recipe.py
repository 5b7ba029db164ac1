"""Recipes: what a run does, from a TOML file. Rooms below take plain arguments, never a recipe."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evofool.descriptors import DESCRIPTORS
from evofool.errors import RecipeError
from genomes import CPPN, Direct, Encoding
from genomes.cppn import activations
from genomes.cppn.vary import Rates

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DirectPart(_Part):
    """Genomes that are pixels (genomes.Direct)."""

    kind: Literal["direct"]
    """This kind of encoding: uint8 pixels."""
    rate: Share | tuple[Share, Share] = 0.1
    """The share of pixels that mutate, or `[low, high]`: each child draws its own rate, uniformly in the logarithm."""
    eta: float = Field(15.0, gt=0)
    """The index of Deb's polynomial mutation; the lower it is, the larger the steps."""
    halve_every: int = Field(0, ge=0)
    """The number of batches after which the rate halves; 0: never."""
    crossover: Probability = 0.0
    """The probability of simulated binary crossover (SBX)."""
    eta_crossover: float = Field(10.0, gt=0)
    """The index of that crossover."""

    @model_validator(mode="after")
    def _in_order(self) -> "DirectPart":
        if isinstance(self.rate, tuple) and self.rate[0] > self.rate[1]:
            raise ValueError(f"rate {list(self.rate)} has to be [low, high]")
        return self

    def build(self, shape: tuple[int, int, int]) -> Encoding:
        channels, height, width = shape
        return Direct(channels, height, width, self.rate, self.eta, self.halve_every, self.crossover, self.eta_crossover)


class MutationPart(_Part):
    """How a CPPN's child differs from its mother (genomes.cppn.vary.Rates)."""

    weight: Probability = Rates._field_defaults["weight"]
    """The share of weights that mutate."""
    eta: float = Field(Rates._field_defaults["eta"], gt=0)
    """The index of their polynomial mutation; the lower it is, the larger the steps."""
    activation: Probability = Rates._field_defaults["activation"]
    """The share of nodes whose activation function is drawn anew."""
    add_edge: Probability = Rates._field_defaults["add_edge"]
    """The probability that a child gets a new edge."""
    delete_edge: Probability = Rates._field_defaults["delete_edge"]
    """The probability that a child loses an edge."""
    split_edge: Probability = Rates._field_defaults["split_edge"]
    """The probability that an edge of a child is split by a new node."""
    delete_node: Probability = Rates._field_defaults["delete_node"]
    """The probability that a child loses a node."""


class CPPNPart(_Part):
    """Genomes that are graphs of functions (genomes.CPPN)."""

    kind: Literal["cppn"]
    """This kind of encoding: compositional pattern-producing networks."""
    preset: Literal["default", "nguyen2015"] = "default"
    """`nguyen2015` has the settings of the 2015 code: raw pixel indices, four activation functions, weights between -10
    and 10, and its colours. Other keys still override them.
    """
    color: Literal["auto", "grey", "rgb", "hsv", "grey2015", "hls2015"] = "auto"
    """How outputs become colours; `auto` is grey for one channel and HSV for three."""
    activations: str | tuple[str, ...] | None = None
    """A set of activation functions by name (`default`, `nguyen2015`, `innovation2015`) or a list of functions; the
    preset's if not given.
    """
    weight_limit: float | None = Field(None, gt=0, lt=1e6)
    """The largest absolute value of a weight; 10 if not given."""
    initial_weight: float | None = Field(None, gt=0, lt=1e6)
    """The largest absolute value of a first weight; `weight_limit` if not given."""
    coordinates: Literal["centred", "raw"] | None = None
    """`centred`: independent of the resolution. `raw`: pixel indices. The preset's if not given."""
    max_nodes: int = Field(64, ge=4, le=4096)
    """The largest number of nodes of a genome."""
    max_edges: int = Field(192, ge=16, le=16384)
    """The largest number of edges of a genome."""
    mutation: MutationPart = MutationPart()
    """The rates of mutation."""

    @model_validator(mode="after")
    def _known(self) -> "CPPNPart":
        names = self.activations
        if isinstance(names, str) and names not in activations.SETS:
            raise ValueError(f'activations: no set "{names}"; there are {", ".join(activations.SETS)}')
        for name in names if isinstance(names, tuple) else ():
            activations.number(name)
        return self

    def build(self, shape: tuple[int, int, int]) -> Encoding:
        channels, height, width = shape
        given = {
            "mode": None if self.color == "auto" else self.color,
            "activation_set": self.activations,
            "weight_limit": self.weight_limit,
            "initial_weight": self.initial_weight,
            "raw_coordinates": None if self.coordinates is None else self.coordinates == "raw",
            "max_nodes": self.max_nodes,
            "max_edges": self.max_edges,
            "rates": Rates(**self.mutation.model_dump()),
        }
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if "weight_limit" in changes:
            changes.setdefault("initial_weight", changes["weight_limit"])
        try:
            if self.preset == "nguyen2015":
                encoding = CPPN.nguyen2015(channels, height, width, **changes)
            else:
                changes.setdefault("mode", "grey" if channels == 1 else "hsv")
                encoding = CPPN(height=height, width=width, **changes)
        except ValueError as error:
            raise RecipeError(f"encoding: {error}") from None
        if encoding.channels != channels:
            raise RecipeError(
                f'encoding.color "{encoding.mode}" has {encoding.channels} channels, the target takes {channels}'
            )
        return encoding


class SearchPart(_Part):
    """How MAP-Elites searches (evofool.search.evolve)."""

    seed: int = Field(0, ge=0, lt=1 << 62)
    """The key of every random draw."""
    batch: int = Field(16, ge=1, le=1 << 20)
    """The number of images that are made from one draw of parents. Small batches suit small targets."""
    rank: Literal["log_odds", "margin"] = "log_odds"
    """What elites are compared by."""
    competition: Literal["all", "argmax", "per-class"] = "all"
    """`all`: every image competes in every class. `argmax`: only in the class with the highest score. `per-class`: only
    in the class that it was made for, so that classes share nothing (a control).
    """
    classes: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1)
    """The numbers of the classes that are searched for, such as `[0, 3, 8]`; all if not given. With `per-class` only
    these take turns.
    """
    selection: Literal["uniform", "lagging"] = "uniform"
    """How parents are drawn from the cells: `uniform`, or `lagging`: the worse of two, so that weak cells get more
    children.
    """
    lag: int = Field(0, ge=0, le=1 << 16)
    """Batch k draws its parents from the archive after batch k - 1 - lag, so lag + 1 batches are in progress and the
    first lag + 1 are random. A lag keeps workers and streams busy, and costs evaluations.
    """
    mode: Literal["reproducible", "free"] = "reproducible"
    """`reproducible`: batches are committed in order, and any number of workers gives the same results. `free`: with
    workers, batches are committed as they finish, whatever the lag; the order is stored, and `evofool replay` repeats
    it.
    """
    parents: str | None = Field(None, min_length=1)
    """The folder of a run (`--parents RUN`) whose elites are the first genomes, in order of birth, instead of random
    ones. They are scored anew, so its target may be another one; the encoding and the size of images have to be the
    same. With `per-class` each competes in the class whose elite it was, if the labels are the same. The genomes are
    copied into the run's file, so the folder is not needed afterwards.
    """

    @field_validator("classes")
    @classmethod
    def _ascending(cls, classes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Ascending, so that equal recipes compare equal."""
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError("names a class twice")
        return classes and tuple(sorted(classes))

    @field_validator("parents")
    @classmethod
    def _absolute(cls, parents: str | None) -> str | None:
        """An absolute path, so that it is valid in any folder."""
        return parents and str(Path(parents).expanduser().absolute())


class NichesPart(_Part):
    """Intervals of an image descriptor; every class keeps one elite for each interval."""

    descriptor: str
    """A registered descriptor: `png_bytes_per_pixel`, `mirror_symmetry` or one of your own."""
    edges: tuple[float, ...] = Field(min_length=1)
    """The edges between intervals, in ascending order; n edges make n + 1 intervals."""

    @model_validator(mode="after")
    def _known(self) -> "NichesPart":
        if self.descriptor not in DESCRIPTORS:
            raise ValueError(f'descriptor: no "{self.descriptor}" is registered; there are {", ".join(DESCRIPTORS)}')
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges {list(self.edges)} have to ascend")
        return self


class StopPart(_Part):
    """A run ends at the first of these that is reached; at least one is required."""

    evaluations: int | None = Field(None, ge=1)
    """The number of evaluated images."""
    answers: int | None = Field(None, ge=1)
    """The number of images that the target answered, validation included, over all sessions. What a black box had
    answered before costs nothing.
    """
    seconds: float | None = Field(None, gt=0)
    """Seconds of search, over all sessions."""
    confidence: float | None = Field(None, gt=0, lt=1)
    """Every class has reached this confidence."""
    no_progress: int | None = Field(None, ge=1)
    """No elite was replaced for this number of batches."""

    @model_validator(mode="after")
    def _some(self) -> "StopPart":
        if all(value is None for value in self.__dict__.values()):
            raise ValueError(
                "give at least one of evaluations, answers, seconds, confidence, no_progress, or the run never ends"
            )
        return self


class RayPart(_Part):
    """Where workers run and what each reserves (evofool.cluster). Does not change results."""

    address: str = "local"
    """`local` starts a Ray for this run on this machine; `auto` or `HOST:PORT` joins the cluster that this machine is a
    node of.
    """
    cpus: float = Field(1.0, ge=0)
    """The CPU cores that each worker reserves."""
    gpus: float = Field(0.0, ge=0)
    """The GPUs that each worker reserves; workers with a fraction share a GPU."""
    memory: float = Field(0.0, ge=0)
    """The GiB of memory that each worker reserves. Ray places workers by it, but does not enforce it."""
    resources: dict[str, float] = {}
    """Custom resources of Ray that each worker reserves: `--set 'compute.ray.resources={a100 = 1}'`."""
    placement: Literal["DEFAULT", "SPREAD"] = "DEFAULT"
    """Ray's scheduling strategy: `DEFAULT` packs workers onto few nodes, `SPREAD` spreads them."""
    environment: dict[str, Any] = {}
    """Ray's runtime environment for workers: `--set 'compute.ray.environment={working_dir = "."}'`."""
    in_flight: int = Field(2, ge=1, le=64)
    """The number of calls that wait at each worker."""
    timeout: float = Field(300.0, gt=0)
    """Seconds after which a call counts as hanging; four times as many for a worker's first call."""
    retries: int = Field(2, ge=1, le=100)
    """The number of workers that may die during a call before it is split; an image that still kills workers when it is
    alone is set aside.
    """
    quarantine: int = Field(16, ge=0)
    """The number of images that may be set aside in one session before the search ends."""

    @field_validator("gpus")
    @classmethod
    def _whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("has to be a fraction of one, or a whole number")
        return gpus

    @field_validator("resources")
    @classmethod
    def _custom(cls, resources: dict[str, float]) -> dict[str, float]:
        if any(name in ("CPU", "GPU", "memory") or amount <= 0 for name, amount in resources.items()):
            raise ValueError("names a cluster's own resources with amounts above 0; the others are cpus, gpus and memory")
        return resources

    @field_validator("address")
    @classmethod
    def _reachable(cls, address: str) -> str:
        if not re.fullmatch(r"local|auto|[^/\s]+:[0-9]{1,5}", address):
            raise ValueError("has to be local, auto or HOST:PORT; a search joins a cluster as one of its nodes")
        return address


class ComputePart(_Part):
    """How images are classified. `chunk`, `threads` and `format` affect results; the other keys do not."""

    chunk: int = Field(0, ge=0, le=1 << 20)
    """Images in a forward pass; 0: the whole batch. Short chunks are padded. Affects the last bits of results."""
    threads: int = Field(1, ge=1, le=1024)
    """Torch threads of a forward pass. Affects the last bits of results."""
    format: Literal["auto", "float32", "float32-folded", "bfloat16", "float16", "bfloat16-compiled", "float16-compiled"] = (
        "auto"
    )
    """The number format that the search ranks by. `float32` is the network as given; `auto` measures the formats at the
    start and keeps its choice. Affects results; elites are always scored again in float32.
    """
    streams: int = Field(0, ge=0, le=1024)
    """Chunks that are classified at once by threads of this process; 0: chosen for this machine. Does not change results."""
    workers: int = Field(0, ge=0, le=100_000)
    """Processes of Ray that classify instead, one chunk at a time each, on this machine or a cluster; 0: none. Does not
    change results, except in the free mode.
    """
    ray: RayPart = RayPart()
    """Where these workers run."""


class SavePart(_Part):
    """When the run is saved."""

    seconds: float = Field(1.0, ge=0)
    """The least time between checkpoints. After an expensive checkpoint the run waits 80 times what it took."""


class Recipe(_Part):
    """A whole run. Only stop, save and the keys that do not change results may change once it has begun."""

    name: str = Field("run", pattern=r"^[^/\\\x00]*[^/\\\x00. ][^/\\\x00]*$")
    """Names the run's folder, `runs/NAME`; the name of the recipe's file if not given."""
    target: str = "lenet"
    """The classifier, in the grammar of targets."""
    encoding: Annotated[DirectPart | CPPNPart, Field(discriminator="kind")]
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

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.compute.chunk > self.search.batch:
            raise ValueError(f"compute.chunk {self.compute.chunk} is more than search.batch {self.search.batch}")
        return self

    @property
    def chunk(self) -> int:
        """Images per forward pass."""
        return self.compute.chunk or self.search.batch

    def changed(self, changes: Sequence[str], where: str) -> "Recipe":
        """This recipe with --set changes applied; RecipeError names `where` and the key."""
        return parse(override(self.model_dump(mode="json", exclude_none=True), changes), where)

    def fixed(self) -> dict[str, Any]:
        """The keys that affect results, which a resumed run cannot change. The target is left out, because its fingerprint
        identifies it, and so are parents, because they are in the run's file (evofool.run.seeding)."""
        return self.model_dump(
            mode="json",
            exclude={
                "name": True,
                "target": True,
                "stop": True,
                "save": True,
                "search": {"parents"},
                "compute": {"streams", "workers", "ray"},
            },
        )


def load(recipe: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or the shipped one of that name, with --set changes ("search.seed=3") applied.

    RecipeError names file and key, and the nearest valid one.
    """
    path = find(recipe)
    return parse(from_file(path, changes), str(path))


def from_file(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file as plain data, with --set changes applied; "name" defaults to the file's. RecipeError if unreadable."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML ({error})") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    data.setdefault("name", path.stem)
    return override(data, changes)


def find(recipe: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one."""
    path = Path(recipe)
    try:
        path.is_file()
    except (OSError, ValueError) as error:  # a name too long, a NUL
        raise RecipeError(f"{str(recipe)[:60]} ... can be no recipe ({error})") from None
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise RecipeError(f"there is no recipe {path}")
        return path
    for shipped in shipped_recipes():
        if shipped.stem == str(recipe):
            return shipped
    if str(recipe) in [p.stem for p in shipped_benches()]:
        raise RecipeError(f"{recipe} is a benchmark, of many runs: evofool bench {recipe}")
    names = [p.stem for p in shipped_recipes()]
    near = difflib.get_close_matches(str(recipe), names, 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise RecipeError(f"{recipe} is no recipe, no file and no run; the shipped recipes are {', '.join(names)}{hint}")


def shipped_recipes() -> list[Path]:
    """The recipes of runs, beside the package in a checkout, inside it once installed."""
    return [path for path in _shipped() if path not in shipped_benches()]


def shipped_benches() -> list[Path]:
    """The recipes of benchmarks (bench/plan.py), in the same place."""
    return [path for path in _shipped() if path.name.startswith("bench-")]


def _shipped() -> list[Path]:
    packed = Path(str(resources.files("evofool"))) / "recipes"
    folder = packed if packed.is_dir() else packed.parent.parent / "runs"
    return sorted(folder.glob("*.toml"))


def override(data: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """data with each "a.b=value" applied. The value is TOML; a bare word is a string; an empty value removes the key."""
    out: dict[str, Any] = _copy(data)
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not key.strip():
            raise RecipeError(f"--set {change}: has to be KEY=VALUE, as in --set search.seed=3")
        *parents, leaf = key.strip().split(".")
        at = out
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise RecipeError(f"--set {change}: {parent} is no table")
        if not text.strip():
            at.pop(leaf, None)
            continue
        try:
            at[leaf] = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            at[leaf] = text.strip()
    return out


def parse(data: Mapping[str, Any], where: str) -> Recipe:
    """Recipe from plain data; RecipeError lists every fault with its key."""
    try:
        # Strict JSON-like data: TOML has lists where the model has tuples, and whole numbers where it has floats.
        return Recipe.model_validate(_tuples(data))
    except ValidationError as error:
        faults = [_fault(item) for item in error.errors()]
        raise RecipeError(f"{where}: " + "; ".join(faults)) from None


_VARIATION = {"rate", "eta", "halve_every", "crossover", "eta_crossover", "rates", "initial_weight", "activation_set"}
"""Settings of an encoding that affect variation, but not how a genome is drawn or packed; these may differ."""
_SETTINGS = {"name": "kind", "mode": "color", "raw_coordinates": "coordinates"}
"""Settings that have another name in a recipe."""


def drawing(encoding: Any) -> dict[str, Any]:
    """The settings that affect how a genome of this encoding is drawn and packed, under the keys of a recipe."""
    names = ["name", *(f.name for f in fields(encoding) if f.compare and f.name not in _VARIATION)]
    compared = {_SETTINGS.get(name, name): getattr(encoding, name) for name in names}
    if "coordinates" in compared:
        compared["coordinates"] = "raw" if compared["coordinates"] else "centred"
    return {f"encoding.{name}": value for name, value in compared.items()}


_TABLES: dict[str, type[BaseModel]] = {
    "search": SearchPart,
    "niches": NichesPart,
    "stop": StopPart,
    "compute": ComputePart,
    "ray": RayPart,
    "save": SavePart,
    "mutation": MutationPart,
}


def _fault(item: Any) -> str:
    # The names that pydantic gives to kinds of an encoding and to alternatives of a union are left out.
    loc = item["loc"][:1] + item["loc"][2:] if item["loc"][:1] == ("encoding",) and len(item["loc"]) > 1 else item["loc"]
    path = [str(p) for p in loc if "[" not in str(p) and "constrained" not in str(p)]
    key = ".".join(path) or "recipe"
    if item["type"] == "extra_forbidden":
        valid = _keys(path[:-1], item["loc"])
        near = difflib.get_close_matches(path[-1], valid, 1, 0.5)
        hint = f'; did you mean "{".".join([*path[:-1], near[0]])}"?' if near else f"; valid keys: {', '.join(valid)}"
        return f'unknown key "{key}"{hint}'
    if item["type"] == "missing":
        return f'"{key}" is missing'
    shown = "" if isinstance(item["input"], dict) else f" (it is {item['input']!r})"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _keys(path: list[str], loc: tuple[Any, ...]) -> list[str]:
    """The valid keys of the table at path."""
    model: type[BaseModel] = Recipe
    for part in path:
        if part == "encoding":
            model = CPPNPart if "cppn" in loc else DirectPart
            continue
        model = _TABLES.get(part, model)
    return list(model.model_fields)


def _copy(data: Any) -> Any:
    return {k: _copy(v) for k, v in data.items()} if isinstance(data, Mapping) else data


def _tuples(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {k: _tuples(v) for k, v in data.items()}
    return tuple(_tuples(v) for v in data) if isinstance(data, list) else data
