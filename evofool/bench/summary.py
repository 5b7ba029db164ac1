"""What a benchmark says of all its targets together: what was stated beforehand and held or not, groups, sharing."""

from collections.abc import Mapping
from typing import Any

from evofool.bench import statistics
from evofool.bench.interval import Interval, format_ratio
from evofool.bench.plan import BenchRecipe
from evofool.bench.report.formatting import counted

SCHEMA, VERSION = "evofool.bench.summary", 2
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
    return {"statement": what, "held": held, "figures": figures}


def _real(results: Results) -> dict[str, Any] | None:
    """The positive control."""
    told = {name: one["scores"]["controls"].get("real") for name, one in results.items()}
    known = {name: one for name, one in told.items() if one and one["holds"] is not None}
    if not known:
        return None
    shares = [one["accepted"] for one in known.values()]
    least, most = f"{min(shares):.3f}", f"{max(shares):.3f}"
    return _said(
        "of the disjoint half of the real images 0.95 are accepted, within 3 standard errors",
        all(one["holds"] for one in known.values()),
        f"{least if least == most else f'{least} to {most}'} on {counted(len(known), 'target')}",
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
    words = f"on {held} of {counted(held + len(missed), 'target')}" + (f"; not on {', '.join(missed)}" if missed else "")
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
    words = "; ".join(
        f"at {budget:,} on {more} of {counted(more + less, 'target')}" for budget, (more, less) in points.items()
    )
    more = f"; not: {', '.join(exceptions[:6])}{' ...' if len(exceptions) > 6 else ''}" if exceptions else ""
    return _said(
        "evolution (cppn) is accepted in more classes than random search, at every budget", not exceptions, words + more
    )


def _defences(recipe: BenchRecipe, valid: Results, groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    out = []
    pairs = dict.fromkeys((part.family, part.defends) for part in recipe.targets if part.defends)
    for defended, plain in pairs:
        told = [groups.get(name, {}).get("networks", {}).get(_EVOLUTION, {}) for name in (defended, plain)]
        a, b = ([Interval.from_row(q50) for q50 in networks.values()] for networks in told)
        what = f"Q50 of {defended} networks is at least {HARDER:g} times that of {plain} ones ({_EVOLUTION})"
        if not a or not b:
            out.append(_said(what, None, "there are no valid networks of both"))
            continue
        ratio = statistics.welch_ratio(a, b, recipe.budget)
        text, limits = ratio.text(format_ratio)
        held = ratio.at_least(HARDER)
        words = text if ratio.value is None else f"{text} times {limits}".rstrip()
        words += f" ({len(a)} and {len(b)} independently trained networks)"
        if held is None:
            words += "; half of the classes of some are not accepted within the budget, and a larger one would tell"
        if ratio.number < statistics.NETWORKS_FOR_A_CLAIM:
            held = None
            words += f"; a claim about a defence needs {statistics.NETWORKS_FOR_A_CLAIM} of each"
        out.append(_said(what, held, words))
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
                f"on {len(lower)} of {counted(len(rows), 'target')}; mean {still:.3f} static, {moved:.3f} adaptive",
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
        networks: dict[str, dict[str, Any]] = {}
        for arm in recipe.arms:
            told = {n: Interval.from_row(_scored(valid[n])[arm]["q50"]) for n in names if arm in _scored(valid[n])}
            if not told:
                continue
            networks[arm] = {n: {"value": q50.value, "bound": q50.bound} for n, q50 in told.items()}
            of_all = statistics.networks_interval(list(told.values()), recipe.budget)
            arms[arm] = {"q50": of_all.to_dict() | {"networks": of_all.number, "censored": of_all.censored}}
        groups[group] = {"targets": names, "arms": arms, "networks": networks}
    return groups


def _scored(one: Mapping[str, Any]) -> dict[str, Any]:
    """The arms with a valid cell."""
    return {arm: told for arm, told in one["scores"]["arms"].items() if told["seeds"]}
