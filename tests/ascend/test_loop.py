"""The loop of gradient ascent: independent items, their best iterates, counts, and reproducibility."""

import gc
from typing import Any

import numpy as np
import torch
from torch import nn

from evofool.ascend import objectives as o
from evofool.ascend.draws import Draws
from evofool.ascend.loop import Ascent, AscentResult, ascend, straight_through, to_uint8
from evofool.ascend.params import Fourier, Pixels
from evofool.ascend.rules import APGD, Momentum, Optimiser, Sign
from evofool.ascend.transforms import Jitter, robust
from evofool.images import quantise
from evofool.scores import log_odds
from evofool.targets import Target

CLASSES = torch.arange(10)


def noise(draws: Draws) -> torch.Tensor:
    return 0.5 + 0.1 * draws.normal(1, 28, 28)


def climb(target: Target, classes: torch.Tensor = CLASSES, steps: int = 12, **changes: Any) -> AscentResult:
    how = {"keys": classes.tolist(), "seed": 1, "microbatch": 4}
    how |= {key: changes.pop(key) for key in ("keys", "seed", "microbatch", "streams", "tick") if key in changes}
    margin = o.margin(classes)
    settings = {"rule": APGD(0.05), "select_by": o.log_odds(classes), "secondary": margin} | changes
    return ascend(target, Ascent(Pixels(noise), margin, steps=steps, **settings), **how)


def same(a: AscentResult, b: AscentResult) -> bool:
    return (
        np.array_equal(a.images, b.images)
        and np.array_equal(a.scores, b.scores)
        and a.improvements == b.improvements
        and bool(torch.equal(a.states, b.states))  # type: ignore[arg-type]
    )


def test_equal_seed_and_microbatch_give_equal_bits_in_any_number_of_streams(lenet: Target) -> None:
    assert same(climb(lenet), climb(lenet))
    assert same(climb(lenet), climb(lenet, streams=3))
    assert not same(climb(lenet), climb(lenet, seed=2))


def test_another_microbatch_has_the_same_draws_and_nearly_the_same_first_step(lenet: Target) -> None:
    seen: dict[int, list[torch.Tensor]] = {}
    for size in (1, 3, 10):
        param = Pixels(noise)
        kept = seen.setdefault(size, [])
        project = param.project
        param.project = lambda state, kept=kept, project=project: (kept.append(state), project(state))[1]  # type: ignore[method-assign, misc]
        ascent = Ascent(param, o.class_logit(CLASSES), Momentum([(0.1, 1)]), 1, transforms=robust(28, 28))
        ascend(lenet, ascent, range(10), seed=3, microbatch=size)
    start, first = ([torch.cat(k[1:]) if n else k[0] for k in seen.values()] for n in (0, 1))
    for other in start[1:]:
        assert torch.equal(start[0], other)
    for other in first[1:]:
        assert float((first[0] - other).abs().max()) < 1e-3


def test_an_item_climbs_the_same_beside_others_within_rounding(lenet: Target) -> None:
    alone = climb(lenet, torch.tensor([7]), microbatch=1)
    among = climb(lenet, microbatch=1)
    assert np.array_equal(alone.images[0], among.images[7])
    assert alone.scores[0] == among.scores[7]


def test_a_score_is_that_of_the_saved_image(lenet: Target) -> None:
    out = climb(lenet, microbatch=1)
    again = log_odds(np.concatenate([lenet.logits(image[None]) for image in out.images]))[np.arange(10), np.arange(10)]
    assert np.allclose(out.scores, again, atol=1e-4)
    assert out.images.dtype == np.uint8


def test_rounding_is_that_of_images_quantise_and_passes_the_gradient_through() -> None:
    x = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 0.3, 0.9, 1.0, 1.4], requires_grad=True)
    assert np.array_equal(to_uint8(x.detach()), quantise(x.detach().numpy()))
    y = straight_through(x)
    assert np.array_equal((y.detach() * 255).round().numpy().astype(int), quantise(x.detach().numpy()).astype(int))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, torch.ones(8))


def test_the_best_iterate_is_kept_and_improvements_rise(lenet: Target) -> None:
    out = climb(lenet, steps=20, rule=Sign(0.3), secondary=o.margin(CLASSES))
    for item in range(10):
        rises = [i for i in out.improvements if i.item == item]
        scores = [i.score for i in rises]
        assert scores == sorted(set(scores))
        assert scores[-1] == out.scores[item]
        assert all(i.secondary > i.score - 1e-3 for i in rises)  # a margin is no less than log-odds
        assert [i.forwards for i in rises] == sorted(i.forwards for i in rises)


def test_a_step_is_one_forward_and_one_backward_pass_and_the_last_pass_only_scores(lenet: Target) -> None:
    before = lenet.queries
    out = climb(lenet, steps=7)
    assert out.iterations.tolist() == out.backwards.tolist() == [7] * 10
    assert out.forwards.tolist() == [8] * 10
    assert lenet.queries - before == 80
    before = lenet.queries
    moved = climb(lenet, steps=7, transforms=(Jitter(1),), select_every=3)
    assert moved.forwards.tolist() == [7 + 4] * 10  # scored at 0, 3, 6 and the end
    assert lenet.queries - before == moved.forwards.sum()


def test_an_item_ends_when_its_score_reaches_stop_at(lenet: Target) -> None:
    out = climb(lenet, steps=60, stop_at=4.0)
    assert (out.scores >= 4.0).all()
    assert out.iterations.max() < 60
    assert len(set(out.iterations.tolist())) > 1
    assert (out.forwards == out.iterations + 1).all()
    assert np.array_equal(out.backwards, out.iterations)


def test_all_restarts_of_a_group_end_when_one_reaches_stop_at(lenet: Target) -> None:
    twice = CLASSES.repeat_interleave(2)
    out = climb(lenet, twice, steps=60, stop_at=4.0, restarts=2, microbatch=4, keys=range(20))
    pairs = out.scores.reshape(10, 2)
    assert (pairs.max(1) >= 4.0).all()
    assert (pairs.min(1) < 4.0).any()
    assert (np.abs(np.diff(out.iterations.reshape(10, 2), axis=1)) <= 1).all()


def test_tick_stops_the_ascent_and_the_best_iterates_so_far_are_kept(lenet: Target) -> None:
    calls: list[tuple[int, int]] = []
    out = climb(lenet, steps=50, tick=lambda done, of: calls.append((done, of)) or done >= 4)
    assert out.interrupted
    assert calls == [(k, 50) for k in range(5)]
    assert np.isfinite(out.scores).all()
    assert not climb(lenet, steps=2, tick=lambda done, of: False).interrupted


class NaNForBright(nn.Module):
    """Returns NaN for images whose first pixel is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.flatten(1)[:, :3]
        return torch.where(z[:, :1] > 0.6, torch.full_like(z, torch.nan), z)


def test_an_item_with_a_nan_score_is_stopped_with_a_note_and_the_others_go_on() -> None:
    target = _nan_for_bright()
    classes = torch.tensor([0, 1, 2])
    start = torch.tensor([0.5, 0.5, 0.9]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone()
    out = ascend(target, Ascent(Pixels(start), o.class_logit(classes), Sign(0.05), 6), [0, 1, 2])
    notes = dict(out.notes)
    assert set(notes) == {0, 2}
    assert "NaN" in notes[0]
    assert "its best before that is kept" in notes[0]
    assert "nothing of it is kept" in notes[2]
    assert out.scores[0] > 0.5
    assert out.scores[2] == -np.inf
    assert out.iterations[1] == 6


def _nan_for_bright() -> Target:
    target = Target.from_module(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), list("abc"), (1, 2, 2))
    target.network.module = NaNForBright()  # type: ignore[union-attr]
    return target


def test_an_item_without_any_gradient_is_reported_as_stuck() -> None:
    target = Target.from_module(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), ["a", "b"], (1, 2, 2)
    )
    with torch.no_grad():
        target.network.module[1].bias.fill_(-99)  # type: ignore[union-attr, index, operator]
    start = torch.full((1, 1, 2, 2), 0.5)
    out = ascend(target, Ascent(Pixels(start), o.class_logit(torch.tensor([1])), Sign(0.1), 3), [0])
    assert out.stuck == [0]
    assert out.backwards.tolist() == [3]


def test_any_state_and_any_of_torch_s_optimisers_climb(lenet: Target) -> None:
    rule = Optimiser(lambda params: torch.optim.Adam(params, lr=0.05))
    out = climb(lenet, steps=1)
    param, odds = Fourier((1, 28, 28)), o.log_odds(CLASSES)
    better = ascend(lenet, Ascent(param, o.class_logit(CLASSES), rule, 40, select_by=odds), range(10))
    assert (better.scores > out.scores).mean() > 0.8
    assert better.states is not None
    assert better.states.shape == (10, 1, 28, 15, 2)


def test_nothing_grows_over_200_calls_and_no_hook_is_left(lenet: Target) -> None:
    module = lenet.network.module  # type: ignore[union-attr]

    def call() -> None:
        features = torch.zeros(1, 500)
        objective = o.match("fc1", features) + o.class_logit(CLASSES[:1])
        ascend(lenet, Ascent(Pixels(noise), objective, APGD(0.1), 2), [0])

    def held() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor)

    for _ in range(5):
        call()
    before = held()
    for _ in range(200):
        call()
    assert held() <= before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
