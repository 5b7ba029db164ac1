"""For all tests: one torch thread, since their number decides last bits, and how pytest-xdist may share them out."""

from collections.abc import Iterator

import pytest
import torch

RAY = ("tests/cluster/test_cluster.py", "tests/cluster/test_farm.py", "tests/bench/test_bench.py")
"""Files whose tests start Ray. Two at once would compete for cores and for the addresses of its ports."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup` the tests of a file stay in one process, so that its fixtures are made once."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("ray" if file in RAY else file))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
