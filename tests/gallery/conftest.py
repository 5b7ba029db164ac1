"""A small run of digits, and a client of the gallery of its folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from evofool.gallery.security import Tokens
from evofool.recipe import load
from evofool.run.run import Run
from evofool.targets import Target
from tests.gallery.server import client


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, lenet: Target) -> Path:
    """A folder with the runs digits and other, of 120 and 48 evaluations."""
    folder = tmp_path_factory.mktemp("gallery")
    for name, evaluations, seed in (("digits", 120, 0), ("other", 48, 1)):
        recipe = load("mnist-cppn", [f"stop.evaluations={evaluations}", f"search.seed={seed}"])
        with Run.start(recipe, folder / name, lenet) as run:
            run.advance()
    return folder


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture(scope="module")
def gallery(root: Path, tokens: Tokens) -> Iterator[TestClient]:
    with client(root, tokens) as found:
        yield found
