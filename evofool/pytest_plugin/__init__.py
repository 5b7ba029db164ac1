"""A plugin of pytest: `--evofool TARGET` tests whether a classifier is too easily fooled, `--evofool-set DIR` whether
fooling images of before still fool it.

pytest loads this package wherever evofool is installed, so it imports nothing heavy before it is asked for a test.
"""

from pathlib import Path
from typing import Any

import pytest

from evofool.pytest_plugin.gate_tests import GateCollector
from evofool.pytest_plugin.set_tests import SetCollector
from evofool.pytest_plugin.settings import add_options, given


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of both, and the same as settings of pytest."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among them, too
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of each target, and those of the set, after all others."""
    try:
        for target in config.getoption("evofool") or []:
            items.extend(GateCollector.from_parent(session, name=f"evofool::{target}", target=target).collect())
        if path := config.getoption("evofool_set"):
            name = f"evofool-set::{given(config, 'target')}"
            items.extend(SetCollector.from_parent(session, name=name, path=path).collect())
    except pytest.UsageError as error:
        if not hasattr(config, "workerinput"):
            raise
        # In a worker of pytest-xdist nobody would see the message, and pytest would say that there are no tests.
        items.append(_UsageTest.from_parent(session, name="evofool", nodeid="evofool::usage", message=str(error)))


class _UsageTest(pytest.Item):
    """Fails, with the message of a usage error."""

    def __init__(self, *, message: str, **rest: Any) -> None:
        super().__init__(**rest)
        self._message = message

    def runtest(self) -> None:
        pytest.fail(self._message, pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.config.rootpath, None, "evofool: usage"
