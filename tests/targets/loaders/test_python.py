"""User-defined networks by the name of their factory, and the error messages for factories that return none."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from evofool.errors import ScoreError, TargetError
from evofool.scores import refuse_unfinite
from evofool.targets import Target, target

SOURCE = """
import os
import sys

import numpy as np
import torch
from torch import nn

import evofool

W = np.random.default_rng(0).normal(size=(3 * 4 * 5, 6)).astype(np.float32)


def module():
    made = nn.Sequential(nn.Flatten(), nn.Linear(60, 6, bias=False))
    made[1].weight.data = torch.from_numpy(W.T.copy())
    return made


def known():
    made = module()
    made.shape, made.labels = (3, 4, 5), ["a", "b", "c", "d", "e", "a"]
    return made


class Box:
    shape = (3, 4, 5)
    labels = tuple("uvwxyz")

    def __call__(self, images):
        self.seen = images
        return images.reshape(len(images), -1).astype(np.float64) @ W


def function():
    return lambda images: images.reshape(len(images), -1) @ W


def overwrites():
    def call(images):
        answer = function()(images)
        images[:] = 0
        return answer
    return call


def softmax():
    def call(images):
        z = images.reshape(len(images), -1) / 255 @ W
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
    return call


def make_target():
    return evofool.Target.from_module(known(), list("abcdef"), (3, 4, 5), name="mine")



def nan():
    return lambda images: np.full((len(images), 6), np.nan, np.float32)


def wrong_type():
    return 17


def nothing():
    return None


def fails():
    raise KeyError("no weights here")


def leaves():
    sys.exit("bye")


def needs(path):
    return None


def lists():
    return lambda images: [[0.0, 1.0]] * len(images)


def tensors():
    return lambda images: torch.zeros(len(images), 6)


def map_():
    return lambda images: np.zeros((len(images), 6, 2))


def few():
    return lambda images: np.zeros((1, 6))


def breaks():
    def call(images):
        raise RuntimeError("out of luck")
    return call


def odd_shape():
    made = function()
    made.shape = (3, 4)
    return made


def odd_labels():
    made = function()
    made.shape, made.labels = (3, 4, 5), 6
    return made


number = 4
"""
SIZE = "size=4x5"
NUMBERS = itertools.count()


@pytest.fixture
def spec_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The spec of a factory in SOURCE; each test has a new copy of the module, in the current folder."""
    name = f"user_code_{next(NUMBERS)}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (tmp_path / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    return lambda factory: f"python:{name}:{factory}"


def images(count: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 5), np.uint8)


def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)


def test_a_module_is_a_white_box_that_takes_preprocessed_floats(spec_of: Callable[[str], str]) -> None:
    found = target(spec_of(f"module?{SIZE}"))
    assert found.differentiable
    assert (found.shape, found.labels) == ((3, 4, 5), tuple("012345"))
    assert found.logits(images()) == pytest.approx(images().reshape(7, -1) / 255 @ weights(), abs=1e-4)
    shifted = target(spec_of(f"module?{SIZE}&mean=0.5&std=0.25&order=BGR"))
    x = (images()[:, ::-1] / 255 - 0.5) / 0.25
    assert shifted.logits(images()) == pytest.approx(x.reshape(7, -1) @ weights(), abs=1e-4)
    assert len(found.details["weights_sha256"]) == len(found.details["source_sha256"]) == 64


def test_a_callable_takes_pixels_or_floats_if_options_say_how(spec_of: Callable[[str], str]) -> None:
    found = target(spec_of(f"function?{SIZE}"))
    assert not found.differentiable
    assert found.logits(images()) == pytest.approx(images().reshape(7, -1) @ weights(), rel=1e-4, abs=0.01)
    assert found.queries == 7
    for options, x in (
        ("scale=1/255", images() / 255),
        ("mean=0.5", images() / 255 - 0.5),
        ("order=BGR", images()[:, ::-1] / 255),
    ):
        answer = target(spec_of(f"function?{SIZE}&{options}")).logits(images())
        assert answer == pytest.approx(x.reshape(7, -1) @ weights(), abs=1e-3)
    crops = target(spec_of(f"function?{SIZE}&crops=10&resize=6"))
    assert crops.shape == (3, 6, 6)
    assert crops.logits(np.zeros((2, 3, 6, 6), np.uint8)).shape == (2, 6)


def test_shape_and_labels_come_from_the_object_unless_options_say_otherwise(
    spec_of: Callable[[str], str], tmp_path: Path
) -> None:
    assert target(spec_of("known")).labels == ("a [0]", "b", "c", "d", "e", "a [5]")
    box = target(spec_of("Box"))
    assert (box.shape, box.labels) == ((3, 4, 5), tuple("uvwxyz"))
    assert box.logits(images()).dtype == np.float32
    (tmp_path / "labels.txt").write_text("\n".join("ghijkl"), encoding="utf-8")
    assert target(spec_of("Box?labels=labels.txt&size=5x4")).labels == tuple("ghijkl")
    assert target(spec_of("function?channels=1&size=10x6")).shape == (1, 10, 6)
    with pytest.raises(TargetError, match="the size of its images is not known; give size=224, or size=HEIGHTxWIDTH"):
        target(spec_of("function"))


def test_a_callable_may_change_its_images(spec_of: Callable[[str], str]) -> None:
    pixels = images()
    target(spec_of(f"overwrites?{SIZE}")).logits(pixels)
    assert np.array_equal(pixels, images())


def test_a_target_is_used_as_it_is_with_the_spec_as_its_name(spec_of: Callable[[str], str]) -> None:
    found = target(spec_of("make_target"))
    assert isinstance(found, Target)
    assert (found.name, found.labels) == (spec_of("make_target"), tuple("abcdef"))
    with pytest.raises(TargetError, match=r"make_target\(\) returns a Target, which is used as it is; set size, mean there"):
        target(spec_of("make_target?size=4x5&mean=0.5"))


def test_a_changed_source_file_makes_another_target_once_it_is_imported(
    spec_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [target(spec_of(f"{factory}?{SIZE}")).fingerprint() for factory in ("function", "function", "overwrites")]
    assert before[0] == before[1] != before[2]
    (file,) = tmp_path.glob("user_code_*.py")
    file.write_text(SOURCE.replace("@ W", "@ -W"), encoding="utf-8")
    assert target(spec_of(f"function?{SIZE}")).fingerprint() == before[0]
    monkeypatch.delitem(sys.modules, file.stem)
    assert target(spec_of(f"function?{SIZE}")).fingerprint() != before[0]


def test_probabilities_and_logits_are_distinguished(spec_of: Callable[[str], str]) -> None:
    assert target(spec_of(f"softmax?{SIZE}")).outputs == "probabilities"
    with pytest.raises(TargetError, match="the network returns probabilities, but outputs is logits"):
        target(spec_of(f"softmax?{SIZE}&outputs=logits"))
    with pytest.raises(TargetError, match="outputs is probabilities, but rows of its answer sum to"):
        target(spec_of(f"function?{SIZE}&outputs=probabilities"))


def test_nan_passes_through_and_is_refused_by_the_search(spec_of: Callable[[str], str]) -> None:
    found = target(spec_of(f"nan?{SIZE}"))
    answer = found.logits(images())
    assert np.isnan(answer).all()
    with pytest.raises(ScoreError, match=r"batch 2: python:user_code_.* answered NaN or infinity for 7 of 7 images"):
        refuse_unfinite(answer, 2, found.name)


def test_a_package_in_the_current_folder_is_found_and_one_that_is_broken_says_why(
    spec_of: Callable[[str], str], tmp_path: Path
) -> None:
    name = spec_of("x").split(":")[1]
    package = tmp_path / f"{name}_package"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "network.py").write_text(f"from {name} import module\n", encoding="utf-8")
    assert target(f"python:{package.name}.network:module?{SIZE}").shape == (3, 4, 5)
    (package / "broken.py").write_text("import no_such_thing_at_all\n", encoding="utf-8")
    message = rf"importing {package.name}\.broken raises ModuleNotFoundError: No module named 'no_such_thing_at_all'"
    with pytest.raises(TargetError, match=message):
        target(f"python:{package.name}.broken:module")
    (package / "worse.py").write_text("def f(:\n", encoding="utf-8")
    with pytest.raises(TargetError, match=rf"importing {package.name}\.worse raises SyntaxError"):
        target(f"python:{package.name}.worse:module")
    with pytest.raises(TargetError, match=rf"there is no module {package.name}\.nowhere, neither in .* nor installed"):
        target(f"python:{package.name}.nowhere:module")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("modul", 'has no function "modul"; did you mean "module"'),
        ("number", 'has no function "number"'),
        ("wrong_type", r"wrong_type\(\) returns a int; it has to return a torch module, a callable"),
        ("nothing", r"nothing\(\) returns a NoneType"),
        ("fails", r"fails\(\) raises KeyError: 'no weights here'"),
        ("leaves", r"leaves\(\) raises SystemExit: bye"),
        ("needs", r"needs\(\) raises TypeError: .*missing 1 required positional argument: 'path'"),
        (f"map_?{SIZE}", r"the answer to 4 images has shape \(4, 6, 2\); it has to be \(images, classes\)"),
        (f"few?{SIZE}", r"the answer to 4 images has shape \(1, 6\)"),
        (f"breaks?{SIZE}", r"does not take images of shape \(3, 4, 5\) \(RuntimeError: out of luck\)"),
        ("module?size=9", r"does not take images of shape \(3, 9, 9\)"),
        ("odd_shape", r"its shape is \(3, 4\); it has to be \(C, H, W\)"),
        ("odd_labels", "its labels are 6; they have to be a list of names"),
        (f"function?{SIZE}&channels=2", r"\(1 or 3, H, W\), not \(2, 4, 5\)"),
        (f"function?{SIZE}&weights=x", 'no option "weights"'),
        (f"function?{SIZE}&lables=x", 'no option "lables"; did you mean "labels"'),
    ],
)
def test_objects_that_cannot_be_targets_are_refused(spec_of: Callable[[str], str], factory: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        target(spec_of(factory))
    assert str(caught.value).startswith(spec_of(factory).partition("?")[0])


def test_labels_have_to_be_as_many_as_scores(spec_of: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(TargetError, match="6 outputs but 2 labels"):
        target(spec_of(f"function?{SIZE}&labels=labels.txt"))


@pytest.mark.parametrize("text", ["python", "python:json", "python:json:", "python::dumps"])
def test_a_spec_without_module_or_factory_says_how_it_is_written(text: str) -> None:
    with pytest.raises(TargetError, match=r"write python:package\.module:factory, a function that returns the network"):
        target(text)


def test_a_missing_module_is_reported_with_the_places_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(TargetError, match=f"there is no module no_such_package, neither in {tmp_path} nor installed"):
        target("python:no_such_package.network:make")


def test_the_module_is_moved_to_the_device_and_put_into_eval_mode(spec_of: Callable[[str], str]) -> None:
    found = target(spec_of("known?device=cpu"))
    assert found.network is not None
    assert found.details["device"] == "cpu"
    assert not found.network.module.training
    assert isinstance(found.network.module, torch.nn.Module)
