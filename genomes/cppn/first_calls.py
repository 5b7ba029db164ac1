"""First calls of the kernels of CPPNs, on tiny images: stages of genomes.compilation, in the order of their first use."""

from genomes.cppn.encoding import CPPN
from genomes.cppn.program import compile_programs
from genomes.random import Key

_KEY = Key(0, 0)
_ENCODING = CPPN(height=2, width=2)


def random() -> None:
    _ENCODING.random(2, _KEY)


def programs() -> None:
    compile_programs(_ENCODING.random(2, _KEY), 1)


def vary() -> None:
    mothers = _ENCODING.random(2, _KEY)
    _ENCODING.vary(mothers, mothers, _KEY)


def render() -> None:
    _ENCODING.render(_ENCODING.random(2, _KEY))
