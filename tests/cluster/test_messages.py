"""Messages between a search and its workers, compared with evaluating the same orders locally."""

import pickle
from collections import deque
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evofool.ascend.surrogates import Climb, Surrogates
from evofool.cluster import messages
from evofool.cluster.messages import Lineage, Receiver, Sender, WinnersMessage, decode_winners, encode_winners
from evofool.search.archive import Archive, TurnedAway, Winners
from evofool.search.evaluate import COMPETITIONS, BatchEvaluator, Order
from evofool.search.evolve import MapElites
from genomes import CPPN, Canvas, Direct, Encoding, Genomes, Key
from tests.synthetic import fake, network

CLASSES, SIDE, BATCH, SEED = 12, 6, 8, 7
DIRECT = Direct(1, SIDE, SIDE, rate=0.2)
CROSSED = Direct(1, SIDE, SIDE, rate=0.2, crossover=0.4)
ENCODINGS: dict[str, Encoding] = {
    "direct": DIRECT,
    "crossed": CROSSED,
    "cppn": CPPN(height=SIDE, width=SIDE),
    "canvas": Canvas(1, SIDE, SIDE),
    "canvas of cosines": Canvas(1, SIDE, SIDE, cosines=3),
}
PAIR = Direct(1, 1, 2, rate=0.5, crossover=0.5)
EDGES = (0.55, 0.62, 0.7)

each_encoding = pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)


def carried(thing: Any, sizes: list[int] | None = None) -> Any:
    """What arrives at the other end of a pipe; sizes grows by its bytes."""
    data = pickle.dumps(thing, protocol=5)
    if sizes is not None:
        sizes.append(len(data))
    return pickle.loads(data)  # noqa: S301 - our own, of a moment ago


def same(here: Any, there: Any) -> None:
    """Two Winners or Orders are equal, to the byte and the dtype."""
    for name in (field.name for field in fields(here)):
        a, b = getattr(here, name), getattr(there, name)
        for x, y in zip(a, b, strict=True) if isinstance(a, TurnedAway) else [(a, b)]:
            if isinstance(x, np.ndarray):
                assert (x.dtype, x.shape) == (y.dtype, y.shape), name
                assert x.tobytes() == y.tobytes(), name
            else:
                assert x == y, name


class Far:
    """A worker and the search's side of it. Messages wait in a queue until they are taken."""

    def __init__(self, batch_evaluator: BatchEvaluator, lineage: Lineage, batch: int = BATCH) -> None:
        self.batch_evaluator, self.lineage = batch_evaluator, lineage
        self.sender = Sender(batch_evaluator.encoding, lineage)
        self.receiver = Receiver(batch_evaluator.encoding, SEED, batch)
        self.pipe: deque[tuple[Order, Any]] = deque()
        self.sizes: list[int] = []  # of order messages, in bytes
        self.answers: list[int] = []
        self.lines = self.whole = self.forgotten = 0

    def send(self, order: Order) -> None:
        message = carried(self.sender.encode(order), self.sizes)
        self.pipe.append((order, message))
        self.lines += len(message.update.ancestry)
        self.whole += len(message.update.births)
        self.forgotten += len(message.update.forget)

    def take(self) -> Winners:
        """The winners of the order that was sent first."""
        order, message = self.pipe.popleft()
        there = self.receiver.decode(message)
        assert np.array_equal(there.thresholds, order.thresholds)
        sent: WinnersMessage = carried(
            encode_winners(self.batch_evaluator.encoding, there, self.batch_evaluator(there)), self.answers
        )
        return decode_winners(self.batch_evaluator.encoding, order, sent, self.lineage)

    def agree(self) -> None:
        """The sender's record of known parents equals the worker's."""
        assert set(self.sender._known) == set(self.receiver._genomes)


class Search:
    """A search whose batches take turns at two workers; one is replaced halfway. Answers are compared with local ones."""

    def __init__(self, encoding: Encoding, batches: int, **rules: Any) -> None:
        batch_evaluator = BatchEvaluator(encoding, fake(classes=CLASSES), 5, **rules)
        self.archive = Archive(encoding, CLASSES, keep=batch_evaluator.keep)
        self.strategy = MapElites(self.archive, encoding, seed=SEED, batch=BATCH, competition=batch_evaluator.competition)
        if surrogates := batch_evaluator.surrogates:
            self.strategy.use_surrogates(0.5, 16, surrogates.costs)
        self.lineage = Lineage()
        self.workers = [Far(batch_evaluator, self.lineage), Far(batch_evaluator, self.lineage)]
        orders_in_progress: deque[tuple[Any, Far]] = deque()
        for number in range(batches):
            if number == batches // 2:
                dead, replacement = self.workers[0], Far(batch_evaluator, self.lineage)
                self.workers[0] = replacement
                orders_in_progress = deque((batch, replacement if far is dead else far) for batch, far in orders_in_progress)
                for order, _ in dead.pipe:
                    replacement.send(order)
            batch, far = self.strategy.generate()[0], self.workers[number % 2]
            far.send(batch.order)
            orders_in_progress.append((batch, far))
            while len(orders_in_progress) == 4 or (orders_in_progress and number == batches - 1):
                batch, far = orders_in_progress.popleft()
                batch.fitness.values = far.take()
                same(batch_evaluator(batch.order), batch.fitness.winners)
                self.strategy.update([batch])


def order_of(number: int, size: int, thresholds: np.ndarray, encoding: Encoding, **changes: Any) -> Order:
    """Batch 0 is random; later ones have parents whose lineage is unknown, and fathers where they are crossed."""
    key, births = Key(SEED, number), np.arange(1000, 1001 + size)
    parents: dict[str, Any] = {"mothers": np.full(size, -1), "fathers": np.full(size, -1)}
    if number:
        parents = {
            "mothers": births[np.arange(size) // 2],
            "fathers": np.where(encoding.uses_second_parent(size, key), births[1:], -1),
            "parents": dict(zip(births.tolist(), encoding.random(size + 1, Key(50, 0))[:, None], strict=True)),
        }
    return Order(key, number * size, size, thresholds, np.full((len(thresholds), 1), -1), **(parents | changes))


# --- there and back


@each_encoding
@pytest.mark.parametrize("competition", COMPETITIONS)
@pytest.mark.parametrize("rank", ["log_odds", "margin"])
@pytest.mark.parametrize("edges", [(), EDGES], ids=["one niche", "four niches"])
@pytest.mark.parametrize("keep", [1, 3])
def test_decoded_winners_equal_those_of_the_batch_evaluator(
    encoding: Encoding, competition: str, rank: str, edges: tuple[float, ...], keep: int
) -> None:
    rules: dict[str, Any] = {"descriptor": "mirror_symmetry" if edges else None, "edges": edges, "keep": keep}
    batch_evaluator = BatchEvaluator(encoding, fake(classes=CLASSES), 5, rank, competition, **rules)
    cells, size = CLASSES * batch_evaluator.niches, 16
    claims = np.arange(size) % CLASSES if competition == "per-class" else None
    empty = np.full(cells, -np.inf)
    mixed = np.where(np.random.default_rng(3).random(cells) < 0.5, -np.inf, 0.0)
    far = Far(batch_evaluator, Lineage())
    won = []
    for number, thresholds in ((0, empty), (1, empty), (1, mixed), (2, np.full(cells, 1e9)), (2, empty)):
        whole = order_of(number, size, thresholds, encoding, claims=claims)
        for begin, end in ((0, size), (0, 3), (3, 4), (4, size)):
            order = whole.cut(begin, end)
            far.send(order)
            here, there = batch_evaluator(order), far.take()
            same(here, there)
            won.append(len(here.cells))
    far.agree()
    assert sum(won) > 20
    assert 0 in won


@each_encoding
def test_a_decoded_order_equals_the_encoded_one_without_incumbents(encoding: Encoding) -> None:
    sender, receiver = Sender(encoding, Lineage()), Receiver(encoding, SEED, 16)
    for number in (0, 1, 2):
        whole = order_of(number, 16, np.arange(5.0) + number, encoding, claims=np.arange(16) % 5)
        for order in (whole, whole.cut(3, 11)):
            there = receiver.decode(carried(sender.encode(order)))
            same(replace(order, parents={}, incumbents=there.incumbents), replace(there, parents={}))
            assert set(there.parents) == {*order.mothers.tolist(), *order.fathers.tolist()} - {-1}
            for birth, genome in there.parents.items():
                assert (genome.shape, genome.tobytes()) == (order.parents[birth].shape, order.parents[birth].tobytes())


@pytest.mark.parametrize("name", ["crossed", "canvas", "canvas of cosines"])
def test_winners_that_climbed_are_sent_whole_both_ways(name: str) -> None:
    encoding, labels = ENCODINGS[name], [f"class {c}" for c in range(CLASSES)]
    target = fake(classes=CLASSES)
    surrogates = Surrogates([network(1, (1, SIDE, SIDE), labels)], target, encoding, Climb(2))
    search = Search(encoding, 40, surrogates=surrogates, keep=2)
    assert search.strategy.climbed > 100
    assert search.strategy.passes == 2 * search.strategy.climbed
    made = {offspring.birth: offspring.steps for offspring in search.strategy.offspring}
    assert search.strategy.methods
    for birth in search.strategy.methods:
        assert birth not in search.lineage
        assert made[birth] == 0
    assert search.lineage.keys() & made.keys() == made.keys() - search.strategy.methods.keys()
    assert search.workers[1].whole


def test_scores_that_are_ranked_by_are_sent_once() -> None:
    for rank, absent, present in (("log_odds", "log_odds", "margins"), ("margin", "margins", "log_odds")):
        batch_evaluator = BatchEvaluator(DIRECT, fake(classes=CLASSES), 5, rank)
        order = order_of(0, 16, np.full(CLASSES, -np.inf), DIRECT)
        sent = encode_winners(DIRECT, order, batch_evaluator(order))
        assert getattr(sent, absent) is None
        assert getattr(sent, present) is not None


def test_broken_rows_are_sent_with_the_winners() -> None:
    order = order_of(0, 16, np.full(CLASSES, -np.inf), DIRECT)
    aside = [(3, "broke"), (7, "hung")]
    assert carried(encode_winners(DIRECT, order, BatchEvaluator(DIRECT, fake(classes=CLASSES), 5)(order), aside)).broken == (
        (3, "broke"),
        (7, "hung"),
    )


# --- thresholds


def test_thresholds_are_sent_as_changes_or_in_full_if_most_have_changed() -> None:
    sender, receiver = Sender(DIRECT, Lineage()), Receiver(DIRECT, SEED, BATCH)
    steps: list[tuple[dict[int, float], list[int] | None]] = [
        ({}, None),
        ({}, []),
        ({3: 1.5}, [3]),
        ({0: -2.0, 3: 2.5, 5: 0.25}, [0, 3, 5]),
        ({0: 1.0, 1: 1.0, 2: 1.0, 3: 3.0}, None),
        ({0: 1.0}, []),
        ({5: -np.inf}, [5]),
    ]
    thresholds = np.full(6, -np.inf)
    before: list[tuple[np.ndarray, list[float]]] = []
    for changes, cells in steps:
        thresholds = thresholds.copy()
        thresholds[list(changes)] = list(changes.values())
        kept = thresholds.tolist()
        message = sender.encode(order_of(0, BATCH, thresholds, DIRECT))
        assert (None if message.cells is None else message.cells.tolist()) == cells
        assert len(message.thresholds) == (6 if cells is None else len(cells))
        assert receiver.decode(message).thresholds.tolist() == kept
        before.append((thresholds, kept))
        assert all(own.tolist() == then for own, then in before), "the search's arrays are not changed"


@given(st.lists(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=4, max_size=4), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_worker_has_the_thresholds_of_every_order(levels: list[list[float]]) -> None:
    sender, receiver = Sender(DIRECT, Lineage()), Receiver(DIRECT, SEED, BATCH)
    for thresholds in levels:
        assert receiver.decode(sender.encode(order_of(0, 1, np.array(thresholds), DIRECT))).thresholds.tolist() == thresholds


# --- long searches


@each_encoding
def test_three_hundred_batches_by_changing_workers_equal_local_ones(encoding: Encoding) -> None:
    search = Search(encoding, 300)
    assert search.strategy.committed == 300
    assert search.strategy.wins > 50
    for far in search.workers:
        far.agree()
        assert far.lines > 20
    assert search.workers[1].whole == 0, "a worker that was there from the beginning makes every parent itself"
    assert search.workers[1].forgotten == 0


@pytest.mark.parametrize(("competition", "rank"), [("per-class", "log_odds"), ("argmax", "margin"), ("per-class", "margin")])
def test_searches_with_other_settings_equal_local_ones(competition: str, rank: str) -> None:
    search = Search(CROSSED, 60, competition=competition, rank=rank)
    assert search.strategy.wins > 10
    for far in search.workers:
        far.agree()


@each_encoding
@pytest.mark.parametrize(
    ("genomes", "longest", "remembered"),
    [(3, 64, 1 << 18), (1 << 20, 1, 1 << 18), (1 << 20, 64, 5), (0, 2, 9)],
    ids=["little room", "short lines", "short memory", "all of them"],
)
def test_small_caches_and_short_ancestries_give_the_same_winners(
    monkeypatch: pytest.MonkeyPatch, encoding: Encoding, genomes: int, longest: int, remembered: int
) -> None:
    monkeypatch.setattr(messages, "_CACHE_BYTES", genomes * encoding.dtype.itemsize * int(np.prod(encoding.shape)))
    monkeypatch.setattr(messages, "_MAX_ANCESTORS", longest)
    monkeypatch.setattr(messages, "_MAX_LINEAGE", remembered)
    search = Search(encoding, 100)
    assert search.strategy.wins > 30
    assert len(search.lineage) <= remembered
    for far in search.workers:
        far.agree()
        assert far.lines > 0
        assert len(far.receiver._genomes) <= genomes + 2 * BATCH
        assert (far.forgotten > 0) == (genomes < 10)
    if longest < 64 or remembered < 10:
        assert sum(far.whole for far in search.workers) > 3


def test_genomes_of_150_kilobytes_cost_less_than_one_kilobyte_per_evaluation() -> None:
    encoding = Direct(3, 224, 224, rate=0.001)
    weights = np.random.default_rng(9).integers(-8, 9, (3 * 14, 1000))

    def forward(images: np.ndarray) -> np.ndarray:
        stripes = images.reshape(len(images), 3 * 14, -1).sum(axis=2, dtype=np.int64)
        return (stripes @ weights / 65536.0).astype(np.float32)

    batch_evaluator = BatchEvaluator(encoding, fake(forward, (3, 224, 224), 1000), 16)
    strategy = MapElites(Archive(encoding, 1000), encoding, seed=SEED, batch=16)
    lineage = Lineage()
    far, late = (Far(batch_evaluator, lineage, 16) for _ in range(2))
    for _ in range(25):
        batch = strategy.generate()[0]
        far.send(batch.order)
        batch.fitness.values = far.take()
        strategy.update([batch])
    assert len(encoding.pack(strategy.archive.genomes(np.array([0]))[0])) == 150_528
    assert strategy.wins > 1000
    assert far.whole == 0
    # The first answer has a score for every class, the second message a threshold.
    assert max(far.sizes[2:]) < 16 * 1000
    assert max(far.answers[2:]) < 16 * 1000
    order = strategy.order()
    late.send(order)
    assert late.lines > 16
    assert late.sizes[0] < 16 * 1000, "a new worker is sent the ancestry of parents that it lacks"
    same(batch_evaluator(order), late.take())


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_least_recently_used_parents_are_forgotten_first(asked: list[list[int]]) -> None:
    genomes = {birth: PAIR.random(1, Key(60, birth)) for birth in range(10)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "_CACHE_BYTES", 4 * 2)
        sender = Sender(PAIR, Lineage())
    for births in asked:
        sender.update(births, genomes)
    flat = [birth for births in asked for birth in births]
    assert set(sender._known) == set(list(dict.fromkeys(reversed(flat)))[:4])


# --- lineage


@each_encoding
def test_elites_can_be_made_again_from_their_lineage(monkeypatch: pytest.MonkeyPatch, encoding: Encoding) -> None:
    search = Search(encoding, 100)
    monkeypatch.setattr(messages, "_MAX_ANCESTORS", 1 << 20)
    births = sorted(set(search.archive.birth.tolist()), reverse=True)
    sender, receiver = Sender(encoding, search.lineage), Receiver(encoding, SEED, BATCH)
    update = carried(sender.update(births, {}))
    made = receiver.apply(update, births)
    elites = search.archive.of_births(births)
    assert list(made) == births
    assert [made[birth].tobytes() for birth in births] == [elites[birth].tobytes() for birth in births]
    seen = {-1}
    for birth, mother, father in update.ancestry.tolist():
        assert {mother, father} <= seen, "parents come first"
        assert birth not in seen, "none is made twice"
        seen.add(birth)
    assert len(seen) - 1 > len(births)
    assert sender.update(births, {}).ancestry.tolist() == [], "known parents are not sent again"


def chain(encoding: Encoding, length: int) -> tuple[Lineage, list[Genomes]]:
    """The lineage of a random genome, born first, and its line of that many genomes."""
    lineage: Lineage = Lineage()
    genomes: list[Genomes] = []
    for birth in range(length):
        key = Key(SEED, birth // BATCH, birth % BATCH)
        lineage[birth] = (birth - 1, -1)
        genomes.append(encoding.vary(genomes[-1], genomes[-1], key) if genomes else encoding.random(1, key))
    return lineage, genomes


@each_encoding
@pytest.mark.parametrize("longest", [1, 3, 64])
def test_a_parent_with_a_long_ancestry_is_sent_as_a_genome(
    monkeypatch: pytest.MonkeyPatch, encoding: Encoding, longest: int
) -> None:
    monkeypatch.setattr(messages, "_MAX_ANCESTORS", longest)
    lineage, genomes = chain(encoding, 2 * longest + 3)
    all_genomes = dict(enumerate(genomes))
    sender, receiver = Sender(encoding, lineage), Receiver(encoding, SEED, BATCH)
    lines, wholes = [], []
    for birth in (longest - 1, 2 * longest, longest, 2 * longest + 2):
        update = carried(sender.update([birth], all_genomes))
        assert receiver.apply(update, [birth])[birth].tobytes() == genomes[birth].tobytes()
        lines.append(len(update.ancestry))
        wholes.append(update.births)
    assert lines == [longest, 0, 1, 2 if longest > 1 else 0]
    assert wholes == [(), (2 * longest,), (), () if longest > 1 else (2 * longest + 2,)]


def test_the_lineage_keeps_the_last_winners_with_both_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_evaluator = BatchEvaluator(CROSSED, fake(classes=CLASSES), 5)
    order = order_of(1, 16, np.full(CLASSES, -np.inf), CROSSED)
    w = batch_evaluator(order)
    births = w.births.tolist()
    parents = dict(zip(births, zip(w.mothers.tolist(), w.fathers.tolist(), strict=True), strict=True))
    assert len(births) > 3
    assert {father < 0 for _, father in parents.values()} == {True, False}
    lineage: Lineage = Lineage({-5: (-1, -1)})
    decode_winners(CROSSED, order, encode_winners(CROSSED, order, w), lineage)
    assert lineage == {-5: (-1, -1)} | parents
    monkeypatch.setattr(messages, "_MAX_LINEAGE", 3)
    lineage = Lineage({-5: (-1, -1)})
    decode_winners(CROSSED, order, encode_winners(CROSSED, order, w), lineage)
    assert list(lineage) == births[-3:]


# --- births without an order


@each_encoding
def test_updates_can_be_sent_between_orders(encoding: Encoding) -> None:
    batch_evaluator = BatchEvaluator(encoding, fake(classes=CLASSES), 5)
    whole = order_of(1, 16, np.full(CLASSES, -np.inf), encoding)
    others = {birth: encoding.random(1, Key(60, birth)) for birth in (900, 901)}
    lineage: Lineage = Lineage()
    far = Far(batch_evaluator, lineage)
    far.send(order_of(0, BATCH, np.full(CLASSES, -np.inf), encoding))
    first = far.take()
    far.send(whole.cut(0, 4))
    far.take()
    all_genomes = {**others, **whole.parents}
    all_genomes |= {birth: first.genomes[i : i + 1] for i, birth in enumerate(first.births.tolist())}
    known = set(far.receiver._genomes)
    asked = [900, 1001, 901, 1009, *first.births.tolist()]
    update = carried(far.sender.update(asked, all_genomes))
    made = far.receiver.apply(update, asked)
    assert list(made) == list(dict.fromkeys(asked))
    for birth, genome in made.items():
        assert (genome.shape, genome.tobytes()) == ((1, *encoding.shape), all_genomes[birth].tobytes())
    assert set(update.births) == {900, 901, 1009}, "1001 is known, and winners of the first batch are in the lineage"
    assert set(update.ancestry[:, 0].tolist()) == set(first.births.tolist()) - known
    far.send(whole)
    same(batch_evaluator(whole), far.take())
    far.agree()


@st.composite
def families(draw: Any) -> list[tuple[int, int]]:
    """By birth the (mother, father): each was born before, or is -1, a father only with a mother."""
    parents: list[tuple[int, int]] = []
    for birth in range(draw(st.integers(1, 16))):
        mother = draw(st.integers(-1, birth - 1))
        parents.append((mother, draw(st.integers(-1, birth - 1)) if mother >= 0 else -1))
    return parents


@given(families(), st.integers(0, 6), st.integers(0, 5), st.data())
@settings(max_examples=80, deadline=None)
def test_a_worker_has_the_right_genomes_after_any_updates(
    parents: list[tuple[int, int]], longest: int, room: int, data: st.DataObject
) -> None:
    born: dict[int, Genomes] = {}
    for birth, (mother, father) in enumerate(parents):
        key = Key(SEED, birth // BATCH, birth % BATCH)
        of = (born[mother], born[father if father >= 0 else mother]) if mother >= 0 else ()
        born[birth] = PAIR.vary(*of, key) if of else PAIR.random(1, key)
    lost = data.draw(st.sets(st.sampled_from(range(len(parents)))))
    asked: Sequence[list[int]] = data.draw(
        st.lists(st.lists(st.sampled_from(range(len(parents))), min_size=1, max_size=5), max_size=6)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "_MAX_ANCESTORS", longest)
        patch.setattr(messages, "_CACHE_BYTES", room * 2)
        sender = Sender(PAIR, Lineage((birth, of) for birth, of in enumerate(parents) if birth not in lost))
        receiver = Receiver(PAIR, SEED, BATCH)
        for births in asked:
            update = sender.update(births, born)
            made = receiver.apply(update, births)
            assert {birth: genome.tobytes() for birth, genome in made.items()} == {b: born[b].tobytes() for b in births}
            assert len(update.ancestry) <= longest * len(set(births))
            assert lost.isdisjoint(update.ancestry[:, 0].tolist())
            assert set(sender._known) == set(receiver._genomes)
            assert set(births) <= set(receiver._genomes)
            assert len(receiver._genomes) <= room + len(set(births))
            assert all(receiver._genomes[b].tobytes() == born[b].tobytes() for b in receiver._genomes)
