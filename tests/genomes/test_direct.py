"""The direct encoding: its variation against plain Python with the same draws, its rates, its bytes and its text."""

import base64
import json
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from deap import tools
from hypothesis import given, settings
from hypothesis import strategies as st

from genomes import Direct, GenomeError, Key
from genomes.direct import polynomial_step, sbx

NEVER = 1e-9  # the lowest rate is above 0; this one hits none of the genes here


def slow_child(encoding: Direct, mother: list[int], father: list[int], batch: int, stream: Any) -> list[int]:
    """The mutation of `vary` for one genome, with draws of the reference stream."""
    child = list(mother)
    if encoding.crossover > 0 and stream.uniform() < encoding.crossover:
        for k, (m, f) in enumerate(zip(mother, father, strict=True)):
            if m != f:
                u, lower = stream.uniform(), stream.uniform() < 0.5
                child[k] = int(slow_sbx(min(m, f) / 255, max(m, f) / 255, u, lower, encoding.eta_crossover) * 255 + 0.5)
    low, high = encoding.rate if isinstance(encoding.rate, tuple) else (encoding.rate, encoding.rate)
    if encoding.halve_every:
        low, high = (r / 2 ** (batch // encoding.halve_every) for r in (low, high))
    rate = low if low == high else low * (high / low) ** stream.uniform()
    at = gap(stream, rate)
    while at < len(child):
        u, power = stream.uniform(), 1 / (encoding.eta + 1)
        step = (2 * u) ** power - 1 if u < 0.5 else 1 - (2 * (1 - u)) ** power
        child[at] = int(min(1.0, max(0.0, child[at] / 255 + step)) * 255 + 0.5)
        at += 1 + gap(stream, rate)
    return child


def gap(stream: Any, rate: float) -> int:
    """How many coins of this rate fail before one succeeds: P(gap >= k) = (1 - rate)^k."""
    u = stream.uniform()
    return 0 if rate == 1 else int(math.log1p(-u) / math.log1p(-rate))


def slow_sbx(a: float, b: float, u: float, lower: bool, eta: float) -> float:
    """Deb & Agrawal 1995: the spread of a child that the bound of its side lets through."""
    beta = 1 + 2 * (a if lower else 1 - b) / (b - a)
    alpha = 2 - beta ** -(eta + 1)
    spread = (u * alpha) ** (1 / (eta + 1)) if u <= 1 / alpha else (1 / (2 - u * alpha)) ** (1 / (eta + 1))
    return min(1.0, max(0.0, (a + b) / 2 + (-spread if lower else spread) * (b - a) / 2))


ENCODINGS = {
    "plain": Direct(rate=0.1, eta=15.0),
    "every pixel": Direct(rate=1.0, eta=5.0),
    "a range of rates": Direct(rate=(0.001, 0.9), eta=15.0),
    "halved": Direct(rate=0.4, eta=15.0, halve_every=3),
    "a halved range, crossed": Direct(rate=(0.01, 0.5), eta=2.0, halve_every=2, crossover=0.7, eta_crossover=10.0),
    "three channels, not square": Direct(
        channels=3, height=9, width=14, rate=0.2, eta=20.0, crossover=1.0, eta_crossover=2.0
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_children_equal_those_of_plain_python_with_the_same_draws(reference_stream: Any, encoding: Direct) -> None:
    mothers, fathers = encoding.random(12, Key(1, 0)), encoding.random(12, Key(2, 0))
    fathers[:, :, ::3] = mothers[:, :, ::3]
    for batch in (0, 5, 11):
        children = encoding.vary(mothers, fathers, Key(7, batch, 3))
        for row, (mother, father, child) in enumerate(zip(mothers, fathers, children, strict=True)):
            stream = reference_stream(7, batch, 3 + row)
            slow = slow_child(encoding, mother.ravel().tolist(), father.ravel().tolist(), batch, stream)
            assert child.ravel().tolist() == slow


def test_random_genomes_follow_the_reference_stream_and_are_evenly_spread(reference_stream: Any) -> None:
    encoding = Direct(channels=3, height=10, width=20, rate=0.1, eta=15.0)
    genomes = encoding.random(40, Key(3, 4, 5))
    for row, genome in enumerate(genomes):
        stream = reference_stream(3, 4, 5 + row)
        assert genome.ravel().tolist() == [stream.integer(256) for _ in range(600)]
    expected = genomes.size / 256
    chi_square = ((np.bincount(genomes.ravel(), minlength=256) - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) < 4 * np.sqrt(2 * 255)


def test_shades_follow_the_reference_stream(reference_stream: Any) -> None:
    genomes = Direct(channels=3, height=5, width=4, start="shades").random(60, Key(3, 4, 5))
    inversions = 0
    for row, genome in enumerate(genomes):
        stream = reference_stream(3, 4, 5 + row)
        exponent, inverted = 64 ** stream.uniform(), stream.uniform() < 0.5
        values = [int(stream.uniform() ** exponent * 256) for _ in range(60)]
        assert genome.ravel().tolist() == [255 - value if inverted else value for value in values]
        inversions += inverted
    assert 15 < inversions < 45


def test_shades_have_mean_brightnesses_from_black_to_white() -> None:
    means = Direct(start="shades").random(400, Key(1, 0)).mean(axis=(1, 2, 3))
    counts = np.histogram(means, [0, 16, 64, 128, 192, 240, 256])[0]
    assert counts.min() > 40
    assert means.min() < 6
    assert means.max() > 249


# Mutation


def mutated(rate: Any, batch: int = 0, count: int = 200, **settings: Any) -> np.ndarray:
    """Which genes of grey mothers changed; eta 1 takes steps so long that few are rounded away."""
    encoding = Direct(rate=rate, eta=1.0, **settings)
    mothers = np.full((count, 1, 28, 28), 128, np.uint8)
    return (encoding.vary(mothers, mothers, Key(8, batch)) != 128).reshape(count, -1)


@pytest.mark.parametrize("rate", [0.002, 0.1, 0.5, 0.95, 1.0])
def test_the_share_of_changed_genes_is_about_the_rate(rate: float) -> None:
    changed = mutated(rate)
    seen = rate * (1 - 0.5 / 255) ** 2  # a step below half a grey level is not seen
    assert abs(changed.mean() - seen) < 4 * np.sqrt(rate * (1 - rate) / changed.size) + 0.002 * rate


def test_all_positions_are_equally_likely_to_change_and_independent_of_neighbours() -> None:
    changed = mutated(0.2, count=2000)
    places = changed.mean(axis=0)
    assert np.abs(places - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 2000)
    together = (changed[:, :-1] & changed[:, 1:]).mean()
    assert together == pytest.approx(changed.mean() ** 2, rel=0.02)


def test_a_range_of_rates_gives_each_child_its_own_uniform_in_the_logarithm() -> None:
    shares = mutated((0.01, 0.5), count=4000).mean(axis=1)
    assert shares.max() < 0.58
    thirds = np.log(0.01) + np.log(50) * np.arange(1, 3) / 3
    counts = np.bincount(np.searchsorted(thirds, np.log(np.maximum(shares, 1e-4))), minlength=3)
    # Children on a border fall to either side by the chance of their genes, about equally many each way.
    assert np.abs(counts / 4000 - 1 / 3).max() < 0.04
    assert np.mean(shares) == pytest.approx(0.49 / np.log(50), rel=0.05)  # the mean of a log-uniform rate


def test_a_range_of_width_zero_equals_that_rate() -> None:
    np.testing.assert_array_equal(mutated((0.1, 0.1)), mutated(0.1))


@pytest.mark.parametrize("rate", [0.4, (0.04, 0.4)])
def test_the_rate_is_halved_after_every_so_many_batches(rate: Any) -> None:
    for batch in (0, 1, 9, 10, 19, 20, 35):
        by = 0.5 ** (batch // 10)
        now = tuple(r * by for r in rate) if isinstance(rate, tuple) else rate * by
        np.testing.assert_array_equal(mutated(rate, batch, halve_every=10), mutated(now, batch))


@pytest.mark.parametrize("rate", [0.1, (0.01, 0.5)])
@pytest.mark.parametrize("batch", [45, 60, 100, 1000, 2000, 10**6])
def test_a_rate_halved_to_zero_changes_nothing(batch: int, rate: Any) -> None:
    assert not mutated(rate, batch, halve_every=1).any()


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 200))
@settings(max_examples=200, deadline=None)
def test_a_polynomial_step_lies_within_one_rises_with_its_draw_and_is_even(u: float, eta: float) -> None:
    step = polynomial_step(u, eta)
    assert -1 <= step <= 1
    assert polynomial_step(max(0.0, u - 0.01), eta) <= step
    if 1e-6 < u < 1 - 1e-6:  # nearer to the ends 1 - u has lost the digits of u
        assert polynomial_step(1 - u, eta) == pytest.approx(-step, abs=1e-6)


@pytest.mark.parametrize("eta", [1.0, 15.0, 100.0])
def test_polynomial_steps_have_the_density_of_deb_and_agrawal(eta: float) -> None:
    steps = np.array([polynomial_step(u, eta) for u in (np.arange(20_000) + 0.5) / 20_000])
    assert np.abs(steps).mean() == pytest.approx(1 / (eta + 2), rel=1e-3)
    for t in (0.01, 0.1, 0.3):
        assert (np.abs(steps) > t).mean() == pytest.approx((1 - t) ** (eta + 1), abs=2e-4)
        assert (steps > t).mean() == pytest.approx((steps < -t).mean(), abs=2e-4)


def test_the_mean_step_in_grey_levels_is_that_of_the_docstring() -> None:
    encoding = Direct(rate=1.0, eta=15.0)
    mothers = np.full((100, 1, 28, 28), 128, np.uint8)
    steps = encoding.vary(mothers, mothers, Key(0, 0)).astype(int) - 128
    assert np.abs(steps).mean() == pytest.approx(255 / (15 + 2), rel=0.03)
    assert abs(steps.mean()) < 0.4


def test_black_and_white_pixels_do_not_wrap_around() -> None:
    encoding = Direct(rate=1.0, eta=50.0)
    for level, near in ((0, range(128)), (255, range(128, 256))):
        mothers = np.full((20, 1, 28, 28), level, np.uint8)
        assert set(encoding.vary(mothers, mothers, Key(0, 0)).ravel().tolist()) <= set(near)


# Crossover


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
    st.sampled_from([0.5, 2.0, 10.0, 30.0]),
)
@settings(max_examples=300, deadline=None)
def test_an_sbx_child_lies_between_its_bound_and_the_parents_mean(
    x: float, y: float, u: float, lower: bool, eta: float
) -> None:
    a, b = min(x, y), max(x, y)
    if b - a < 1 / 256:  # two pixels that differ do so by a grey level
        return
    child = sbx(a, b, u, lower, eta)
    mean, near = (a + b) / 2, 1e-12
    assert (0 <= child <= mean + near) if lower else (mean - near <= child <= 1)
    assert child == pytest.approx(slow_sbx(a, b, u, lower, eta), abs=1e-9)


def test_sbx_equals_the_bounded_sbx_of_deap(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        levels = rng.choice(256, 2, replace=False) / 255
        u, eta = rng.random(), rng.choice([2.0, 10.0])
        # deap draws whether to cross the gene, the spread, and whether to exchange the two children
        draws = iter([0.0, u, 1.0])
        monkeypatch.setattr("deap.tools.crossover.random", SimpleNamespace(random=lambda draws=draws: next(draws)))
        low, high = (child[0] for child in tools.cxSimulatedBinaryBounded([levels[0]], [levels[1]], eta, 0.0, 1.0))
        a, b = sorted(levels)
        assert sbx(a, b, u, True, eta) == pytest.approx(low, abs=1e-9)
        assert sbx(a, b, u, False, eta) == pytest.approx(high, abs=1e-9)


def test_genes_that_both_parents_share_are_kept_and_the_others_crossed() -> None:
    encoding = Direct(rate=NEVER, eta=15.0, crossover=1.0, eta_crossover=2.0)
    mothers, fathers = encoding.random(100, Key(1, 0)), encoding.random(100, Key(2, 0))
    shared = np.random.default_rng(0).random(mothers.shape) < 0.3
    fathers[shared] = mothers[shared]
    children = encoding.vary(mothers, fathers, Key(3, 0))
    np.testing.assert_array_equal(children[shared], mothers[shared])
    apart = np.abs(mothers.astype(int) - fathers) > 20
    assert (children != mothers)[apart].mean() > 0.8
    nearest = np.minimum(np.abs(children.astype(int) - mothers), np.abs(children.astype(int) - fathers))[apart]
    assert nearest.mean() < 40
    between = np.minimum(mothers, fathers), np.maximum(mothers, fathers)
    inside = (children >= between[0]) & (children <= between[1])
    assert 0.4 < inside[apart].mean() < 0.8  # a spread below 1 half the time, or more where a bound is near


def test_crossover_is_a_probability_per_child_and_favours_neither_parent() -> None:
    encoding = Direct(rate=NEVER, eta=15.0, crossover=0.3, eta_crossover=10.0)
    mothers, fathers = np.full((2000, 1, 28, 28), 60, np.uint8), np.full((2000, 1, 28, 28), 200, np.uint8)
    children = encoding.vary(mothers, fathers, Key(5, 0))
    crossed = (children != mothers).reshape(2000, -1).any(axis=1)
    assert abs(crossed.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    assert (children[crossed] < 130).mean() == pytest.approx(0.5, abs=0.01)


def test_without_crossover_the_father_has_no_effect() -> None:
    encoding = Direct(rate=0.1, eta=15.0, crossover=0.0)
    mothers = encoding.random(20, Key(1, 0))
    children = encoding.vary(mothers, mothers, Key(3, 0))
    np.testing.assert_array_equal(encoding.vary(mothers, encoding.random(20, Key(2, 0)), Key(3, 0)), children)


# What a child depends on


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_a_batch_split_into_chunks_has_the_same_children(encoding: Direct) -> None:
    key = Key(5, 6, 7)
    mothers, fathers = encoding.random(20, Key(1, 0)), encoding.random(20, Key(2, 0))
    whole, firsts = encoding.vary(mothers, fathers, key), encoding.random(20, key)
    for cuts in ([0, 1, 2, 20], [0, 7, 14, 20], list(range(21))):
        spans = list(pairwise(cuts))
        parts = [encoding.vary(mothers[a:b], fathers[a:b], key.at(a)) for a, b in spans]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(np.concatenate([encoding.random(b - a, key.at(a)) for a, b in spans]), firsts)
    for other in (Key(4, 6, 7), Key(5, 7, 7), Key(5, 6, 8)):
        assert (encoding.vary(mothers, fathers, other) != whole).any()


def test_vary_changes_no_parent_and_shares_no_memory_with_them() -> None:
    encoding = ENCODINGS["a halved range, crossed"]
    mothers, fathers = encoding.random(20, Key(1, 0)), encoding.random(20, Key(2, 0))
    children = encoding.vary(mothers, fathers, Key(3, 0))
    np.testing.assert_array_equal(mothers, encoding.random(20, Key(1, 0)))
    np.testing.assert_array_equal(fathers, encoding.random(20, Key(2, 0)))
    assert not np.shares_memory(children, mothers)
    assert not np.shares_memory(children, fathers)


# Drawing, bytes and text

SMALL = Direct(channels=3, height=4, width=5, rate=0.1, eta=15.0)


def test_a_genome_renders_as_itself_and_at_no_other_size() -> None:
    genomes = SMALL.random(7, Key(0, 0))
    np.testing.assert_array_equal(SMALL.render(genomes), genomes)
    np.testing.assert_array_equal(SMALL.render(genomes, (4, 5), threads=2), genomes)
    for size in ((5, 4), (8, 10), (28, 28)):
        with pytest.raises(
            GenomeError, match=f"4x5 pixels and cannot be rendered at {size[0]}x{size[1]}; only CPPNs and canvases can"
        ):
            SMALL.render(genomes, size)


def test_bytes_and_text_give_genomes_back() -> None:
    genomes = SMALL.random(7, Key(0, 0))
    blobs = [SMALL.pack(g) for g in genomes]
    assert blobs == [bytes(g.ravel().tolist()) for g in genomes]
    unpacked = SMALL.unpack(blobs)
    np.testing.assert_array_equal(unpacked, genomes)
    assert unpacked.flags.writeable
    for genome in genomes:
        text = json.dumps(SMALL.to_json(genome))
        np.testing.assert_array_equal(SMALL.from_json(json.loads(text)), genome[None])
    assert SMALL.unpack([]).shape == (0, 3, 4, 5)


def test_a_genome_of_another_memory_layout_has_the_same_bytes() -> None:
    genome = SMALL.random(1, Key(0, 0))[0]
    assert SMALL.pack(np.asfortranarray(genome)) == SMALL.pack(genome)
    assert SMALL.pack(np.repeat(genome, 2, axis=2)[:, :, ::2]) == SMALL.pack(genome)


def test_the_text_of_an_example() -> None:
    genome = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert Direct(channels=1, height=2, width=3).to_json(genome) == {
        "format": "evofool.direct",
        "version": 1,
        "shape": [1, 2, 3],
        "pixels": "AAECAwQF",
    }


TEXT = SMALL.to_json(SMALL.random(1, Key(0, 0))[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, '"format" has to be "evofool.direct"'),
        ([], '"format" has to be "evofool.direct"'),
        ({}, '"format" has to be "evofool.direct"'),
        (TEXT | {"format": "evofool.cppn"}, '"format" has to be "evofool.direct"'),
        (TEXT | {"version": 7}, "version 7; this evofool reads 1"),
        ({k: v for k, v in TEXT.items() if k != "version"}, "version None; this evofool reads 1"),
        (TEXT | {"shape": [3, 5, 4]}, r"shape \[3, 5, 4\]; expected \[3, 4, 5\]"),
        ({k: v for k, v in TEXT.items() if k != "shape"}, r"shape None; expected \[3, 4, 5\]"),
        ({k: v for k, v in TEXT.items() if k != "pixels"}, '"pixels" is missing'),
        (TEXT | {"pixels": None}, '"pixels" is missing or no base64'),
        (TEXT | {"pixels": [1, 2, 3]}, '"pixels" is missing or no base64'),
        (TEXT | {"pixels": "$$$$"}, '"pixels" is missing or no base64'),
        (TEXT | {"pixels": TEXT["pixels"][:-1]}, "59 bytes|no base64"),
        (TEXT | {"pixels": base64.b64encode(bytes(59)).decode()}, r"59 bytes; \(3, 4, 5\) needs 60"),
        (TEXT | {"pixels": ""}, r"0 bytes; \(3, 4, 5\) needs 60"),
    ],
)
def test_errors_for_an_invalid_text_name_the_fault(data: Any, message: str) -> None:
    with pytest.raises(GenomeError, match=message):
        SMALL.from_json(data)


@pytest.mark.parametrize("length", [0, 1, 59, 61, 120])
def test_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(GenomeError, match=rf"{length} bytes; \(3, 4, 5\) needs 60"):
        SMALL.unpack([bytes(60), bytes(length)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, r"rate is 0.0; it has to lie in \(0, 1\]"),
        ({"rate": 1.1}, "rate is 1.1"),
        ({"rate": math.nan}, "rate is nan"),
        ({"rate": (0.5, 0.1)}, "rate is .0.5, 0.1.; .* low before high"),
        ({"rate": (0.0, 0.1)}, "rate is .0.0, 0.1."),
        ({"eta": 0.0}, "eta 0.0 and eta_crossover 10.0 have to be > 0"),
        ({"eta_crossover": -1.0}, "eta_crossover -1.0"),
        ({"start": "grey"}, 'start is "grey"; it has to be "noise" or "shades"'),
    ],
)
def test_errors_name_invalid_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Direct(**settings)


# At the edges of numbers and of memory


def test_a_range_of_rates_halved_until_its_low_end_is_zero_changes_nothing() -> None:
    assert not mutated((0.01, 0.5), 1070, count=5, halve_every=1).any()


def test_parents_of_another_memory_layout_have_the_same_children() -> None:
    mothers = SMALL.random(6, Key(0, 0))
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(mothers, 1, -1)), -1, 1)
    np.testing.assert_array_equal(channels_last, mothers)
    key = Key(1, 0)
    np.testing.assert_array_equal(SMALL.vary(channels_last, channels_last, key), SMALL.vary(mothers, mothers, key))


def test_pixels_outside_ascii_are_refused_as_a_genome_error() -> None:
    with pytest.raises(GenomeError, match='"pixels" is missing or no base64'):
        SMALL.from_json(TEXT | {"pixels": "é" * 80})
