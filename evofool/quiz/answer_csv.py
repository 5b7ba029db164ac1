"""Answers as CSV files, with the columns of jsPsych or PsychoPy, and the texts that somebody has to code."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evofool.csv_file import read_csv, write_csv
from evofool.errors import StoreError
from evofool.json_text import parse_json
from evofool.quiz.materials import session_id, trial_id
from evofool.quiz.names import Names
from evofool.quiz.raters import person, standing
from evofool.quiz.schema import CHOICE, MOST_TEXT, NAMING, NOTHING_OF_THESE, Answer, Code, End, Record, Trial
from evofool.quiz.store import QuizStore, refuse_answer, trial_ids
from evofool.targets.labels import class_of
from evofool.text import shortened, visible

COLUMNS = (
    "participant", "session", "trial_index", "trial_type", "trial", "stimulus", "kind", "class", "options", "response",
    "answer", "rt", "time_elapsed", "ended", "seen", "simulated", "counts", "why",
)  # fmt: skip
"""Of an export: those of jsPsych (trial_index, trial_type, stimulus, response, rt and time_elapsed in ms), and our own, such
as ended, when the session ended, in UTC by ISO 8601."""

_RATER = ("participant", "participant_id", "subject", "subject_id", "PROLIFIC_PID")
_PSYCHOPY_ANSWER = (".keys", ".text", ".clicked_name", ".response")
_NO_RESPONSE = {"", "none", "null"}
_NOTHING_OF_THESE = {*_NO_RESPONSE, "n", "nothing", "nothing of these"}
_TO_CODE = ("answer", "names")
_DAY = 86400.0  # seconds by which a rater's clock may be wrong


def write_answers(path: Path, records: Sequence[Record], names: Names) -> int:
    """Write a row for each answer, and return how many. StoreError if the file cannot be written.

    response: of a name the text, of a choice the position of the option from 0, after the last one "nothing of these", as
    jsPsych's buttons have it. answer: the labels that it names or chooses. counts and why: raters.standing of the session.
    """
    rows = [row for record in records for row in _rows(record, names)]
    write_csv(path, COLUMNS, rows)
    return len(rows)


@dataclass(frozen=True)
class Imported:
    """raters: those whose sessions were stored. left_out: others, each with the reason.

    again: those of the first who have answered another session, by the pseudonym. Two sessions of one are one rater.
    """

    raters: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    again: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerFile:
    """The rows of a CSV file that are answers, each with its number and the id of its trial."""

    path: Path
    rows: tuple[tuple[int, str, dict[str, str]], ...]


def read_answers(path: Path) -> AnswerFile:
    """The answers in a CSV file; StoreError, naming its columns, if no row has a trial. The file is read as by read_csv."""
    rows = read_csv(path)
    found = tuple((number, name, row) for number, row in enumerate(rows, start=1) if (name := _trial_of(row)))
    if not found:
        columns = ", ".join(f"{name!r:.40}" for name in rows[0]) if rows else "none, as it has no rows"
        raise StoreError(
            f"{path} has no answers: no row has the id of a trial in the column trial, or as the file name in stimulus or "
            f"image; its columns are {shortened(columns, 400)}"
        )
    return AnswerFile(path, found)


def import_answers(file: AnswerFile, store: QuizStore, names: Names, now: float) -> Imported:
    """Store the answers to a page of this quiz (a session of kind "page") that a CSV file has, one session for each rater.

    A row is one answer. It has `trial`, or the trial's id as the file name of `stimulus` or `image`; `participant` (or
    subject, participant_id, subject_id, PROLIFIC_PID); and, as jsPsych writes them, `response` and `rt` in ms, or, as
    PsychoPy does, one column that ends with .keys, .text, .clicked_name or .response and one with .rt in seconds. A choice
    is the position of the option in jsPsych (after the last: nothing of these), and its label in PsychoPy. `seen`, if it is
    there, is true for raters who know the images. Rows without a trial are left out, such as those of instructions. now:
    seconds since 1970, the time of the import. `ended`, if it is there, is the time at which the session ended, by ISO 8601;
    now if it is not, or if it is in the future or before the page was made, by more than a day.

    Raters whose answers are not complete, or who chose before they had named everything, are left out, as are those who are
    stored already, and a second one with the pseudonym of another rater of the same session. Whether the others count is
    decided as for any session (raters.standing). StoreError, naming the row, for an unknown trial, a trial answered twice,
    an invalid answer or time; then nothing is stored.
    """
    pages = [record for record in store.records() if record.session.kind == "page"]
    known = {name: (page, page.trials[n]) for page in pages for name, n in trial_ids(page).items()}
    found: dict[tuple[str, str], _Sheet] = {}
    for number, name, row in file.rows:
        where = f"{file.path}, row {number}"
        if name not in known:
            raise StoreError(f"{where}: {name!r:.80} is no trial of {store.path}; import it where its page was made")
        page, trial = known[name]
        rater = visible(next((row[column].strip() for column in _RATER if row.get(column, "").strip()), ""))
        if not 0 < len(rater) <= MOST_TEXT:
            raise StoreError(f"{where}: no rater; one of the columns {', '.join(_RATER)} has to name them, briefly")
        sheet = found.setdefault((page.session.id, rater), _Sheet(page, rater, {}, [], [], []))
        if trial.n in sheet.answers:
            raise StoreError(f"{where}: {rater} answers this trial twice; two raters need two pseudonyms")
        sheet.answers[trial.n] = _answer_of(row, trial, names, now, where)
        sheet.blocks.append(trial.block)
        sheet.seen.append(row.get("seen", "").strip().casefold() in ("1", "true", "yes"))
        sheet.ended.append(_time_of(row.get("ended", ""), page.session.began, now))
    stored = {record.session.id: record for record in store.records() if record.session.kind == "person"}
    people = {person(record.session.rater) for record in stored.values()}
    taken, again, left_out = list[str](), list[str](), list[tuple[str, str]]()
    for sheet in found.values():
        if why := sheet.fault(stored):
            left_out.append((sheet.rater, why))
        else:
            record = sheet.record(now)
            store.add(record, {image: store.image(image) for image in {trial.image for trial in record.trials}})
            taken.append(sheet.rater)
            if person(sheet.rater) in people:
                again.append(sheet.rater)
            people.add(person(sheet.rater))
    return Imported(tuple(taken), tuple(left_out), tuple(again))


def write_to_code(path: Path, texts: Sequence[str]) -> None:
    """Write the texts that no rule matches: `answer`, and `names`, which somebody fills who does not see the images."""
    write_csv(path, _TO_CODE, [{"answer": text, "names": None} for text in texts])


def read_codes(path: Path, names: Names, coder: str, now: float) -> list[Code]:
    """What somebody has filled in: in `names` labels, separated by semicolons, or "nothing". Empty ones are left out.

    StoreError for a file without these columns, TargetError for an unknown label.
    """
    codes = []
    for number, row in enumerate(read_csv(path), start=1):
        if any(column not in row for column in _TO_CODE):
            raise StoreError(f"{path} needs the columns {' and '.join(_TO_CODE)}; evofool verdicts RUN --to-code writes it")
        if filled := row["names"].strip():
            where = f"{path}, row {number}"
            labels = [] if filled.casefold() == "nothing" else [part.strip() for part in filled.split(";") if part.strip()]
            classes = tuple(dict.fromkeys(class_of(label, names.labels, where) for label in labels))
            codes.append(Code(answer=row["answer"][:MOST_TEXT], classes=classes, coder=coder[:MOST_TEXT], at=now))
    return codes


@dataclass(frozen=True)
class _Sheet:
    """The answers of one rater to one page, with their blocks in the order of the file. ended: by row, if it is known."""

    page: Record
    rater: str
    answers: dict[int, Answer]
    blocks: list[int]
    seen: list[bool]
    ended: list[float | None]

    def fault(self, stored: Mapping[str, Record]) -> str:
        if self._id() in stored:
            there = [(answer.answer, answer.chosen) for answer in stored[self._id()].answers]
            if there == [(answer.answer, answer.chosen) for _, answer in sorted(self.answers.items())]:
                return "stored already"
            return "another rater of the same session has this pseudonym; in the file give one of them another one"
        if len(self.answers) < len(self.page.trials):
            return f"{len(self.answers)} of {len(self.page.trials)} trials are answered"
        if self.blocks != sorted(self.blocks):
            return "a choice comes before a name, so that its options may have helped"
        return ""

    def record(self, now: float) -> Record:
        page = self.page.session
        at = max((time for time in self.ended if time is not None), default=now)
        about = {"id": self._id(), "kind": "person", "rater": self.rater, "page": page.id, "began": at}
        answers = tuple(self.answers[n].model_copy(update={"at": at}) for n in range(len(self.page.trials)))
        end = End(at=at, seen=any(self.seen))
        return Record(page.model_copy(update=about), self.page.trials, answers, end)

    def _id(self) -> str:
        return session_id(self.page.session.seed, self.rater)


def _rows(record: Record, names: Names) -> Iterator[dict[str, Any]]:
    session, found = record.session, standing(record, names)
    ended = datetime.fromtimestamp(record.end.at, UTC).isoformat() if record.end else None
    named: frozenset[int] | None
    for trial, answer in record.pairs:
        if trial.block == CHOICE:
            named = frozenset() if answer.chosen == NOTHING_OF_THESE else frozenset({answer.chosen})
            response: Any = trial.options.index(answer.chosen) if answer.chosen in trial.options else len(trial.options)
        else:
            named, response = names.classes(answer.answer), answer.answer
        values = (
            session.rater, session.id, trial.n, "choice" if trial.block == CHOICE else "naming",
            trial_id(session.seed, trial.n), trial.image, trial.kind, _labels(trial.classes, names),
            _labels(trial.options, names), response, None if named is None else _labels(sorted(named), names), answer.rt_ms,
            (answer.at - session.began) * 1000, ended, int(record.seen), int(session.kind == "simulated"), int(found.counts),
            found.why,
        )  # fmt: skip
        yield dict(zip(COLUMNS, values, strict=True))


def _labels(classes: Sequence[int], names: Names) -> str:
    return json.dumps([names.labels[c] for c in classes if c < len(names.labels)])


def _trial_of(row: Mapping[str, str]) -> str | None:
    """The id of a row's trial; None for a row that has none."""
    if name := row.get("trial", "").strip():
        return name
    for column in ("stimulus", "image"):
        match = re.search(r"(?:^|[/\\])([0-9a-f]{24})(?:\.\w+)?$", row.get(column, "").strip())
        if match:
            return match[1]
    return None


def _time_of(text: str, earliest: float, now: float) -> float | None:
    """Seconds since 1970 of a time by ISO 8601, at most now; None if there is none, or none that can be."""
    try:
        found = datetime.fromisoformat(text.strip())
        time = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(time, now) if earliest - _DAY <= time <= now + _DAY else None


def _answer_of(row: Mapping[str, str], trial: Trial, names: Names, now: float, where: str) -> Answer:
    if "response" in row and "rt" in row:
        text, time, scale, choose = row["response"], row["rt"], 1.0, _by_position
    else:
        text = _first(row, _PSYCHOPY_ANSWER, where, "an answer")
        time, scale, choose = _first(row, (".rt",), where, "a time"), 1000.0, _by_label
    text = _plain(text)
    try:
        rt_ms = float(time.strip("[] ")) * scale
    except ValueError:
        rt_ms = math.nan
    if not 0 <= rt_ms < math.inf:
        raise StoreError(f"{where}: {time!r:.40} is no time of an answer")
    if trial.block == NAMING:
        text = visible(text)
        if len(text) > MOST_TEXT:
            raise StoreError(f"{where}: a name of {len(text):,} characters; {MOST_TEXT} are the most")
        return Answer(n=trial.n, answer="" if text.casefold() in _NO_RESPONSE else text, rt_ms=rt_ms, at=now)
    answer = Answer(n=trial.n, chosen=choose(text, trial, names, where), rt_ms=rt_ms, at=now)
    refuse_answer(trial, answer, where)
    return answer


def _first(row: Mapping[str, str], endings: tuple[str, ...], where: str, what: str) -> str:
    columns = [column for column in row if column.endswith(endings)]
    if not columns:
        raise StoreError(f"{where}: {what} is missing: response and rt of jsPsych, or PsychoPy's with .keys and .rt")
    return next((row[column] for column in columns if row[column].strip()), "")


def _plain(text: str) -> str:
    """An answer without what jsPsych and PsychoPy put around it: {"Q0": "fish"}, ['7'], "num_7"."""
    text = text.strip()
    if text.startswith(("{", "[", '"')):
        try:
            value = parse_json(text.replace("'", '"') if text[0] == "[" else text)
        except ValueError:
            return text
        parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        text = str(parts[0]).strip() if parts and parts[0] is not None else ""
    return text.removeprefix("num_")


def _by_position(text: str, trial: Trial, names: Names, where: str) -> int:
    if text.casefold() in _NO_RESPONSE:
        return NOTHING_OF_THESE
    if not text.isdecimal() or len(text) > 3 or int(text) > len(trial.options):
        raise StoreError(f"{where}: {text!r:.40} is the position of none of {len(trial.options)} options")
    position = int(text)
    return trial.options[position] if position < len(trial.options) else NOTHING_OF_THESE


def _by_label(text: str, trial: Trial, names: Names, where: str) -> int:
    for c in trial.options:
        if c < len(names.labels) and names.labels[c] == text:
            return c
    if text.casefold() in _NOTHING_OF_THESE:
        return NOTHING_OF_THESE
    raise StoreError(f"{where}: {text!r:.40} is the label of none of the options")
