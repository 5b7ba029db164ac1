"""Elites of another run as the first genomes of a search. They are read once, and copied into the search's file.

They have the births 0 to number - 1, instead of random genomes, and are evaluated like any other batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evofool.errors import EvofoolError, RecipeError, StoreError
from evofool.recipe import Recipe, drawing
from evofool.run.meta import Seeds
from evofool.run.schema import Checkpoint
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.search.records import Offspring
from genomes import Encoding


@dataclass(frozen=True)
class Parents:
    """The seeds of a new run."""

    seeds: Seeds
    packed: Mapping[int, bytes]  # genomes by their births in the new run
    methods: Mapping[int, str]  # by birth, what made it; "seed" if a search did

    def checkpoint(self, batch: int) -> Checkpoint:
        """What they add to the file of a search with batches of so many images."""
        genomes = [Offspring(birth, birth // batch, -1, -1, packed, 0) for birth, packed in self.packed.items()]
        return Checkpoint({"seeds": self.seeds}, genomes, (), (), (), methods=self.methods)


def read_parents(recipe: Recipe, encoding: Encoding, labels: Sequence[str]) -> Parents:
    """The elites of the run that recipe.search.parents names: all distinct ones, in order of their births in that run.

    With competition "per-class" and the same labels, a genome counts once for each class whose elite it is, and competes in
    that class. With other labels the seeds take turns at the classes, as random genomes do. The run may still be going on.

    RecipeError, naming the run, if it is missing or damaged, has saved nothing, or draws its genomes differently.
    """
    folder = Path(recipe.search.parents or "")
    try:
        with StoredRun(folder) as stored, stored.store.snapshot():
            _refuse_unlike(folder, stored.encoding, encoding)
            elites = sorted(stored.listed(), key=lambda elite: (elite.row.birth, elite.row.cell))
            by_class = recipe.search.competition == "per-class" and stored.labels == list(labels)
            packed_of = stored.store.genomes(e.row.birth for e in elites)
            made_by = {(packed_of[e.row.birth], e.row.class_id if by_class else -1): e.row.method for e in elites}
            distinct = list(made_by)
            packed = [genome for genome, _ in distinct]
            stored.unpack(packed)  # raises StoreError if one of them is invalid
            run = stored.meta.id
    except StoreError as error:
        raise RecipeError(
            f"search.parents: {error}. Name a run that has elites (--parents RUN), or leave it out (--set search.parents=)"
        ) from None
    classes = tuple(class_id for _, class_id in distinct) if by_class else ()
    methods = {birth: "seed" if method == "evolved" else method for birth, method in enumerate(made_by.values())}
    return Parents(Seeds(run=run, number=len(packed), classes=classes), dict(enumerate(packed)), methods)


def stored_parents(store: Store) -> Parents | None:
    """The seeds in a run's file; None if it began with random genomes."""
    seeds = store.meta().seeds
    return Parents(seeds, store.seeds(range(seeds.number)), store.methods()) if seeds else None


def refuse_other_parents(wanted: str | None, stored: str | None, seeds: Seeds | None, folder: Path | str) -> None:
    """RecipeError if a run in folder, which began with the parents `stored`, is resumed with others.

    Only the id of the parents' run counts, not its path. It is not checked if that run is not there any more, or if the run
    was killed before it read any parents.
    """
    if wanted == stored or (stored and not seeds):
        return
    if wanted is None or stored is None:
        began = f"began with the elites of {stored}" if stored else "began with random genomes"
        now = f"search.parents = {wanted!r}" if wanted else "no search.parents"
        raise RecipeError(
            f"{folder} has a run that {began}, and this recipe has {now}. A run that has begun keeps its parents: start "
            "another with --out DIR"
        )
    try:
        with StoredRun(Path(wanted)) as other:
            run = other.meta.id
    except EvofoolError:
        return
    assert seeds
    if run != seeds.run:
        raise RecipeError(
            f"{folder} has a run that began with the elites of {stored} (id {seeds.run}), and {wanted} is another run (id "
            f"{run}). A run that has begun keeps its parents: start another with --out DIR"
        )


def _refuse_unlike(folder: Path, parents: Encoding, ours: Encoding) -> None:
    theirs, wanted = drawing(parents), drawing(ours)
    for key in [*wanted, *theirs]:
        if wanted.get(key) != theirs.get(key):
            raise RecipeError(
                f"search.parents: {folder} has {key} = {theirs.get(key)!r}, and this run has {wanted.get(key)!r}. Parents "
                "have to be drawn in the same way: name a run with the same encoding and size of images, or use its encoding"
            )
