"""Where an elite comes from: its line of mothers, and the classes that they held."""

from dataclasses import dataclass

import numpy as np

from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class Ancestor:
    """One genome of a line of descent, redrawn. held: the classes it won, by number, in order."""

    birth: int
    batch: int
    mother: int
    father: int
    held: tuple[int, ...]
    switched: bool  # it won a cell that neither parent held: the line changed its goal here
    image: np.ndarray  # uint8 (C, H, W)


def lineage(run: StoredRun, birth: int) -> list[Ancestor]:
    """From a first, random genome to `birth`, along the mothers. Every one of them was an elite once."""
    line = run.store.descent(birth)[::-1]
    packed = run.store.genomes(ancestor.birth for ancestor in line)
    images = run.encoding.render(run.unpack([packed[ancestor.birth] for ancestor in line]))
    ancestors = []
    for (birth_id, batch, mother, father), image in zip(line, images, strict=True):
        changes = run.store.cell_history(birth_id)
        held = tuple(dict.fromkeys(change.cell // run.niches for change in changes))
        ancestors.append(Ancestor(birth_id, batch, mother, father, held, any(change.switched for change in changes), image))
    return ancestors


def classes_passed(line: list[Ancestor]) -> list[tuple[int, ...]]:
    """The sets of classes along the line, each named once while it stays the same."""
    passed: list[tuple[int, ...]] = []
    for ancestor in line:
        if not passed or passed[-1] != ancestor.held:
            passed.append(ancestor.held)
    return passed
