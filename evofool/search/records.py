"""What a search records for a run's file: genomes that entered the archive, and as what; batches committed."""

from typing import NamedTuple

SURROGATE = "surrogate"
"""The method that made a genome by climbing the gradients of surrogates."""


class Offspring(NamedTuple):
    """A genome that entered the archive when its batch was committed, or that a run began with."""

    birth: int
    batch: int
    mother: int  # a birth; -1: none
    father: int  # a birth; -1: none, or nothing was taken from it
    genome: bytes  # packed and whole, or another form (evofool/search/stored_genomes.py)
    steps: int  # 0: whole; else what it takes at the most to make it whole


class CellChange(NamedTuple):
    """A cell whose elite was replaced, or that got its first one. Scores are those that the search ranked by.

    switched: the cell had an elite when the parents were drawn, and neither parent was in the cell's list: a goal switch
    (Nguyen 2015b, Innovation Engines).
    """

    cell: int
    birth: int
    batch: int
    log_odds: float
    margin: float
    switched: bool


class RunnerUp(NamedTuple):
    """A genome that entered a cell's list when its batch was committed, and did not become the elite; as CellChange.

    The list is at any time the best of all that were ever its elites or runners-up.
    """

    cell: int
    birth: int
    batch: int
    log_odds: float
    margin: float


class Commit(NamedTuple):
    """A batch that was committed, and the number of commits after which its parents were drawn."""

    position: int  # in the order of commits, from 0
    batch: int
    drawn_after: int
