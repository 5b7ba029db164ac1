"""A plugin of pytest: `--evofool TARGET` tests whether a classifier is too easily fooled, `--evofool-set DIR` whether
fooling images of before still fool it.

pytest loads this package wherever evofool is installed, so it imports nothing heavy before it is asked for a test.
"""

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
    targets: list[str] = config.getoption("evofool") or []
    for target in targets:
        items.extend(GateCollector.from_parent(session, name=f"evofool::{target}", target=target).collect())
    if path := config.getoption("evofool_set"):
        name = f"evofool-set::{given(config, 'target')}"
        items.extend(SetCollector.from_parent(session, name=name, path=path).collect())
