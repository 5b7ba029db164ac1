"""Rendering CPPNs: numba compared with numpy, numpy with a recursion, colours and activations with libm."""

import colorsys
import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomes import CPPN, Key
from genomes.cppn import activations, arrays, color, coordinates, render_numba, render_numpy
from genomes.cppn.arrays import N_IN
from genomes.cppn.program import Programs, compile_programs

FAMILIES = {**activations.SETS, "every activation": activations.NAMES}

# Named here and not by activations.SETS, whose content may change; nor may these ever.
GOLDEN_FAMILIES = {
    "seven": ("linear", "sin", "cos", "gauss", "sigmoid", "tanh", "abs"),
    "nguyen2015": ("sin", "bipolar", "gauss", "clip3"),
    "innovation2015": ("tanh5", "bipolar", "gauss", "clip3"),
    "thirteen": (
        "linear", "sin", "cos", "gauss", "sigmoid", "tanh", "abs", "relu", "step", "bipolar", "clip3", "tanh5", "square",
    ),
}  # fmt: skip
GOLDEN: dict[tuple[str, str, str], str] = {
    ("seven", "grey", "centred"): "8060edfc1855ea52a30aa1b64053d95d59729ad30d4f876b39719a59ab7eac98",
    ("seven", "rgb", "centred"): "0bfa337c626ca3a972338745a6973d5d96323131887acb28977fc967193d2ca8",
    ("seven", "hsv", "centred"): "879b33921956b4af9e81fee4d9341b7fe44cc6e66f9cc4bd24c2ad4e4695f344",
    ("seven", "grey2015", "centred"): "18e052a6647f7daa5844ac7199a0b7725a3a04e0b71febb1f1be1ec6dcbf06d5",
    ("seven", "hls2015", "centred"): "6e95bcff1402515080b9b6a8fe53e7003c76868aa6e51c43cc505cbbfda619e7",
    ("nguyen2015", "grey", "centred"): "3bf487275b6005eef3225914ef0b5ed70a6d17f60e3edd054100961c4faa0831",
    ("nguyen2015", "rgb", "centred"): "89c8d14c42c81421a4cb5ce7f7a52bb05b70e0b6d115312e157e25192680c029",
    ("nguyen2015", "hsv", "centred"): "e01ec97c5bd8850090c7ffc2372e30e53a849992dfd86c2d80a22695004d817c",
    ("nguyen2015", "grey2015", "centred"): "5e67cf94d6a1e2ec5e49ae82167ac3945861e0285dc820fde866e0f6de8669fc",
    ("nguyen2015", "grey2015", "raw"): "b76aad173ba448d368ecbd1d5b21155bc9abe51d80ccb8a140cfa6a627240d55",
    ("nguyen2015", "hls2015", "centred"): "1c2dfa5add125cb03b47a4d9a54a705df2935b0feb4761f223514e7c014634f6",
    ("nguyen2015", "hls2015", "raw"): "074f3173439f4c61f9d3e86ff8356326264060ba57764b4e03b3f50327a1c8ee",
    ("innovation2015", "grey", "centred"): "8d65cc8b7eeb073d94b49fcd97bc3fb811414d5ed2732f9fe5a628cfe41d8084",
    ("innovation2015", "rgb", "centred"): "fe704328f092e1f7c7f25c4154373916a6b66a4571987cce3cbaf68b800df49b",
    ("innovation2015", "hsv", "centred"): "285f1810b672fb448e839099308d19e02e19f8004c46d778e7591718bdbadad1",
    ("innovation2015", "grey2015", "centred"): "6e89dc4944247ef58257bfeaf0bb8e1aab8c51828a992e6c3a153ba49f10dec8",
    ("innovation2015", "hls2015", "centred"): "5aaa68289182e775b30a91b880f652e2507a6ac8bbb590b18951e5284fe1da61",
    ("thirteen", "grey", "centred"): "cf33bd481cc0abfa97ce2416f6a90a847ead60abf5cafde07bd75cfeb486a2a8",
    ("thirteen", "rgb", "centred"): "51019411092580af68452b54ed08120eac28af8ad10d5d096ea6bad7b33648ec",
    ("thirteen", "hsv", "centred"): "caac453f18f2ff64515ea772170902ca8275061afecb4664eeba169d48c2dc6a",
    ("thirteen", "grey2015", "centred"): "b8ff5dc70cec9243daf611e507b846eb5bf0d5014a50ccb5e1cce6e203c6d2a7",
    ("thirteen", "hls2015", "centred"): "32fe6e4a0386c86bbf3b7b2f252dfe6ab75f5e643cdbc346b974d930fa9c958b",
}


def where(encoding: CPPN, size: tuple[int, int]) -> np.ndarray:
    if encoding.raw_coordinates:
        return coordinates.raw(*size, encoding.height, encoding.width)
    return coordinates.centred(*size)


def oracle(encoding: CPPN, genomes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    images = render_numpy.render(compile_programs(genomes, encoding.channels), where(encoding, size), encoding.mode)
    return images.reshape(len(genomes), encoding.channels, *size)


def random_graphs(stream: Any, kinds: tuple[str, ...], n_outputs: int, count: int, weight: float) -> np.ndarray:
    """A batch of graphs of 6 to 24 hidden nodes, dead ones among them, drawn from the reference stream without libm."""
    encoding = CPPN(mode="grey" if n_outputs == 1 else "rgb", weight_limit=weight, initial_weight=weight)
    graphs = []
    for _ in range(count):
        outputs = list(range(N_IN, N_IN + n_outputs))
        hidden = [N_IN + n_outputs + k for k in range(6 + stream.integer(19))]
        nodes = [(node, activations.number(kinds[stream.integer(len(kinds))])) for node in outputs + hidden]
        order = hidden.copy()  # of evaluation, so that it is not the order of ids
        for k in range(len(order) - 1, 0, -1):
            other = stream.integer(k + 1)
            order[k], order[other] = order[other], order[k]
        edges = []
        for node in order + outputs:
            free = list(range(N_IN)) + (order if node in outputs else order[: order.index(node)])
            for _ in range(1 + stream.integer(min(9, len(free)))):
                source = free.pop(stream.integer(len(free)))
                edges.append((source, node, (2 * stream.uniform() - 1) * weight))
        graphs.append(arrays.build(encoding.dtype, n_outputs, nodes, edges, weight))
    return np.concatenate(graphs)


# The two renderers


@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize("mode", color.MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_numba_renders_evolved_genomes_like_numpy_to_the_bit(
    evolve: Callable[..., np.ndarray], family: str, mode: str, raw: bool
) -> None:
    encoding = CPPN(mode=mode, activation_set=FAMILIES[family], raw_coordinates=raw)
    genomes = evolve(encoding, 200)
    for size, some in (
        ((28, 28), genomes),
        ((20, 33), genomes[:50]),
        ((64, 64), genomes[50:70]),
        ((224, 224), genomes[70:73]),
    ):
        np.testing.assert_array_equal(encoding.render(some, size), oracle(encoding, some, size))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_evolved_genomes_are_varied(evolve: Callable[..., np.ndarray], family: str) -> None:
    encoding = CPPN(mode="rgb", activation_set=FAMILIES[family])
    genomes = evolve(encoding, 200)
    programs = compile_programs(genomes, 3)
    assert set(programs.act.tolist()) == {activations.number(name) for name in FAMILIES[family]}
    assert np.median(np.diff(programs.node_ptr)) >= 8
    # Sums of every length with a separate case in the kernel, and longer ones of both parities
    assert set(range(7)) <= set(np.diff(programs.edge_ptr).tolist())
    images = encoding.render(genomes)
    assert len({image.tobytes() for image in images}) >= 150
    assert np.mean([image.std() > 5 for image in images]) > 0.8


@pytest.mark.parametrize("mode", color.MODES)
def test_numba_renders_large_random_graphs_like_numpy_to_the_bit(reference_stream: Any, mode: str) -> None:
    encoding = CPPN(mode=mode)
    genomes = random_graphs(reference_stream(5), activations.NAMES, encoding.channels, 100, 10.0)
    np.testing.assert_array_equal(encoding.render(genomes), oracle(encoding, genomes, (28, 28)))


@pytest.mark.parametrize("mode", color.MODES)
@pytest.mark.parametrize("block", [1, 7, 100, 784, 10_000])
def test_the_block_size_does_not_change_the_image(evolve: Callable[..., np.ndarray], block: int, mode: str) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES)
    programs = compile_programs(evolve(encoding, 200)[:60], encoding.channels)
    for size in ((28, 28), (20, 33)):
        expected = render_numpy.render(programs, where(encoding, size), mode)
        np.testing.assert_array_equal(render_numba.render(programs, where(encoding, size), mode, block), expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("mode", color.MODES)
def test_the_number_of_threads_does_not_change_the_image(evolve: Callable[..., np.ndarray], mode: str, threads: int) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES)
    for genomes in (evolve(encoding, 200), evolve(encoding, 200)[:5], evolve(encoding, 200)[:1]):
        np.testing.assert_array_equal(encoding.render(genomes, threads=threads), oracle(encoding, genomes, (28, 28)))


def test_an_image_does_not_depend_on_its_batch(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(mode="hsv", activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)
    images = encoding.render(genomes)
    rng = np.random.default_rng(0)
    for rows in (
        rng.permutation(200),
        rng.integers(0, 200, 300),
        np.arange(200)[::-1],
        np.flatnonzero(rng.random(200) < 0.1),
        np.array([117]),
        np.array([], int),
    ):
        np.testing.assert_array_equal(encoding.render(genomes[rows]), images[rows])
    np.testing.assert_array_equal(encoding.render(genomes[3:190:7]), images[3:190:7])
    np.testing.assert_array_equal(np.concatenate([encoding.render(g[None]) for g in genomes[:20]]), images[:20])


def test_rendering_does_not_change_genomes(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)
    encoding.render(genomes, (30, 10), threads=2)
    np.testing.assert_array_equal(genomes, evolve(encoding, 200))


def draw_slowly(data: dict[str, Any], inputs: np.ndarray) -> np.ndarray:
    """uint8 (outputs, pixels) of a genome's text, by recursion from the outputs; sums run by ascending source id."""
    kinds = {node: activations.number(name) for node, name in data["nodes"]}

    @cache
    def value(node: int) -> np.ndarray:
        if node < N_IN:
            return inputs[node]
        total = None
        for source, weight in sorted((s, w) for s, target, w in data["edges"] if target == node):
            term = np.float32(weight) * value(source)
            total = term if total is None else total + term
        return activations.apply(kinds[node], np.zeros(inputs.shape[1], np.float32) if total is None else total)

    return color.to_uint8(data["color"], np.stack([value(node) for node in data["outputs"]]))


@pytest.mark.parametrize("mode", color.MODES)
def test_an_image_equals_a_recursion_over_the_genomes_text(evolve: Callable[..., np.ndarray], mode: str) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)
    slow = np.stack([draw_slowly(encoding.to_json(g), where(encoding, (20, 33))) for g in genomes])
    np.testing.assert_array_equal(encoding.render(genomes, (20, 33)).reshape(slow.shape), slow)


def recipe_hash(stream: Any, family: str, mode: str, coordinates: str) -> str:
    encoding = CPPN(mode=mode, height=28, width=28, raw_coordinates=coordinates == "raw")
    # Weights of +-1 keep pictures smooth where x and y run to 27.
    weight = 1.0 if encoding.raw_coordinates else 4.0
    genomes = random_graphs(stream, GOLDEN_FAMILIES[family], encoding.channels, 40, weight)
    return hashlib.sha256(encoding.render(genomes).tobytes()).hexdigest()


@pytest.mark.parametrize("recipe", GOLDEN, ids="-".join)
def test_the_golden_images_are_rendered_to_the_bit(reference_stream: Any, recipe: tuple[str, str, str]) -> None:
    """Exact on any machine: graphs are drawn by whole-number arithmetic, and rendering calls no libm.

    A change here moves every picture ever published, so "activations" in the text of a genome has to change with it.
    """
    assert recipe_hash(reference_stream(2015), *recipe) == GOLDEN[recipe]


# Activations

EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda z: z,
    "sin": np.sin,
    "cos": np.cos,
    "gauss": lambda z: np.exp(-z * z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "abs": np.abs,
    "relu": lambda z: np.maximum(z, 0),
    "step": lambda z: np.where(z > 0, 1.0, 0.0),
    "bipolar": lambda z: 2 / (1 + np.exp(-z)) - 1,
    "clip3": lambda z: np.clip(z, -3, 3) / 3,
    "tanh5": lambda z: np.tanh(5 * z),
    "square": lambda z: z * z,
}
FAR = np.array([1e-45, 1e-30, 3, 87, 1e4, 1.01e4, 1e30, 3e38, np.inf], np.float32)
EXTREME = np.concatenate([-FAR, np.float32([-0.0, 0.0]), FAR])


@pytest.mark.parametrize("name", activations.NAMES)
def test_an_activation_is_within_two_ten_millionths_of_libm(name: str) -> None:
    z = np.linspace(-8, 8, 400_001).astype(np.float32)
    exact = EXACT[name](z.astype(np.float64))
    value = activations.apply(activations.number(name), z)
    assert value.dtype == np.float32
    assert (np.abs(value - exact) / np.maximum(1, np.abs(exact))).max() < 2e-7  # measured: 1.83e-7, by tanh5


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine_lose_no_digit_up_to_the_limit(name: str) -> None:
    z = np.concatenate([np.linspace(-1e4, 1e4, 400_001), np.arange(-6000, 6000) * np.pi / 2]).astype(np.float32)
    value = activations.apply(activations.number(name), z)
    assert np.abs(value - EXACT[name](z.astype(np.float64))).max() < 2e-7


@pytest.mark.parametrize("name", activations.NAMES)
def test_an_activation_is_finite_and_clamped_for_any_argument(name: str) -> None:
    kind = activations.number(name)
    value = activations.apply(kind, EXTREME)
    assert np.isfinite(value).all()
    assert np.abs(value).max() <= activations.LIMIT
    np.testing.assert_array_equal(value, activations.apply(kind, np.clip(EXTREME, -1e4, 1e4)))


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "step", "bipolar", "clip3", "tanh5"])
def test_an_activation_that_rises_never_falls(name: str) -> None:
    z = np.concatenate([np.linspace(-100, 100, 200_001), np.linspace(-2, 2, 200_001), EXTREME]).astype(np.float32)
    assert np.diff(activations.apply(activations.number(name), np.sort(z))).min() >= 0


@pytest.mark.parametrize("name", ["gauss", "abs", "square"])
def test_an_even_activation_is_even_to_the_bit(name: str) -> None:
    z = np.concatenate([np.linspace(0, 100, 200_001), np.linspace(0, 1e4, 200_001), EXTREME]).astype(np.float32)
    kind = activations.number(name)
    np.testing.assert_array_equal(activations.apply(kind, z), activations.apply(kind, -z))


@pytest.mark.parametrize("name", activations.NAMES)
def test_the_numba_kernel_and_numpy_evaluate_the_same_float32(name: str) -> None:
    rng = np.random.default_rng(1)
    z = np.concatenate([EXTREME, np.linspace(-20, 20, 100_001), rng.normal(0, 3000, 50_000)]).astype(np.float32)
    v = z.copy()
    render_numba._activate(activations.number(name), v, np.uint64(0), np.uint64(v.size))
    np.testing.assert_array_equal(v, activations.apply(activations.number(name), z))


def test_the_error_for_an_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match='there is no activation "sine"; there are linear, sin, cos'):
        activations.number("sine")


# What a graph means


def test_extreme_weights_give_no_nan(reference_stream: Any) -> None:
    for mode in color.MODES:
        encoding = CPPN(mode=mode, weight_limit=999_999.0, initial_weight=999_999.0)
        genomes = random_graphs(reference_stream(6), activations.NAMES, encoding.channels, 60, 999_999.0)
        genomes["weight"][::2] = np.sign(genomes["weight"][::2]) * np.float32(999_999)
        for planes in (coordinates.centred(9, 11), coordinates.raw(9, 11, 32_768, 32_768)):
            programs = compile_programs(genomes, encoding.channels)
            raw = render_numpy.raw_outputs(programs, planes)
            assert np.isfinite(raw).all()
            assert np.abs(raw).max() <= activations.LIMIT
            drawn = render_numba.render(programs, planes, mode)
            np.testing.assert_array_equal(drawn, render_numpy.render(programs, planes, mode))


def descendants(edges: list[tuple[int, int, float]], node: int) -> set[int]:
    found = {node}
    while more := {target for source, target, _ in edges if source in found} - found:
        found |= more
    return found


def test_an_edge_of_weight_zero_does_not_change_the_image(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(mode="rgb", activation_set=activations.NAMES)
    roomy = arrays.record_dtype(64, 400)
    genomes = evolve(encoding, 200)
    rng = np.random.default_rng(2)
    added = 0
    joined = []
    for record in genomes:
        nodes, edges = arrays.nodes_and_edges(record)
        taken = {(s, t) for s, t, _ in edges}
        ids = [node for node, _ in nodes]
        sources = [*range(N_IN), *ids[encoding.channels :]]
        for _ in range(40):
            source, target = int(rng.choice(sources)), int(rng.choice(ids))
            if (source, target) not in taken and source not in descendants(edges, target):
                edges.append((source, target, float(rng.choice([0.0, -0.0]))))
                taken.add((source, target))
                added += 1
        joined.append(arrays.build(roomy, encoding.channels, nodes, edges, 10.0))
    assert added > 2000
    np.testing.assert_array_equal(encoding.render(np.concatenate(joined)), encoding.render(genomes))


@pytest.mark.parametrize("size", [(28, 28), (20, 33), (224, 224)])
def test_a_genome_that_uses_only_the_absolute_value_of_x_is_mirror_symmetric(
    reference_stream: Any, size: tuple[int, int]
) -> None:
    encoding = CPPN(mode="rgb")
    images = []
    for record in random_graphs(reference_stream(8), activations.NAMES, 3, 30, 10.0):
        nodes, edges = arrays.nodes_and_edges(record)
        fold = nodes[-1][0] + 1
        edges = [(fold if source == 0 else source, target, weight) for source, target, weight in edges]
        nodes, edges = [*nodes, (fold, activations.number("abs"))], [*edges, (0, fold, -1.7)]
        images.append(encoding.render(arrays.build(encoding.dtype, 3, nodes, edges, 10.0), size)[0])
    drawn = np.stack(images)
    np.testing.assert_array_equal(drawn, drawn[..., ::-1])
    assert (drawn != drawn[..., ::-1, :]).any()  # y was not folded


@pytest.mark.parametrize(("small", "large"), [((28, 28), (84, 84)), ((20, 33), (60, 99)), ((9, 7), (63, 49))])
def test_a_small_grid_lies_within_a_larger_one_to_the_bit(
    evolve: Callable[..., np.ndarray], small: tuple[int, int], large: tuple[int, int]
) -> None:
    encoding = CPPN(mode="hsv", activation_set=activations.NAMES)
    genomes = evolve(encoding, 200)[:40]
    step = large[0] // small[0]
    nested = encoding.render(genomes, large)[..., step // 2 :: step, step // 2 :: step]
    np.testing.assert_array_equal(nested, encoding.render(genomes, small))


def test_centred_coordinates_are_pixel_centres_and_raw_ones_are_indices() -> None:
    x, y, d, bias = coordinates.centred(20, 33).reshape(4, 20, 33)
    np.testing.assert_allclose(x[7], [(2 * i + 1) / 33 - 1 for i in range(33)], atol=1e-7)
    np.testing.assert_allclose(y[:, 7], [(2 * i + 1) / 20 - 1 for i in range(20)], atol=1e-7)
    np.testing.assert_allclose(d, np.hypot(x, y), atol=1e-7)
    np.testing.assert_array_equal(bias, 1)
    rx, ry, rd, rbias = coordinates.raw(20, 33, 20, 33).reshape(4, 20, 33)
    np.testing.assert_array_equal(rx, np.broadcast_to(np.arange(33), (20, 33)))
    np.testing.assert_array_equal(ry, np.broadcast_to(np.arange(20)[:, None], (20, 33)))
    np.testing.assert_array_equal(rd, d)
    np.testing.assert_array_equal(rbias, 1)
    for planes in (coordinates.centred(20, 33), coordinates.raw(40, 66, 20, 33)):
        assert planes.dtype == np.float32
        assert not planes.flags.writeable


def test_raw_coordinates_at_another_size_are_interpolated_indices() -> None:
    x = coordinates.raw(84, 84, 28, 28).reshape(4, 84, 84)[0, 0]
    np.testing.assert_allclose(x[1::3], np.arange(28), atol=1e-5)
    np.testing.assert_allclose(np.diff(x), 1 / 3, atol=1e-5)


# Colours


def colours(mode: str, v: np.ndarray) -> np.ndarray:
    """What both renderers paint for raw outputs v float32 (channels, pixels): a genome that hands on three inputs."""
    channels = color.outputs(mode)
    k = np.arange(channels, dtype=np.int32)
    handing_on = Programs(
        node_ptr=np.array([0, channels], np.int32),
        act=np.zeros(channels, np.int8),
        edge_ptr=np.arange(channels + 1, dtype=np.int32),
        src=k,
        weight=np.ones(channels, np.float32),
        n_outputs=channels,
    )
    planes = np.zeros((N_IN, v.shape[1]), np.float32)
    planes[:channels] = v
    planes.flags.writeable = False
    painted = color.to_uint8(mode, v)
    assert painted.dtype == np.uint8
    np.testing.assert_array_equal(render_numba.render(handing_on, planes, mode)[0], painted)
    return painted


@pytest.mark.parametrize("mode", ["grey", "rgb"])
def test_grey_and_rgb_are_rounded_and_black_below_zero(mode: str) -> None:
    v = np.linspace(-1.3, 1.3, 9999).astype(np.float32).reshape(-1, 1).repeat(color.outputs(mode), 1).T.copy()
    exact = 255 * np.clip(v.astype(np.float64), 0, 1)
    assert np.abs(colours(mode, v) - exact).max() <= 0.5 + 1e-4
    assert not colours(mode, v)[v <= 0].any()


def test_grey2015_is_the_whole_part_of_the_magnitude() -> None:
    v = np.linspace(-1.3, 1.3, 9999).astype(np.float32)[None]
    exact = np.minimum(np.abs(v.astype(np.float64)), 1) * 255
    clear = np.abs(exact - np.round(exact)) > 1e-4
    np.testing.assert_array_equal(colours("grey2015", v)[clear], np.floor(exact)[clear])
    assert colours("grey2015", np.float32([[0, 1, -1, 7, -1e4, 0.999]])).tolist() == [[0, 255, 255, 255, 255, 254]]


def test_hsv_is_colorsys_within_a_grey_level() -> None:
    rng = np.random.default_rng(3)
    v = rng.uniform(-2, 2, (3, 20_000)).astype(np.float32)
    v[0, :5000] = rng.integers(-12, 13, 5000) / np.float32(6)  # the borders of the six sectors
    v[:, 5000:6000] = rng.choice(np.float32([0, -0.0, 1, -1, 1e-30, -1e-30, 1e4, -1e4, 0.5]), (3, 1000))
    slow = [
        colorsys.hsv_to_rgb(h % 1.0, min(max(s, 0.0), 1.0), min(abs(value), 1.0))
        for h, s, value in v.T.astype(float).tolist()
    ]
    assert np.abs(colours("hsv", v) - 255 * np.array(slow).T).max() < 1


def hls_of_opencv(h: int, lightness: int, s: int) -> tuple[float, float, float]:
    """OpenCV's HLS2RGB of 8-bit hue (180 a turn), lightness and saturation, on 0..255 and not yet rounded."""
    light, saturation = lightness / 255, s / 255
    if saturation == 0:
        return (255 * light,) * 3
    p2 = light * (1 + saturation) if light <= 0.5 else light + saturation - light * saturation
    p1 = 2 * light - p2
    hue = h * 6 / 180
    while hue >= 6:
        hue -= 6
    sector = int(hue)
    rest = hue - sector
    tab = (p2, p1, p1 + (p2 - p1) * (1 - rest), p1 + (p2 - p1) * rest)
    blue, green, red = ((1, 3, 0), (1, 0, 2), (3, 0, 1), (0, 2, 1), (0, 1, 3), (2, 1, 0))[sector]
    return 255 * tab[red], 255 * tab[green], 255 * tab[blue]


def test_the_slow_opencv_formula_is_colorsys_of_a_hue_of_180_steps() -> None:
    for h in range(256):
        for lightness, s in ((0, 0), (0, 255), (100, 0), (100, 200), (127, 255), (128, 255), (200, 90), (255, 255)):
            expected = 255 * np.array(colorsys.hls_to_rgb((h / 180) % 1, lightness / 255, s / 255))
            np.testing.assert_allclose(hls_of_opencv(h, lightness, s), expected, atol=1e-9)


def test_hls2015_is_opencvs_8_bit_formula_within_a_grey_level() -> None:
    steps = [(h, l8, s) for h in range(256) for l8 in (*range(0, 256, 17), 127, 128) for s in range(0, 256, 15)]
    v = ((np.array(steps).T + 0.5) / 255).astype(np.float32)  # halfway between two steps, so that int() is sure of its step
    v[:, v[0] > 0.3] *= -1
    slow = np.array([hls_of_opencv(*step) for step in steps]).T
    assert np.abs(colours("hls2015", v) - slow).max() < 1


def test_hls2015_holds_outputs_beyond_one_at_255() -> None:
    far = np.float32([[1e4, -1e4, 1, 1.5], [0.5, 0.5, 0.5, -0.5], [-7, 7, 1, 1]])
    painted = colours("hls2015", far)
    assert (painted == painted[:, :1]).all()
    assert np.abs(painted[:, 0] - hls_of_opencv(255, 127, 255)).max() < 1


@given(
    st.sampled_from(color.MODES),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_numba_and_numpy_give_equal_colours_for_any_outputs(mode: str, outputs: list[float]) -> None:
    v = np.array(outputs[: color.outputs(mode)], np.float32).reshape(-1, 1).repeat(3, 1)
    colours(mode, v)


def test_rgb_of_three_equal_outputs_is_grey(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(mode="grey", activation_set=activations.NAMES)
    painted = CPPN(mode="rgb")
    for record in evolve(encoding, 200)[:40]:
        nodes, edges = arrays.nodes_and_edges(record)
        up = [(node + 2, act) for node, act in nodes]  # ids 5 and 6 become outputs, what was 5 and more moves up
        name = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4} | {node: node + 2 for node, _ in nodes[1:]}
        tripled = [(4, nodes[0][1]), (5, nodes[0][1]), (6, nodes[0][1]), *up[1:]]
        lines = [(name[s], name[t], w) for s, t, w in edges]
        lines += [(name[s], other, w) for s, t, w in edges if t == 4 for other in (5, 6)]
        copy = arrays.build(arrays.record_dtype(80, 600), 3, tripled, lines, 10.0)
        image = painted.render(copy)[0]
        np.testing.assert_array_equal(image, encoding.render(record[None])[0].repeat(3, 0))


def test_random_genomes_connect_all_inputs_to_all_outputs_with_weights_within_the_initial_limit() -> None:
    encoding = CPPN(mode="rgb", activation_set=("sin", "gauss"), weight_limit=5.0, initial_weight=2.0)
    genomes = encoding.random(500, Key(0, 0))
    nodes, edges = arrays.nodes_and_edges(genomes[0])
    assert [node for node, _ in nodes] == [4, 5, 6]
    assert [(s, t) for s, t, _ in edges] == [(s, t) for t in (4, 5, 6) for s in range(4)]
    weights = genomes["weight"][:, :12]
    assert np.abs(weights).max() <= 2
    assert abs(weights.mean()) < 0.1
    assert weights.std() == pytest.approx(2 / np.sqrt(3), rel=0.05)
    assert set(genomes["act"][:, :3].ravel().tolist()) == {activations.number("sin"), activations.number("gauss")}
