"""Recipes of runs and benchmarks, as text and as data, and --set changes."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from evofool import recipe as recipes
from evofool.bench import plan
from tests.fuzz.mutations import STRINGS, apply_bytes, apply_json, as_toml, byte_edits, json_edits
from tests.fuzz.room import Area, Room

ENCODED = {"é": "latin-1", "bom": "utf-16"}


@cache
def shipped() -> list[Path]:
    return [*recipes.shipped_recipes(), *recipes.shipped_benches()]


def file_of(case: tuple[Any, ...]) -> bytes:
    how, which, edits, _ = case
    sample = shipped()[which % len(shipped())].read_bytes()
    if how == "text":
        return apply_bytes(sample, edits)
    data = apply_json(tomllib.loads(sample.decode()), edits)
    return as_toml(data if isinstance(data, dict) else {"recipe": data}).encode("utf-8", "surrogatepass")


def enter(case: tuple[Any, ...], room: Room) -> None:
    path = room.give("recipe.toml", file_of(case))
    load = plan.load if b"budgets" in path.read_bytes() else recipes.load
    loaded = load(path, case[3])
    if isinstance(loaded, recipes.Recipe):
        recipes.parse(loaded.model_dump(mode="json", exclude_none=True), "again")
        for shape in ((1, 28, 28), (3, 32, 24)):
            loaded.encoding.build(shape)


_KEYS = (
    "search.seed",
    "search.batch",
    "search.classes",
    "encoding.kind",
    "encoding.rate",
    "encoding",
    "stop",
    "stop.evaluations",
    "niches.edges",
    "niches",
    "compute.chunk",
    "compute.ray.address",
    "name",
    "target",
    "targets",
    "budgets",
    "arm.cppn.set",
    "seeds",
    "",
    ".",
    "a.b.c",
    "x" * 300,
    "search..seed",
    ".".join("a" * 3000),
    "encoding.mutation.weight",
    "search.parents",
)
_VALUES = (
    *STRINGS,
    "[" * 3000,
    "{" * 2000,
    "1_0",
    "1e400",
    "0x" + "f" * 5000,
    '"',
    "'''",
    "[1, [2]]",
    "{a = 1}",
    "nan",
    "-inf",
    "1979-05-27",
)
_SETS = st.lists(
    st.one_of(
        st.builds(lambda key, value: f"{key}={value}", st.sampled_from(_KEYS), st.sampled_from(_VALUES)),
        st.builds(lambda key, value: f"{key}={value}", st.sampled_from(_KEYS), st.text(max_size=12)),
        st.text(max_size=20),
    ),
    max_size=3,
)
CASES = st.one_of(
    st.tuples(st.just("text"), st.integers(0, 99), byte_edits(), st.just([])),
    st.tuples(st.just("data"), st.integers(0, 99), json_edits(), st.just([])),
    st.tuples(st.just("data"), st.integers(0, 99), json_edits(), _SETS),
    st.tuples(st.just("text"), st.integers(0, 99), st.just([]), _SETS),
)


def line(case: tuple[Any, ...], room: Room) -> list[str | Path] | None:
    """A run or a benchmark of a recipe that is refused; a valid one could take any time."""
    content = file_of(case)
    path, bench = room.give("recipe.toml", content), b"budgets" in content
    changes: list[str | Path] = [part for change in case[3] for part in ("--set", change)]
    if any("\0" in str(change) for change in changes):
        return None  # no argument can have it
    try:
        (plan.load if bench else recipes.load)(path, case[3])
    except Exception:
        return ["bench" if bench else "run", path, *changes]
    return None


AREA = Area("recipes", CASES, enter, 6, line=line)
