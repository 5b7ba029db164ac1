"""The JSON and bytes of CPPNs: round trips, and errors for invalid ones."""

import copy
import hashlib
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomes import CPPN, GenomeError, Key
from genomes.cppn import activations, color, json_
from genomes.cppn.encoding import from_json

SEVEN = ("linear", "sin", "cos", "gauss", "sigmoid", "tanh", "abs")
GREY = CPPN(mode="grey", activation_set=SEVEN, max_nodes=16, max_edges=40)
EXAMPLE: dict[str, Any] = {
    "format": "evofool.cppn",
    "version": 1,
    "activations": "evofool-1",
    "inputs": ["x", "y", "d", "bias"],
    "coordinates": "centred",
    "size": [28, 28],
    "color": "grey",
    "outputs": [4],
    "nodes": [[4, "sin"], [5, "gauss"], [9, "tanh5"]],
    "edges": [[0, 4, 0.1], [5, 4, -2.5], [9, 4, 10.0], [1, 5, 1e-05], [3, 9, -0.333], [5, 9, 3.0]],
}
EXAMPLE_TEXT = (
    '{"format":"evofool.cppn","version":1,"activations":"evofool-1","inputs":["x","y","d","bias"],'
    '"coordinates":"centred","size":[28,28],"color":"grey","outputs":[4],"nodes":[[4,"sin"],[5,"gauss"],[9,"tanh5"]],'
    '"edges":[[0,4,0.1],[5,4,-2.5],[9,4,10.0],[1,5,1e-05],[3,9,-0.333],[5,9,3.0]]}'
)


def edited(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(EXAMPLE) | changes


# Identities


@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize("mode", color.MODES)
def test_text_and_bytes_of_evolved_genomes_give_them_back(evolve: Callable[..., np.ndarray], mode: str, raw: bool) -> None:
    encoding = CPPN(mode=mode, activation_set=activations.NAMES, raw_coordinates=raw, height=20, width=33)
    genomes = evolve(encoding, 100)
    np.testing.assert_array_equal(encoding.unpack([encoding.pack(g) for g in genomes]), genomes)
    for i, record in enumerate(genomes):
        data = encoding.to_json(record)
        text = json_.canonical(data)
        again = json.loads(text)
        assert again == data
        assert encoding.from_json(again)[0] == record
        assert json_.canonical(encoding.to_json(encoding.from_json(again)[0])) == text
        if i < 10:
            other, genome = from_json(again)
            assert (other.mode, other.height, other.width, other.raw_coordinates) == (mode, 20, 33, raw)
            np.testing.assert_array_equal(other.render(genome), encoding.render(genomes[i : i + 1]))


def test_the_canonical_text_of_an_example() -> None:
    genome = GREY.from_json(EXAMPLE)
    data = GREY.to_json(genome[0])
    assert data == EXAMPLE
    assert json_.canonical(data) == EXAMPLE_TEXT
    assert json_.identity(data) == hashlib.sha256(EXAMPLE_TEXT.encode()).hexdigest()


def test_the_packed_bytes_of_an_example() -> None:
    edges = [(0, 4, 0.1), (5, 4, -2.5), (6, 4, 10.0), (1, 5, 1e-05), (3, 6, -0.333), (5, 6, 3.0)]  # by slot, not id
    src, dst, weight = zip(*edges, strict=True)
    numbers = [activations.number(name) for name in ("sin", "gauss", "tanh5")]
    blob = struct.pack("<HH3i3b6h6h6f", 3, 6, 4, 5, 9, *numbers, *src, *dst, *weight)
    assert GREY.pack(GREY.from_json(EXAMPLE)[0]) == blob
    assert json_.canonical(GREY.to_json(GREY.unpack([blob])[0])) == EXAMPLE_TEXT


def test_equal_genomes_have_one_text_and_one_identity_and_others_have_others(evolve: Callable[..., np.ndarray]) -> None:
    encoding = CPPN(activation_set=SEVEN, max_nodes=12, max_edges=24)
    genomes = np.concatenate([evolve(encoding, 150, batches=grown) for grown in (0, 1, 60)])
    genomes = np.concatenate([genomes, genomes[::3]])
    texts = [json_.canonical(encoding.to_json(g)) for g in genomes]
    identities = [json_.identity(encoding.to_json(g)) for g in genomes]
    blobs = [encoding.pack(g) for g in genomes]
    distinct = len(np.unique(genomes))
    assert len(set(texts)) == len(set(identities)) == len(set(blobs)) == distinct
    assert len(set(zip(texts, identities, blobs, strict=True))) == distinct < len(genomes)


@pytest.mark.parametrize("part", ["a weight by its last bit", "an activation", "an edge", "an id"])
def test_the_smallest_change_of_a_genome_changes_its_text_and_bytes(part: str) -> None:
    genome = GREY.from_json(EXAMPLE)
    other = genome.copy()
    if part == "a weight by its last bit":
        other["weight"][0, 1] = np.nextafter(np.float32(-2.5), np.float32(0))
    elif part == "an activation":
        other["act"][0, 0] += 1
    elif part == "an edge":
        other["src"][0, 3] = 2
    else:
        other["node_id"][0, 2] += 1
    assert json_.identity(GREY.to_json(other[0])) != json_.identity(GREY.to_json(genome[0]))
    assert GREY.pack(other[0]) != GREY.pack(genome[0])


@given(st.floats(-10, 10, width=32))
@settings(max_examples=200, deadline=None)
def test_a_weight_is_written_as_the_shortest_decimal_that_names_it(weight: float) -> None:
    data = edited(edges=[[0, 4, weight]])
    written = GREY.to_json(GREY.from_json(data)[0])["edges"][0][2]
    assert np.float32(written) == weight
    assert math.copysign(1, written) == math.copysign(1, weight)
    exact = np.float32(weight)
    shortest = next(d for d in range(1, 10) if np.float32(f"{exact:.{d}g}") == exact)
    assert float(f"{written:.{shortest}g}") == written


def test_the_order_of_nodes_edges_and_keys_in_a_text_does_not_matter() -> None:
    shuffled = edited(nodes=EXAMPLE["nodes"][::-1], edges=EXAMPLE["edges"][::-1])
    shuffled = dict(reversed(shuffled.items()))
    assert GREY.from_json(shuffled)[0] == GREY.from_json(EXAMPLE)[0]
    assert json_.canonical(GREY.to_json(GREY.from_json(shuffled)[0])) == EXAMPLE_TEXT


def test_whole_numbers_are_weights_too() -> None:
    text = GREY.to_json(GREY.from_json(edited(edges=[[0, 4, 3]]))[0])
    assert json.dumps(text["edges"]) == "[[0, 4, 3.0]]"


def test_a_text_describes_its_encoding() -> None:
    encoding, genome = from_json(edited(color="hls2015", outputs=[4, 5, 6], coordinates="raw", size=[30, 40], nodes=[
        [4, "sin"], [5, "cos"], [6, "abs"]], edges=[[0, 4, 900.5]]))  # fmt: skip
    assert (encoding.mode, encoding.raw_coordinates, encoding.height, encoding.width) == ("hls2015", True, 30, 40)
    assert encoding.weight_limit == 900.5
    assert encoding.render(genome).shape == (1, 3, 30, 40)


def test_a_text_larger_than_the_default_capacity_gets_a_larger_one() -> None:
    nodes = [[4, "sin"]] + [[5 + k, "gauss"] for k in range(99)]
    edges = [[s, 5 + k, 1.0] for k in range(99) for s in range(4)] + [[5 + k, 4, 0.5] for k in range(99)]
    encoding, genome = from_json(edited(nodes=nodes, edges=edges))
    assert (encoding.max_nodes, encoding.max_edges) == (100, 495)
    assert int(genome[0]["n_edges"]) == 495
    encoding = from_json(EXAMPLE, max_nodes=9, max_edges=11, activation_set=("sin",))[0]
    assert (encoding.max_nodes, encoding.max_edges, encoding.activation_set) == (9, 11, ("sin",))


# Bad texts

BAD = {
    "no dict": ([], 'not an evofool CPPN: "format" has to be "evofool.cppn"'),
    "nothing": (None, '"format" has to be'),
    "wrong format": (edited(format="evofool.direct"), '"format" has to be "evofool.cppn"'),
    "no format": ({k: v for k, v in EXAMPLE.items() if k != "format"}, '"format" has to be'),
    "wrong version": (edited(version=2), "version 2; this evofool reads version 1"),
    "version as text": (edited(version="1"), "version '1'"),
    "missing key": ({k: v for k, v in EXAMPLE.items() if k != "edges"}, r"missing keys \['edges'\]"),
    "unknown key": (edited(colour="grey"), r"unknown keys \['colour'\]"),
    "other definitions": (edited(activations="evofool-2"), "\"activations\" is 'evofool-2'; .* 'evofool-1'"),
    "other inputs": (edited(inputs=["x", "y", "bias"]), "\"inputs\" is .'x', 'y', 'bias'."),
    "unknown colour": (edited(color="cmyk"), "\"color\" 'cmyk'"),
    "colour of a wrong kind": (edited(color=["grey"]), r"\"color\" \['grey'\]"),
    "unknown coordinates": (edited(coordinates="polar"), "\"coordinates\" 'polar'"),
    "wrong outputs": (edited(outputs=[4, 5]), r'"outputs" is \[4, 5\]; grey has 1'),
    "outputs of another colour": (edited(color="rgb"), r'"outputs" is \[4\]; rgb has 3'),
    "size of one number": (edited(size=28), '"size" is 28; it has to be .height, width.'),
    "size of three": (edited(size=[28, 28, 3]), r'"size" is \[28, 28, 3\]'),
    "size of nothing": (edited(size=[0, 28]), r'"size" is \[0, 28\]'),
    "size of part of a pixel": (edited(size=[28, 28.5]), r'"size" is \[28, 28.5\]'),
    "size of truth": (edited(size=[True, True]), r'"size" is \[True, True\]'),
    "huge size": (edited(size=[1 << 16, 1]), r'"size" is \[65536, 1\]'),
    "nodes no list": (edited(nodes={"4": "sin"}), '"nodes" has to be a list of lists of 2'),
    "node of three": (edited(nodes=[[4, "sin", 1]]), '"nodes" has to be a list of lists of 2'),
    "edge of two": (edited(edges=[[0, 4]]), '"edges" has to be a list of lists of 3'),
    "edges nothing": (edited(edges=None), '"edges" has to be a list of lists of 3'),
    "unknown activation": (edited(nodes=[[4, "sine"]]), r"node \[4, 'sine'\] has to be .id, activation.*linear, sin"),
    "activation by number": (edited(nodes=[[4, 1]]), r"node \[4, 1\]"),
    "id as text": (edited(nodes=[["4", "sin"]]), r"node \['4', 'sin'\]"),
    "id beyond 32 bits": (edited(nodes=[[4, "sin"], [1 << 31, "sin"]]), r"node ids have to lie in .* not 2147483648"),
    "negative id": (edited(nodes=[[4, "sin"], [-1, "sin"]]), r"node ids have to lie in .* not -1"),
    "double node": (edited(nodes=[*EXAMPLE["nodes"], [5, "sin"]]), "node id 5 is used twice"),
    "no outputs": (edited(nodes=EXAMPLE["nodes"][1:]), r"the outputs \[4\] have to be among the nodes"),
    "no nodes": (edited(nodes=[]), r"the outputs \[4\] have to be among the nodes"),
    "node in an input's place": (edited(nodes=[[3, "sin"], *EXAMPLE["nodes"]]), "no other id below 5"),
    "double edge": (edited(edges=[*EXAMPLE["edges"], [5, 4, 1.0]]), "edge 5 -> 4 is listed twice"),
    "edge from an output": (edited(edges=[[4, 5, 1.0]]), "edge 4 -> 5: edges run from inputs or hidden nodes to nodes"),
    "edge of an output to itself": (edited(edges=[[4, 4, 1.0]]), "edge 4 -> 4: edges run from"),
    "edge into an input": (edited(edges=[[5, 3, 1.0]]), "edge 5 -> 3: edges run from"),
    "edge from nowhere": (edited(edges=[[77, 4, 1.0]]), "edge 77 -> 4: there is no node 77"),
    "edge to nowhere": (edited(edges=[[0, 77, 1.0]]), "edge 0 -> 77: there is no node 77"),
    "edge from below": (edited(edges=[[-1, 4, 1.0]]), "edge -1 -> 4: there is no node -1"),
    "edge with an id in parts": (edited(edges=[[0.0, 4, 1.0]]), r"edge \[0.0, 4, 1.0\] has to be .source id"),
    "edge with a true id": (edited(edges=[[True, 4, 1.0]]), r"edge \[True, 4, 1.0\] has to be"),
    "weight as text": (edited(edges=[[0, 4, "1.0"]]), r"edge \[0, 4, '1.0'\] has to be"),
    "no weight": (edited(edges=[[0, 4, None]]), r"edge \[0, 4, None\] has to be"),
    "weight NaN": (edited(edges=[[0, 4, math.nan]]), "edge 0 -> 4: weight nan is not within"),
    "cycle": (edited(edges=[*EXAMPLE["edges"], [9, 5, 1.0]]), r"the nodes .*5, 9.* form a cycle"),
    "cycle of one": (edited(edges=[*EXAMPLE["edges"], [9, 9, 1.0]]), r"the nodes .*9.* form a cycle"),
}


@pytest.mark.parametrize("read", [GREY.from_json, from_json], ids=["an encoding", "alone"])
@pytest.mark.parametrize("case", BAD)
def test_errors_for_an_invalid_text_name_the_fault(case: str, read: Callable[[Any], Any]) -> None:
    data, message = BAD[case]
    before = copy.deepcopy(data)
    with pytest.raises(GenomeError, match=message):
        read(data)
    assert case == "weight NaN" or data == before


@pytest.mark.parametrize("weight", [math.inf, -math.inf, 1e6, -1e300])
def test_a_weight_beyond_all_limits_is_refused(weight: float) -> None:
    with pytest.raises(GenomeError, match=r"edge 0 -> 4: weight .* is not within \+-10"):
        GREY.from_json(edited(edges=[[0, 4, weight]]))
    with pytest.raises(GenomeError, match="weight_limit < 1e6"):
        from_json(edited(edges=[[0, 4, weight]]))


def test_a_weight_beyond_the_encodings_limit_is_refused_by_it_alone() -> None:
    data = edited(edges=[[0, 4, -10.001]])
    with pytest.raises(GenomeError, match=r"edge 0 -> 4: weight -10.001 is not within \+-10"):
        GREY.from_json(data)
    assert from_json(data)[0].weight_limit == np.float32(10.001)


def test_a_genome_larger_than_the_encodings_capacity_is_refused() -> None:
    with pytest.raises(GenomeError, match=r"3 nodes and 6 edges; .* holds 2 and 192 \(max_nodes, max_edges\)"):
        CPPN(max_nodes=2).from_json(EXAMPLE)
    with pytest.raises(GenomeError, match=r"3 nodes and 6 edges; .* holds 64 and 5"):
        CPPN(max_edges=5).from_json(EXAMPLE)
    with pytest.raises(GenomeError, match="holds 2 and 192"):
        CPPN(max_nodes=2).unpack([GREY.pack(GREY.from_json(EXAMPLE)[0])])


def test_a_genome_of_another_colour_or_coordinates_is_refused_with_both_named() -> None:
    for encoding in (CPPN(mode="grey2015"), CPPN(mode="rgb"), CPPN(mode="grey", raw_coordinates=True)):
        with pytest.raises(GenomeError, match="this genome renders grey from centred coordinates, this encoding "):
            encoding.from_json(EXAMPLE)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return [path, *(leaf for key, item in inner for leaf in leaves(item, (*path, key)))]
    return [path]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=5) | st.sampled_from(SEVEN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.slow
@given(st.sampled_from(leaves(EXAMPLE)[1:]), json_values)
@settings(max_examples=400, deadline=None)
def test_a_text_with_any_value_in_any_place_is_a_valid_genome_or_a_genome_error(path: tuple[Any, ...], value: Any) -> None:
    data: Any = edited()
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        genome = GREY.from_json(data)
    except GenomeError:
        pass
    else:
        assert GREY.from_json(GREY.to_json(genome[0]))[0] == genome[0]
    try:
        encoding, genome = from_json(data)
    except GenomeError:
        pass
    else:
        assert encoding.render(genome, (3, 3)).dtype == np.uint8


# Bad bytes


def test_truncated_and_lengthened_bytes_are_refused(evolve: Callable[..., np.ndarray]) -> None:
    blob = GREY.pack(evolve(GREY, 20)[7])
    for length in range(len(blob)):
        with pytest.raises(GenomeError, match="is truncated" if length < 4 else f"bytes, not {length}"):
            GREY.unpack([blob[:length]])
    with pytest.raises(GenomeError, match=f"has {len(blob)} bytes, not {len(blob) + 1}"):
        GREY.unpack([blob + b"\0"])
    with pytest.raises(GenomeError, match="is truncated"):
        GREY.unpack([blob, b""])


def test_errors_for_bytes_of_an_invalid_graph_name_the_fault() -> None:
    valid = GREY.from_json(EXAMPLE)

    def refused(message: str, **changes: tuple[int, float]) -> None:
        record = valid.copy()[0]
        for field, (place, value) in changes.items():
            record[field][place] = value
        with pytest.raises(GenomeError, match=message):
            GREY.unpack([GREY.pack(record)])

    refused("edge to a node that does not exist", src=(0, 7))
    refused("edge to a node that does not exist", dst=(0, -1))
    refused("edge 5 -> 4 is listed twice", src=(0, 5))
    refused("edge 4 -> 5: edges run from", src=(3, 4))
    refused("edge 1 -> 3: edges run from", dst=(3, 3))
    refused("form a cycle", src=(3, 6))
    refused("weight nan is not within", weight=(2, math.nan))
    refused("weight inf is not within", weight=(2, math.inf))
    refused(r"weight 11.0 is not within \+-10", weight=(2, 11.0))
    refused("no activation number 13|no activation number -1", act=(2, -1))
    refused("no activation number 127", act=(2, 127))
    refused("node id 5 is used twice", node_id=(2, 5))
    refused("the outputs", node_id=(0, 3))
    refused("node ids have to lie in", node_id=(2, -9))


def assert_valid_or_refused(blob: bytes) -> bool:
    try:
        genome = GREY.unpack([blob])
    except GenomeError:
        return False
    assert genome.shape == (1,)
    assert GREY.from_json(json.loads(json_.canonical(GREY.to_json(genome[0]))))[0] == genome[0]
    assert GREY.unpack([GREY.pack(genome[0])])[0] == genome[0]
    assert GREY.render(genome, (3, 3)).shape == (1, 1, 3, 3)
    return True


def test_garbled_bytes_are_a_valid_genome_or_a_genome_error(evolve: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    blobs = [GREY.pack(g) for g in evolve(GREY, 20)]
    outcomes = []
    for _ in range(3000):
        blob = bytearray(blobs[rng.integers(len(blobs))])
        for _ in range(rng.integers(1, 4)):
            place = rng.integers(len(blob))
            blob[place] = rng.choice([blob[place] ^ (1 << rng.integers(8)), rng.integers(256), 0, 255])
        outcomes.append(assert_valid_or_refused(bytes(blob)))
    assert 100 < sum(outcomes) < 2900  # both happen


@given(
    st.binary(max_size=80)
    | st.builds(
        lambda n, m, b: struct.pack("<HH", n, m) + b,
        st.integers(0, 3),
        st.integers(0, 4),
        st.binary(min_size=5, max_size=47),
    )
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_valid_genome_or_a_genome_error(blob: bytes) -> None:
    assert_valid_or_refused(blob)


def test_no_packed_genomes_give_an_empty_batch() -> None:
    empty = GREY.unpack([])
    assert empty.shape == (0,)
    assert empty.dtype == GREY.dtype


# Encodings that cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "cmyk"}, 'no colour mode "cmyk"; there are grey, rgb'),
        ({"activation_set": "nguyen"}, 'no activation set "nguyen"; there are default, nguyen2015'),
        ({"activation_set": ("sin", "sine")}, 'there is no activation "sine"'),
        ({"activation_set": ()}, "the activation set is empty"),
        ({"weight_limit": 1.0, "initial_weight": 2.0}, "0 < initial_weight <= weight_limit < 1e6, not 2.0, 1.0"),
        ({"weight_limit": 1e6}, "weight_limit < 1e6"),
        ({"initial_weight": 0.0}, "0 < initial_weight"),
        ({"max_nodes": 1}, "max_nodes 1 and max_edges 192 cannot hold a genome without hidden nodes"),
        ({"mode": "rgb", "max_edges": 11}, "max_nodes 64 and max_edges 11 cannot hold a genome without hidden nodes"),
    ],
)
def test_errors_name_invalid_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CPPN(**settings)


# At the edges of numbers


def test_a_weight_of_a_huge_whole_number_is_refused() -> None:
    with pytest.raises(GenomeError, match="edge 0 -> 4: weight 1000"):
        GREY.from_json(edited(edges=[[0, 4, 10**30]]))


@pytest.mark.parametrize("limit", [0.1, 1.0, 12.3, pytest.param(12.7)])
def test_weights_at_a_limit_that_float32_rounds_are_within_it(limit: float) -> None:
    encoding = CPPN(activation_set=("sin",), weight_limit=limit, initial_weight=limit)
    genomes = encoding.random(50, Key(0, 0))
    for batch in range(20):
        genomes = encoding.vary(genomes, genomes, Key(0, batch))
    assert np.abs(genomes["weight"]).max() == np.float32(limit)
    np.testing.assert_array_equal(encoding.unpack([encoding.pack(g) for g in genomes]), genomes)
    np.testing.assert_array_equal(np.concatenate([encoding.from_json(encoding.to_json(g)) for g in genomes]), genomes)


@pytest.mark.parametrize("weight", [10.5, 12.3, pytest.param(12.7)])
def test_a_genome_read_from_its_text_alone_can_be_packed_and_written_again(weight: float) -> None:
    encoding, genome = from_json(edited(edges=[[0, 4, weight]]))
    np.testing.assert_array_equal(encoding.unpack([encoding.pack(genome[0])]), genome)
    np.testing.assert_array_equal(encoding.from_json(encoding.to_json(genome[0])), genome)
