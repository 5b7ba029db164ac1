"""The quiz about a run, as its pages need it: sessions that begin, are asked, go on after a kill of the server, and end."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from evofool.errors import EvofoolError, ImageError, TargetError
from evofool.quiz.materials import ELITES, NOISE, OPTIONS, REAL, REPEATS, Materials, trial_id
from evofool.quiz.names import Names
from evofool.quiz.of_run import EliteImages, Logits, begin, new_session, run_verdicts
from evofool.quiz.raters import person, standing
from evofool.quiz.schema import CHOICE, MOST_TEXT, NOTHING_OF_THESE, Answer, End, Record, Session, Trial
from evofool.quiz.store import QuizStore, trial_ids
from evofool.quiz.tally import PRESETS
from evofool.run.stored import StoredRun
from evofool.targets import is_black_box
from evofool.targets.labels import is_rejection
from evofool.targets.spec import parse
from evofool.text import visible

T = TypeVar("T")
RealSource = Callable[[StoredRun, int], tuple[np.ndarray, Sequence[int]]]
"""From a run and a session's seed, the real images that pick_real picks, uint8 (REAL, C, H, W), and their classes."""
_MOST_KEYS = 36  # labels that get a button each; of more a rater types the label
_SECONDS = {True: (4, 3), False: (8, 5)}  # that a name and a choice take, where names are keys or texts


class QuizError(EvofoolError, ValueError):
    """What a page asks for that a quiz cannot do, such as an answer to another trial than the present one."""


class QuizDesk:
    """The quizzes of runs, by folder.

    No answer is kept here: each call opens the quiz's file, and what it stores is on the disk when it returns, so a server
    that is killed loses none. All calls are made in one thread, in turn.
    """

    def __init__(self, real: RealSource, trust: bool = False, classes: Collection[int] | None = None) -> None:
        """classes: whose elites are asked about; None: all."""
        self._real, self._trust, self._classes = real, trust, classes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evofool-quiz")
        self._loaded: tuple[str, Logits] | None = None
        self._images = EliteImages()
        self.shown: set[Path] = set()  # folders whose images the browser of this start has shown

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments), one of the methods below, in the quiz's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def check(self, stored: StoredRun) -> None:
        """ImageError, TargetError or StoreError if no session about this run can begin."""
        elites, (images, _) = self._elites(stored), self._real(stored, 0)
        if not elites or len(images) < REAL:
            raise ImageError(
                f"a quiz needs an elite and {REAL} real images; there are {elites} elites and {len(images)} real images"
            )

    def load(self, stored: StoredRun) -> None:
        """Load the target, if options need it; TargetError if it cannot be loaded or must not be asked."""
        self._logits(stored)

    def show(self, folders: Collection[Path], runs: Collection[Path]) -> None:
        """The browser shows images of what is in these folders: sessions in which they occur do not count, from now on.

        runs: the folders of all runs. Of the sessions that are open it is stored, so that another start knows it.
        """
        inside = {run for run in runs for folder in folders if folder.is_relative_to(run)}
        self.shown |= inside.union(folders)
        for run in runs:
            # A file that cannot be written takes no answers either.
            with suppress(EvofoolError):
                known = [
                    record.session.id for record in _records(run) if _is_open(record) and self._knows(run, record.trials)
                ]
                if known:
                    with QuizStore.open(run, write=True) as store:
                        for session in known:
                            store.mark_seen(session, time.time())

    def start(self, folder: Path) -> dict[str, Any]:
        """What the first page says: how much there is to do, and which sessions have not ended. Errors as of `check`.

        seen: whether the browser has shown images of the run.
        """
        with StoredRun(folder) as stored:
            self.check(stored)
            return {
                **expected(self._elites(stored), Names(stored.labels)),
                "seen": self._has_shown(folder, lambda: self._held(folder)),
                "unfinished": [
                    {
                        "rater": record.session.rater,
                        "done": len(record.answers),
                        "of": len(record.trials),
                        "seen": record.seen,
                    }
                    for record in _records(stored.folder)
                    if _goes_on(record, stored.meta.id)
                ],
            }

    def begin(self, folder: Path, given: dict[str, Any], agent: str) -> str:
        """The id of a new session of a rater, or of the one that they have not ended; QuizError without a pseudonym.

        given: rater, seen, viewport and dpr, as the page sends them.
        """
        seen = given.get("seen") is True
        rater = visible(" ".join(str(given.get("rater", "")).split()))
        if not 0 < len(rater) <= MOST_TEXT:
            raise QuizError("a pseudonym is needed, of at most 200 characters")
        with StoredRun(folder) as stored, QuizStore.open(stored.folder, write=True) as store:
            for record in store.records():
                if _goes_on(record, stored.meta.id) and person(record.session.rater) == person(rater):
                    if seen or self._knows(folder, record.trials):
                        store.mark_seen(record.session.id, time.time())
                    return record.session.id
            about = {
                "seen": seen,
                "agent": visible(agent)[:MOST_TEXT],
                "viewport": visible(str(given.get("viewport", "")))[:MOST_TEXT],
                "dpr": given.get("dpr", 1.0),
            }
            try:
                session = new_session(stored, rater, **about)
            except ValidationError:
                raise QuizError("the page sent what is no session") from None
            if self._knows(folder, self._draw(stored, store, session).trials):
                store.mark_seen(session.id, time.time())
            return session.id

    def draw_page(self, folder: Path) -> tuple[Record, dict[str, bytes]]:
        """A new session of kind "page", which is stored, and the PNGs of its images."""
        with StoredRun(folder) as stored, QuizStore.open(stored.folder, write=True) as store:
            session = new_session(stored, "", kind="page")
            made = self._draw(stored, store, session)
            return Record(session, made.trials, (), None), made.images

    def state(self, folder: Path, session: str) -> dict[str, Any]:
        """How far a session is, and its next trial: all that the rater's page gets to know."""
        with _opened(folder) as (store, names):
            return _state(_record(store, session), names)

    def answer(self, folder: Path, session: str, given: dict[str, Any]) -> dict[str, Any]:
        """Store the answer to the next trial, and return the state after it.

        given: trial, its id; response, the text of a name or the position of an option, after the last one nothing of these;
        rt, ms. An answer that is stored already changes nothing: its page has not heard of it before the server was killed.
        QuizError for any other trial, and for an invalid answer.
        """
        with _opened(folder, write=True) as (store, names):
            record = _record(store, session)
            n = trial_ids(record).get(str(given.get("trial")), -1)
            if 0 <= n < len(record.answers):
                return _state(record, names)
            if n != len(record.answers):
                raise QuizError("this is not the trial that is asked now")
            answer = _answer(record.trials[n], given)
            store.answer(session, answer)
            return _state(record._replace(answers=(*record.answers, answer)), names)

    def end(self, folder: Path, session: str, seen: bool) -> dict[str, Any]:
        """End a session whose trials are all answered. seen: the rater knew images."""
        with _opened(folder, write=True) as (store, names):
            record = _record(store, session)
            if len(record.answers) < len(record.trials):
                raise QuizError("there are trials that are not answered yet")
            if record.end is None:
                store.end(session, End(at=time.time(), seen=seen or self._knows(folder, record.trials)))
            return _state(store.record(session), names)

    def picture(self, folder: Path, session: str, trial: str) -> bytes:
        """The PNG of the trial that is asked now, or of any one of a session that ended; QuizError for others."""
        with _opened(folder) as (store, _):
            record = _record(store, session)
            n = trial_ids(record).get(trial, -1)
            if n < 0 or (n != len(record.answers) and record.end is None):
                raise QuizError("this trial is not asked now")
            return store.image(record.trials[n].image)

    def results(self, folder: Path, session: str) -> dict[str, Any]:
        """What the last page says of a session that has ended; {} before."""
        with StoredRun(folder) as stored:
            with QuizStore.open(stored.folder) as store:
                records, codes = store.records(), store.codes()
                record = _record(store, session)
            if record.end is None:
                return {}
            found = run_verdicts(stored, records, codes)
            counted = sum(standing(other, found.names).counts for other in records)
            return {
                "rater": record.session.rater,
                "standing": standing(record, found.names),
                "rows": _rows(record, found.names),
                "raters": len(found.answers.raters),
                "counted": counted,
                "sessions": sum(other.session.kind != "page" for other in records),
                "next": next((number for number in PRESETS if number > len(found.answers.raters)), None),
                "verdicts": [(v, v.text(stored.labels)) for v in found.verdicts if v.raters >= PRESETS[0]],
                "labels": stored.labels,
                "by_key": found.names.by_key,
            }

    def _draw(self, stored: StoredRun, store: QuizStore, session: Session) -> Materials:
        real = self._real(stored, session.seed)
        return begin(stored, store, session, real, self._logits(stored), self._classes, self._images)

    def _knows(self, folder: Path, trials: Sequence[Trial]) -> bool:
        """Whether the browser has shown images of the run in folder, or some that these trials show."""
        return self._has_shown(folder, lambda: {trial.image for trial in trials})

    def _has_shown(self, folder: Path, images: Callable[[], set[str]]) -> bool:
        """Whether the browser has shown images of the run in folder, or some of `images`, which are called only if needed.

        Another run may have the same images: a copy, or one that was merged.
        """
        if any(folder.is_relative_to(shown) for shown in self.shown):
            return True
        own = images() if self.shown else set()
        return any(not own.isdisjoint(self._held(shown)) for shown in self.shown)

    def _held(self, folder: Path) -> set[str]:
        """By pixel_sha256, the images of a run's elites; none if there is no run, as in the folder of a report."""
        try:
            with StoredRun(folder) as stored:
                return {self._images.key(elite) for elite in stored.elites()}
        except EvofoolError:
            return set()

    def _elites(self, stored: StoredRun) -> int:
        """How many elites a session has, about: at most ELITES. Of few, those with the same pixels count once."""
        classes = range(len(stored.labels)) if self._classes is None else set(self._classes)
        cells = {e.row.cell for e in stored.listed() if e.row.class_id in classes and not is_rejection(e.label)}
        if len(cells) > ELITES:
            return ELITES
        return len({self._images.key(elite) for elite in stored.elites() if elite.row.cell in cells})

    def _logits(self, stored: StoredRun) -> Logits | None:
        """The target's, where options need it; loaded once."""
        if sum(not is_rejection(label) for label in stored.labels) <= OPTIONS:
            return None
        if self._loaded is None or self._loaded[0] != stored.meta.id:
            spec = stored.recipe.target
            if is_black_box(spec) and parse(spec).whole("max_requests") is None:
                raise TargetError(
                    f"{spec}: every session asks this server about {ELITES} images; a quiz needs a run whose target limits "
                    "its requests: max_requests=100 in its spec"
                )
            self._loaded = stored.meta.id, stored.own_target(trust=self._trust).logits
        return self._loaded[1]


def keys_of(names: Names) -> list[int] | None:
    """The classes that have a button and a key each, their labels; None where raters type what they see."""
    return list(names.nameable) if names.by_key and len(names.nameable) <= _MOST_KEYS else None


def expected(elites: int, names: Names) -> dict[str, Any]:
    """How many images and trials a session with so many elites has, and how many minutes they take, about."""
    shown = elites + REAL + NOISE
    named = shown + min(REPEATS, elites // 2)
    a_name, a_choice = _SECONDS[keys_of(names) is not None]
    return {"images": shown, "trials": named + shown, "minutes": -(-(named * a_name + shown * a_choice) // 60)}


def asked(record: Record, n: int, names: Names) -> dict[str, Any]:
    """Of trial n what a rater's page gets: its id, its block and its options.

    Not what kind of image it is, nor its classes, and nothing that two trials of one image have in common.
    """
    trial = record.trials[n]
    return {
        "trial": trial_id(record.session.seed, n),
        "block": trial.block,
        "options": [visible(names.labels[c]) for c in trial.options],
    }


def _answer(trial: Trial, given: dict[str, Any]) -> Answer:
    response: Any = given.get("response")
    values: dict[str, Any] = {"n": trial.n, "rt_ms": given.get("rt"), "at": time.time()}
    if trial.block != CHOICE and isinstance(response, str):
        values["answer"] = visible(response.strip())
    elif trial.block == CHOICE and type(response) is int and 0 <= response <= len(trial.options):
        values["chosen"] = (*trial.options, NOTHING_OF_THESE)[response]
    else:
        raise QuizError("this is no answer to the trial")
    try:
        return Answer.model_validate(values)
    except ValidationError:
        raise QuizError(f"this is no answer to the trial; a name has at most {MOST_TEXT} characters") from None


def _state(record: Record, names: Names) -> dict[str, Any]:
    done, of, ended = len(record.answers), len(record.trials), record.end is not None
    keys = keys_of(names)
    return {
        "done": done,
        "of": of,
        "ended": ended,
        "keys": None if keys is None else [names.labels[c] for c in keys],
        **(asked(record, done, names) if done < of and not ended else {}),
    }


def _rows(record: Record, names: Names) -> list[dict[str, Any]]:
    """What a rater named and chose of each image that was no noise, in the order in which they were shown."""
    rows: dict[str, dict[str, Any]] = {}
    for trial, answer in record.pairs:
        if trial.kind in ("noise", "repeat"):
            continue
        if trial.block == CHOICE:
            chosen = answer.chosen
            rows[trial.image]["chosen"] = "nothing of these" if chosen == NOTHING_OF_THESE else names.labels[chosen]
            rows[trial.image]["hit"] |= chosen in trial.classes
        else:
            found = names.classes(answer.answer)
            rows[trial.image] = {
                "trial": trial_id(record.session.seed, trial.n),
                "real": trial.kind == "real",
                "classes": [names.labels[c] for c in trial.classes],
                "named": answer.answer if found or found is None else "nothing",
                "uncoded": found is None,
                "chosen": "",
                "hit": not (found or frozenset()).isdisjoint(trial.classes),
            }
    return sorted(rows.values(), key=lambda row: row["real"])


@contextmanager
def _opened(folder: Path, write: bool = False) -> Iterator[tuple[QuizStore, Names]]:
    """The quiz of a run, and the run's labels."""
    with StoredRun(folder) as stored:
        names = Names(stored.labels)
    with QuizStore.open(folder, write=write) as store:
        yield store, names


def _records(folder: Path) -> list[Record]:
    if not QuizStore.exists(folder):
        return []
    with QuizStore.open(folder) as store:
        return store.records()


def _record(store: QuizStore, session: str) -> Record:
    """A session of a rater. The materials of a page are answered on that page."""
    record = store.record(session)
    if record.session.kind != "person":
        raise QuizError("this is no session of a rater")
    return record


def _goes_on(record: Record, run: str) -> bool:
    return _is_open(record) and record.session.run == run


def _is_open(record: Record) -> bool:
    return record.session.kind == "person" and record.end is None
