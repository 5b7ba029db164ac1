"""The form in which a search's genomes are stored: whole, as a difference from the mother's, or by their parents."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from evofool.machine import cpus
from evofool.search import delta, remaking
from genomes import Encoding, Genomes


class StoredGenomes:
    """Chooses the form of each genome, so that every one can be read in a bounded number of steps.

    steps: by birth, of the genomes that are not whole. Of a difference the number of differences from a whole genome; of
    one that is stored by its parents the number of genomes that have to be made to obtain it, at the most.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self.steps: dict[int, int] = {}

    def form(self, birth: int, parents: tuple[int, int], genome: Genomes, known: Mapping[int, Genomes]) -> tuple[bytes, int]:
        """What is stored of a genome, a batch of one, and its steps; 0: it is whole.

        parents: births of mother and father, -1 for none. known: an order's parents, with the genome itself if it is a seed.
        """
        stored, steps = b"", 0
        if birth not in known:
            stored, steps = (
                self._by_parents(parents) if self._encoding.variation else self._difference(parents, genome, known)
            )
        if not steps:
            return self._encoding.pack(genome[0]), 0
        self.steps[birth] = steps
        return stored, steps

    def whole(self, genomes: Mapping[int, Genomes]) -> dict[int, bytes]:
        """By birth the packed genomes of those that are stored by their parents: from now on they are stored whole."""
        if not self._encoding.variation:
            return {}
        births = [birth for birth in genomes if self.steps.pop(birth, 0)]
        with ThreadPoolExecutor(cpus()) as pool:
            return dict(zip(births, pool.map(lambda birth: self._encoding.pack(genomes[birth][0]), births), strict=True))

    def _by_parents(self, parents: tuple[int, int]) -> tuple[bytes, int]:
        """(what is stored, steps); steps 0: it has to be whole."""
        steps = 1 + sum(self.steps.get(parent, 0) for parent in {*parents} - {-1})
        return (b"", 0) if steps > remaking.MAX_MADE else (remaking.stored_by_parents(self._encoding.variation), steps)

    def _difference(self, parents: tuple[int, int], genome: Genomes, known: Mapping[int, Genomes]) -> tuple[bytes, int]:
        """As _by_parents."""
        mother, _ = parents
        steps = self.steps.get(mother, 0) + 1
        if mother < 0 or genome.nbytes < delta.MIN_BYTES or steps > delta.MAX_STEPS:
            return b"", 0
        found = delta.difference(self._encoding.pack(genome[0]), self._encoding.pack(known[mother][0]))
        return (b"", 0) if found is None else (found, steps)
