"""The form in which a search's genomes are stored: whole, as a difference from the mother's, or by their parents."""

from collections.abc import Mapping

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
        packed = self._encoding.pack(genome[0])
        stored, steps = (self._by_parents if self._encoding.variation else self._difference)(parents, packed, known)
        if birth in known or steps == 0:
            return packed, 0
        self.steps[birth] = steps
        return stored, steps

    def whole(self, genomes: Mapping[int, Genomes]) -> dict[int, bytes]:
        """By birth the packed genomes of those that are stored by their parents: from now on they are stored whole."""
        if not self._encoding.variation:
            return {}
        return {birth: self._encoding.pack(genome[0]) for birth, genome in genomes.items() if self.steps.pop(birth, 0)}

    def _by_parents(self, parents: tuple[int, int], packed: bytes, known: Mapping[int, Genomes]) -> tuple[bytes, int]:
        steps = 1 + sum(self.steps.get(parent, 0) for parent in {*parents} - {-1})
        if len(packed) < remaking.MIN_BYTES or steps > remaking.MAX_MADE:
            return packed, 0
        return remaking.stored_by_parents(self._encoding.variation), steps

    def _difference(self, parents: tuple[int, int], packed: bytes, known: Mapping[int, Genomes]) -> tuple[bytes, int]:
        mother, _ = parents
        steps = self.steps.get(mother, 0) + 1
        if mother < 0 or len(packed) < delta.MIN_BYTES or steps > delta.MAX_STEPS:
            return packed, 0
        found = delta.difference(packed, self._encoding.pack(known[mother][0]))
        return (packed, 0) if found is None else (found, steps)
