"""The way between two codes: its images, its boundaries, and the page."""

import numpy as np
import pytest
import torch

from evofool.explain.morph import morph
from evofool.scores import log_odds
from genomes import Key, Latent
from genomes.upconv import Decoder, Layout, decoder_bytes
from tests.synthetic import fake, linear


@pytest.fixture(scope="module")
def encoding() -> Latent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(Layout((4,), (1, 6, 6), (8,)))
        with torch.no_grad():
            decoder.to_image.weight *= 30
    return Latent(decoder_bytes(decoder, {}), 1, 6, 6)


def test_the_way_has_both_ends_and_its_boundaries_lie_between_the_frames_that_differ(encoding: Latent) -> None:
    codes = encoding.random(40, Key(0, 0))
    mean = linear(encoding.render(codes)).mean(0)
    target = fake(lambda images: linear(images) - mean)
    predicted = target.logits(encoding.render(codes)).argmax(1)
    other = int(np.flatnonzero(predicted != predicted[0])[0])
    first, last = codes[:1], codes[other : other + 1]
    before = target.queries
    found = morph(encoding, target, first, last, frames=21, halvings=10, chunk=7)
    assert found.queries == target.queries - before == 21 + 10 * len(found.boundaries)
    assert np.array_equal(found.images[[0, -1]], encoding.render(np.concatenate([first, last])))
    assert found.predicted[[0, -1]].tolist() == predicted[[0, other]].tolist()
    assert np.array_equal(found.log_odds, log_odds(target.logits(found.images)))
    changes = np.flatnonzero(np.diff(found.predicted))
    assert len(found.boundaries) == len(changes) > 0
    for k, boundary in zip(changes, found.boundaries, strict=True):
        assert found.shares[k] <= boundary.share <= found.shares[k + 1]
        assert tuple(target.logits(boundary.images).argmax(1)) == boundary.classes
        assert boundary.classes[0] == found.predicted[k] != boundary.classes[1]
        near = first + (boundary.share + np.array([[-1], [1]]) * 0.05 / 2**10) * (last.astype(np.float64) - first)
        assert target.logits(encoding.render(near.astype(np.float32))).argmax(1)[0] == boundary.classes[0]
