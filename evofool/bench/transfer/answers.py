"""A target's outputs for PNGs, which may have been made for another target."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from evofool.errors import ScoreError
from evofool.images import decode_png, resized
from evofool.machine import torch_threads
from evofool.targets import Target


def logits_of(
    target: Target, pngs: Sequence[bytes], batch: int, context: str, on_progress: Callable[[str], None] = lambda _: None
) -> tuple[np.ndarray, np.ndarray]:
    """Score each distinct image once: logits (U, K) float32, and for each PNG the row of its logits, (n,) int64.

    Images are resized by images.resized and scored in float32 in batches of `batch`; the last one is padded. context: begins
    messages. ScoreError for answers that are not finite. What on_progress raises passes through.
    """
    row_of = {png: u for u, png in enumerate(dict.fromkeys(pngs))}
    different, answers = list(row_of), [np.empty((0, len(target.labels)), np.float32)]

    def score_batch(begin: int) -> np.ndarray:
        part = [resized(decode_png(png, "an elite"), target.shape) for png in different[begin : begin + batch]]
        return target.logits(np.stack(part), batch)

    with torch_threads(1), ThreadPoolExecutor(target.streams, "transfer", torch.set_num_threads, (1,)) as pool:
        try:
            for answer in pool.map(score_batch, range(0, len(different), batch)):
                answers.append(answer)
                on_progress(f"{context}: {sum(map(len, answers)):,} of {len(different):,}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            target.cancel()
            raise
    logits = np.concatenate(answers)
    bad = int((~np.isfinite(logits).all(axis=1)).sum())
    if bad:
        raise ScoreError(f"{context}: NaN or infinity for {bad} of {len(logits)} images; check the network's weights")
    return logits, np.array([row_of[png] for png in pngs], np.int64)
