"""Genomes: packed bytes, JSON, and what a user's DEAP operator returns."""

from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from evofool.generators.decoder_file import read_decoder
from evofool.search.per_individual import PerIndividual
from genomes import CPPN, Canvas, Direct, Encoding, Latent
from genomes.cppn.encoding import from_json
from genomes.random import Key
from tests.fuzz.mutations import apply_bytes, apply_json, byte_edits, json_edits, values
from tests.fuzz.room import Area, Fault, Room

ENCODINGS: dict[str, Encoding] = {
    "grey": CPPN("grey", 6, 7),
    "hsv": CPPN("hsv", 6, 7),
    "2015": CPPN.nguyen2015(1, 6, 7),
    "direct": Direct(1, 6, 7),
    "colour": Direct(3, 6, 7),
    "canvas": Canvas(1, 6, 7),
    "canvas of cosines": Canvas(3, 6, 7, start="waves", cosines=3),
    "canvas of noise": Canvas(3, 6, 7, start="noise"),
    "latent": Latent(read_decoder("digits"), 1, 6, 7),
}


@cache
def samples(name: str) -> list[Any]:
    """Five genomes, of which the later ones have more nodes."""
    encoding = ENCODINGS[name]
    genomes = encoding.random(5, Key(seed=1, batch=0))
    for batch in range(1, 30):
        varied = encoding.vary(genomes, genomes[::-1], Key(seed=1, batch=batch))
        genomes[1:] = varied[1:]
    return list(genomes)


def enter(case: tuple[Any, ...], _: Room) -> None:
    name, which, how, given = case
    encoding, sample = ENCODINGS[name], samples(name)[which]
    if how == "bytes":
        genomes = encoding.unpack([encoding.pack(sample), given])
    elif how == "packed":
        genomes = encoding.unpack([apply_bytes(encoding.pack(sample), given)])
    elif how == "json":
        data = apply_json(encoding.to_json(sample), given)
        genomes = encoding.from_json(data)
    elif how == "any json":
        _, genomes = from_json(apply_json(encoding.to_json(sample), given))
        return
    else:
        operator = PerIndividual(encoding, mutate=lambda individual: _returned(how, individual, given))
        genomes = operator.vary(np.array([sample]), np.array([sample]), Key(seed=1, batch=0))
    _require_whole(encoding, genomes)


def _returned(how: str, individual: Any, given: Any) -> Any:
    if how == "returned":
        return given
    return (apply_json(individual, given),)


def _require_whole(encoding: Encoding, genomes: np.ndarray) -> None:
    """A genome that was accepted is drawn, and has the same bytes and JSON afterwards."""
    children = encoding.vary(genomes, genomes, Key(seed=2, batch=0))
    images = encoding.render(np.concatenate([genomes, children]))
    if images.shape[1:] != (encoding.channels, encoding.height, encoding.width):
        raise Fault(f"images of the wrong shape\n{images.shape}")
    packed = [encoding.pack(genome) for genome in genomes]
    again = encoding.unpack(packed)
    if [encoding.pack(genome) for genome in again] != packed:
        raise Fault("a genome changes when it is packed and unpacked")
    if encoding.to_json(encoding.from_json(encoding.to_json(genomes[0]))[0]) != encoding.to_json(genomes[0]):
        raise Fault("a genome changes when it becomes JSON and back")


_HOW = st.one_of(
    st.tuples(st.just("bytes"), st.binary(max_size=200)),
    st.tuples(st.just("packed"), byte_edits()),
    st.tuples(st.just("packed"), byte_edits()),
    st.tuples(st.just("json"), json_edits()),
    st.tuples(st.just("json"), json_edits()),
    st.tuples(st.just("any json"), json_edits()),
    st.tuples(st.just("returned"), st.one_of(values(), st.tuples(values()), st.tuples(values(), values()))),
    st.tuples(st.just("changed"), json_edits()),
)
CASES = st.builds(lambda name, which, how: (name, which, *how), st.sampled_from(list(ENCODINGS)), st.integers(0, 4), _HOW)


def prepare() -> None:
    for name, encoding in ENCODINGS.items():
        _require_whole(encoding, np.array(samples(name)))


AREA = Area("genomes", CASES, enter, 8, prepare=prepare)
