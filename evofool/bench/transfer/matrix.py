"""Transfer: do fooling images that were evolved on one classifier fool others, each at its own threshold?

Nguyen 2015 measures this for two networks at a confidence of 99.99%. Here every target has its own threshold tau_5: the
margin of an image must be as large as that of 95% of the real images that this target classifies correctly.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evofool import scores
from evofool.bench.calibration import Calibration
from evofool.bench.statistics import share_interval
from evofool.bench.transfer.answers import logits_of
from evofool.bench.transfer.shares import SURE, TargetElites, TransferMatrix, TransferPair, TransferRow, TransferShare
from evofool.errors import TargetError
from evofool.machine import torch_threads
from evofool.targets import Target
from evofool.targets.labels import matching_classes
from evofool.targets.position import Position, measure
from evofool.targets.validation import wilson

RUNS = 3  # with at least this number of runs, intervals are over runs
REPLICATES = 400  # bootstrap samples of the real images, and of the elites of a single run
_KEY = 0x7A

OnProgress = Callable[[str], None]


def matrix(
    rows: Sequence[TargetElites],
    targets: Sequence[Target],
    calibrations: Sequence[Calibration] | None = None,
    *,
    names: Sequence[str] | None = None,
    batch: int = 16,
    seed: int = 0,
    on_progress: OnProgress = lambda _: None,
) -> TransferMatrix:
    """Score the elites of each target with every other target. Elites that their own target does not accept are left out.

    Elites are resized by images.resized and scored in float32 in batches of `batch`; the last batch is padded.
    calibrations: one for each target. None: there are no thresholds, and a target accepts an image if its class has the
    highest logit. seed: of the bootstrap.

    TargetError for fewer than two targets and for two without a class in common, ScoreError for answers that are not finite.
    """
    called = tuple(names if names is not None else (target.name for target in targets))
    if len(targets) < 2:
        raise TargetError(f"transfer needs at least two targets, and there is one: {', '.join(called)}")
    if len({row.target for row in rows}) < len(rows):
        raise TargetError("the elites of a target must be in one row")
    for row in rows:
        for name, other in zip(called, targets, strict=True):
            _refuse_no_common_class(called[row.target], targets[row.target], name, other)
    with torch_threads(1):
        positions = [measure(target, batch) for target in targets]
    before = [target.queries for target in targets]
    scorers = [
        _Scorer(name, target, None if calibrations is None else calibrations[b], batch, on_progress, positions[b], [])
        for b, (name, target) in enumerate(zip(called, targets, strict=True))
    ]
    evolved = tuple(_evolved(row, scorers, np.random.default_rng([_KEY, seed, row.target])) for row in rows)
    queries = tuple(target.queries - count for target, count in zip(targets, before, strict=True))
    notes = tuple(
        f"{scorer.name}: {note}; {sum(scorer.undecided):,} images are nearer to a threshold than that"
        for scorer in scorers
        for note in scorer.position.notes()
    )
    return TransferMatrix(called, evolved, queries, calibrations is not None, notes)


class _CellScores(NamedTuple):
    """The scores of m cells. cells: (m,) int64, their places in the row. The rest is (m,), or (REPLICATES, m)."""

    cells: np.ndarray
    log_odds: np.ndarray
    called: np.ndarray  # bool: the class has the highest logit
    accepted: np.ndarray
    resampled: np.ndarray | None  # bool: accepted at thresholds from resampled real images


class _Scorer(NamedTuple):
    """A target, its thresholds and the settings of its queries."""

    name: str
    target: Target
    calibration: Calibration | None
    batch: int
    on_progress: OnProgress
    position: Position
    undecided: list[int]  # for each call: images that might be decided differently at another place in a batch

    def score(self, row: TargetElites, source: "_Scorer", cells: np.ndarray) -> _CellScores:
        """Score these cells of the row. Cells whose class this target lacks, or has no threshold for, are left out."""
        classes = matching_classes(source.target.labels, self.target.labels)[row.classes[cells]]
        known = classes >= 0
        if self.calibration is not None:
            known &= self.calibration.has_images[classes]
        cells, classes = cells[known], classes[known]
        context = f"{self.name} on elites of {source.name}"
        logits, image = logits_of(self.target, [row.pngs[i] for i in cells], self.batch, context, self.on_progress)
        margins = scores.margin(logits, self.target.multilabel)[image, classes]
        called = margins > 0
        if self.calibration is None:
            accepted, resampled = called, None
        else:
            accepted = self.calibration.accepted(margins, classes)
            resampled = called & (margins >= self.calibration.resampled("tau5", REPLICATES)[:, classes])
        taus = np.zeros(len(margins)) if self.calibration is None else self.calibration.tau5[classes]
        distances = np.stack([margins, margins - taus], axis=1)
        self.undecided.append(int(self.position.undecided(logits[image], distances).sum()))
        log_odds = scores.log_odds(logits, self.target.multilabel)[image, classes]
        return _CellScores(cells, log_odds, called, accepted, resampled)


def _evolved(row: TargetElites, scorers: Sequence[_Scorer], draw: np.random.Generator) -> TransferRow:
    source = scorers[row.target]
    on_source = source.score(row, source, np.arange(len(row.classes)))
    first = {(row.run[i], row.pngs[i]): i for i in reversed(on_source.cells[on_source.accepted].tolist())}
    kept = np.array(sorted(first.values()), np.int64)
    log_odds = np.full((len(kept), len(scorers)), np.nan)
    log_odds[:, row.target] = on_source.log_odds[np.searchsorted(on_source.cells, kept)]
    accepted_by = np.zeros(log_odds.shape, bool)
    accepted_by[:, row.target] = True
    pairs = []
    for b, scorer in enumerate(scorers):
        if b == row.target:
            places, found = np.arange(len(kept)), None
        else:
            found = scorer.score(row, source, kept)
            places = np.searchsorted(kept, found.cells)
            log_odds[places, b], accepted_by[places, b] = found.log_odds, found.accepted
        p_source, p_other = (np.asarray(scores.confidence(log_odds[places, t])) for t in (row.target, b))
        if scorer.calibration is None:
            images = classes = None
        else:
            images = _share(row, kept[places], found and (found.accepted, found.resampled), draw)
            classes = _share(row, kept[places], found and (found.accepted, found.resampled), draw, by_class=True)
        pairs.append(
            TransferPair(
                images,
                classes,
                _share(row, kept[places], found and (found.called, None), draw),
                len(kept) - len(places),
                float(np.median(p_source)) if len(places) else None,
                float(np.median(p_other)) if len(places) else None,
                int(((p_source >= SURE) & (p_other >= SURE)).sum()),
                int(((p_source >= SURE) & (p_other < SURE)).sum()),
            )
        )
    return TransferRow(
        row, int(on_source.accepted.sum()), kept, accepted_by, np.asarray(scores.confidence(log_odds)), tuple(pairs)
    )


def _share(
    row: TargetElites,
    cells: np.ndarray,
    found: tuple[np.ndarray, np.ndarray | None] | None,
    draw: np.random.Generator,
    by_class: bool = False,
) -> TransferShare:
    """The share of hits among these cells of the row, or with by_class the share of (run, class) pairs with a hit.

    found: hits (m,) bool, and the hits at resampled thresholds (REPLICATES, m) bool; None: all are hits by definition.
    """
    run, runs = row.run[cells], len(row.runs)
    hits = np.ones(len(cells), bool) if found is None else found[0]
    resampled = None if found is None else found[1]
    if by_class and len(cells):
        groups, group = np.unique(np.stack([run, row.classes[cells]]), axis=1, return_inverse=True)
        run, group = groups[0], group.reshape(-1)
        hits, resampled = _any(hits, group), None if resampled is None else _any(resampled, group)
    per_run = tuple(float(hits[run == r].mean()) if (run == r).any() else None for r in range(runs))
    counted_runs = [r for r in range(runs) if per_run[r] is not None]
    if not counted_runs:
        return TransferShare(None, None, None, 0, "", per_run)
    if found is None:
        return TransferShare(1.0, 1.0, 1.0, len(hits), "", per_run)
    if len(counted_runs) >= RUNS:
        of_runs = (
            None if resampled is None else np.stack([resampled[:, run == r].mean(axis=1) for r in counted_runs], axis=1)
        )
        outcomes = max(1, round(len(hits) / len(counted_runs)))
        t = share_interval([per_run[r] or 0.0 for r in counted_runs], of_runs, outcomes)
        return TransferShare(t.value, t.low, t.high, len(hits), "runs", per_run)
    low, high = wilson(int(hits.sum()), len(hits))
    if resampled is not None:
        # Wilson's interval treats the threshold as known. Here images and thresholds are resampled; the wider limit counts.
        chosen = draw.integers(0, len(hits), (len(resampled), len(hits)))
        limits = np.quantile(np.take_along_axis(resampled, chosen, axis=1).mean(axis=1), [0.025, 0.975])
        low, high = min(low, float(limits[0])), max(high, float(limits[1]))
    return TransferShare(float(hits.mean()), low, high, len(hits), "images", per_run)


def _any(hits: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(..., m) bool to (..., groups) bool: whether a group has a hit. group: (m,), the group of each."""
    order = np.argsort(group, kind="stable")
    begins = np.searchsorted(group[order], np.arange(int(group.max()) + 1))
    return np.asarray(np.logical_or.reduceat(hits[..., order], begins, axis=-1))


def _refuse_no_common_class(source_name: str, source: Target, other_name: str, other: Target) -> None:
    if (matching_classes(source.labels, other.labels) < 0).all():
        raise TargetError(
            f"{source_name} and {other_name} have no class in common: the labels of the first are "
            f"{', '.join(source.labels[:3])} ..., of the second {', '.join(other.labels[:3])} ...; if they are the same "
            "classes under other names, give both the "
            "same names: labels=FILE in a target's spec"
        )
