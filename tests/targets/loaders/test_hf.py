"""Models of transformers from folders: tiny random ones, their image processors, and invalid folders; no network."""

import hashlib
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evofool.errors import TargetError
from evofool.explain.layers import layer_rows
from evofool.targets import needs_trust, target
from evofool.targets.preprocessing import Preprocessing

transformers = pytest.importorskip("transformers")

LABELS = {0: "cat", 1: "dog", 2: "cat"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 28 x 28 with random weights, and its processor."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=28,
        patch_size=7,
        id2label=LABELS,
        label2id={},
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    write(folder, "preprocessor_config.json", PROCESSORS["squeezed"][0])
    return folder


def write(folder: Path, name: str, data: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(data))


def changed(saved: Path, folder: Path, **config: Any) -> Path:
    """A copy with other entries in config.json."""
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    write(folder, "config.json", json.loads((saved / "config.json").read_text()) | config)
    return folder


MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
NORMAL = {"image_mean": MEAN, "image_std": STD}
PROCESSORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "squeezed": (
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}, "resample": 3, **PLAIN, **NORMAL},
        {"resize": None, "interpolation": "bicubic", "mean": tuple(MEAN), "std": tuple(STD)},
    ),
    "cropped": (
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 28, "width": 28},
            "do_center_crop": True,
            "resample": 2,
            **PLAIN,
            **NORMAL,
        },
        {"resize": 32, "interpolation": "bilinear", "mean": tuple(MEAN)},
    ),
    "crop_pct": (
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 28},
            "crop_pct": 0.875,
            **PLAIN,
            **NORMAL,
        },
        {"resize": 32},
    ),
    "old": (
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 28, "do_resize": True, "do_normalize": True, **NORMAL},
        {"resize": None, "mean": tuple(MEAN), "scale": 1 / 255},
    ),
    "not normalised": (
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}, **PLAIN, "do_normalize": False},
        {"mean": (0.0,), "std": (1.0,)},
    ),
    "flipped": (
        {
            "image_processor_type": "MobileViTImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 28, "width": 28},
            "do_center_crop": True,
            "do_flip_channel_order": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
        },
        {"order": "BGR", "mean": (0.0,), "resize": 32},
    ),
}


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 28, 28), np.uint8)


@pytest.mark.parametrize("name", PROCESSORS)
def test_how_images_are_fed_is_read_from_the_processor(saved: Path, tmp_path: Path, name: str) -> None:
    said, expected = PROCESSORS[name]
    folder = changed(saved, tmp_path / "n")
    write(folder, "preprocessor_config.json", said)
    found = target(f"hf:{folder}")
    made = Preprocessing(**found.details["preprocessing"])
    assert {key: getattr(made, key) for key in expected} == expected
    assert found.shape == (3, 28, 28)
    assert not [note for note in found.details.get("notes", ()) if "processor" in note]


def test_a_model_answers_as_transformers_pipeline_does(saved: Path) -> None:
    found = target(f"hf:{saved}")
    network = transformers.AutoModelForImageClassification.from_pretrained(saved).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(saved)
    taken = processor(list(images().transpose(0, 2, 3, 1)), return_tensors="pt")
    with torch.no_grad():
        expected = network(**taken).logits.numpy()
    assert found.logits(images()) == pytest.approx(expected, abs=1e-5)
    assert found.labels == ("cat [0]", "dog", "cat [2]")
    assert found.details["architecture"] == "ViTForImageClassification"


def test_it_has_gradients_and_layers(saved: Path) -> None:
    found = target(f"hf:{saved}")
    x = (torch.from_numpy(images(2)) / 255).requires_grad_()
    found.logits_float(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert any(shape == (17, 16) for _, _, shape in layer_rows(found))


def test_a_processor_that_scales_otherwise_than_its_file_says_is_measured(saved: Path, tmp_path: Path) -> None:
    """EfficientNet's divides by the standard deviation twice (include_top)."""
    folder = changed(saved, tmp_path / "n")
    said = {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 28, "width": 28}, **PLAIN, **NORMAL}
    write(folder, "preprocessor_config.json", said | {"include_top": True})
    found = target(f"hf:{folder}")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    theirs = processor(list(images().transpose(0, 2, 3, 1)), return_tensors="np")["pixel_values"]
    ours = Preprocessing(**found.details["preprocessing"]).affine()(torch.from_numpy(images()).float()).numpy()
    assert ours == pytest.approx(np.asarray(theirs), abs=1e-3)
    assert found.details["preprocessing"]["std"] == pytest.approx([each**2 for each in STD], rel=1e-3)


def test_options_go_before_the_processor(saved: Path, tmp_path: Path) -> None:
    made = Preprocessing(**target(f"hf:{saved}?mean=0.5&resize=40").details["preprocessing"])
    assert (made.mean, made.std, made.resize) == ((0.5,), tuple(STD), 40)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    assert target(f"hf:{saved}?labels={labels}").labels == ("a", "b", "c")


def test_labels_that_do_not_exclude_each_other_are_told_by_the_config(saved: Path, tmp_path: Path) -> None:
    folder = changed(saved, tmp_path / "n", problem_type="multi_label_classification")
    assert target(f"hf:{folder}").details["outputs"] == target(f"hf:{saved}?outputs=multilabel-logits").details["outputs"]
    assert target(f"hf:{saved}").details["outputs"] == "logits"


def test_labels_without_names_are_numbers(saved: Path, tmp_path: Path) -> None:
    folder = changed(saved, tmp_path / "n", id2label={str(k): f"LABEL_{k}" for k in range(3)})
    assert target(f"hf:{folder}").labels == ("0", "1", "2")


def test_a_spec_has_the_folder_as_an_absolute_path_and_needs_no_trust(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    found = target(f"hf:{saved.name}?sha256={target(f'hf:{saved}').details['file_sha256']}")
    assert found.name.startswith(f"hf:{saved}?")
    assert not needs_trust(found.name)
    with pytest.raises(TargetError, match="its files have SHA-256"):
        target(f"hf:{saved}?sha256={'0' * 64}")


def test_the_config_is_part_of_the_identity(saved: Path, tmp_path: Path) -> None:
    before = target(f"hf:{saved}")
    folder = changed(saved, tmp_path / "n", num_attention_heads=4)
    after = target(f"hf:{folder}")
    assert not np.allclose(after.logits(images()), before.logits(images()), rtol=0, atol=1e-5)
    assert after.fingerprint() != before.fingerprint()
    with pytest.raises(TargetError, match="its files have SHA-256"):
        target(f"hf:{folder}?sha256={before.details['file_sha256']}")
    moved = changed(saved, tmp_path / "moved", _name_or_path="elsewhere", transformers_version="0.1")
    assert target(f"hf:{moved}").fingerprint() == before.fingerprint()
    contents = [(saved / name).read_bytes() for name in ("config.json", "preprocessor_config.json", "model.safetensors")]
    assert before.details["file_sha256"] == hashlib.sha256(b"".join(contents)).hexdigest()


def test_a_name_that_is_not_here_is_given_up_soon_where_the_hub_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TargetError, match="hf:some/model: there is no folder some/model, the hub cannot be reached, and"):
        target("hf:some/model")


def test_code_of_a_model_is_not_run(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Net"}
    folder = changed(saved, tmp_path / "n", model_type="ours", auto_map=own)
    (folder / "code.py").write_text("print('it ran')\nclass Config: ...\nclass Net: ...\n")
    with pytest.raises(TargetError, match=r'no classifier of images of type "ours"; its own code \(auto_map\) is not run'):
        target(f"hf:{folder}")
    folder = changed(saved, tmp_path / "known", auto_map=own)
    (folder / "code.py").write_text("print('it ran')\n")
    assert target(f"hf:{folder}").shape == (3, 28, 28)
    assert capfd.readouterr().out == ""


def without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def old_weights(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without(folder, "model.safetensors")


def missing_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3_000])


def entry(**config: Any) -> Any:
    return lambda folder: write(folder, "config.json", json.loads((folder / "config.json").read_text()) | config)


def processor(**said: Any) -> Any:
    return lambda folder: write(folder, "preprocessor_config.json", PROCESSORS["squeezed"][0] | said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: without(folder, "config.json"), "has no config.json, and so is no model of transformers"),
        (lambda folder: without(folder, "preprocessor_config.json"), "has no preprocessor_config.json, which says how"),
        (lambda folder: without(folder, "model.safetensors"), "has no weights in safetensors$"),
        (old_weights, "has no weights in safetensors; convert pytorch_model.bin by save_pretrained"),
        (missing_weights, "has not all weights of the classifier: classifier.weight is missing"),
        (cut, r"cannot be loaded \(SafetensorError"),
        (entry(model_type="vitt"), 'no classifier of images of type "vitt"; did you mean "vit"?'),
        (entry(model_type="bert"), 'no classifier of images of type "bert"'),
        (entry(model_type="timm_wrapper"), "is a network of timm; use timm:NAME"),
        (entry(quantization_config={"quant_method": "bitsandbytes"}), "its weights are quantised; load it in code"),
        (entry(model_type=["vit"]), "the model_type in its config.json is a JSON list; it has to be a text"),
        (
            entry(attn_implementation="some/kernel"),
            'config.json asks for attn_implementation "some/kernel", which may be code',
        ),
        (entry(text_config={"_attn_implementation": "a/b:c"}), 'asks for _attn_implementation "a/b:c"'),
        (entry(problem_type="regression"), "its problem_type is regression: its outputs are no scores of classes"),
        (
            lambda folder: write(folder, "adapter_config.json", {}),
            "has an adapter_config.json, whose base model is elsewhere",
        ),
        (entry(num_channels=5), "its images have 5 channels; they have to have 1 or 3"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is a JSON list; it has to be an object"),
        (processor(size={"height": "x"}), "is not understood"),
        (
            processor(size={"height": 0, "width": 0}),
            r"preprocessor_config.json: the shape of an image is .*, not \(3, 0, 0\)",
        ),
        (processor(size={"height": 200_000, "width": 200_000}), "preprocessor_config.json: an image of shape .* values"),
        (processor(image_std=[0, 0, 0]), r"^hf:.*preprocessor_config.json: scale .* have to be > 0"),
        (processor(image_mean="abc"), "^hf:.*preprocessor_config.json: Preprocessing: mean"),
        (processor(size={"shortest_edge": 28}, crop_pct=1e-9), "config.json: resize 28.* has to be from 1 to 4,096 pixels"),
        (processor(rescale_factor=-1), "^hf:.*preprocessor_config.json: scale -1"),
        (
            processor(auto_map={"AutoImageProcessor": "code.Own"}),
            r"is code of its own \(auto_map\), which is not run; load it",
        ),
        (
            processor(image_processor_type="OwnProcessor"),
            r"its image processor cannot be run \(.*; load it in code, as python:",
        ),
    ],
)
def test_invalid_folders_are_one_sentence(saved: Path, tmp_path: Path, change: Any, words: str) -> None:
    folder = changed(saved, tmp_path / "n")
    change(folder)
    with pytest.raises(TargetError, match=words):
        target(f"hf:{folder}")


def test_other_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="hf: has no model; write hf:FOLDER or hf:OWNER/NAME"):
        target("hf:")
    with pytest.raises(TargetError, match=f"there is no folder {tmp_path}/none"):
        target(f"hf:{tmp_path}/none")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TargetError, match=r"needs transformers: pip install 'evofool\[hf\]'"):
        target(f"hf:{tmp_path}")
