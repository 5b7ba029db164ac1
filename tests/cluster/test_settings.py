"""RayOptions are the fields of a recipe's [compute.ray]."""

from evofool.cluster.settings import RayOptions, amounts_text, lag_for
from evofool.cluster.slots import WorkerSlot
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


def test_the_lag_for_some_workers_gives_each_a_chunk_for_each_of_its_calls() -> None:
    assert [lag_for(workers, 1) for workers in (1, 2, 16)] == [0, 1, 15]
    assert [lag_for(workers, 2) for workers in (1, 2, 5)] == [0, 0, 2]
    assert lag_for(4, 1, in_flight=2) == 7


def test_a_worker_with_long_calls_has_one_at_a_time_unless_the_recipe_gives_a_number() -> None:
    slot = WorkerSlot(0)
    assert slot.wanted_calls(0) == 1, "how long a call takes is not known yet"
    slot.last_seconds = 0.05
    assert (slot.wanted_calls(0), slot.wanted_calls(1)) == (2, 1)
    slot.last_seconds = 0.2
    assert (slot.wanted_calls(0), slot.wanted_calls(3)) == (1, 3)
