"""torchvision's and timm's classifiers by name: published weights, files or none; and invalid specs."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from evofool.errors import TargetError
from evofool.targets import Target, target
from evofool.targets.labels import imagenet_labels
from evofool.targets.loaders import zoo
from evofool.targets.spec import parse as spec

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
SQUEEZENET = (
    f"torchvision:squeezenet1_0?weights={DATA / 'squeezenet1_0.safetensors'}&size=227&resize=256&scale=1&mean=123,117,104"
)


def module_of(found: Target) -> torch.nn.Module:
    assert found.network is not None
    return found.network.module


def images(found: Target, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *found.shape), np.uint8)


def photographs(found: Target, every: int) -> tuple[np.ndarray, np.ndarray]:
    """The centres of every n-th photograph (short side 256), and their classes."""
    if not DATA.is_dir():
        pytest.skip("the photographs are missing")
    classes = np.arange(0, 1000, every)
    _, height, width = found.shape
    seen = []
    for file in [sorted((DATA / "imagenet_samples").glob("*.jpg"))[c] for c in classes]:
        with Image.open(file) as picture:
            left, top = (picture.size[0] - width) // 2, (picture.size[1] - height) // 2
            cut = picture.convert("RGB").crop((left, top, left + width, top + height))
            seen.append(np.asarray(cut).transpose(2, 0, 1))
    return np.stack(seen), classes


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of an untrained resnet18's weights."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(module_of(target("torchvision:resnet18?weights=random&size=64")).state_dict(), path)
    return path


# --- torchvision


def test_every_classifier_of_torchvision_has_a_preprocessing_and_a_thousand_labels() -> None:
    from torchvision import models

    names = models.list_models(module=models)
    assert len(names) >= 80
    for name in names:
        found = zoo._torchvision(spec(f"torchvision:{name}"))
        assert found.shape[0] == 3
        assert found.shape[1] == found.shape[2] <= found.preprocessing.resize
        assert len(found.preprocessing.mean) == len(found.preprocessing.std) == 3
        assert found.labels(1000) == imagenet_labels()
        assert found.labels(10) is None


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet", "vit_b_32", "inception_v3"])
def test_an_untrained_network_is_the_same_every_time_and_has_a_note(name: str) -> None:
    side = 96 if name == "inception_v3" else 64
    text = f"torchvision:{name}?weights=random&size={side}"
    before = torch.get_rng_state()
    first, second = target(text), target(text)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fingerprint() == second.fingerprint()
    assert (first.name, first.shape) == (text, (3, side, side))
    assert first.labels[:2] == ("tench", "goldfish")
    assert first.details["notes"] == [zoo.UNTRAINED]
    assert "torchvision" in first.details["backend"]
    answer = first.logits(images(first))
    assert answer.shape == (2, 1000)
    assert np.isfinite(answer).all()


def test_the_default_preprocessing_is_that_of_the_published_weights() -> None:
    found = target("torchvision:efficientnet_b0?weights=random").details["preprocessing"]
    assert (found["resize"], found["interpolation"], found["mean"]) == (256, "bicubic", (0.485, 0.456, 0.406))


def test_photographs_are_resized_in_proportion_to_another_size() -> None:
    for text, resize in (("resnet18", 256), ("resnet18?size=112", 128), ("resnet18?size=112&resize=200", 200)):
        found = spec(f"torchvision:{text}")
        made = zoo._torchvision(found)
        assert found.preprocessing(made.preprocessing, made.shape[1:])[0].resize == resize


def test_weights_out_of_a_file_are_those_of_the_network(resnet: Path) -> None:
    digest = hashlib.sha256(resnet.read_bytes()).hexdigest()
    found = target(f"torchvision:resnet18?weights={resnet}&size=64&sha256={digest}")
    untrained = target("torchvision:resnet18?weights=random&size=64")
    assert (found.details["file"], found.details["file_sha256"]) == (str(resnet), digest)
    assert found.fingerprint() == untrained.fingerprint()
    assert "notes" not in found.details
    assert np.array_equal(found.logits(images(found)), untrained.logits(images(found)))


def test_a_file_with_other_classes_makes_a_network_with_as_many(tmp_path: Path) -> None:
    path, labels = tmp_path / "seven.pth", tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdefg"), encoding="utf-8")
    untrained = target(f"torchvision:shufflenet_v2_x0_5?weights=random&size=64&labels={labels}")
    assert untrained.labels == tuple("abcdefg")
    torch.save({"state_dict": module_of(untrained).state_dict()}, path)
    assert target(f"torchvision:shufflenet_v2_x0_5?weights={path}&size=64").labels == tuple("0123456")
    assert target(f"torchvision:shufflenet_v2_x0_5?weights={path}&size=64&labels={labels}").labels == tuple("abcdefg")
    labels.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(TargetError, match=r"7 .* but 2 labels"):
        target(f"torchvision:shufflenet_v2_x0_5?weights={path}&size=64&labels={labels}")


def test_auxiliary_heads_in_a_file_are_ignored(tmp_path: Path) -> None:
    from torchvision.models import googlenet

    torch.manual_seed(0)
    network = googlenet(weights=None, num_classes=5, aux_logits=True, init_weights=False, transform_input=True).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    found = target(f"torchvision:googlenet?weights={tmp_path / 'w.safetensors'}&size=64&mean=0&std=1")
    pixels = images(found)
    with torch.no_grad():
        assert found.logits(pixels) == pytest.approx(network(torch.from_numpy(pixels).float() / 255).numpy(), abs=1e-5)


def test_densenets_files_of_2017_are_understood() -> None:
    old = {
        "features.denseblock1.denselayer1.norm.1.weight": torch.zeros(1),
        "features.denseblock1.denselayer2.conv.2.weight": torch.zeros(2),
    }
    assert list(zoo._translate(old)) == [
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock1.denselayer2.conv2.weight",
    ]
    new = {"features.denseblock1.denselayer1.norm1.weight": torch.zeros(1), "features.norm0.weight": torch.zeros(2)}
    assert list(zoo._translate(new)) == list(new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchvision:resnet81", 'torchvision has no classifier "resnet81"; did you mean .*resnet18'),
        ("torchvision", "torchvision has no classifier"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no classifier"),
        ("torchvision:resnet18?weight=x", 'no option "weight"; did you mean "weights"'),
        ("torchvision:resnet18?weights=nowhere.pth", "there is no weights file .*nowhere.pth"),
        (
            "torchvision:resnet18?weights=random&sha256=00",
            "sha256 is for a file; give it, torchvision:resnet18.weights=FILE",
        ),
        ("torchvision:vit_b_32?weights=random&size=64x96", "takes square images, not 64x96"),
        ("torchvision:maxvit_t?weights=random&size=256", "cannot be built for images of 256x256"),
        ("torchvision:alexnet?weights=random&size=10", r"does not take images of shape \(3, 10, 10\)"),
    ],
)
def test_invalid_specs_are_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target(text)


def test_a_file_that_is_another_network_s_or_not_the_one_asked_for_is_refused(resnet: Path) -> None:
    with pytest.raises(TargetError, match=r"torchvision:resnet34: .*another network's weights: missing .*layer"):
        target(f"torchvision:resnet34?weights={resnet}")
    with pytest.raises(TargetError, match=r"resnet18: .* not abc"):
        target(f"torchvision:resnet18?weights={resnet}&sha256=abc")


class Intruder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_a_pickled_object_is_refused_and_does_not_run(tmp_path: Path, kind: str) -> None:
    pytest.importorskip(kind)
    torch.save({"fc.weight": Intruder(tmp_path / "trace")}, tmp_path / "w.pth")
    with pytest.raises(TargetError, match=f"{kind}:resnet18: .* evofool does not unpickle files"):
        target(f"{kind}:resnet18?weights={tmp_path / 'w.pth'}")
    assert not (tmp_path / "trace").exists()


def test_published_weights_are_downloaded_once_checked_and_read_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet: Path
) -> None:
    content = resnet.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    downloaded: list[str] = []

    def download(url: str, path: str, progress: bool) -> None:
        downloaded.append(url)
        Path(path).write_bytes(content)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    url = f"https://example.org/resnet18-{digest[:8]}.safetensors?x=1"
    for _ in range(2):
        path = zoo._download(url, spec("torchvision:resnet18"))
    assert downloaded == [url]
    assert path == tmp_path / "checkpoints" / f"resnet18-{digest[:8]}.safetensors"

    monkeypatch.setattr(zoo, "_download", lambda *_: path)
    found = target(f"torchvision:resnet18?size=64&sha256={digest}")
    assert (found.details["file"], found.details["file_sha256"]) == (str(path), digest)
    with pytest.raises(TargetError, match="not 00"):
        target("torchvision:resnet18?sha256=00")

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path.write_bytes(content[:-1])
    with pytest.raises(TargetError, match=r"is damaged, its SHA-256 is .*; delete it"):
        zoo._download(url, spec("torchvision:resnet18"))


def test_a_failed_download_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    message = r"its weights cannot be downloaded \(URLError: .*no route to host.*\); use torchvision:resnet18\?weights=FILE"
    with pytest.raises(TargetError, match=message):
        target("torchvision:resnet18")


def test_squeezenet_classifies_photographs_with_one_crop_and_counts_ten_as_one_query() -> None:
    if not DATA.is_dir():
        pytest.skip("the weights are missing")
    single, ten = target(SQUEEZENET), target(f"{SQUEEZENET}&crops=10")
    assert (single.shape, ten.shape) == ((3, 227, 227), (3, 256, 256))
    seen, classes = photographs(single, 25)
    assert (single.logits(seen).argmax(1) == classes).mean() >= 0.5
    seen, classes = photographs(ten, 250)
    assert (ten.logits(seen).argmax(1) == classes).mean() >= 0.5
    assert ten.queries == 4


# --- timm


def test_timm_s_untrained_networks_have_its_preprocessing() -> None:
    timm = pytest.importorskip("timm")
    found = target("timm:resnet18.a1_in1k?weights=random&size=96")
    assert found.shape == (3, 96, 96)
    assert found.details["preprocessing"]["resize"] == int(96 / 0.95)
    assert found.details["preprocessing"]["interpolation"] == "bicubic"
    assert found.details["notes"] == [zoo.UNTRAINED]
    assert timm.__version__ in found.details["backend"]
    assert list(found.labels) == imagenet_labels()
    assert found.logits(images(found)).shape == (2, 1000)


def test_timm_s_transformers_are_built_for_the_size_asked_for() -> None:
    pytest.importorskip("timm")
    found = target("timm:vit_tiny_patch16_224?weights=random&size=64x32")
    assert found.logits(images(found)).shape == (2, 1000)


def test_timm_s_networks_take_files_and_their_number_of_classes(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", num_classes=6).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    found = target(f"timm:mobilenetv3_small_050?weights={tmp_path / 'w.safetensors'}&size=64&mean=0&std=1")
    assert found.labels == tuple("012345")
    assert len(found.details["file_sha256"]) == 64
    pixels = images(found)
    with torch.no_grad():
        assert found.logits(pixels) == pytest.approx(network(torch.from_numpy(pixels).float() / 255).numpy(), abs=1e-5)
    with pytest.raises(TargetError, match=r"timm:resnet18: .*another network's weights"):
        target(f"timm:resnet18?weights={tmp_path / 'w.safetensors'}")


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    from huggingface_hub import constants

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    seen = []
    monkeypatch.setattr("timm.create_model", lambda *_, **__: seen.append(constants.HF_HUB_OFFLINE) or 1 / 0)
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(
        TargetError, match=r"timm:resnet18: its weights cannot be downloaded .*use timm:resnet18\?weights=FILE"
    ):
        target("timm:resnet18")
    assert seen == [True], "its client is not asked to try again and again"
    assert before == constants.HF_HUB_OFFLINE


def test_timm_downloads_what_it_has_published_and_unpickles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    torch.save(Intruder(tmp_path / "trace"), tmp_path / "w.pth")
    torch.manual_seed(5)
    state = timm.create_model("mobilenetv3_small_050").state_dict()

    def download(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        with pytest.raises(Exception, match=r"weights_only|Weights only"):
            torch.load(tmp_path / "w.pth", weights_only=False)
        return state

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    before = dict(os.environ)
    found = target("timm:mobilenetv3_small_050?size=64")
    assert dict(os.environ) == before
    assert not (tmp_path / "trace").exists()
    assert torch.equal(module_of(found).state_dict()["classifier.bias"], state["classifier.bias"])

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    message = r"cannot be downloaded \(OSError: no route to host\); use timm:mobilenetv3_small_050\?weights=FILE"
    with pytest.raises(TargetError, match=message):
        target("timm:mobilenetv3_small_050")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:resnet81", 'timm has no classifier "resnet81"; did you mean .*resnet18'),
        ("timm:resnet18.a1_in2k", "did you mean resnet18.a1_in1k"),
        ("timm:hf-hub:timm/resnet18", 'timm has no classifier "hf-hub:timm/resnet18"'),
        ("timm:vit_small_patch14_dinov2?weights=random&size=56", "has no classifier layer; give weights=FILE"),
        ("timm:mixer_s16_224", "cannot be downloaded .*No pretrained weights exist"),
    ],
)
def test_specs_unknown_to_timm_are_refused(text: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(TargetError, match=message):
        target(text)


def test_imagenet_s_larger_sets_are_known_by_their_number_of_classes() -> None:
    pytest.importorskip("timm")
    assert len(set(spec("timm:x").labels(zoo._timm_labels(21841)) or [])) == 21841
    assert zoo._timm_labels(17) is None


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TargetError, match=r"timm:resnet18: needs timm: pip install 'evofool\[timm\]'"):
        target("timm:resnet18")
