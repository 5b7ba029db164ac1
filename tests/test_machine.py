"""What decides last bits: MKL's mode, set before the first product, and the settings that a run records."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from evofool.machine import machine, mkl_mode

pytestmark = pytest.mark.slow

NEEDS_MKL = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch has no MKL here")


def recorded(code: str, **settings: str) -> list[str]:
    """MKL's mode and the settings as a new process records them, which runs code first."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MKL_", "ONEDNN_", "DNNL_"))}
    report = "from evofool.machine import machine; print(machine(1)['mkl'], machine(1)['settings'], sep='|')"
    command = [sys.executable, "-W", "error", "-c", f"{code}\n{report}"]
    return subprocess.run(command, env=ours | settings, capture_output=True, text=True, check=True).stdout.strip().split("|")


@NEEDS_MKL
def test_importing_evofool_sets_the_mode_of_mkl_even_after_torch_was_imported() -> None:
    assert recorded("import evofool") == ["AUTO", ""]
    assert recorded("import torch, evofool") == ["AUTO", ""]


@NEEDS_MKL
def test_a_mode_that_the_user_has_set_stands() -> None:
    assert recorded("import evofool", MKL_CBWR="COMPATIBLE") == ["COMPATIBLE", ""]


@NEEDS_MKL
def test_a_process_that_multiplied_before_says_that_the_mode_came_too_late() -> None:
    assert recorded("import torch; torch.rand(64, 64) @ torch.rand(64, 64); import evofool") == ["off", ""]


def test_settings_that_change_bits_are_recorded() -> None:
    assert recorded("", ONEDNN_MAX_CPU_ISA="AVX2")[1] == "ONEDNN_MAX_CPU_ISA=AVX2"
    assert (
        recorded("", ATEN_CPU_CAPABILITY="default", MKL_ENABLE_INSTRUCTIONS="SSE4_2")[1] == "MKL_ENABLE_INSTRUCTIONS=SSE4_2"
    )
    assert machine(1)["capability"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.skipif(mkl_mode() != "AUTO", reason="torch has no MKL here, or the user has set another mode of it")
@pytest.mark.parametrize("sides", [(6, 5), (6, 10), (100, 17, 10), (784, 32, 10)])
@pytest.mark.parametrize("rows", [64, 15, 6])
def test_a_row_of_a_product_has_the_same_bits_at_any_place(sides: tuple[int, ...], rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(a, b) for a, b in pairwise(sides)]
    with torch.inference_mode():
        for layer in layers:
            for weights in layer.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator))
        network = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
        x = torch.randn(rows, sides[0], generator=generator)
        first = network(x)
        for _ in range(rows):
            order = torch.randperm(rows, generator=generator)
            assert torch.equal(network(x[order]), first[order])
