"""The scores of scores.py on the device of the logits, and the best images of each cell, so that only these are copied."""

from typing import NamedTuple

import numpy as np
import torch

from evofool.scores import refuse_unfinite


class Best(NamedTuple):
    """M images above their cells' thresholds; all (M,), by cell, and in one cell the best first.

    log_odds and margins are those of the cell's class.
    """

    cells: np.ndarray  # int64, class * niches + niche, ascending
    rows: np.ndarray  # int64, of the logits; of equals the first ones
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
    keep: int = 1,
) -> Best:
    """The best `keep` rows of each class, of logits (B, K) float32 on any device, where they beat the threshold.

    There is one niche, so a class is a cell. thresholds: (K,) float64, -inf for an empty cell. rank: "log_odds", "margin",
    or "multilabel" for labels that do not exclude each other, of which these two are the same.
    claims: (B,) int64, the one class that each row competes in; None: all (`logits.argmax(1)`, of equals the first, is the
    competition argmax). Waits for the device once.
    ScoreError, as from scores.refuse_unfinite, names batch, target_name and the row, counted from begin, of logits that are
    not finite.
    """
    multilabel = rank == "multilabel"
    log_odds_, margin_ = log_odds(logits, multilabel), margin(logits, multilabel)
    allowed = ranked = log_odds_ if rank == "log_odds" else margin_
    if claims is not None:
        # torch.tensor copies: torch warns of sharing an array that came over a network, since it cannot be written to
        column = torch.tensor(claims, device=logits.device)[:, None] if isinstance(claims, np.ndarray) else claims[:, None]
        allowed = torch.full_like(ranked, -torch.inf).scatter_(1, column, ranked.gather(1, column))
    row, score = _highest(allowed, keep)
    columns = [row.double(), score, *(x.gather(0, row) for x in (log_odds_, margin_))]
    columns.append(logits.isfinite().all().double().expand_as(row))
    where, found, odds, gaps, finite = torch.stack(columns).cpu().numpy()
    if not finite.all():
        refuse_unfinite(logits.cpu().numpy(), batch, target_name, begin)
    c, place = np.nonzero((found > thresholds).T)
    return Best(
        cells=c,
        rows=where[place, c].astype(np.int64),
        scores=found[place, c],
        log_odds=odds[place, c],
        margins=gaps[place, c],
    )


def log_odds(logits: torch.Tensor, multilabel: bool = False) -> torch.Tensor:
    """scores.log_odds by the same formula, float64 (B, K) on the device; sums are in another order (1e-9 at most)."""
    if multilabel:
        return logits.double()
    z, top, best, second = _two_highest(logits)
    # the exponential of the top class is 0: it is not among the others
    e = (z.scatter(1, top, -torch.inf) - second).exp_()
    others = e.sum(1, keepdim=True)
    gap = best - second
    rest = (others - e).clamp_(min=0)
    out = (z - best) - (rest * torch.exp(-gap)).log1p_()
    return out.scatter_(1, top, gap - others.log())


def margin(logits: torch.Tensor, multilabel: bool = False) -> torch.Tensor:
    """scores.margin to the bit, float64 (B, K) on the device."""
    if multilabel:
        return logits.double()
    z, top, best, second = _two_highest(logits)
    return (z - best).scatter_(1, top, best - second)


def _two_highest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """float64 logits, and (B, 1) each: the highest's class, of equals the first, its value and the highest of the others."""
    z = logits.double()
    top = logits.argmax(1, keepdim=True)
    return z, top, z.gather(1, top), z.scatter(1, top, -torch.inf).amax(1, keepdim=True)


def _highest(scores: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows (k, K) of the k = min(keep, B) highest of each column of scores (B, K), of equals the first; their scores."""
    left = scores.clone() if keep > 1 else scores
    rows: list[torch.Tensor] = []
    found = []
    for _ in range(min(keep, len(scores))):  # topk does not say which of equals it returns
        if rows:
            left.scatter_(0, rows[-1], -torch.inf)
        rows.append(left.argmax(0, keepdim=True))
        found.append(left.gather(0, rows[-1]))
    return torch.cat(rows), torch.cat(found)
