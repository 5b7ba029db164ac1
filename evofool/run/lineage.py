"""The lineage of an elite: its line of mothers, and the classes whose elites they were."""

from dataclasses import dataclass

import numpy as np

from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class Ancestor:
    """One genome of a line of mothers, drawn again. held: the numbers of the classes that it won, in order."""

    birth: int
    batch: int
    mother: int
    father: int
    held: tuple[int, ...]
    switched: bool  # it won a cell whose elite was neither parent: a goal switch
    image: np.ndarray  # uint8 (C, H, W)


def lineage(run: StoredRun, birth: int) -> list[Ancestor]:
    """From a first genome, without a mother, to `birth`, along the mothers. Each of them was an elite."""
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
    """The sets of classes along the line; equal neighbours count once."""
    passed: list[tuple[int, ...]] = []
    for ancestor in line:
        if not passed or passed[-1] != ancestor.held:
            passed.append(ancestor.held)
    return passed
