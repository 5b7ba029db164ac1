"""The lists of cells in memory, against dicts, sorting and a set."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evofool.search.archive import Archive, Winners, best_of_cells
from genomes import Direct, Key
from genomes.random import integers

ENCODING = Direct(1, 2, 3)


class SlowArchive:
    """Per cell the best `keep` of all (score, birth): the highest scores and, of equals, the lowest births."""

    def __init__(self, keep: int = 1) -> None:
        self.keep = keep
        self.lists: dict[int, list[tuple[float, int, float, float]]] = {}

    @property
    def cells(self) -> dict[int, tuple[float, int, float, float]]:
        """By cell its elite."""
        return {cell: of[0] for cell, of in self.lists.items()}

    def add(self, w: Winners) -> list[bool]:
        claims = [
            (int(cell), (float(score), int(w.births[row]), float(log_odds), float(margin)))
            for cell, row, score, log_odds, margin in zip(w.cells, w.rows, w.scores, w.log_odds, w.margins, strict=True)
        ]
        before = {cell: list(of) for cell, of in self.lists.items()}
        for cell, claim in claims:
            self.lists[cell] = sorted({*self.lists.get(cell, ()), claim}, key=lambda of: (-of[0], of[1]))
        self.lists = {cell: of[: self.keep] for cell, of in self.lists.items()}
        return [claim in self.lists[cell] and claim not in before.get(cell, ()) for cell, claim in claims]

    def check(self, archive: Archive) -> None:
        """archive holds the same lists, each elite with the genome of its birth."""
        held = sorted(self.cells)
        for cell, births in enumerate(archive.births.tolist()):
            of = self.lists.get(cell, [])
            padding = self.keep - len(of)
            assert births == [birth for _, birth, _, _ in of] + [-1] * padding
            assert archive.scores[cell].tolist() == [score for score, *_ in of] + [-np.inf] * padding
        known = {birth for of in self.lists.values() for _, birth, _, _ in of}
        assert set(archive._genomes) == set(archive._uses) == known
        assert sum(archive._uses.values()) == sum(map(len, self.lists.values()))
        for birth, genome in archive.of_births(known).items():
            assert np.array_equal(genome, genome_of(np.array([birth])))
        assert len(archive) == len(held)
        assert np.flatnonzero(archive.birth >= 0).tolist() == held
        for name, place, empty in (
            ("score", 0, -np.inf),
            ("birth", 1, -1),
            ("log_odds", 2, -np.inf),
            ("margin", 3, -np.inf),
        ):
            values = getattr(archive, name)
            assert [v for c, v in enumerate(values.tolist()) if c in self.cells] == [self.cells[c][place] for c in held]
            assert all(v == empty for c, v in enumerate(values.tolist()) if c not in self.cells)
        if held:
            genomes = archive.genomes(np.array(held))
            assert np.array_equal(genomes, genome_of(np.array([self.cells[c][1] for c in held])))
        assert archive.distinct() == len({birth for _, birth, _, _ in self.cells.values()})


def genome_of(births: np.ndarray) -> np.ndarray:
    """A genome that tells its birth."""
    digits = np.stack([births // 256**k % 256 for k in range(6)], axis=1)
    return digits.astype(np.uint8).reshape(-1, 1, 2, 3)


def random_winners(
    rng: np.random.Generator, first_birth: int, size: int, cells: int, scores: int = 6, keep: int = 1
) -> Winners:
    """A batch in which few genomes win many cells, with scores of so few values that ties are common."""
    number = rng.integers(1, cells + 1)
    chosen = np.sort(np.concatenate([rng.choice(cells, number, replace=False) for _ in range(rng.integers(1, keep + 1))]))
    rows = rng.integers(0, rng.integers(1, size + 1), len(chosen))
    ranked = rng.integers(0, scores, len(chosen)).astype(np.float64)
    best = best_of_cells(chosen, ranked, rows, keep)
    chosen, rows, ranked = chosen[best], rows[best], ranked[best]
    used, rows = np.unique(rows, return_inverse=True)
    births = first_birth + used
    return Winners(
        births=births,
        mothers=np.full(len(births), -1),
        fathers=np.full(len(births), -1),
        genomes=genome_of(births),
        cells=chosen,
        rows=rows,
        scores=ranked,
        log_odds=ranked + 0.25,
        margins=ranked - 0.25,
    )


def winners_of(*claims: tuple[int, float, int]) -> Winners:
    """(cell, score, birth), every birth a genome of its own."""
    claims = tuple(sorted(claims, key=lambda claim: (claim[0], -claim[1], claim[2])))
    births = np.array(sorted({birth for _, _, birth in claims}), np.int64)
    scores = np.array([float(score) for _, score, _ in claims])
    rows = np.searchsorted(births, [birth for _, _, birth in claims])
    cells = np.array([cell for cell, _, _ in claims], np.int64)
    nobody = np.full(len(births), -1)
    return Winners(births, nobody, nobody, genome_of(births), cells, rows, scores, scores, scores)


def state(archive: Archive) -> tuple[list[float], ...]:
    held = np.flatnonzero(archive.birth >= 0)
    arrays = (archive.births, archive.scores, archive.log_odds, archive.margin, archive.genomes(held))
    return tuple(a.ravel().tolist() for a in arrays)


@pytest.mark.parametrize("keep", [1, 2, 8])
@pytest.mark.parametrize(("classes", "niches"), [(2, 1), (10, 1), (4, 3), (1, 7)])
def test_a_hundred_random_batches_leave_what_sorted_lists_would_hold(classes: int, niches: int, keep: int) -> None:
    rng = np.random.default_rng(classes * 10 + niches)
    for _ in range(5):
        archive, slow = Archive(ENCODING, classes, niches, keep), SlowArchive(keep)
        slow.check(archive)
        for batch in range(100):
            w = random_winners(rng, batch * 8, 8, classes * niches, scores=6 + batch // 10, keep=keep)
            assert archive.add(w).tolist() == slow.add(w)
            slow.check(archive)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_order_in_which_batches_come_changes_nothing_at_the_end(keep: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        batches = [random_winners(rng, batch * 8, 8, 12, keep=keep) for batch in range(5)]
        ends = set()
        for order in permutations(range(5)):
            archive = Archive(ENCODING, 4, 3, keep)
            for batch in order:
                archive.add(batches[batch])
            ends.add(str(state(archive)))
        assert len(ends) == 1


Claims = list[tuple[int, int, int]]
"""(cell, birth, score), of a birth the same score in a cell."""


@given(st.data(), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_lists_are_the_best_of_all_claims_in_any_order_and_repetition(data: st.DataObject, keep: int, parts: int) -> None:
    claims: Claims = [
        (cell, birth, score)
        for (cell, birth), score in data.draw(
            st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 15)), st.integers(0, 3), min_size=1)
        ).items()
    ]
    archive = Archive(ENCODING, 3, keep=keep)
    sent = [*data.draw(st.lists(st.lists(st.sampled_from(claims), min_size=1), max_size=4)), claims]
    for batch in data.draw(st.permutations(sent)):
        pieces = [winners_of(*((c, s, b) for c, b, s in dict.fromkeys(batch[i::parts]))) for i in range(parts)]
        archive.add(Winners.merged([*pieces, pieces[0]], keep))
    for cell in range(3):
        best = sorted((-score, birth) for c, birth, score in claims if c == cell)[:keep]
        assert [birth for birth in archive.births[cell].tolist() if birth >= 0] == [birth for _, birth in best]
        assert archive.scores[cell].tolist() == [-s for s, _ in best] + [-np.inf] * (keep - len(best))
    held = set(archive.births.ravel().tolist()) - {-1}
    assert {birth: genome.tolist() for birth, genome in archive.of_births(held).items()} == {
        birth: genome_of(np.array([birth])).tolist() for birth in held
    }


def test_a_birth_with_another_score_keeps_the_better_one() -> None:
    """Not within a search, where the same rows give the same winners."""
    archive = Archive(ENCODING, 1, keep=3)
    for score in (2.0, 5.0, 3.0):
        archive.add(winners_of((0, score, 7)))
    assert (archive.births.tolist(), archive.scores[0, 0]) == ([[7, -1, -1]], 5.0)


def test_merged_parts_have_the_best_of_each_cell_and_their_genomes() -> None:
    rng = np.random.default_rng(4)
    for keep in (1, 2, 4):
        parts = [random_winners(rng, part * 8, 8, 6, keep=keep) for part in range(3)]
        once, again = Winners.merged(parts, keep), Winners.merged([parts[2], parts[0], parts[2], parts[1]], keep)
        for name in ("births", "mothers", "fathers", "genomes", "cells", "rows", "scores", "log_odds", "margins"):
            assert np.array_equal(getattr(once, name), getattr(again, name)), name
        assert np.array_equal(once.genomes, genome_of(once.births))
        claims = sorted(
            (cell, -score, int(p.births[row]))
            for p in parts
            for cell, row, score in zip(p.cells.tolist(), p.rows.tolist(), p.scores.tolist(), strict=True)
        )
        best = [claim for cell in range(6) for claim in [c for c in claims if c[0] == cell][:keep]]
        assert list(zip(once.cells.tolist(), (-once.scores).tolist(), once.births[once.rows].tolist(), strict=True)) == best


def test_adding_a_batch_again_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    archive = Archive(ENCODING, 4, 3)
    batches = [random_winners(rng, batch * 8, 8, 12) for batch in range(20)]
    for w in batches:
        archive.add(w)
    before = state(archive)
    for w in rng.permutation(20):
        assert not archive.add(batches[w]).any()
    assert state(archive) == before


def test_of_equal_scores_the_lower_birth_holds_the_cell() -> None:
    archive = Archive(ENCODING, 3)
    assert archive.add(winners_of((1, 5.0, 20))).tolist() == [True]
    assert archive.add(winners_of((1, 5.0, 21))).tolist() == [False]
    assert archive.add(winners_of((1, 5.0, 19))).tolist() == [True]
    assert archive.birth.tolist() == [-1, 19, -1]


def test_only_the_cells_that_changed_hands_are_told() -> None:
    archive = Archive(ENCODING, 3)
    archive.add(winners_of((0, 1.0, 1), (1, 3.0, 2)))
    assert archive.add(winners_of((0, 2.0, 3), (1, 2.0, 3), (2, -9.0, 4))).tolist() == [True, False, True]
    assert archive.birth.tolist() == [3, 2, 4]


def test_a_genome_that_takes_every_cell_is_kept_once_and_slots_never_run_out() -> None:
    archive = Archive(ENCODING, 10)
    for birth in range(200):
        archive.add(winners_of(*((cell, birth, birth) for cell in range(10))))
        assert archive.distinct() == 1
        archive.add(winners_of(*((cell, birth + 0.5, 1000 + birth * 10 + cell) for cell in range(10))))
        assert archive.distinct() == 10


def test_genomes_are_copies() -> None:
    archive = Archive(ENCODING, 2)
    w = winners_of((0, 1.0, 7))
    archive.add(w)
    w.genomes[:] = 0
    archive.genomes(np.array([0]))[:] = 0
    assert np.array_equal(archive.genomes(np.array([0, 0])), genome_of(np.array([7, 7])))


def test_best_is_the_highest_log_odds_over_a_class_s_niches() -> None:
    one = Archive(ENCODING, 3)
    one.add(winners_of((0, 4.0, 1)))
    assert one.best().tolist() == [4.0, -np.inf, -np.inf]
    three = Archive(ENCODING, 3, 3)
    three.add(winners_of((0, 1.0, 1), (2, 2.0, 2), (8, -5.0, 3)))
    assert three.best().tolist() == [2.0, -np.inf, -5.0]


def filled(classes: int, niches: int, cells: list[int]) -> Archive:
    archive = Archive(ENCODING, classes, niches)
    archive.add(winners_of(*((cell, 1.0, 100 + cell) for cell in cells)))
    return archive


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((n - expected) ** 2 / expected for n in counts)


def test_samples_are_filled_cells_drawn_uniformly() -> None:
    cells = [0, 3, 4, 9, 11]
    archive = filled(4, 3, cells)
    drawn = Counter(archive.sample(20_000, Key(5, 6)).tolist())
    assert sorted(drawn) == cells
    assert chi_square([drawn[c] for c in cells]) < 25  # 4 degrees of freedom: one seed in 20,000 is above


def test_samples_are_uniform_over_cells_where_one_genome_holds_most_of_them() -> None:
    archive = Archive(ENCODING, 10)
    archive.add(winners_of(*((cell, 1.0, 7) for cell in range(9)), (9, 1.0, 8)))
    drawn = Counter(archive.sample(20_000, Key(1, 1)).tolist())
    assert chi_square([drawn[c] for c in range(10)]) < 35


@pytest.mark.parametrize("tournament", [2, 6])
def test_a_tournament_draws_the_worst_of_so_many_cells_and_the_first_of_equals(tournament: int) -> None:
    scores = [5.0, 1.0, 3.0, 1.0, 9.0, 2.0, 8.0, 4.0, 7.0, 6.0]
    archive = Archive(ENCODING, 10)
    archive.add(winners_of(*((cell, score, 100 + cell) for cell, score in enumerate(scores))))
    rounds = integers(Key(5, 6), 10, tournament * 3000).reshape(tournament, 3000)
    slow = [min(column, key=lambda cell: scores[cell]) for column in rounds.T.tolist()]
    drawn = archive.sample(3000, Key(5, 6), tournament)
    assert drawn.tolist() == slow
    worst = 1 - 0.8**tournament  # of the two cells with the lowest score
    assert abs(np.isin(drawn, [1, 3]).mean() - worst) < 4 * np.sqrt(worst * (1 - worst) / 3000)


def test_the_same_key_draws_the_same_cells_and_another_key_others() -> None:
    archive = filled(4, 3, [0, 3, 4, 9, 11])
    keys = [Key(1, 2), Key(1, 2, 3), Key(1, 3), Key(2, 2)]
    draws = [archive.sample(200, key).tolist() for key in keys]
    assert draws == [archive.sample(200, key).tolist() for key in keys]
    assert len({str(d) for d in draws}) == len(keys)


def test_sampling_takes_nothing_out() -> None:
    archive = filled(4, 3, [1, 2, 7])
    before = state(archive)
    archive.sample(100, Key(0, 0))
    archive.sample(100, Key(0, 1), claims=np.zeros(100, np.int64))
    assert state(archive) == before


def test_claims_are_drawn_from_the_filled_niches_of_their_class_alone() -> None:
    cells = [0, 2, 4, 9, 10, 11]
    archive = filled(4, 3, cells)
    claims = np.tile([0, 1, 3], 5_000)
    drawn = archive.sample(len(claims), Key(3, 4), claims=claims)
    assert np.array_equal(drawn // 3, claims)
    counts = Counter(drawn.tolist())
    assert sorted(counts) == cells
    assert chi_square([counts[c] for c in (0, 2)]) < 17
    assert chi_square([counts[c] for c in (9, 10, 11)]) < 20


# --- couples


def listed(sizes: list[int], keep: int) -> Archive:
    """Cell c has sizes[c] genomes, with the births 10 c, 10 c + 1, ... from the best."""
    archive = Archive(ENCODING, len(sizes), keep=keep)
    archive.add(winners_of(*((c, -float(place), 10 * c + place) for c, size in enumerate(sizes) for place in range(size))))
    return archive


def test_a_mother_is_the_elite_in_80_percent_and_a_father_is_another_of_the_list() -> None:
    archive = listed([4, 2, 1], 4)
    cells = np.repeat([0, 1, 2], 10_000)
    mothers, fathers = archive.couples(cells, Key(7, 8))
    assert (mothers // 10 == cells).all()
    assert (fathers[cells == 2] == -1).all(), "an only genome has no partner"
    assert (mothers[cells == 2] == 20).all()
    assert (fathers != mothers).all()
    for cell, size in ((0, 4), (1, 2)):
        of = cells == cell
        assert (fathers[of] // 10 == cell).all()
        counts = Counter((mothers[of] % 10).tolist())
        assert counts[0] / 10_000 == pytest.approx(0.8 + 0.2 / size, abs=0.02)
        assert chi_square([counts[place] for place in range(1, size)]) < 20
        for mother in range(size):
            others = Counter((fathers[of & (mothers % 10 == mother)] % 10).tolist())
            assert sorted(others) == [place for place in range(size) if place != mother]
            assert chi_square(list(others.values())) < 20


def test_couples_are_keyed() -> None:
    archive = listed([4, 3], 4)
    cells = np.tile([0, 1], 50)
    draws = [np.stack(archive.couples(cells, key)).tolist() for key in (Key(1, 2), Key(1, 2), Key(1, 3), Key(1, 2, 9))]
    assert draws[0] == draws[1]
    assert len({str(draw) for draw in draws}) == 3
