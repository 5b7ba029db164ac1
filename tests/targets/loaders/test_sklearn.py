"""Classifiers of scikit-learn in files of skops: rows of pixels, labels, untrusted types, and invalid files."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OutputCodeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from evofool.errors import TargetError
from evofool.targets import needs_trust, stored_target, target

io = pytest.importorskip("skops.io")

TREE = "sklearn.tree._tree.Tree"


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Every fourth image of 8 x 8, pixels 0 to 255, and the names of their classes."""
    found = load_digits()
    return (found.data[::4] * 255 / 16).round(), np.array([f"digit {number}" for number in found.target[::4]])


def saved(path: Path, estimator: Any, data: tuple[np.ndarray, np.ndarray]) -> Path:
    io.dump(estimator.fit(*data), path)
    return path


def as_images(data: np.ndarray) -> np.ndarray:
    return data.reshape(-1, 1, 8, 8).astype(np.uint8)


def test_a_pipeline_answers_as_it_does_itself(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    found = target(f"sklearn:{saved(tmp_path / 'n.skops', pipeline, digits)}")
    assert (found.shape, found.outputs, found.labels[3]) == ((1, 8, 8), "probabilities", "digit 3")
    assert found.raw(as_images(digits[0][:9])) == pytest.approx(pipeline.predict_proba(digits[0][:9]), abs=1e-6)
    assert (found.details["estimator"], found.differentiable) == ("Pipeline", False)
    assert found.refed is not None


def test_options_scale_the_pixels(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    small = digits[0] * 16 / 255
    path = saved(tmp_path / "n.skops", LogisticRegression(max_iter=1000), (small, digits[1]))
    found = target(f"sklearn:{path}?scale=16/255")
    right = np.array([found.labels[c] for c in found.logits(as_images(digits[0])).argmax(axis=1)]) == digits[1]
    assert right.mean() > 0.95


def test_decision_functions_are_logits(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    ridge = RidgeClassifier()
    found = target(f"sklearn:{saved(tmp_path / 'n.skops', ridge, digits)}")
    assert found.outputs == "logits"
    assert found.logits(as_images(digits[0][:9])) == pytest.approx(ridge.decision_function(digits[0][:9]), abs=1e-4)
    two = digits[0], digits[1] == "digit 3"
    found = target(f"sklearn:{saved(tmp_path / 'two.skops', LinearSVC(), two)}")
    assert found.labels == ("False", "True")


def test_decision_functions_that_are_no_scores_of_classes_are_refused(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    """One-against-one has as many columns as classes where there are three."""
    rows = np.isin(digits[1], ["digit 1", "digit 3", "digit 8"])
    three = digits[0][rows], digits[1][rows]
    for shape in ("ovr", "ovo"):
        path = saved(tmp_path / f"{shape}.skops", SVC(decision_function_shape=shape), three)
        if shape == "ovr":
            assert target(f"sklearn:{path}").outputs == "logits"
            continue
        with pytest.raises(TargetError, match=r"is not always of the class that predict returns.*shape=\"ovr\""):
            target(f"sklearn:{path}")


def test_archives_that_are_large_when_decompressed_are_not_read(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "n.skops", GaussianNB(), digits)
    monkeypatch.setattr("evofool.targets.loaders.sklearn._MOST_BYTES", 5_000)
    monkeypatch.setattr(io, "get_untrusted_types", None)
    with pytest.raises(TargetError, match="bytes when decompressed; 5,000 are the most"):
        target(f"sklearn:{path}")


@pytest.mark.parametrize("last", [False, True])
def test_colours_are_planes_or_the_last_axis(tmp_path: Path, last: bool) -> None:
    rng = np.random.default_rng(0)
    pixels, classes = rng.integers(0, 256, (60, 3, 4, 5), np.uint8), rng.integers(0, 3, 60)
    rows = (pixels.transpose(0, 2, 3, 1) if last else pixels).reshape(60, -1).astype(float)
    model = LogisticRegression(max_iter=20)
    path = saved(tmp_path / "n.skops", make_pipeline(StandardScaler(), model), (rows, classes))
    found = target(f"sklearn:{path}?size=4x5{'&channels_last=yes' if last else ''}")
    expected = model.predict_proba(StandardScaler().fit(rows).transform(rows))
    assert found.shape == (3, 4, 5)
    assert found.raw(pixels) == pytest.approx(expected, abs=1e-6)


def test_untrusted_types_are_refused_and_named_unless_the_spec_names_them(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    tree = DecisionTreeClassifier(max_depth=4)
    path = saved(tmp_path / "n.skops", tree, digits)
    spec = f"sklearn:{path}"
    assert not needs_trust(spec)
    with pytest.raises(TargetError, match=f"has types that skops does not trust: {TREE}; .* add trusted={TREE}"):
        target(spec)
    found = target(f"{spec}?trusted={TREE}")
    assert found.raw(as_images(digits[0][:9])) == pytest.approx(tree.predict_proba(digits[0][:9]), abs=1e-6)
    with pytest.raises(TargetError, match=r"types of a file that skops does not trust, and a run may .* --trust"):
        stored_target(f"{spec}?trusted={TREE}", tmp_path, trust=False)


def test_a_function_of_somebody_is_not_called(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    path = saved(tmp_path / "own.skops", make_pipeline(FunctionTransformer(own), GaussianNB()), digits)
    with pytest.raises(TargetError, match=r"does not trust: .*\.own; "):
        target(f"sklearn:{path}")


def own(x: np.ndarray) -> np.ndarray:
    return x


def test_invalid_files_are_one_sentence(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    path = saved(tmp_path / "n.skops", GaussianNB(), digits)
    (tmp_path / "pickle.skops").write_bytes(pickle.dumps(GaussianNB()))
    (tmp_path / "cut.skops").write_bytes(path.read_bytes()[:500])
    io.dump({"weights": np.zeros(3)}, tmp_path / "dict.skops")
    saved(tmp_path / "classes.skops", OutputCodeClassifier(GaussianNB()), digits)
    cases = (
        ("sklearn:", "sklearn: has no file"),
        (f"sklearn:{tmp_path}/no.skops", "there is no skops file"),
        (f"sklearn:{tmp_path}/pickle.skops", "is a pickle, not a file of skops; evofool does not unpickle files"),
        (f"sklearn:{tmp_path}/cut.skops", "is not a complete file of skops"),
        (f"sklearn:{tmp_path}/dict.skops", "has a dict; it has to have a fitted classifier"),
        (f"sklearn:{tmp_path}/classes.skops", "has neither predict_proba nor decision_function, only classes"),
        (f"sklearn:{path}?size=7", "its images cannot be 7x7"),
        (f"onnx:{path}", "is a file of skops, not an ONNX network; sklearn:FILE reads it"),
    )
    for spec, words in cases:
        with pytest.raises(TargetError, match=words):
            target(spec)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skops", None)
    with pytest.raises(TargetError, match=r"needs skops: pip install 'evofool\[skops\]'"):
        target(f"sklearn:{tmp_path}/n.skops")
