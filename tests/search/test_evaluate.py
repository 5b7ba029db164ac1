"""From orders to winners, with classifiers that are one line of numpy, against loops over images and cells."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from evofool.descriptors import DESCRIPTORS, bins, mirror_symmetry, png_bytes_per_pixel, register
from evofool.errors import BudgetError, ScoreError, TargetError
from evofool.images import encode_png
from evofool.scores import log_odds, margin
from evofool.search.archive import Archive, Winners
from evofool.search.evaluate import COMPETITIONS, BatchEvaluator, Order, children
from evofool.search.evolve import MapElites, ea_map_elites, toolbox
from evofool.search.local_evaluator import LocalEvaluator
from evofool.targets import Target
from genomes import CPPN, Direct, Encoding, Key
from tests.synthetic import CLASSES, SIDE, fake, linear

DIRECT = Direct(1, SIDE, SIDE, rate=0.2)
EDGES = (0.55, 0.62, 0.7)


def stepped(images: np.ndarray, step: float) -> np.ndarray:
    """linear, rounded to multiples of step so that many logits are equal."""
    return (np.round(linear(images).astype(np.float64) / step) * step if step else linear(images)).astype(np.float32)


def order_of(number: int, size: int, thresholds: np.ndarray, encoding: Encoding = DIRECT, **changes: Any) -> Order:
    """Batch 0 is random; later ones have parents."""
    parents: dict[str, Any] = {"mothers": np.full(size, -1), "fathers": np.full(size, -1)}
    if number:
        parents = {
            "mothers": np.arange(size) + 3,
            "fathers": np.arange(size) + 4,
            "parents": dict(zip(range(3, size + 4), encoding.random(size + 1, Key(50, number))[:, None], strict=True)),
        }
    incumbents = np.full((len(thresholds), 1), -1)
    return Order(Key(7, number), number * size, size, thresholds, incumbents, **(parents | changes))


Won = tuple[int, float, float, float]
"""(row, score, log-odds, margin)"""


def slow_winners(batch_evaluator: BatchEvaluator, order: Order) -> dict[int, list[Won]]:
    """Per cell the best children above the threshold, from the best, the first of equals: as many as a cell keeps."""
    best: dict[int, list[Won]] = {}
    for row in range(order.size):
        mother, father = int(order.mothers[row]), int(order.fathers[row])
        if mother < 0:
            child = batch_evaluator.encoding.random(1, order.key.at(row))
        else:
            child = batch_evaluator.encoding.vary(order.parents[mother], order.parents[father], order.key.at(row))
        image = batch_evaluator.encoding.render(child)
        logits = batch_evaluator.target._forward(image)
        odds, gaps = log_odds(logits)[0], margin(logits)[0]
        niche = 0
        if batch_evaluator.descriptor:
            niche = sum(edge <= DESCRIPTORS[batch_evaluator.descriptor](image)[0] for edge in batch_evaluator.edges)
        for c in range(CLASSES):
            if batch_evaluator.competition == "argmax" and c != int(logits[0].argmax()):
                continue
            if batch_evaluator.competition == "per-class" and order.claims is not None and c != order.claims[row]:
                continue
            score = float((odds if batch_evaluator.rank == "log_odds" else gaps)[c])
            cell = c * batch_evaluator.niches + niche
            if score > order.thresholds[cell]:
                best.setdefault(cell, []).append((row, score, float(odds[c]), float(gaps[c])))
    return {cell: sorted(won, key=lambda one: -one[1])[: batch_evaluator.keep] for cell, won in best.items()}


def as_dict(order: Order, w: Winners) -> dict[int, list[Won]]:
    assert (np.diff(w.cells) >= 0).all()
    assert len(set(zip(w.cells.tolist(), w.rows.tolist(), strict=True))) == len(w.cells)
    assert (np.diff(w.births) > 0).all()
    assert sorted(set(w.rows.tolist())) == list(range(len(w.births))), "every genome that is sent won something"
    rows = (w.births - order.first_birth)[w.rows]
    values = zip(rows.tolist(), w.scores.tolist(), w.log_odds.tolist(), w.margins.tolist(), strict=True)
    won: dict[int, list[Won]] = {}
    for cell, value in zip(w.cells.tolist(), values, strict=True):
        won.setdefault(cell, []).append(value)
    return won


@pytest.mark.parametrize("competition", COMPETITIONS)
@pytest.mark.parametrize("rank", ["log_odds", "margin"])
@pytest.mark.parametrize("edges", [(), EDGES], ids=["one niche", "four niches"])
@pytest.mark.parametrize("step", [0.0, 2.0], ids=["no ties", "ties"])
@pytest.mark.parametrize("keep", [1, 3])
def test_winners_are_those_of_a_loop_over_children_and_classes(
    competition: str, rank: str, edges: tuple[float, ...], step: float, keep: int
) -> None:
    descriptor = "mirror_symmetry" if edges else None
    rules: dict[str, Any] = {"rank": rank, "competition": competition, "descriptor": descriptor, "edges": edges}
    batch_evaluator = BatchEvaluator(DIRECT, fake(lambda x: stepped(x, step)), 8, **rules, keep=keep)
    cells = CLASSES * batch_evaluator.niches
    claims = np.arange(24) % CLASSES if competition == "per-class" else None
    rng = np.random.default_rng(3)
    empty = np.full(cells, -np.inf)
    mixed = np.where(rng.random(cells) < 0.3, -np.inf, rng.normal(-3, 4, cells))
    won = 0
    for number, thresholds in ((0, empty), (1, empty), (1, mixed), (2, mixed)):
        order = order_of(number, 24, thresholds, claims=claims)
        w = batch_evaluator(order)
        expected = slow_winners(batch_evaluator, order)
        assert as_dict(order, w) == expected
        assert np.array_equal(w.genomes, batch_evaluator.children(order, 0, 24)[w.births - order.first_birth])
        assert np.array_equal(w.mothers, order.mothers[w.births - order.first_birth])
        assert np.array_equal(w.fathers, order.fathers[w.births - order.first_birth])
        won += len(expected)
    assert won > 5


def test_a_score_that_only_equals_the_threshold_wins_nothing() -> None:
    batch_evaluator = BatchEvaluator(DIRECT, fake(), 8)
    order = order_of(0, 8, np.full(CLASSES, -np.inf))
    w = batch_evaluator(order)
    thresholds = np.full(CLASSES, -np.inf)
    thresholds[w.cells] = w.scores
    again = batch_evaluator(order_of(0, 8, thresholds))
    assert len(w.cells) == CLASSES
    assert [len(again.cells), len(again.births), len(again.genomes)] == [0, 0, 0]
    thresholds[2] = np.nextafter(thresholds[2], -np.inf)
    assert batch_evaluator(order_of(0, 8, thresholds)).cells.tolist() == [2]


def test_with_every_image_alike_the_first_child_wins_every_class() -> None:
    batch_evaluator = BatchEvaluator(DIRECT, fake(lambda x: np.zeros((len(x), CLASSES), np.float32)), 8)
    w = batch_evaluator(order_of(1, 20, np.full(CLASSES, -np.inf)))
    assert w.births.tolist() == [20]
    assert w.rows.tolist() == [0] * CLASSES


@pytest.mark.parametrize("encoding", [DIRECT, CPPN(height=SIDE, width=SIDE)], ids=lambda e: e.name)
@pytest.mark.parametrize("edges", [(), EDGES], ids=["one niche", "four niches"])
@pytest.mark.parametrize("keep", [1, 3])
def test_the_chunk_size_changes_no_winner_of_a_target_that_it_changes_no_bit_of(
    encoding: Encoding, edges: tuple[float, ...], keep: int
) -> None:
    for number in (0, 1):
        found = []
        for chunk in (1, 7, 16, 20, 64):
            batch_evaluator = BatchEvaluator(
                encoding, fake(), chunk, descriptor="mirror_symmetry" if edges else None, edges=edges, keep=keep
            )
            order = order_of(number, 20, np.full(CLASSES * batch_evaluator.niches, -np.inf), encoding)
            w = batch_evaluator(order)
            found.append((as_dict(order, w), w.births.tolist(), [encoding.pack(g) for g in w.genomes]))
        assert all(f == found[0] for f in found)


def test_children_are_the_same_however_a_batch_is_cut() -> None:
    for encoding in (DIRECT, CPPN(height=SIDE, width=SIDE)):
        batch_evaluator = BatchEvaluator(encoding, fake(), 4)
        for number in (0, 1):
            order = order_of(number, 10, np.full(CLASSES, -np.inf), encoding)
            whole = batch_evaluator.children(order, 0, 10)
            cuts = np.concatenate([batch_evaluator.children(order, a, b) for a, b in ((0, 3), (3, 4), (4, 10))])
            assert [encoding.pack(g) for g in cuts] == [encoding.pack(g) for g in whole]
        other = batch_evaluator.children(order_of(2, 10, np.full(CLASSES, -np.inf), encoding), 0, 10)
        assert [encoding.pack(g) for g in other] != [encoding.pack(g) for g in whole]


@pytest.mark.parametrize(("size", "chunk", "passes"), [(20, 8, 3), (16, 8, 2), (5, 8, 1), (8, 1, 8)])
def test_every_forward_pass_has_the_chunk_s_size_and_only_real_images_are_counted(
    size: int, chunk: int, passes: int
) -> None:
    seen: list[tuple[int, ...]] = []
    last: list[np.ndarray] = []

    def forward(images: np.ndarray) -> np.ndarray:
        seen.append(images.shape)
        last[:] = [images]
        return linear(images)

    target = fake(forward)
    BatchEvaluator(DIRECT, target, chunk)(order_of(0, size, np.full(CLASSES, -np.inf)))
    assert seen == [(chunk, 1, SIDE, SIDE)] * passes
    assert target.queries == size
    padding = last[0][size - chunk * passes :] if size % chunk else last[0][:0]
    assert not padding.any()


def by_row(images: np.ndarray) -> np.ndarray:
    """linear, plus what depends on the row, by another amount in each class."""
    return linear(images) + np.arange(len(images), dtype=np.float32)[:, None] * np.linspace(
        0, 1e-3, CLASSES, dtype=np.float32
    )


@pytest.mark.parametrize("cuts", [(8, 16), (3, 8, 16), (1, 2, 9, 15, 17), (13,), tuple(range(1, 20))], ids=str)
def test_a_piece_of_a_batch_has_the_winners_of_its_rows_even_if_logits_depend_on_the_row(cuts: tuple[int, ...]) -> None:
    batch_evaluator = BatchEvaluator(DIRECT, fake(by_row), 8)
    order = order_of(1, 20, np.full(CLASSES, -np.inf))
    pieces = [batch_evaluator(order.cut(begin, end)) for begin, end in pairwise([0, *cuts, 20])]
    whole, merged = batch_evaluator(order), Winners.merged(pieces, 1)
    assert as_dict(order, merged) == as_dict(order, whole)
    moved = [order.cut(begin, begin + 1) for begin in range(20)]
    moved = [batch_evaluator(replace(piece, key=piece.key.at(-piece.key.row))) for piece in moved]
    assert as_dict(order, Winners.merged(moved, 1)) != as_dict(order, whole), "the row matters to this target"


def test_an_image_keeps_its_row_on_the_device_too() -> None:
    class ByRow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(by_row((x.numpy() * 255).round().astype(np.uint8)))

    target = Target.from_module(ByRow(), None, (1, SIDE, SIDE), name="by row")
    images = np.random.default_rng(0).integers(0, 256, (8, 1, SIDE, SIDE), np.uint8)
    whole = target.logits(images)
    before = target.queries
    for begin, end in ((0, 8), (0, 3), (3, 5), (7, 8)):
        part = target.logits(images[begin:end], 8, first_row=begin)
        there = target.logits_on_device(torch.from_numpy(images[begin:end]), 8, first_row=begin)
        assert np.array_equal(part, whole[begin:end])
        assert np.array_equal(there.numpy(), whole[begin:end])
    assert target.queries - before == 2 * (8 + 3 + 2 + 1), "padding is no query"


def test_padding_never_wins() -> None:
    def loves_black(images: np.ndarray) -> np.ndarray:
        z = np.zeros((len(images), CLASSES), np.float32)
        z[:, 2] = 255 - images.reshape(len(images), -1).mean(axis=1)
        return z

    order = order_of(0, 5, np.full(CLASSES, -np.inf))
    w = BatchEvaluator(DIRECT, fake(loves_black), 8)(order)
    assert w.births.max() < 5
    assert w.log_odds[w.cells == 2] < 200


# --- faults


def nan_in(calls: Callable[[int], bool], value: float) -> Callable[[np.ndarray], np.ndarray]:
    """linear, but in these calls, counted from 0, one logit of each image is no number."""
    done = [0]

    def forward(images: np.ndarray) -> np.ndarray:
        z = linear(images)
        if calls(done[0]):
            z[:, 1] = value
        done[0] += 1
        return z

    return forward


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_unfinite_answers_name_the_batch_and_leave_the_archive_as_it_was(value: float) -> None:
    batch_evaluator = BatchEvaluator(DIRECT, fake(nan_in(lambda call: call >= 3, value)), 12)
    archive = Archive(DIRECT, CLASSES)
    strategy = MapElites(archive, DIRECT, seed=1, batch=12)
    evaluator = LocalEvaluator(batch_evaluator)
    box = toolbox(strategy, batch_evaluator, evaluator)
    ea_map_elites(box, 3)
    before = (archive.birth.tolist(), archive.score.tolist(), len(strategy.offspring), len(strategy.cell_history))
    assert strategy.committed == 3
    with pytest.raises(ScoreError, match=r"batch 3: fake answered NaN or infinity for 12 of 12 images \(first: row 0\)"):
        ea_map_elites(box, 5)
    assert (archive.birth.tolist(), archive.score.tolist(), len(strategy.offspring), len(strategy.cell_history)) == before
    assert strategy.committed == 3
    assert [order.batch for order in evaluator.pending()] == [3]


@pytest.mark.parametrize("streams", [1, 2])
def test_a_fault_that_passes_costs_no_image(streams: int) -> None:
    order = order_of(1, 8, np.full(CLASSES, -np.inf))
    evaluator = LocalEvaluator(BatchEvaluator(DIRECT, fake(nan_in(lambda call: call in (0, 2), np.nan)), 3), streams)
    evaluator.submit(order)
    ((_, winners),) = evaluator.results()
    evaluator.close()
    assert as_dict(order, winners) == slow_winners(BatchEvaluator(DIRECT, fake(), 3), order)
    assert winners.quarantined == ()
    assert evaluator.notes == ["images of batch 1 broke fake once, not twice: its answers vary"]


@pytest.mark.parametrize("streams", [1, 2])
def test_an_image_that_always_breaks_the_target_wins_nothing_and_changes_nothing_for_others(streams: int) -> None:
    order = order_of(1, 8, np.full(CLASSES, -np.inf))
    bad = children(DIRECT, order)[5]

    def forward(images: np.ndarray, low: bool = False) -> np.ndarray:
        z, rows = linear(images), (images == bad).all(axis=(1, 2, 3))
        z[rows] = -1e30 if low else np.nan
        return z

    evaluator = LocalEvaluator(BatchEvaluator(DIRECT, fake(forward), 3), streams)
    evaluator.submit(order)
    ((_, winners),) = evaluator.results()
    evaluator.close()
    (aside,) = winners.quarantined
    assert (aside.birth, aside.batch, aside.reason) == (order.first_birth + 5, 1, "the answer to it is NaN or infinite")
    assert (aside.genome[0] == bad).all()
    assert evaluator.notes == []
    assert order.first_birth + 5 not in winners.births
    without = BatchEvaluator(DIRECT, fake(), 3)
    keep = Winners.merged([without(order.cut(0, 5)), without(order.cut(6, 8))], 1)
    assert as_dict(order, winners) == as_dict(order, keep)


@pytest.mark.parametrize("fault", [TargetError("fake: refused"), BudgetError("fake: the cap is reached")])
def test_a_black_box_is_not_paid_for_finding_the_image_that_breaks_it(fault: TargetError) -> None:
    asked = []

    def forward(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        raise fault

    target = fake(forward)
    target.counts_persist = True
    evaluator = LocalEvaluator(BatchEvaluator(DIRECT, target, 3))
    evaluator.submit(order_of(1, 8, np.full(CLASSES, -np.inf)))
    with pytest.raises(type(fault), match=str(fault)):
        next(evaluator.results())
    assert asked == [3]


def test_an_unfinite_answer_in_the_padding_harms_nobody() -> None:
    def hates_black(images: np.ndarray) -> np.ndarray:
        z = linear(images)
        z[~images.any(axis=(1, 2, 3))] = np.nan
        return z

    w = BatchEvaluator(DIRECT, fake(hates_black), 8)(order_of(0, 5, np.full(CLASSES, -np.inf)))
    assert np.isfinite(w.scores).all()


@pytest.mark.parametrize("competition", COMPETITIONS)
@pytest.mark.parametrize("rank", ["log_odds", "margin"])
@pytest.mark.parametrize("keep", [1, 4])
@pytest.mark.parametrize("encoding", [DIRECT, CPPN(height=SIDE, width=SIDE)], ids=lambda e: e.name)
def test_the_path_that_stays_on_the_device_finds_the_same_winners(
    competition: str, rank: str, encoding: Encoding, keep: int
) -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, CLASSES))
    target = Target.from_module(network, None, (1, SIDE, SIDE), name="linear")
    claims = np.arange(24) % CLASSES if competition == "per-class" else None
    for number in (0, 1, 2):
        order = order_of(number, 24, np.full(CLASSES, -1.0 if number == 2 else -np.inf), encoding, claims=claims)
        batch_evaluators = [
            BatchEvaluator(encoding, target, 7, rank, competition, resident=resident, keep=keep)
            for resident in (False, True)
        ]
        here, there = (batch_evaluator(order) for batch_evaluator in batch_evaluators)
        assert here.cells.tolist() == there.cells.tolist()
        assert here.births.tolist() == there.births.tolist()
        assert here.rows.tolist() == there.rows.tolist()
        assert here.genomes.tobytes() == there.genomes.tobytes()
        for name in ("scores", "log_odds", "margins"):
            assert getattr(here, name) == pytest.approx(getattr(there, name), abs=1e-9)
        assert len(here.cells) > 0


def test_what_a_black_box_does_not_tell_wins_nothing() -> None:
    target = fake()
    target.top_k = 2
    order = order_of(0, 24, np.full(CLASSES, -np.inf))
    w = BatchEvaluator(DIRECT, target, 8)(order)
    everything = BatchEvaluator(DIRECT, fake(), 24)(order)
    logits = linear(DIRECT.random(24, order.key))
    for cell, row in zip(w.cells.tolist(), w.births[w.rows].tolist(), strict=True):
        assert (logits[row] > logits[row, cell]).sum() < 2, "among the two highest of its image"
    assert set(w.cells.tolist()) <= set(everything.cells.tolist())
    assert len(w.cells) > 0


# --- the local evaluator


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("keep", [1, 3])
def test_workers_change_no_bit(workers: int, lag: int, keep: int) -> None:
    ends = []
    for count in (1, workers):
        archive = Archive(DIRECT, CLASSES, keep=keep)
        batch_evaluator = BatchEvaluator(DIRECT, fake(), 3, keep=keep)
        strategy = MapElites(archive, DIRECT, seed=1, batch=8)
        evaluator = LocalEvaluator(batch_evaluator, count)
        ea_map_elites(toolbox(strategy, batch_evaluator, evaluator), 30, lag=lag)
        genomes = DIRECT.random(8, Key(3, 0))
        assert np.array_equal(evaluator.reference_logits(range(8), genomes), linear(genomes))
        evaluator.close()
        births = [r.birth for r in (*strategy.cell_history, *strategy.runners_up)]
        ends.append((archive.births.tolist(), archive.scores.tolist(), births))
    assert ends[0] == ends[1]


def test_after_a_failure_the_workers_ask_again() -> None:
    broken = [True]

    def forward(images: np.ndarray) -> np.ndarray:
        if broken:
            raise TargetError("fake: the server is away")
        return linear(images)

    batch_evaluator = BatchEvaluator(DIRECT, fake(forward), 3)
    evaluator = LocalEvaluator(batch_evaluator, 2)
    order = order_of(1, 8, np.full(CLASSES, -np.inf))
    evaluator.submit(order)
    with pytest.raises(TargetError, match="the server is away"):
        next(evaluator.results())
    assert evaluator.pending() == [order]
    broken.clear()
    ((_, winners),) = evaluator.results()
    evaluator.close()
    assert as_dict(order, winners) == slow_winners(BatchEvaluator(DIRECT, fake(), 3), order)


def test_results_come_in_the_order_of_submission_and_more_may_be_submitted_meanwhile() -> None:
    evaluator = LocalEvaluator(BatchEvaluator(DIRECT, fake(), 8))
    orders = [order_of(number, 8, np.full(CLASSES, -np.inf)) for number in range(5)]
    for order in orders[:3]:
        evaluator.submit(order)
    seen = []
    for order, winners in evaluator.results():
        seen.append(order.batch)
        assert np.array_equal(winners.births // 8, np.full(len(winners.births), order.batch))
        if len(seen) <= 2:
            evaluator.submit(orders[2 + len(seen)])
        assert [o.batch for o in evaluator.pending()] == list(range(len(seen), min(3 + len(seen), 5)))
    assert seen == [0, 1, 2, 3, 4]
    assert evaluator.pending() == []
    assert list(evaluator.results()) == []


# --- descriptors


def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 3, 16, 20), dtype=np.uint8)
    noise[1] = 77
    noise[2, :, :, 10:] = noise[2, :, :, 9::-1]
    return noise


def test_mirror_symmetry_is_that_of_a_loop_over_pixels() -> None:
    images = pictures()
    found = mirror_symmetry(images)
    for image, value in zip(images, found, strict=True):
        c, h, w = image.shape
        gap = sum(
            abs(int(image[k, y, x]) - int(image[k, y, w - 1 - x])) for k in range(c) for y in range(h) for x in range(w)
        )
        assert value == pytest.approx(1 - gap / (c * h * w * 255), abs=1e-12)
    assert found[1] == 1.0
    assert found[2] == 1.0


def test_png_bytes_per_pixel_tells_flat_from_noisy_images() -> None:
    images = pictures()
    found = png_bytes_per_pixel(images)
    assert found.tolist() == [len(encode_png(image)) / 320 for image in images]
    assert found[1] < 0.5
    assert found[0] > 2.5


def test_bins_count_the_edges_at_or_below_a_value() -> None:
    edges = (-1.0, 0.0, 2.5)
    values = np.array([-9.0, -1.0, -0.5, 0.0, 2.4, 2.5, 99.0])
    assert bins(values, edges).tolist() == [sum(edge <= v for edge in edges) for v in values.tolist()]
    assert bins(values, ()).tolist() == [0] * 7


@pytest.fixture
def clean_registry() -> Iterator[None]:
    before = dict(DESCRIPTORS)
    yield
    DESCRIPTORS.clear()
    DESCRIPTORS.update(before)


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_descriptor_makes_niches_and_its_name_is_taken() -> None:
    @register("brightness")
    def brightness(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).mean(axis=1)

    with pytest.raises(ValueError, match='"brightness" is registered already'):
        register("brightness")(mirror_symmetry)
    assert DESCRIPTORS["brightness"] is brightness
    batch_evaluator = BatchEvaluator(DIRECT, fake(), 8, descriptor="brightness", edges=(127.0,))
    order = order_of(0, 16, np.full(CLASSES * 2, -np.inf))
    w = batch_evaluator(order)
    assert as_dict(order, w) == slow_winners(batch_evaluator, order)
    assert np.array_equal(w.cells % 2, brightness(w.genomes)[w.rows] >= 127.0)
