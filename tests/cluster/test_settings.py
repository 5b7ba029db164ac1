"""RayOptions are the fields of a recipe's [compute.ray]."""

from evofool.cluster.settings import RayOptions, amounts_text
from evofool.recipe_parts import RayPart


def test_the_defaults_are_those_of_a_recipe() -> None:
    assert RayOptions(**RayPart().model_dump()) == RayOptions()


def test_options_are_given_to_ray_in_its_units() -> None:
    options = RayOptions(cpus=0.5, gpus=0.25, memory=2.0, resources={"tpu": 1.0}, environment={"pip": ("a", "b")})
    assert options.requested() == {"CPU": 0.5, "GPU": 0.25, "memory": 2 * 2**30, "tpu": 1.0}
    assert options.remote_options() == {
        "num_cpus": 0.5,
        "num_gpus": 0.25,
        "resources": {"tpu": 1.0},
        "scheduling_strategy": "DEFAULT",
        "memory": 2 * 2**30,
        "runtime_env": {"pip": ["a", "b"]},
    }
    assert amounts_text(options.requested()) == "0.5 CPU, 0.25 GPU, 2 GiB of memory, 1 tpu"
