"""Genomes of a run's file that are stored by their parents, made again."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

from evofool.recipe import parse
from evofool.run.meta import RunMeta
from evofool.run.schema import GenomeId
from evofool.search.remaking import MAX_MADE, made, variation_of
from genomes import Encoding, GenomeError, Genomes, Key

_CACHE_BYTES = 1 << 26
_MOST_OPEN = 4 * MAX_MADE  # genomes that wait for others


class StoredGenome(NamedTuple):
    """A row of the table genomes."""

    genome: bytes
    steps: int
    mother: int
    father: int


class OtherVariationError(Exception):
    """A genome has to be made by operators that this evofool does not have."""


@dataclass(frozen=True)
class _Search:
    """What makes the genomes of one search: its encoding, its seed and its batch size."""

    encoding: Encoding
    seed: int
    batch: int

    def make(self, birth: int, mother: Genomes | None, father: Genomes | None) -> Genomes:
        return made(self.encoding, Key(self.seed, *divmod(birth, self.batch)), mother, father)


class Remaker:
    """Makes genomes of a file again. row: reads a row; packed: the packed genome of one that is not stored by its parents.

    origins: of a merged run (Reader.origins), whose sources each have a recipe. decoder: the file's copy; no other is read.
    """

    def __init__(
        self,
        meta: RunMeta,
        origins: Mapping[int, GenomeId],
        row: Callable[[int], StoredGenome],
        packed: Callable[[int], bytes],
        decoder: bytes | None,
    ) -> None:
        self._meta, self._origins, self._row, self._packed, self._decoder = meta, origins, row, packed, decoder
        self._made: OrderedDict[int, Genomes] = OrderedDict()  # the last used at the end
        self._most = max(2, _CACHE_BYTES // (self.encoding.dtype.itemsize * prod(self.encoding.shape)))

    @cached_property
    def encoding(self) -> Encoding:
        return self._searches[next(iter(self._searches))].encoding

    @cached_property
    def _searches(self) -> dict[str, _Search]:
        """By id; of a run that is not merged only its own."""
        recipes: dict[str, Any] = {self._meta.id: self._meta.recipe}
        if self._meta.merged is not None:
            recipes = {source.id: source.recipe for source in self._meta.merged}
        parsed = {run: parse(recipe, f"the recipe of run {run}") for run, recipe in recipes.items()}
        if self._decoder is None and any(r.encoding.kind == "latent" for r in parsed.values()):
            raise ValueError("it has no decoder")  # the path in a recipe may be any file's
        return {
            run: _Search(r.build_encoding(self._meta.target.shape, self._decoder), r.search.seed, r.search.batch)
            for run, r in parsed.items()
        }

    def genome(self, birth: int) -> Genomes:
        """The genome of a birth, as a batch of one, not to be written to. ValueError if the file is damaged."""
        known, todo, number = self._made, [birth], 0
        while todo:
            at = todo[-1]
            if at in known:
                known.move_to_end(at)
                todo.pop()
                continue
            row = self._row(at)
            variation = variation_of(row.genome) if row.steps else None
            if variation is None:
                known[at] = self._unpacked(at)
                continue
            if not self.encoding.variation:
                raise ValueError(f"the genome of birth {at} is stored by its parents, and those of this encoding are not")
            if variation != self.encoding.variation:
                raise OtherVariationError(
                    f"the genome of birth {at} is stored by its parents and has to be made again by operators of version "
                    f'"{variation:.40}"; this evofool has "{self.encoding.variation}". Use the evofool that wrote the file'
                )
            parents = [parent for parent in (row.mother, row.father) if parent >= 0]
            if any(parent >= at for parent in parents):
                raise ValueError(f"the genome of birth {at} has parents that are not older")
            missing = [parent for parent in parents if parent not in known]
            if missing:
                todo += missing
            else:
                number += 1
                known[at] = self._make(at, row.mother, row.father)
            if number > MAX_MADE or len(todo) > _MOST_OPEN:
                raise ValueError(f"the genome of birth {birth} has to be made from more than {MAX_MADE} others")
        found = known[birth]
        while len(known) > self._most:
            known.popitem(last=False)
        return found

    def packed(self, birth: int) -> bytes:
        return self.encoding.pack(self.genome(birth)[0])

    def _make(self, birth: int, mother: int, father: int) -> Genomes:
        run, own = self._meta.id, birth
        if self._meta.merged is not None:
            if birth not in self._origins:
                raise ValueError(f"it has no origin of birth {birth}")
            run, own = self._origins[birth]
        if run not in self._searches:
            raise ValueError(f"it was not merged from run {run:.40}, of birth {birth}")
        parents = (self._made[parent] if parent >= 0 else None for parent in (mother, father))
        return self._searches[run].make(own, *parents)

    def _unpacked(self, birth: int) -> Genomes:
        try:
            return self.encoding.unpack([self._packed(birth)])
        except GenomeError as error:
            raise ValueError(f"the genome of birth {birth}: {error}") from None
