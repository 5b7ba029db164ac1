"""Whether a target was trained on its real images is decided by pixels and weights, never by a name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from evofool.bench.real import real_images
from evofool.bench.retraining.training import network_metadata, save_network
from evofool.bench.training_images import trained_on
from evofool.targets import Target, networks, target
from evofool.targets.digits import digits, held_out, training_half
from evofool.targets.networks import LeNet

BUNDLED = Path(networks.__file__).parent / "weights" / "lenet.safetensors"
HELD_OUT, TRAINED = held_out()[0], training_half()[0]


def pictures(folder: Path, images: np.ndarray) -> str:
    """The images as pictures of class 0, with one black picture of every other class."""
    for c in range(10):
        (folder / str(c)).mkdir(parents=True)
        Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / str(c) / "black.png")
    for k, image in enumerate(images):
        Image.fromarray(image[0]).save(folder / "0" / f"{k}.png")
    return str(folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A network as evofool trains them, on half of the digits (the bundled weights, changed a little)."""
    network = LeNet()
    network.load_state_dict({name: weight * 1.01 for name, weight in load_file(BUNDLED).items()})
    path = tmp_path_factory.mktemp("networks") / "none-0.safetensors"
    save_network(network, path, network_metadata(0, "none", 1, ""))
    return target(f"lenet?weights={path}")


@pytest.mark.parametrize("spec", ["lenet", "lenet?device=cpu", f"lenet?weights={BUNDLED}"])
def test_the_bundled_network_was_trained_on_all_digits_whatever_it_is_called(spec: str) -> None:
    found = target(spec)
    assert trained_on(found, real_images("digits", found)) == 2500


@pytest.mark.parametrize("name", ["digits", "photographs"])
def test_a_folder_is_judged_by_its_pixels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Target) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / name, np.concatenate([TRAINED[:3], HELD_OUT[:4], 255 - digits()[0][:5]]))
    for found, images in ((target("lenet"), 7), (own, 3)):
        assert trained_on(found, real_images(name, found)) == images


def test_a_network_that_evofool_trained_has_not_seen_the_held_out_digits(own: Target) -> None:
    assert trained_on(own, real_images("digits", own)) == 0


def test_nothing_is_claimed_of_a_network_whose_training_is_not_known() -> None:
    labels = tuple("0123456789")
    found = Target.from_module(LeNet(), labels, (1, 28, 28), name="lenet")
    assert trained_on(found, real_images("digits", found)) == 0
