"""Elites of another run as the first genomes of a search: read there once, from then on kept in the search's own file.

They take the first births, 0 to number - 1, in the place of random genomes, and are judged like any other batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evofool.errors import EvofoolError, RecipeError, StoreError
from evofool.recipe import Recipe, drawing
from evofool.run.meta import Seeds
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from genomes import Encoding


@dataclass(frozen=True)
class Parents:
    """Seeds, packed, by the births that they get."""

    seeds: Seeds
    packed: Mapping[int, bytes]
    methods: Mapping[int, str]  # by birth what made it; "seed" where a search did


def read(recipe: Recipe, encoding: Encoding, labels: Sequence[str]) -> Parents:
    """The elites of the run that recipe.search.parents names: all that are distinct, by the births that they have there.

    With competition "per-class" and the same labels there as here, a genome counts once for every class that it holds, and
    competes in that one; with other labels the seeds take turns at the classes, as random ones do. A run that goes on
    meanwhile may be read.

    RecipeError, naming the run, if it is not there, is damaged, has saved nothing, or draws its genomes otherwise than
    encoding does.
    """
    folder = Path(recipe.search.parents or "")
    try:
        with StoredRun(folder) as stored, stored.store.snapshot():
            _refuse_unlike(folder, stored.encoding, encoding)
            elites = sorted(stored.elites(), key=lambda elite: (elite.row.birth, elite.row.cell))
            by_class = recipe.search.competition == "per-class" and stored.labels == list(labels)
            made_by = {(e.row.genome, e.row.class_id if by_class else -1): e.row.method for e in elites}
            distinct = list(made_by)
            packed = [genome for genome, _ in distinct]
            stored.unpack(packed)  # raises what is wrong with them
            run = stored.meta.id
    except StoreError as error:
        raise RecipeError(
            f"search.parents: {error}. Name a run that has elites (--parents RUN), or leave it out (--set search.parents=)"
        ) from None
    classes = tuple(class_id for _, class_id in distinct) if by_class else ()
    methods = {birth: "seed" if method == "evolved" else method for birth, method in enumerate(made_by.values())}
    return Parents(Seeds(run=run, number=len(packed), classes=classes), dict(enumerate(packed)), methods)


def kept(store: Store) -> Parents | None:
    """The genomes that a run began with, as its own file has them; None if these were random."""
    seeds = store.meta().seeds
    return Parents(seeds, store.genomes(range(seeds.number)), store.methods()) if seeds else None


def refuse_others(asked: str | None, stored: str | None, seeds: Seeds | None, folder: Path | str) -> None:
    """RecipeError if a run in folder that began with the parents `stored` is to go on with others.

    A path is but a name: where the run that was read has moved, or is gone, all is well. As it is where nothing was read
    yet, since the run was killed as it began.
    """
    if asked == stored or (stored and not seeds):
        return
    if asked is None or stored is None:
        began = f"began with the elites of {stored}" if stored else "began with random genomes"
        wanted = f"search.parents = {asked!r}" if asked else "no search.parents"
        raise RecipeError(
            f"{folder} holds a run that {began}, and asked for is one with {wanted}. A run that has begun keeps its "
            "parents: start another with --out DIR"
        )
    try:
        with StoredRun(Path(asked)) as other:
            run = other.meta.id
    except EvofoolError:
        return
    assert seeds
    if run != seeds.run:
        raise RecipeError(
            f"{folder} holds a run that began with the elites of {stored} (id {seeds.run}), and {asked} is another run (id "
            f"{run}). A run that has begun keeps its parents: start another with --out DIR"
        )


def _refuse_unlike(folder: Path, theirs: Encoding, ours: Encoding) -> None:
    there, here = drawing(theirs), drawing(ours)
    for key in [*here, *there]:
        if here.get(key) != there.get(key):
            raise RecipeError(
                f"search.parents: {folder} has {key} = {there.get(key)!r}, and this run {here.get(key)!r}. Parents have to "
                "be drawn as this run draws: name a run with the same encoding and size of image, or make this run's "
                "encoding that one's"
            )
