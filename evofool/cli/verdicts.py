"""The command `evofool verdicts`."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evofool.cli.options import AsJson, RunFolder
from evofool.printer import Table, print_json, print_lines

if TYPE_CHECKING:
    from evofool.quiz.of_run import RunVerdicts
    from evofool.quiz.raters import Standing
    from evofool.quiz.schema import Record
    from evofool.run.stored import StoredRun

IMPORT = typer.Option(
    "--import",
    metavar="FILE",
    help="First store the answers to a page of this quiz that a CSV file has, with the columns of jsPsych or PsychoPy.",
)
ADD = typer.Option("--add", metavar="RUN", help="First copy the sessions of another run's quiz here; may be repeated.")
EXPORT = typer.Option("--export", metavar="FILE", help="Write all answers there, a CSV with the columns of jsPsych.")
TO_CODE = typer.Option(
    "--to-code", metavar="FILE", help="Write the names that match no label there, a CSV for somebody to fill in."
)
CODES = typer.Option("--codes", metavar="FILE", help="First store which labels such names mean: that file, filled in.")
CODER = typer.Option("--coder", metavar="NAME", help="Who filled it in, without having seen the images.")


def verdicts(
    folder: RunFolder,
    answers: Annotated[Path | None, IMPORT] = None,
    add: Annotated[list[Path] | None, ADD] = None,
    export: Annotated[Path | None, EXPORT] = None,
    to_code: Annotated[Path | None, TO_CODE] = None,
    codes: Annotated[Path | None, CODES] = None,
    coder: Annotated[str, CODER] = "",
    as_json: AsJson = False,
) -> None:
    """Show what people see in a run's elites: recognised, taken for another class, unrecognised, or open.

    The answers are in quiz.db beside the run; docs/quiz.md has the protocol. Verdicts follow from the answers of raters who
    named real images and not noise, at 5, 8, 13 and 20 of them. They belong to an image's pixels. Below the table is what
    may be said of all elites together, and which sessions do not count, with the reasons.
    """
    from evofool.cli.console import refuse_unwritable
    from evofool.errors import StoreError
    from evofool.quiz.answer_csv import import_answers, read_answers, read_codes, write_answers, write_to_code
    from evofool.quiz.of_run import names_of, run_verdicts
    from evofool.quiz.raters import standing
    from evofool.quiz.store import QuizStore
    from evofool.run.stored import StoredRun

    if (codes is None) != (not coder.strip()):
        raise StoreError("--codes FILE and --coder NAME belong together: who says what these names mean is stored too")
    for path in (export, to_code):
        refuse_unwritable(path)
    with StoredRun(folder) as stored:
        done = dict[str, Any]()
        sheet = read_answers(answers) if answers is not None else None
        if sheet is not None and not add and not QuizStore.exists(stored.folder):
            raise StoreError(f"{folder} has no quiz.db, so no page was made there; import {answers} where its page was made")
        if sheet is not None or add or codes is not None:
            with QuizStore.open(stored.folder, write=True) as store:
                for other in add or ():
                    with StoredRun(other) as source, QuizStore.open(source.folder) as from_:
                        if source.labels != stored.labels:
                            raise StoreError(f"{other} has other labels than {folder}, so its answers mean other classes")
                        done.setdefault("added", []).append({"run": str(other), "sessions": store.add_all(from_)})
                if codes is not None:
                    found = read_codes(codes, names_of(stored.labels, []), coder.strip(), time.time())
                    store.code(found)
                    done["coded"] = {"names": len(found), "coder": coder.strip()}
                if sheet is not None:
                    taken = import_answers(sheet, store, names_of(stored.labels, store.codes()), time.time())
                    left_out = [{"rater": rater, "why": why} for rater, why in taken.left_out]
                    raters = {"raters": list(taken.raters), "again": list(taken.again), "left_out": left_out}
                    done["imported"] = {"file": str(answers), **raters}
        records, coded = list["Record"](), []
        if QuizStore.exists(stored.folder):
            with QuizStore.open(stored.folder) as store:
                records, coded = store.records(), store.codes()
        seen = run_verdicts(stored, records, coded)
        standings = [(record, standing(record, seen.names)) for record in records if record.session.kind != "page"]
        if export is not None:
            number = write_answers(export, [record for record, _ in standings], seen.names)
            done["exported"] = {"file": str(export), "answers": number}
        if to_code is not None:
            write_to_code(to_code, seen.answers.unread)
            done["written_to_code"] = {"file": str(to_code), "names": len(seen.answers.unread)}
        if as_json:
            print_json(_summary(stored, seen, standings) | {"done": done})
            return
        print_lines(*_notes(done))
        if not standings:
            print_lines(f"Nobody was asked yet what they see in the elites of {folder}.")
            return
        _print(stored, seen, standings)


def _notes(done: dict[str, Any]) -> list[str]:
    """What this call stored and wrote, as in the JSON, in lines."""
    notes = [f"{added['sessions']} sessions of {added['run']} added" for added in done.get("added", [])]
    if coded := done.get("coded"):
        notes.append(f"{coded['names']} names coded by {coded['coder']}")
    if imported := done.get("imported"):
        notes.append(f"{len(imported['raters'])} raters of {imported['file']} imported")
        notes += [f"  {rater} answered before, by the pseudonym; two sessions are one rater" for rater in imported["again"]]
        notes += [f"  not imported: {left['rater']}: {left['why']}" for left in imported["left_out"]]
    if exported := done.get("exported"):
        notes.append(f"{exported['answers']:,} answers: {exported['file']}")
    if written := done.get("written_to_code"):
        notes.append(f"{written['names']} names to be coded: {written['file']}")
    return [*notes, ""] if notes else []


def _summary(stored: "StoredRun", seen: "RunVerdicts", standings: "list[tuple[Record, Standing]]") -> dict[str, Any]:
    from evofool.quiz.schema import PROTOCOL
    from evofool.quiz.tally import PRESETS

    labels = stored.labels
    return {
        "run": str(stored.folder),
        "protocol": PROTOCOL,
        "raters_at": list(PRESETS),
        "verdicts": [{"niche": e.row.niche, "birth": e.row.birth, **v.summary(labels)} for e, v in seen.by_elite],
        "archive": seen.summary(),
        "sessions": [{"id": r.session.id, "rater": r.session.rater, **s.summary()} for r, s in standings],
        "to_code": list(seen.answers.unread),
    }


def _print(stored: "StoredRun", seen: "RunVerdicts", standings: "list[tuple[Record, Standing]]") -> None:
    labels, niches = stored.labels, stored.niches > 1
    table = Table()
    numbers = "named", "chosen", "given to others"
    for name in ("class", "label", *(["niche"] if niches else []), "verdict", *numbers, "missing"):
        table.column(name, right=name in ("class", "niche", *numbers))
    for elite, v in seen.by_elite:
        of = f"{v.named} of {v.raters}" + (f" (+{v.uncoded})" if v.uncoded else "")
        own = [v.class_id, labels[v.class_id], *([elite.row.niche] if niches else []), v.text(labels)]
        table.row(*own, of, f"{v.chosen} of {v.offered}", f"{v.named_base:.0%}, {v.chosen_base:.0%}", v.missing())
    if seen.by_elite:
        table.print()
    for line in _lines(seen, standings):
        print_lines(line)


def _lines(seen: "RunVerdicts", standings: "list[tuple[Record, Standing]]") -> list[str]:
    """What may be said of all elites together, and which sessions count."""
    from evofool.quiz.tally import PRESETS

    found = seen.summary()
    named, judged, images = found["named"], found["judged"], found["recognised"]
    lines = [""]
    if judged:
        c = found["counts"]
        lines.append(
            f"{_number(judged, 'pair')} of image and class judged: {c['recognised']} recognised, {c['taken']} taken for "
            f"another class, {c['unrecognised']} unrecognised, {c['open']} open. Up to "
            f"{found['unrecognised_by_chance']:.1f} false verdicts of unrecognised are to be expected. {images['hits']} of "
            f"{_number(images['of'], 'image')} recognised as one of their classes: {images['share']:.0%} "
            f"[{images['low']:.0%}, {images['high']:.0%}]."
        )
    elif seen.by_elite:
        lines.append(f"No verdict is derived from fewer than {PRESETS[0]} raters.")
    if named["of"]:
        per_rater, shuffled = found["per_rater"], named["shuffled"]
        limits = f" [{per_rater['low']:.0%}, {per_rater['high']:.0%}]" if per_rater["low"] is not None else ""
        lines.append(
            f"{_number(found['raters'], 'rater')} named an image as one of its classes in {named['hits']} of "
            f"{_number(named['of'], 'trial')}: {named['share']:.0%}, of a rater's trials {per_rater['mean']:.0%}{limits} on "
            f"average; with shuffled classes {shuffled['mean']:.0%}, p = {shuffled['p']:.3f}."
        )
    if check := found["dawid_skene"]:
        lines.append(
            f"As a check, by the estimate of Dawid & Skene {check['shown']} of {_number(check['images'], 'image')} judged "
            f"show one of their classes; it agrees with the verdicts on {check['agree']}."
        )
    if seen.answers.unread:
        lines.append(f"{len(seen.answers.unread)} names match no label: --to-code FILE writes them for somebody to code.")
    reasons = Counter(standing.why for _, standing in standings if standing.why)
    lines.append(f"{len(standings) - reasons.total()} of {len(standings)} sessions count." if standings else "")
    lines += [f"  not counted: {why}" + (f" ({number} sessions)" if number > 1 else "") for why, number in reasons.items()]
    return lines


def _number(count: int, of: str) -> str:
    return f"{count} {of}" if count == 1 else f"{count} {of}s"
