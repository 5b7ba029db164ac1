"""Single units climbed, as a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.loop import Tick
from evofool.attacks.run import AttackPlan, run_baseline
from evofool.attacks.units import UnitOutcome, UnitPlan, run_units, unit_of
from evofool.errors import RecipeError, TargetError
from evofool.images import decode_png
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.scores import confidence, log_odds
from evofool.targets import Target

CLASSES, SIDE = 5, 8
LABELS = ["ant", "bee", "cat", "dog", "elk"]
ERHAN = {"restarts": 3}


class Tiny(nn.Module):
    """A convolution, a layer of units of which number 0 is dead, and a linear layer; NaN if `broken`."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.hidden, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 6), nn.Linear(6, CLASSES)
        self.relu, self.unused = nn.ReLU(), nn.Linear(2, 2)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator) / 4)
            self.hidden.weight[0], self.hidden.bias[0] = 0.0, -1.0
        self.broken = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.relu(self.hidden(self.conv(x).flatten(1)))
        return self.last(z * torch.nan if self.broken else z)


def tiny(net: nn.Module | None = None) -> Target:
    return Target.from_module(net or Tiny(), LABELS, (1, SIDE, SIDE), name="tiny")


def run(folder: Path, *units: str, target: Target | None = None, tick: Tick | None = None, **plan: Any) -> UnitOutcome:
    return run_units(UnitPlan(units, **({"settings": ERHAN} | plan)), target or tiny(), folder, tick=tick)


def activation(target: Target, images: np.ndarray, layer: str, index: tuple[int, ...]) -> np.ndarray:
    activations = target.activations(torch.from_numpy(images).float() / 255, layer).detach().numpy()
    return np.array([each[index] for each in activations])


def test_units_of_several_layers_make_a_run_that_can_be_verified(tmp_path: Path) -> None:
    found = tiny()
    units = ["hidden:3", "conv:2:1:4", "hidden:5", "conv:1", "hidden:3"]
    made = run(tmp_path / "run", *units, target=found, budget=30)
    assert made.done
    named = ["hidden:3", "conv:2:1:4", "hidden:5", "conv:1"]  # a unit that is named twice counts once
    assert [line.split()[0] for line in made.lines] == named
    assert all("3 starts, spread (deviation / mean) " in line for line in made.lines)
    entries = json.loads((tmp_path / "run" / "units.json").read_text())
    assert [each["unit"] for each in entries] == named
    indices = {"hidden:3": (3,), "conv:2:1:4": (2, 1, 4), "hidden:5": (5,), "conv:1": (1, 3, 3)}  # a map's middle
    for each, line in zip(entries, made.lines, strict=True):
        image = decode_png((tmp_path / "run" / each["file"]).read_bytes())
        best = max(each["activations"])
        assert len(each["activations"]) == 3
        assert f"activation {best:.4g}" in line
        layer = each["unit"].partition(":")[0]
        assert activation(found, image[None], layer, indices[each["unit"]])[0] == pytest.approx(best, rel=1e-4)
        logits = found.logits(image[None], 64)
        assert each["called"] == LABELS[int(logits.argmax())]
        assert each["confidence"] == confidence(log_odds(logits)[0].max())
    assert (tmp_path / "run" / "units.png").is_file()
    with StoredRun(tmp_path / "run") as stored:
        elites = stored.elites()
        assert len(elites) == CLASSES  # every image competes in every class
        assert {e.row.method for e in elites} == {"erhan"}
        assert verify(stored, found).faults == ()
        assert stored.evaluations == 4 * 30 == stored.rows()[-1]["evaluations"]
        assert stored.rows()[-1]["distinct"] == len({e.row.birth for e in elites})
        assert stored.meta.finished == "all 4 units are done"
        plan = stored.meta.attack.plan
    assert plan == {
        "method": "erhan", "units": named, "settings": {"restarts": 3, "norm": 0.0, "rate": 0.1}, "budget": 30, "seed": 0,
        "threads": 1,
    }  # fmt: skip


def test_a_class_s_elite_is_the_best_of_all_images(tmp_path: Path) -> None:
    found = tiny()
    run(tmp_path, "hidden:1", "hidden:2", target=found, settings={"restarts": 2}, budget=12)
    with StoredRun(tmp_path) as stored:
        elites = stored.elites()
        odds = log_odds(found.logits(np.stack([e.image for e in elites]), 64))
        for c, e in enumerate(elites):
            assert odds[:, c].max() == odds[c, c] == e.row.log_odds


def test_a_unit_s_image_does_not_depend_on_units_of_other_layers(tmp_path: Path) -> None:
    found = tiny()
    run(tmp_path / "both", "conv:1", "hidden:3", target=found, budget=30)
    run(tmp_path / "one", "hidden:3", target=found, budget=30)
    both, one = ((tmp_path / name / "unit-hidden-3.png").read_bytes() for name in ("both", "one"))
    assert both == one


def test_a_unit_s_activation_rises(tmp_path: Path) -> None:
    found = tiny()
    noise = np.random.default_rng(0).integers(0, 256, (64, 1, SIDE, SIDE), np.uint8)
    run(tmp_path, "hidden:3", target=found, settings={"restarts": 2}, budget=80)
    (entry,) = json.loads((tmp_path / "units.json").read_text())
    assert min(entry["activations"]) > activation(found, noise, "hidden", (3,)).max()


def test_a_dead_unit_has_notes_and_no_spread(tmp_path: Path) -> None:
    made = run(tmp_path, "relu:0", budget=12)
    *notes, line = made.lines
    assert line == "relu:0  activation 0, 3 starts"
    assert len(notes) == 3
    assert all(note.startswith(f"relu:0, start {k}: its gradient was 0") for k, note in enumerate(notes))


def test_starts_with_nan_activations_have_notes_and_keep_their_best_before(tmp_path: Path) -> None:
    net = Tiny()
    found = tiny(net)

    def tick(step: int, steps: int) -> bool:
        net.broken = step == 0  # for the second step alone, which ends all starts
        return False

    made = run(tmp_path, "last:1", "hidden:3", target=found, budget=12, tick=tick)
    *notes, one, other = made.lines
    assert len(notes) == 3
    assert all(note.startswith(f"last:1, start {k}: its score was NaN") for k, note in enumerate(notes))
    assert one.startswith("last:1  activation ")
    assert other.startswith("hidden:3  activation ")
    with StoredRun(tmp_path) as stored:
        assert len(stored.elites()) == CLASSES
        assert verify(stored, found).faults == ()
        assert stored.meta.attack.notes == notes
        assert stored.evaluations == 3 * 2 + 12


def test_a_network_with_nan_outputs_is_refused(tmp_path: Path) -> None:
    net = Tiny()
    found = tiny(net)
    net.broken = True
    with pytest.raises(TargetError, match="NaN"):
        run(tmp_path / "run", "hidden:4", target=found, budget=12)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    found = tiny()
    run(tmp_path, "hidden:1", target=found, budget=12)
    with Store.open(tmp_path) as store:
        before = store.meta()
    made = run(tmp_path, "hidden:1", target=found, budget=12)
    assert made.lines == (f"{tmp_path} has all of these units already.",)
    with Store.open(tmp_path) as store:
        assert store.meta() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": ["hidden:2"]}, r"begun with units = \['hidden:1'\], not \['hidden:2'\]"),
        ({"settings": {"restarts": 2}}, "begun with restarts = 3, not 2"),
        ({"budget": 15}, "begun with budget = 12, not 15"),
        ({"seed": 5}, "begun with seed = 0, not 5"),
    ],
)
def test_other_units_are_refused_in_the_same_folder(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    found = tiny()
    plan: dict[str, Any] = {"units": ["hidden:1"], "settings": ERHAN, "budget": 12}
    run_units(UnitPlan(**plan), found, tmp_path)
    with pytest.raises(RecipeError, match=message):
        run_units(UnitPlan(**(plan | change)), found, tmp_path)
    with pytest.raises(RecipeError, match="was begun with"):
        run_baseline(AttackPlan("erhan", settings=ERHAN, budget=12), found, tmp_path)


def test_a_stopped_run_saves_nothing(tmp_path: Path) -> None:
    made = run(tmp_path / "run", "hidden:1", "conv:1", tick=lambda step, steps: step == 2)
    assert not made.done
    assert made.lines == ("Stopped before the units were done; nothing was kept.",)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("hidden", "unit hidden has to be LAYER:CHANNEL or LAYER:CHANNEL:Y:X, as in fc1:7"),
        ("hidden:x", "unit hidden:x has to be LAYER:CHANNEL"),
        ("hidden:-1", "unit hidden:-1 has to be LAYER:CHANNEL"),
        ("hidden:6", 'unit hidden:6: layer "hidden" of tiny is 6: 6 is not in 0..5'),
        ("hidden:1:0:0", 'unit hidden:1:0:0: layer "hidden" of tiny is 6; name a unit as LAYER:CHANNEL'),
        ("conv:1:2", 'layer "conv" of tiny is 4 x 6 x 6; name a unit as LAYER:CHANNEL or LAYER:CHANNEL:Y:X'),
        ("conv:4", 'unit conv:4: layer "conv" of tiny is 4 x 6 x 6: 4 is not in 0..3'),
        ("conv:0:6:0", 'unit conv:0:6:0: layer "conv" of tiny is 4 x 6 x 6: 6 is not in 0..5'),
        ("hiden:1", 'tiny: no layer "hiden"; there are 5, the nearest hidden'),
        (":1", 'tiny: no layer ""'),
        ("unused:1", 'tiny: layer "unused" is not used'),
    ],
)
def test_the_error_for_an_unknown_unit_names_it(tmp_path: Path, unit: str, message: str) -> None:
    with pytest.raises(TargetError) as error:
        run(tmp_path / "run", "hidden:1", unit, settings={})
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"octaves": 2}, 'erhan has no setting "octaves"; it has restarts, norm, rate'),
        ({"restarts": "two"}, "erhan: restarts has to be a value like 9, not 'two'"),
        ({"rate": -1.0}, r"erhan: rate has to be finite and at least 0, not -1\.0"),
        ({"restarts": 0}, r"restarts has to lie in 1\.\.256, not 0"),
    ],
)
def test_errors_name_invalid_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        run(tmp_path / "run", "hidden:1", settings=settings, budget=20)
    assert list(tmp_path.iterdir()) == []


def test_a_black_box_has_no_units() -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        return np.zeros((len(images), CLASSES), np.float32)

    with pytest.raises(TargetError, match="box: it has neither gradients nor layers"):
        unit_of(Target("box", LABELS, (1, SIDE, SIDE), forward, {}), "hidden:1")


def test_names_of_units_are_parsed() -> None:
    found = tiny()
    assert unit_of(found, "hidden:5") == ("hidden", (5,))
    assert unit_of(found, "conv:3") == ("conv", (3,))
    assert unit_of(found, "conv:3:5:0") == ("conv", (3, 5, 0))
