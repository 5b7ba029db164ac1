"""Transfer: do fooling images that were evolved on one classifier fool others, each at its own threshold?

Nguyen 2015 asks it of two networks at a confidence of 99.99%. Here every target judges by its own tau_5: an
image has to be as clear a case of its class as 95% of the real images that this target gets right.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from evofool import scores
from evofool.bench.calibration import Calibration
from evofool.bench.statistics import share_interval
from evofool.bench.transfer.shares import SURE, TargetElites, TransferMatrix, TransferPair, TransferRow, TransferShare
from evofool.errors import ScoreError, TargetError
from evofool.images import decode_png, resized
from evofool.machine import torch_threads
from evofool.targets import Target
from evofool.targets.position import Position, measure
from evofool.targets.validation import wilson

RUNS = 3  # from so many on, intervals are over runs
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
    """Ask every target about the elites of every other that this other accepts itself.

    Elites are asked about as images.resized has them, in float32, batch at a time, the last batch filled up.
    calibrations: one for each target; None: there are no thresholds, and to accept is to give the class the highest logit.
    seed: of the bootstrap.

    TargetError for fewer than two targets and for two without a class in common, ScoreError for answers that are not finite.
    """
    called = tuple(names if names is not None else (target.name for target in targets))
    if len(targets) < 2:
        raise TargetError(f"transfer is from one target to another, and here is one alone: {', '.join(called)}")
    if len({row.target for row in rows}) < len(rows):
        raise TargetError("the elites of one target have to be in one row")
    for row in rows:
        for name, other in zip(called, targets, strict=True):
            _refuse_strangers(called[row.target], targets[row.target], name, other)
    with torch_threads(1):
        positions = [measure(target, batch) for target in targets]
    before = [target.queries for target in targets]
    judges = [
        _Judge(name, target, None if calibrations is None else calibrations[b], batch, on_progress, positions[b], [])
        for b, (name, target) in enumerate(zip(called, targets, strict=True))
    ]
    evolved = tuple(_evolved(row, judges, np.random.default_rng([_KEY, seed, row.target])) for row in rows)
    queries = tuple(target.queries - asked for target, asked in zip(targets, before, strict=True))
    notes = tuple(
        f"{judge.name}: {note}; {sum(judge.undecided):,} images are nearer to a threshold than that"
        for judge in judges
        for note in judge.position.notes()
    )
    return TransferMatrix(called, evolved, queries, calibrations is not None, notes)


def classes_there(home: Target, other: Target) -> np.ndarray:
    """(K,) int64: which class of the other each class of home is: the same if all labels are, else by label; -1 for none."""
    if home.labels == other.labels:
        return np.arange(len(home.labels))
    place = {label: c for c, label in enumerate(other.labels)}
    return np.array([place.get(label, -1) for label in home.labels], np.int64)


class _Judgement(NamedTuple):
    """cells: (m,) int64, the places in the row of what was asked about. The rest is (m,), or (REPLICATES, m)."""

    cells: np.ndarray
    log_odds: np.ndarray
    called: np.ndarray  # the class has the highest logit
    accepted: np.ndarray
    again: np.ndarray | None  # accepted by thresholds of resampled real images


class _Judge(NamedTuple):
    """A target, its threshold and how it is asked."""

    name: str
    target: Target
    calibration: Calibration | None
    batch: int
    on_progress: OnProgress
    position: Position
    undecided: list[int]  # of each call: images that another place in a batch may decide otherwise

    def judge(self, row: TargetElites, home: "_Judge", cells: np.ndarray) -> _Judgement:
        """Of these cells of the row those whose class this target has, with a threshold."""
        classes = classes_there(home.target, self.target)[row.classes[cells]]
        known = classes >= 0
        if self.calibration is not None:
            known &= self.calibration.scored[classes]
        cells, classes = cells[known], classes[known]
        logits, image = self._logits([row.pngs[i] for i in cells], f"{self.name} on elites of {home.name}")
        margins = scores.margin(logits)[image, classes]
        called = margins > 0
        if self.calibration is None:
            accepted, again = called, None
        else:
            accepted = self.calibration.accepted(margins, classes)
            again = called & (margins >= self.calibration.resampled("tau5", REPLICATES)[:, classes])
        taus = np.zeros(len(margins)) if self.calibration is None else self.calibration.tau5[classes]
        distances = np.stack([margins, margins - taus], axis=1)
        self.undecided.append(int(self.position.undecided(logits[image], distances).sum()))
        return _Judgement(cells, scores.log_odds(logits)[image, classes], called, accepted, again)

    def _logits(self, pngs: Sequence[bytes], words: str) -> tuple[np.ndarray, np.ndarray]:
        """Each different image is asked about once: logits (U, K) float32, and which of them each PNG is, (n,) int64."""
        place = {png: u for u, png in enumerate(dict.fromkeys(pngs))}
        different, answers = list(place), [np.empty((0, len(self.target.labels)), np.float32)]

        def ask(begin: int) -> np.ndarray:
            part = [resized(decode_png(png, "an elite"), self.target.shape) for png in different[begin : begin + self.batch]]
            return self.target.logits(np.stack(part), self.batch)

        with torch_threads(1), ThreadPoolExecutor(self.target.streams, "transfer", torch.set_num_threads, (1,)) as pool:
            try:
                for answer in pool.map(ask, range(0, len(different), self.batch)):
                    answers.append(answer)
                    self.on_progress(f"{words}: {sum(map(len, answers)):,} of {len(different):,}")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.target.cancel()
                raise
        logits = np.concatenate(answers)
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        if bad:
            raise ScoreError(f"{words}: NaN or infinity for {bad} of {len(logits)} images; check the network's weights")
        return logits, np.array([place[png] for png in pngs], np.int64)


def _evolved(row: TargetElites, judges: Sequence[_Judge], draw: np.random.Generator) -> TransferRow:
    home = judges[row.target]
    own = home.judge(row, home, np.arange(len(row.classes)))
    yes = own.cells[own.accepted]
    first = {(row.run[i], row.pngs[i]): i for i in reversed(yes.tolist())}
    held = np.array(sorted(first.values()), np.int64)
    log_odds = np.full((len(held), len(judges)), np.nan)
    log_odds[:, row.target] = own.log_odds[np.searchsorted(own.cells, held)]
    believed = np.zeros(log_odds.shape, bool)
    believed[:, row.target] = True
    pairs = []
    for b, judge in enumerate(judges):
        if b == row.target:
            places, seen = np.arange(len(held)), None
        else:
            seen = judge.judge(row, home, held)
            places = np.searchsorted(held, seen.cells)
            log_odds[places, b], believed[places, b] = seen.log_odds, seen.accepted
        p_home, p_there = (np.asarray(scores.confidence(log_odds[places, t])) for t in (row.target, b))
        if judge.calibration is None:
            images = classes = None
        else:
            images = _share(row, held[places], seen and (seen.accepted, seen.again), draw)
            classes = _share(row, held[places], seen and (seen.accepted, seen.again), draw, by_class=True)
        pairs.append(
            TransferPair(
                images,
                classes,
                _share(row, held[places], seen and (seen.called, None), draw),
                len(held) - len(places),
                float(np.median(p_home)) if len(places) else None,
                float(np.median(p_there)) if len(places) else None,
                int(((p_home >= SURE) & (p_there >= SURE)).sum()),
                int(((p_home >= SURE) & (p_there < SURE)).sum()),
            )
        )
    return TransferRow(row, int(own.accepted.sum()), held, believed, np.asarray(scores.confidence(log_odds)), tuple(pairs))


def _share(
    row: TargetElites,
    cells: np.ndarray,
    found: tuple[np.ndarray, np.ndarray | None] | None,
    draw: np.random.Generator,
    by_class: bool = False,
) -> TransferShare:
    """The share of hits among these cells of the row, or of (run, class) pairs with a hit.

    found: hits (m,) bool, and (REPLICATES, m) bool as resampled thresholds have them; None: all are hits by definition.
    """
    run, runs = row.run[cells], len(row.runs)
    hits = np.ones(len(cells), bool) if found is None else found[0]
    again = None if found is None else found[1]
    if by_class and len(cells):
        groups, of = np.unique(np.stack([run, row.classes[cells]]), axis=1, return_inverse=True)
        run, of = groups[0], of.reshape(-1)
        hits, again = _any(hits, of), None if again is None else _any(again, of)
    per_run = tuple(float(hits[run == r].mean()) if (run == r).any() else None for r in range(runs))
    counted_runs = [r for r in range(runs) if per_run[r] is not None]
    if not counted_runs:
        return TransferShare(None, None, None, 0, "", per_run)
    if found is None:
        return TransferShare(1.0, 1.0, 1.0, len(hits), "", per_run)
    if len(counted_runs) >= RUNS:
        of_runs = None if again is None else np.stack([again[:, run == r].mean(axis=1) for r in counted_runs], axis=1)
        t = share_interval([per_run[r] or 0.0 for r in counted_runs], of_runs)
        return TransferShare(t.value, t.low, t.high, len(hits), "runs", per_run)
    low, high = wilson(int(hits.sum()), len(hits))
    if again is not None:
        # Wilson's takes the threshold for known; both are resampled here, and the wider limit of the two counts.
        chosen = draw.integers(0, len(hits), (len(again), len(hits)))
        limits = np.quantile(np.take_along_axis(again, chosen, axis=1).mean(axis=1), [0.025, 0.975])
        low, high = min(low, float(limits[0])), max(high, float(limits[1]))
    return TransferShare(float(hits.mean()), low, high, len(hits), "images", per_run)


def _any(hits: np.ndarray, of: np.ndarray) -> np.ndarray:
    """(..., m) bool to (..., groups) bool: whether a group has a hit; of (m,) says which group each is in."""
    order = np.argsort(of, kind="stable")
    begins = np.searchsorted(of[order], np.arange(int(of.max()) + 1))
    return np.asarray(np.logical_or.reduceat(hits[..., order], begins, axis=-1))


def _refuse_strangers(one: str, home: Target, another: str, other: Target) -> None:
    if (classes_there(home, other) < 0).all():
        raise TargetError(
            f"{one} and {another} have no class in common: the labels of the first are {', '.join(home.labels[:3])} ..., of "
            f"the second {', '.join(other.labels[:3])} ...; if they are the same classes under other names, give both the "
            "same names: labels=FILE in a target's spec"
        )
