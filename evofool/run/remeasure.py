"""Elites measured again at the end of a search with workers, by other processes than those that scored them."""

import numpy as np

from evofool.run.rescore import Rescorer
from evofool.run.verify import TOLERANCE
from evofool.scores import log_odds, margin
from evofool.search.archive import Archive
from evofool.search.evaluate import Evaluator
from evofool.targets import Target
from evofool.targets.position import Position

_NAMED = 10  # classes in the message


def differing_elites(
    archive: Archive, rescorer: Rescorer, evaluator: Evaluator, position: Position, target: Target
) -> str | None:
    """A message that names the classes whose elites do not have their stored scores; None if all have, or without workers.

    Log-odds and margins have to be equal to the bit on one kind of machine in reproducible mode, unless logits depend on an
    image's place in a chunk; else they have to lie within that dependence or verify's tolerance, whichever is larger.
    """
    cells = np.flatnonzero(archive.birth >= 0)
    births, first, which = np.unique(archive.birth[cells], return_index=True, return_inverse=True)
    measured = evaluator.measure_elsewhere(births.tolist(), archive.genomes(cells[first])) if len(cells) else None
    if measured is None:
        return None
    logits, classes = measured.logits[which], cells // archive.niches
    own_class = np.arange(len(cells)), classes
    found = np.stack([score(logits, target.multilabel)[own_class] for score in (log_odds, margin)])
    apart = np.nan_to_num(np.abs(found - rescorer.scores()[:, cells]), nan=np.inf).max(axis=0)
    allowed = np.zeros(len(cells)) if measured.exact else np.maximum(TOLERANCE, position.allowed(logits))
    differing = apart > allowed
    if not differing.any():
        return None
    named = [f"{c} ({target.labels[c]})" for c in np.unique(classes[differing])]
    named[_NAMED:] = ["..."] * (len(named) > _NAMED)
    return (
        f"{target.name}: measured again by another process, {differing.sum()} elites do not have their stored scores: "
        f"classes {', '.join(named)}; largest difference {apart.max():.3g} in log-odds or margin. A worker was wrong for "
        "some images, and elites that it missed cannot be restored: start another run without that worker"
    )
