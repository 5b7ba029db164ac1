"""The search in DEAP's idiom: against a loop without DEAP, DEAP's own algorithm, and what a champion's record must hold."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from deap import algorithms, base, tools

from evofool.descriptors import bins, mirror_symmetry
from evofool.scores import confidence, log_odds
from evofool.search.archive import Archive
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.search.evolve import Batch, Callbacks, MapElites, ea_map_elites, new_logbook, statistics, toolbox
from evofool.search.local_evaluator import LocalEvaluator
from evofool.search.per_individual import PerIndividual
from genomes import CPPN, Direct, Encoding, Key
from tests.synthetic import CLASSES, SIDE, fake, linear

DIRECT = Direct(1, SIDE, SIDE, rate=0.1)
GRAPHS = CPPN(height=SIDE, width=SIDE)
EDGES = (0.6, 0.68)


class Search:
    """A strategy, its evaluator of batches and DEAP's toolbox over both."""

    def __init__(
        self, encoding: Encoding = DIRECT, *, seed: int = 3, batch: int = 8, competition: str = "all",
        rank: str = "log_odds", edges: tuple[float, ...] = (), forward: Callable[[np.ndarray], np.ndarray] = linear,
        random: int = 0, keep: int = 1,
    ) -> None:  # fmt: skip
        target = fake(forward)
        descriptor = "mirror_symmetry" if edges else None
        self.batch_evaluator = BatchEvaluator(encoding, target, 3, rank, competition, descriptor, edges, keep=keep)
        self.archive = Archive(encoding, CLASSES, self.batch_evaluator.niches, keep)
        self.strategy = MapElites(self.archive, encoding, seed=seed, batch=batch, competition=competition, random=random)
        self.evaluator = LocalEvaluator(self.batch_evaluator)
        self.toolbox: base.Toolbox = toolbox(self.strategy, self.batch_evaluator, self.evaluator)

    def state(self) -> tuple[Any, ...]:
        a = self.archive
        held = np.flatnonzero(a.birth >= 0)
        packed = tuple(self.strategy.encoding.pack(g) for g in a.genomes(held))
        return (*(tuple(v.ravel().tolist()) for v in (a.births, a.scores, a.log_odds, a.margin)), packed)


def watched(search: Search) -> tuple[list[Order], list[int], list[np.ndarray]]:
    """Notes every order, how many batches the archive held when it was drawn, and the cells' lists after each batch."""
    orders: list[Order] = []
    committed: list[int] = []
    incumbents = [search.archive.births.copy()]
    generate, update = search.toolbox.generate, search.toolbox.update

    def noting_generate() -> list[Batch]:
        committed.append(search.strategy.committed)
        population = generate()
        orders.append(population[0].order)
        return population

    def noting_update(population: list[Batch]) -> None:
        update(population)
        incumbents.append(search.archive.births.copy())

    search.toolbox.register("generate", noting_generate)
    search.toolbox.register("update", noting_update)
    return orders, committed, incumbents


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("encoding", [DIRECT, GRAPHS], ids=lambda e: e.name)
@pytest.mark.parametrize("keep", [1, 3])
def test_batch_k_draws_its_parents_from_the_archive_after_batch_k_less_1_less_lag(
    encoding: Encoding, lag: int, keep: int
) -> None:
    search = Search(encoding, keep=keep)
    orders, committed, incumbents = watched(search)
    ea_map_elites(search.toolbox, 30, lag=lag)
    assert [order.batch for order in orders] == list(range(30 + lag))
    assert committed == [max(0, k - lag) for k in range(30 + lag)]
    for k, order in enumerate(orders):
        seen = incumbents[max(0, k - lag)]
        assert np.array_equal(order.incumbents, seen)
        if k <= lag:
            assert not order.parents
            assert set(order.mothers) == set(order.fathers) == {-1}
        else:
            assert set(order.mothers.tolist()) <= set(seen.ravel().tolist()) - {-1}
            assert set(order.fathers.tolist()) <= set(seen.ravel().tolist()) | {-1}
            assert set(order.parents) == {*order.mothers.tolist(), *order.fathers.tolist()} - {-1}
        assert order.drawn_after == max(0, k - lag)
    assert [order.batch for order in search.evaluator.pending()] == list(range(30, 30 + lag))


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("competition", ["all", "argmax", "per-class"])
@pytest.mark.parametrize("keep", [1, 3])
def test_the_archive_is_that_of_a_loop_without_deap(competition: str, lag: int, keep: int) -> None:
    search = Search(competition=competition, edges=EDGES, keep=keep)
    ea_map_elites(search.toolbox, 25, lag=lag)
    plain = Search(competition=competition, edges=EDGES, keep=keep)
    waiting = [plain.strategy.order() for _ in range(lag + 1)]
    for _ in range(25):
        order = waiting.pop(0)
        plain.archive.add(plain.batch_evaluator(order))
        waiting.append(plain.strategy.order())
    assert search.state() == plain.state()


@pytest.mark.parametrize(("random", "batches"), [(0, 2), (16, 2), (17, 3), (40, 5)])
def test_the_first_images_are_random_in_whole_batches(random: int, batches: int) -> None:
    search = Search(random=random)
    orders, _, _ = watched(search)
    ea_map_elites(search.toolbox, 10, lag=1)
    assert [bool(order.mothers[0] < 0) for order in orders] == [k < batches for k in range(11)]


def test_each_lag_and_each_seed_is_a_search_of_its_own() -> None:
    ends = []
    for seed, lag in ((3, 0), (3, 1), (3, 3), (4, 0)):
        search = Search(seed=seed)
        ea_map_elites(search.toolbox, 20, lag=lag)
        ends.append(search.state())
    assert len(set(ends)) == 4


@pytest.mark.parametrize("encoding", [DIRECT, GRAPHS], ids=lambda e: e.name)
@pytest.mark.parametrize("competition", ["all", "per-class"])
def test_deap_s_own_algorithm_drives_the_same_toolbox_to_the_same_archive(encoding: Encoding, competition: str) -> None:
    ours, stock = (Search(encoding, competition=competition) for _ in range(2))
    population, book = ea_map_elites(ours.toolbox, 25, statistics())
    stock_population, stock_book = algorithms.eaGenerateUpdate(stock.toolbox, 25, stats=statistics(), verbose=False)
    assert ours.state() == stock.state()
    assert ours.strategy.cell_history == stock.strategy.cell_history
    assert [b.birth for b in ours.strategy.offspring] == [b.birth for b in stock.strategy.offspring]
    assert population[0].fitness.values == stock_population[0].fitness.values
    for name in statistics().fields:
        assert book.select(name) == stock_book.select(name)


def test_a_search_cut_in_two_is_the_search_in_one_go() -> None:
    for lag in (0, 2):
        whole, parts = Search(), Search()
        _, book = ea_map_elites(whole.toolbox, 17, statistics(), lag=lag)
        cut = None
        for n in (1, 6, 10):
            _, cut = ea_map_elites(parts.toolbox, n, statistics(), lag=lag, logbook=cut)
        assert parts.state() == whole.state()
        assert list(cut) == list(book)


def test_a_search_of_no_generations_does_nothing_as_in_deap() -> None:
    search = Search()

    def too_far(gen: int) -> bool:
        return gen > 3

    ea_map_elites(search.toolbox, 0, callbacks=Callbacks(after=too_far))
    assert search.strategy.committed == 0


def test_after_ends_the_search_and_record_chooses_the_rows() -> None:
    search = Search()
    ended: list[int] = []

    def after(gen: int) -> bool:
        ended.append(gen)
        return gen == 11

    population, book = ea_map_elites(
        search.toolbox,
        1000,
        statistics(),
        callbacks=Callbacks(lambda gen: gen % 5 == 0, after),
        logbook=new_logbook(statistics()),
    )
    assert ended == list(range(12))
    assert book.select("gen") == [0, 5, 10]
    assert population[0].order.batch == 11
    assert search.strategy.committed == 12


# --- DEAP's furniture


def test_the_logbook_s_rows_are_the_archive_s_state_after_each_batch() -> None:
    search = Search()
    expected: list[dict[str, Any]] = []
    wins = switches = 0

    def after(gen: int) -> bool:
        nonlocal wins, switches
        a, s = search.archive, search.strategy
        p = np.array([confidence(v) for v in a.log_odds.tolist()])
        later = [r for r in s.cell_history if r.batch == gen]
        first = {r.cell: r.birth for r in reversed(s.cell_history)}
        wins += sum(r.birth != first[r.cell] for r in later)
        switches += sum(r.switched for r in later)
        expected.append(
            {
                "gen": gen, "nevals": 8, "evaluations": 8 * (gen + 1), "median": float(np.median(p)), "min": float(p.min()),
                "q25": float(np.quantile(p, 0.25)), "q75": float(np.quantile(p, 0.75)), "at_99": int((p >= 0.99).sum()),
                "at_9999": int((p >= 0.9999).sum()), "distinct": len(set(a.birth.tolist()) - {-1}), "wins": wins,
                "switches": switches,
            }
        )  # fmt: skip
        return False

    _, book = ea_map_elites(search.toolbox, 60, statistics(), callbacks=Callbacks(after=after))
    assert list(book) == expected
    assert wins == search.strategy.wins > 0
    assert book[-1]["at_99"] > book[0]["at_99"]


def test_the_logbook_has_deap_s_columns_then_those_of_the_statistics() -> None:
    _, book = ea_map_elites(Search().toolbox, 2, statistics())
    assert book.header == ["gen", "nevals", *statistics().fields]
    assert statistics().fields == [
        "evaluations", "median", "q25", "q75", "min", "at_99", "at_9999", "distinct", "wins", "switches"
    ]  # fmt: skip
    assert book.stream.split()[:3] == ["gen", "nevals", "evaluations"]
    assert new_logbook().header == ["gen", "nevals"]


def test_verbose_prints_the_stream_as_deap_does(capsys: pytest.CaptureFixture[str]) -> None:
    ea_map_elites(Search().toolbox, 3, statistics(), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["gen", "nevals"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2"]


def test_a_user_s_own_statistics_and_hall_of_fame_work() -> None:
    stats = tools.Statistics(key=lambda batch: batch.fitness.values[0])
    stats.register("most", max)
    fame = tools.HallOfFame(2)
    search = Search()
    seen: list[float] = []
    toolbox_update = search.toolbox.update

    def update(population: list[Batch]) -> None:
        seen.append(population[0].fitness.values[0])
        toolbox_update(population)

    search.toolbox.register("update", update)
    _, book = ea_map_elites(search.toolbox, 12, stats, fame)
    assert book.select("most") == seen
    assert [batch.fitness.wvalues[0] for batch in fame] == sorted(seen, reverse=True)[:2]


def test_an_unevaluated_brood_cannot_be_committed() -> None:
    search = Search()
    population = search.toolbox.generate()
    assert not population[0].fitness.valid
    with pytest.raises(ValueError, match="batch 0 has not been evaluated"):
        search.toolbox.update(population)
    population[0].fitness.values = search.toolbox.evaluate(population[0])
    assert population[0].fitness.valid
    assert len(population[0]) == 8
    search.toolbox.update(population)
    assert len(search.archive) == CLASSES


# --- descent


def grown(
    competition: str = "all", lag: int = 0, edges: tuple[float, ...] = (), batches: int = 60, **more: Any
) -> tuple[Search, Any]:
    search = Search(competition=competition, edges=edges, **more)
    notes = watched(search)
    ea_map_elites(search.toolbox, batches, lag=lag)
    return search, notes


@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("edges", [(), EDGES], ids=["one niche", "three niches"])
def test_every_champion_s_parents_are_earlier_champions(lag: int, edges: tuple[float, ...]) -> None:
    search, (orders, _, _) = grown(lag=lag, edges=edges)
    known: dict[int, int] = {}
    descended = 0
    for child in search.strategy.offspring:
        assert child.birth // 8 == child.batch
        assert child.birth not in known
        order = orders[child.batch]
        assert (child.mother, child.father) == (order.mothers[child.birth % 8], -1), (
            "pixels that are not crossed have no father"
        )
        for parent in (child.mother,):
            if child.batch <= lag:
                assert parent == -1
            else:
                assert known[parent] < child.batch - lag
                descended += 1
        known[child.birth] = child.batch
    assert descended > 20
    assert {change.birth for change in search.strategy.cell_history} == set(known)


def test_a_champion_s_genome_is_made_again_from_its_parents_and_its_key() -> None:
    for encoding in (DIRECT, replace(DIRECT, crossover=0.5), GRAPHS):
        search = Search(encoding)
        ea_map_elites(search.toolbox, 30)
        fathers = {b.father >= 0 for b in search.strategy.offspring if b.mother >= 0}
        assert fathers == ({True, False} if encoding.name == "direct" and encoding.crossover else {False})
        genome = {b.birth: encoding.unpack([b.genome]) for b in search.strategy.offspring}
        for b in search.strategy.offspring:
            key = Key(3, b.batch, b.birth % 8)
            father = b.father if b.father >= 0 else b.mother
            child = encoding.random(1, key) if b.mother < 0 else encoding.vary(genome[b.mother], genome[father], key)
            assert encoding.pack(child[0]) == b.genome


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("keep", [1, 3])
def test_a_goal_switch_is_a_win_over_an_elite_in_whose_list_neither_parent_was(lag: int, keep: int) -> None:
    search, (orders, _, incumbents) = grown(lag=lag, edges=EDGES, keep=keep)
    parents = {b.birth: {b.mother, b.father} - {-1} for b in search.strategy.offspring}
    kinds = set()
    for change in search.strategy.cell_history:
        before = incumbents[max(0, change.batch - lag)][change.cell].tolist()
        switched = before[0] >= 0 and bool(parents[change.birth]) and parents[change.birth].isdisjoint(before)
        assert change.switched == switched
        assert orders[change.batch].incumbents[change.cell].tolist() == before
        kinds.add(switched)
    assert kinds == {True, False}
    assert search.strategy.switches == sum(r.switched for r in search.strategy.cell_history)
    first = {r.cell for r in search.strategy.cell_history}
    assert search.strategy.wins == len(search.strategy.cell_history) - len(first)


def test_the_reigns_replayed_end_in_the_archive() -> None:
    search, _ = grown(edges=EDGES)
    last = {r.cell: (r.birth, r.log_odds, r.margin) for r in search.strategy.cell_history}
    a = search.archive
    held = np.flatnonzero(a.birth >= 0).tolist()
    assert sorted(last) == held
    assert last == {c: (int(a.birth[c]), float(a.log_odds[c]), float(a.margin[c])) for c in held}
    assert search.strategy.last_progress == search.strategy.cell_history[-1].batch


@pytest.mark.parametrize("rank", ["log_odds", "margin"])
def test_the_lists_are_the_best_of_all_elites_and_runners_up(rank: str) -> None:
    search, (_, _, lists) = grown(edges=EDGES, rank=rank, keep=3, batches=90)
    s, a = search.strategy, search.archive
    entries: dict[int, list[tuple[float, int]]] = {}
    for entry in (*s.cell_history, *s.runners_up):
        entries.setdefault(entry.cell, []).append((-getattr(entry, rank), entry.birth))
    for cell, of in entries.items():
        assert len({birth for _, birth in of}) == len(of), "a genome enters a list once"
        assert [birth for _, birth in sorted(of)[:3]] == [birth for birth in a.births[cell].tolist() if birth >= 0]
    assert {birth for of in entries.values() for _, birth in of} == {b.birth for b in s.offspring}
    # New in a list is what it has after a batch and had not before; a new elite is what came to the first place.
    for batch in range(s.committed):
        before, after = lists[batch], lists[batch + 1]
        new = {(c, b) for c, of in enumerate(after.tolist()) for b in of if b >= 0 and b not in before[c]}
        elites = {(c, int(after[c, 0])) for c in np.flatnonzero(before[:, 0] != after[:, 0])}
        assert {(r.cell, r.birth) for r in s.cell_history if r.batch == batch} == elites
        assert {(r.cell, r.birth) for r in s.runners_up if r.batch == batch} == new - elites
    assert len(s.runners_up) > 50
    assert s.last_progress == s.cell_history[-1].batch


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("keep", [1, 3])
def test_the_lists_are_the_best_of_all_images_that_were_evaluated(lag: int, keep: int) -> None:
    search, (orders, _, _) = grown(lag=lag, edges=EDGES, keep=keep)
    seen: dict[int, list[tuple[float, int]]] = {}
    for order in orders[: search.strategy.committed]:
        images = DIRECT.render(search.batch_evaluator.children(order, 0, order.size))
        niche = bins(mirror_symmetry(images), EDGES)
        for row, odds in enumerate(log_odds(linear(images))):
            for c in range(CLASSES):
                claim = (-float(odds[c]), order.first_birth + row)
                seen.setdefault(c * search.archive.niches + int(niche[row]), []).append(claim)
    for cell, births in enumerate(search.archive.births.tolist()):
        best = [birth for _, birth in sorted(seen.get(cell, []))[:keep]]
        assert births == best + [-1] * (keep - len(best))


def test_an_archive_of_one_genome_a_cell_has_no_runners_up() -> None:
    search, _ = grown()
    assert search.strategy.runners_up == []


@pytest.mark.parametrize("competition", ["all", "per-class"])
@pytest.mark.parametrize("lag", [0, 2])
def test_both_parents_are_of_one_list_as_it_was_when_they_were_drawn(competition: str, lag: int) -> None:
    encoding = replace(DIRECT, crossover=0.5)
    _, (orders, _, lists) = grown(competition, lag, keep=4, encoding=encoding, batches=90)
    with_father = 0
    for order in orders:
        if order.mothers[0] < 0:
            continue
        seen = lists[order.drawn_after]
        drawn = encoding.uses_second_parent(order.size, order.key)
        for i, (mother, father) in enumerate(zip(order.mothers.tolist(), order.fathers.tolist(), strict=True)):
            homes = [set(of) - {-1} for of in seen.tolist() if mother in of]
            if order.claims is not None:
                assert mother in seen[order.claims[i]]
            if father >= 0:
                assert father != mother
                assert any(father in home for home in homes)
                with_father += 1
            else:
                assert not drawn[i] or any(home == {mother} for home in homes)
    assert with_father > 100


@pytest.mark.parametrize("edges", [(), EDGES], ids=["one niche", "three niches"])
@pytest.mark.parametrize("lag", [0, 2])
def test_climbers_of_their_own_share_nothing_between_classes(edges: tuple[float, ...], lag: int) -> None:
    search, (orders, _, _) = grown("per-class", lag, edges, batches=120)
    made_for = lambda birth: birth % CLASSES  # noqa: E731 - the classes take turns over births
    for order in orders:
        assert order.claims is not None
        assert order.claims.tolist() == [made_for(order.first_birth + i) for i in range(order.size)]
    descended = 0
    for child in search.strategy.offspring:
        for parent in (child.mother, child.father):
            assert parent == -1 or made_for(parent) == made_for(child.birth)
            descended += parent >= 0
    assert descended > 50
    for change in search.strategy.cell_history:
        assert change.cell // search.batch_evaluator.niches == made_for(change.birth)
    if not edges:
        assert search.strategy.switches == 0


def test_a_climber_of_its_own_does_not_notice_what_the_others_climb() -> None:
    ends, others = [], []
    for places in ([0, 1, 2, 3, 4], [3, 2, 0, 1, 4]):  # the other classes' logits change places: 4 keeps its margins
        search = Search(competition="per-class", rank="margin", forward=lambda x, places=places: linear(x)[:, places])
        ea_map_elites(search.toolbox, 80)
        ends.append([(r.birth, r.margin) for r in search.strategy.cell_history if r.cell == 4])
        others.append([(r.birth, r.margin) for r in search.strategy.cell_history if r.cell != 4])
    assert ends[0] == ends[1]
    assert len(ends[0]) > 10
    assert others[0] != others[1]


# --- users' operators


def flip_first(individual: Any) -> tuple[Any]:
    individual[0] = 255 - individual[0]
    return (individual,)


def deap_encoding() -> PerIndividual:
    box = base.Toolbox()
    box.register("mutate", tools.mutPolynomialBounded, eta=5.0, low=0.0, up=255.0, indpb=0.3)
    box.register("mate", tools.cxSimulatedBinaryBounded, eta=5.0, low=0.0, up=255.0)
    return PerIndividual(DIRECT, box.mutate, box.mate)


def test_a_user_s_deap_operators_are_keyed_by_seed_batch_and_row() -> None:
    encoding = deap_encoding()
    mothers, fathers = DIRECT.random(6, Key(0, 0)), DIRECT.random(6, Key(0, 1))
    whole = encoding.vary(mothers, fathers, Key(1, 2))
    assert whole.shape == mothers.shape
    assert whole.dtype == np.uint8
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 - what DEAP's operators draw from must not matter
    parts = [encoding.vary(mothers[a:b], fathers[a:b], Key(1, 2).at(a)) for a, b in ((0, 1), (1, 4), (4, 6))]
    assert np.array_equal(whole, np.concatenate(parts))
    for other in (Key(1, 3), Key(2, 2), Key(1, 2, 1)):
        assert not np.array_equal(whole, encoding.vary(mothers, fathers, other))
    assert not np.array_equal(whole, mothers)


def test_a_user_s_operators_leave_the_global_generators_as_they_were() -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = [random.random(), np.random.random()]  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    encoding = deap_encoding()
    parents = DIRECT.random(3, Key(0, 0))
    encoding.vary(parents, parents, Key(1, 2))

    def breaks(individual: Any) -> tuple[Any]:
        random.random()
        np.random.random()  # noqa: NPY002
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        PerIndividual(DIRECT, mutate=breaks).vary(parents, parents, Key(1, 2))
    assert [random.random(), np.random.random()] == expected  # noqa: NPY002


def test_a_user_s_operators_change_copies_and_are_rounded_and_clipped() -> None:
    parents = DIRECT.random(2, Key(0, 0))
    before = parents.copy()
    child = PerIndividual(DIRECT, mutate=flip_first).vary(parents, parents, Key(1, 2))
    expected = before.copy()
    expected[:, 0, 0, 0] = 255 - before[:, 0, 0, 0]
    assert np.array_equal(child, expected)
    assert np.array_equal(parents, before)
    wild = PerIndividual(DIRECT, mutate=lambda x: ([-3.0, 300.0, 7.4, 7.6, *x[4:]],))
    assert wild.vary(parents, parents, Key(1, 2)).reshape(2, -1)[:, :4].tolist() == [[0, 255, 7, 8]] * 2


def test_without_operators_a_child_is_its_mother_and_mate_gives_its_first_child() -> None:
    mothers, fathers = DIRECT.random(4, Key(0, 0)), DIRECT.random(4, Key(0, 1))
    assert np.array_equal(PerIndividual(DIRECT).vary(mothers, fathers, Key(0, 2)), mothers)
    swap = PerIndividual(DIRECT, mate=lambda a, b: (b, a))
    assert np.array_equal(swap.vary(mothers, fathers, Key(0, 2)), fathers)


def test_a_user_s_operator_is_given_a_graph_as_its_canonical_text() -> None:
    def weaken(graph: dict[str, Any]) -> tuple[dict[str, Any]]:
        assert graph == GRAPHS.to_json(GRAPHS.from_json(graph)[0])
        random.shuffle(graph["edges"])
        return (graph,)

    mothers = GRAPHS.random(3, Key(0, 0))
    children = PerIndividual(GRAPHS, mutate=weaken).vary(mothers, mothers, Key(1, 0))
    assert [GRAPHS.pack(g) for g in children] == [GRAPHS.pack(g) for g in mothers]


def test_a_search_with_a_user_s_operators_climbs_and_repeats_itself() -> None:
    ends = []
    for _ in range(2):
        search = Search(deap_encoding(), batch=4)
        ea_map_elites(search.toolbox, 15, statistics())
        ends.append(search.state())
        assert search.strategy.wins > 0
    assert ends[0] == ends[1]


def test_an_encoding_with_a_user_s_operators_can_be_copied() -> None:
    encoding = PerIndividual(DIRECT, mutate=flip_first)
    assert copy.deepcopy(encoding) == encoding
    with pytest.raises(AttributeError):
        encoding.no_such_thing  # noqa: B018


@pytest.mark.slow
def test_a_user_s_own_operators_give_the_same_children_to_any_number_of_workers() -> None:
    encoding = PerIndividual(DIRECT, lambda pixels: tools.mutGaussian(pixels, mu=0, sigma=40, indpb=0.3))
    ends = []
    for workers in (1, 4, 4):
        archive = Archive(encoding, CLASSES)
        batch_evaluator = BatchEvaluator(encoding, Search(DIRECT).batch_evaluator.target, 2)
        strategy = MapElites(archive, encoding, seed=5, batch=8)
        evaluator = LocalEvaluator(batch_evaluator, workers)
        ea_map_elites(toolbox(strategy, batch_evaluator, evaluator), 25, lag=1)
        evaluator.close()
        ends.append(archive.score.tolist())
    assert ends[0] == ends[1] == ends[2]
