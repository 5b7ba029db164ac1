"""The matrix of transfer, compared with a slow, obvious count."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evofool import scores
from evofool.bench.calibration import Calibration
from evofool.bench.statistics import share_interval
from evofool.bench.transfer.matrix import REPLICATES, matrix
from evofool.bench.transfer.shares import SURE, TargetElites, TransferMatrix, TransferPair, TransferShare
from evofool.errors import ScoreError, TargetError
from evofool.images import decode_png, encode_png, resized
from evofool.targets import Target
from evofool.targets.labels import matching_classes
from evofool.targets.validation import wilson

SHAPE, CLASSES = (1, 6, 5), 7


def network(seed: int, shape: tuple[int, int, int] = SHAPE, labels: Sequence[str] = (), gain: float = 1.0) -> Target:
    """A linear classifier; those of neighbouring seeds agree on a part of all images."""
    labels = labels or [f"class {c}" for c in range(CLASSES)]
    size = int(np.prod(shape))
    base, specific = (np.random.default_rng([key, size]).normal(size=(size, CLASSES)) for key in (99, seed))
    weights = ((base + 0.6 * specific)[:, : len(labels)] / 8).astype(np.float32)

    def forward(images: np.ndarray) -> np.ndarray:
        # Row by row: the rest of a batch must not change last bits.
        rows = (images.reshape(len(images), -1).astype(np.float32) - 127.5) / 64
        return np.stack([row @ weights for row in rows]) * np.float32(gain)

    return Target(f"network {seed}", labels, shape, forward, {"seed": seed})


def calibrated(target: Target, count: int = 240, classes: Sequence[int] | None = None) -> Calibration:
    """A calibration with images that are mostly classified correctly, and with `classes` only of these classes."""
    images = np.random.default_rng(5).integers(0, 256, (count, *target.shape), np.uint8)
    logits = target.logits(images)
    target.count(-count)
    called = logits.argmax(axis=1)
    called[::10] = (called[::10] + 1) % len(target.labels)
    if classes is not None:
        logits, called = logits[np.isin(called, classes)], called[np.isin(called, classes)]
    control = np.arange(len(called)) % 2 == 1
    return Calibration(logits, called.astype(np.int64), control, "", target.fingerprint(), target.labels)


def evolved(index: int, target: Target, runs: int = 1, pool: int = 30, seed: int = 0) -> TargetElites:
    """The best of some random images for every class of every run, as a search by margin finds them."""
    run, classes, births, pngs = [], [], [], []
    for r in range(runs):
        images = np.random.default_rng([seed, index, r]).integers(0, 256, (pool, *target.shape), np.uint8)
        best = scores.margin(target.logits(images)).argmax(axis=0)
        target.count(-pool)
        for c, birth in enumerate(best):
            run.append(r)
            classes.append(c)
            births.append(int(birth))
            pngs.append(encode_png(images[birth]))
    names = [f"run {r}" for r in range(runs)]
    return TargetElites(index, names, np.array(run), np.array(classes), np.array(births), pngs)


def three(runs: int = 1, gain: float = 1.0, pool: int = 200) -> tuple[list[TargetElites], list[Target], list[Calibration]]:
    targets = [network(1, gain=gain), network(2, gain=gain), network(3, (3, 9, 8), gain=gain)]
    return [evolved(a, target, runs, pool) for a, target in enumerate(targets)], targets, [calibrated(t) for t in targets]


def accepts(target: Target, calibration: Calibration, image: np.ndarray, c: int) -> bool:
    z = target.logits(resized(image, target.shape)[None])[0].astype(np.float64)
    gap = z[c] - max(z[k] for k in range(len(z)) if k != c)
    return bool(gap > 0 and gap >= calibration.tau5[c])


def share_of(pair: TransferPair, name: str = "images") -> TransferShare:
    found = getattr(pair, name)
    assert isinstance(found, TransferShare)
    return found


def test_equal_runs_do_not_give_an_interval_of_width_0() -> None:
    """A target under another name accepts all that the first accepts, in every run."""
    target = network(1)
    row = matrix([evolved(0, target, 4)], [target, network(1)], [calibrated(target)] * 2).rows[0]
    share = share_of(row.pairs[1])
    assert (share.value, share.over, share.high) == (1.0, "runs", None)
    assert 0.5 < (share.low or 0) < 1


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_the_matrix_equals_a_slow_count(runs: int) -> None:
    rows, targets, calibrations = three(runs)
    found = matrix(rows, targets, calibrations)
    for row, out in zip(rows, found.rows, strict=True):
        a = row.target
        kept = [
            n
            for n in range(len(row.classes))
            if accepts(targets[a], calibrations[a], decode_png(row.pngs[n]), int(row.classes[n]))
        ]
        assert out.kept.tolist() == kept
        assert out.accepted == len(kept) >= 3
        for b in range(3):
            pair = out.pairs[b]
            images = [(n, resized(decode_png(row.pngs[n]), targets[b].shape)) for n in kept]
            hits = [b == a or accepts(targets[b], calibrations[b], image, int(row.classes[n])) for n, image in images]
            assert out.accepted_by[:, b].tolist() == hits
            of_runs = [[h for h, n in zip(hits, kept, strict=True) if row.run[n] == r] for r in range(runs)]
            shares = [sum(h) / len(h) for h in of_runs]
            expected = np.mean(shares) if runs >= 3 and b != a else np.mean(hits)
            share = share_of(pair)
            assert share.value == pytest.approx(expected)
            assert share.of == len(kept)
            assert share.per_run == pytest.approx(shares)
            # Without niches every class has one elite in a run, so the two shares are equal.
            assert share_of(pair, "classes").value == pytest.approx(expected)
            p = {}
            for t in (a, b):
                logits = [targets[t].logits(resized(decode_png(row.pngs[n]), targets[t].shape)[None])[0] for n in kept]
                soft = [np.exp(z.astype(np.float64)) / np.exp(z.astype(np.float64)).sum() for z in logits]
                p[t] = np.array([s[row.classes[n]] for s, n in zip(soft, kept, strict=True)])
            assert pair.confidence_on_source == pytest.approx(np.median(p[a]), rel=1e-6)
            assert pair.confidence_on_other == pytest.approx(np.median(p[b]), rel=1e-6)
            assert pair.sure_on_both == sum((p[a] >= SURE) & (p[b] >= SURE))
            assert pair.sure_on_source_only == sum((p[a] >= SURE) & (p[b] < SURE))
    off = [found.rows[a].pairs[b].images for a in range(3) for b in range(3) if a != b]
    assert found.off_diagonal_median == pytest.approx(np.median([s.value for s in off if s]))


def test_other_targets_score_only_what_the_source_accepts() -> None:
    rows, targets, calibrations = three(pool=12)
    found = matrix(rows[:1], targets, calibrations)
    out = found.rows[0]
    assert 0 < out.accepted < len(rows[0].classes)
    specific = share_of(out.pairs[0])
    assert (specific.value, specific.low, specific.high, specific.over) == (1.0, 1.0, 1.0, "")
    assert found.queries == (len(set(rows[0].pngs)), len(out.kept), len(out.kept))


def test_an_image_of_several_cells_is_scored_and_counted_once() -> None:
    rows, targets, calibrations = three()
    row = rows[0]
    run, classes, births = (np.repeat(column, 2) for column in (row.run, row.classes, row.births))
    twice = TargetElites(0, row.runs, run, classes, births, [png for png in row.pngs for _ in range(2)])
    once, again = (matrix([r], targets, calibrations) for r in (row, twice))
    assert again.queries == once.queries
    assert again.rows[0].pairs == once.rows[0].pairs
    assert again.rows[0].accepted == 2 * once.rows[0].accepted
    assert len(again.rows[0].kept) == len(once.rows[0].kept)


def test_a_class_with_several_niches_is_accepted_if_one_of_its_elites_is() -> None:
    rows, targets, calibrations = three()
    more = evolved(0, targets[0], 1, 200, seed=8)
    run, classes, births = (np.concatenate([getattr(r, k) for r in (rows[0], more)]) for k in ("run", "classes", "births"))
    niches = TargetElites(0, ["run 0"], run, classes, births, [*rows[0].pngs, *more.pngs])
    out = matrix([niches], targets[:2], calibrations[:2]).rows[0]
    accepted = {int(c): False for c in classes[out.kept]}
    for n, hit in zip(out.kept, out.accepted_by[:, 1], strict=True):
        accepted[int(classes[n])] |= bool(hit)
    share = share_of(out.pairs[1], "classes")
    assert share.of == len(accepted) < share_of(out.pairs[1]).of
    assert share.value == pytest.approx(np.mean(list(accepted.values())))


def test_limits_are_over_runs_from_three_runs_on_and_over_images_before() -> None:
    rows, targets, calibrations = three(4)
    out = matrix(rows[:1], targets, calibrations).rows[0]
    share = share_of(out.pairs[1])
    assert share.over == "runs"
    run, classes = rows[0].run[out.kept], rows[0].classes[out.kept]
    logits = np.stack([targets[1].logits(decode_png(rows[0].pngs[n])[None])[0] for n in out.kept])
    margins = scores.margin(logits)[np.arange(len(classes)), classes]
    # The hits of every run at each of the resampled thresholds.
    resampled = [(margins > 0) & (margins >= tau[classes]) for tau in calibrations[1].resampled("tau5", REPLICATES)]
    replicates = np.array([[hits[run == r].mean() for r in range(4)] for hits in resampled])
    expected = share_interval([s for s in share.per_run if s is not None], replicates, round(len(run) / 4))
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
    data = json.loads(json.dumps(found.as_json(), allow_nan=False))
    for row in data["details"]:
        for pair in row["pairs"]:
            del pair["raw"]
    return data


def test_dividing_all_logits_by_four_changes_nothing_but_raw_confidences() -> None:
    one, other = (matrix(*three(gain=gain)) for gain in (1.0, 0.25))
    assert without_raw(one) == without_raw(other)
    assert one.rows[0].pairs[1].confidence_on_other != other.rows[0].pairs[1].confidence_on_other


def test_labels_in_another_order_change_nothing() -> None:
    rows, targets, calibrations = three()
    turn = np.random.default_rng(1).permutation(CLASSES)
    second = targets[1]
    turned = Target("turned", [second.labels[c] for c in turn], SHAPE, lambda x: second.logits(x)[:, turn], {})
    one = matrix(rows[:1], targets[:2], calibrations[:2])
    other = matrix(rows[:1], [targets[0], turned], [calibrations[0], calibrated(turned)], names=one.names)
    np.testing.assert_array_equal(matching_classes(targets[0].labels, turned.labels), np.argsort(turn))
    assert one.rows[0].pairs[1].agreement == other.rows[0].pairs[1].agreement
    assert one.rows[0].pairs[1].confidence_on_other == pytest.approx(other.rows[0].pairs[1].confidence_on_other)


def test_classes_that_the_other_lacks_or_has_no_real_images_of_are_left_out_and_counted() -> None:
    rows, targets, calibrations = three()
    less = network(2, labels=[f"class {c}" for c in (0, 1, 2, 3)])
    scored = calibrated(less, classes=(1, 2, 3))
    out = matrix(rows[:1], [targets[0], less], [calibrations[0], scored]).rows[0]
    scored_there = [n for n in out.kept if rows[0].classes[n] in (1, 2, 3)]
    assert 0 < len(scored_there) < len(out.kept)
    assert out.pairs[1].left_out == len(out.kept) - len(scored_there)
    assert share_of(out.pairs[1]).of == len(scored_there)
    assert np.isfinite(out.confidences[:, 1]).sum() == len(scored_there)
    # The same is true on the source: images of a class without a threshold are not accepted.
    source = matrix(rows[:1], targets[:2], [calibrated(targets[0], classes=(0, 1)), calibrations[1]]).rows[0]
    assert set(rows[0].classes[source.kept].tolist()) <= {0, 1}
    assert source.accepted > 0


def test_without_thresholds_there_is_only_agreement() -> None:
    rows, targets, _ = three()
    found = matrix(rows, targets)
    data = found.as_json()
    assert data["threshold"] is None
    assert data["off_diagonal_median"] is None
    assert data["share"] == [[None] * 3] * 3
    assert data["of"] == [[0] * 3] * 3
    for row, out in zip(rows, found.rows, strict=True):
        logits = np.stack([targets[row.target].logits(decode_png(png)[None])[0] for png in row.pngs])
        assert out.kept.tolist() == np.flatnonzero(logits.argmax(axis=1) == row.classes).tolist()
        agreement = out.pairs[(row.target + 1) % 3].agreement
        assert out.pairs[0].images is None
        assert agreement.value is not None
        assert 0 <= agreement.value <= 1


def test_a_row_without_accepted_elites_is_empty() -> None:
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


def test_images_accepted_by_the_most_targets_come_first() -> None:
    rows, targets, calibrations = three(2)
    found = matrix(rows, targets, calibrations)
    best = found.most_accepted(1000)
    numbers = [len(one["accepted_by"]) for one in best]
    assert len(best) == sum(len(out.kept) for out in found.rows)
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 1
    assert found.most_accepted(2) == best[:2]
    one = best[0]
    a = found.names.index(one["target"])
    n = next(
        n
        for n in range(len(rows[a].classes))
        if (rows[a].runs[rows[a].run[n]], rows[a].classes[n], rows[a].births[n]) == (one["run"], one["class"], one["birth"])
    )
    image = decode_png(rows[a].pngs[n])
    accepted_by = [t.name for t, c in zip(targets, calibrations, strict=True) if accepts(t, c, image, one["class"])]
    assert one["accepted_by"] == accepted_by


def test_invalid_input_is_refused_before_any_query() -> None:
    rows, targets, calibrations = three()
    with pytest.raises(TargetError, match="there is one: network 1"):
        matrix(rows[:1], targets[:1], calibrations[:1])
    with pytest.raises(TargetError, match="in one row"):
        matrix([rows[0], rows[0]], targets, calibrations)
    unrelated = network(2, labels=["cat", "dog"])
    with pytest.raises(TargetError, match=r"network 1 and network 2 have no class in common.*class 0.*cat, dog"):
        matrix(rows[:1], [targets[0], unrelated])
    assert sum(target.queries for target in (*targets, unrelated)) == 0


def test_answers_that_are_not_finite_are_refused() -> None:
    rows, targets, _ = three()
    broken = Target("broken", targets[0].labels, SHAPE, lambda x: np.full((len(x), CLASSES), np.nan, np.float32), {})
    with pytest.raises(ScoreError, match=r"broken on elites of network 1: NaN or infinity for [1-7] of [1-7]"):
        matrix(rows[:1], [targets[0], broken])


def test_an_interrupt_cancels_the_queries_in_progress() -> None:
    rows, targets, _ = three()
    cancelled = []

    def interrupted(text: str) -> None:
        if text.startswith("network 2"):
            raise KeyboardInterrupt

    targets[1].cancel = lambda: cancelled.append(True)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        matrix(rows[:1], targets, on_progress=interrupted, batch=1)
    assert cancelled == [True]
    assert targets[1].queries <= len(rows[0].pngs)


def test_thresholds_have_at_least_200_bootstrap_samples() -> None:
    assert REPLICATES >= 200  # of 2.5% tails


def test_labels_that_do_not_exclude_each_other_have_their_own_log_odds() -> None:
    def sigmoids(name: str, outputs: str) -> Target:
        """Its labels a and b are given to every image, and c to none."""
        return Target(
            name,
            ["a", "b", "c"],
            SHAPE,
            lambda images: np.tile(np.float32([6, 5, -5]), (len(images), 1)),
            {},
            outputs=outputs,
        )

    image = encode_png(np.zeros(SHAPE, np.uint8))
    row = TargetElites(0, ["run"], np.zeros(3, int), np.arange(3), np.zeros(3, int), [image] * 3)
    for outputs, accepted, odds in (("multilabel-logits", 2, 6.0), ("logits", 1, 6 - np.logaddexp(5, -5))):
        found = matrix([row], [sigmoids(name, outputs) for name in "AB"]).as_json()["details"][0]
        assert found["accepted"] == accepted
        other = found["pairs"][1]["raw"]["confidence_on_other"]
        assert other == pytest.approx(scores.confidence(odds), abs=1e-6)
