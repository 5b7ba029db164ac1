"""Commands that a page starts: one at a time, in a process of their own, interrupted like by Ctrl-C."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from evofool.gallery.security import Tokens
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target
from tests.gallery.server import PORT, client


def post(gallery: TestClient, tokens: Tokens, path: str) -> Any:
    return gallery.post(path, headers={"origin": f"http://127.0.0.1:{PORT}", "x-form-token": tokens.form})


def ended(gallery: TestClient) -> dict[str, Any]:
    """The state of the last command, once it has ended."""
    for _ in range(2400):
        state: dict[str, Any] = gallery.get("/job").json()
        if state["ended"]:
            return state
        time.sleep(0.1)
    raise AssertionError(f"the command has not ended: {state}")


def evaluations(folder: Path) -> int:
    with StoredRun(folder) as stored:
        return stored.evaluations


def test_wrong_requests_are_refused_in_words(gallery: TestClient, tokens: Tokens) -> None:
    address = re.findall(r'href="(/run/[0-9a-z-]+)">digits', gallery.get("/").text)[0]
    assert gallery.get("/job").json() is None
    assert gallery.post(f"{address}/cell/3/explain").status_code == 403, "without the origin and the token of the forms"
    assert post(gallery, tokens, f"{address}/cell/99/explain").status_code == 404
    for text in ("", "x", "120", "-5", "1e9", "9" * 20):
        answer = post(gallery, tokens, f"{address}/evolve?evaluations={text}")
        assert answer.status_code == 400
        assert "above 120" in answer.text
    assert gallery.get("/job").json() is None


@pytest.mark.slow
def test_a_search_goes_on_and_can_be_stopped(tmp_path: Path, lenet: Target, tokens: Tokens) -> None:
    recipe = load("mnist-cppn", ["stop.evaluations=48", "stop.confidence=0.999999999999999"])
    with Run.start(recipe, tmp_path / "more", lenet) as run:
        run.advance()
    with client(tmp_path, tokens) as gallery:
        address = re.findall(r"/run/[0-9a-z]+", gallery.get("/").text)[0]
        begun = post(gallery, tokens, f"{address}/evolve?evaluations=96").json()
        assert not begun["ended"]
        assert post(gallery, tokens, f"{address}/cell/3/explain").status_code == 409
        state = ended(gallery)
        assert not state["failed"], state
        post(gallery, tokens, f"{address}/evolve?evaluations=100000000")
        while evaluations(tmp_path / "more") <= 96:
            time.sleep(0.2)
        for _ in range(2):
            post(gallery, tokens, "/job/stop")
        assert ended(gallery)["stopped"]
    with StoredRun(tmp_path / "more") as stored:
        assert 96 < stored.evaluations < 100000000
        assert stored.store.faults() == []
