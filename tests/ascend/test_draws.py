"""Draws belong to an item and a step, whatever else is drawn beside them."""

import pytest
import torch

from evofool.ascend.draws import Draws


def test_an_item_draws_the_same_in_any_company() -> None:
    together = Draws(3, [5, 9, 2], 4).normal(2, 3)
    assert torch.equal(Draws(3, [9], 4).normal(2, 3)[0], together[1])
    assert torch.equal(Draws(3, [2, 5], 4).normal(2, 3), together[[2, 0]])


@pytest.mark.parametrize("other", [Draws(4, [5], 4), Draws(3, [6], 4), Draws(3, [5], 5)])
def test_seed_item_and_step_all_matter(other: Draws) -> None:
    assert not torch.equal(Draws(3, [5], 4).uniform(8), other.uniform(8))


def test_a_stream_goes_on_from_call_to_call() -> None:
    draws = Draws(0, [1], 0)
    assert not torch.equal(draws.uniform(4), draws.uniform(4))


def test_draws_have_the_shapes_types_and_ranges_that_they_say() -> None:
    draws = Draws(0, range(50), 0)
    u, k = draws.uniform(20, low=-2.0, high=3.0), draws.integers(-1, 2, 30)
    assert (u.shape, u.dtype) == ((50, 20), torch.float32)
    assert -2 <= float(u.min()) < -1.5
    assert 2.5 < float(u.max()) < 3
    assert (k.shape, k.dtype) == ((50, 30), torch.int64)
    assert set(k.flatten().tolist()) == {-1, 0, 1}
    assert draws.uniform().shape == (50,)
    z = draws.normal(400)
    assert abs(float(z.mean())) < 0.03
    assert abs(float(z.std()) - 1) < 0.03


def test_keys_that_would_meet_another_stream_are_refused() -> None:
    with pytest.raises(ValueError, match="items' keys"):
        Draws(0, [1 << 40], 0)
    with pytest.raises(ValueError, match="steps have to lie"):
        Draws(0, [0], 1 << 24)
