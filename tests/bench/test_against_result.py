"""A gate against earlier results: which arms decide, what their checks say, and which results are refused."""

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from evofool.bench.compare import read_result
from evofool.bench.gate.against_arms import attacks_classes_apart, choose_arms, without_masked
from evofool.bench.gate.against_check import arm_check
from evofool.bench.gate.earlier import queries, read_earlier
from evofool.bench.gate.log_ratio import LogPairs
from evofool.bench.gate.strict import refuse_few
from evofool.errors import RecipeError
from evofool.targets import Target
from tests.bench.test_compare import BUDGET, Json, changed, result

WITH, WITHOUT = (cast(Target, SimpleNamespace(name="net", differentiable=given)) for given in (True, False))


def arms_of(*arms: str, **invalid: str) -> Json:
    """A result with these arms; those of `invalid` have a reason instead of seeds."""
    data = result([100, 120, 110], arm="noise")
    data["protocol"]["arms"] = [*arms, "noise"]
    row = data["scores"]["arms"]["noise"]
    empty = {"kind": "white", "seeds": []}
    data["scores"]["arms"] |= {arm: row for arm in arms if arm not in invalid}
    data["scores"]["arms"] |= {arm: empty | {"invalid": {"0": reason}} for arm, reason in invalid.items() if reason}
    return data


# --- which arms decide


@pytest.mark.parametrize(
    ("arms", "target", "named", "measured", "deciding", "invalid", "notes"),
    [
        (arms_of("cppn", "apgd"), WITH, (), ["cppn", "apgd"], ["apgd"], [], []),
        (arms_of("cppn", "apgd"), WITH, ("cppn",), ["cppn"], ["cppn"], [], []),
        (arms_of("cppn", "random"), WITHOUT, (), ["cppn", "random"], ["cppn", "random"], [], ["all arms decide"]),
        (arms_of("cppn", "apgd"), WITHOUT, (), ["cppn"], ["apgd"], ["apgd.*gradients, which net does not give"], []),
        (arms_of("cppn", "apgd"), WITHOUT, ("cppn",), ["cppn"], ["cppn"], [], []),
        (arms_of("cppn", "apgd", apgd=""), WITHOUT, (), ["cppn"], ["cppn"], [], ["apgd: left out", "all"]),
        (arms_of("cppn", "apgd", apgd="a disk died"), WITH, (), ["cppn"], ["apgd"], ["measure that again: a disk died"], []),
        (arms_of("cppn", "apgd", cppn="a disk died"), WITH, (), ["apgd"], ["apgd"], [], ["cppn: left out.*a disk died"]),
    ],
)  # fmt: skip
def test_arms_of_low_variance_decide_and_all_where_there_are_none(
    arms: Json, target: Target, named: Any, measured: list[str], deciding: list[str], invalid: list[str], notes: list[str]
) -> None:
    choice = choose_arms(read_earlier([arms]), target, named)
    assert (choice.measured, choice.deciding) == (measured, deciding)
    assert [check.status for check in choice.checks] == ["invalid"] * len(invalid)
    for found, expected in zip(
        [f"{c.name} {c.message}" for c in choice.checks] + choice.notes, invalid + notes, strict=True
    ):
        assert re.search(expected, found), found


def test_arms_that_the_result_does_not_have_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"--arms nes: the earlier result has no such arm.*it has cppn, apgd"):
        choose_arms(read_earlier([arms_of("cppn", "apgd")]), WITH, ("nes",))
    with pytest.raises(RecipeError, match="--arms noise"):
        choose_arms(read_earlier([arms_of("cppn")]), WITH, ("noise",))


def test_classes_that_climb_one_substitute_model_are_not_independent() -> None:
    assert attacks_classes_apart("apgd", {"", "straight-through"})
    assert not attacks_classes_apart("apgd", {"", "student"})
    assert not attacks_classes_apart("cppn")
    masked = arms_of("apgd")
    masked["scores"]["arms"]["apgd"] = masked["scores"]["arms"]["apgd"] | {"gradients": "student"}
    assert read_earlier([masked]).gradients("apgd") == {"student"}


def climbed(data: Json, source: str) -> Json:
    """The result as if apgd had climbed this source, since the target's gradients were masked."""
    row = data["scores"]["arms"]["apgd"] | {"kind": "white", "gradients": source}
    scores = data["scores"] | {"arms": data["scores"]["arms"] | {"apgd": row}}
    return data | {"scores": scores} | ({"gradients": {"masked": "they are zero"}} if source else {})


@pytest.mark.parametrize(
    ("arms", "before", "now", "deciding", "status", "message"),
    [
        (("cppn", "apgd"), "", "", ["apgd"], None, ""),
        (("cppn", "apgd"), "student", "student", ["apgd"], None, ""),
        (("cppn", "apgd"), "", "straight-through", ["apgd"], None, ""),
        (("cppn", "apgd"), "", "student", ["cppn"], None, "are masked .they are zero., and were not before; cppn decides"),
        (("cppn", "apgd"), "student", "", ["cppn"], None, "are not masked, and were before; cppn decides"),
        (("random", "apgd"), "", "student", [], "fails", "no arm without gradients .*: add one to the earlier result"),
        (("random", "apgd"), "student", "", [], "invalid", "no arm without gradients .*: measure the earlier target again"),
    ],
)
def test_a_substitute_model_on_one_side_only_does_not_decide(
    arms: Any, before: str, now: str, deciding: list[str], status: str | None, message: str
) -> None:
    earlier = read_earlier([climbed(arms_of(*arms), before)])
    measured = read_result(climbed(arms_of(*arms), now), "now")
    choice = without_masked(choose_arms(earlier, WITH), measured, earlier)
    assert choice.deciding == deciding
    assert {check.status for check in choice.checks} == ({status} if status else set())
    assert re.search(message, " ".join([*choice.notes, *(check.message for check in choice.checks)]))
    assert not {check.arm for check in choice.checks} & {*choice.measured}, "one check for each arm"


# --- the check of an arm


def check(now: Any, *before: Any, strict: bool = False, decides: bool = True) -> tuple[str, str]:
    """Queries by seed, alike in both classes; None: not within the budget."""
    now, *earlier = (np.array([[each, each] for each in seeds], float) for seeds in (now, *before))
    pairs = LogPairs(now, np.stack(earlier), BUDGET, classes_apart=True)
    found = arm_check("apgd", pairs, decides=decides, strict=strict, confidence=0.95)
    assert found.name == "apgd: queries against before"
    return found.status, found.message


@pytest.mark.parametrize(
    ("now", "before", "status", "strict", "message"),
    [
        (
            [500] * 3,
            [500] * 3,
            "passes",
            "passes",
            r"every class takes as many queries as before \(3 seeds, 2 classes\)",
        ),
        ([500], [500], "passes", "passes", r"every class takes as many queries as before \(1 seed, 2 classes\)"),
        (
            [700, 520, 610],
            [500, 400, 450],
            "passes",
            "passes",
            r"1.35 times.*95% limits 1.\d\d and 1.\d\d; 3 seeds, 2 classes",
        ),
        ([200, 210, 190], [500, 400, 450], "fails", "fails", r"0.45 times .* limits 0.\d\d and 0.\d\d"),
        ([500, 300, 900], [400, 500, 600], "passes", "fails", r"1.04 times.*shown; 0.\d\d would be found in 90% of cases"),
        ([None] * 3, [None] * 3, "passes", "passes", "every class takes as many queries as before"),
        (
            [None] * 3,
            [100, None, None],
            "passes",
            "passes",
            "most classes are not accepted within 1,000 queries now: 0% of classes and seeds are, 33% were before",
        ),
        ([300, 400, 350], [None] * 3, "fails", "fails", "at most 0.30 times .* limits unlimited and 0.3"),
        ([990, 980, 995], [None] * 3, "passes", "fails", "at most 0.98 times .* limits unlimited and 0.9"),
        ([None, None, 900], [300, 350, 280], "passes", "passes", "times .* and unlimited"),
        ([500], [400], "invalid", "invalid", "a single seed has no interval: measure both with more seeds"),
    ],
)
def test_a_check_fails_where_less_is_shown_and_a_strict_one_unless_more_is_shown(
    now, before, status, strict, message
) -> None:
    found = check(now, before)
    assert found[0] == status, found
    assert re.search(message, found[1]), found
    assert check(now, before, strict=True)[0] == strict
    assert check(now, before, decides=False) == ("informs", f"does not decide: {found[1]}")


def test_several_trainings_show_how_much_chance_may_do() -> None:
    now = [200, 210, 190]
    status, message = check(now, [500, 400, 450], [520, 410, 440], [480, 390, 470])
    assert status == "fails"
    assert re.search("3 trainings.*less than 0.75 is shown, and one more such training would take at least 0.9", message)
    status, message = check(now, [500, 400, 450], [1000, 800, 900], [250, 200, 225])
    assert status == "passes"
    assert re.search("less than 0.75 is shown, but one more such training may take as little as 0.[01]. times", message)
    status, message = check([450, 460, 440], [500, 400, 450], [600, 500, 550], [400, 320, 360], strict=True)
    assert status == "fails", "three trainings that differ by 1.5 do not show that a fourth is within 0.75"
    assert check([450, 460, 440], [500, 400, 450], [510, 410, 460], [490, 390, 440], strict=True)[0] == "passes"


# --- earlier results


def other(**target: Any) -> Json:
    return result([100, 120, 110], name="other", **{"fingerprint": "g"} | target)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (other(fingerprint="f"), "of net and other are of the same network .equal fingerprints."),
        (changed(other(), "protocol.seeds", [0, 1]), r"different seeds, \[0, 1, 2\] and \[0, 1\]: measure them alike"),
        (changed(other(), "protocol.arms", ["apgd"]), "different arms"),
        (changed(other(), "protocol.budgets", [100, 500]), "different budgets, 1,000 and 500"),
        (changed(other(), "images.sha256", "j"), "have different real images, so different thresholds"),
        (
            other(average=16),
            "net was measured with one answer to each image; other was measured with average=16; measure both",
        ),
        (other(average=0), "earlier result 2 of 2, of other: .*target.average: Input should be greater than or equal to 1"),
        (other(views=-1), "earlier result 2 of 2, of other: .*target.views: Input should be greater than or equal to 0"),
        (other(labels=["0", "1", "x"]), "different classes: only net 2 .1.; only other x"),
        (changed(other(), "valid", False), "earlier result 2 of 2, of other: this result is invalid"),
    ],
)
def test_earlier_results_have_one_protocol_and_different_networks(second: Json, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_earlier([result([100, 120, 110]), second])


def test_classes_are_matched_by_their_labels_and_those_without_images_left_out() -> None:
    data = result([100, 120, 110], labels=["a", "b", "c"])
    data["images"]["classes_without_images"] = ["b"]
    data["scores"]["arms"]["cppn"]["accepted_at"] = {"0": [1, 3], "1": [10, None], "2": [100, 2000]}
    turned = changed(data, "target.labels", ["c", "b", "a"])
    turned["target"]["fingerprint"] = "g"
    earlier = read_earlier([data, turned])
    assert earlier.labels == ["a", "c"]
    nan = np.nan
    np.testing.assert_array_equal(
        earlier.queries("cppn", [0, 1, 2]), [[[1, 3], [10, nan], [100, nan]], [[3, 1], [nan, 10], [nan, 100]]]
    )
    short = changed(data, "scores.arms.cppn.accepted_at", {"0": [1], "1": [1], "2": [1]})
    with pytest.raises(RecipeError, match="1 classes in accepted_at of cppn, seed 0, but 2 scored classes"):
        queries(read_earlier([short]).first, "cppn", [0], ["a", "c"])


# --- a strict gate asks for enough seeds before it starts


def spread_over(logs: list[list[float]], **target: Any) -> Json:
    """A result of apgd whose three classes have these log10 queries, by seed."""
    data = result([100] * len(logs), arm="apgd", **target)
    data["scores"]["arms"]["apgd"]["accepted_at"] = {str(s): [round(10**x) for x in row] for s, row in enumerate(logs)}
    return data


NARROW = [[2.0, 2.1, 2.2], [2.02, 2.08, 2.21], [1.99, 2.1, 2.19]]
WIDE = [[2.0, 2.1, 2.2], [2.3, 2.5, 1.9], [1.8, 1.9, 2.6]]


def test_a_strict_gate_says_how_many_seeds_it_needs_and_refuses_fewer() -> None:
    (note,) = refuse_few(read_earlier([spread_over(NARROW)]), ["apgd"])
    assert re.fullmatch("strict: apgd needs [23] seeds, by the spread of the earlier; there are 3", note)
    with pytest.raises(
        RecipeError, match=r"--strict: apgd needs \d+ seeds, by the spread of the earlier; there are 3\. With fewer"
    ):
        refuse_few(read_earlier([spread_over(WIDE)]), ["apgd"])
    with pytest.raises(RecipeError, match="apgd has 1 seed in the earlier result, which does not show"):
        refuse_few(read_earlier([spread_over(NARROW[:1])]), ["apgd"])


def test_a_strict_gate_against_trainings_that_differ_asks_for_more_of_them() -> None:
    def of(shift: float, name: str) -> Json:
        return spread_over([[x + shift for x in row] for row in NARROW], fingerprint=name)

    (note,) = refuse_few(read_earlier([of(0, "f"), of(0.01, "g"), of(-0.01, "h")]), ["apgd"])
    assert "earlier results, by the spread" in note
    with pytest.raises(RecipeError, match=r"apgd needs (\d+|over 1,000) earlier results.* there are 3"):
        refuse_few(read_earlier([of(0, "f"), of(0.1, "g"), of(-0.1, "h")]), ["apgd"])


def test_a_mean_of_several_answers_is_compared_by_images() -> None:
    one = read_earlier([result([100, 120, None], arm="cppn")])
    eight = one.averaged(8)
    assert eight.first.protocol.budgets == tuple(8 * budget for budget in one.first.protocol.budgets)
    arm, seeds = "cppn", one.seeds("cppn")
    assert np.array_equal(eight.queries(arm, seeds), 8 * one.queries(arm, seeds), equal_nan=True)
    again = eight.averaged(1)
    assert again.first == one.first
