"""The elites in memory, against a dict and a set."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from evofool.search.archive import Archive, Winners
from genomes import Direct, Key

ENCODING = Direct(1, 2, 3)


class SlowArchive:
    """Per cell the (score, birth) that wins: the highest score and, of equals, the lowest birth."""

    def __init__(self) -> None:
        self.cells: dict[int, tuple[float, int, float, float]] = {}

    def add(self, w: Winners) -> list[bool]:
        changed = []
        for cell, row, score, log_odds, margin in zip(w.cells, w.rows, w.scores, w.log_odds, w.margins, strict=True):
            birth = int(w.births[row])
            old = self.cells.get(int(cell))
            better = old is None or score > old[0] or (score == old[0] and birth < old[1])
            if better:
                self.cells[int(cell)] = (float(score), birth, float(log_odds), float(margin))
            changed.append(better)
        return changed

    def check(self, archive: Archive) -> None:
        """archive holds the same elites, each with the genome of its birth."""
        held = sorted(self.cells)
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


def random_winners(rng: np.random.Generator, first_birth: int, size: int, cells: int, scores: int = 6) -> Winners:
    """A batch in which few genomes win many cells, with scores of so few values that ties are common."""
    chosen = np.sort(rng.choice(cells, rng.integers(1, cells + 1), replace=False))
    rows = rng.integers(0, rng.integers(1, size + 1), len(chosen))
    used, rows = np.unique(rows, return_inverse=True)
    births = first_birth + used
    ranked = rng.integers(0, scores, len(chosen)).astype(np.float64)
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
    births = np.array(sorted({birth for _, _, birth in claims}))
    scores = np.array([float(score) for _, score, _ in claims])
    rows = np.searchsorted(births, [birth for _, _, birth in claims])
    cells = np.array([cell for cell, _, _ in claims])
    nobody = np.full(len(births), -1)
    return Winners(births, nobody, nobody, genome_of(births), cells, rows, scores, scores, scores)


def state(archive: Archive) -> tuple[list[float], ...]:
    held = np.flatnonzero(archive.birth >= 0)
    arrays = (archive.birth, archive.score, archive.log_odds, archive.margin, archive.genomes(held))
    return tuple(a.ravel().tolist() for a in arrays)


@pytest.mark.parametrize(("classes", "niches"), [(2, 1), (10, 1), (4, 3), (1, 7)])
def test_a_hundred_random_batches_leave_what_a_dict_would_hold(classes: int, niches: int) -> None:
    rng = np.random.default_rng(classes * 10 + niches)
    for _ in range(5):
        archive, slow = Archive(ENCODING, classes, niches), SlowArchive()
        slow.check(archive)
        for batch in range(100):
            w = random_winners(rng, batch * 8, 8, classes * niches, scores=6 + batch // 10)
            assert archive.add(w).tolist() == slow.add(w)
            slow.check(archive)


def test_the_order_in_which_batches_come_changes_nothing_at_the_end() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        batches = [random_winners(rng, batch * 8, 8, 12) for batch in range(5)]
        ends = set()
        for order in permutations(range(5)):
            archive = Archive(ENCODING, 4, 3)
            for batch in order:
                archive.add(batches[batch])
            ends.add(str(state(archive)))
        assert len(ends) == 1


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
