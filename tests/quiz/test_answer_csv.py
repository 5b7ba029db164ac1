"""Answers travel as CSV files of jsPsych and PsychoPy, and are checked on the way in."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from evofool.errors import StoreError, TargetError
from evofool.quiz.answer_csv import (
    COLUMNS,
    Imported,
    _time_of,
    import_answers,
    read_answers,
    read_codes,
    write_answers,
    write_to_code,
)
from evofool.quiz.materials import trial_id
from evofool.quiz.names import Names
from evofool.quiz.raters import standing
from evofool.quiz.schema import CHOICE, Record
from evofool.quiz.store import QuizStore
from tests.commands import Call
from tests.quiz.samples import ANIMALS, DIGITS, made, made_up_run, record, session, take

Row = dict[str, str]


def page(folder: Path, names: Names = DIGITS) -> QuizStore:
    """A quiz with the materials of one page, seed 1, that is open for writing."""
    store = QuizStore.open(folder, write=True)
    found = made(1, names)
    store.begin(session(1, "a page", "page"), found.trials, found.images)
    return store


def jspsych(source: Record, rater: str, names: Names = DIGITS) -> list[Row]:
    rows: list[Row] = [{"trial_type": "instructions", "rt": "5000", "response": "null", "participant": rater}]
    for trial, answer in source.pairs:
        response = json.dumps({"Q0": answer.answer}) if answer.answer else ""
        if trial.block == CHOICE:
            response = str(trial.options.index(answer.chosen) if answer.chosen >= 0 else len(trial.options))
        rows.append(
            {
                "trial_type": "naming" if trial.block != CHOICE else "html-button-response",
                "stimulus": f"img/{trial_id(1, trial.n)}.png",
                "rt": f"{answer.rt_ms:.0f}",
                "response": response,
                "participant": rater,
            }
        )
    return rows


def psychopy(source: Record, rater: str, names: Names = DIGITS) -> list[Row]:
    rows: list[Row] = []
    for trial, answer in source.pairs:
        named, chosen = answer.answer or "None", names.labels[answer.chosen] if answer.chosen >= 0 else "nothing of these"
        row = {"participant": rater, "trial": trial_id(1, trial.n), "key_resp.keys": "", "key_resp.rt": ""}
        row |= {"mouse.clicked_name": "", "mouse.rt": ""}
        what = ("mouse.clicked_name", "mouse.rt") if trial.block == CHOICE else ("key_resp.keys", "key_resp.rt")
        text = f"['{chosen}']" if trial.block == CHOICE else named
        rows.append(row | dict(zip(what, (text, f"{answer.rt_ms / 1000:.3f}"), strict=True)))
    return rows


def imported(path: Path, store: QuizStore, names: Names, now: float) -> Imported:
    return import_answers(read_answers(path), store, names, now)


def written(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.mark.parametrize("names", [DIGITS, ANIMALS], ids=["digits", "animals"])
@pytest.mark.parametrize("program", [jspsych, psychopy])
def test_answers_of_either_program_are_those_that_were_given(
    tmp_path: Path, program: Callable[[Record, str, Names], list[Row]], names: Names
) -> None:
    given = {"Kim": record("perfect", 1, names), "Ada": record("random", 1, names), "Bo": record("sees nothing", 1, names)}
    rows = [row for rater, source in given.items() for row in program(source, rater, names)]
    with page(tmp_path, names) as store:
        done = imported(written(tmp_path / "answers.csv", rows), store, names, now=50.0)
        assert done.raters == ("Kim", "Ada", "Bo")
        assert done.left_out == ()
        stored = {found.session.rater: found for found in store.records() if found.session.kind == "person"}
        for rater, source in given.items():
            assert [(a.answer, a.chosen) for a in stored[rater].answers] == [(a.answer, a.chosen) for a in source.answers]
            assert [a.rt_ms for a in stored[rater].answers] == pytest.approx([a.rt_ms for a in source.answers], abs=1)
            assert standing(stored[rater], names).why == standing(source, names).why
        again = imported(tmp_path / "answers.csv", store, names, now=60.0)
        assert again.raters == ()
        assert dict(again.left_out) == dict.fromkeys(given, "stored already")


def test_who_did_not_finish_or_chose_first_is_left_out_with_the_reason(tmp_path: Path) -> None:
    rows = jspsych(record("perfect", 1), "Kim")
    number = len(rows) - 1
    early = [row | {"participant": "Ada"} for row in [rows[-1], *rows[1:-1]]]
    knows = [row | {"participant": "Bo", "seen": "true"} for row in rows[1:]]
    with page(tmp_path) as store:
        done = imported(written(tmp_path / "a.csv", [*rows[:30], *early, *knows]), store, DIGITS, 0.0)
        assert done.raters == ("Bo",)
        assert done.left_out == (
            ("Kim", f"29 of {number} trials are answered"),
            ("Ada", "a choice comes before a name, so that its options may have helped"),
        )
        (bo,) = [found for found in store.records() if found.session.kind == "person"]
        assert standing(bo, DIGITS).why == "the rater knew the run's images"


BAD: dict[str, tuple[dict[str, str], str]] = {
    "an unknown trial": ({"stimulus": "0" * 24 + ".png"}, "row 2: '0{24}' is no trial of .*import it where its page"),
    "no rater": ({"participant": " "}, "row 2: no rater; one of the columns participant, "),
    "no time": ({"rt": "null"}, "row 2: 'null' is no time of an answer"),
    "a negative time": ({"rt": "-3"}, "row 2: '-3' is no time"),
    "a long name": ({"response": "x" * 201}, "row 2: a name of 201 characters; 200 are the most"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_named_and_nothing_is_stored(tmp_path: Path, fault: str) -> None:
    change, message = BAD[fault]
    rows = jspsych(record("perfect", 1), "Kim")
    rows[1] |= change
    with page(tmp_path) as store:
        with pytest.raises(StoreError, match=message):
            imported(written(tmp_path / "a.csv", rows), store, DIGITS, 0.0)
        assert [found.session.kind for found in store.records()] == ["page"]


@pytest.mark.parametrize("position", ["11", "-1", "3.5", "seven"])
def test_a_position_of_no_option_is_refused(tmp_path: Path, position: str) -> None:
    rows = jspsych(record("perfect", 1), "Kim")
    rows[-1]["response"] = position
    with page(tmp_path) as store, pytest.raises(StoreError, match="is the position of none of 10 options"):
        imported(written(tmp_path / "a.csv", rows), store, DIGITS, 0.0)


def test_an_answer_twice_and_columns_of_no_program_are_refused(tmp_path: Path) -> None:
    rows = jspsych(record("perfect", 1), "Kim")
    with page(tmp_path) as store:
        with pytest.raises(StoreError, match="Kim answers this trial twice"):
            imported(written(tmp_path / "a.csv", [*rows, rows[5]]), store, DIGITS, 0.0)
        bare = [{"participant": "Kim", "trial": trial_id(1, 0)}]
        with pytest.raises(StoreError, match="row 1: an answer is missing: response and rt of jsPsych, or"):
            imported(written(tmp_path / "a.csv", bare), store, DIGITS, 0.0)


def test_two_raters_with_one_pseudonym_are_not_taken_for_one_file_twice(tmp_path: Path) -> None:
    with page(tmp_path) as store:
        again = made(2)
        store.begin(session(2, "another page", "page"), again.trials, again.images)
        assert imported(written(tmp_path / "a.csv", jspsych(record("perfect", 1), "Kim")), store, DIGITS, 0.0).again == ()
        other = imported(written(tmp_path / "b.csv", jspsych(record("sees nothing", 1), "Kim")), store, DIGITS, 0.0)
        ((rater, why),) = other.left_out
        assert rater == "Kim"
        assert "another rater of the same session has this pseudonym" in why
        rows = psychopy(record("perfect", 2), "kim")
        rows = [row | {"trial": trial_id(2, n)} for n, row in enumerate(rows)]
        assert imported(written(tmp_path / "c.csv", rows), store, DIGITS, 0.0).again == ("kim",)


BEGAN = 1_000_000_000.0  # 2001-09-09T01:46:40Z


@pytest.mark.parametrize(
    ("ended", "at"),
    [
        ("2001-09-09T02:00:00.000Z", BEGAN + 800), ("2001-09-09 02:00:00", BEGAN + 800),
        ("2001-09-09T05:00:00+00:00", BEGAN + 9000),  # a clock that is fast
        ("2021-01-01T00:00:00Z", BEGAN + 9000), ("1999-01-01T00:00:00Z", BEGAN + 9000), ("soon", BEGAN + 9000),
        ("", BEGAN + 9000),
    ],
)  # fmt: skip
def test_a_session_ended_when_the_file_says_if_that_can_be(tmp_path: Path, ended: str, at: float) -> None:
    rows = [row | {"ended": ended} for row in jspsych(record("perfect", 1), "Kim")]
    with QuizStore.open(tmp_path, write=True) as store:
        found = made(1)
        store.begin(session(1, "a page", "page").model_copy(update={"began": BEGAN}), found.trials, found.images)
        imported(written(tmp_path / "a.csv", rows), store, DIGITS, BEGAN + 9000)
        (kim,) = [found for found in store.records() if found.session.kind == "person"]
        assert kim.end is not None
        assert kim.end.at == at
        write_answers(tmp_path / "all.csv", [kim], DIGITS)
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        assert {_time_of(row["ended"], 0.0, 2 * BEGAN) for row in csv.DictReader(file)} == {at}


def test_texts_of_a_file_are_made_visible_as_those_of_a_browser(tmp_path: Path) -> None:
    rows = jspsych(record("perfect", 1), "K\u202eim")
    rows[1]["response"] = "7\x1b[2J"
    with page(tmp_path) as store:
        imported(written(tmp_path / "a.csv", rows), store, DIGITS, 0.0)
        (kim,) = [found for found in store.records() if found.session.kind == "person"]
        assert (kim.session.rater, kim.answers[0].answer) == (r"K\u202eim", r"7\x1b[2J")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant;trial;response;rt\nKim;abc;7;900\n", "separate cells by commas, not by semicolons"),
        ("participant;trial;response;rt\nKim;abc;7,5;900\n", "separate cells by commas, not by semicolons"),
        ("participant\ttrial\tresponse\nKim\tabc\t7\n", "not by tabs"),
        ("participant,response,rt\nKim,7,900\n", "in the column trial.*; its columns are 'participant', 'response', 'rt'"),
        ("participant,trial,response,rt\nKim,,7,900\n", "no row has the id of a trial"),
        ("participant,trial\n", "its columns are none, as it has no rows"),
    ],
)
def test_a_file_without_an_answer_is_refused_and_leaves_no_quiz(tmp_path: Path, call: Call, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(StoreError, match=message):
        read_answers(tmp_path / "a.csv")
    run = made_up_run(tmp_path / "run")
    found = call("verdicts", run, "--import", tmp_path / "a.csv")
    assert found.code == 2
    assert re.search(message, found.err.replace("\n", " "))
    assert not QuizStore.exists(run)


def test_answers_are_not_imported_where_no_page_was_made(tmp_path: Path, call: Call) -> None:
    run = made_up_run(tmp_path / "run")
    found = call("verdicts", run, "--import", written(tmp_path / "a.csv", jspsych(record("perfect", 1), "Kim")))
    assert found.code == 2
    assert "where its page was made" in found.err.replace("\n", " ")
    assert not QuizStore.exists(run)


def test_the_export_has_the_columns_of_jspsych_and_every_answer(tmp_path: Path) -> None:
    asked = record("perfect", 1)
    with QuizStore.open(tmp_path, write=True) as store:
        take(store, asked, made(1).images)
        assert write_answers(tmp_path / "all.csv", store.records(), DIGITS) == len(asked.answers)
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {"trial_type", "trial_index", "stimulus", "response", "rt", "time_elapsed"} <= set(COLUMNS)
    for row, (trial, answer) in zip(rows, asked.pairs, strict=True):
        assert json.loads(row["class"]) == [str(c) for c in trial.classes]
        assert json.loads(row["answer"]) == ([str(trial.classes[0])] if trial.classes else [])
        assert float(row["rt"]) == answer.rt_ms
        if trial.block == CHOICE and answer.chosen >= 0:
            assert json.loads(row["options"])[int(row["response"])] == str(answer.chosen)
    assert {row["counts"] for row in rows} == {"1"}


def test_an_export_is_read_by_the_quiz_of_its_page(tmp_path: Path) -> None:
    with page(tmp_path) as store:
        imported(written(tmp_path / "a.csv", jspsych(record("perfect", 1), "Kim")), store, DIGITS, 0.0)
        people = [found for found in store.records() if found.session.kind == "person"]
        write_answers(tmp_path / "all.csv", people, DIGITS)
    (tmp_path / "other").mkdir()
    with page(tmp_path / "other") as store:
        assert imported(tmp_path / "all.csv", store, DIGITS, 0.0).raters == ("Kim",)
        (copied,) = [found for found in store.records() if found.session.kind == "person"]
        assert [(a.answer, a.chosen, a.rt_ms) for a in copied.answers] == [
            (a.answer, a.chosen, a.rt_ms) for a in people[0].answers
        ]


def test_names_that_no_rule_matches_go_to_a_coder_and_back(tmp_path: Path) -> None:
    write_to_code(tmp_path / "texts.csv", ["a loop", "=two rings", "stripes"])
    lines = (tmp_path / "texts.csv").read_text().splitlines()
    assert lines == ["answer,names", "a loop,", "'=two rings,", "stripes,"]
    (tmp_path / "filled.csv").write_text("answer,names\na loop,0; 6\n'=two rings,nothing\nstripes,\n")
    codes = read_codes(tmp_path / "filled.csv", DIGITS, "Kim", 7.0)
    assert [(code.answer, code.classes, code.coder) for code in codes] == [
        ("a loop", (0, 6), "Kim"),
        ("=two rings", (), "Kim"),
    ]
    (tmp_path / "filled.csv").write_text("answer,names\na loop,zebra\n")
    with pytest.raises(TargetError, match=r"filled.csv, row 1: no class zebra"):
        read_codes(tmp_path / "filled.csv", DIGITS, "Kim", 7.0)
    (tmp_path / "filled.csv").write_text("text\na loop\n")
    with pytest.raises(StoreError, match="needs the columns answer and names"):
        read_codes(tmp_path / "filled.csv", DIGITS, "Kim", 7.0)
