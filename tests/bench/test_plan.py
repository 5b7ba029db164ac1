"""Bench recipes are parsed strictly."""

import pytest

from evofool.bench.arms import changed_recipe
from evofool.bench.entries import entries, train
from evofool.bench.plan import load, parse
from evofool.cli.bench import given_options, recipe_of
from evofool.errors import RecipeError
from evofool.recipe import load as load_run
from evofool.recipe import shipped_benches, shipped_recipes
from evofool.targets import target

LEAST = {"images": "digits", "targets": [{"target": "lenet"}]}


@pytest.mark.parametrize("path", shipped_benches(), ids=lambda p: p.stem)
def test_every_shipped_bench_loads(path):
    recipe = load(path.stem)
    assert recipe.name == path.stem
    assert path not in shipped_recipes(), "a bench is no run's recipe"


def test_a_recipe_needs_only_images_and_targets():
    recipe = parse(LEAST, "here")
    assert recipe.budget == recipe.budgets[-1]
    assert recipe.each_seed == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgetz": []}, r'here: budgetz: there is no such key \(did you mean "budgets"\?\)'),
        ({"arms": ["cppn", "genetic"]}, 'there is no arm "genetic"; there are direct, cppn'),
        ({"arms": ["cppn", "cppn"]}, "an arm is named twice"),
        ({"budgets": [1000, 100]}, r"\[1000, 100\] have to ascend"),
        ({"targets": [{}]}, "give either target, a spec, or train"),
        ({"targets": [{"target": "lenet", "train": "none"}]}, "give either target"),
        ({"targets": [{"target": "lenet", "copies": 2}]}, "for what is trained"),
        ({"detectors": {"arm": "direct"}}, "detectors.arm direct is not one of the arms"),
        ({"detectors": {"arm": "apgd"}}, "has to be one that searches"),
        ({"arm": {"nes": {"set": ["pears=3"]}}}, 'nes has no setting "pears"'),
        (
            {"arm": {"cppn": {"set": ["search.bathc=3"]}}},
            'arm.cppn.set: unknown key "search.bathc"; did you mean "search.batch"',
        ),
        ({"arm": {"per-class": {"set": ["search.batch=few"]}}}, "arm.per-class.set: search.batch: .*valid integer"),
        ({"arm": {"cppn": {"set": ["search.rank=log_odds"]}}}, "search.rank cannot be set for one arm"),
        ({"detectors": {"arm": "surrogate"}}, "has to be one that searches: direct, cppn, canvas, latent, per-class"),
        (
            {"arm": {"surrogate": {"set": ['search.surrogate.targets=["lenet"]']}}},
            r"search\.surrogate\.targets cannot be set for one arm",
        ),
        (
            {"arm": {"surrogate": {"set": ["encoding.kind=cppn"]}}},
            "arm.surrogate.set: recipe: search.surrogate: CPPN genomes cannot climb on surrogates",
        ),
        ({"arm": {"cppn": {"set": ["search={seed=3}"]}}}, "search.seed cannot be set for one arm"),
        ({"arm": {"cppn": {"set": ["stop.seconds=3"]}}}, "stop cannot be set for one arm"),
        ({"arm": {"direct": {"set": ["compute.format=bfloat16"]}}}, "compute cannot be set for one arm"),
        ({"targets": [{"train": "none"}, {"train": "none", "epochs": 20, "name": "b"}]}, "with 20 epochs is given twice"),
        (
            {"targets": [{"target": "lenet", "name": "base"}, {"target": "lenet", "name": "mine", "defends": "bsae"}]},
            'mine defends "bsae", which is not another group or name; there are base; did you mean "base"',
        ),
        ({"targets": [{"target": "lenet", "defends": "lenet"}]}, "there is no other"),
        ({"seeds": 0}, "seeds: "),
        ({"gpus": 0.5}, r'gpus: there is no such key \(did you mean "ray.gpus"\?\)'),
        ({"ray": {"gpu": 0.5}}, r'ray.gpu: there is no such key \(did you mean "gpus"\?\)'),
        ({"ray": {"gpus": 1.5}}, "ray.gpus: has to be a fraction of one, or a whole number"),
        ({"ray": {"resources": {"GPU": 1.0}}}, "ray.resources: names a cluster's own resources"),
        ({"ray": {"address": "ray://x:1"}}, "ray.address: has to be local, auto or HOST:PORT"),
        ({"ray": "somewhere"}, "ray.address: has to be local, auto or HOST:PORT"),
        ({"ray": {"in_flight": 4}}, "ray: in_flight is for the workers of a single search"),
        ({"compute": {"ray": {"gpus": 1}}}, r"compute: there is no such key \(workers and ray.\* say where cells run"),
        ({"images": ""}, "images: "),
    ],
)
def test_invalid_values_are_refused_with_their_key(change, message):
    with pytest.raises(RecipeError, match=message):
        parse({**LEAST, **change}, "here")


def test_workers_are_placed_with_the_keys_of_a_run(tmp_path):
    """A text is an address, so that --set changes single keys of either form; the option --ray keeps the others."""
    file = tmp_path / "b.toml"
    file.write_text('images = "digits"\nray = "auto"\n[[targets]]\ntarget = "lenet"\n')
    recipe = recipe_of(str(file), [], {}, ["ray.gpus=0.5", "ray.resources={a100 = 1}"])
    assert (recipe.ray.address, recipe.ray.gpus, recipe.ray.resources) == ("auto", 0.5, {"a100": 1})
    named = recipe_of(str(file), [], given_options(None, None, None, None, None, "10.0.0.1:6379"), ["ray.gpus=0.5"])
    assert (named.ray.address, named.ray.gpus) == ("10.0.0.1:6379", 0.5)
    alone = recipe_of(None, ["lenet"], given_options("digits", None, None, None, 2, "auto"), ["ray.memory=1.5"])
    assert (alone.workers, alone.ray.address, alone.ray.memory) == (2, "auto", 1.5)
    assert parse(recipe.model_dump(mode="json"), "stored") == recipe
    assert "ray" not in recipe.fixed()


def test_an_unknown_recipe_gets_the_nearest_name():
    with pytest.raises(RecipeError, match='did you mean "bench-digits"'):
        load("bench-digit")


def test_a_budget_too_small_for_the_classes_names_the_arm_and_the_minimum():
    recipe = parse({**LEAST, "arms": ["cppn", "apgd"], "budgets": [1999]}, "here")
    recipe.refuse_small(10, "lenet")
    with pytest.raises(RecipeError, match=r"1,999 queries is too small for 1,000 classes: apgd needs at least 2,000"):
        recipe.refuse_small(1000, "squeezenet")


def test_equal_names_are_numbered(tmp_path):
    recipe = parse({**LEAST, "targets": [{"target": "lenet", "name": name} for name in ("a", "a", "a-2", "a")]}, "here")
    assert [entry.name for entry in entries(recipe, tmp_path)] == ["a", "a-2", "a-2-2", "a-3"]
    recipe = parse({**LEAST, "targets": [{"target": "lenet"}, {"target": "lenet?weights=w", "name": "lenet"}]}, "here")
    assert [entry.name for entry in entries(recipe, tmp_path)] == ["lenet-2", "lenet"]
    with pytest.raises(RecipeError, match=r"targets\.0\.name"):
        parse({**LEAST, "targets": [{"target": "lenet", "name": ".."}]}, "here")


def test_settings_of_searches_are_those_of_their_recipes():
    changes = ["search.batch=8", "encoding.max_nodes=16", "save.seconds=5"]
    assert parse({**LEAST, "arm": {"cppn": {"set": changes}}}, "here").changes("cppn") == tuple(changes)


@pytest.mark.parametrize("large", [False, True])
def test_the_arm_canvas_has_the_shipped_settings_and_surrogate_those_of_its_recipe_too(large):
    def of_arm(arm, *surrogates):
        return changed_recipe(arm, large, (), surrogates)

    def of_recipe(name):
        return load_run(name).model_dump(mode="json", exclude_none=True)

    canvas = of_recipe("imagenet" if large else "mnist-canvas")
    assert of_arm("canvas") == canvas
    climbs = of_arm("surrogate", "efficientnet-lite1")
    if large:
        shipped = of_recipe("imagenet-surrogate")
        assert shipped["search"]["surrogate"].pop("targets") == ["efficientnet-lite1", "efficientnet-lite2"]
        assert climbs["search"]["surrogate"].pop("targets") == ["efficientnet-lite1"]
        assert climbs == shipped
    else:
        climbing = {"targets": ["efficientnet-lite1"], "share": 0.9, "after": 2 * canvas["search"]["random"]}
        assert climbs["search"].pop("surrogate") == climbing
        assert climbs == canvas


def test_settings_that_do_not_fit_a_target_are_refused_before_it_is_measured():
    recipe = parse({**LEAST, "arm": {"cppn": {"set": ["encoding.color=rgb"]}}}, "here")
    with pytest.raises(RecipeError, match=r'encoding\.color "rgb" has 3 channels, the target takes 1'):
        recipe.refuse_settings(target("lenet"))


def test_a_target_compared_by_name_is_in_a_group_of_that_name(tmp_path):
    targets = [{"target": "lenet?weights=a"}, {"target": "lenet?weights=b", "name": "mine", "defends": "lenet"}]
    recipe = parse({**LEAST, "targets": targets}, "here")
    assert [(entry.name, entry.group) for entry in entries(recipe, tmp_path)] == [("lenet", "lenet"), ("mine", "mine")]


def test_networks_of_other_epochs_are_other_files(tmp_path):
    targets = [{"train": "none", "name": "a"}, {"train": "none", "name": "b", "epochs": 3}]
    specs = [entry.spec for entry in entries(parse({**LEAST, "targets": targets}, "here"), tmp_path)]
    assert len(set(specs)) == 2
    targets[0]["epochs"] = 5
    assert entries(parse({**LEAST, "targets": targets}, "here"), tmp_path)[0].spec not in specs


def test_training_is_interrupted_between_epochs(tmp_path):
    job = {"folder": str(tmp_path / "n"), "defence": "none", "copy": 0, "epochs": 2}
    assert train(job, lambda report: report["done"] == 1) is None
    assert not list(tmp_path.rglob("*.safetensors"))


def test_copies_have_their_own_rows_and_names(tmp_path):
    recipe = parse(
        {
            **LEAST,
            "targets": [
                {"target": "lenet"},
                {"target": "lenet?size=28"},
                {"train": "reject-class", "copies": 2, "name": "defended"},
            ],
        },
        "here",
    )
    found = entries(recipe, tmp_path)
    assert [entry.name for entry in found] == ["lenet", "lenet-2", "defended-1", "defended-2"]
    assert [entry.group for entry in found] == ["", "", "defended", "defended"]
    assert len({entry.spec for entry in found[2:]}) == 2


def test_an_arm_has_its_own_settings_unless_others_are_given() -> None:
    bench = {"images": "digits", "targets": [{"target": "lenet"}], "arms": ["apgd", "nes"]}
    assert parse(bench, "here").changes("apgd") == ("losses=margin+logit",)
    assert parse(bench, "here").settings()["apgd"]["losses"] == "margin+logit"
    assert parse(bench, "here").changes("nes") == ()
    faster = parse(bench | {"arm": {"apgd": {"set": ["rate=0.1"]}}}, "here")
    assert faster.changes("apgd") == ("losses=margin+logit", "rate=0.1")
    plain = parse(bench | {"arm": {"apgd": {"set": ["losses = margin"]}}}, "here")
    assert plain.settings()["apgd"]["losses"] == "margin"
    assert plain.changes("apgd") == ("losses = margin",)
