"""A benchmark's report: one HTML page that says what came out, for people, of the JSON of its targets."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.report.formatting import format_duration, format_share, join_words, queries_cell, share_cell
from evofool.bench.report.overview import budget_of, invalid_reason, sharing, strongest, valid_arms, verdict, what_fools
from evofool.bench.report.target_section import target_section
from evofool.bench.statistics import NETWORKS_FOR_A_CLAIM
from evofool.pages.bench_plots import q50_dots, transfer_heat
from evofool.pages.html_page import NOTHING, Folded, Plot, RowGroup, Section, Table, TableCell, TableRow, html_page

_ROOM = 3_600_000  # bytes of contact sheets in a page, before they are written as text by a third longer
_MARKS = {True: "held", False: "missed", None: "open"}


def bench_report(
    results: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    sheets: Mapping[str, Mapping[str, bytes]],
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML text. results: a JSON a target, in the order of the page; summary: the benchmark's.

    sheets: PNGs by target and arm, of which the page has as many as there is room for: of each target the strongest arm's,
    then the first. notes stand at the page's end. What is invalid is marked so, with its reason, and enters no average.
    """
    shown = {(name := one["target"]["name"]): _fitting(one, sheets.get(name, {}), len(results)) for one in results}
    sections = [
        verdict(results),
        what_fools(results, shown),
        _q50(results),
        sharing(results),
        _statements(summary),
        _controls(results),
        *(target_section(one, shown[one["target"]["name"]], _missing(one, sheets, shown)) for one in results),
        _groups(summary, results),
        _transfer(summary),
        _images(results),
        _timings(results),
        _protocol(results),
        _reading(results),
    ]
    names = [one["target"]["name"] for one in results]
    title = f"How easily {names[0]} is fooled" if len(names) == 1 else f"How easily {len(names)} classifiers are fooled"
    return html_page(title, [one for one in sections if one is not None], notes, contents=True)


def _fitting(one: Mapping[str, Any], sheets: Mapping[str, bytes], targets: int) -> dict[str, bytes]:
    """The sheets that fit into a target's part of the page: the strongest black-box arm's, and then the first."""
    room, best = _ROOM / targets, strongest(one, black_box=True)
    kept = set()
    for arm in sorted(sheets, key=lambda arm: arm != best):
        if len(sheets[arm]) <= room:
            room -= len(sheets[arm])
            kept.add(arm)
    return {arm: png for arm, png in sheets.items() if arm in kept}


def _missing(
    one: Mapping[str, Any], sheets: Mapping[str, Mapping[str, bytes]], shown: Mapping[str, Mapping[str, bytes]]
) -> list[str]:
    name = one["target"]["name"]
    return [arm for arm in sheets.get(name, {}) if arm not in shown[name]]


def _q50(results: Sequence[Mapping[str, Any]]) -> Section | None:
    shown = {
        one["target"]["name"]: {name: arm["q50"] for name, arm in valid_arms(one).items() if arm["kind"] != "floor"}
        for one in results
    }
    shown = {name: own for name, own in shown.items() if own}
    if not shown:
        return None
    budgets = {one["target"]["name"]: budget_of(one) for one in results}
    text = [
        "Further to the left is easier to fool. Arms that see gradients are compared with those that ask only by queries "
        "alone."
    ]
    drawn = Plot("Q50 by target and arm", q50_dots(shown, budgets), "Lines: intervals over seeds; an arrow: a bound.")
    return Section("Queries until half of the classes are accepted", text, plots=[drawn])


def _statements(summary: Mapping[str, Any]) -> Section | None:
    rows: list[TableRow] = [
        [TableCell(mark=_MARKS[one["held"]]), one["statement"], one.get("figures") or ""]
        for one in summary.get("statements") or ()
    ]
    if not rows:
        return None
    text = ["These were written down before anything was measured. Open: it could not be decided, for the reason named."]
    return Section("Stated beforehand", text, tables=[Table(["", "statement", "figures"], rows)])


def _controls(results: Sequence[Mapping[str, Any]]) -> Section:
    text = [
        "Real images that were not used to set the thresholds have to be accepted at 0.95, within three standard errors; "
        "noise, of which nothing is selected, is the floor that every arm has to rise above."
    ]
    rows: list[TableRow] = []
    for one in results:
        real = (one["scores"].get("controls") or {}).get("real") or {}
        if not one["valid"] or real.get("accepted") is None:
            mark, why = ("open", "no real image was left for it") if one["valid"] else ("invalid", invalid_reason(one))
            rows.append([one["target"]["name"], TableCell(why, mark=mark)])
            continue
        mark = _MARKS[real.get("holds")]
        floor = [arm["r95"] for arm in valid_arms(one).values() if arm["kind"] == "floor"]
        last = max(floor[0], key=lambda row: row["queries"]) if floor and floor[0] else None
        spread = f"± {real['standard_error']:.3f}" if real.get("standard_error") is not None else ""
        accepted = TableCell(f"{real['accepted']:.3f}", spread)
        rows.append([one["target"]["name"], TableCell(mark=mark), accepted, f"{real['images']:,}", share_cell(last)])
    heads = ["target", "control", "real images accepted", "of", "noise accepted, largest budget"]
    return Section("Controls", text, tables=[Table(heads, rows, under="±: a standard error.")])


def _groups(summary: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Section | None:
    groups = summary.get("groups") or {}
    if not groups:
        return None
    budget = max(budget_of(one) for one in results)  # of one benchmark, so the same of all
    shown, few = [], []
    for name, group in groups.items():
        networks = len(group["targets"])
        if networks < NETWORKS_FOR_A_CLAIM:
            few.append(f"{name} ({networks})")
        rows: list[TableRow] = []
        for arm, own in group["arms"].items():
            q50 = own["q50"]
            rows.append([arm, queries_cell(q50, budget), str(q50["networks"]), str(q50["censored"])])
        shown.append(RowGroup(f"{name}: {join_words(list(group['targets']))}", rows))
    text = [
        "Independently trained networks of one kind, as a sample: the interval is over networks, each with all of its "
        "seeds. A network of which a seed is censored gives a bound, and counts as censored."
    ]
    cautions = [
        f"Fewer than {NETWORKS_FOR_A_CLAIM} independently trained networks: {join_words(few)}. No claim about a "
        "defence may be made of these."
    ]
    table = Table(["arm", "Q50", "networks", "censored"], groups=shown)
    return Section("Groups of networks", text, tables=[table], cautions=cautions if few else [])


def _transfer(summary: Mapping[str, Any]) -> Section | None:
    found = summary.get("transfer")
    if not found:
        return None
    names, n = found["targets"], len(found["targets"])
    middle = found.get("off_diagonal_median")
    said = "" if middle is None else f" The median over pairs of different targets is {format_share(middle)}."
    text = [
        "The share of a row's elites, of those that the row's target accepts itself, that the column's target accepts "
        f"too, at its own threshold and as the same class.{said}"
    ]
    drawn = Plot("Transfer between targets", transfer_heat(names, found["share"], found["low"], found["high"]))
    rows: list[TableRow] = [
        [
            names[i],
            names[j],
            share_cell({"value": found["share"][i][j], "low": found["low"][i][j], "high": found["high"][i][j]}),
            NOTHING if found["of"][i][j] is None else f"{found['of'][i][j]:,}",
        ]
        for i in range(n)
        for j in range(n)
        if i != j
    ]
    table = Table(["elites of", "accepted by", "share", "of elites"], rows)
    return Section("Transfer", text, plots=[drawn], folded=[Folded(f"All {len(rows)} pairs", tables=[table])])


def _images(results: Sequence[Mapping[str, Any]]) -> Section:
    rows: list[TableRow] = []
    for one in results:
        if not (images := one.get("images")):
            rows.append([one["target"]["name"], TableCell(invalid_reason(one), mark="invalid")])
            continue
        declared = format_share(images["declared_top1"]) if images.get("declared_top1") is not None else NOTHING
        suspected = "suspected" if images.get("suspected_training") else "no"
        counts = [f"{images[key]:,}" for key in ("number", "calibration", "control", "correct")]
        top1 = f"{images['top1']:.3f}" if images.get("top1") is not None else NOTHING
        own = f"{images.get('classes_with_own_threshold', 0):,} of {one['target']['scored_classes']:,}"
        rows.append(
            [one["target"]["name"], images["source"], images["sha256"][:12], *counts, top1, declared, suspected, own]
        )
    heads = [
        "target", "source", "sha256", "images", "to calibrate", "for control", "correct", "top-1", "declared", "trained on",
        "own threshold",
    ]  # fmt: skip
    under = "Own threshold: classes with at least 100 correctly classified images have their own, the others share one."
    suspect = [one for one in results if (one.get("images") or {}).get("suspected_training")]
    cautions = [
        f"Suspected training images: {join_words(names)}. {why}, so thresholds may be too high, and the scores too low."
        for why, declared in (
            ("More than 5 points more of them are classified correctly than was declared", True),
            ("What is known of the weights says that they were trained on such images", False),
        )
        if (names := [o["target"]["name"] for o in suspect if (o["images"].get("declared_top1") is not None) == declared])
    ]
    return Section("Real images", tables=[Table(heads, rows, under=under)], cautions=cautions)


def _timings(results: Sequence[Mapping[str, Any]]) -> Section:
    rows: list[TableRow] = []
    for one in results:
        own = one.get("timings") or {}
        machines = join_words(list(own["machines"])) if own.get("machines") else NOTHING
        memory = f"{own['peak_memory_mb']:,.0f} MB" if own.get("peak_memory_mb") is not None else NOTHING
        rows.append(
            [one["target"]["name"], format_duration(own.get("wall_seconds")), own.get("device") or NOTHING, machines, memory]
        )
    return Section(
        "Time and memory", tables=[Table(["target", "time of all cells", "device", "machine", "peak memory"], rows)]
    )


def _protocol(results: Sequence[Mapping[str, Any]]) -> Section:
    asked = [one["protocol"] for one in results]
    arms = list(dict.fromkeys(arm for one in asked for arm in one["arms"]))
    budgets = [f"{b:,}" for b in sorted({b for one in asked for b in one["budgets"]})]
    seeds = sorted({len(one["seeds"]) for one in asked})
    versions = sorted({one["evofool"] for one in asked})
    ranks = sorted({one["rank"] for one in asked})
    text = [
        f"Arms: {join_words(arms)}. Budgets, in queries over all classes: {join_words(budgets)}. Seeds: "
        f"{join_words([str(s) for s in seeds])}. Ranked by {join_words(ranks)}.",
        "Images are 8-bit before every query. A class counts as fooled at tau_5 when the target calls an image that "
        "class, with a margin no smaller than that of the 5% least sure among correctly classified real images. Every "
        "method has the same budget of queries; forward and backward passes are counted apart. Dividing a target's logits "
        "by a temperature changes no score.",
        "Classes are fixed and seeds are the sample. Intervals of queries are Student's, on their logarithms; those of "
        "shares are Wilson's, with the number of outcomes that the seeds' spread amounts to. Both have the variance added "
        "that the finite set of real images gives the thresholds.",
        "In full, with its limits and its relatives: docs/protocol.md of evofool.",
    ]
    return Section("Protocol", text, f"evofool {join_words(versions)}, protocol version {_versions(results)}")


def _versions(results: Sequence[Mapping[str, Any]]) -> str:
    return join_words(sorted({str(one["version"]) for one in results}))


def _reading(results: Sequence[Mapping[str, Any]]) -> Section:
    top = f"{max((budget_of(one) for one in results), default=10_000):,}"
    said = {
        "Margin": "how far the class's logit is above the next one's: the log of how many times more likely the target "
        "takes it to be. It is given in medians of real images, so 1 is as sure as of a usual real image.",
        "tau_5 and tau_50": "thresholds on the margin: 5% (half) of the correctly classified real images are below. A "
        "rejector at tau_5 would keep 95% of the real images it should keep.",
        "R95, R50": "the share of classes for which an image was found that the target accepts at tau_5 (tau_50). 0 is a "
        "target that was not fooled, 1 one that was in every class.",
        "Q50": "queries, over all classes, until half of the classes are accepted. More is better for the target. Per "
        "class: divided by the number of scored classes.",
        f"> {top}": "censored: half of the classes were not accepted within the budget, so the true number is larger. It "
        "is never put in as if it were the budget.",
        ">= or <=": "a bound, where some seeds are censored: the true figure is the value or more (or less). Limits that "
        "censoring leaves open are told as [low and more] or [at most high].",
        "Intervals": "[low, high]: limits of the mean over all seeds that there could be. Of 100 intervals that are made in "
        "this way about 95 hold it; a single seed may well lie outside. Where two overlap, no difference is claimed; paired "
        "ratios are sharper, as luck that both had cancels.",
        "Few seeds": "two or three tell little of how far seeds spread, so an interval of theirs may reach far beyond the "
        "budget. It says that more seeds are needed, not that so many queries were seen.",
        "Invalid": "the evaluation itself went wrong, for the reason named. It says nothing of the target and enters no "
        "average.",
    }
    return Section("How to read this page", [f"{word}: {meaning}" for word, meaning in said.items()])
