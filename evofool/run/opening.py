"""What a run's file says when the run is started, and the recipe that it is resumed with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from evofool.ascend.surrogates import Surrogates
from evofool.errors import TargetError
from evofool.machine import machine
from evofool.recipe import Recipe
from evofool.run import unlike
from evofool.run.location import temporary_note
from evofool.run.meta import PositionRecord, RunMeta, SpeedRecord, TargetRecord
from evofool.run.resume_checks import refuse_other_recipe, refuse_stored_cluster, refuse_without_search
from evofool.run.seeding import refuse_other_parents
from evofool.run.surrogate_record import record_of
from evofool.targets import Target
from evofool.targets.validation import Validation
from genomes import Encoding, Latent


def new_meta(
    recipe: Recipe,
    target: Target,
    validation: Validation,
    speed: Mapping[str, Any] | None,
    answers: int,
    surrogates: Surrogates | None,
    folder: Path,
) -> RunMeta:
    """The facts about a new run. answers: of its target until now. TargetError if the target is not sound."""
    if validation.position is None:
        raise TargetError(f"{target.name}: " + "; ".join(validation.faults))
    note = temporary_note(folder)
    notes = *target.details.get("notes", ()), *validation.notes, *(surrogates.notes if surrogates else ())
    return RunMeta(
        id=uuid4().hex,
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        target=TargetRecord(**target.description()),
        machine=machine(recipe.compute.threads),
        position=PositionRecord(**validation.position.to_dict()),
        speed=SpeedRecord(**speed) if speed else None,
        answers=answers,
        warnings=[*notes, *([note] if note else [])],
        surrogates=record_of(surrogates),
        unlike=unlike.record_of(recipe, target),
    )


def with_encoding(recipe: Recipe, shape: tuple[int, int, int]) -> tuple[Recipe, Encoding]:
    """The encoding of a new run, and the recipe with the SHA-256 of its decoder, if it has one."""
    encoding = recipe.build_encoding(shape)
    if isinstance(encoding, Latent):
        part = recipe.encoding.model_copy(update={"sha256": encoding.sha256})
        recipe = recipe.model_copy(update={"encoding": part})
    return recipe, encoding


def decoder_of(encoding: Encoding) -> bytes | None:
    """The file of an encoding's decoder, which the run's file gets a copy of; None if it has none."""
    return encoding.decoder if isinstance(encoding, Latent) else None


def recipe_to_resume(recipe: Recipe | None, stored: Recipe, meta: RunMeta, folder: Path | str, trusts_ray: bool) -> Recipe:
    """recipe, or the stored one, with what the run began with; RecipeError or StoreError if it cannot be resumed so."""
    refuse_without_search(meta, folder)
    recipe = recipe or stored
    refuse_stored_cluster(recipe, stored, folder, trusts_ray)
    recipe = refuse_other_recipe(recipe, stored, folder, meta.speed.chunk if meta.speed else 0)
    refuse_other_parents(recipe.search.parents, stored.search.parents, meta.seeds, folder)
    return recipe
