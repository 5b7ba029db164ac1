"""A run of ten digits by a made-up target, and simulated sessions about it."""

from pathlib import Path

import numpy as np

from evofool.quiz import simulated
from evofool.quiz.materials import Candidate, Materials, materials, session_id
from evofool.quiz.names import Names
from evofool.quiz.of_run import begin, new_session
from evofool.quiz.schema import End, Record, Session
from evofool.quiz.store import QuizStore
from evofool.recipe import Recipe, parse
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target

SHAPE = (1, 8, 8)
DIGITS = Names("0123456789")
ANIMALS = Names(
    ["tench", "tiger shark", "great white shark", "tiger", "tabby cat", "loggerhead turtle", "red fox", "sorrel horse",
     "barn owl", "house finch", "green mamba", "king crab", "nothing"]
)  # fmt: skip


def picture(number: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def elites(names: Names, count: int = 10, judged: int = 0) -> list[Candidate]:
    """One for each of the first classes, with the next ones as the model's other guesses."""
    classes = [names.nameable[k % len(names.nameable)] for k in range(count)]
    return [Candidate.of(picture(k), [c], judged, names.nameable) for k, c in enumerate(classes)]


def real(names: Names) -> list[Candidate]:
    return [Candidate.of(picture(1000 + c), [c]) for c in names.nameable[:10]]


def made(seed: int, names: Names = DIGITS, count: int = 10) -> Materials:
    return materials(seed, elites(names, count), real(names), names, SHAPE)


def session(seed: int, rater: str = "", kind: str = "person") -> Session:
    rater = rater or f"rater {seed}"
    return Session.model_validate({"id": session_id(seed), "kind": kind, "rater": rater, "seed": seed, "began": float(seed)})


def record(kind: simulated.Kind, seed: int, names: Names = DIGITS, rater: str = "", count: int = 10) -> Record:
    """A finished session whose answers are simulated; as of a person, so that the rules for people can be tested."""
    trials = made(seed, names, count).trials
    answers = simulated.answers(kind, trials, names, seed, float(seed))
    return Record(session(seed, rater), trials, tuple(answers), End(at=1000.0 + seed))


def changed(source: Record, change: "dict[tuple[int, str], str]", rt_ms: float | None = None) -> Record:
    """The same with other answers: by block and kind of trial the text, or label to choose, of all these trials."""
    answers = []
    for trial, answer in source.pairs:
        text = change.get((trial.block, trial.kind), answer.answer)
        answers.append(answer.model_copy(update={"answer": text, "rt_ms": rt_ms or answer.rt_ms}))
    return source._replace(answers=tuple(answers))


def take(store: QuizStore, source: Record, images: dict[str, bytes]) -> None:
    """The session as a server stores it: trial by trial."""
    store.begin(source.session, source.trials, images)
    for answer in source.answers:
        store.answer(source.session.id, answer)
    if source.end:
        store.end(source.session.id, source.end)


def asked(folder: Path, kinds: list[simulated.Kind], first: int = 1, name: str = "rater") -> None:
    """Sessions of people about a run, whose answers a function gives, so that the whole way to the table can be tested."""
    with StoredRun(folder) as stored, QuizStore.open(folder, write=True) as store:
        images = [picture(1000 + c, stored.shape) for c in range(10)], list(range(10))
        store._db.execute("PRAGMA synchronous = OFF")  # a thousand answers, and no crash to survive
        for seed, kind in enumerate(kinds, start=first):
            session = new_session(stored, f"{name} {seed}", seed)
            found = begin(stored, store, session, images)  # type: ignore[arg-type]
            for answer in simulated.answers(kind, found.trials, DIGITS, seed):
                store.answer(session.id, answer)
            store.end(session.id, End(at=float(seed)))


def made_up_run(folder: Path, names: Names = DIGITS, shape: tuple[int, int, int] = SHAPE) -> Path:
    """A run whose elites have different images, by a target whose logits are the first pixels."""
    with Run.start(_recipe(), folder, first_pixels(names, shape)) as run:
        run.advance()
    return folder


def first_pixels(names: Names = DIGITS, shape: tuple[int, int, int] = SHAPE) -> Target:
    def answer(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, : len(names.labels)].astype(np.float32) / 25.0

    return Target("box", list(names.labels), shape, answer, {})


def _recipe() -> Recipe:
    search = {"batch": 16, "competition": "per-class"}
    what = {"target": "box", "encoding": {"kind": "direct"}, "stop": {"evaluations": 320}, "search": search}
    return parse(what, "test")
