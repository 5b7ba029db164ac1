"""The scores of scores.py on the device of the logits, and the best image of each cell, so that only these are copied."""

from typing import NamedTuple

import numpy as np
import torch

from evofool.scores import refuse_unfinite


class Best(NamedTuple):
    """M images above their cells' thresholds, one for each cell; all (M,), ordered by niche, then class.

    log_odds and margins are those of the cell's class.
    """

    cells: np.ndarray  # int64, class * niches + niche
    rows: np.ndarray  # int64, of the logits; of equals the first
    scores: np.ndarray  # float64, ranked by
    log_odds: np.ndarray  # float64
    margins: np.ndarray  # float64


def best(
    logits: torch.Tensor,
    thresholds: np.ndarray,
    *,
    batch: int,
    target_name: str,
    begin: int = 0,
    rank: str = "log_odds",
    claims: np.ndarray | torch.Tensor | None = None,
    niche: np.ndarray | None = None,
) -> Best:
    """The best row of each cell, of logits (B, K) float32 on any device, where it beats the threshold.

    thresholds: (K * niches,) float64, -inf for an empty cell. rank: "log_odds" or "margin". claims: (B,) int64, the one
    class that each row competes in; None: all (`logits.argmax(1)`, of equals the first, is the competition argmax).
    niche: (B,) the niche of each row; None: there is one. Waits for the device once.
    ScoreError, as from scores.refuse_unfinite, names batch, target_name and the row, counted from begin, of logits that are
    not finite.
    """
    log_odds_, margin_ = log_odds(logits), margin(logits)
    allowed = ranked = log_odds_ if rank == "log_odds" else margin_
    if claims is not None:
        # torch.tensor copies: torch warns of sharing an array that came over a network, since it cannot be written to
        column = torch.tensor(claims, device=logits.device)[:, None] if isinstance(claims, np.ndarray) else claims[:, None]
        allowed = torch.full_like(ranked, -torch.inf).scatter_(1, column, ranked.gather(1, column))
    found = [allowed.argmax(0)]
    present = np.zeros(1, np.int64)
    if niche is not None:
        present = np.unique(niche)
        groups = [torch.from_numpy(np.flatnonzero(niche == n)).to(logits.device) for n in present]
        found = [members[allowed[members].argmax(0)] for members in groups]
    row = torch.stack(found)
    columns = [row.double(), *(x.gather(0, row) for x in (allowed, ranked, log_odds_, margin_))]
    columns.append(logits.isfinite().all().double().expand_as(row))
    where, score, ranks, odds, gaps, finite = torch.stack(columns).cpu().numpy()
    if not finite.all():
        refuse_unfinite(logits.cpu().numpy(), batch, target_name, begin)
    by_niche = thresholds.reshape(logits.shape[1], -1)
    assert niche is not None or by_niche.shape[1] == 1
    c, n = np.nonzero((score > by_niche[:, present].T).T)
    return Best(
        cells=c * by_niche.shape[1] + present[n],
        rows=where[n, c].astype(np.int64),
        scores=ranks[n, c],
        log_odds=odds[n, c],
        margins=gaps[n, c],
    )


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """scores.log_odds by the same formula, float64 (B, K) on the device; sums are in another order (1e-9 at most)."""
    z, top, best, second = _two_highest(logits)
    # the exponential of the top class is 0: it is not among the others
    e = (z.scatter(1, top, -torch.inf) - second).exp_()
    others = e.sum(1, keepdim=True)
    gap = best - second
    rest = (others - e).clamp_(min=0)
    out = (z - best) - (rest * torch.exp(-gap)).log1p_()
    return out.scatter_(1, top, gap - others.log())


def margin(logits: torch.Tensor) -> torch.Tensor:
    """scores.margin to the bit, float64 (B, K) on the device."""
    z, top, best, second = _two_highest(logits)
    return (z - best).scatter_(1, top, best - second)


def _two_highest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """float64 logits, and (B, 1) each: the highest's class, of equals the first, its value and the highest of the others."""
    z = logits.double()
    top = logits.argmax(1, keepdim=True)
    return z, top, z.gather(1, top), z.scatter(1, top, -torch.inf).amax(1, keepdim=True)
