"""What the fixture `call` of tests/conftest.py returns."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A finished command: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]
