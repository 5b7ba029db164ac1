"""The JSON of a benchmark over all of its targets: statements made beforehand with their outcomes, and groups."""

from collections.abc import Mapping
from typing import Any

from evofool.bench import statistics
from evofool.bench.comparable import other_answers
from evofool.bench.interval import Interval, format_ratio
from evofool.bench.plan import BenchRecipe
from evofool.bench.report.formatting import counted

SCHEMA, VERSION = "evofool.bench.summary", 2
HARDER = 2.0  # the ratio of Q50 that is stated for a defence
_EVOLUTION = "cppn"
_UNGUIDED = ("random", "noise")  # their queries do not depend on earlier answers

Results = Mapping[str, Mapping[str, Any]]


def summary(recipe: BenchRecipe, results: Results) -> dict[str, Any]:
    """The JSON of a benchmark, made from the JSON of its targets. Invalid targets enter no statement and no group."""
    valid = {name: result for name, result in results.items() if result["valid"]}
    groups = _groups(recipe, valid)
    stated = [_real(results), _noise(valid), _evolution(recipe, valid), *_defences(recipe, valid, groups), *_adaptive(valid)]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "name": recipe.name,
        "targets": list(results),
        "invalid": [name for name in results if name not in valid],
        "statements": [statement for statement in stated if statement],
        "groups": groups,
        "transfer": None,
    }


def _statement(statement: str, met: bool | None, figures: str) -> dict[str, Any]:
    return {"statement": statement, "met": met, "figures": figures}


def _real(results: Results) -> dict[str, Any] | None:
    """The positive control."""
    controls = {name: result["scores"]["controls"].get("real") for name, result in results.items()}
    known = {name: control for name, control in controls.items() if control and control["met"] is not None}
    if not known:
        return None
    shares = [control["accepted"] for control in known.values()]
    least, most = f"{min(shares):.3f}", f"{max(shares):.3f}"
    return _statement(
        "0.95 of the held-out real images are accepted, within 3 standard errors",
        all(control["met"] for control in known.values()),
        f"{least if least == most else f'{least} to {most}'} on {counted(len(known), 'target')}",
    )


def _noise(valid: Results) -> dict[str, Any] | None:
    """The share that is fooled by noise, against the strongest arm that searches: whose queries depend on earlier answers.

    Undecided where both are 0: the target may resist the search as well as noise.
    """
    met, missed, open_, ties = 0, [], [], 0
    for name, result in valid.items():
        arms = _scored(result)
        searching = {name: arm["r95"][-1]["value"] for name, arm in arms.items() if name not in _UNGUIDED}
        if "noise" not in arms or not searching:
            continue
        floor, best = arms["noise"]["r95"][-1]["value"], max(searching, key=lambda arm: searching[arm])
        if floor < searching[best]:
            met += 1
        elif floor == 0:
            open_.append(f"{name} (0.00, no arm finds more)")
        else:
            missed.append(f"{name} ({floor:.2f}, {best} {searching[best]:.2f})")
        ties += "random" in arms and 0 < arms["random"]["r95"][-1]["value"] <= floor
    if not (met or missed or open_):
        return None
    figures = f"on {met} of {counted(met + len(missed) + len(open_), 'target')}"
    figures += f"; not on {', '.join(missed)}" * bool(missed) + f"; undecided on {', '.join(open_)}" * bool(open_)
    if ties:
        figures += f"; random images, each scored in every class, fool no more classes than noise on {ties}"
    return _statement(
        "noise fools fewer classes than the strongest arm that searches, at the largest budget",
        _outcome(bool(met), bool(missed), bool(open_)),
        figures,
    )


def _outcome(met: bool, missed: bool, open_: bool) -> bool | None:
    """Of a statement on several cases: met if it is met in all; not met if it is missed in any; else undecided."""
    return False if missed else True if met and not open_ else None


def _evolution(recipe: BenchRecipe, valid: Results) -> dict[str, Any] | None:
    """Undecided where both fool no class at all."""
    if _EVOLUTION not in recipe.arms or "random" not in recipe.arms:
        return None
    points = {budget: [0, 0] for budget in recipe.budgets}
    exceptions, open_ = [], []
    for name, result in valid.items():
        arms = _scored(result)
        if _EVOLUTION not in arms or "random" not in arms:
            continue
        for ours, theirs in zip(arms[_EVOLUTION]["r95"], arms["random"]["r95"], strict=True):
            better = ours["value"] > theirs["value"]
            points[ours["queries"]][not better] += 1
            if not ours["value"] and not theirs["value"]:
                open_.append(f"{name} at {ours['queries']:,}")
            elif not better:
                exceptions.append(f"{name} at {ours['queries']:,} ({ours['value']:.2f}, {theirs['value']:.2f})")
    met = sum(more for more, _ in points.values())
    if not any(sum(counts) for counts in points.values()):
        return None
    figures = "; ".join(
        f"at {budget:,} on {more} of {counted(more + less, 'target')}" for budget, (more, less) in points.items()
    )
    for text, names in (("not", exceptions), ("undecided, since both fool no class", open_)):
        if names:
            figures += f"; {text}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
    return _statement(
        "evolution (cppn) fools more classes than random search, at every budget",
        _outcome(bool(met), bool(exceptions), bool(open_)),
        figures,
    )


def _defences(recipe: BenchRecipe, valid: Results, groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    out = []
    pairs = dict.fromkeys((part.family, part.defends) for part in recipe.targets if part.defends)
    for defended, undefended in pairs:
        both = [groups.get(name, {}).get("networks", {}).get(_EVOLUTION, {}) for name in (defended, undefended)]
        a, b = ([Interval.from_row(q50) for q50 in networks.values()] for networks in both)
        statement = f"Q50 of {defended} networks is at least {HARDER:g} times that of {undefended} networks ({_EVOLUTION})"
        if not a or not b:
            out.append(_statement(statement, None, "one of the two has no valid network"))
            continue
        if answers := other_answers(valid[name] for networks in both for name in networks):
            out.append(
                _statement(statement, None, f"not compared, because an image takes several queries on some: {answers}")
            )
            continue
        ratio = statistics.welch_ratio(a, b, recipe.budget)
        text, limits = ratio.text(format_ratio)
        met = ratio.at_least(HARDER)
        figures = text if ratio.value is None else f"{text} times {limits}".rstrip()
        figures += f" ({len(a)} and {len(b)} independently trained networks)"
        if ratio.censored:
            their = "its" if ratio.censored == 1 else "their"
            figures += (
                f"; {counted(ratio.censored, 'network')} with fewer than half of the classes fooled within "
                f"{recipe.budget:,} queries in some seed: {their} Q50 counts as a bound, not as a number"
            )
        if met is None:
            figures += "; increase the budget to decide it"
        if ratio.number < statistics.NETWORKS_FOR_A_CLAIM:
            met = None
            figures += f"; a claim about a defence needs {statistics.NETWORKS_FOR_A_CLAIM} networks of each"
        out.append(_statement(statement, met, figures))
    return out


def _adaptive(valid: Results) -> list[dict[str, Any]]:
    """For each detector: whether evolving against it lowers its AUROC."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for name, result in valid.items():
        measured = [row for row in result["scores"]["detectors"] if row["auroc"] is not None]
        by_kind = {(row["detector"], row["kind"]): row["auroc"] for row in measured}
        for detector, kind in by_kind:
            if kind == "adaptive" and (detector, "static") in by_kind:
                found.setdefault(detector, []).append((name, by_kind[detector, "static"], by_kind[detector, "adaptive"]))
    out = []
    for detector, rows in found.items():
        lower = [row for row in rows if row[2] < row[1]]
        static, adaptive = (sum(values) / len(rows) for values in ([row[1] for row in rows], [row[2] for row in rows]))
        out.append(
            _statement(
                f"{detector}: evolving against it lowers its AUROC",
                len(lower) == len(rows),
                f"on {len(lower)} of {counted(len(rows), 'target')}; mean {static:.3f} static, {adaptive:.3f} adaptive",
            )
        )
    return out


def _groups(recipe: BenchRecipe, valid: Results) -> dict[str, Any]:
    """By group: its networks, and by arm the mean of their Q50 with an interval over networks."""
    members: dict[str, list[str]] = {}
    for name, result in valid.items():
        if result["target"]["group"]:
            members.setdefault(result["target"]["group"], []).append(name)
    groups: dict[str, Any] = {}
    for group, names in members.items():
        arms: dict[str, Any] = {}
        networks: dict[str, dict[str, Any]] = {}
        for arm in recipe.arms:
            intervals = {n: Interval.from_row(_scored(valid[n])[arm]["q50"]) for n in names if arm in _scored(valid[n])}
            if not intervals:
                continue
            networks[arm] = {n: {"value": q50.value, "bound": q50.bound} for n, q50 in intervals.items()}
            of_all = statistics.networks_interval(list(intervals.values()), recipe.budget)
            arms[arm] = {"q50": of_all.to_dict() | {"networks": of_all.number, "censored": of_all.censored}}
        groups[group] = {"targets": names, "arms": arms, "networks": networks}
    return groups


def _scored(result: Mapping[str, Any]) -> dict[str, Any]:
    """The arms with a valid cell."""
    return {name: arm for name, arm in result["scores"]["arms"].items() if arm["seeds"]}
