"""Transforms use separate draws for each image, and pass gradients through."""

import pytest
import torch

from evofool.ascend import transforms as t
from evofool.ascend.draws import Draws
from evofool.ascend.params import BoxedFourier, Coarse, Fourier, Pixels, Sigmoid

TRANSFORMS = [t.Jitter(2), t.Pad(3), t.Rotate(10, 0.9, 1.1), t.Crops(0.5, 0.9), t.Noise(0.1), t.Blur(1.0), t.Centre(6, 6)]


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("move", TRANSFORMS, ids=lambda m: type(m).__name__)
def test_a_transform_of_an_image_does_not_depend_on_the_batch(move: t.Transform) -> None:
    x = images()
    together = move(x, Draws(0, [4, 5, 6], 1))
    alone = move(x[1:2], Draws(0, [5], 1))
    assert torch.allclose(together[1:2], alone, atol=1e-6)


@pytest.mark.parametrize("move", TRANSFORMS, ids=lambda m: type(m).__name__)
def test_gradients_pass_through(move: t.Transform) -> None:
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(move(x, Draws(0, [4, 5, 6], 1)).sum(), x)
    assert torch.isfinite(gradient).all()
    assert bool((gradient != 0).any())


def test_images_of_a_batch_have_different_draws() -> None:
    x = images(1).expand(8, -1, -1, -1)
    for move in (t.Jitter(2), t.Rotate(10), t.Crops(), t.Noise(0.1)):
        moved = move(x, Draws(0, range(8), 1))
        assert len({tuple(m.flatten().tolist()) for m in moved}) > 3


def test_jitter_is_a_roll_and_a_rotation_by_zero_changes_nothing() -> None:
    x = images(2)
    jittered = t.Jitter(2)(x, Draws(0, [0, 1], 1))
    assert sorted(jittered[0].flatten().tolist()) == sorted(x[0].flatten().tolist())
    assert torch.allclose(t.Rotate()(x, Draws(0, [0, 1], 1)), x, atol=1e-5)
    assert torch.allclose(t.Crops(1.0, 1.0)(x, Draws(0, [0, 1], 1)), x, atol=1e-5)


def test_a_rotation_keeps_circles_round_in_oblong_images() -> None:
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(80.0) - 39.5, indexing="ij")
    disc = torch.sigmoid(2 * (12 - (x * x + y * y).sqrt()))[None, None]
    turned = t.Rotate(40.0)(disc, Draws(3, [0], 1))
    assert float((turned - disc).abs().max()) < 0.25


def test_a_blur_keeps_a_flat_image_and_the_mean() -> None:
    flat = torch.full((1, 2, 9, 9), 0.3)
    assert torch.allclose(t.blurred(flat, 2.0), flat)
    spot = torch.zeros(1, 1, 15, 15)
    spot[..., 7, 7] = 1
    soft = t.blurred(spot, 1.0)
    assert float(soft.sum()) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(soft, soft.transpose(2, 3))
    assert t.blurred(spot, 0.0) is spot
    assert t.blurred(torch.rand(1, 1, 2, 2), 5.0).shape == (1, 1, 2, 2)


def test_robust_keeps_the_size() -> None:
    x = images()
    for move in t.robust(12, 10):
        x = move(x, Draws(0, [0, 1, 2], 1))
    assert x.shape == (3, 3, 12, 10)


def test_a_fourier_state_decodes_like_single_transforms() -> None:
    param = Fourier((3, 8, 6))
    state = param.init(Draws(0, range(4), 0))
    decoded = param.decode(state, torch.arange(4))
    assert decoded.shape == (4, 3, 8, 6)
    assert float(decoded.min()) > 0
    assert float(decoded.max()) < 1
    assert torch.allclose(param.decode(state[2:3], torch.tensor([2])), decoded[2:3], atol=1e-6)
    colors = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    colors = colors / colors.norm(dim=0).max()
    for c in range(3):
        total = torch.zeros(8, 6)
        for k in range(3):
            z = torch.complex(state[1, k, ..., 0], state[1, k, ..., 1])
            for i in range(8):
                for j in range(4):
                    fy, fx = (i if i < 4 else i - 8) / 8, j / 6
                    z[i, j] /= max((fx * fx + fy * fy) ** 0.5, 1 / 8)
            total += colors[c, k] * torch.fft.irfft2(z, s=(8, 6), norm="ortho") / 4
        assert torch.allclose(torch.sigmoid(total), decoded[1, c], atol=1e-5)


def test_grey_has_no_colours_to_decorrelate() -> None:
    assert Fourier((1, 8, 8)).decode(torch.zeros(1, 1, 8, 5, 2), torch.tensor([0])).eq(0.5).all()


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 7, 9)])
def test_boxed_coefficients_reach_every_image_of_the_box_and_are_projected_onto_it(shape: tuple[int, int, int]) -> None:
    grey = torch.full((shape[0], 1, 1), 0.4)
    param, items = BoxedFourier(shape, grey), torch.arange(2)
    black_or_white = (torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert torch.allclose(param.decode(param._encode(black_or_white), items), black_or_white, atol=1e-5)
    twice = param.decode(param.project(2 * param._encode(black_or_white)), items)
    assert torch.allclose(twice, black_or_white, atol=1e-5)
    start = param.decode(param.init(Draws(0, [0, 1], 0)), items)
    assert float((start - 0.4).abs().mean()) < 0.05
    assert not torch.equal(start[0], start[1])
    assert (
        BoxedFourier(shape, grey, deviation=0.0).decode(param.project(param._encode(grey.expand(1, *shape))), items).std()
        < 1e-5
    )


def test_pixels_stay_in_the_box_and_near_the_sphere() -> None:
    x = torch.randn(4, 1, 6, 6)
    assert Pixels(x).project(x).min() >= 0
    on = Pixels(x, norm=2.0).project(x.abs())
    assert on.flatten(1).norm(dim=1) == pytest.approx([2.0] * 4, rel=0.02)
    assert on.max() <= 1


def test_a_coarse_grid_decodes_at_full_size() -> None:
    param = Coarse(torch.rand(2, 3, 4, 3), (4, 3), (8, 6))
    state = param.init(Draws(0, [0, 1], 0))
    assert state.shape == (2, 3, 4, 3)
    assert param.decode(state, torch.arange(2)).shape == (2, 3, 8, 6)
    assert Coarse(torch.rand(2, 3, 8, 6), (4, 3), (8, 6)).init(Draws(0, [0, 1], 0)).shape == (2, 3, 4, 3)
    assert Sigmoid((1, 4, 4)).init(Draws(0, [0, 1], 0)).shape == (2, 1, 4, 4)
