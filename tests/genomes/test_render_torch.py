"""Drawing CPPNs with torch: on the CPU to the bit as numba and numpy do, by operations that a GPU rounds in the same way."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genomes import CPPN
from genomes.cppn import activations, arrays, color, coordinates, render_numpy, render_torch
from genomes.cppn.arrays import N_IN
from genomes.cppn.program import Programs, compile_programs

FAMILIES = {**activations.SETS, "every activation": activations.NAMES}
EXTREME = np.float32(
    [0.0, -0.0, 1e-45, -1e-45, 1e-30, 0.5, -0.5, 1, -1, 3, -3, 87, -87, 88, -89, 9999.5, 1e4, -1e4, 2e4, -3e9, 1e30, -1e38]
)

# What draws, each a single rounding of IEEE arithmetic or none at all; `add` and `sub` are so without their alpha.
EXACT = {
    "abs", "abs_", "add", "add_", "clamp", "clamp_", "div", "div_", "floor", "mul", "mul_", "neg_", "rsub", "sub",
    "__lshift__", "__xor__", "ge", "gt", "le", "where", "to",
}  # fmt: skip
MOVING = {
    "alias", "copy_", "empty", "empty_like", "fill_", "zero_", "new_empty", "new_full", "full", "lift_fresh", "index_select",
    "select", "slice", "split", "stack", "unbind", "view", "detach", "detach_", "unsqueeze",
}  # fmt: skip


def drawn(encoding: CPPN, genomes: np.ndarray, size: tuple[int, int], memory: int | None = None) -> np.ndarray:
    where = coordinates.centred(*size)
    if encoding.raw_coordinates:
        where = coordinates.raw(*size, encoding.height, encoding.width)
    images = render_torch.render(compile_programs(genomes, encoding.channels), where, encoding.mode, "cpu", memory)
    return images.numpy().reshape(len(genomes), encoding.channels, *size)


@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize("mode", color.MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_torch_renders_evolved_genomes_like_numba_to_the_bit(
    evolve: Callable[..., np.ndarray], family: str, mode: str, raw: bool
) -> None:
    encoding = CPPN(mode=mode, activation_set=FAMILIES[family], raw_coordinates=raw)
    genomes = evolve(encoding, 200)
    for size, some in (((28, 28), genomes), ((20, 33), genomes[:50]), ((224, 224), genomes[70:72])):
        np.testing.assert_array_equal(drawn(encoding, some, size), encoding.render(some, size))


@pytest.mark.parametrize("memory", [1, 300_000, 1_000_000, 50_000_000])
@pytest.mark.parametrize("mode", color.MODES)
def test_the_memory_limit_does_not_change_the_image(evolve: Callable[..., np.ndarray], mode: str, memory: int) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)[:30]
    np.testing.assert_array_equal(drawn(encoding, genomes, (11, 13), memory), encoding.render(genomes, (11, 13)))


def test_an_image_does_not_depend_on_its_batch(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(mode="hsv", activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)
    images = encoding.render(genomes)
    for rows in (np.arange(200)[::-1], np.array([117]), np.array([3, 3, 150, 3]), np.array([], int)):
        np.testing.assert_array_equal(drawn(encoding, genomes[rows], (28, 28)), images[rows])


@pytest.mark.parametrize("name", activations.NAMES)
def test_an_activation_is_the_same_float32_as_numpys(name: str) -> None:
    rng = np.random.default_rng(1)
    z = np.concatenate([EXTREME, np.linspace(-20, 20, 100_001), rng.normal(0, 3000, 50_000)]).astype(np.float32)
    z = np.concatenate([z, (np.arange(-6400, 6400) * np.pi / 2).astype(np.float32)])[None]
    kind = render_torch._ORDER.index(name)
    v = torch.from_numpy(z.copy()).clamp_(-float(activations.LIMIT), float(activations.LIMIT))
    render_torch._activate(
        v, [0] * (kind + 1) + [1] * (len(activations.NAMES) - kind), torch.from_numpy(render_torch._COLUMNS[kind, None])
    )
    np.testing.assert_array_equal(v.numpy(), activations.apply(activations.number(name), z))


@pytest.mark.parametrize("mode", color.MODES)
def test_torch_and_numpy_give_equal_colours_for_any_outputs(mode: str) -> None:
    rng = np.random.default_rng(2)
    v = rng.uniform(-2, 2, (3, 30_000)).astype(np.float32)
    v[0, :5000] = rng.integers(-12, 13, 5000) / np.float32(6)  # the borders of the six sectors of a hue
    v[:, 5000:9000] = rng.integers(-255, 256, (3, 4000)) / np.float32(255)
    v[:, 9000:10_000] = rng.choice(np.float32([0, -0.0, 1, -1, 1e-30, -1e-30, 1e4, -1e4, 0.5]), (3, 1000))
    v = v[: color.outputs(mode)]
    painted = render_torch.to_uint8(mode, torch.from_numpy(v)[None])
    assert painted.dtype == torch.uint8
    np.testing.assert_array_equal(painted[0].numpy(), color.to_uint8(mode, v))


def test_extreme_weights_render_like_numpy(evolve: Callable[..., np.ndarray]) -> None:
    for mode in color.MODES:
        encoding = CPPN(mode=mode, activation_set=activations.NAMES, weight_limit=999_999.0, initial_weight=999_999.0)
        programs = compile_programs(evolve(encoding, 60), encoding.channels)
        for planes in (coordinates.centred(9, 11), coordinates.raw(9, 11, 32_768, 32_768)):
            expected = render_numpy.render(programs, planes, mode)
            np.testing.assert_array_equal(render_torch.render(programs, planes, mode, "cpu").numpy(), expected)


def test_nodes_without_edges_are_the_activation_of_zero() -> None:
    encoding = CPPN(mode="rgb")
    acts = [activations.number(name) for name in ("cos", "sigmoid", "gauss")]
    outputs = list(zip((4, 5, 6), acts, strict=True))
    hidden = [(7, activations.number("cos"))]
    alone = arrays.build(encoding.dtype, 3, outputs, [], 10.0)
    joined = arrays.build(encoding.dtype, 3, outputs + hidden, [(7, 5, -2.0), (0, 4, 1.0)], 10.0)
    for genomes in (alone, joined, np.concatenate([joined, alone])):
        np.testing.assert_array_equal(drawn(encoding, genomes, (5, 4)), encoding.render(genomes, (5, 4)))
    assert drawn(encoding, alone, (1, 1)).ravel().tolist() == [255, 128, 255]


def test_terms_are_added_in_the_programs_order_and_every_product_is_rounded() -> None:
    big, part = 2.0**24, np.float32(0.3)
    assert above_zero([big, 1, -big], [1, 1, 1]) is False  # big + 1 is big
    assert above_zero([big, -big, 1], [1, 1, 1]) is True
    assert float(part) * float(part) > float(part * part)
    assert above_zero([part * part, part], [-1, part]) is False


def above_zero(values: list[Any], weights: list[Any]) -> bool:
    """Whether a step paints the weighted sum of the first inputs white."""
    n = len(values)
    planes = np.zeros((N_IN, 1), np.float32)
    planes[:n, 0] = values
    step, ends = np.array([activations.number("step")], np.int8), np.array([0, 1], np.int32)
    edges = np.array([0, n], np.int32)
    program = Programs(ends, step, edges, np.arange(n, dtype=np.int32), np.array(weights, np.float32), 1)
    image = render_torch.render(program, planes, "grey", "cpu").numpy()
    np.testing.assert_array_equal(image, render_numpy.render(program, planes, "grey"))
    return bool(image.item() == 255)


class Watch(TorchDispatchMode):
    """Records the torch operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((func.overloadpacket.__name__, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", color.MODES)
def test_every_torch_call_rounds_once_so_that_a_gpu_cannot_contract_operations(
    evolve: Callable[..., np.ndarray], mode: str
) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)[:60]
    with Watch() as watch:
        drawn(encoding, genomes, (5, 5))
    used = {name for name, _, _ in watch.calls}
    assert used <= EXACT | MOVING
    assert {"mul", "add", "sub", "div", "clamp_", "__xor__", "__lshift__"} <= used
    for name, args, kwargs in watch.calls:
        assert kwargs.get("alpha", 1) == 1
        # A division by a Python number, or by a tensor of the CPU, is a product with its rounded inverse on CUDA.
        assert not name.startswith("div") or isinstance(args[1], torch.Tensor)
        assert name != "rsub" or len(args) == 2


@pytest.mark.parametrize("mode", ["grey", "hsv", "hls2015"])
def test_it_stays_within_the_memory_limit(evolve: Callable[..., np.ndarray], mode: str) -> None:
    for kinds, batches in ((("linear",), 0), (("sin",), 0), (("tanh",), 0), (activations.NAMES, 60)):
        encoding = CPPN(mode=mode, activation_set=kinds)
        programs = compile_programs(evolve(encoding, 200, batches), encoding.channels)
        where = coordinates.centred(120, 120)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            images = render_torch.render(programs, where, mode, "cpu", 20_000_000)
        held = most = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        beside = images.nbytes + where.nbytes
        assert 10_000_000 < most - beside <= 20_000_000, kinds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", color.MODES)
def test_on_a_gpu_at_most_one_pixel_in_ten_thousand_differs_by_one_grey_level(
    evolve: Callable[..., np.ndarray], mode: str
) -> None:
    encoding = CPPN(mode=mode, height=64, width=64, activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)
    images = encoding.draw(genomes, "cuda")
    assert images.device.type == "cuda"
    off = np.abs(images.cpu().numpy().astype(int) - encoding.render(genomes))
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


def test_rendering_with_numba_does_not_load_torch() -> None:
    code = "import sys, genomes as g; e = g.CPPN(); e.render(e.random(1, g.Key(0, 0))); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
