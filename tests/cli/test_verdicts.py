"""The command that shows what people see, and what `show` says of it."""

import json
import shutil
from pathlib import Path

import pytest

from evofool.quiz import simulated
from evofool.quiz.materials import Candidate, materials, session_id
from evofool.quiz.of_run import begin, new_session
from evofool.quiz.schema import NAMING, End, Session
from evofool.quiz.store import QuizStore
from evofool.run.stored import StoredRun
from evofool.text import visible
from tests.cli.samples import one_sentence
from tests.commands import Call
from tests.quiz.samples import DIGITS, asked, made_up_run, picture, real, record
from tests.quiz.test_answer_csv import jspsych, page, written

HOSTILE = "\x1b[31mPWN\x07\u202e"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_run(tmp_path_factory.mktemp("verdicts") / "run")


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """In the folder that the command runs in, by its name."""
    shutil.copytree(plain, tmp_path / "run")
    return Path("run")


def test_a_run_that_nobody_was_asked_about_says_so(call: Call, run: Path) -> None:
    result = call("verdicts", run)
    assert (result.code, result.out) == (0, "Nobody was asked yet what they see in the elites of run.\n")
    told = json.loads(call("verdicts", run, "--json").out)
    assert (told["verdicts"], told["sessions"], told["raters_at"]) == ([], [], [5, 8, 13, 20])
    assert "people" not in call("show", run).out
    assert not (run / "quiz.db").exists()


def test_the_table_has_every_verdict_with_its_counts_and_who_does_not_count(call: Call, run: Path) -> None:
    asked(run, ["perfect"] * 5 + ["random", "lazy"])
    result = call("verdicts", run)
    assert result.code == 0
    assert sum("recognised" in line and "5 of 5" in line for line in result.out.splitlines()) == 10
    assert (
        "10 pairs of image and class judged: 10 recognised, 0 taken for another class, 0 unrecognised, 0 open. Up to 0.5"
        in result.out
    )
    assert "10 of 10 images recognised as one of their classes: 100% [72%, 100%]." in result.out
    told = (
        "5 raters named an image as one of its classes in 50 of 50 trials: 100%, of a rater's trials 100% on average; with "
    )
    assert told in result.out
    assert "5 of 7 sessions count." in result.out
    assert "not counted: " in result.out
    assert "real images were named right" in result.out
    assert "answers came within 300 ms" in result.out
    shown = call("show", run).out
    assert shown.count("recognised: named by 5 of 5, chosen by 5 of 5") == 10
    one = call("show", run, "--class", "3")
    assert "PNG; people: recognised: named by 5 of 5, chosen by 5 of 5" in one.out, one.err


def test_json_has_verdicts_bounds_sessions_and_the_archive(call: Call, run: Path) -> None:
    asked(run, ["sees nothing"] * 13)
    told = json.loads(call("verdicts", run, "--json").out)
    assert {v["verdict"] for v in told["verdicts"]} == {"unrecognised"}
    assert {(v["label"], v["named"], v["raters"]) for v in told["verdicts"]} == {(str(c), 0, 13) for c in range(10)}
    assert max(v["named_high"] for v in told["verdicts"]) < 0.25
    assert told["archive"]["counts"] == {"open": 0, "recognised": 0, "taken": 0, "unrecognised": 10}
    assert [session["counts"] for session in told["sessions"]] == [True] * 13


def test_one_rater_alone_makes_no_verdict(call: Call, run: Path) -> None:
    asked(run, ["perfect"])
    out = call("verdicts", run).out
    assert "No verdict is derived from fewer than 5 raters." in out
    assert "1 rater named an image as one of its classes in 10 of 10 trials" in out
    assert out.count("4 more raters") == 10


def test_the_share_of_all_elites_is_of_all_raters(call: Call, run: Path) -> None:
    asked(run, ["perfect"] * 5 + ["sees nothing"] * 2)
    out = call("verdicts", run).out
    assert out.count("5 of 5") >= 10, "verdicts are of the first five"
    assert (
        "7 raters named an image as one of its classes in 50 of 70 trials: 71%, of a rater's trials 71% [26%, 100%]" in out
    )


def test_what_an_import_left_out_is_in_the_lines_and_in_json(call: Call, run: Path, tmp_path: Path) -> None:
    page(run).close()
    rows = jspsych(record("perfect", 1), "Kim")
    written(tmp_path / "a.csv", [*rows, *[row | {"participant": HOSTILE} for row in rows[:9]]])
    told = call("verdicts", run, "--import", "a.csv", "--json")
    number = len(rows) - 1
    left_out = [{"rater": visible(HOSTILE), "why": f"8 of {number} trials are answered"}]
    assert json.loads(told.out)["done"] == {
        "imported": {"file": "a.csv", "raters": ["Kim"], "again": [], "left_out": left_out}
    }, told.err
    assert "\x1b" not in told.out
    again = call("verdicts", run, "--import", "a.csv").out
    assert again.startswith("0 raters of a.csv imported\n  not imported: Kim: stored already\n")
    assert f"  not imported: {visible(HOSTILE)}: 8 of {number} trials are answered\n" in again
    assert json.loads(call("verdicts", run, "--json").out)["done"] == {}


def test_simulated_raters_are_never_people(call: Call, run: Path) -> None:
    images = [Candidate.of(picture(c), [c]) for c in range(10)]
    with QuizStore.open(run, write=True, simulated=True) as store:
        found = materials(1, images, real(DIGITS), DIGITS, (1, 8, 8))
        robot = Session(id=session_id(1), kind="simulated", rater="perfect", seed=1, began=0.0)
        store.begin(robot, found.trials, found.images)
    assert call("verdicts", run).out.startswith("Nobody was asked yet")


def test_answers_of_another_run_of_the_same_classes_are_added(call: Call, run: Path, plain: Path, tmp_path: Path) -> None:
    other = shutil.copytree(plain, tmp_path / "other")
    asked(run, ["perfect"] * 3)
    asked(other, ["perfect"] * 2, first=50)
    out = call("verdicts", run, "--add", "other").out
    assert out.startswith("2 sessions of other added\n")
    assert out.count("5 of 5") >= 10
    assert call("verdicts", run, "--add", "other").out.startswith("0 sessions of other added\n")


def test_answers_go_out_and_names_come_back_coded(call: Call, run: Path, tmp_path: Path) -> None:
    images = [picture(1000 + c) for c in range(10)], list(range(10))
    with StoredRun(run) as stored, QuizStore.open(run, write=True) as store:
        session = new_session(stored, HOSTILE, 1)
        found = begin(stored, store, session, images)  # type: ignore[arg-type]
        for trial, answer in zip(found.trials, simulated.answers("perfect", found.trials, DIGITS, 1), strict=True):
            if trial.kind == "elite" and trial.block == NAMING:
                answer = answer.model_copy(update={"answer": f"blob{HOSTILE}"})
            store.answer(session.id, answer)
        store.end(session.id, End(at=1.0))
    result = call("verdicts", run, "--export", "all.csv", "--to-code", "texts.csv")
    assert f"{len(found.trials)} answers: all.csv" in result.out
    assert "1 names to be coded: texts.csv" in result.out
    assert "0 of 1 (+1)" in result.out
    for text in (result.out, (tmp_path / "all.csv").read_text(), (tmp_path / "texts.csv").read_text()):
        assert "\x1b" not in text
        assert "\u202e" not in text
    (tmp_path / "filled.csv").write_text(f"answer,names\n{visible('blob' + HOSTILE)},3\n")
    coded = call("verdicts", run, "--codes", "filled.csv", "--coder", "Kim").out
    assert coded.startswith("1 names coded by Kim\n")
    assert "(+1)" not in coded
    one_sentence(call("verdicts", run, "--codes", "texts.csv"), "--codes FILE and --coder NAME belong together")


def test_what_cannot_be_read_is_one_sentence(call: Call, run: Path, tmp_path: Path) -> None:
    one_sentence(call("verdicts", "nowhere"), "there is no folder nowhere")
    one_sentence(call("verdicts", run, "--import", "none.csv"), r"none\.csv cannot be read")
    one_sentence(call("verdicts", run, "--export", "nowhere/a.csv"), "its folder does not exist")
    (tmp_path / "run" / "quiz.db").write_bytes(b"none" * 999)
    one_sentence(call("verdicts", run), r"quiz\.db is not a quiz of evofool, or is damaged")
    one_sentence(call("show", run), r"quiz\.db is not a quiz of evofool, or is damaged")


def test_a_merge_takes_the_answers_along(call: Call, run: Path) -> None:
    asked(run, ["perfect"] * 5)
    assert "5 sessions of people who said what they see: copied too" in call("merge", run, "--out", "merged").out
    verdicts = [json.loads(call("verdicts", folder, "--json").out)["verdicts"] for folder in (run, "merged")]
    words = [[(v["class"], v["verdict"], v["named"]) for v in each] for each in verdicts]
    assert words[0] == words[1]
    assert len(words[0]) == 10
