"""CPPN weights as a parameterisation: gradients compared with finite differences, decoded images, limits."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.cppn import CPPNWeights
from evofool.ascend.draws import Draws
from evofool.images import quantise
from evofool.targets import target
from genomes import CPPN, Key


def grown(encoding: CPPN, count: int, batches: int) -> np.ndarray:
    genomes = encoding.random(count, Key(5, 0))
    for batch in range(1, batches + 1):
        genomes = encoding.vary(genomes, genomes, Key(5, batch))
    return genomes


def digits_network() -> nn.Module:
    network = target("lenet").network
    assert network is not None
    return copy.deepcopy(network.module).double()  # its preprocessing is pixel / 255


def colour_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)]
        return nn.Sequential(*layers).double()


def log_odds(network: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    logits = network(images)
    score = logits.gather(1, classes[:, None])
    return score[:, 0] - logits.scatter(1, classes[:, None], -torch.inf).logsumexp(1)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "make"), [("grey", digits_network), ("hsv", colour_network)])
def test_the_gradient_through_renderer_and_classifier_agrees_with_finite_differences(
    mode: str, make: Callable[[], nn.Module]
) -> None:
    """In float64, on 8 weights of each genome, by central differences with two steps, 2e-6 and 5e-7.

    Where the two differ by more than 1e-5 of the genome's largest derivative, a pixel or a unit crosses a kink between
    them, and the genome is left out; so are those whose picture does not move. The error of a genome is
    ||gradient - differences|| / ||differences|| over its weights.
    """
    encoding, network = CPPN(mode=mode), make()
    genomes = grown(encoding, 140, 12)
    param, rows = CPPNWeights(encoding, genomes), torch.arange(140)
    weights = param.init(Draws(0, range(140), 0)).double().requires_grad_()
    classes = rows % 10
    (gradient,) = torch.autograd.grad(log_odds(network, param.decode(weights, rows), classes).sum(), weights)
    rng = np.random.default_rng(0)
    errors, kinks = [], 0
    for i in range(140):
        edges = torch.from_numpy(rng.permutation(int(genomes[i]["n_edges"]))[:8])
        k = len(edges)
        coarse, fine = (torch.empty(k, dtype=torch.float64) for _ in range(2))
        for step, slopes in ((2e-6, coarse), (5e-7, fine)):
            there = weights.detach()[i].repeat(2 * k, 1)
            there[torch.arange(2 * k), edges.repeat(2)] += torch.tensor([step, -step]).double().repeat_interleave(k)
            with torch.no_grad():
                value = log_odds(network, param.decode(there, torch.full((2 * k,), i)), classes[i].repeat(2 * k))
            slopes[:] = (value[:k] - value[k:]) / (2 * step)
        if k == 0 or fine.abs().max() < 1e-4:
            continue
        if (coarse - fine).abs().max() > 1e-5 * fine.abs().max():
            kinks += 1
            continue
        errors.append(((gradient[i, edges] - fine).norm() / fine.norm()).item())
    assert len(errors) >= 50
    assert kinks <= 14
    assert max(errors) <= 1e-4  # measured: 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize("mode", ["grey", "rgb", "hsv", "grey2015", "hls2015"])
def test_the_genomes_of_a_state_render_the_decoded_images(mode: str, raw: bool) -> None:
    encoding = CPPN(mode=mode, height=20, width=33, raw_coordinates=raw)
    param = CPPNWeights(encoding, grown(encoding, 40, 20))
    rows = torch.tensor([3, 39, 3, 17, 0])
    start = param.init(Draws(0, range(40), 0))
    # Noise on the padding too, as some rules may bring
    state = param.project(start[rows] + torch.randn(5, start.shape[1], generator=torch.Generator().manual_seed(1)))
    images = quantise(param.decode(state, rows).numpy())
    genomes = param.genomes(state, rows)
    np.testing.assert_array_equal(encoding.render(genomes), images)
    # Sound records in canonical form: packing checks and gives back the same bytes.
    again = encoding.unpack([encoding.pack(genome) for genome in genomes])
    assert again.tobytes() == genomes.tobytes()
    assert [encoding.to_json(g)["nodes"] for g in genomes] == [
        encoding.to_json(g)["nodes"] for g in grown(encoding, 40, 20)[rows.numpy()]
    ]


def test_the_start_is_a_copy_of_the_genomes_weights() -> None:
    encoding = CPPN(mode="hsv")
    genomes = grown(encoding, 6, 10)
    param = CPPNWeights(encoding, genomes)
    state, rows = param.init(Draws(0, range(6), 0)), torch.arange(6)
    assert param.genomes(state, rows).tobytes() == genomes.tobytes()
    np.testing.assert_array_equal(quantise(param.decode(state, rows).numpy()), encoding.render(genomes))
    state += 1
    assert param.genomes(param.init(Draws(0, range(6), 0)), rows).tobytes() == genomes.tobytes()


def test_weights_are_clipped_to_the_limit() -> None:
    encoding = CPPN(weight_limit=3.0, initial_weight=3.0)
    param = CPPNWeights(encoding, grown(encoding, 4, 5))
    state = param.init(Draws(0, range(4), 0)) * 50
    assert param.project(state).abs().max() == 3.0
    genomes = param.genomes(state, torch.arange(4))
    assert np.abs(genomes["weight"]).max() == 3.0
    assert encoding.unpack([encoding.pack(g) for g in genomes]).tobytes() == genomes.tobytes()


def test_an_ascent_raises_the_score() -> None:
    encoding = CPPN()
    lenet = target("lenet")
    param, rows = CPPNWeights(encoding, grown(encoding, 60, 12)), torch.arange(60)
    state = param.init(Draws(0, range(60), 0)).requires_grad_()
    classes = rows % 10
    before = lenet.logits_float(param.decode(state, rows)).gather(1, classes[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(before.sum(), state)
    steep = gradient.norm(dim=1) > 1e-3
    step = 1e-3 * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-9)
    with torch.no_grad():
        after = lenet.logits_float(param.decode(param.project(state + step), rows)).gather(1, classes[:, None])[:, 0]
    assert steep.sum() >= 20
    assert (after > before)[steep].float().mean() > 0.8
