"""What a benchmark says of all its targets together: what was stated beforehand and held or not, groups, sharing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evofool.bench import statistics
from evofool.bench.plan import BenchRecipe

SCHEMA, VERSION = "evofool.bench.summary", 1
HARDER = 2.0  # times the queries that a defence is stated to cost
_EVOLUTION = "cppn"
_UNGUIDED = ("random", "noise")  # what they ask next does not depend on what they were told

Results = Mapping[str, Mapping[str, Any]]


def summary(recipe: BenchRecipe, results: Results) -> dict[str, Any]:
    """The JSON of a benchmark, out of its targets' ones. Targets that are not valid are left out of all of it."""
    valid = {name: told for name, told in results.items() if told["valid"]}
    groups = _groups(recipe, valid)
    stated = [_real(results), _noise(valid), _evolution(recipe, valid), *_defences(recipe, valid, groups), *_adaptive(valid)]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "name": recipe.name,
        "targets": list(results),
        "invalid": [name for name in results if name not in valid],
        "statements": [one for one in stated if one],
        "groups": groups,
        "transfer": None,
    }


def _said(what: str, held: bool | None, figures: str) -> dict[str, Any]:
    return {"what": what, "held": held, "figures": figures}


def _real(results: Results) -> dict[str, Any] | None:
    """The positive control."""
    told = {name: one["scores"]["controls"].get("real") for name, one in results.items()}
    known = {name: one for name, one in told.items() if one and one["holds"] is not None}
    if not known:
        return None
    shares = [one["accepted"] for one in known.values()]
    return _said(
        "of the disjoint half of the real images 0.95 are accepted, within 3 standard errors",
        all(one["holds"] for one in known.values()),
        f"{min(shares):.3f} to {max(shares):.3f} on {len(known)} targets",
    )


def _noise(valid: Results) -> dict[str, Any] | None:
    """The floor. An arm searches if what it asks next depends on what it was told."""
    held, missed, ties = 0, [], 0
    for name, one in valid.items():
        arms = _scored(one)
        searching = {a: told["r95"][-1]["value"] for a, told in arms.items() if a not in _UNGUIDED}
        if "noise" not in arms or not searching:
            continue
        floor = arms["noise"]["r95"][-1]["value"]
        if floor < min(searching.values()):
            held += 1
        else:
            missed.append(
                f"{name} ({floor:.2f}, {min(searching, key=lambda a: searching[a])} {min(searching.values()):.2f})"
            )
        ties += "random" in arms and floor >= arms["random"]["r95"][-1]["value"]
    if not held and not missed:
        return None
    words = f"on {held} of {held + len(missed)} targets" + (f"; not on {', '.join(missed)}" if missed else "")
    if ties:
        words += f"; random images, each tried in every class, do no better than noise on {ties}"
    return _said(
        "noise is accepted in fewer classes than what any searching arm finds, at the largest budget", not missed, words
    )


def _evolution(recipe: BenchRecipe, valid: Results) -> dict[str, Any] | None:
    if _EVOLUTION not in recipe.arms or "random" not in recipe.arms:
        return None
    points = {budget: [0, 0] for budget in recipe.budgets}
    exceptions = []
    for name, one in valid.items():
        arms = _scored(one)
        if _EVOLUTION not in arms or "random" not in arms:
            continue
        for ours, theirs in zip(arms[_EVOLUTION]["r95"], arms["random"]["r95"], strict=True):
            better = ours["value"] > theirs["value"]
            points[ours["queries"]][not better] += 1
            if not better:
                exceptions.append(f"{name} at {ours['queries']:,} ({ours['value']:.2f}, {theirs['value']:.2f})")
    if not any(sum(counts) for counts in points.values()):
        return None
    words = "; ".join(f"at {budget:,} on {more} of {more + less} targets" for budget, (more, less) in points.items())
    more = f"; not: {', '.join(exceptions[:6])}{' ...' if len(exceptions) > 6 else ''}" if exceptions else ""
    return _said(
        "evolution (cppn) is accepted in more classes than random search, at every budget", not exceptions, words + more
    )


def _defences(recipe: BenchRecipe, valid: Results, groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    out = []
    pairs = dict.fromkeys((_group(part), part.defends) for part in recipe.targets if part.defends)
    for defended, plain in pairs:
        a, b = (groups.get(name, {}).get("networks", {}).get(_EVOLUTION, {}) for name in (defended, plain))
        what = f"Q50 of {defended} networks is at least {HARDER:g} times that of {plain} ones ({_EVOLUTION})"
        if not a or not b:
            out.append(_said(what, None, "there are no valid networks of both"))
            continue
        ratio = statistics.welch_ratio([q for q, _ in a.values()], [q for q, _ in b.values()], recipe.budget)
        # A network with a censored seed has at least the Q50 that it is told with.
        over, under = (any(censored for _, censored in networks.values()) for networks in (a, b))
        if over:
            ratio = replace(ratio, high=None)
        if under:
            ratio = replace(ratio, low=None, value=None if over else ratio.value)
        limits = f"95%: {_number(ratio.low, '0')} to {_number(ratio.high, 'unbounded')}"
        few = ratio.number < statistics.NETWORKS_FOR_A_CLAIM
        words = f"{_number(ratio.value)} times ({limits}; {len(a)} and {len(b)} independently trained networks)"
        if few:
            words += f"; a claim about a defence needs {statistics.NETWORKS_FOR_A_CLAIM} of each"
        out.append(_said(what, None if few or ratio.value is None else ratio.value >= HARDER, words))
    return out


def _adaptive(valid: Results) -> list[dict[str, Any]]:
    """For each detector: does having its score in the fitness lower its AUROC?"""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for name, one in valid.items():
        by_kind = {(row["detector"], row["kind"]): row["auroc"] for row in one["scores"]["detectors"]}
        for detector, kind in by_kind:
            if kind == "adaptive" and (detector, "static") in by_kind:
                found.setdefault(detector, []).append((name, by_kind[detector, "static"], by_kind[detector, "adaptive"]))
    out = []
    for detector, rows in found.items():
        lower = [row for row in rows if row[2] < row[1]]
        still, moved = (sum(values) / len(rows) for values in ([row[1] for row in rows], [row[2] for row in rows]))
        out.append(
            _said(
                f"{detector}: evolving against it lowers its AUROC",
                len(lower) == len(rows),
                f"on {len(lower)} of {len(rows)} targets; mean {still:.3f} static, {moved:.3f} adaptive",
            )
        )
    return out


def _groups(recipe: BenchRecipe, valid: Results) -> dict[str, Any]:
    """By group: its networks, and per arm their Q50 with an interval in which networks are the sample."""
    members: dict[str, list[str]] = {}
    for name, one in valid.items():
        if one["target"]["group"]:
            members.setdefault(one["target"]["group"], []).append(name)
    groups: dict[str, Any] = {}
    for group, names in members.items():
        arms: dict[str, Any] = {}
        networks: dict[str, dict[str, tuple[float | None, int]]] = {}
        for arm in recipe.arms:
            told = {n: _scored(valid[n])[arm]["q50"] for n in names if arm in _scored(valid[n])}
            if not told:
                continue
            networks[arm] = {n: (q["value"], q["censored"]) for n, q in told.items()}
            censored = sum(1 for q in told.values() if q["censored"])
            interval = statistics.queries_interval([q["value"] for q in told.values()], recipe.budget)
            high = None if censored else interval.high
            arms[arm] = {
                "q50": {
                    "value": interval.value,
                    "low": interval.low,
                    "high": high,
                    "networks": len(told),
                    "censored": censored,
                }
            }
        groups[group] = {"targets": names, "arms": arms, "networks": networks}
    return groups


def _group(part: Any) -> str:
    return part.group or part.name or part.train or ""


def _scored(one: Mapping[str, Any]) -> dict[str, Any]:
    """The arms with a valid cell."""
    return {arm: told for arm, told in one["scores"]["arms"].items() if told["seeds"]}


def _number(value: float | None, none: str = "?") -> str:
    return none if value is None else f"{value:.3g}"
