"""An encoding whose children are made by a user's own DEAP operators, one individual at a time."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evofool.images import quantise
from genomes import Direct, Encoding, GenomeError, Genomes, Key

_GLOBALS = threading.Lock()  # Python's and numpy's global generators


@dataclass(frozen=True)
class PerIndividual:
    """An Encoding whose children are made by a user's own DEAP operators, one individual at a time.

    mutate(individual) -> (individual,) and mate(a, b) -> (a, b) as registered on a DEAP toolbox; either may be None.
    A direct genome is passed as a list of C * H * W floats on 0..255, and rounded and clipped afterwards; any other as its
    canonical JSON (a dict), which the operator changes and returns. DEAP's operators draw from Python's and numpy's global
    generators: these are seeded for each child from (seed, batch, row) and restored, so results stay keyed. This takes
    hundreds of microseconds for each child instead of one.
    """

    encoding: Encoding
    mutate: Callable[[Any], Any] | None = None
    mate: Callable[[Any, Any], Any] | None = None

    variation: ClassVar[str] = ""  # a file cannot name the operators, so children are stored whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "encoding":  # looked up while a copy is made
            raise AttributeError(name)
        return getattr(self.encoding, name)

    def vary(self, mothers: Genomes, fathers: Genomes, key: Key) -> Genomes:
        """As Encoding.vary, by the operators: mate first (its first child is kept), then mutate."""
        children = [
            self._child(mother, father, key.at(i)) for i, (mother, father) in enumerate(zip(mothers, fathers, strict=True))
        ]
        return np.concatenate(children)

    def uses_second_parent(self, n: int, key: Key) -> np.ndarray:
        return np.full(n, self.mate is not None)

    def _child(self, mother: Any, father: Any, key: Key) -> Genomes:
        with _seeded(key):
            child = self._open(mother)
            if self.mate:
                child = _individuals(self.mate(child, self._open(father)), "mate", 2)[0]
            if self.mutate:
                (child,) = _individuals(self.mutate(child), "mutate", 1)
        return self._close(child)

    def _open(self, genome: Any) -> Any:
        if isinstance(self.encoding, Direct):
            return genome.reshape(-1).astype(float).tolist()
        return self.encoding.to_json(genome)

    def _close(self, individual: Any) -> Genomes:
        if not isinstance(self.encoding, Direct):
            return self.encoding.from_json(individual)
        try:
            pixels = np.asarray(individual, float)
        except (TypeError, ValueError) as error:
            raise GenomeError(f"an operator returned an individual that is not a list of numbers ({error})") from None
        size = int(np.prod(self.encoding.shape))
        if pixels.shape != (size,) or not np.isfinite(pixels).all():
            raise GenomeError(
                f"an operator returned an individual of shape {pixels.shape}"
                f"{'' if np.isfinite(pixels).all() else ' with numbers that are not finite'}; it has to have {size} finite "
                "numbers, the pixels on 0..255"
            )
        return quantise(pixels / 255.0).reshape(1, *self.encoding.shape)


def _individuals(returned: Any, operator: str, number: int) -> tuple[Any, ...]:
    """What an operator returned, a tuple or list of so many individuals; GenomeError for anything else."""
    if isinstance(returned, tuple | list) and len(returned) == number:
        return tuple(returned)
    many = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
    raise GenomeError(
        f"{operator} returned a {type(returned).__name__}{many}; DEAP's convention is a tuple of {number} "
        f"individual{'s' if number > 1 else ''}"
    )


@contextmanager
def _seeded(key: Key) -> Iterator[None]:
    with _GLOBALS:  # the evaluator's workers would draw from each other's
        python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - DEAP's operators draw from the globals
        draws = np.random.default_rng([key.seed, key.batch, key.row])
        random.seed(int(draws.integers(1 << 62)))
        np.random.seed(int(draws.integers(1 << 32)))  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
