"""A rater for tests: answers a quiz through the server's addresses, and knows from its file what a trial shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from evofool.gallery.security import Tokens
from evofool.quiz.schema import CHOICE, Record, Trial
from evofool.quiz.store import QuizStore, trial_ids
from tests.gallery.server import PORT

Choose = Callable[[Trial], int | None]
"""From a trial the class that the rater sees; None for nothing."""


def sees_all(trial: Trial) -> int | None:
    """The class of every image, nothing in noise: a rater who counts, and recognises each elite."""
    return trial.classes[0] if trial.classes else None


def response(trial: Trial, seen: int | None) -> str | int:
    """What a page sends. Labels are digits."""
    if trial.block == CHOICE:
        return trial.options.index(seen) if seen in trial.options else len(trial.options)
    return "" if seen is None else str(seen)


class Rater:
    """One that has opened the quiz of a run. address: of its first page."""

    def __init__(self, client: TestClient, tokens: Tokens, folder: Path, address: str) -> None:
        self.client, self.folder, self.address = client, folder, address
        self.headers = {"origin": f"http://127.0.0.1:{PORT}", "x-form-token": tokens.form}
        self.session = ""

    def post(self, path: str, given: Any) -> Any:
        return self.client.post(self.address + path, json=given, headers=self.headers)

    def begin(self, name: str, **more: Any) -> "Rater":
        answer = self.post("/begin", {"rater": name, "viewport": "390x844", "dpr": 3, **more})
        assert answer.status_code == 200, answer.text
        self.session = answer.json()["session"]
        return self

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"{self.address}/{self.session}/now").json()
        return found

    def record(self) -> Record:
        with QuizStore.open(self.folder) as store:
            return store.record(self.session)

    def answer(self, trial: str, given: str | int, rt: float = 900.0) -> Any:
        return self.post(f"/{self.session}/answer", {"trial": trial, "response": given, "rt": rt})

    def take(self, choose: Choose = sees_all, most: int = 1000) -> dict[str, Any]:
        """Answer the trials that are left, or so many of them; returns the state after the last one."""
        record, state = self.record(), self.state()
        number = trial_ids(record)
        for _ in range(min(most, state["of"] - state["done"])):
            trial = record.trials[number[state["trial"]]]
            reply = self.answer(state["trial"], response(trial, choose(trial)))
            assert reply.status_code == 200, reply.text
            state = reply.json()
        return state

    def end(self, seen: bool = False) -> str:
        """End the session, and return its last page."""
        assert self.post(f"/{self.session}/end", {"seen": seen}).json()["ended"]
        return self.client.get(f"{self.address}/{self.session}").text

    def results(self) -> str:
        """The page of an ended session that shows its images."""
        return self.client.get(f"{self.address}/{self.session}/results").text
