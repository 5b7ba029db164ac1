"""Mutation of CPPNs: compared with a slow mutation of lists with the same draws; every child is a valid graph."""

import hashlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomes import CPPN, GenomeError, Key
from genomes.cppn import activations, arrays, color, json_
from genomes.cppn.arrays import N_IN
from genomes.cppn.vary import Rates

SEVEN = ("linear", "sin", "cos", "gauss", "sigmoid", "tanh", "abs")
STILL = Rates(weight=0.0, eta=15.0, activation=0.0, add_edge=0.0, delete_edge=0.0, split_edge=0.0, delete_node=0.0)
ALWAYS = Rates(weight=1.0, eta=5.0, activation=1.0, add_edge=1.0, delete_edge=1.0, split_edge=1.0, delete_node=1.0)
GROWING = Rates(weight=0.1, eta=15.0, activation=0.1, add_edge=0.9, delete_edge=0.3, split_edge=0.9, delete_node=0.05)
USUAL = Rates(weight=0.1, eta=15.0, activation=0.1, add_edge=0.5, delete_edge=0.3, split_edge=0.5, delete_node=0.2)

Nodes = list[tuple[int, int]]
Edges = list[tuple[int, int, float]]


GOLDEN_LINEAGE = "440b0bdaad30e0b36c6b7f9d381bf2323c327c9c440cdb764d255f44952aca08"


def both(genomes: np.ndarray, children: np.ndarray) -> list[tuple[Nodes, Edges, Nodes, Edges]]:
    pairs = zip(genomes, children, strict=True)
    return [(*arrays.nodes_and_edges(mother), *arrays.nodes_and_edges(child)) for mother, child in pairs]


def leading_to(edges: Edges, ends: set[int]) -> set[int]:
    """The ends and all that some path leads from to them."""
    found = set(ends)
    while more := {source for source, target, _ in edges if target in found} - found:
        found |= more
    return found


def assert_valid(encoding: CPPN, record: Any) -> None:
    """Checks a record in plain Python."""
    n, m = int(record["n_nodes"]), int(record["n_edges"])
    assert encoding.channels <= n <= encoding.max_nodes
    assert 0 <= m <= encoding.max_edges
    ids = record["node_id"][:n].tolist()
    assert ids == sorted(set(ids))
    assert ids[: encoding.channels] == list(range(N_IN, N_IN + encoding.channels))
    assert set(record["act"][:n].tolist()) <= set(encoding.kinds.tolist())
    ends = list(zip(record["dst"][:m].tolist(), record["src"][:m].tolist(), strict=True))
    assert ends == sorted(set(ends))
    assert all(N_IN <= target < N_IN + n for target, _ in ends)
    outputs = set(range(N_IN, N_IN + encoding.channels))
    assert all(0 <= source < N_IN + n and source not in outputs for _, source in ends)
    weights = record["weight"][:m]
    assert np.isfinite(weights).all()
    assert (np.abs(weights) <= np.float32(encoding.weight_limit)).all()
    for field, used in (("node_id", n), ("act", n), ("src", m), ("dst", m), ("weight", m)):
        assert not record[field][used:].any()
    nodes, edges = arrays.nodes_and_edges(record)
    for source, target, _ in edges:
        assert target not in leading_to(edges, {source})
    # A graph has one record only: the one that build makes of its lists
    assert arrays.build(encoding.dtype, encoding.channels, nodes, edges, encoding.weight_limit)[0] == record


def slow_child(encoding: CPPN, nodes: Nodes, edges: Edges, stream: Any) -> tuple[Nodes, Edges]:
    """The mutation of `vary`, on lists of (id, activation) and (source, target, weight), with the draws of one stream."""
    rates, limit, kinds = encoding.rates, encoding.weight_limit, encoding.kinds.tolist()
    outputs = set(range(N_IN, N_IN + encoding.channels))

    def moved(weight: float) -> float:
        if not stream.uniform() < rates.weight:
            return weight
        u, power = stream.uniform(), 1 / (rates.eta + 1)
        step = (2 * u) ** power - 1 if u < 0.5 else 1 - (2 * (1 - u)) ** power
        x = min(1.0, max(0.0, (weight / limit + 1) * 0.5 + step))
        return float(np.float32((x * 2 - 1) * limit))

    edges = [(s, t, moved(w)) for s, t, w in edges]
    nodes = [(i, kinds[stream.integer(len(kinds))] if stream.uniform() < rates.activation else a) for i, a in nodes]
    if len(nodes) == encoding.max_nodes or len(edges) > encoding.max_edges - 2:
        live = leading_to(edges, outputs)
        nodes = [(i, a) for i, a in nodes if i in live]
        edges = [(s, t, w) for s, t, w in edges if t in live]
    if stream.uniform() < rates.add_edge and len(edges) < encoding.max_edges:
        sources = [*range(N_IN), *(i for i, _ in nodes if i not in outputs)]
        source = sources[stream.integer(len(sources))]
        closed = leading_to(edges, {source}) | {t for s, t, _ in edges if s == source}
        targets = [i for i, _ in nodes if i not in closed]
        if targets:
            target = targets[stream.integer(len(targets))]
            edges.append((source, target, float(np.float32((2 * stream.uniform() - 1) * limit))))
    edges.sort(key=lambda edge: (edge[1], edge[0]))
    if stream.uniform() < rates.delete_edge and len(edges) > 1:
        del edges[stream.integer(len(edges))]
    if stream.uniform() < rates.split_edge and edges and len(nodes) < encoding.max_nodes and len(edges) < encoding.max_edges:
        source, target, weight = edges.pop(stream.integer(len(edges)))
        new = nodes[-1][0] + 1
        nodes.append((new, kinds[stream.integer(len(kinds))]))
        edges += [(source, new, weight), (new, target, weight)]
        edges.sort(key=lambda edge: (edge[1], edge[0]))
    hidden = [i for i, _ in nodes if i not in outputs]
    if stream.uniform() < rates.delete_node and hidden:
        gone = hidden[stream.integer(len(hidden))]
        nodes = [(i, a) for i, a in nodes if i != gone]
        edges = [(s, t, w) for s, t, w in edges if gone not in (s, t)]
    return nodes, edges


ENCODINGS = {
    "as in 2015": CPPN(activation_set=SEVEN, rates=USUAL),
    "three outputs": CPPN(mode="rgb", activation_set=("sin", "gauss"), weight_limit=3.0, initial_weight=1.0, rates=USUAL),
    "growing to capacity": CPPN(activation_set=SEVEN, rates=GROWING, max_nodes=20, max_edges=40),
    "tiny": CPPN(activation_set=SEVEN, rates=USUAL, max_nodes=4, max_edges=8),
    "tiny and full from the start": CPPN(mode="rgb", activation_set=SEVEN, rates=USUAL, max_nodes=4, max_edges=12),
    "everything always": CPPN(activation_set=SEVEN, rates=ALWAYS, max_nodes=9, max_edges=16),
    "one activation": CPPN(activation_set=("tanh",), rates=USUAL, weight_limit=1.0, initial_weight=0.5),
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_children_equal_those_of_a_slow_mutation_of_lists_with_the_same_draws(
    evolve: Callable[..., np.ndarray], reference_stream: Any, encoding: CPPN
) -> None:
    for grown in (0, 3, 60):
        mothers = evolve(encoding, 40, batches=grown)
        children = encoding.vary(mothers, mothers, Key(9, 1000 + grown, 17))
        for row, (nodes, edges, child_nodes, child_edges) in enumerate(both(mothers, children)):
            slow = slow_child(encoding, nodes, edges, reference_stream(9, 1000 + grown, 17 + row))
            assert (child_nodes, child_edges) == slow


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_random_genomes_follow_the_reference_stream(reference_stream: Any, encoding: CPPN) -> None:
    for row, record in enumerate(encoding.random(30, Key(4, 5, 6))):
        stream = reference_stream(4, 5, 6 + row)
        nodes, edges = [], []
        for output in range(N_IN, N_IN + encoding.channels):
            nodes.append((output, int(encoding.kinds[stream.integer(len(encoding.kinds))])))
            for source in range(N_IN):
                weight = (2 * stream.uniform() - 1) * encoding.initial_weight
                edges.append((source, output, float(np.float32(weight))))
        assert arrays.nodes_and_edges(record) == (nodes, edges)


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_every_genome_of_a_long_neutral_evolution_is_valid(encoding: CPPN) -> None:
    genomes = encoding.random(60, Key(3, 0))
    for batch in range(1, 151):
        genomes = encoding.vary(genomes, genomes, Key(3, batch))
        if batch < 6 or batch % 10 == 0:
            for record in genomes:
                assert_valid(encoding, record)


probability = st.sampled_from([0.0, 0.2, 0.7, 1.0])


@given(
    rates=st.lists(st.builds(Rates, probability, st.sampled_from([1.0, 15.0]), *[probability] * 5), min_size=1, max_size=20),
    mode=st.sampled_from(color.MODES),
    max_nodes=st.sampled_from([4, 5, 8, 64]),
    max_edges=st.sampled_from([12, 13, 20, 192]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_mutations_gives_valid_genomes(
    rates: list[Rates], mode: str, max_nodes: int, max_edges: int, seed: int
) -> None:
    genomes = None
    for batch, some in enumerate(rates):
        encoding = CPPN(mode=mode, activation_set=SEVEN, rates=some, max_nodes=max_nodes, max_edges=max_edges)
        if genomes is None:
            genomes = encoding.random(4, Key(seed, batch))
        genomes = encoding.vary(genomes, genomes, Key(seed, batch + 1))
        for record in genomes:
            assert_valid(encoding, record)


@pytest.mark.parametrize("name", ["tiny", "tiny and full from the start"])
def test_evolution_continues_at_a_tiny_capacity(name: str) -> None:
    encoding = ENCODINGS[name]
    genomes = encoding.random(100, Key(1, 0))
    full, shapes = 0, set()
    for batch in range(1, 201):
        children = encoding.vary(genomes, genomes, Key(1, batch))
        assert np.mean([a != b for a, b in zip(genomes, children, strict=True)]) > 0.5
        full += int((children["n_nodes"] == encoding.max_nodes).sum())
        shapes |= {(int(g["n_nodes"]), int(g["n_edges"])) for g in children[:20]}
        genomes = children
    assert full > 1000  # the limit was there all the time
    assert len(shapes) > 10
    assert len({image.tobytes() for image in encoding.render(genomes)}) > 30


def test_dead_nodes_of_a_full_genome_are_removed_and_it_can_grow_again() -> None:
    edges = [(0, 5, 1.0), (5, 4, 1.0), (1, 6, 1.0), (2, 7, 1.0), (6, 7, 2.0)]  # 6 and 7 lead nowhere
    nodes = [(4, 0), (5, 1), (6, 1), (7, 1)]
    for capacity, change in ((4, STILL), (4, STILL._replace(split_edge=1.0)), (5, STILL)):
        encoding = CPPN(activation_set=SEVEN, rates=change, max_nodes=capacity, max_edges=40)
        mother = arrays.build(encoding.dtype, 1, nodes, edges, 10.0)
        child = encoding.vary(mother, mother, Key(0, 0))
        left = [int(i) for i in child[0]["node_id"][: child[0]["n_nodes"]]]
        if capacity == 5:
            assert left == [4, 5, 6, 7]  # not full: dead nodes stay, since they may be connected later
        else:
            assert left == [4, 5] + [6] * (change.split_edge == 1.0)
        if change == STILL:
            np.testing.assert_array_equal(encoding.render(child), encoding.render(mother))
        assert_valid(encoding, child[0])


@pytest.mark.parametrize("change", [field for field in Rates._fields if field != "eta"])
def test_a_full_genome_without_dead_nodes_skips_the_change(change: str) -> None:
    encoding = CPPN(activation_set=SEVEN, rates=STILL._replace(**{change: 1.0}), max_nodes=2, max_edges=6)
    edges = [(s, 4, 1.0) for s in range(4)] + [(0, 5, 1.0), (5, 4, 1.0)]
    mother = arrays.build(encoding.dtype, 1, [(4, 0), (5, 1)], edges, 10.0)
    for batch in range(30):
        child = encoding.vary(mother, mother, Key(0, batch))
        assert_valid(encoding, child[0])
        if change in ("add_edge", "split_edge"):
            assert child[0] == mother[0]
        elif change != "activation":  # which may draw what there was
            assert child[0] != mother[0]


# What each rate does


def changed(genomes: np.ndarray, **rates: float) -> list[tuple[Nodes, Edges, Nodes, Edges]]:
    encoding = CPPN(mode="rgb", activation_set=SEVEN, rates=STILL._replace(**rates), max_nodes=80, max_edges=300)
    roomy = np.concatenate([arrays.build(encoding.dtype, 3, *arrays.nodes_and_edges(g), 10.0) for g in genomes])
    return both(roomy, encoding.vary(roomy, roomy, Key(21, 0)))


@pytest.fixture
def mothers(evolve: Callable[..., np.ndarray]) -> np.ndarray:
    return evolve(CPPN(mode="rgb", activation_set=SEVEN, rates=USUAL), 300, batches=40)


def test_all_rates_zero_change_nothing(mothers: np.ndarray) -> None:
    for nodes, edges, child_nodes, child_edges in changed(mothers):
        assert (child_nodes, child_edges) == (nodes, edges)


def test_weight_one_moves_every_weight_and_nothing_else(mothers: np.ndarray) -> None:
    steps = []
    for nodes, edges, child_nodes, child_edges in changed(mothers, weight=1.0):
        assert child_nodes == nodes
        assert [e[:2] for e in child_edges] == [e[:2] for e in edges]
        steps += [(after - before, before) for (_, _, before), (_, _, after) in zip(edges, child_edges, strict=True)]
    # A weight may stay only where it stood at the limit and was to go beyond
    assert all(step != 0 or abs(before) == 10 for step, before in steps)
    inner = np.array([step for step, before in steps if abs(before) < 5])
    assert np.abs(inner).mean() == pytest.approx(20 / (15 + 2), rel=0.1)  # the mean |step| of index eta on a range of 20


def test_weight_moves_about_its_share_of_weights(mothers: np.ndarray) -> None:
    moved = [
        a[2] != b[2]
        for _, edges, _, child_edges in changed(mothers, weight=0.3)
        for a, b in zip(edges, child_edges, strict=True)
        if abs(a[2]) < 10
    ]
    assert abs(np.mean(moved) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(moved))


def test_a_higher_eta_takes_smaller_steps(mothers: np.ndarray) -> None:
    sizes = []
    for eta in (1.0, 15.0, 100.0):
        pairs = changed(mothers, weight=1.0, eta=eta)
        sizes.append(np.mean([abs(a[2] - b[2]) for _, e, _, f in pairs for a, b in zip(e, f, strict=True)]))
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2] > 0


def test_activation_one_redraws_every_activation_and_nothing_else(mothers: np.ndarray) -> None:
    drawn = []
    for nodes, edges, child_nodes, child_edges in changed(mothers, activation=1.0):
        assert child_edges == edges
        assert [i for i, _ in child_nodes] == [i for i, _ in nodes]
        drawn += [act for _, act in child_nodes]
    counts = np.bincount(drawn, minlength=len(activations.NAMES))[[activations.number(name) for name in SEVEN]]
    assert counts.sum() == len(drawn)
    expected = len(drawn) / 7
    assert ((counts - expected) ** 2 / expected).sum() < 6 + 4 * np.sqrt(12)


def test_add_edge_one_adds_one_edge_between_nodes_not_yet_joined_unless_its_source_reaches_all(mothers: np.ndarray) -> None:
    added = []
    for nodes, edges, child_nodes, child_edges in changed(mothers, add_edge=1.0):
        assert child_nodes == nodes
        new = set(child_edges) - set(edges)
        assert set(edges) <= set(child_edges)
        assert len(child_edges) == len(edges) + len(new)
        assert len(new) <= 1
        added += new
    assert len(added) > 0.9 * len(mothers)
    weights = np.array([w for _, _, w in added])
    assert np.abs(weights).max() <= 10
    assert weights.std() == pytest.approx(10 / np.sqrt(3), rel=0.1)


def test_delete_edge_one_removes_one_edge(mothers: np.ndarray) -> None:
    for nodes, edges, child_nodes, child_edges in changed(mothers, delete_edge=1.0):
        assert child_nodes == nodes
        assert len(child_edges) == (len(edges) - 1 if len(edges) > 1 else len(edges))
        assert set(child_edges) <= set(edges)


def test_the_last_edge_is_not_deleted() -> None:
    encoding = CPPN(activation_set=SEVEN, rates=STILL._replace(delete_edge=1.0))
    mother = arrays.build(encoding.dtype, 1, [(4, 0)], [(0, 4, 1.0)], 10.0)
    assert encoding.vary(mother, mother, Key(0, 0)) == mother


def test_split_edge_one_puts_a_new_node_into_an_edge_and_its_weight_on_both_halves(mothers: np.ndarray) -> None:
    for nodes, edges, child_nodes, child_edges in changed(mothers, split_edge=1.0):
        new = nodes[-1][0] + 1
        assert child_nodes[:-1] == nodes
        assert child_nodes[-1][0] == new
        assert len(child_edges) == len(edges) + 1
        ((source, target, weight),) = set(edges) - set(child_edges)
        assert set(child_edges) - set(edges) == {(source, new, weight), (new, target, weight)}


def test_delete_node_one_removes_a_hidden_node_and_its_edges(mothers: np.ndarray) -> None:
    bare = 0
    for nodes, edges, child_nodes, child_edges in changed(mothers, delete_node=1.0):
        gone = {i for i, _ in nodes} - {i for i, _ in child_nodes}
        assert child_nodes == [(i, a) for i, a in nodes if i not in gone]
        assert child_edges == [e for e in edges if e[0] not in gone and e[1] not in gone]
        assert len(gone) == (len(nodes) > 3)
        assert not gone & {4, 5, 6}
        bare += len(nodes) == 3
    assert bare < len(mothers) / 2


@pytest.mark.parametrize("change", ["add_edge", "delete_edge", "split_edge", "delete_node"])
def test_a_structural_rate_is_a_probability_per_child(mothers: np.ndarray, change: str) -> None:
    hit = {rate: np.mean([a != c or b != d for a, b, c, d in changed(mothers, **{change: rate})]) for rate in (0.25, 1.0)}
    assert abs(hit[0.25] - 0.25 * hit[1.0]) < 4 * np.sqrt(0.25 * 0.75 / len(mothers))


# What a child depends on


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_a_batch_split_into_chunks_has_the_same_children(evolve: Callable[..., np.ndarray], encoding: CPPN) -> None:
    mothers, key = evolve(encoding, 40), Key(5, 6, 7)
    whole = encoding.vary(mothers, mothers, key)
    firsts = encoding.random(40, key)
    for cuts in ([0, 40], [0, 1, 2, 40], [0, 13, 26, 39, 40], list(range(41))):
        spans = list(pairwise(cuts))
        parts = [encoding.vary(mothers[a:b], mothers[a:b], key.at(a)) for a, b in spans]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(np.concatenate([encoding.random(b - a, key.at(a)) for a, b in spans]), firsts)


def test_a_child_depends_on_its_mother_and_its_key_only(evolve: Callable[..., np.ndarray]) -> None:
    encoding = ENCODINGS["as in 2015"]
    mothers, others = evolve(encoding, 40), evolve(encoding, 40, seed=1)
    child = encoding.vary(mothers, mothers, Key(5, 6, 7))[11]
    changed_around = others.copy()
    changed_around[11] = mothers[11]
    assert encoding.vary(changed_around, others, Key(5, 6, 7))[11] == child
    for key in (Key(4, 6, 7), Key(5, 7, 7), Key(5, 6, 8)):
        assert encoding.vary(mothers, mothers, key)[11] != child


def test_vary_does_not_change_mothers_and_shares_no_memory_with_them(evolve: Callable[..., np.ndarray]) -> None:
    encoding = ENCODINGS["as in 2015"]
    mothers, fathers = evolve(encoding, 40), evolve(encoding, 40, seed=1)
    children = encoding.vary(mothers, fathers, Key(1, 2))
    np.testing.assert_array_equal(mothers, evolve(encoding, 40))
    np.testing.assert_array_equal(fathers, evolve(encoding, 40, seed=1))
    assert not np.shares_memory(children, mothers)
    mothers.flags.writeable = False
    np.testing.assert_array_equal(encoding.vary(mothers, mothers, Key(1, 2)), children)


def test_the_structures_from_the_golden_key_do_not_change() -> None:
    """Exact on any machine, as no weight is moved and so no pow is called. A change here moves results."""
    encoding = CPPN(
        mode="rgb", activation_set=SEVEN, rates=USUAL._replace(weight=0.0), weight_limit=10.0, initial_weight=10.0,
        max_nodes=24, max_edges=60,
    )  # fmt: skip
    genomes = encoding.random(50, Key(2015, 0))
    for batch in range(1, 61):
        genomes = encoding.vary(genomes, genomes, Key(2015, batch))
    text = "\n".join(json_.canonical(encoding.to_json(g)) for g in genomes)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN_LINEAGE


# Pruning


def test_nodes_that_reach_no_output_do_not_change_the_image(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(mode="hsv", activation_set=activations.NAMES, rates=USUAL)
    genomes = evolve(encoding, 200)
    pruned, dead = [], 0
    for record in genomes:
        nodes, edges = arrays.nodes_and_edges(record)
        live = leading_to(edges, {4, 5, 6})
        dead += sum(i not in live for i, _ in nodes)
        kept = [(i, a) for i, a in nodes if i in live]
        pruned.append(arrays.build(encoding.dtype, 3, kept, [e for e in edges if e[1] in live], 10.0))
    assert dead > 500
    np.testing.assert_array_equal(encoding.render(np.concatenate(pruned)), encoding.render(genomes))


def test_a_child_of_a_genome_with_the_highest_valid_id_is_valid() -> None:
    encoding = CPPN(activation_set=SEVEN, rates=STILL._replace(split_edge=1.0))
    last = arrays.MAX_ID - 1
    mother = arrays.build(encoding.dtype, 1, [(4, 0), (last, 1)], [(0, last, 1.0), (last, 4, 1.0)], 10.0)
    assert_valid(encoding, encoding.vary(mother, mother, Key(0, 0))[0])
    with pytest.raises(GenomeError, match="node ids have to lie in"):
        arrays.build(encoding.dtype, 1, [(4, 0), (arrays.MAX_ID, 1)], [], 10.0)
