"""Two results of the same protocol, arm by arm, paired by seed."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evofool.bench.statistics import paired_difference, paired_ratio
from evofool.errors import RecipeError

_SAME = ("rank", "format", "levels", "settings")


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """How many times the queries of b's that a's Q50 is, and how far R95 at the largest common budget differs, a - b.

    a, b: JSON of evofool bench. Seeds that both have valid cells of are the pairs. What the thresholds are taken from is
    each one's own; what that leaves open is part of the ratio's interval where the targets differ. RecipeError for results
    of different protocols, and for invalid ones.
    """
    for one in (a, b):
        if not one["valid"]:
            why = "; ".join(flag["what"] for flag in one["flags"] if flag["level"] == "invalid")
            raise RecipeError(f"{one['target']['name']}: this result is not valid ({why}); nothing can be compared with it")
    ours, theirs = a["protocol"], b["protocol"]
    for key in _SAME:
        if ours.get(key) != theirs.get(key):
            raise RecipeError(f"the two are of different protocols: {key} is {ours.get(key)!r} and {theirs.get(key)!r}")
    if ours["budgets"][-1] != theirs["budgets"][-1]:
        raise RecipeError(
            f"the two have different budgets, {ours['budgets'][-1]:,} and {theirs['budgets'][-1]:,} queries: Q50 is "
            "censored at the budget, so measure one again with the other's"
        )
    notes = []
    if a["images"]["sha256"] != b["images"]["sha256"]:
        notes.append("the real images differ, as the targets saw them: thresholds are of different samples")
    if a["target"]["scored"] != b["target"]["scored"]:
        raise RecipeError(f"the two score {a['target']['scored']} and {b['target']['scored']} classes")
    budget = ours["budgets"][-1]
    alike = a["target"]["fingerprint"] == b["target"]["fingerprint"] and a["images"]["sha256"] == b["images"]["sha256"]
    arms = {}
    for arm, told in a["scores"]["arms"].items():
        other = b["scores"]["arms"].get(arm)
        both = [] if other is None else [seed for seed in told["seeds"] if seed in other["seeds"]]
        if other is None or not both:
            continue
        rows = [[one["seeds"].index(seed) for seed in both] for one in (told, other)]
        halves = [[one["q50"]["per_seed"][k] for k in row] for one, row in zip((told, other), rows, strict=True)]
        open_ = 0.0 if alike else sum(one["q50"]["tau_variance"] for one in (told, other))
        shares = [[one["r95"][-1]["per_seed"][k] for k in row] for one, row in zip((told, other), rows, strict=True)]
        arms[arm] = {
            "queries": budget,
            "seeds": both,
            "same": halves[0] == halves[1],
            "q50_ratio": asdict(paired_ratio(halves[0], halves[1], budget, tau_variance=open_)),
            "r95": asdict(paired_difference(shares[0], shares[1])),
        }
        if len(both) < 5:
            notes.append(f"{arm}: {len(both)} pairs; 5 are for a look, 10 for a claim")
    if not arms:
        raise RecipeError("the two have no arm and seed in common")
    return {"a": a["target"]["name"], "b": b["target"]["name"], "arms": arms, "notes": notes}
