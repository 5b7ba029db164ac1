"""Climbs of surrogates' gradients: towards the class, in low frequencies, keyed, each child by itself; what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.kinship import RANDOM_IMAGES, kinship
from evofool.ascend.surrogates import Climb, Surrogates
from evofool.errors import ImageError, RecipeError, TargetError
from evofool.images import decode_png, save_png
from evofool.targets import Preprocessing, Target
from genomes import CPPN, Canvas, Direct, Encoding, Key
from tests.synthetic import fake, network

LABELS = [f"class {c}" for c in range(5)]
CANVAS = Canvas(1, 12, 12, start="waves")


def log_odds(target: Target, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    logits = torch.from_numpy(target.logits(images)).double()
    rows, others = np.arange(len(images)), logits.clone()
    others[rows, classes] = -torch.inf
    return np.asarray(logits[rows, classes] - others.logsumexp(1))


def keys(n: int) -> list[Key]:
    return [Key(3, 7, row) for row in range(n)]


@pytest.mark.parametrize(
    "encoding", [CANVAS, replace(CANVAS, cosines=4), Direct(1, 12, 12)], ids=["canvas", "canvas of cosines", "direct"]
)
def test_surrogates_are_surer_of_nearly_every_child_than_of_its_mother(encoding: Encoding) -> None:
    surrogates = Surrogates([network(1), network(2)], fake(shape=(1, 12, 12)), encoding, Climb())
    mothers, classes = encoding.random(8, Key(0, 0)), np.arange(8) % 5
    children = surrogates.children(mothers, classes, keys(8))
    assert (children.dtype, children.shape) == (mothers.dtype, mothers.shape)
    before, after = (
        np.sum([log_odds(each, encoding.render(genomes), classes) for each in surrogates.networks], axis=0)
        for genomes in (mothers, children)
    )
    assert (after > before).sum() >= 7


def test_a_child_depends_on_its_mother_class_and_key_alone() -> None:
    surrogates = Surrogates([network(1), network(2)], fake(shape=(1, 12, 12)), CANVAS, Climb(3))
    mothers, classes = CANVAS.random(4, Key(0, 0)), np.array([4, 0, 2, 2])
    together = surrogates.children(mothers, classes, keys(4))
    for row in (2, 0):
        alone = surrogates.children(mothers[row : row + 1], classes[row : row + 1], keys(4)[row : row + 1])
        assert alone.tobytes() == together[row : row + 1].tobytes()
    other = surrogates.children(mothers, classes, [key.at(9) for key in keys(4)])
    assert (other["pixels"] != together["pixels"]).any(axis=(1, 2, 3)).all()
    assert len(surrogates.children(mothers[:0], classes[:0], [])) == 0


def test_steps_have_the_size_of_rate_and_only_low_frequencies() -> None:
    encoding = Direct(1, 12, 12)
    middle = np.full((1, 1, 12, 12), 128, np.uint8)
    surrogates = Surrogates([network(1)], fake(shape=(1, 12, 12)), encoding, Climb(steps=1, band=3, rate=20.0))
    step = surrogates.children(middle, np.array([1]), keys(1))[0, 0].astype(float) - 128
    assert np.sqrt(np.square(step).mean()) == pytest.approx(20.0, abs=0.5)
    k, place = np.arange(12)[:, None], (np.arange(12) + 0.5) / 12
    cosines = np.cos(np.pi * k * place) * np.sqrt(np.where(k == 0, 1, 2) / 12)
    spectrum = cosines @ step @ cosines.T
    assert np.square(spectrum[:3, :3]).sum() == pytest.approx(np.square(spectrum).sum(), rel=1e-3)  # but for rounding


def test_classes_are_matched_by_label_and_cost_no_pass_where_no_surrogate_has_them() -> None:
    turned = network(1, labels=[LABELS[3], LABELS[1], "another"])
    target = fake(shape=(1, 12, 12))
    surrogates = Surrogates([turned, network(2, labels=LABELS[:4])], target, CANVAS, Climb(steps=4))
    assert surrogates.costs.tolist() == [4, 8, 4, 8, 0]
    assert surrogates.notes == [
        "the surrogate network 1 lacks 3 of the 5 classes",
        "the surrogate network 2 lacks 1 of the 5 classes",
    ]
    mother = CANVAS.random(1, Key(0, 0))
    only = Surrogates([turned], target, CANVAS, Climb())
    child = only.children(mother, np.array([3]), keys(1))
    before, after = (log_odds(turned, CANVAS.render(genome), np.array([0])) for genome in (mother, child))
    assert after > before


def test_a_network_that_takes_only_its_own_size_gets_the_image_resized() -> None:
    mother = CANVAS.random(1, Key(0, 0))
    for side in (9, 21):
        for each in (network(1, (1, side, side), whole=False), network(1, (1, side, side))):
            surrogates = Surrogates([each], fake(shape=(1, 12, 12)), CANVAS, Climb())
            assert (surrogates.children(mother, np.array([2]), keys(1)) != mother).all()


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)[:, :5] * self.weight
            return torch.where(x.sum(1, keepdim=True) > 0, x, x.sqrt())  # which has no slope at 0

    target = fake(shape=(1, 6, 6))
    odd = Target.from_module(Odd(), LABELS, (1, 6, 6), Preprocessing(), "odd")
    black = np.zeros((1, 1, 6, 6), np.uint8)
    surrogates = Surrogates([odd], target, Direct(1, 6, 6), Climb(1))
    assert (surrogates.children(black, np.array([0]), keys(1)) == black).all()


def test_what_cannot_be_a_surrogate_is_refused() -> None:
    target = network(1)

    def refused(each: Target, match: str) -> None:
        with pytest.raises(TargetError, match=match):
            Surrogates([each], target, CANVAS, Climb())

    refused(fake(shape=(1, 12, 12)), "fake cannot be a surrogate: it has no gradients")
    refused(network(1), "network 1 is the target itself, not a surrogate")
    refused(network(2, (3, 12, 12)), "has to take images of 1 channels, not 3")
    refused(network(2, labels=["x", "y"]), r"network 2 has no class of network 1: its labels are x, y \.\.\., the target's")
    with pytest.raises(RecipeError, match="cppn genomes cannot climb on surrogates"):
        Surrogates([network(2)], target, CPPN(height=12, width=12), Climb())


def test_kinship_counts_how_often_the_highest_class_is_the_same(tmp_path: Path) -> None:
    target = network(1)
    turned = network(1, labels=[*LABELS[1:], LABELS[0]])
    for k, image in enumerate(np.random.default_rng(0).integers(0, 256, (40, 1, 12, 12), np.uint8)):
        save_png(image, tmp_path / f"{k:02d}.png")
    images = np.stack([decode_png(file.read_bytes()) for file in sorted(tmp_path.iterdir())])
    called = target.logits(images).argmax(1)
    for other, theirs in ((network(2), network(2).logits(images).argmax(1)), (turned, (called + 1) % 5)):
        (found,) = kinship(target, [other], tmp_path)
        assert (found.surrogate, found.images, found.agreement) == (other.name, 40, (called == theirs).mean())
        assert found.by_chance == pytest.approx(sum((called == c).mean() * (theirs == c).mean() for c in range(5)))
        assert found.interval[0] <= found.agreement <= found.interval[1]
    assert kinship(target, [network(2)])[0].images == RANDOM_IMAGES
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match="has no pictures"):
        kinship(target, [network(2)], tmp_path / "none")
