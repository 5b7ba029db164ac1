"""A worker, called without Ray: what it does with images that break the target."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evofool.cluster.messages import Lineage, Sender, decode_winners, seal
from evofool.cluster.start_up import unfit
from evofool.cluster.worker import Worker, WorkerSetup
from evofool.image_metrics.unlike import Unlike
from evofool.search.archive import Winners
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.targets import target
from evofool.targets.digits import held_out
from genomes import CPPN, Direct, Key

SIZE, CHUNK = 20, 8
DIRECT = Direct(1, 6, 6, rate=0.2)
MODULE = """
import numpy as np

class ByRow:
    shape, labels = (1, 6, 6), ["a", "b", "c"]
    def __init__(self, breaks): self.breaks = breaks
    def __call__(self, images):
        flat = images.reshape(len(images), -1).astype(np.float32)
        logits = flat[:, :3] / 32 + np.arange(len(images), dtype=np.float32)[:, None] * np.float32([0, 1e-3, 2e-3])
        if self.breaks:
            odd = flat[:, 3] % 7 == 6
            logits[odd] = np.nan
        return logits.astype(np.float32)

class NanOnce(ByRow):
    calls = 0
    def __call__(self, images):
        self.calls += 1
        logits = super().__call__(images)
        if self.calls == 4: logits[1] = np.nan  # after the probe of a target that is built, and two chunks
        return logits

def whole(): return ByRow(False)
def nan_once(): return NanOnce(False)
def breaks(): return ByRow(True)
"""


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    """Of random images; the targets' module is in the current folder."""
    (tmp_path / "row_targets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "row_targets", raising=False)
    return Order(Key(7, 0), 0, SIZE, np.full(3, -np.inf), np.full(3, -1), np.full(SIZE, -1), np.full(SIZE, -1))


def test_images_that_break_the_target_leave_the_rows_of_the_others_as_they_are(tmp_path: Path, order: Order) -> None:
    batch_evaluator = BatchEvaluator(DIRECT, target("python:row_targets:whole"), CHUNK)
    images = DIRECT.render(batch_evaluator.children(order, 0, SIZE))
    odd = np.flatnonzero(images.reshape(SIZE, -1)[:, 3] % 7 == 6).tolist()
    assert odd
    setup = WorkerSetup("python:row_targets:breaks", settings(batch_evaluator), 7, SIZE, 1, str(tmp_path))
    worker = Worker()
    assert worker.build(setup).error == ""
    lineage = Lineage()
    reply = worker.evaluate(Sender(DIRECT, lineage).encode(order))
    winners = decode_winners(DIRECT, order, reply.value, lineage)
    assert [row for row, _ in reply.value.broken] == odd
    healthy = [batch_evaluator(order.cut(row, row + 1)) for row in range(SIZE) if row not in odd]
    expected = Winners.merged(healthy, 1)
    for name in ("births", "cells", "scores", "log_odds", "margins"):
        assert getattr(winners, name).tolist() == getattr(expected, name).tolist()


def test_an_answer_has_a_seal_of_its_last_chunk_that_a_check_repeats(tmp_path: Path, order: Order) -> None:
    batch_evaluator = BatchEvaluator(DIRECT, target("python:row_targets:whole"), CHUNK)
    setup = WorkerSetup("python:row_targets:whole", settings(batch_evaluator), 7, SIZE, 1, str(tmp_path))
    worker = Worker()
    worker.build(setup)
    sender = Sender(DIRECT, Lineage())
    kept = worker.evaluate(sender.encode(order)).seal
    assert kept is not None
    assert (kept.begin, kept.size) == (16, 4)
    chunk = order.cut(kept.begin, kept.begin + kept.size)
    logits = worker.check(sender.encode_check(chunk)).value
    assert np.array_equal(logits, batch_evaluator.logits(chunk))
    assert seal(16, logits)[:3] == kept[:3]
    worker.forget()
    assert worker.evaluate(Sender(DIRECT, Lineage()).encode(order)).seal[:3] == kept[:3]  # type: ignore[index]


def test_images_that_break_the_target_once_but_not_again_are_reported(tmp_path: Path, order: Order) -> None:
    batch_evaluator = BatchEvaluator(DIRECT, target("python:row_targets:whole"), CHUNK)
    setup = WorkerSetup("python:row_targets:nan_once", settings(batch_evaluator), 7, SIZE, 1, str(tmp_path))
    worker = Worker()
    worker.build(setup)
    reply = worker.evaluate(Sender(DIRECT, Lineage()).encode(order))
    assert reply.value.broken == ()
    assert reply.unsteady == ((16, 20),)


def test_a_worker_turns_the_same_images_away_and_tells_its_limits() -> None:
    images, labels = held_out()
    few = np.concatenate([np.flatnonzero(labels == c)[:8] for c in range(10)])
    unlike = Unlike(images[few], labels[few], np.arange(0, 80, 2), "shape", 50.0)
    encoding = CPPN("grey", 28, 28)
    batch_evaluator = BatchEvaluator(encoding, target("lenet"), CHUNK, keep=2, permits=unlike)
    none = np.full(SIZE, -1)
    order = Order(Key(7, 0), 0, SIZE, np.full(10, -np.inf), np.full(10, -1), none, none).cut(4, SIZE)
    expected = batch_evaluator(order)
    assert len(expected.turned_away.births) > 5
    worker, lineage = Worker(), Lineage()
    made = settings(batch_evaluator) | {"keep": 2}
    info = worker.build(WorkerSetup("lenet", made, 7, SIZE, 1, ".", unlike=unlike.settings))
    found = decode_winners(encoding, order, worker.evaluate(Sender(encoding, lineage).encode(order)).value, lineage)
    assert found.births[found.rows].tolist() == expected.births[expected.rows].tolist()
    assert all(map(np.array_equal, found.turned_away, expected.turned_away))
    assert unfit(info, batch_evaluator) == ""
    other = replace(info, unlike=tuple(limit * 1.01 for limit in info.unlike))
    assert "measures likeness to digits (search.unlike) otherwise than this machine" in unfit(other, batch_evaluator)
    assert "labels, preprocessing or weights differ" in unfit(replace(info, fingerprint="x"), batch_evaluator)


def settings(batch_evaluator: BatchEvaluator) -> dict[str, object]:
    """What a worker is built with."""
    names = ("encoding", "chunk", "rank", "competition", "descriptor", "edges", "number_format")
    return {name: getattr(batch_evaluator, name) for name in names}
