"""The differentiable renderer: its images compared with numba's, its gradient with autograd over a recursion."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from genomes import CPPN
from genomes.cppn import activations, arrays, color, coordinates, differentiable
from genomes.cppn.arrays import N_IN
from genomes.cppn.program import compile_programs


def where(encoding: CPPN, size: tuple[int, int]) -> np.ndarray:
    if encoding.raw_coordinates:
        return coordinates.raw(*size, encoding.height, encoding.width)
    return coordinates.centred(*size)


def weights_of(genomes: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(genomes["weight"]).to(dtype).requires_grad_()


def levels(pictures: torch.Tensor) -> np.ndarray:
    """Rounded as color.to_uint8 does."""
    return (pictures.detach().numpy() * np.float32(255) + np.float32(0.5)).astype(np.uint8)


# Pictures


@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize("mode", color.MODES)
def test_in_float32_the_rounded_image_equals_that_of_the_renderer(
    evolve: Callable[..., np.ndarray], mode: str, raw: bool
) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES, raw_coordinates=raw)
    genomes = evolve(encoding, 200)
    for size, some in (((28, 28), genomes), ((20, 33), genomes[:50]), ((224, 224), genomes[50:53])):
        pictures = differentiable.render(some, weights_of(some, torch.float32), where(encoding, size), mode)
        assert pictures.dtype == torch.float32
        assert 0 <= pictures.min() <= pictures.max() <= 1
        np.testing.assert_array_equal(levels(pictures), encoding.render(some, size).reshape(pictures.shape))


@pytest.mark.parametrize("mode", color.MODES)
def test_rounded_colours_equal_the_definition(mode: str) -> None:
    v = np.random.default_rng(0).normal(0, 1.2, (50, color.outputs(mode), 400)).astype(np.float32)
    expected = np.stack([color.to_uint8(mode, one) for one in v])
    np.testing.assert_array_equal(levels(differentiable.to_unit(mode, torch.from_numpy(v))), expected)


def test_other_weights_give_the_image_of_the_genome_with_these_weights(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(mode="hsv")
    genomes = evolve(encoding, 200)[:20]
    other = genomes.copy()
    other["weight"] = np.where(genomes["weight"] != 0, np.random.default_rng(0).normal(0, 3, genomes["weight"].shape), 0)
    pictures = differentiable.render(genomes, weights_of(other, torch.float32), where(encoding, (28, 28)), "hsv")
    np.testing.assert_array_equal(levels(pictures), encoding.render(other).reshape(pictures.shape))


# Gradients

PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda z: z,
    "sin": torch.sin,
    "cos": torch.cos,
    "gauss": lambda z: torch.exp(-z * z),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "abs": torch.abs,
    "relu": torch.relu,
    "step": lambda z: (z > 0).to(z.dtype),
    "bipolar": lambda z: 2 * torch.sigmoid(z) - 1,
    "clip3": lambda z: z.clamp(-3, 3) / 3,
    "tanh5": lambda z: torch.tanh(5 * z),
    "square": lambda z: (z * z).clamp(max=1e4),
}


def draw_slowly(record: Any, weights: torch.Tensor, inputs: np.ndarray, n_outputs: int) -> torch.Tensor:
    """The outputs of one genome, (outputs, pixels), by recursion over its edges in torch operations."""

    @cache
    def value(end: int) -> torch.Tensor:
        if end < N_IN:
            return torch.from_numpy(inputs[end].astype(np.float64))
        z = torch.zeros(inputs.shape[1], dtype=torch.float64)
        for e in range(int(record["n_edges"])):
            if record["dst"][e] == end:
                z = z + weights[e] * value(int(record["src"][e]))
        return PLAIN[activations.NAMES[record["act"][end - N_IN]]](z.clamp(-1e4, 1e4))

    return torch.stack([value(N_IN + k) for k in range(n_outputs)])


@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize("mode", color.MODES)
def test_image_and_gradient_equal_autograd_over_a_recursion(evolve: Callable[..., np.ndarray], mode: str, raw: bool) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES, raw_coordinates=raw)
    genomes = evolve(encoding, 200)[:60]
    inputs = where(encoding, (9, 11))
    fast, slow = weights_of(genomes, torch.float64), weights_of(genomes, torch.float64)
    pictures = differentiable.render(genomes, fast, inputs, mode)
    values = torch.stack([draw_slowly(g, w, inputs, encoding.channels) for g, w in zip(genomes, slow, strict=True)])
    expected = differentiable.to_unit(mode, values)
    # A genome may amplify a last bit by ten thousand, and the 2015 modes and steps then cut it at another place.
    alike = (pictures - expected).abs().flatten(1).amax(1) <= 1e-8
    assert alike.sum() >= 55
    by = torch.from_numpy(np.random.default_rng(1).normal(size=pictures.shape))
    (ours,) = torch.autograd.grad((pictures * by).sum(), fast)
    (theirs,) = torch.autograd.grad((expected * by).sum(), slow)
    moved = theirs.abs().sum(1) > 0
    assert (moved & alike).sum() >= 15
    error = (ours - theirs).norm(dim=1) / theirs.norm(dim=1).clamp_min(1e-9)
    assert error[alike].max() < 1e-6


@pytest.mark.parametrize("kind", activations.NAMES)
def test_an_activations_derivative_is_its_own_at_any_argument(kind: str) -> None:
    encoding = CPPN(weight_limit=1e5)
    genome = arrays.build(encoding.dtype, 1, [(4, activations.number(kind))], [(0, 4, 1.0)], 1e5)
    far = np.array([0.5, 2.99, 3.01, 50, 99, 101, 9_999, 10_001, 1e8], np.float32)
    inputs = np.zeros((4, 120), np.float32)
    inputs[0] = np.concatenate([-far, np.linspace(-8, 8, 102).astype(np.float32), far])
    z = torch.from_numpy(inputs[0].astype(np.float64)).requires_grad_()
    (PLAIN[kind](z.clamp(-1e4, 1e4)) + 0 * z).sum().backward()
    programs = compile_programs(genome, 1)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        # The weight's derivative is that of the activation, times x: one pixel at a time.
        w = torch.ones(1, dtype=dtype, requires_grad=True)
        each = differentiable._Outputs.apply(w, programs, inputs)[0, 0]
        slopes = torch.stack([torch.autograd.grad(y, w, retain_graph=True)[0][0] for y in each]).double() / torch.from_numpy(
            inputs[0]
        )
        assert z.grad is not None
        np.testing.assert_allclose(slopes, z.grad, rtol=bound, atol=bound)


@pytest.mark.parametrize("mode", color.MODES)
def test_colours_have_the_derivative_of_their_values_before_rounding(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differentiable, "_whole", lambda x: x)
    v = torch.from_numpy(np.random.default_rng(2).normal(0, 0.8, (4, color.outputs(mode), 25))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: differentiable.to_unit(mode, v), v, eps=1e-7, atol=1e-6)


def test_the_gradient_passes_through_the_truncation_of_2015() -> None:
    x = torch.tensor([0.2, 3.9, 254.5], requires_grad=True)
    cut = differentiable._whole(x)
    assert cut.tolist() == [0, 3, 254]
    assert torch.autograd.grad(cut.sum(), x)[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("mode", ["grey", "hsv"])
def test_the_float32_gradient_is_near_the_float64_one(evolve: Callable[..., np.ndarray], mode: str) -> None:
    encoding = CPPN(mode=mode)
    genomes = evolve(encoding, 200, batches=8)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        w = weights_of(genomes, dtype)
        differentiable.render(genomes, w, where(encoding, (28, 28)), mode).square().sum().backward()
        assert w.grad is not None
        gradients.append(w.grad.double())
    moved = gradients[1].abs().sum(1) > 0
    error = (gradients[0] - gradients[1]).norm(dim=1)[moved] / gradients[1].norm(dim=1)[moved]
    assert moved.sum() > 80
    assert error.median() < 1e-5
    assert error.quantile(0.9) < 1e-3  # the rest amplify float32's last bit too much


def test_a_gradient_does_not_depend_on_its_batch_and_hardly_on_blocks(
    evolve: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = CPPN(mode="hsv")
    genomes = evolve(encoding, 200)[:30]

    def gradient(rows: slice) -> np.ndarray:
        w = weights_of(genomes[rows], torch.float32)
        differentiable.render(genomes[rows], w, where(encoding, (20, 33)), "hsv").square().sum().backward()
        assert w.grad is not None
        return w.grad.numpy()

    whole = gradient(slice(None))
    np.testing.assert_array_equal(np.concatenate([gradient(slice(k, k + 7)) for k in range(0, 30, 7)]), whole)
    for block in (1, 100, 10_000):
        monkeypatch.setattr(differentiable, "BLOCK", block)
        scale = np.abs(whole).max(axis=1, keepdims=True)
        assert (np.abs(gradient(slice(None)) - whole) <= 1e-4 * scale).all()


def test_weights_that_reach_no_output_have_no_gradient() -> None:
    encoding = CPPN()
    sine, step = activations.number("sin"), activations.number("step")
    nodes = [(4, sine), (5, sine), (6, sine), (7, step)]
    # 5 feeds 4; 6 feeds nothing; 7, a step, feeds 4
    edges = [(0, 4, 0.3), (5, 4, 0.2), (7, 4, 0.1), (1, 5, 1.0), (2, 6, 1.0), (1, 7, 1.0)]
    genome = arrays.build(encoding.dtype, 1, nodes, edges, 10.0)
    w = weights_of(genome, torch.float32)
    differentiable.render(genome, w, where(encoding, (28, 28)), "grey").square().sum().backward()
    assert w.grad is not None
    assert (w.grad[0, :6] != 0).tolist() == [True, True, True, True, False, False]
    assert not w.grad[0, 6:].any()


def test_weights_of_another_shape_or_kind_are_refused(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN()
    genomes = evolve(encoding, 200)[:3]
    for weights in (torch.zeros(2, 192), torch.zeros(3, 191), torch.zeros(3, 192, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"float32 or float64 \(3, 192\), not"):
            differentiable.render(genomes, weights, where(encoding, (28, 28)), "grey")
