"""Acceptance scores: what they are invariant to, and what their thresholds keep."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evofool.bench.acceptance import FEATURES, MARGIN, PAIR, SEEN, AcceptanceScores, FeatureScale, PairScale, top_two
from evofool.bench.calibration import Calibration, halves
from evofool.bench.real_features import RealFeatures

K = 5
Map = Callable[[np.ndarray], np.ndarray]


def answers(n: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    classes = draw.integers(0, K, n)
    logits = draw.normal(size=(n, K)) * 3
    logits[np.arange(n), classes] += right
    return logits.astype(np.float32), classes


def calibration(of: Map = lambda z: z, n: int = 900) -> Calibration:
    logits, classes = answers(n, 9.0)
    return Calibration(of(logits).astype(np.float32), classes, halves(classes), "", "", tuple(map(str, range(K))))


def seen(logits: np.ndarray, similarity: float | np.ndarray = np.nan) -> np.ndarray:
    records = np.zeros(len(logits), SEEN)
    records["top"], records["second"] = top_two(logits)
    records["class"], records["at"], records["similarity"] = logits.argmax(1), np.arange(len(logits)) + 1, similarity
    return records


def accepted(scores: AcceptanceScores, name: str, records: np.ndarray) -> np.ndarray:
    return scores.values(name, records) >= scores.scores[name].tau()[records["class"]]


# Strictly increasing, and no two of these logits are rounded to one.
MAPS: dict[str, Map] = {
    "z^5": lambda z: np.asarray(z.astype(np.float64) ** 5),
    "a quarter": lambda z: z / 4,
    "arctan": lambda z: np.arctan(z.astype(np.float64) / 8),
}


@pytest.mark.parametrize("name", MAPS)
def test_one_monotone_map_of_all_logits_changes_nothing_of_the_pair(name: str) -> None:
    plain, _ = answers(2000, 6.0, seed=1)
    mapped = MAPS[name](plain).astype(np.float32)
    ours, theirs = calibration().acceptance(K), calibration(MAPS[name]).acceptance(K)
    everything = np.concatenate([calibration().logits.ravel(), plain.ravel()])
    again = np.concatenate([calibration(MAPS[name]).logits.ravel(), mapped.ravel()])
    assert np.array_equal(np.unique(everything, return_inverse=True)[1], np.unique(again, return_inverse=True)[1])
    for level in ("tau5", "tau50"):
        assert np.array_equal(ours.scores[PAIR].tau(level), theirs.scores[PAIR].tau(level))
        resampled = [scores.scores[PAIR].resampled(level, 7) for scores in (ours, theirs)]
        assert np.array_equal(*resampled)
    assert ours.scores[PAIR].control_accepted() == theirs.scores[PAIR].control_accepted()
    assert np.array_equal(ours.values(PAIR, seen(plain)), theirs.values(PAIR, seen(mapped)))
    assert 0 < accepted(ours, PAIR, seen(plain)).mean() < 1
    if name == "z^5":
        assert not np.array_equal(accepted(ours, MARGIN, seen(plain)), accepted(theirs, MARGIN, seen(mapped)))


def test_the_pair_has_one_level_for_both_logits_and_keeps_95_percent() -> None:
    c = calibration(n=6000)
    pooled = replace(c, logits=c.logits[:900], classes=c.classes[:900], control=c.control[:900])
    for known in (c, pooled):
        score, rows, pair = known.acceptance(K).scores[PAIR], known.margin_score.rows, known.acceptance(K).pair
        assert pair is not None
        tops, seconds = (values[rows].astype(np.float64) for values in top_two(known.logits))
        own = known.classes[rows]
        for level in np.unique(score.tau()):
            # The slow way: quantiles of both, at the level's rank from either side.
            k = int(np.ceil(level))
            low, high = np.sort(tops)[k - 1], np.sort(seconds)[::-1][k - 1]
            kept = (tops >= low) & (seconds <= high)
            at = score.tau()[own] == level
            assert kept[at].mean() == pytest.approx(0.95, abs=0.015)
            assert np.array_equal(kept[at], pair(tops[at], seconds[at]) >= level)
        assert score.control_met
    assert len(np.unique(c.acceptance(K).scores[PAIR].tau())) > 1, "classes of many images have their own level"


def test_the_margin_of_records_is_the_margin() -> None:
    c = calibration()
    logits, _ = answers(50, 2.0, seed=3)
    records = seen(logits)
    scores = c.acceptance(K)
    assert np.array_equal(accepted(scores, MARGIN, records), c.accepted(scores.values(MARGIN, records), records["class"]))
    assert np.array_equal(scores.scores[MARGIN].tau(), c.tau5)


def test_features_are_compared_with_other_real_images_of_the_class(tmp_path: Path) -> None:
    c, draw = calibration(), np.random.default_rng(5)
    centres = draw.normal(size=(K, 8))
    features = (centres[c.classes] + 0.5 * draw.normal(size=(len(c.classes), 8))).astype(np.float32)
    rows = c.margin_score.rows
    real = RealFeatures("fc", features, c.classes, rows, "these")
    values = real.of_real()
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    for n in range(0, len(rows), 37):
        others = [m for m in np.flatnonzero(rows & (c.classes == c.classes[n])) if m != n]
        assert values[n] == pytest.approx(max(float(units[n] @ units[m]) for m in others), abs=1e-6)
    score = c.acceptance(K, values).scores[FEATURES]
    assert score.control_met
    near, far = centres[c.classes[:50]].astype(np.float32), centres[(c.classes[:50] + 1) % K].astype(np.float32)
    tau = score.tau()[c.classes[:50]]
    assert (real.scale(near, c.classes[:50]) >= tau).all()
    assert (real.scale(far, c.classes[:50]) < tau).all()
    assert np.allclose(real.scale(7 * near, c.classes[:50]), real.scale(near, c.classes[:50])), "their length does not count"
    assert np.isnan(FeatureScale({})(near, c.classes[:50])).all()
    real.save(tmp_path / "f.safetensors")
    again = RealFeatures.load(tmp_path / "f.safetensors")
    assert again is not None
    assert np.array_equal(again.of_real(), values)
    (tmp_path / "f.safetensors").write_bytes(b"torn")
    assert RealFeatures.load(tmp_path / "f.safetensors") is None


def test_scores_that_cannot_be_had_are_left_out_with_a_reason() -> None:
    c = calibration()
    assert list(c.acceptance(1).scores) == [MARGIN]
    assert "runner-up" in c.acceptance(1).left_out[PAIR]
    assert list(c.acceptance(2, no_features="a black box").scores) == [MARGIN, PAIR]
    assert c.acceptance(2, no_features="a black box").left_out == {FEATURES: "a black box"}


def test_a_score_whose_other_half_is_not_kept_is_left_out() -> None:
    c = calibration()
    shifted = c.logits + np.where(c.control, 0, 40).astype(np.float32)[:, None]
    scores = replace(c, logits=shifted).acceptance(K)
    assert list(scores.scores) == [MARGIN], "margins do not see a shift"
    assert "not 0.95" in scores.left_out[PAIR]


def test_ranks_count_equal_logits_as_reached() -> None:
    scale = PairScale(np.array([1.0, 2.0, 3.0]), np.array([-3.0, -2.0, -1.0]))
    tops, seconds = np.array([3.0, 1.0, 0.9, 9.0, 2.5]), np.array([-3.0, -1.0, -9.0, -0.9, -2.0])
    assert scale(tops, seconds).tolist() == [3, 1, 0, 0, 2]


def test_the_share_of_real_images_that_a_value_reaches_and_its_resampled_ones() -> None:
    score = calibration().acceptance(K).scores[MARGIN]
    real = score.values[score.rows]
    values = np.array([[-np.inf, 0.0, real[3]], [np.median(real), real.max(), np.inf]])
    share = score.share_reached(values)
    assert np.array_equal(share, np.array([[(real <= value).mean() for value in row] for row in values]))
    again = score.resampled_reached(values, 300)
    assert again.shape == (300, 2, 3)
    assert np.array_equal(again[:, 1], score.resampled_reached(values[1], 300))
    assert again.mean(axis=0) == pytest.approx(share, abs=0.01)
    expected = np.sqrt(share * (1 - share) / len(real))
    assert again.std(axis=0) == pytest.approx(expected, rel=0.2)
