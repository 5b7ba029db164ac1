"""Genomes that a file keeps by their parents: made again, to the bit, wherever one is read."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.errors import StoreError
from evofool.recipe import parse
from evofool.run.checkpoints import CheckpointWriter
from evofool.run.lineage import lineage
from evofool.run.merge import merge
from evofool.run.reader import FILE
from evofool.run.replay import content, differences, replay
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.search.remaking import MAX_MADE, variation_of
from evofool.search.stored_genomes import StoredGenomes
from evofool.targets import Target
from genomes import Canvas, Key
from genomes.canvas.operators import VERSION
from tests.synthetic import fake

SHAPE, CLASSES, BATCH = (3, 64, 64), 6, 8
Genes = dict[int, bytes]


@pytest.fixture
def genes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Genes]:
    """By birth the packed genomes of a search, as they were when they entered the archive."""
    found: Genes = {}
    form = StoredGenomes.form

    def noted(self: StoredGenomes, birth: int, *rest: Any) -> tuple[bytes, int]:
        found[birth] = self._encoding.pack(rest[1][0])
        return form(self, birth, *rest)

    monkeypatch.setattr(StoredGenomes, "form", noted)
    yield found
    monkeypatch.setattr(StoredGenomes, "form", form)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end as if they were killed after their last checkpoint."""
    take = CheckpointWriter.take
    monkeypatch.setattr(CheckpointWriter, "take", lambda self, *given, end=False: take(self, *given[:3]))


def target() -> Target:
    return fake(shape=SHAPE, classes=CLASSES)


def recipe(seed: int = 0, **parts: Any) -> Any:
    data = {"encoding": {"kind": "canvas"}, "search": {"batch": BATCH, "lag": 1, "seed": seed}, "stop": {"evaluations": 640}}
    return parse(data | parts, "test")


def run(folder: Path, *given: Any, **named: Any) -> Path:
    with Run.start(recipe(*given, **named), folder, target()) as search:
        search.advance()
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("sound") / "run")


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def forms(folder: Path) -> dict[int, tuple[bytes, int]]:
    with closing(sqlite3.connect(folder / FILE)) as db:
        return {birth: (genome, steps) for birth, genome, steps in db.execute("SELECT birth, genome, steps FROM genomes")}


def change(folder: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        db.execute(statement, values)


def made_births(folder: Path) -> list[int]:
    return [birth for birth, (genome, steps) in forms(folder).items() if steps]


# -- what is stored, and what is read


def test_every_genome_that_was_ever_an_elite_is_read_as_it_was(tmp_path: Path, genes: Genes) -> None:
    for number, settings in enumerate(({}, {"start": "waves"}, {"start": "noise"}, {"cosines": 16})):
        genes.clear()
        folder = run(tmp_path / str(number), number, encoding={"kind": "canvas", **settings})
        stored = forms(folder)
        assert stored.keys() == genes.keys()
        by_parents = {birth for birth, (_, steps) in stored.items() if steps}
        assert len(by_parents) > 0.5 * len(stored)
        assert {variation_of(stored[birth][0]) for birth in by_parents} == {VERSION}
        assert 8 < max(steps for _, steps in stored.values()) <= MAX_MADE
        with Store.open(folder) as store:
            assert store.genomes(genes) == genes
        with StoredRun(folder) as of:
            together = of.genomes(list(genes))
            assert [of.encoding.pack(genome) for genome in together] == list(genes.values())
            for birth in list(genes)[::-40]:
                assert of.encoding.pack(of.genomes([birth])[0]) == genes[birth]
            elite = max(of.elites(), key=lambda elite: elite.row.birth)
            line = lineage(of, elite.row.birth)
            assert len(line) > 4
            expected = of.encoding.render(of.encoding.unpack([genes[ancestor.birth] for ancestor in line]))
            np.testing.assert_array_equal([ancestor.image for ancestor in line], expected)


@pytest.mark.parametrize("keep", [1, 4])
def test_elites_runners_up_and_parents_of_orders_are_whole_at_a_clean_end(tmp_path: Path, keep: int) -> None:
    folder = run(tmp_path / "run", search={"batch": BATCH, "lag": 1, "keep": keep})
    stored = forms(folder)
    with Store.open(folder) as store:
        needed = {row.birth for row in store.elites()} | {*store.lists("log_odds").births.tolist()}
        for order in store.pending():
            needed |= {*order.mothers.tolist(), *order.fathers.tolist()} - {-1}
    assert len(needed) > 3 * keep
    assert all(stored[birth][1] == 0 for birth in needed)


def test_a_file_has_at_most_a_third_of_the_bytes_of_whole_genomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = {"evaluations": 3200}
    small = run(tmp_path / "small", stop=longer)
    with monkeypatch.context() as patch:
        patch.setattr(Canvas, "variation", "")
        large = run(tmp_path / "large", stop=longer)
    assert (small / FILE).stat().st_size <= (large / FILE).stat().st_size / 3
    with StoredRun(small) as one, StoredRun(large) as other:
        assert differences(content(one), content(other)) == []


def test_small_canvases_are_stored_whole() -> None:
    assert Canvas(1, 32, 32, mirror=1).variation == Canvas(3, 20, 20, mirror=1).variation == VERSION
    assert Canvas(1, 28, 28, mirror=1).variation == Canvas(3, 28, 28).variation == ""


def test_the_number_of_genomes_that_are_made_for_one_is_bounded_however_long_a_line_is() -> None:
    """Without selection, every child has both parents of the generation before it."""
    encoding = Canvas(*SHAPE, start="noise")
    kept, genome = StoredGenomes(encoding), encoding.random(1, Key(0, 0))
    rows: dict[int, tuple[int, int, int]] = {}
    for birth in range(2, 400, 2):
        for own in (birth, birth + 1):
            parents = (birth - 2, birth - 1) if birth > 2 else (-1, -1)
            _, steps = kept.form(own, parents, genome, {})
            rows[own] = (steps, *parents)

    def ancestors(birth: int) -> set[int]:
        steps, *parents = rows[birth]
        return {birth}.union(*map(ancestors, {*parents} - {-1})) if steps else set()

    numbers = [len(ancestors(birth)) for birth in rows]
    assert 3 < max(numbers) <= MAX_MADE
    assert all(number <= steps for number, (steps, *_) in zip(numbers, rows.values(), strict=True))
    assert 0 < sum(not steps for steps, *_ in rows.values()) < len(rows) / 3


# -- going on


def test_a_run_that_was_killed_goes_on_to_the_same_end(sound: Path, tmp_path: Path, killed: None) -> None:
    folder = tmp_path / "cut"
    with Run.start(recipe(), folder, target()) as search:
        search.advance(batches=33)
        assert any(forms(folder)[birth][1] for birth in search.archive.held())
    with Run.resume(folder, target=target()) as search:
        search.advance()
    with StoredRun(folder) as one, StoredRun(sound) as other:
        assert differences(content(one), content(other)) == []


def test_a_replay_is_equal_and_a_seeded_run_begins_with_the_elites(copy: Path, tmp_path: Path) -> None:
    assert replay(copy, tmp_path / "again", target()).differences == ()
    child = run(tmp_path / "child", search={"batch": BATCH, "parents": str(copy)})
    with Store.open(copy) as store:
        elites = {*store.genomes({row.birth for row in store.elites()}).values()}
    with Store.open(child) as store:
        number = len(elites)
        assert {*store.genomes(range(number)).values()} == elites
    with StoredRun(child) as stored:
        assert verify(stored, target()).faults == ()
        assert replay(child, tmp_path / "child again", target()).differences == ()


# -- other operators


def test_a_genome_of_other_operators_is_refused_and_the_elites_are_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Canvas, "variation", "canvas 2")
    birth = made_births(copy)[-1]
    sentence = f'birth {birth} is stored by its parents .* of version "canvas 1"; this evofool has "canvas 2". Use the'
    with StoredRun(copy) as stored:
        for elite in stored.elites():
            np.testing.assert_array_equal(stored.encoding.render(stored.genome(elite))[0], elite.image)
        with pytest.raises(StoreError, match=sentence):
            stored.store.genomes([birth])
        with pytest.raises(StoreError, match=sentence):
            stored.genomes([birth])
        assert any("canvas 1" in fault for fault in verify(stored, target()).faults)


def test_a_run_that_ended_cleanly_goes_on_with_other_operators_and_one_that_was_killed_does_not(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = recipe(stop={"evaluations": 800})
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "take", lambda self, *given, take=CheckpointWriter.take: take(self, *given[:3]))
        cut = run(tmp_path / "cut")
    monkeypatch.setattr(Canvas, "variation", "canvas 2")
    with pytest.raises(StoreError, match='of version "canvas 1"; this evofool has "canvas 2"'):
        Run.resume(cut, longer, target())
    with Run.resume(copy, longer, target()) as search:
        search.advance()
    later = [genome for birth, (genome, steps) in forms(copy).items() if steps and birth >= 656]
    assert later
    assert {variation_of(genome) for genome in later} == {"canvas 2"}
    with Store.open(copy) as store:
        store.genomes(birth for birth in forms(copy) if birth >= 656)


# -- merging


def test_merged_runs_have_every_ancestor_whatever_their_rates(sound: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "other", 1, encoding={"kind": "canvas", "rates": {"blend": 5.0}}, search={"batch": 5, "seed": 2})
    merge([sound, other], tmp_path / "merged")
    merge([tmp_path / "merged", other], tmp_path / "again")
    for name in ("merged", "again"):
        with StoredRun(tmp_path / name) as stored:
            assert verify(stored, target()).faults == ()
            births = stored.store.births()
            assert {variation_of(forms(tmp_path / name)[birth][0]) for birth in births} == {None, VERSION}
            origins, ours = stored.store.origins(), stored.store.genomes(births)
        for folder in (sound, other):
            with StoredRun(folder) as source:
                own = {birth: there for birth, (id_, there) in origins.items() if id_ == source.meta.id}
                theirs = source.store.genomes(own.values())
            assert own
            assert {there: ours[birth] for birth, there in own.items()} == theirs


def test_two_states_of_one_run_merge_though_one_has_a_genome_whole(copy: Path, tmp_path: Path, killed: None) -> None:
    early = tmp_path / "early"
    with Run.start(recipe(), early, target()) as search:
        search.advance(batches=33)
    change(early, "UPDATE meta SET value = (SELECT ?) WHERE key = 'id'", f'"{meta_id(copy)}"')
    for number, order in enumerate(([copy, early], [early, copy])):
        merge(order, tmp_path / str(number))
        with StoredRun(tmp_path / str(number)) as stored:
            assert verify(stored, target()).faults == ()
    with StoredRun(tmp_path / "0") as one, StoredRun(tmp_path / "1") as other:
        assert differences(content(one), content(other)) == []
        assert forms(tmp_path / "0") == forms(tmp_path / "1")


def meta_id(folder: Path) -> str:
    with Store.open(folder) as store:
        return store.meta().id


# -- damage


def father(folder: Path) -> tuple[int, int]:
    """A genome that is stored by two parents, and another possible father."""
    with closing(sqlite3.connect(folder / FILE)) as db:
        found = db.execute("SELECT birth, mother FROM genomes WHERE steps > 0 AND father >= 0 AND father <> mother LIMIT 1")
        birth, mother = found.fetchone()
        return birth, mother


DAMAGE: dict[str, Callable[[int, int], tuple[str, tuple[Any, ...]]]] = {
    "another father": lambda birth, mother: ("UPDATE genomes SET father = ? WHERE birth = ?", (mother, birth)),
    "no father": lambda birth, mother: ("UPDATE genomes SET father = -1 WHERE birth = ?", (birth,)),
    "another version": lambda birth, mother: ("UPDATE genomes SET genome = ? WHERE birth = ?", (b"made by canvas 9", birth)),
    "no genome": lambda birth, mother: ("UPDATE genomes SET genome = ? WHERE birth = ?", (b"", birth)),
    "fewer steps": lambda birth, mother: ("UPDATE genomes SET steps = steps + 1 WHERE birth = ?", (birth,)),
    "whole": lambda birth, mother: ("UPDATE genomes SET steps = 0 WHERE birth = ?", (birth,)),
    "its own mother": lambda birth, mother: ("UPDATE genomes SET mother = ? WHERE birth = ?", (birth, birth)),
    "a mother that is missing": lambda birth, mother: ("DELETE FROM genomes WHERE birth = ?", (mother,)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_finds_a_damaged_genome_or_parent(copy: Path, kind: str) -> None:
    with StoredRun(copy) as stored:
        assert verify(stored, target()).faults == ()
    statement, values = DAMAGE[kind](*father(copy))
    change(copy, statement, *values)
    with StoredRun(copy) as stored:
        assert any("genomes is not as it was saved" in fault for fault in verify(stored, target()).faults)


def test_an_elite_whose_ancestor_was_changed_draws_another_picture(tmp_path: Path, killed: None) -> None:
    """Found by the pictures too, not only by the digests."""
    folder = run(tmp_path / "run")
    stored = forms(folder)
    with StoredRun(folder) as of:
        elite = next(elite for elite in of.elites() if stored[elite.row.birth][1] > 1)
        mother = elite.row.mother
        other = next(birth for birth in stored if birth != mother and birth < elite.row.birth)
    change(folder, "UPDATE genomes SET mother = ? WHERE birth = ?", other, elite.row.birth)
    with StoredRun(folder) as of:
        assert any("draws another picture" in fault for fault in verify(of, target()).faults)


def test_a_line_that_is_longer_than_any_that_is_written_is_refused(copy: Path) -> None:
    change(copy, "UPDATE genomes SET genome = ?, steps = 1, father = -1", b"made by canvas 1")
    births = sorted(forms(copy))
    with closing(sqlite3.connect(copy / FILE, isolation_level=None)) as db:
        db.executemany("UPDATE genomes SET mother = ? WHERE birth = ?", zip([-1, *births[:-1]], births, strict=True))
    with Store.open(copy) as store, pytest.raises(StoreError, match=f"has to be made from more than {MAX_MADE} others"):
        store.genomes([births[-1]])


def test_a_genome_of_an_encoding_that_stores_none_by_their_parents_is_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", encoding={"kind": "direct"})
    birth = max(forms(folder))
    change(folder, "UPDATE genomes SET genome = ?, steps = 1 WHERE birth = ?", b"made by canvas 1", birth)
    with (
        Store.open(folder) as store,
        pytest.raises(StoreError, match=f"is damaged: the genome of birth {birth} is stored by"),
    ):
        store.genomes([birth])


def test_parents_that_are_not_older_are_refused(copy: Path) -> None:
    births = made_births(copy)[:2]
    change(copy, "UPDATE genomes SET mother = ? WHERE birth = ?", births[1], births[0])
    with Store.open(copy) as store, pytest.raises(StoreError, match=f"birth {births[0]} has parents that are not older"):
        store.genomes([births[0]])
