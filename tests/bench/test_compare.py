"""Comparing two results: which ones are comparable, and the intervals over pairs of seeds."""

import copy
from typing import Any

import pytest

from evofool.bench.compare import compare
from evofool.bench.statistics import paired_difference, paired_ratio
from evofool.errors import RecipeError

BUDGET = 1000
Json = dict[str, Any]


def result(halves: list[float | None], shares: list[float] | None = None, arm: str = "cppn", **target: Any) -> Json:
    """The part of a target's JSON that is read: one arm, its Q50 and R95 by seed, each class accepted at the Q50."""
    seeds = list(range(len(halves)))
    r95 = {"queries": BUDGET, "per_seed": shares or [0.5] * len(seeds), "threshold_variance": 0.01}
    return {
        "target": {"name": "net", "fingerprint": "f", "shape": [1, 28, 28], "labels": ["0", "1", "2"]} | target,
        "protocol": {
            "budgets": [100, BUDGET],
            "seeds": seeds,
            "arms": [arm],
            "settings": {},
            "rank": "margin",
            "format": "float32",
            "levels": {"tau5": 0.05, "tau50": 0.5},
            "evofool": "1.0",
        },
        "images": {"source": "digits", "sha256": "i", "declared_top1": None, "classes_without_images": []},
        "valid": True,
        "flags": [],
        "scores": {
            "arms": {
                arm: {
                    "kind": "search",
                    "seeds": seeds,
                    "invalid": {},
                    "q50": {"per_seed": halves, "threshold_variance": 0.002},
                    "r95": [r95 | {"queries": 100}, r95],
                    "accepted_at": {str(seed): [half, half, None] for seed, half in zip(seeds, halves, strict=True)},
                }
            }
        },
        "raw": {"tau5": 3.0},
    }


def changed(data: Json, path: str, value: Any) -> Json:
    """A copy with one value changed, or removed if it is None."""
    data = copy.deepcopy(data)
    *above, last = path.split(".")
    inside = data
    for key in above:
        inside = inside[key]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return data


A, B = [300, 500, 420, 610, 380], [200, 510, 300, 400, 350]
SHARES = [[0.6, 0.7, 0.5, 0.8, 0.9], [0.7, 0.6, 0.9, 0.9, 0.8]]


def test_pairs_are_those_of_the_same_seed() -> None:
    a, b = result(A), result(B)
    arm = b["scores"]["arms"]["cppn"]
    b = changed(b, "scores.arms.cppn.seeds", [4, 3, 2, 1, 7])
    b["scores"]["arms"]["cppn"]["accepted_at"] = {str(seed): [1] for seed in (4, 3, 2, 1, 7)}
    row = compare(a, b)["arms"]["cppn"]
    assert row["seeds"] == [1, 2, 3, 4]
    by_seed = dict(zip([4, 3, 2, 1, 7], arm["q50"]["per_seed"], strict=True))
    slow = paired_ratio(A[1:], [by_seed[seed] for seed in (1, 2, 3, 4)], BUDGET)
    assert row["q50_ratio"]["value"] == pytest.approx(slow.value)


def test_independent_thresholds_widen_both_intervals() -> None:
    """The same network, another network, and a server that changed behind the same address."""
    same = compare(result(A, SHARES[0]), result(B, SHARES[1]))["arms"]["cppn"]
    narrow = paired_ratio(A, B, BUDGET), paired_difference(*SHARES)
    assert (same["q50_ratio"]["low"], same["r95"]["low"]) == (narrow[0].low, narrow[1].low)
    wide = paired_ratio(A, B, BUDGET, threshold_variance=0.004), paired_difference(*SHARES, threshold_variance=0.02)
    for other in (
        result(B, SHARES[1], fingerprint="g"),
        changed(result(B, SHARES[1]), "raw.tau5", 3.1),
        changed(result(B, SHARES[1]), "images.sha256", "j"),
    ):
        row = compare(result(A, SHARES[0]), other)["arms"]["cppn"]
        assert (row["q50_ratio"]["low"], row["q50_ratio"]["high"]) == (wide[0].low, wide[0].high)
        assert (row["r95"]["low"], row["r95"]["high"]) == (wide[1].low, wide[1].high)
        assert row["r95"]["low"] < same["r95"]["low"]


def test_same_means_every_class_not_only_the_median() -> None:
    assert compare(result(A), result(A))["arms"]["cppn"]["same"]
    other = result(A)
    other["scores"]["arms"]["cppn"]["accepted_at"]["3"][0] += 1
    assert not compare(result(A), other)["arms"]["cppn"]["same"]


def test_results_of_other_surrogates_are_compared_with_a_note() -> None:
    ours, theirs = result(A), result(A)
    ours["surrogates"], theirs["surrogates"] = ([{"name": name, "fingerprint": name}] for name in ("lite1", "lite2"))
    note = "the arm surrogate climbed other networks in each: lite1 against lite2"
    assert note in compare(ours, theirs)["notes"]
    theirs["surrogates"][0]["fingerprint"] = "lite1"
    assert note not in compare(ours, theirs)["notes"]
    assert note not in compare(ours, result(A))["notes"]


def test_seeds_beyond_the_budget_are_counted() -> None:
    assert compare(result([None, 100, 2000]), result([None, None, 900]))["arms"]["cppn"]["censored"] == [2, 2]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("target.labels", ["cat", "dog", "2"], r"have different classes: only net 0, 1 \(2\); only net cat, dog \(2\)"),
        ("images.classes_without_images", ["1"], r"are scored in different classes: only net 1 \(1\)"),
        ("target.shape", [3, 224, 224], "take images of 1x28x28 and 3x224x224"),
        ("protocol.budgets", [100, 400], "different budgets, 1,000 and 400 queries"),
        ("protocol.rank", "log_odds", "different protocols: rank is 'margin' and 'log_odds'"),
        (
            "target.average",
            16,
            "net was measured with one answer to each image; net was measured with average=16",
        ),
        ("target.views", 8, "net was measured with views=8; measure both with the same average= and views="),
        ("target.through", "same,jpeg:75", "net was measured with 2 pipelines"),
        ("protocol.settings", {"cppn": ["search.batch=8"]}, "different protocols: the settings of cppn"),
        ("scores.arms", {}, "no arm and seed in common"),
        ("valid", False, "net: this result is invalid \\(no reason is stored\\)"),
        ("protocol.settings", None, "not a complete result of evofool bench .protocol.settings: Field required"),
        ("scores.arms.cppn.r95", [], "q50 and r95 do not have an entry for each of its seeds"),
        ("scores.arms.cppn.q50", None, "q50 and r95 do not have an entry for each of its seeds"),
        ("scores.arms.cppn.accepted_at", {"0": [1]}, "accepted_at does not have an entry for each of its seeds"),
        ("target", None, "this is not a complete result"),
    ],
)
def test_incomparable_results_are_refused(path: str, value: Any, message: str) -> None:
    good, bad = result(A), changed(result(A), path, value)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(RecipeError):
            compare(*pair)
    with pytest.raises(RecipeError, match=message):
        compare(good, bad)


def test_the_order_of_classes_does_not_matter_and_equal_labels_are_counted() -> None:
    assert compare(result(A, labels=["2", "0", "1"]), result(A))["arms"]
    with pytest.raises(RecipeError, match=r"only net 1 \(1\)"):
        compare(result(A, labels=["0", "1", "1"]), result(A, labels=["0", "1", "2"]))


def test_notes_name_the_limits_of_a_comparison() -> None:
    other = changed(changed(result(B[:2]), "images.sha256", "j"), "protocol.evofool", "0.9")
    other["target"]["shape"] = [1, 32, 32]
    other["scores"]["arms"]["cppn"]["invalid"] = {"2": "out of memory"}
    notes = "\n".join(compare(result(A), other)["notes"])
    assert "the real images differ, as the targets receive them (1x28x28 and 1x32x32)" in notes
    assert "measured by evofool 1.0 and 0.9" in notes
    assert "cppn: 2 pairs of seeds; 5 give a first impression" in notes
    assert "cppn: seed 2 is invalid in one of the two" in notes
    assert compare(result(A), result(A))["notes"] == []


def test_a_result_without_losses_climbed_the_margin_alone() -> None:
    earlier, now = (result(queries, arm="apgd") for queries in (A, B))
    now = changed(now, "protocol.settings", {"apgd": ["losses=margin+logit"]})
    with pytest.raises(RecipeError, match=r"the settings of apgd are \('losses=margin',\) and \('losses=margin\+logit',\)"):
        compare(earlier, now)
    assert compare(earlier, changed(now, "protocol.settings", {"apgd": ["losses=margin"]}))["arms"]["apgd"]["seeds"]
