"""Score a set of existing fooling images with a target, one query for each image.

With labelled real images the target's own thresholds apply, as in the benchmark. Without them there are only predictions and
confidences, which are not comparable between networks.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from evofool import scores
from evofool.bench.calibration import Calibration
from evofool.bench.real import update_digest
from evofool.bench.sets.image_set import ImageSet
from evofool.bench.sets.scored_set import ScoredSet
from evofool.errors import ImageError
from evofool.machine import torch_threads
from evofool.run.attack_file import chunk_of
from evofool.targets import Target
from evofool.targets.position import measure

OnProgress = Callable[[str], None]


def score_set(
    images: ImageSet,
    target: Target,
    calibration: Calibration | None = None,
    *,
    skip_unreadable: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> ScoredSet:
    """Score every image once, in float32, in padded batches.

    ImageError for an image that cannot be read, unless skip_unreadable leaves it out, and if no image is left;
    ScoreError for answers that are not finite. calibration: of this target. First, patterns are scored to find out whether
    logits depend on an image's place in a batch (targets.position); these are not counted as queries.
    """
    chunk = images.chunk or chunk_of(target)
    with torch_threads(images.threads):
        position = measure(target, chunk)
    before, seen = target.queries, hashlib.sha256()
    rows: list[int] = []
    logits = [np.empty((0, len(target.labels)), np.float32)]
    skipped: list[tuple[str, str]] = []

    def score_batch(begin: int) -> tuple[list[int], np.ndarray, np.ndarray, list[tuple[str, str]]]:
        numbers, pixels, unreadable = [], [], []
        for number in range(begin, min(begin + chunk, len(images))):
            try:
                pixels.append(images.image(number))
                numbers.append(number)
            except ImageError as error:
                if not skip_unreadable:
                    raise
                unreadable.append((images.names[number], str(error)))
        if not pixels:
            return [], np.empty((0, *target.shape), np.uint8), logits[0], unreadable
        batch = np.stack(pixels)
        answer = target.logits(batch, chunk)
        scores.refuse_unfinite(answer, begin // chunk, target.name)
        return numbers, batch, answer, unreadable

    with _pool(target, images.threads) as pool:
        for numbers, batch, answer, unreadable in pool.map(score_batch, range(0, len(images), chunk)):
            update_digest(seen, batch, images.classes[numbers])
            rows += numbers
            logits.append(answer)
            skipped += unreadable
            on_progress(f"{len(rows):,} of {len(images):,} images")
    if not rows:
        raise ImageError(f"{images.source}: none of its {len(images)} images can be read; the first: {skipped[0][1]}")
    return ScoredSet(
        images,
        target,
        calibration,
        np.array(rows, np.int64),
        np.concatenate(logits),
        tuple(skipped),
        seen.hexdigest(),
        target.queries - before,
        position,
    )


@contextmanager
def _pool(target: Target, threads: int) -> Iterator[ThreadPoolExecutor]:
    with torch_threads(threads), ThreadPoolExecutor(target.streams, "score", torch.set_num_threads, (threads,)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            target.cancel()
            raise
