"""Recipes: every shipped one builds, and an invalid one is refused with file and key."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evofool.errors import EvofoolError, RecipeError
from evofool.recipe import Recipe, drawing, find, load, override, parse, shipped_recipes
from genomes import CPPN, Canvas, Direct
from genomes.canvas.operators import Rates
from genomes.cppn.vary import Rates as GraphRates
from genomes.upconv import Decoder, Layout, decoder_bytes

NAMES = ["mnist-cppn", "mnist-cppn-nguyen2015", "mnist-direct", "mnist-direct-nguyen2015"]
CPPN_DATA: dict[str, Any] = {"encoding": {"kind": "cppn"}, "stop": {"evaluations": 100}}
CANVAS_DATA: dict[str, Any] = {"encoding": {"kind": "canvas"}, "stop": {"evaluations": 100}}
DIRECT_DATA: dict[str, Any] = {"encoding": {"kind": "direct"}, "stop": {"evaluations": 100}}


def faults(data: dict[str, Any], *changes: str) -> str:
    """What parse says of data with changes laid over it."""
    with pytest.raises(RecipeError) as caught:
        parse(override(data, changes), "my.toml")
    assert isinstance(caught.value, EvofoolError)
    assert isinstance(caught.value, ValueError)
    text = str(caught.value)
    assert text.startswith("my.toml: ")
    assert "\n" not in text
    return text


# --- the shipped ones


def test_the_shipped_recipes_are_these() -> None:
    assert {path.stem for path in shipped_recipes()} >= set(NAMES)


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_builds_and_comes_back_from_its_own_dump(path: Path) -> None:
    recipe = load(path.stem)
    assert recipe == load(path)
    assert recipe.name == path.stem
    # A decoder draws one number of channels, and that of imagenet-latent is a user's file.
    decoders = dict.fromkeys((1, 3), b"")
    if recipe.encoding.kind == "latent":
        decoders = {c: decoder_bytes(Decoder(Layout((2,), (c, 8, 8), (2,))), {}) for c in decoders}
    encoding = recipe.build_encoding((1, 28, 28), decoders[1])
    assert (encoding.channels, encoding.height, encoding.width) == (1, 28, 28)
    assert recipe.build_encoding((3, 32, 40), decoders[3]).channels == 3
    for plain in (recipe.model_dump(mode="json"), recipe.model_dump(mode="json", exclude_none=True)):
        assert parse({k: v for k, v in plain.items() if v is not None}, "again") == recipe
    assert parse(tomllib.loads(path.read_text()) | {"name": path.stem}, "again") == recipe


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("2015")])
def test_the_2015_recipes_have_the_paper_s_settings(name: str) -> None:
    recipe = load(name)
    assert recipe.search.batch == 200
    assert recipe.stop.evaluations == 200 * 200
    assert recipe.stop.confidence is None
    encoding = recipe.encoding.build((1, 28, 28))
    if isinstance(encoding, CPPN):
        assert encoding == CPPN.nguyen2015(1, 28, 28)
        assert encoding.raw_coordinates
        assert encoding.weight_limit == 10.0
    else:
        assert encoding == Direct(1, 28, 28, 0.1, 15.0, 1000, 0.5, 10.0)


def test_a_recipe_is_frozen() -> None:
    recipe = load("mnist-cppn")
    with pytest.raises(ValidationError):
        recipe.search.seed = 4  # type: ignore[misc]


# --- finding


def test_a_recipe_is_found_by_name_by_path_and_without_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[encoding]\nkind = "direct"\n[stop]\nevaluations = 9\n')
    (tmp_path / "bare").write_text((tmp_path / "mine.toml").read_text())
    assert load(tmp_path / "mine.toml").name == "mine"
    assert load(str(tmp_path / "mine.toml")).stop.evaluations == 9
    assert find(tmp_path / "bare") == tmp_path / "bare"


def test_a_recipe_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe .*nowhere\.toml"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(RecipeError, match=r'there is no recipe.* sweep "mnist-cpn"\. Did you mean "mnist-cppn"\?'):
        load("mnist-cpn")
    with pytest.raises(RecipeError, match="The shipped recipes are ") as caught:
        load("zzz")
    assert all(name in str(caught.value) for name in NAMES)


def test_a_target_in_the_place_of_a_recipe_is_recognised() -> None:
    with pytest.raises(RecipeError, match=r"attack another target with a recipe: --set target=python:my\.py:model"):
        load("python:my.py:model")


def test_a_wrong_change_is_blamed_instead_of_a_file_that_is_valid(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'^--set serch\.seed=3: unknown key "serch"; did you mean "search"\?$'):
        load("mnist-cppn", ["search.seed=1", "serch.seed=3"])
    (tmp_path / "bad.toml").write_text('[encoding]\nkind = "direct"\n[stop]\nevaluation = 9\n')
    with pytest.raises(RecipeError, match=r"^.*bad\.toml: .*unknown key"):
        load(tmp_path / "bad.toml", ["search.seed=1"])
    with pytest.raises(
        RecipeError, match=r"^--set compute\.chunk=5 --set search\.batch=4: recipe: compute\.chunk 5 is more"
    ):
        load("mnist-direct", ["compute.chunk=5", "search.batch=4"])


def test_a_file_of_any_name_is_a_recipe(tmp_path: Path) -> None:
    for name in ("my digits.toml", "größe.toml", "100%.toml"):
        path = tmp_path / name
        path.write_text('[encoding]\nkind = "direct"\n[stop]\nevaluations = 9\n')
        assert load(path).stop.evaluations == 9


@pytest.mark.parametrize("content", [b"[encoding", b"x = ", b"\xff\xfe\x00", b"\x00" * 50, b"a = 1\na = 2\n"])
def test_what_is_no_toml_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"bad\.toml: not TOML"):
        load(tmp_path / "bad.toml")


def test_a_truncated_recipe_names_the_file(tmp_path: Path) -> None:
    whole = shipped_recipes()[0].read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.toml").write_bytes(whole[:length])
        try:
            recipe = load(tmp_path / "cut.toml")
        except RecipeError as error:
            message = str(error)
            assert "cut.toml: " in message
        else:  # some cuts are sound recipes
            assert recipe.stop


def test_an_empty_recipe_lists_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(RecipeError, match=r'empty\.toml: "encoding" is missing; "stop" is missing'):
        load(tmp_path / "empty.toml")


# --- strictness


@pytest.mark.parametrize(
    ("data", "change", "message"),
    [
        (CPPN_DATA, "serch.seed=3", 'unknown key "serch"; did you mean "search"?'),
        (CPPN_DATA, "search.sed=3", 'unknown key "search.sed"; did you mean "search.seed"?'),
        (CPPN_DATA, "search.zzz=3", 'unknown key "search.zzz"; valid keys: seed, batch'),
        (CPPN_DATA, "stop.evaluation=3", 'unknown key "stop.evaluation"; did you mean "stop.evaluations"?'),
        (CPPN_DATA, "encoding.weight_limt=3.0", 'unknown key "encoding.weight_limt"; did you mean "encoding.weight_limit"?'),
        (CPPN_DATA, "encoding.halve_every=3", 'unknown key "encoding.halve_every"'),
        (DIRECT_DATA, "encoding.halv_every=3", 'unknown key "encoding.halv_every"; did you mean "encoding.halve_every"?'),
        (DIRECT_DATA, "encoding.preset=nguyen2015", 'unknown key "encoding.preset"'),
        (CPPN_DATA, "encoding.mutation.wieght=0.1", 'did you mean "encoding.mutation.weight"?'),
        (CANVAS_DATA, "encoding.mirrors=1", 'unknown key "encoding.mirrors"; did you mean "encoding.mirror"?'),
        (CANVAS_DATA, "encoding.rates.blent=1", 'unknown key "encoding.rates.blent"; did you mean "encoding.rates.blend"?'),
        (CANVAS_DATA, "encoding.cppn.prest=1", 'unknown key "encoding.cppn.prest"; did you mean "encoding.cppn.preset"?'),
        (CANVAS_DATA, "encoding.cppn.mutation.wieght=1", 'did you mean "encoding.cppn.mutation.weight"?'),
        (CPPN_DATA, "compute.thread=1", 'did you mean "compute.threads"?'),
        (CPPN_DATA, "save.second=1", 'did you mean "save.seconds"?'),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(data: dict[str, Any], change: str, message: str) -> None:
    assert message in faults(data, change)


@pytest.mark.parametrize(
    ("data", "change", "key"),
    [
        (CPPN_DATA, "search.seed=1.5", "search.seed"),
        (CPPN_DATA, "search.seed=true", "search.seed"),
        (CPPN_DATA, 'search.seed="3"', "search.seed"),
        (CPPN_DATA, "search.seed=[3]", "search.seed"),
        (CPPN_DATA, "search.seed=1979-05-27", "search.seed"),
        (CPPN_DATA, "search=3", "search"),
        (CPPN_DATA, "stop=soon", "stop"),
        (CPPN_DATA, "encoding=cppn", "encoding"),
        (CPPN_DATA, "target=3", "target"),
        (CPPN_DATA, "stop.seconds=many", "stop.seconds"),
        (CPPN_DATA, "stop.evaluations=1e5", "stop.evaluations"),
        (CPPN_DATA, "encoding.activations=3", "encoding.activations"),
        (CPPN_DATA, "encoding.mutation=0.5", "encoding.mutation"),
        (DIRECT_DATA, "encoding.eta=fine", "encoding.eta"),
        (DIRECT_DATA, "encoding.rate=often", "encoding.rate"),
        (CPPN_DATA, "niches=[1, 2]", "niches"),
        (CPPN_DATA, "niches={descriptor='mirror_symmetry', edges='x'}", "niches.edges"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_key(data: dict[str, Any], change: str, key: str) -> None:
    assert key in faults(data, change)


@pytest.mark.parametrize(
    ("data", "change", "key"),
    [
        (CPPN_DATA, "search.seed=-1", "search.seed"),
        (CPPN_DATA, f"search.seed={1 << 62}", "search.seed"),
        (CPPN_DATA, "search.seed=99999999999999999999999", "search.seed"),
        (CPPN_DATA, "search.batch=0", "search.batch"),
        (CPPN_DATA, "search.lag=-1", "search.lag"),
        (CPPN_DATA, "search.rank=loss", "search.rank"),
        (CPPN_DATA, "search.competition=some", "search.competition"),
        (CPPN_DATA, "stop.evaluations=0", "stop.evaluations"),
        (CPPN_DATA, "stop.confidence=1", "stop.confidence"),
        (CPPN_DATA, "stop.confidence=0.0", "stop.confidence"),
        (CPPN_DATA, "stop.seconds=0", "stop.seconds"),
        (CPPN_DATA, "stop.no_progress=0", "stop.no_progress"),
        (CPPN_DATA, "save.seconds=-1.0", "save.seconds"),
        (CPPN_DATA, "compute.chunk=-1", "compute.chunk"),
        (CPPN_DATA, "compute.threads=0", "compute.threads"),
        (CPPN_DATA, "encoding.color=cmyk", "encoding.color"),
        (CPPN_DATA, "encoding.preset=best", "encoding.preset"),
        (CPPN_DATA, "encoding.coordinates=polar", "encoding.coordinates"),
        (CPPN_DATA, "encoding.weight_limit=0", "encoding.weight_limit"),
        (CPPN_DATA, "encoding.weight_limit=1e6", "encoding.weight_limit"),
        (CPPN_DATA, "encoding.max_nodes=0", "encoding.max_nodes"),
        (CPPN_DATA, "encoding.max_edges=3", "encoding.max_edges"),
        (CPPN_DATA, "encoding.mutation.weight=1.1", "encoding.mutation.weight"),
        (CPPN_DATA, "encoding.mutation.delete_node=-0.1", "encoding.mutation.delete_node"),
        (CPPN_DATA, "encoding.activations=nosuch", 'no set "nosuch"'),
        (CPPN_DATA, "encoding.activations=['sin', 'nosuch']", '"nosuch"'),
        (DIRECT_DATA, "encoding.rate=0", "encoding.rate"),
        (DIRECT_DATA, "encoding.rate=1.5", "encoding.rate"),
        (DIRECT_DATA, "encoding.rate=[0.5, 0.1]", "rate [0.5, 0.1]"),
        (DIRECT_DATA, "encoding.rate=[0.1, 0.2, 0.3]", "encoding.rate"),
        (DIRECT_DATA, "encoding.eta=0", "encoding.eta"),
        (DIRECT_DATA, "encoding.crossover=2", "encoding.crossover"),
        (DIRECT_DATA, "encoding.halve_every=-1", "encoding.halve_every"),
        (CANVAS_DATA, "encoding.size=1", "encoding.size"),
        (CANVAS_DATA, "encoding.size=513", "encoding.size"),
        (CANVAS_DATA, "encoding.mirror=0", "encoding.mirror"),
        (CANVAS_DATA, "encoding.start=rain", "encoding.start"),
        (CANVAS_DATA, "encoding.rates.move=-1", "encoding.rates.move"),
        (CANVAS_DATA, "encoding.cppn.max_nodes=0", "encoding.cppn.max_nodes"),
        (CPPN_DATA, "search.random=-1", "search.random"),
        (CPPN_DATA, "encoding.kind=upconv", "encoding"),
        (CPPN_DATA, "encoding.kind=", "encoding"),
        (CPPN_DATA, "niches={descriptor='nosuch', edges=[1.0]}", 'no "nosuch" is registered'),
        (CPPN_DATA, "niches={descriptor='mirror_symmetry', edges=[]}", "niches.edges"),
        (CPPN_DATA, "niches={descriptor='mirror_symmetry', edges=[0.5, 0.5]}", "have to ascend"),
        (CPPN_DATA, "niches.edges=[0.5]", '"niches.descriptor" is missing'),
        (CPPN_DATA, "name=a/b", "name"),
        (CPPN_DATA, "name='..'", "name"),
        (CPPN_DATA, 'name="a\\u001b]0;PWN\\u0007"', "name"),
        (CPPN_DATA, 'name="a\\u202eb"', "name"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(data: dict[str, Any], change: str, key: str) -> None:
    assert key in faults(data, change)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "key", ["stop.seconds", "stop.confidence", "save.seconds", "encoding.weight_limit", "encoding.mutation.eta"]
)
def test_nan_and_infinity_are_refused(bad: str, key: str) -> None:
    assert key in faults(CPPN_DATA, f"{key}={bad}")


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_nan_and_infinity_are_refused_in_lists_too(bad: str) -> None:
    assert "encoding.rate" in faults(DIRECT_DATA, f"encoding.rate=[0.1, {bad}]")
    assert "niches.edges" in faults(CPPN_DATA, f"niches={{descriptor='mirror_symmetry', edges=[0.1, {bad}]}}")


def test_a_recipe_that_would_never_end_is_refused() -> None:
    assert "give at least one of evaluations, answers, seconds, confidence, no_progress" in faults(
        CPPN_DATA, "stop.evaluations="
    )
    assert '"stop" is missing' in faults(CPPN_DATA, "stop=")
    assert '"encoding" is missing' in faults(CPPN_DATA, "encoding=")


def test_every_fault_is_told_at_once() -> None:
    message = faults(CPPN_DATA, "search.seed=-1", "search.sed=1", "stop.evaluations=0")
    assert all(part in message for part in ("search.seed", "search.sed", "stop.evaluations"))


def test_whole_numbers_are_taken_where_a_recipe_has_fractions() -> None:
    recipe = parse(override(CPPN_DATA, ["stop.seconds=3", "encoding.weight_limit=5", "encoding.mutation.weight=1"]), "x")
    assert recipe.stop.seconds == 3.0
    assert recipe.encoding.build((1, 28, 28)).weight_limit == 5.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("encoding.initial_weight=20.0", "initial_weight <= weight_limit"),
        ("encoding.color=hsv", 'encoding.color "hsv" has 3 channels, the target takes 1'),
        ("encoding.activations=[]", "activation"),
        ("encoding={kind='canvas', size=13}", "encoding: canvas: size 13 x mirror 2 covers 26 pixels"),
        (
            "encoding={kind='canvas', cosines=15}",
            "encoding: canvas: cosines is 15; it has to be 0, or in 2..14 for this size",
        ),
        ("encoding={kind='canvas', mirror=28}", "encoding: canvas: size is 1"),
        ("encoding={kind='canvas', cppn={color='hsv'}}", 'encoding.cppn.color "hsv" has 3 channels, the target takes 1'),
        ("encoding={kind='canvas', cppn={initial_weight=20.0}}", "encoding.cppn: cppn: 0 < initial_weight"),
    ],
)
def test_an_encoding_that_cannot_be_built_is_a_fault_of_the_recipe(change: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(override(CPPN_DATA, [change]), "my.toml").encoding.build((1, 28, 28))
    assert message in str(caught.value)


# --- --set


def test_set_lays_toml_values_over_a_recipe() -> None:
    changes = [
        "search.seed=3", "search.competition=per-class", 'search.rank="margin"', " search.batch = 5 ",
        "niches.descriptor=mirror_symmetry", "niches.edges=[0.2, 0.4]", "encoding.mutation={weight=0.25}", "name=a.b-c_1",
    ]  # fmt: skip
    recipe = load("mnist-cppn", changes)
    assert (recipe.search.seed, recipe.search.competition, recipe.search.rank, recipe.search.batch) == (
        3,
        "per-class",
        "margin",
        5,
    )
    assert recipe.niches is not None
    assert (recipe.niches.descriptor, recipe.niches.edges) == ("mirror_symmetry", (0.2, 0.4))
    assert recipe.encoding.mutation.weight == 0.25  # type: ignore[union-attr]
    assert recipe.name == "a.b-c_1"
    assert recipe.target == load("mnist-cppn").target


def test_set_without_a_value_takes_the_key_out() -> None:
    assert load("mnist-cppn", ["stop.evaluations=5", "stop.confidence="]).stop.model_dump(exclude_none=True) == {
        "evaluations": 5
    }
    assert load("mnist-cppn", ["search="]).search == parse(CPPN_DATA, "x").search
    assert load("mnist-cppn", ["search.nosuch="]) == load("mnist-cppn")


def test_of_two_changes_of_a_key_the_last_holds() -> None:
    assert load("mnist-cppn", ["search.seed=3", "search.seed=4"]).search.seed == 4


@pytest.mark.parametrize("change", ["search.seed", "=3", " =3", ""])
def test_set_without_key_or_sign_says_how_it_is_written(change: str) -> None:
    with pytest.raises(RecipeError, match=r"has to be KEY=VALUE, as in --set search\.seed=3"):
        override({}, [change])


def test_set_below_a_value_that_is_no_table_is_told() -> None:
    with pytest.raises(RecipeError, match=r"--set target\.x=3: target is not a table"):
        load("mnist-cppn", ["target.x=3"])


def test_set_changes_nothing_but_a_copy() -> None:
    data = {"a": {"b": {"c": 1}}}
    assert override(data, ["a.b.c=2", "a.d=3"]) == {"a": {"b": {"c": 2}, "d": 3}}
    assert data == {"a": {"b": {"c": 1}}}


def test_a_fault_in_a_change_names_the_change_and_the_key() -> None:
    with pytest.raises(RecipeError, match=r'--set search\.sed=3: unknown key "search\.sed"; did you mean "search\.seed"\?'):
        load("mnist-cppn", ["search.sed=3"])


def test_changed_lays_over_a_recipe_that_was_loaded() -> None:
    recipe = load("mnist-direct", ["niches={descriptor='mirror_symmetry', edges=[0.5]}"])
    assert recipe.changed([], "x") == recipe
    assert recipe.changed(["search.seed=8", "stop.confidence="], "x") == load(
        "mnist-direct", ["niches={descriptor='mirror_symmetry', edges=[0.5]}", "search.seed=8", "stop.confidence="]
    )
    with pytest.raises(RecipeError, match=r'^over there: unknown key "sed"'):
        recipe.changed(["sed=8"], "over there")


# --- what decides bits


def test_name_stop_save_and_workers_decide_no_bits_and_everything_else_does() -> None:
    recipe = load("mnist-cppn")
    free = recipe.changed(
        ["name=x", "stop.evaluations=7", "stop.seconds=9", "save.seconds=0", "target=x", "compute.workers=3"], "x"
    )
    assert free.fixed() == recipe.fixed()
    for change in (
        "search.seed=8",
        "compute.threads=2",
        "compute.chunk=5",
        "encoding.max_nodes=70",
        "compute.format=float32",
    ):
        assert recipe.changed([change], "x").fixed() != recipe.fixed()
    assert set(Recipe.model_fields) - set(recipe.fixed()) == {"name", "target", "stop", "save"}, (
        "the fingerprint identifies a target"
    )


def test_the_chunk_is_the_batch_unless_given() -> None:
    assert load("mnist-cppn", ["search.batch=33"]).chunk == 33
    assert load("mnist-cppn", ["search.batch=33", "compute.chunk=8"]).chunk == 8


def test_a_canvas_without_any_operator_is_refused() -> None:
    rates = ", ".join(f"{name}=0" for name in Rates._fields)
    assert "encoding.rates: all operators have the rate 0" in faults(CANVAS_DATA, f"encoding.rates={{{rates}}}")


def test_a_canvas_is_as_large_as_the_target_needs_and_its_cppns_have_their_own_keys() -> None:
    changes = ["encoding.cppn.activations=['sin']", "encoding.cppn.mutation.weight=0.3", "encoding.rates.move=2"]
    part = parse(override(CANVAS_DATA, changes), "x").encoding
    graphs = CPPN("hsv", 112, 112, ("sin",), rates=GraphRates(weight=0.3))
    assert part.build((3, 224, 200)) == Canvas(3, 224, 200, 112, 2, "cppn", Rates(move=2.0), graphs)
    small = replace(graphs, mode="grey", height=14, width=14)
    assert part.build((1, 28, 28)) == Canvas(1, 28, 28, 14, rates=Rates(move=2.0), cppn=small)


def test_canvases_are_drawn_alike_unless_size_mirror_or_their_cppns_graphs_differ() -> None:
    one = drawing(parse(CANVAS_DATA, "x").encoding.build((1, 28, 28)))
    for change in ("start=noise", "rates.blend=0", "cppn.mutation.weight=0.5", "cppn.activations=['sin']"):
        assert drawing(parse(override(CANVAS_DATA, [f"encoding.{change}"]), "x").encoding.build((1, 28, 28))) == one
    for change, key in (
        ("size=20", "size"),
        ("mirror=1", "mirror"),
        ("cosines=8", "cosines"),
        ("cppn.max_nodes=70", "cppn.max_nodes"),
    ):
        other = drawing(parse(override(CANVAS_DATA, [f"encoding.{change}"]), "x").encoding.build((1, 28, 28)))
        assert other[f"encoding.{key}"] != one[f"encoding.{key}"]


@pytest.mark.parametrize(
    ("recipe", "change"),
    [("imagenet-surrogate", "encoding.kind=cppn"), ("imagenet-cppn", 'search.surrogate.targets=["efficientnet-lite1"]')],
)
def test_cppns_with_surrogates_are_refused_by_the_encodings_that_can_climb_whatever_other_keys_say(
    recipe: str, change: str
) -> None:
    """The first recipe has keys of canvases, which CPPNs lack: these are not what is wrong."""
    with pytest.raises(RecipeError) as caught:
        load(recipe, [change])
    assert str(caught.value) == (
        f"--set {change}: recipe: search.surrogate: CPPN genomes cannot climb on surrogates, whose gradients move pixels; "
        'use encoding.kind = "canvas" or "direct", or leave search.surrogate out'
    )
