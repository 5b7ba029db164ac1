"""Polishing by surrogates: an image climbs their gradients, and the target judges it by one query."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from evofool.ascend.loop import AscentResult, Improvement, Tick
from evofool.ascend.surrogates import Surrogates
from evofool.run.attack_file import float32_logits
from evofool.run.meta import SurrogatesRecord
from evofool.scores import log_odds, margin
from evofool.targets import Target
from genomes import Genomes, Key

Judge = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Items (m,) int64 and images uint8 (m, C, H, W) of them -> two scores of each, float64 (m,): that by which images are
compared, and another one, which is recorded. Takes one query of the target for each image."""


def judge_of(
    target: Target,
    chunk: int,
    classes: np.ndarray,
    rank: str,
    inside: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Judge:
    """Judges items by the target's float32 score of their class, log-odds or margin as rank says, and records log-odds.

    inside: items and images -> (m,) bool; the score of an image that is not inside is -inf.
    """

    def judge(items: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, own = float32_logits(target, images, chunk), (np.arange(len(items)), classes[items])
        odds = log_odds(logits, target.multilabel)[own]
        scores = odds if rank == "log_odds" else margin(logits, target.multilabel)[own]
        return (scores if inside is None else np.where(inside(items, images), scores, -np.inf)), odds

    return judge


def record_after(
    before: SurrogatesRecord | None, surrogates: Surrogates | None, result: AscentResult, classes: Sequence[int]
) -> SurrogatesRecord | None:
    """What a file keeps of the surrogates after these climbs for classes, (n,); None if there are none."""
    if before is None or surrogates is None:
        return None
    climbs = result.iterations // surrogates.climb.steps
    passes = int((climbs * surrogates.costs[classes]).sum())
    more = {"children": before.children + int(climbs.sum()), "forwards": before.forwards + passes}
    return before.model_copy(update={**more, "backwards": before.backwards + passes})


def climb(
    surrogates: Surrogates,
    genomes: Genomes,
    classes: np.ndarray,
    cells: Sequence[int],
    judge: Judge,
    *,
    queries: int,
    streams: int,
    tick: Tick,
) -> tuple[AscentResult, Genomes]:
    """Climb from each of n genomes for its class, again and again from the best image so far. Returns the best genomes, too.

    Each of so many queries but the first, which scores the genome itself, follows a climb. A class that no surrogate has
    takes one query. cells, (n,): the keys of the random draws. streams: climbs at a time; they do not change results. The
    result's forwards are queries of the target.
    """
    encoding, threads, n = surrogates.encoding, torch.get_num_threads(), len(genomes)
    best, images = genomes.copy(), encoding.render(genomes)
    iterations, forwards, backwards = (np.zeros(n, np.int64) for _ in range(3))
    result = AscentResult(images.copy(), None, np.full(n, -np.inf), iterations, forwards, backwards)
    items, tried = np.arange(n), genomes

    def child(item: int, query: int) -> Genomes:
        row = slice(item, item + 1)
        return surrogates.children(best[row], classes[row], [Key(0, query, cells[item])])

    with ThreadPoolExecutor(streams, "climb", torch.set_num_threads, (threads,)) as pool:
        for query in range(queries):
            if query:
                items = np.flatnonzero(surrogates.costs[classes] > 0)
                tried = np.concatenate([genomes[:0], *pool.map(child, items.tolist(), [query] * len(items))])
                images = encoding.render(tried)
                iterations[items] += surrogates.climb.steps
            if not len(items):
                break
            scores, recorded = judge(items, images)
            forwards[items] += 1
            for k, item in enumerate(items.tolist()):
                if scores[k] > result.scores[item]:
                    best[item], result.images[item], result.scores[item] = tried[k], images[k], scores[k]
                    passes = int(forwards[item]), 0
                    result.improvements.append(Improvement(item, *passes, float(scores[k]), float(recorded[k])))
            if tick(query, queries - 1) and query + 1 < queries:
                result.interrupted = True
                break
    return result, best
