"""A search that begins with another run's elites: the same bits however it is broken off, resumed, replayed or shipped."""

import json
import pickle
import shutil
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evofool.cli.app import app
from evofool.cluster.messages import Lineage, Receiver, Sender, decode_winners, encode_winners
from evofool.errors import RecipeError, StoreError
from evofool.recipe import Recipe, parse
from evofool.run.lineage import lineage
from evofool.run.merge import merge
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.search.archive import Archive
from evofool.search.evaluate import COMPETITIONS, BatchEvaluator, Order, children
from evofool.search.evolve import MapElites
from evofool.targets import Target
from genomes import CPPN, Direct, Encoding, Key
from tests.stored import course
from tests.synthetic import fake

CLASSES, SIDE, BATCH, SEED = 20, 6, 8, 3
ENCODINGS: dict[str, dict[str, Any]] = {"cppn": {"kind": "cppn"}, "direct": {"kind": "direct", "crossover": 0.3}}
BUILT: dict[str, Encoding] = {"cppn": CPPN(height=SIDE, width=SIDE), "direct": Direct(1, SIDE, SIDE, crossover=0.3)}
NICHES = {"descriptor": "mirror_symmetry", "edges": [0.6, 0.68]}

each_encoding = pytest.mark.parametrize("encoding", list(ENCODINGS))


def recipe(
    encoding: str | dict[str, Any] = "direct", parents: Path | None = None, evaluations: int = 320, **parts: Any
) -> Recipe:
    kind = ENCODINGS[encoding] if isinstance(encoding, str) else encoding
    search = {"seed": SEED, "batch": BATCH, **parts.pop("search", {})}
    if parents:
        search["parents"] = str(parents)
    data = {"target": "fake", "encoding": kind, "search": search, "stop": {"evaluations": evaluations}}
    return parse(data | parts, "test")


def searched(what: Recipe, folder: Path, target: Target | None = None) -> Path:
    with Run.start(what, folder, target or fake(classes=CLASSES)) as run:
        run.advance()
    return folder


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run with elites of this encoding: more than one batch holds, and no whole number of batches."""
    made: dict[str, Path] = {}

    def of(encoding: str) -> Path:
        if encoding not in made:
            what = recipe(encoding, search={"seed": 77}, evaluations=160)
            made[encoding] = searched(what, tmp_path_factory.mktemp("parents") / encoding)
        return made[encoding]

    return of


def given_by(folder: Path) -> list[bytes]:
    """The distinct genomes of a run's elites, by birth."""
    with StoredRun(folder) as stored:
        return list(dict(sorted(stored.store.genomes(e.row.birth for e in stored.elites()).items())).values())


# --- what is given


@each_encoding
def test_the_elites_of_another_run_are_the_first_genomes_and_random_ones_fill_their_last_batch(
    tmp_path: Path, parents: Callable[[str], Path], encoding: str
) -> None:
    given = given_by(parents(encoding))
    batches = ceil(len(given) / BATCH)
    assert batches > 1
    assert len(given) % BATCH
    with Run.start(recipe(encoding, parents(encoding)), tmp_path / "run", fake(classes=CLASSES)) as run:
        orders = [run.strategy.order() for _ in range(batches)]
        after = run.strategy.order()
        born = np.concatenate([children(run.encoding, order) for order in orders])
        packed = [run.encoding.pack(genome) for genome in born]
        assert packed[: len(given)] == given
        strangers = run.encoding.random(BATCH, Key(SEED, batches - 1))[len(given) % BATCH :]
        assert packed[len(given) :] == [run.encoding.pack(genome) for genome in strangers]
        assert children(run.encoding, after).tobytes() == run.encoding.random(BATCH, Key(SEED, batches)).tobytes()
    for order in orders:
        assert (order.mothers == -1).all()
        assert (order.fathers == -1).all()


@each_encoding
@pytest.mark.parametrize("lag", [0, 4])
def test_a_search_is_as_good_as_its_parents_once_they_are_judged(
    tmp_path: Path, parents: Callable[[str], Path], encoding: str, lag: int
) -> None:
    with StoredRun(parents(encoding)) as stored:
        before = np.array([elite.row.search_log_odds for elite in stored.elites()])
    batches = ceil(len(given_by(parents(encoding))) / BATCH)
    with Run.start(recipe(encoding, parents(encoding), search={"lag": lag}), tmp_path / "run", fake(classes=CLASSES)) as run:
        run.advance(batches=batches)
        assert len(before) == CLASSES
        assert (run.archive.log_odds >= before).all()
        run.advance(batches=30)
        assert run.archive.log_odds.sum() > before.sum()


def test_the_first_row_of_metrics_is_as_good_as_the_parents_where_one_batch_holds_them(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    with StoredRun(parents("cppn")) as stored:
        last = stored.rows()[-1]
    with StoredRun(searched(recipe("cppn", parents("cppn"), search={"batch": 32}), tmp_path / "run")) as stored:
        first = stored.rows()[0]
    assert first["gen"] == 0
    assert all(first[name] >= last[name] for name in ("median", "q25", "q75", "min", "at_99", "at_9999"))


def test_the_elites_of_one_target_compete_anew_for_the_classes_of_another(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    other = fake(classes=7, seed=5, name="other")
    given = given_by(parents("direct"))
    with Run.start(recipe(parents=parents("direct")), tmp_path / "run", other) as run:
        run.advance(batches=ceil(len(given) / BATCH))
        logits = other.logits(run.encoding.render(run.encoding.unpack(given)))
        others = [[np.logaddexp.reduce(np.delete(row.astype(float), c)) for c in range(7)] for row in logits]
        assert (run.archive.log_odds >= (logits - others).max(axis=0) - 1e-9).all()


def test_an_independent_climber_begins_where_the_parents_climber_ended(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    """One genome that holds several classes there is given once for each of them."""
    what = recipe("cppn", parents("cppn"), search={"competition": "per-class"})
    with StoredRun(parents("cppn")) as stored:
        elites = stored.elites()
        genomes = stored.store.genomes(e.row.birth for e in elites)
    assert len(given_by(parents("cppn"))) < len(elites)
    with Run.start(what, tmp_path / "run", fake(classes=CLASSES)) as run:
        assert run.seeds
        assert run.seeds.number == len(elites)
        claims = np.concatenate([claims for number in range(4) if (claims := run.strategy.claims(number)) is not None])
        packed = list(run.strategy.seeds.values())
        pairs = {(genome, int(c)) for genome, c in zip(packed, claims, strict=False)}
        assert pairs == {(genomes[e.row.birth], e.row.class_id) for e in elites}
        assert claims[len(elites) :].tolist() == [birth % CLASSES for birth in range(len(elites), 4 * BATCH)]
        run.advance(batches=3)
        assert (run.archive.log_odds >= [e.row.search_log_odds for e in elites]).all()


def test_climbers_of_other_classes_take_turns(tmp_path: Path, parents: Callable[[str], Path]) -> None:
    what = recipe(parents=parents("direct"), search={"competition": "per-class"})
    with Run.start(what, tmp_path / "run", fake(classes=7)) as run:
        assert run.seeds
        assert run.seeds.classes == ()
        assert run.seeds.number == len(given_by(parents("direct")))
        claims = run.strategy.claims(1)
        assert claims is not None
        assert claims.tolist() == [birth % 7 for birth in range(BATCH, 2 * BATCH)]


def test_settings_that_decide_how_children_are_made_may_differ_from_the_parents(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    what = recipe({"kind": "direct", "rate": 0.01, "eta": 3.0, "crossover": 0.0}, parents("direct"))
    assert verify_holds(searched(what, tmp_path / "run"))


# --- a run that stands alone

CASES = [
    pytest.param(encoding, lag, competition, niches, id=f"{encoding}-lag{lag}-{competition}{'-niches' if niches else ''}")
    for encoding in ENCODINGS
    for lag in (0, 4)
    for competition, niches in (("all", None), ("per-class", None), ("argmax", NICHES))
]


@pytest.mark.parametrize(("encoding", "lag", "competition", "niches"), CASES)
def test_a_run_killed_among_its_given_batches_ends_where_an_unbroken_one_does_without_the_parents_folder(
    tmp_path: Path,
    parents: Callable[[str], Path],
    encoding: str,
    lag: int,
    competition: str,
    niches: dict[str, Any] | None,
) -> None:
    """A kill is a copy of the files at that moment: what was not yet saved is in neither."""
    gone = shutil.copytree(parents(encoding), tmp_path / "parents")
    parts: dict[str, Any] = {"search": {"lag": lag, "competition": competition}, "save": {"seconds": 3600.0}}
    what = recipe(encoding, gone, **parts if niches is None else parts | {"niches": niches})
    saves, kills = {0, 1, 4}, {0, 1, 2, 3, 5, 9}
    copies: list[Path] = []

    def tick(run: Run) -> bool:
        batch = run.strategy.committed - 1
        if batch in saves:
            run.save(whole=batch == 1)
        if batch in kills:
            copies.append(shutil.copytree(run.folder, tmp_path / f"killed after {batch}"))
        return False

    with Run.start(what, tmp_path / "run", fake(classes=CLASSES)) as run:
        copies.append(shutil.copytree(run.folder, tmp_path / "killed at once"))
        shutil.rmtree(gone)
        assert run.advance(tick, every=0.0)
    expected = course(tmp_path / "run")
    assert expected["seeds"].number > BATCH
    committed = []
    for copied in copies:
        with Run.resume(copied, target=fake(classes=CLASSES)) as run:
            committed.append(run.strategy.committed)
            run.advance(batches=1)
        with Run.resume(copied, target=fake(classes=CLASSES)) as run:
            run.advance()
        assert course(copied) == expected
    assert committed == [0, 1, 2, 2, 2, 5, 5]


@each_encoding
@pytest.mark.parametrize("search", [{}, {"mode": "free", "lag": 4}, {"competition": "per-class"}])
def test_a_replay_takes_the_same_way_without_the_parents_folder(
    tmp_path: Path, parents: Callable[[str], Path], encoding: str, search: dict[str, Any]
) -> None:
    gone = shutil.copytree(parents(encoding), tmp_path / "parents")
    folder = searched(recipe(encoding, gone, search=search), tmp_path / "run")
    shutil.rmtree(gone)
    again = replay(folder, tmp_path / "again", target=fake(classes=CLASSES))
    assert (again.batches, again.differences) == (again.of, ())
    assert course(tmp_path / "again") == course(folder)


def test_a_run_killed_before_the_parents_were_in_its_file_takes_them_when_it_goes_on(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    what = recipe(parents=parents("direct"))
    expected = course(searched(what, tmp_path / "unbroken"))
    for name in ("run", "orphan"):
        Run.start(what, tmp_path / name, fake(classes=CLASSES)).__exit__()
        with Store.open(tmp_path / name, write=True) as store:
            store._db.execute("DELETE FROM meta WHERE key = 'seeds'")
            store._db.execute("DELETE FROM genomes")
            if name == "orphan":
                stored = store.meta().recipe
                stored["search"]["parents"] = str(tmp_path / "gone")
                store._db.execute("UPDATE meta SET value = ? WHERE key = 'recipe'", (json.dumps(stored),))
    with Run.resume(tmp_path / "run", target=fake(classes=CLASSES)) as run:
        run.advance()
    assert course(tmp_path / "run") == expected
    with pytest.raises(RecipeError, match=r"^search\.parents: .*there is no folder .*gone.*--set search\.parents="):
        Run.resume(tmp_path / "orphan", target=fake(classes=CLASSES))
    with Run.resume(tmp_path / "orphan", recipe(), fake(classes=CLASSES)) as run:
        assert run.advance()
        assert run.seeds is None
    with Run.resume(tmp_path / "orphan", target=fake(classes=CLASSES)) as run:
        assert run.seeds is None


def verify_holds(folder: Path) -> bool:
    with StoredRun(folder) as stored:
        verdict = verify(stored, fake(classes=CLASSES))
    return verdict.faults == () and verdict.exact


@each_encoding
def test_such_a_run_is_verified_traced_and_merged_as_any_other(
    tmp_path: Path, parents: Callable[[str], Path], encoding: str
) -> None:
    folder = searched(recipe(encoding, parents(encoding)), tmp_path / "run")
    assert verify_holds(folder)
    with StoredRun(folder) as stored:
        assert stored.meta.seeds.run
        lines = [lineage(stored, elite.row.birth) for elite in stored.elites()]
    firsts = {line[0].birth for line in lines}
    assert all(line[0].mother == -1 for line in lines)
    assert any(birth < len(given_by(parents(encoding))) for birth in firsts)
    assert merge([folder, parents(encoding)], tmp_path / "merged").cells == CLASSES
    assert verify_holds(tmp_path / "merged")


# --- shipped to workers


@each_encoding
def test_a_cut_of_a_given_batch_gives_the_same_children(encoding: str) -> None:
    built = BUILT[encoding]
    none, nobody = np.zeros(0), np.full(BATCH, -1)
    given = {SEED * BATCH + row: built.random(1, Key(50, row)) for row in (0, 1, 2, 5)}
    whole = Order(Key(SEED, SEED), SEED * BATCH, BATCH, none, none, nobody, nobody, given)
    made, strangers = children(built, whole), built.random(BATCH, Key(SEED, SEED))
    for row in range(BATCH):
        expected = given.get(SEED * BATCH + row, strangers[row : row + 1])
        assert made[row : row + 1].tobytes() == expected.tobytes()
        for end in range(row, BATCH + 1):
            assert children(built, whole.cut(row, end)).tobytes() == made[row:end].tobytes()


@each_encoding
@pytest.mark.parametrize("competition", COMPETITIONS)
def test_workers_that_come_and_go_find_what_is_found_at_home(encoding: str, competition: str) -> None:
    """Each batch is cut in two, and every worker but the first comes later."""
    built, target = BUILT[encoding], fake(classes=CLASSES)
    batch_evaluator = BatchEvaluator(built, target, 3, competition=competition)
    strategy = MapElites(Archive(built, CLASSES), built, seed=SEED, batch=BATCH, competition=competition)
    elders = built.random(21, Key(60, 0))
    classes = [birth % 3 for birth in range(21)] if competition == "per-class" else ()
    strategy.seed_with({birth: built.pack(genome) for birth, genome in enumerate(elders)}, classes)
    lineage = Lineage()
    workers: list[tuple[Sender, Receiver]] = []
    whole: set[int] = set()
    for number in range(40):
        if number in (0, 1, 2, 5, 20):
            workers.append((Sender(built, lineage), Receiver(built, SEED, BATCH)))
        batch = strategy.generate()[0]
        if number < 3:
            assert batch.order.given == list(range(number * BATCH, min((number + 1) * BATCH, 21)))
        parts = []
        for i, cut in enumerate((batch.order.cut(0, 3), batch.order.cut(3, BATCH))):
            sender, receiver = workers[(number + i) % len(workers)]
            message = pickle.loads(pickle.dumps(sender.encode(cut)))  # noqa: S301 - our own, of a moment ago
            whole.update(message.update.births)
            there = receiver.decode(message)
            assert there.given == cut.given
            back = decode_winners(built, cut, encode_winners(built, there, batch_evaluator(there)), lineage)
            assert back.genomes.tobytes() == batch_evaluator(cut).genomes.tobytes()
            assert back.births.tolist() == batch_evaluator(cut).births.tolist()
            assert set(sender._known) == set(receiver._genomes)
            parts.append(back)
        batch.fitness.values = type(back).merged(parts, 1)
        strategy.update([batch])
    assert strategy.seeds == {}
    assert strategy.wins > 10
    assert set(range(21)) <= whole
    assert lineage.keys().isdisjoint(range(21))


# --- what cannot be


def test_parents_that_are_drawn_otherwise_are_refused_and_leave_no_folder(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    direct, cppn = parents("direct"), parents("cppn")
    for what, target, words in (
        (
            recipe("cppn", direct),
            fake(classes=CLASSES),
            rf"^search\.parents: {direct} has encoding\.kind = 'direct', and this run has 'cppn'\.",
        ),
        (
            recipe("direct", direct),
            fake(shape=(1, 8, 8), classes=CLASSES),
            r"has encoding\.height = 6, and this run has 8\. .* size of image",
        ),
        (
            recipe({"kind": "cppn", "max_nodes": 70}, cppn),
            fake(classes=CLASSES),
            r"encoding\.max_nodes = 64, and this run has 70",
        ),
    ):
        with pytest.raises(RecipeError, match=words):
            Run.start(what, tmp_path / "run", target)
    assert not (tmp_path / "run").exists()


def test_parents_that_are_missing_empty_or_damaged_are_refused_and_leave_no_folder(
    tmp_path: Path, parents: Callable[[str], Path]
) -> None:
    Run.start(recipe(), tmp_path / "empty", fake(classes=CLASSES)).__exit__()
    damaged = shutil.copytree(parents("direct"), tmp_path / "damaged")
    with Store.open(damaged, write=True) as store:
        store._db.execute("UPDATE genomes SET genome = x'00' WHERE birth = (SELECT MIN(birth) FROM elites)")
    for folder, words in (
        (tmp_path / "nowhere", "there is no folder .*nowhere"),
        (tmp_path, "is not a run"),
        (tmp_path / "empty", "empty has saved nothing yet"),
        (damaged, "is damaged"),
    ):
        with pytest.raises(RecipeError, match=rf"^search\.parents: .*{words}.*--parents RUN"):
            Run.start(recipe(parents=folder), tmp_path / "run", fake(classes=CLASSES))
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_begun_keeps_its_parents_wherever_they_are(tmp_path: Path, parents: Callable[[str], Path]) -> None:
    first = shutil.copytree(parents("direct"), tmp_path / "first")
    with Run.start(recipe(parents=first), tmp_path / "run", fake(classes=CLASSES)) as run:
        run.advance(batches=1)
    with Run.start(recipe(), tmp_path / "orphan", fake(classes=CLASSES)) as run:
        run.advance(batches=1)
    moved = first.rename(tmp_path / "moved")
    for elsewhere in (first, moved, tmp_path / "nowhere"):
        with Run.resume(tmp_path / "run", recipe(parents=elsewhere), fake(classes=CLASSES)) as run:
            run.advance(batches=1)
    other = searched(recipe(search={"seed": 78}), tmp_path / "other")
    with pytest.raises(RecipeError, match=r"began with the elites of .*, and .*other is another run .*--out DIR"):
        Run.resume(tmp_path / "run", recipe(parents=other), fake(classes=CLASSES))
    with pytest.raises(RecipeError, match=r"run has a run that began with the elites .* recipe has no search\.parents"):
        Run.resume(tmp_path / "run", recipe(), fake(classes=CLASSES))
    with pytest.raises(
        RecipeError, match=r"orphan has a run that began with random genomes, .* this recipe has search\.parents ="
    ):
        Run.resume(tmp_path / "orphan", recipe(parents=moved), fake(classes=CLASSES))


@pytest.mark.parametrize(
    "damaged",
    [3, {}, {"run": "a", "number": -1, "classes": []}, {"run": "a", "number": 2, "classes": [1]},
     {"run": "a", "number": 1, "classes": [20]}, {"run": 1, "number": 1, "classes": []}],
)  # fmt: skip
def test_a_file_that_tells_nonsense_of_its_parents_is_damaged(
    tmp_path: Path, parents: Callable[[str], Path], damaged: Any
) -> None:
    with Run.start(recipe(parents=parents("direct")), tmp_path / "run", fake(classes=CLASSES)) as run:
        run.advance(batches=1)
    with Store.open(tmp_path / "run", write=True) as store:
        store._db.execute("UPDATE meta SET value = ? WHERE key = 'seeds'", (json.dumps(damaged),))
    with pytest.raises(StoreError, match=r"is damaged: meta\.seeds(\.[a-z]+)?(: .* \(it is | is missing)"):
        Run.resume(tmp_path / "run", target=fake(classes=CLASSES))


def test_a_given_genome_that_is_lost_is_missed(tmp_path: Path, parents: Callable[[str], Path]) -> None:
    with Run.start(recipe(parents=parents("direct")), tmp_path / "run", fake(classes=CLASSES)) as run:
        run.advance(batches=1)
    with Store.open(tmp_path / "run", write=True) as store:
        store._db.execute(f"DELETE FROM genomes WHERE birth = {BATCH}")
    with pytest.raises(StoreError, match=f"is damaged: the genome of birth {BATCH} is missing"):
        Run.resume(tmp_path / "run", target=fake(classes=CLASSES))


# --- named in a recipe, or on the command line


def test_the_path_of_the_parents_holds_wherever_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    what = recipe(parents=Path("runs/gradients"))
    assert what.search.parents == str(tmp_path / "runs" / "gradients")
    monkeypatch.chdir("/")
    assert parse(what.model_dump(mode="json", exclude_none=True), "test") == what
    assert what.fixed() == recipe().fixed()
    with pytest.raises(RecipeError, match=r"search\.parents"):
        what.changed(["search.parents=''"], "test")


@pytest.mark.slow
def test_the_command_line_names_the_parents_and_goes_on_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ("stop.confidence=", "stop.evaluations=64", "search.batch=16", "search.random=0")
    short = [word for change in changes for word in ("--set", change)]

    def call(*words: str) -> str:
        said = CliRunner().invoke(app, [*words], catch_exceptions=False)
        assert said.exit_code == 0, said.output
        return said.output

    call("run", "mnist-cppn", *short, "--out", "first")
    given = given_by(Path("first"))
    said = call("run", "mnist-cppn", *short, "--set", "search.seed=5", "--out", "second", "--parents", "first")
    assert f"New run in second, which begins with {len(given)} genomes of {tmp_path / 'first'}:" in said
    shutil.rmtree("first")
    call("run", "second", "--set", "stop.evaluations=96")
    assert "is reproduced" in call("replay", "second")
    assert "passes" in call("verify", "second")
    call("lineage", "second", "--class", "3")
    call("show", "second", "--class", "3")
