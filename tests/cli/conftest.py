"""Short runs, made once for all files of this folder; tests only read them."""

import shutil
from pathlib import Path

import pytest

from tests.cli.samples import made


@pytest.fixture(scope="session")
def cppn_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("mnist-cppn", tmp_path_factory.mktemp("cppn") / "run")


@pytest.fixture(scope="session")
def direct_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    niches = "niches={descriptor='mirror_symmetry', edges=[0.6, 0.68]}"
    return made("mnist-direct", tmp_path_factory.mktemp("direct") / "run", niches)


@pytest.fixture
def mine(cppn_run: Path, tmp_path: Path) -> Path:
    """A copy to be written to or damaged, in the folder that the command runs in."""
    return shutil.copytree(cppn_run, tmp_path / "mine")
