"""Which images of a chunk win places in cells: the best of each cell, of those that a constraint permits."""

from collections.abc import Callable

import numpy as np

Permits = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""permits(images, rows, classes): which of these images may be elites of these classes, (n,) bool.

images: uint8 (B, C, H, W); rows: (n,) int64 into them; classes: (n,) int64. An answer must not depend on the other images.
"""


def best_rows(
    scores: np.ndarray, thresholds: np.ndarray, keep: int, niche: np.ndarray | None, niches: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best `keep` rows of each cell, of those above its threshold; of equals the first ones.

    scores: (B, K) float64; thresholds: (K * niches,) float64; niche: (B,) int64, of each row, None: there is one. Returns
    (M,) int64 cells = class * niches + niche, ascending, and their rows, the best of a cell first.
    """
    if niche is None:
        return _best(scores, thresholds, keep)
    by_niche = thresholds.reshape(-1, niches)
    cells, rows = [], []
    for n in np.unique(niche):
        members = np.flatnonzero(niche == n)
        classes, best = _best(scores[members], by_niche[:, n], keep)
        cells.append(classes * niches + n)
        rows.append(members[best])
    found = np.concatenate(cells)
    order = np.argsort(found, kind="stable")
    return found[order], np.concatenate(rows)[order]


def best_permitted_rows(
    scores: np.ndarray,
    thresholds: np.ndarray,
    keep: int,
    niche: np.ndarray | None,
    niches: int,
    permits: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """best_rows of those that may be elites of the cell's class; and (cells, rows) of those that were turned away.

    permits(rows, classes): which of these may be, (n,) bool. Only those that would win a place otherwise are asked for.
    Turned away are all that are not permitted and better than the last of the `keep` best that are.
    """
    scores, asked = scores.copy(), np.zeros(scores.shape, bool)
    away = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    while True:
        cells, rows = best_rows(scores, thresholds, keep, niche, niches)
        new = np.flatnonzero(~asked[rows, cells // niches])
        some, classes = rows[new], cells[new] // niches
        asked[some, classes] = True
        refused = ~permits(some, classes) if len(new) else np.zeros(0, bool)
        if not refused.any():
            return cells, rows, (np.concatenate([c for c, _ in away]), np.concatenate([r for _, r in away]))
        scores[some[refused], classes[refused]] = -np.inf
        away.append((cells[new][refused], some[refused]))


def _best(scores: np.ndarray, thresholds: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """As best_rows, of one niche: columns and rows."""
    columns = np.flatnonzero(scores.max(axis=0) > thresholds)
    left = scores[:, columns]
    found, rows = [columns], [left.argmax(axis=0)]
    while len(found) < keep and len(columns):
        left[rows[-1], np.arange(len(columns))] = -np.inf
        more = np.flatnonzero(left.max(axis=0) > thresholds[columns])
        columns, left = columns[more], left[:, more]
        found.append(columns)
        rows.append(left.argmax(axis=0))
    if len(found) == 1:
        return columns, rows[0]
    cells = np.concatenate(found)
    order = np.argsort(cells, kind="stable")
    return cells[order], np.concatenate(rows)[order]
