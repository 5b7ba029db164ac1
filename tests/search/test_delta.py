"""Big genomes are kept as differences, and come back to the bit."""

import numpy as np
import pytest

from evofool.errors import StoreError
from evofool.recipe import parse
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.search.delta import MAX_STEPS, MIN_BYTES, apply_difference, difference
from evofool.targets import Target
from genomes import Direct, Key

SIDE = 130  # 16,900 bytes of pixels


def test_a_child_comes_back_from_its_difference_to_the_bit() -> None:
    encoding = Direct(1, SIDE, SIDE, rate=0.05)
    mothers = encoding.random(6, Key(1, 0))
    children = encoding.vary(mothers, mothers, Key(1, 1))
    for mother, child in zip(mothers, children, strict=True):
        less = difference(encoding.pack(child), encoding.pack(mother))
        assert less is not None
        assert len(less) < SIDE * SIDE / 4
        assert apply_difference(less, encoding.pack(mother)) == encoding.pack(child)


def test_what_would_not_be_shorter_is_kept_whole() -> None:
    noise = np.random.default_rng(0).bytes(2 * MIN_BYTES)
    assert difference(noise[:MIN_BYTES], noise[MIN_BYTES:]) is None
    assert difference(bytes(100), bytes(100)) is None, "too small to be worth it"
    assert difference(bytes(MIN_BYTES), bytes(MIN_BYTES + 1)) is None, "of another size"


def test_a_damaged_difference_is_refused() -> None:
    less = difference(bytes(MIN_BYTES), bytes(MIN_BYTES))
    assert less is not None
    for broken in (b"", less[:-1], b"y" + less[1:]):
        with pytest.raises(ValueError, match="damaged"):
            apply_difference(broken, bytes(MIN_BYTES))
    with pytest.raises(ValueError, match="damaged"):
        apply_difference(less, bytes(MIN_BYTES - 1))


def target() -> Target:
    weights = np.random.default_rng(9).integers(-8, 9, (SIDE * SIDE, 5))

    def linear(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1).astype(np.int64) @ weights / 65536.0).astype(np.float32)

    return Target("fake", list("abcde"), (1, SIDE, SIDE), linear, {})


def test_a_run_of_big_pixels_keeps_differences_and_goes_on_from_them(tmp_path) -> None:
    encoding = {"kind": "direct", "rate": 0.01}
    recipe = parse({"encoding": encoding, "search": {"batch": 4, "lag": 1}, "stop": {"evaluations": 1200}}, "test")
    with Run.start(recipe, tmp_path / "unbroken", target()) as run:
        run.advance()
    with Run.start(recipe, tmp_path / "cut", target()) as run:
        run.advance(batches=90)
    with Run.resume(tmp_path / "cut", target=target()) as run:
        run.advance()
    held = []
    for name in ("unbroken", "cut"):
        with Store.open(tmp_path / name) as store:
            steps = store.steps()
            births = {change.birth for change in store.cell_history()}
            genomes = store.genomes(births)
            sizes = dict(store._db.execute("SELECT birth, LENGTH(genome) FROM genomes"))
        assert max(steps.values()) == MAX_STEPS
        assert sum(sizes.values()) < 0.25 * len(births) * SIDE * SIDE
        held.append((steps, genomes))
        with StoredRun(tmp_path / name) as stored:
            assert not verify(stored, target()).faults
    assert held[0] == held[1]


def test_a_difference_from_nothing_is_told_as_damage(tmp_path) -> None:
    recipe = parse({"encoding": {"kind": "direct"}, "search": {"batch": 4}, "stop": {"evaluations": 80}}, "test")
    with Run.start(recipe, tmp_path, target()) as run:
        run.advance()
        births = {change.birth for change in run.store.cell_history()}
        run.store._db.execute("UPDATE genomes SET steps = 1, mother = birth")
        with pytest.raises(StoreError, match="is damaged"):
            run.store.genomes(births)
