"""What verify finds: nothing in a sound run, and in a changed one the class that was changed."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.images import encode_png
from evofool.recipe import load, parse
from evofool.run.reader import FILE
from evofool.run.replay import content, differences, replay
from evofool.run.run import Run
from evofool.run.schema import elite_digest
from evofool.run.stored import StoredRun
from evofool.run.verify import TOLERANCE, Verdict, verify
from evofool.targets import Target
from evofool.targets.photos import patterns
from evofool.targets.position import Position
from tests.synthetic import CLASSES, SIDE, linear

LABELS = ["ant", "bee", "cat", "dog", "elk"]
EDGES = (0.6, 0.68)


def animal_target(forward: Callable[[np.ndarray], np.ndarray] = linear, **details: Any) -> Target:
    return Target("fake", LABELS, (1, SIDE, SIDE), forward, details)


def made(
    folder: Path,
    kind: str = "direct",
    niches: bool = False,
    forward: Callable[[np.ndarray], np.ndarray] = linear,
    **parts: Any,
) -> Path:
    data: dict[str, Any] = {
        "target": "fake",
        "encoding": {"kind": kind},
        "search": {"batch": 8},
        "stop": {"evaluations": 400},
        **parts,
    }
    if niches:
        data["niches"] = {"descriptor": "mirror_symmetry", "edges": list(EDGES)}
    with Run.start(parse(data, "test"), folder, animal_target(forward)) as run:
        run.advance()
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("sound") / "run")


@pytest.fixture(scope="module")
def sound_niches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("niches") / "run", niches=True)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(sound, tmp_path / "run")


def check(folder: Path, target: Target | None = None) -> Verdict:
    with StoredRun(folder) as stored:
        return verify(stored, target or animal_target())


def change(folder: Path, statement: str, *values: Any) -> None:
    database = sqlite3.connect(folder / FILE)
    assert database.execute(statement, values).rowcount != 0
    database.execute("DELETE FROM meta WHERE key = 'digests'")  # as in a file of an earlier release
    database.commit()
    database.close()


def ask(folder: Path, statement: str) -> Any:
    database = sqlite3.connect(folder / FILE)
    (row,) = database.execute(statement).fetchall()
    database.close()
    return row


def sign(folder: Path) -> None:
    """Give every elite the hash of what it now says, as a forger would."""
    database = sqlite3.connect(folder / FILE)
    rows = database.execute(
        "SELECT cell, class, niche, birth, log_odds, margin, search_log_odds, search_margin, png FROM elites"
    ).fetchall()
    for cell, class_id, niche, birth, *scores, png in rows:
        digest = elite_digest(class_id, niche, birth, scores, png)
        values = digest, len(png) / SIDE**2, cell
        database.execute("UPDATE elites SET sha256 = ?, bytes_per_pixel = ? WHERE cell = ?", values)
    database.commit()
    database.close()


def other_machine(folder: Path) -> None:
    machine = json.loads(ask(folder, "SELECT value FROM meta WHERE key = 'machine'")[0])
    change(folder, "UPDATE meta SET value = ? WHERE key = 'machine'", json.dumps({**machine, "cpu": "an abacus"}))


@pytest.mark.parametrize("kind", ["direct", "cppn"])
@pytest.mark.parametrize("niches", [False, True], ids=["one niche", "niches"])
@pytest.mark.parametrize("parts", [{}, {"compute": {"chunk": 3}}, {"search": {"batch": 8, "rank": "margin", "lag": 2}}])
def test_a_fresh_run_holds_to_the_bit(tmp_path: Path, kind: str, niches: bool, parts: dict[str, Any]) -> None:
    verdict = check(made(tmp_path / "run", kind, niches, **parts))
    assert verdict.faults == ()
    assert verdict.exact
    assert verdict.largest_difference == 0.0
    assert verdict.elites > CLASSES if niches else verdict.elites == CLASSES


def test_a_run_on_the_bundled_network_holds_to_the_bit_in_padded_chunks(tmp_path: Path) -> None:
    changes = ["stop.evaluations=200", "stop.confidence=", "compute.chunk=7"]
    with Run.start(load("mnist-direct", changes), tmp_path) as run:
        run.advance()
    with StoredRun(tmp_path) as stored:
        verdict = verify(stored)
    assert (verdict.faults, verdict.exact, verdict.largest_difference, verdict.elites) == ((), True, 0.0, 10)


def test_images_are_scored_in_chunks_of_the_recipe_s_size_the_last_one_padded(folder: Path) -> None:
    shapes = []

    def forward(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return linear(images)

    assert check(folder, animal_target(forward)).faults == ()
    assert shapes == [(8, 1, SIDE, SIDE)]


def test_a_run_that_is_going_on_can_be_verified(tmp_path: Path) -> None:
    what = parse({"target": "fake", "encoding": {"kind": "direct"}, "stop": {"evaluations": 400}}, "test")
    with Run.start(what, tmp_path, animal_target()) as run:
        run.advance(batches=5)
        assert check(tmp_path).faults == ()
        run.advance(batches=5)
        assert check(tmp_path).faults == ()


@pytest.mark.parametrize("place", ["first byte", "header", "middle", "last byte"])
def test_one_flipped_byte_of_a_picture_names_its_class(folder: Path, place: str) -> None:
    png = bytearray(ask(folder, "SELECT png FROM elites WHERE class = 3")[0])
    at = {"first byte": 0, "header": 19, "middle": len(png) // 2, "last byte": len(png) - 1}[place]
    png[at] ^= 1
    change(folder, "UPDATE elites SET png = ? WHERE class = 3", bytes(png))
    faults = check(folder).faults
    assert faults
    assert all("class 3 (dog)" in fault for fault in faults)
    assert any("hash does not fit" in fault for fault in faults)


@pytest.mark.parametrize(
    "setting",
    [
        "log_odds = -log_odds",
        "log_odds = log_odds + 1e-12",
        "margin = margin * 2",
        "birth = (SELECT MIN(birth) FROM genomes WHERE birth NOT IN (SELECT birth FROM elites))",
        "sha256 = upper(sha256)",
    ],
)
def test_a_changed_score_birth_niche_or_hash_names_its_class(folder: Path, setting: str) -> None:
    change(folder, f"UPDATE elites SET {setting} WHERE class = 2")
    faults = check(folder).faults
    assert faults
    assert all("class 2 (cat)" in fault for fault in faults)


@pytest.mark.parametrize("other", [0, 4])
def test_a_changed_class_is_found_and_the_class_it_says_is_named(folder: Path, other: int) -> None:
    change(folder, "UPDATE elites SET class = ? WHERE class = 2", other)
    faults = check(folder).faults
    assert any("cell 2 is that of class 2 (cat)" in f and f"says class {other} ({LABELS[other]})" in f for f in faults)


def test_a_class_that_does_not_exist_is_found_and_told(folder: Path) -> None:
    change(folder, "UPDATE elites SET class = class + 128 WHERE class = 2")
    faults = check(folder).faults
    assert any("elites.class is 130" in fault for fault in faults)


def test_a_changed_niche_is_found_and_the_class_is_named(sound_niches: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound_niches, tmp_path / "run")
    change(folder, "UPDATE elites SET niche = 1 WHERE cell = (SELECT MIN(cell) FROM elites WHERE class = 2 AND niche = 0)")
    assert any("says class 2 (cat), niche 1" in fault for fault in check(folder).faults)


def test_one_flipped_byte_of_a_score_in_the_file_itself_names_its_class(folder: Path) -> None:
    raw = bytearray((folder / FILE).read_bytes())
    score = np.array(ask(folder, "SELECT log_odds FROM elites WHERE class = 1"), ">f8").tobytes()
    places = [at for at in range(len(raw)) if raw[at : at + 8] == score]
    assert len(places) == 3, (
        "twice among the elites, where the search ranked by the plain score, once among the cell_history"
    )
    found = []
    for at in places:
        broken = raw.copy()
        broken[at + 7] ^= 1
        (folder / FILE).write_bytes(broken)
        found.append(check(folder).faults)
    assert all(any(fault.startswith("the table ") for fault in faults) for faults in found), "each by its table's digest"
    of_elites = [[fault for fault in faults if not fault.startswith("the table ")] for faults in found]
    assert any(faults and all("class 1 (bee)" in fault for fault in faults) for faults in of_elites)


def test_a_forged_score_with_a_fitting_hash_is_found_by_scoring_again(folder: Path) -> None:
    log_odds = ask(folder, "SELECT log_odds FROM elites WHERE class = 4")[0]
    change(folder, "UPDATE elites SET log_odds = ? WHERE class = 4", float(np.nextafter(log_odds, 99)))
    sign(folder)
    (fault,) = check(folder).faults
    assert "class 4 (elk): scored again it has log-odds" in fault


def test_a_forged_picture_with_a_fitting_hash_is_found_by_scoring_again(folder: Path) -> None:
    grey = encode_png(np.full((1, SIDE, SIDE), 128, np.uint8))
    change(folder, "UPDATE elites SET png = ? WHERE class = 0", grey)
    sign(folder)
    drawn, scored = check(folder).faults
    assert "class 0 (ant): its genome draws another picture" in drawn
    assert "class 0 (ant): scored again" in scored


def test_a_genome_that_draws_another_picture_names_its_class(folder: Path) -> None:
    """Picture, score and hash are whole, but export at another size, lineage and resume would show another picture."""
    change(folder, "UPDATE genomes SET genome = (SELECT genome FROM genomes ORDER BY birth LIMIT 1)")
    faults = check(folder).faults
    assert any("class 0 (ant): its genome draws another picture" in fault for fault in faults)


def test_labels_that_are_not_the_target_s_are_told(folder: Path) -> None:
    change(folder, "UPDATE meta SET value = replace(value, 'ant', 'bat') WHERE key = 'target'")
    assert any("the labels or the shape" in fault for fault in check(folder).faults)


def test_a_picture_of_another_size_or_kind_is_told_and_not_scored(folder: Path) -> None:
    change(folder, "UPDATE elites SET png = ? WHERE class = 0", encode_png(np.zeros((1, SIDE, 9), np.uint8)))
    change(folder, "UPDATE elites SET png = ? WHERE class = 1", encode_png(np.zeros((3, SIDE, SIDE), np.uint8)))
    change(folder, "UPDATE elites SET png = ? WHERE class = 2", b"GIF89a")
    sign(folder)
    faults = check(folder).faults
    assert [fault.split(":")[0] for fault in faults] == ["class 0 (ant)", "class 1 (bee)", "class 2 (cat)"]
    assert "9 x 6 pixels, not 6 x 6" in faults[0]
    assert "(3, 6, 6), not (1, 6, 6)" in faults[1]
    assert "not a whole PNG" in faults[2]


def test_a_missing_elite_names_its_class(folder: Path) -> None:
    change(folder, "DELETE FROM elites WHERE class = 3")
    (fault,) = check(folder).faults
    assert "class 3" in fault
    assert "missing" in fault


def test_a_missing_elite_of_one_niche_names_its_class(sound_niches: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound_niches, tmp_path / "run")
    change(folder, "DELETE FROM elites WHERE class = 3 AND niche = 1")
    (fault,) = check(folder).faults
    assert "class 3" in fault


def test_a_missing_genome_names_the_class_of_its_elite(folder: Path) -> None:
    change(folder, "DELETE FROM genomes WHERE birth = (SELECT birth FROM elites WHERE class = 3)")
    assert any("class 3" in fault for fault in check(folder).faults)


def test_what_sqlite_finds_wrong_with_the_file_is_told(folder: Path) -> None:
    with (folder / FILE).open("r+b") as file:
        file.seek(36)  # of the header: the number of pages that are free
        file.write((1).to_bytes(4))
    faults = check(folder).faults
    assert faults
    assert all(fault.startswith("the file: ") for fault in faults)


# --- other machines, other networks


def test_on_another_kind_of_machine_scores_may_differ_by_the_tolerance(folder: Path) -> None:
    other_machine(folder)
    verdict = check(folder)
    assert verdict.faults == ()
    assert not verdict.exact
    change(
        folder,
        "UPDATE elites SET log_odds = log_odds + ?, margin = margin - ? WHERE class = 1",
        TOLERANCE / 2,
        TOLERANCE / 2,
    )
    sign(folder)
    verdict = check(folder)
    assert verdict.faults == ()
    assert verdict.largest_difference == pytest.approx(TOLERANCE / 2, rel=1e-6)


@pytest.mark.parametrize("column", ["log_odds", "margin"])
def test_on_another_kind_of_machine_more_than_the_tolerance_names_the_class(folder: Path, column: str) -> None:
    other_machine(folder)
    change(folder, f"UPDATE elites SET {column} = {column} + ? WHERE class = 1", TOLERANCE * 2)
    sign(folder)
    (fault,) = check(folder).faults
    assert "class 1 (bee)" in fault


def test_on_the_same_kind_of_machine_not_even_a_hair_is_allowed(folder: Path) -> None:
    change(folder, "UPDATE elites SET margin = margin + 1e-9 WHERE class = 1")
    sign(folder)
    assert len(check(folder).faults) == 1


# --- targets whose logits depend on an image's place in a chunk


def by_row(images: np.ndarray) -> np.ndarray:
    """linear, and a little more in a later row: another amount for each class."""
    steps = np.float32(1e-5) * np.arange(CLASSES, dtype=np.float32)
    return linear(images) + np.arange(len(images), dtype=np.float32)[:, None] * steps


def by_row_of_elites(images: np.ndarray) -> np.ndarray:
    """by_row, but for the patterns that a target is validated with."""
    known = {image.tobytes() for n in (6, 8) for image in patterns((1, SIDE, SIDE), n)}
    new = [image.tobytes() not in known for image in images]
    return np.where(np.array(new)[:, None], by_row(images), linear(images))


def changed(folder: Path, by: float) -> Verdict:
    change(folder, "UPDATE elites SET log_odds = log_odds + ?, margin = margin + ? WHERE class = 1", by, by)
    sign(folder)
    return check(folder, animal_target(by_row))


def test_a_run_of_a_target_that_depends_on_the_row_holds_within_what_was_measured(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", forward=by_row)
    with StoredRun(folder) as stored:
        position, warnings = Position(**stored.meta.position.model_dump()), stored.meta.warnings
    assert position.dependent
    assert position.tolerance
    assert sum("logits depend on an image's row in a chunk of 8" in warning for warning in warnings) == 1
    verdict = check(folder, animal_target(by_row))
    assert verdict.faults == ()
    assert not verdict.exact
    assert 0 < verdict.largest_difference < 1e-3
    assert verdict.comparison.startswith(f"within {position.tolerance:.2g} of the size of the logits (measured: ")
    # On another kind of machine the usual tolerance holds as well.
    other_machine(folder)
    assert check(folder, animal_target(by_row)).comparison.startswith("within 0.001 (another kind of machine")


def test_a_target_with_average_is_not_said_to_be_random_if_it_is_not(tmp_path: Path) -> None:
    what = {"target": "fake", "encoding": {"kind": "direct"}, "search": {"batch": 8}, "stop": {"evaluations": 80}}
    with Run.start(parse(what, "test"), tmp_path, animal_target(by_row, average=2)) as run:
        run.advance()
    comparison = check(tmp_path, animal_target(by_row, average=2)).comparison
    assert comparison.endswith("(measured: they depend on an image's place in a chunk)")


def test_a_score_beyond_the_tolerance_of_the_place_names_the_class(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", forward=by_row)
    with StoredRun(folder) as stored:
        verdict = verify(stored, animal_target(by_row))
        allowed = float(Position(**stored.meta.position.model_dump()).allowed(verdict.logits)[1])
    assert allowed < 0.05
    (fault,) = changed(folder, 2 * allowed).faults
    assert "class 1 (bee)" in fault


def test_elites_that_depend_on_the_row_as_no_pattern_did_are_measured_themselves(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", forward=by_row_of_elites)
    with StoredRun(folder) as stored:
        assert Position(**stored.meta.position.model_dump()) == Position(8, False, 0.0)
    target = animal_target(by_row_of_elites)
    verdict = check(folder, target)
    assert verdict.faults == ()
    assert not verdict.exact
    assert verdict.comparison.startswith("within ")
    # The elites once, and a whole chunk for each shift of it.
    assert target.queries == CLASSES + 7 * 8
    change(folder, "UPDATE elites SET log_odds = log_odds + 1 WHERE class = 1")
    sign(folder)
    assert len(check(folder, target).faults) == 1


def test_a_search_whose_logits_depend_on_the_row_is_resumed_and_replayed_to_the_bit(tmp_path: Path) -> None:
    unbroken = made(tmp_path / "unbroken", forward=by_row, search={"batch": 20, "lag": 1}, compute={"chunk": 8})
    stop = {"stop": {"evaluations": 200}}
    made(tmp_path / "broken", forward=by_row, search={"batch": 20, "lag": 1}, compute={"chunk": 8}, **stop)
    with StoredRun(unbroken) as stored:
        whole, recipe = content(stored), stored.recipe
    with Run.resume(tmp_path / "broken", recipe, animal_target(by_row)) as run:
        run.advance()
    with StoredRun(tmp_path / "broken") as stored:
        assert differences(whole, content(stored)) == []
    again = replay(unbroken, tmp_path / "again", animal_target(by_row))
    assert (again.batches, again.of, again.differences) == (20, 20, ())


def test_scores_that_are_equal_to_the_bit_cost_nothing_more(folder: Path) -> None:
    target = animal_target()
    assert check(folder, target).exact
    assert target.queries == CLASSES


def test_a_network_that_answers_nan_does_not_pass(folder: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), CLASSES), np.nan, np.float32)

    for twice in range(2):
        if twice:
            other_machine(folder)
        assert len(check(folder, animal_target(forward)).faults) == CLASSES


def test_another_network_than_the_run_s_is_refused(folder: Path) -> None:
    with pytest.raises(TargetError, match="the target fake is not the one that this run was made with"):
        check(folder, animal_target(weights_sha256="other"))
