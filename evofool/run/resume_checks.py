"""Checks of the recipe of a new or resumed run."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import Any

from evofool.errors import RecipeError, StoreError, TargetError
from evofool.generators.decoder_file import read_decoder
from evofool.recipe import Recipe
from evofool.recipe_encodings import LatentPart
from evofool.run.meta import RunMeta
from evofool.run.unlike import record_of, refuse_other_references
from evofool.targets import Target, needs_trust, refuse_workers
from evofool.targets.speed import choose_format

_NAMED = 5  # keys that an error names


def refuse_wrong_types(recipe: object, folder: object, target: object) -> None:
    """RecipeError for arguments of Run.start and Run.resume that are no Recipe, path and Target (or None)."""
    for name, value, kinds, wanted in (
        ("recipe", recipe, (Recipe,), 'a Recipe, as evofool.load_recipe("mnist-cppn") returns'),
        ("folder", folder, (str, Path), "a path"),
        ("target", target, (Target, NoneType), 'a Target, as evofool.target("lenet") returns'),
    ):
        if not isinstance(value, kinds):
            raise RecipeError(f"{name} is {value!r:.80} ({type(value).__name__}); it has to be {wanted}")


def with_settled_compute(recipe: Recipe, target: Target) -> tuple[Recipe, dict[str, Any] | None]:
    """The recipe with the number format for this target and, if a GPU is too small for its chunk, a smaller chunk.

    Also the measurements that these were chosen by, None if the recipe has the number format.
    """
    c, elsewhere = recipe.compute, device_elsewhere(recipe, target)
    if c.format != "auto":
        if c.format not in target.formats and not elsewhere:
            raise RecipeError(
                f'compute.format is "{c.format}"; {target.name} has {", ".join(target.formats)} on this machine, or "auto"'
            )
        return recipe, None
    if elsewhere:
        from evofool.cluster.format_choice import choose_on_worker
        from evofool.cluster.settings import RayOptions

        refuse_workers(target)
        choice = choose_on_worker(target.name, recipe.chunk, c.threads, RayOptions(**c.ray.model_dump()))
    else:
        choice = choose_format(target, recipe.chunk)
    smaller = {} if choice.chunk == recipe.chunk else {"chunk": choice.chunk}
    compute = c.model_copy(update={"format": choice.number_format, **smaller})
    return recipe.model_copy(update={"compute": compute}), asdict(choice)


def device_elsewhere(recipe: Recipe, target: Target) -> bool:
    """Whether workers have GPUs and this process has none, so that the number format depends on theirs."""
    here = target.network is not None and target.network.device.type != "cpu"
    return bool(recipe.compute.workers and recipe.compute.ray.gpus) and not here


def refuse_missing_classes(recipe: Recipe, target: Target) -> None:
    """RecipeError if the recipe searches for classes that the target does not have, or shuns digits where there are none."""
    record_of(recipe, target)
    if (wanted := recipe.search.classes) and wanted[-1] >= len(target.labels):
        raise RecipeError(f"search.classes: {target.name} has the classes 0 to {len(target.labels) - 1}, not {wanted[-1]}")


def refuse_other_recipe(recipe: Recipe, stored: Recipe, folder: Path | str, settled_chunk: int = 0) -> Recipe:
    """recipe with the number format and chunk that the run began with; RecipeError names the keys that differ.

    If it gives no search.lag, it gets that of the run, which the command line may have chosen. settled_chunk: the chunk that
    fitted the device's memory, 0 if none was measured.
    """
    compute = recipe.compute
    if compute.format == "auto":
        compute = compute.model_copy(update={"format": stored.compute.format})
    if compute.chunk == 0 or compute.chunk > settled_chunk == stored.compute.chunk:
        compute = compute.model_copy(update={"chunk": stored.compute.chunk})
    recipe = _with_lag_of(stored, recipe.model_copy(update={"compute": compute}))
    recipe = _with_decoder_of(stored, recipe, folder)
    ours, theirs = flat(recipe.fixed()), flat(stored.fixed())
    keys = [key for key in sorted({*ours, *theirs} - {"search.lag"}) if ours.get(key) != theirs.get(key)]
    if keys:
        apart = "; ".join(f"{key} = {theirs.get(key)!r}, not {ours.get(key)!r}" for key in keys[:_NAMED])
        more = f"; and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        raise RecipeError(
            f"{folder} has a run with {apart}{more}. A run keeps the recipe that it began with: continue it by evofool run "
            f"{folder}, or start another with --out DIR; only stop.*, save.*, search.lag, compute.streams, compute.workers, "
            "compute.ray.* and compute.recheck* may change"
        )
    return recipe


def refuse_other_target(target: Target, recipe: Recipe, meta: RunMeta, folder: Path | str) -> None:
    """TargetError for another target than the run began with, and for one that lacks its number format here.

    RecipeError for other real digits than search.unlike began with.
    """
    if target.fingerprint() != meta.target.fingerprint:
        raise TargetError(
            f"{folder}: the target {meta.target.name} is not the one that this run began with "
            "(labels, preprocessing or weights differ); their scores cannot be compared"
        )
    if recipe.compute.format not in target.formats and not device_elsewhere(recipe, target):
        raise TargetError(
            f"{folder}: this run ranks in {recipe.compute.format}, and on this machine {target.name} has "
            f"{', '.join(target.formats)}; resume it where it began"
        )
    refuse_other_references(recipe, target, meta.unlike, folder)


def changed_values(recipe: Recipe, stored: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value in stored, value in recipe) of each key that differs and that may: of stop, save, compute, and the lag.

    None where a recipe does not have the key.
    """
    compute = {"streams", "workers", "ray", "recheck", "recheck_tolerance"}
    may_change: dict[str, Any] = {"stop": True, "save": True, "search": {"lag"}, "compute": compute}
    both = stored, _with_lag_of(stored, recipe)
    old, new = (flat(r.model_dump(mode="json", include=may_change, exclude_none=True)) for r in both)
    return [(key, old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def _with_lag_of(stored: Recipe, recipe: Recipe) -> Recipe:
    if "lag" in recipe.search.model_fields_set:
        return recipe
    return recipe.model_copy(update={"search": recipe.search.model_copy(update={"lag": stored.search.lag})})


def _with_decoder_of(stored: Recipe, recipe: Recipe, folder: Path | str) -> Recipe:
    """recipe with the SHA-256 of the run's decoder; RecipeError if its own decoder is another one.

    A decoder of the same name whose file is not there any more is the run's, which has a copy.
    """
    ours, theirs = recipe.encoding, stored.encoding
    if not isinstance(ours, LatentPart) or not isinstance(theirs, LatentPart):
        return recipe
    found = ours.sha256
    if found is None:
        try:
            found = hashlib.sha256(read_decoder(ours.decoder)).hexdigest()
        except RecipeError:
            if ours.decoder != theirs.decoder:
                raise
            found = theirs.sha256
    if found != theirs.sha256:
        raise RecipeError(
            f"{folder} has a run with the decoder {theirs.decoder} of SHA-256 {theirs.sha256}, and {ours.decoder} now has "
            f"{found}. A run keeps its decoder: continue it by evofool run {folder}, or start another with --out DIR"
        )
    return recipe.model_copy(update={"encoding": ours.model_copy(update={"sha256": found})})


def wants_trust(recipe: Recipe) -> bool:
    """Whether resuming a run of this recipe needs --trust (Run.resume)."""
    ray = recipe.compute.ray
    foreign = ray.address not in ("local", "auto") or bool(ray.environment)
    named = recipe.target, *(recipe.search.surrogate.targets if recipe.search.surrogate else ())
    return any(map(needs_trust, named)) or bool(recipe.compute.workers and foreign)


def refuse_without_search(meta: RunMeta, folder: Path | str) -> None:
    """StoreError for a merged run and for the run of an attack, which have no search to continue."""
    if meta.merged is not None:
        raise StoreError(f"{folder} is merged from several runs and has no search of its own; resume one of these runs")
    if meta.attack is not None:
        method = meta.attack.plan.get("method")
        raise StoreError(
            f"{folder} was made by {method}, not by a search: the command that made it resumes it. To evolve from "
            f"its images: evofool run RECIPE --parents {folder}"
        )


def refuse_stored_cluster(recipe: Recipe, stored: Recipe, folder: Path | str, trust: bool) -> None:
    """RecipeError if only the run's file names a cluster to join or code for its workers: the file may be forged."""
    ours, theirs = recipe.compute.ray, stored.compute.ray
    if trust or not recipe.compute.workers:
        return
    if theirs.address not in ("local", "auto") and ours.address == theirs.address:
        raise RecipeError(f"{folder}: its recipe joins the Ray cluster {theirs.address}; if you trust it, add --trust")
    if theirs.environment and ours.environment == theirs.environment:
        raise RecipeError(f"{folder}: its recipe has a runtime environment for Ray; if you trust it, add --trust")


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with keys such as "search.seed"."""
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for key, value in data.items() for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()}
