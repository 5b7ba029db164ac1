"""The metrics of attacks' runs, and the groups of classes that are attacked together."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evofool.attacks.run import (
    AttackPlan,
    run_baseline,
)
from evofool.attacks.session import metrics_rows
from evofool.run.schema import ImprovementRow
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.scores import confidence, needed_log_odds
from evofool.targets import Target
from tests.attacks.samples import CLASSES, tiny


def test_metrics_rows_by_hand() -> None:
    half, most = 0.0, needed_log_odds(0.99) + 1e-9
    # Class 3 uses 3 passes, class 8 uses 2, class 5 has no image after 1; the fourth class is not done yet.
    improvements = [
        (3, 1, 1, -9.0, -2.0), (3, 3, 2, 9.0, most), (3, 3, 2, 9.0, most),
        (8, 2, 1, 1.0, half), (8, 2, 1, 1.0, half),
        (5, 1, 0, -math.inf, -math.inf),
    ]  # fmt: skip
    rows = metrics_rows([ImprovementRow(*row) for row in improvements], 4)
    low = float(confidence(-2.0))
    assert [at for at, _ in rows] == [1, 2, 3]
    assert [row["evaluations"] for _, row in rows] == [3, 5, 6]
    assert [row["nevals"] for _, row in rows] == [3, 5, 6]
    assert [row["gen"] for _, row in rows] == [1, 2, 3]
    assert [row["distinct"] for _, row in rows] == [1, 2, 2]
    assert [row["at_99"] for _, row in rows] == [0, 0, 1]
    assert [row["at_9999"] for _, row in rows] == [0, 0, 0]
    assert [row["min"] for _, row in rows] == [0, 0, 0]
    assert [row["median"] for _, row in rows] == pytest.approx([0, low / 2, 0.25])
    assert [row["q75"] for _, row in rows] == pytest.approx([low / 4, low + (0.5 - low) / 4, 0.5 + 0.49 / 4])


def test_no_improvements_give_no_metrics_rows() -> None:
    assert metrics_rows([], 4) == []


def test_metrics_never_fall_and_end_with_all_passes() -> None:
    rng = np.random.default_rng(0)
    improvements: list[ImprovementRow] = []
    total = 0
    for cell in range(20):
        steps: list[int] = np.cumsum(rng.integers(1, 40, rng.integers(1, 30))).tolist()
        odds = np.sort(rng.normal(0, 6, len(steps))).tolist()
        improvements.extend(ImprovementRow(cell, at, at, score, score) for at, score in zip(steps, odds, strict=True))
        improvements.append(ImprovementRow(cell, steps[-1] + 7, steps[-1] + 7, odds[-1], odds[-1]))
        total += steps[-1] + 7
    rows = metrics_rows(improvements, 20)
    for name in ("evaluations", "distinct", "median", "q25", "q75", "min", "at_99", "at_9999"):
        values = [row[name] for _, row in rows]
        assert values == sorted(values)
    assert rows[-1][1]["evaluations"] == total
    last = [max(row.log_odds for row in improvements if row.cell == cell) for cell in range(20)]
    assert rows[-1][1]["median"] == pytest.approx(float(np.median([confidence(x) for x in last])))


@pytest.mark.parametrize("method", ["apgd", "nes"])
def test_the_stored_metrics_end_with_the_confidences_of_the_elites(tmp_path: Path, method: str) -> None:
    run_baseline(AttackPlan(method, budget=25, group=2), tiny(), tmp_path)
    with StoredRun(tmp_path) as stored:
        last = stored.rows()[-1]
        confidences = np.array([e.confidence for e in stored.elites()])
        assert last["evaluations"] == stored.evaluations
        assert last["median"] == pytest.approx(float(np.median(confidences)), abs=1e-6)
        assert last["min"] == pytest.approx(float(confidences.min()), abs=1e-6)
        assert last["distinct"] == CLASSES


def test_classes_that_share_images_are_one_group(tmp_path: Path) -> None:
    found = tiny()
    plan = AttackPlan("random", budget=1, group=2)
    assert plan.settled(found).group == CLASSES
    run_baseline(plan, found, tmp_path)
    with StoredRun(tmp_path) as stored:
        elites = stored.elites()
        births = {e.row.birth for e in elites}
        assert len(births) == len({e.row.png for e in elites}) < CLASSES
        assert stored.rows()[-1]["distinct"] == len(births)
        assert verify(stored, found).faults == ()


def test_the_group_size_is_limited_by_memory() -> None:
    class Wide(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)).repeat(1, 400)

    found = Target.from_module(Wide(), None, (3, 224, 224), outputs="logits")
    assert AttackPlan("apgd").settled(found).group == (1 << 29) // (40 * 3 * 224 * 224)
    assert AttackPlan("erhan").settled(found).group == (1 << 29) // (9 * 40 * 3 * 224 * 224)
    assert AttackPlan("erhan", settings={"restarts": 256}).settled(found).group == 1
    assert AttackPlan("apgd", (1, 2)).settled(found).group == 2
    big, small = AttackPlan("apgd").settled(found), AttackPlan("apgd").settled(tiny())
    assert (big.microbatch, big.chunk, small.microbatch, small.chunk) == (2, 16, 64, CLASSES)
