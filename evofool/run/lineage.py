"""The lineage of an elite: its line of mothers, and the classes whose elites they were."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class Ancestor:
    """One genome of a line of mothers. held: the numbers of the classes that it won, in order.

    runner_up: those in whose list it was without having been the elite (search.keep).
    """

    birth: int
    batch: int
    mother: int
    father: int
    held: tuple[int, ...]
    runner_up: tuple[int, ...]
    switched: bool  # it won a cell in whose list neither parent was: a goal switch
    method: str  # what made it: "evolved", or the method's name


@dataclass(frozen=True)
class DrawnAncestor(Ancestor):
    """The same with its image, drawn again: uint8 (C, H, W)."""

    image: np.ndarray


def lineage(run: StoredRun, birth: int) -> list[DrawnAncestor]:
    """As ancestors, with their images."""
    line = ancestors(run, birth)
    images = run.encoding.render(run.genomes([ancestor.birth for ancestor in line]))
    return [DrawnAncestor(**vars(ancestor), image=image) for ancestor, image in zip(line, images, strict=True)]


def ancestors(run: StoredRun, birth: int) -> list[Ancestor]:
    """From a first genome, without a mother, to `birth`, along the mothers. Each of them was an elite or a runner-up."""
    found, methods = list[Ancestor](), run.store.methods()
    for birth_id, batch, mother, father in run.store.descent(birth)[::-1]:
        changes = run.store.cell_history(birth_id)
        held = tuple(dict.fromkeys(change.cell // run.niches for change in changes))
        others = dict.fromkeys(entry.cell // run.niches for entry in run.store.runners_up(birth_id))
        runner_up = tuple(c for c in others if c not in held)
        switched = any(change.switched for change in changes)
        method = methods.get(birth_id, "evolved")
        found.append(Ancestor(birth_id, batch, mother, father, held, runner_up, switched, method))
    return found


def classes_passed(line: Sequence[Ancestor]) -> list[tuple[int, ...]]:
    """The sets of classes won along the line; equal neighbours count once, and runners-up do not count."""
    passed: list[tuple[int, ...]] = []
    for ancestor in line:
        if ancestor.held and (not passed or passed[-1] != ancestor.held):
            passed.append(ancestor.held)
    return passed
