"""What is done for a GPU, with stand-ins for the functions of torch.cuda, since tests have none."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.recipe import load
from evofool.search import local_evaluator
from evofool.search.evaluate import BatchEvaluator, stays_on_device
from evofool.targets import Preprocessing, Target, cuda, target
from evofool.targets.network import Network
from tests.perf.gpu_ratio import engine, grown, order

GPU = torch.device("cuda", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What torch.cuda is asked for, each with the thread that asks."""
    found: list[tuple[object, ...]] = []

    def asked(name: str) -> Any:
        def call(*given: object) -> tuple[object, ...]:
            found.append((threading.get_ident(), name, *given))
            return name, *given

        return call

    for name in ("synchronize", "Stream", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, asked(name))
    return found


@pytest.fixture
def flags() -> Iterator[None]:
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    names = (("allow_tf32", "deterministic", "benchmark"), ("allow_tf32",))
    before = [[getattr(b, name) for name in part] for b, part in zip(backends, names, strict=True)]
    yield
    for b, part, values in zip(backends, names, before, strict=True):
        for name, value in zip(part, values, strict=True):
            setattr(b, name, value)


def test_a_network_on_a_gpu_is_run_by_deterministic_algorithms(flags: None) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False
    torch.backends.cuda.matmul.allow_tf32 = True
    cuda.reproducible(torch.device("cpu"))
    assert torch.backends.cudnn.benchmark
    cuda.reproducible(GPU)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_a_thread_waits_for_the_device_before_it_gets_a_stream(calls: list[tuple[object, ...]]) -> None:
    before = torch.get_num_threads()
    try:
        cuda.own_stream(GPU, before)
        cuda.own_stream(torch.device("cpu"), before)
    finally:
        torch.set_num_threads(before)
    own = threading.get_ident()
    assert calls == [(own, "synchronize", GPU), (own, "Stream", GPU), (own, "set_stream", ("Stream", GPU))]


def test_images_go_to_a_gpu_by_pinned_memory_and_to_the_cpu_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: found.append("pinned") or self)
    plain = torch.Tensor.to

    def to(self: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        found.append((given, options))
        return self if given[:1] == (GPU,) else plain(self, *given, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    images.flags.writeable = False
    assert np.array_equal(cuda.uploaded(images, GPU).numpy(), images)
    assert found == ["pinned", ((GPU,), {"non_blocking": True})]
    cuda.uploaded(images, torch.device("cpu"))
    assert found[2:] == [((torch.device("cpu"),), {})]


def test_each_thread_of_a_search_has_a_stream_and_the_same_elites(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, object]] = []

    def own_stream(device: torch.device, threads: int) -> None:
        begun.append((threading.get_ident(), device))
        torch.set_num_threads(threads)

    monkeypatch.setattr(local_evaluator, "own_stream", own_stream)
    lenet = target("lenet")
    encoding = load("mnist-cppn").encoding.build(lenet.shape)
    parents = grown(encoding, 16)
    orders = [order(encoding, parents, 16, batch, np.full(10, -np.inf)) for batch in range(4)]
    batch_evaluator = BatchEvaluator(encoding, lenet, 4, resident=True)
    one, two = (engine(batch_evaluator, orders, threads)[1] for threads in (1, 2))
    assert len(one) == 40  # the best of each digit in every batch
    assert one == two
    assert begun  # not by the one thread of a search without streams
    assert {device for _, device in begun} == {torch.device("cpu")}
    assert threading.get_ident() not in {thread for thread, _ in begun}


def test_a_compiled_format_is_compiled_by_one_thread_with_a_whole_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, int]] = []

    def slow(x: torch.Tensor) -> torch.Tensor:
        events.append(("begin", len(x)))
        time.sleep(0.02)
        events.append(("end", len(x)))
        return x.flatten(1)

    network = Network(nn.Flatten(), Preprocessing())
    monkeypatch.setattr(network, "_forward_in", lambda number_format, images: slow)
    images = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
    threads = [threading.Thread(target=network, args=(images, "float16-compiled")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events[:2] == [("begin", 6), ("end", 6)]
    assert len(events) == 6  # once to compile, and once for each thread


def test_scores_stay_on_a_device_that_has_float64() -> None:
    made = Target.from_module(nn.Flatten(), ["a", "b", "c", "d"], (1, 2, 2), outputs="logits")
    assert made.network is not None
    for name, expected in (("cuda", True), ("mps", False), ("cpu", False)):
        made.network.device = torch.device(name)
        assert stays_on_device(made, ()) is expected
    made.network.device = torch.device("cuda")
    assert not stays_on_device(made, (0.5,))
