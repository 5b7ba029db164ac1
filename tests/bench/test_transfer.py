"""The matrix of transfer against a slow, obvious count, and what has to hold of it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evofool import scores
from evofool.bench.calibration import Calibration
from evofool.bench.statistics import share_interval
from evofool.bench.transfer.matrix import REPLICATES, classes_there, matrix
from evofool.bench.transfer.shares import SURE, TargetElites, TransferMatrix, TransferPair, TransferShare
from evofool.errors import ScoreError, TargetError
from evofool.images import decode_png, encode_png, resized
from evofool.targets import Target
from evofool.targets.validation import wilson

SHAPE, CLASSES = (1, 6, 5), 7


def network(seed: int, shape: tuple[int, int, int] = SHAPE, labels: Sequence[str] = (), gain: float = 1.0) -> Target:
    """A linear classifier; those of neighbouring seeds agree on a part of all images."""
    labels = labels or [f"class {c}" for c in range(CLASSES)]
    size = int(np.prod(shape))
    base, own = (np.random.default_rng([key, size]).normal(size=(size, CLASSES)) for key in (99, seed))
    weights = ((base + 0.6 * own)[:, : len(labels)] / 8).astype(np.float32)

    def forward(images: np.ndarray) -> np.ndarray:
        # Row by row: what else is in a batch must not decide last bits.
        rows = (images.reshape(len(images), -1).astype(np.float32) - 127.5) / 64
        return np.stack([row @ weights for row in rows]) * np.float32(gain)

    return Target(f"network {seed}", labels, shape, forward, {"seed": seed})


def calibrated(target: Target, count: int = 240, classes: Sequence[int] | None = None) -> Calibration:
    """Of images that are mostly what they are called; none of the classes that are not in `classes`."""
    images = np.random.default_rng(5).integers(0, 256, (count, *target.shape), np.uint8)
    logits = target.logits(images)
    target.count(-count)
    called = logits.argmax(axis=1)
    called[::10] = (called[::10] + 1) % len(target.labels)
    if classes is not None:
        logits, called = logits[np.isin(called, classes)], called[np.isin(called, classes)]
    control = np.arange(len(called)) % 2 == 1
    return Calibration(logits, called.astype(np.int64), control, "", target.fingerprint(), target.labels)


def evolved(place: int, target: Target, runs: int = 1, pool: int = 30, seed: int = 0) -> TargetElites:
    """For every class of every run the best of some random images, as a search by margin leaves them."""
    run, classes, births, pngs = [], [], [], []
    for r in range(runs):
        images = np.random.default_rng([seed, place, r]).integers(0, 256, (pool, *target.shape), np.uint8)
        best = scores.margin(target.logits(images)).argmax(axis=0)
        target.count(-pool)
        for c, birth in enumerate(best):
            run.append(r)
            classes.append(c)
            births.append(int(birth))
            pngs.append(encode_png(images[birth]))
    names = [f"run {r}" for r in range(runs)]
    return TargetElites(place, names, np.array(run), np.array(classes), np.array(births), pngs)


def three(runs: int = 1, gain: float = 1.0, pool: int = 200) -> tuple[list[TargetElites], list[Target], list[Calibration]]:
    targets = [network(1, gain=gain), network(2, gain=gain), network(3, (3, 9, 8), gain=gain)]
    return [evolved(a, target, runs, pool) for a, target in enumerate(targets)], targets, [calibrated(t) for t in targets]


def accepts(target: Target, calibration: Calibration, image: np.ndarray, c: int) -> bool:
    z = target.logits(resized(image, target.shape)[None])[0].astype(np.float64)
    gap = z[c] - max(z[k] for k in range(len(z)) if k != c)
    return bool(gap > 0 and gap >= calibration.tau5[c])


def share_of(pair: TransferPair, what: str = "images") -> TransferShare:
    found = getattr(pair, what)
    assert isinstance(found, TransferShare)
    return found


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_the_matrix_is_what_a_slow_count_comes_to(runs: int) -> None:
    rows, targets, calibrations = three(runs)
    found = matrix(rows, targets, calibrations)
    for row, out in zip(rows, found.rows, strict=True):
        a = row.target
        held = [
            n
            for n in range(len(row.classes))
            if accepts(targets[a], calibrations[a], decode_png(row.pngs[n]), int(row.classes[n]))
        ]
        assert out.held.tolist() == held
        assert out.accepted == len(held) >= 3
        for b in range(3):
            pair = out.pairs[b]
            images = [(n, resized(decode_png(row.pngs[n]), targets[b].shape)) for n in held]
            hits = [b == a or accepts(targets[b], calibrations[b], image, int(row.classes[n])) for n, image in images]
            assert out.believed[:, b].tolist() == hits
            of_runs = [[h for h, n in zip(hits, held, strict=True) if row.run[n] == r] for r in range(runs)]
            shares = [sum(h) / len(h) for h in of_runs]
            expected = np.mean(shares) if runs >= 3 and b != a else np.mean(hits)
            share = share_of(pair)
            assert share.value == pytest.approx(expected)
            assert share.of == len(held)
            assert share.per_run == pytest.approx(shares)
            # Without niches every class has one elite in a run: the two shares are the same.
            assert share_of(pair, "classes").value == pytest.approx(expected)
            p = {}
            for t in (a, b):
                logits = [targets[t].logits(resized(decode_png(row.pngs[n]), targets[t].shape)[None])[0] for n in held]
                soft = [np.exp(z.astype(np.float64)) / np.exp(z.astype(np.float64)).sum() for z in logits]
                p[t] = np.array([s[row.classes[n]] for s, n in zip(soft, held, strict=True)])
            assert pair.confidence_home == pytest.approx(np.median(p[a]), rel=1e-6)
            assert pair.confidence_there == pytest.approx(np.median(p[b]), rel=1e-6)
            assert pair.sure_of_both == sum((p[a] >= SURE) & (p[b] >= SURE))
            assert pair.sure_at_home_only == sum((p[a] >= SURE) & (p[b] < SURE))
    off = [found.rows[a].pairs[b].images for a in range(3) for b in range(3) if a != b]
    assert found.off_diagonal_median == pytest.approx(np.median([s.value for s in off if s]))


def test_what_its_own_target_accepts_is_its_own_share_and_nothing_else_is_asked_elsewhere() -> None:
    rows, targets, calibrations = three(pool=12)
    found = matrix(rows[:1], targets, calibrations)
    out = found.rows[0]
    assert 0 < out.accepted < len(rows[0].classes)
    own = share_of(out.pairs[0])
    assert (own.value, own.low, own.high, own.over) == (1.0, 1.0, 1.0, "")
    assert found.queries == (len(set(rows[0].pngs)), len(out.held), len(out.held))


def test_an_image_that_holds_several_cells_is_asked_about_once_and_counts_once() -> None:
    rows, targets, calibrations = three()
    row = rows[0]
    run, classes, births = (np.repeat(column, 2) for column in (row.run, row.classes, row.births))
    twice = TargetElites(0, row.runs, run, classes, births, [png for png in row.pngs for _ in range(2)])
    once, again = (matrix([r], targets, calibrations) for r in (row, twice))
    assert again.queries == once.queries
    assert again.rows[0].pairs == once.rows[0].pairs
    assert again.rows[0].accepted == 2 * once.rows[0].accepted
    assert len(again.rows[0].held) == len(once.rows[0].held)


def test_a_class_with_several_niches_counts_as_believed_if_one_of_its_elites_is() -> None:
    rows, targets, calibrations = three()
    more = evolved(0, targets[0], 1, 200, seed=8)
    run, classes, births = (np.concatenate([getattr(r, k) for r in (rows[0], more)]) for k in ("run", "classes", "births"))
    niches = TargetElites(0, ["run 0"], run, classes, births, [*rows[0].pngs, *more.pngs])
    out = matrix([niches], targets[:2], calibrations[:2]).rows[0]
    believed = {int(c): False for c in classes[out.held]}
    for n, yes in zip(out.held, out.believed[:, 1], strict=True):
        believed[int(classes[n])] |= bool(yes)
    share = share_of(out.pairs[1], "classes")
    assert share.of == len(believed) < share_of(out.pairs[1]).of
    assert share.value == pytest.approx(np.mean(list(believed.values())))


def test_limits_are_over_runs_from_three_runs_on_and_over_images_before() -> None:
    rows, targets, calibrations = three(4)
    out = matrix(rows[:1], targets, calibrations).rows[0]
    share = share_of(out.pairs[1])
    assert share.over == "runs"
    run, classes = rows[0].run[out.held], rows[0].classes[out.held]
    logits = np.stack([targets[1].logits(decode_png(rows[0].pngs[n])[None])[0] for n in out.held])
    margins = scores.margin(logits)[np.arange(len(classes)), classes]
    # What every run would have given by each of the resampled thresholds.
    again = [(margins > 0) & (margins >= tau[classes]) for tau in calibrations[1].resampled("tau5", REPLICATES)]
    replicates = np.array([[yes[run == r].mean() for r in range(4)] for yes in again])
    expected = share_interval([s for s in share.per_run if s is not None], replicates)
    assert replicates.std() > 0
    assert (share.value, share.low, share.high) == (expected.value, expected.low, expected.high)
    few, targets, calibrations = three(2)
    share = share_of(matrix(few[:1], targets, calibrations).rows[0].pairs[1])
    assert share.over == "images"
    assert share.value is not None
    assert share.low is not None
    assert share.high is not None
    low, high = wilson(round(share.value * share.of), share.of)
    assert share.low <= low < high <= share.high
    agreement = matrix(few[:1], targets).rows[0].pairs[1].agreement
    assert agreement.value is not None
    assert (agreement.low, agreement.high) == wilson(round(agreement.value * agreement.of), agreement.of)


def without_raw(found: TransferMatrix) -> dict[str, Any]:
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    for row in plain["details"]:
        for pair in row["pairs"]:
            del pair["raw"]
    return plain


def test_dividing_all_logits_by_four_changes_nothing_but_raw_confidences() -> None:
    one, other = (matrix(*three(gain=gain)) for gain in (1.0, 0.25))
    assert without_raw(one) == without_raw(other)
    assert one.rows[0].pairs[1].confidence_there != other.rows[0].pairs[1].confidence_there


def test_labels_in_another_order_change_nothing() -> None:
    rows, targets, calibrations = three()
    turn = np.random.default_rng(1).permutation(CLASSES)
    plain = targets[1]
    turned = Target("turned", [plain.labels[c] for c in turn], SHAPE, lambda x: plain.logits(x)[:, turn], {})
    one = matrix(rows[:1], targets[:2], calibrations[:2])
    other = matrix(rows[:1], [targets[0], turned], [calibrations[0], calibrated(turned)], names=one.names)
    np.testing.assert_array_equal(classes_there(targets[0], turned), np.argsort(turn))
    assert one.rows[0].pairs[1].agreement == other.rows[0].pairs[1].agreement
    assert one.rows[0].pairs[1].confidence_there == pytest.approx(other.rows[0].pairs[1].confidence_there)


def test_classes_that_the_other_lacks_or_has_no_real_images_of_are_left_out_and_counted() -> None:
    rows, targets, calibrations = three()
    less = network(2, labels=[f"class {c}" for c in (0, 1, 2, 3)])
    scored = calibrated(less, classes=(1, 2, 3))
    out = matrix(rows[:1], [targets[0], less], [calibrations[0], scored]).rows[0]
    there = [n for n in out.held if rows[0].classes[n] in (1, 2, 3)]
    assert 0 < len(there) < len(out.held)
    assert out.pairs[1].left_out == len(out.held) - len(there)
    assert share_of(out.pairs[1]).of == len(there)
    assert np.isfinite(out.confidences[:, 1]).sum() == len(there)
    # Of its own target's classes too: what has no threshold is not accepted.
    home = matrix(rows[:1], targets[:2], [calibrated(targets[0], classes=(0, 1)), calibrations[1]]).rows[0]
    assert set(rows[0].classes[home.held].tolist()) <= {0, 1}
    assert home.accepted > 0


def test_without_thresholds_there_is_agreement_alone() -> None:
    rows, targets, _ = three()
    found = matrix(rows, targets)
    told = found.as_json()
    assert told["threshold"] is None
    assert told["off_diagonal_median"] is None
    assert told["share"] == [[None] * 3] * 3
    assert told["of"] == [[0] * 3] * 3
    for row, out in zip(rows, found.rows, strict=True):
        home = np.stack([targets[row.target].logits(decode_png(png)[None])[0] for png in row.pngs])
        assert out.held.tolist() == np.flatnonzero(home.argmax(axis=1) == row.classes).tolist()
        agreement = out.pairs[(row.target + 1) % 3].agreement
        assert out.pairs[0].images is None
        assert agreement.value is not None
        assert 0 <= agreement.value <= 1


def test_a_row_of_which_its_own_target_accepts_nothing_is_empty_and_no_fault() -> None:
    rows, targets, calibrations = three()
    dark = encode_png(np.full(SHAPE, 127, np.uint8))
    none = TargetElites(0, ["run"], rows[0].run, rows[0].classes, rows[0].births, [dark] * CLASSES)
    found = matrix([none, rows[1]], targets, calibrations)
    assert found.rows[0].accepted == 0
    assert share_of(found.rows[0].pairs[1]).value is None
    assert found.off_diagonal_median is not None
    assert found.as_json()["share"][0] == [None, None, None] == found.as_json()["share"][2]
    json.dumps(found.as_json(), allow_nan=False)
    assert matrix([none], targets, calibrations).off_diagonal_median is None


def test_the_size_of_a_batch_changes_nothing() -> None:
    rows, targets, calibrations = three()
    one, other = (matrix(rows, targets, calibrations, batch=batch) for batch in (3, 64))
    assert one.as_json() == other.as_json()


def test_the_images_that_most_believe_come_first() -> None:
    rows, targets, calibrations = three(2)
    found = matrix(rows, targets, calibrations)
    best = found.most_believed(1000)
    numbers = [len(one["believed_by"]) for one in best]
    assert len(best) == sum(len(out.held) for out in found.rows)
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 1
    assert found.most_believed(2) == best[:2]
    one = best[0]
    a = found.names.index(one["target"])
    n = next(
        n
        for n in range(len(rows[a].classes))
        if (rows[a].runs[rows[a].run[n]], rows[a].classes[n], rows[a].births[n]) == (one["run"], one["class"], one["birth"])
    )
    image = decode_png(rows[a].pngs[n])
    by = [t.name for t, c in zip(targets, calibrations, strict=True) if accepts(t, c, image, one["class"])]
    assert one["believed_by"] == by


def test_what_cannot_be_compared_is_refused_before_anything_is_asked() -> None:
    rows, targets, calibrations = three()
    with pytest.raises(TargetError, match="here is one alone: network 1"):
        matrix(rows[:1], targets[:1], calibrations[:1])
    with pytest.raises(TargetError, match="in one row"):
        matrix([rows[0], rows[0]], targets, calibrations)
    stranger = network(2, labels=["cat", "dog"])
    with pytest.raises(TargetError, match=r"network 1 and network 2 have no class in common.*class 0.*cat, dog"):
        matrix(rows[:1], [targets[0], stranger])
    assert sum(target.queries for target in (*targets, stranger)) == 0


def test_answers_that_are_not_finite_are_said_to_be() -> None:
    rows, targets, _ = three()
    broken = Target("broken", targets[0].labels, SHAPE, lambda x: np.full((len(x), CLASSES), np.nan, np.float32), {})
    with pytest.raises(ScoreError, match=r"broken on elites of network 1: NaN or infinity for [1-7] of [1-7]"):
        matrix(rows[:1], [targets[0], broken])


def test_an_interrupt_ends_it_and_gives_up_what_is_under_way() -> None:
    rows, targets, _ = three()
    given_up = []

    def interrupted(words: str) -> None:
        if words.startswith("network 2"):
            raise KeyboardInterrupt

    targets[1].cancel = lambda: given_up.append(True)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        matrix(rows[:1], targets, on_progress=interrupted, batch=1)
    assert given_up == [True]
    assert targets[1].queries <= len(rows[0].pngs)


def test_thresholds_are_resampled_often_enough() -> None:
    assert REPLICATES >= 200  # of 2.5% tails
