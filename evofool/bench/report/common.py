"""Sections about all targets of a page: statements, groups, transfer, controls, real images, protocol, how to read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.report.formatting import MET, format_duration, format_share, join_names, queries_cell, share_cell
from evofool.bench.report.overview import budget_of, invalid_reason, valid_arms
from evofool.bench.statistics import NETWORKS_FOR_A_CLAIM
from evofool.pages.bench_plots import transfer_heat
from evofool.pages.html_page import NOTHING, Folded, Plot, RowGroup, Section, Table, TableCell, TableRow


def statements_section(summary: Mapping[str, Any]) -> Section | None:
    rows: list[TableRow] = [
        [TableCell(mark=MET[result["met"]]), result["statement"], result.get("figures") or ""]
        for result in summary.get("statements") or ()
    ]
    if not rows:
        return None
    text = ["These statements were fixed before anything was measured. Undecided: for the reason given."]
    return Section("Statements made beforehand", text, tables=[Table(["outcome", "statement", "figures"], rows)])


def controls_section(results: Sequence[Mapping[str, Any]]) -> Section:
    text = [
        "Real images that were not used to set the thresholds should be accepted at a rate of 0.95, within three standard "
        "errors. Noise images, of which none is selected, give the share of classes that is fooled without any search."
    ]
    rows: list[TableRow] = []
    for result in results:
        real = (result["scores"].get("controls") or {}).get("real") or {}
        if not result["valid"] or real.get("accepted") is None:
            mark, why = (
                ("undecided", "no real image was left to check") if result["valid"] else ("invalid", invalid_reason(result))
            )
            rows.append([result["target"]["name"], TableCell(why, mark=mark)])
            continue
        mark = MET[real.get("met")]
        floor = [arm["r95"] for arm in valid_arms(result).values() if arm["kind"] == "floor"]
        last = max(floor[0], key=lambda row: row["queries"]) if floor and floor[0] else None
        spread = f"± {real['standard_error']:.3f}" if real.get("standard_error") is not None else ""
        accepted = TableCell(f"{real['accepted']:.3f}", spread)
        rows.append([result["target"]["name"], TableCell(mark=mark), accepted, f"{real['images']:,}", share_cell(last)])
    heads = ["target", "control", "real images accepted", "of", "fooled by noise, largest budget"]
    return Section("Controls", text, tables=[Table(heads, rows, under="±: one standard error.")], closed=True)


def groups_section(summary: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Section | None:
    groups = summary.get("groups") or {}
    if not groups:
        return None
    budget = max(budget_of(result) for result in results)  # of one benchmark, so the same of all
    shown, few = [], []
    for name, group in groups.items():
        networks = len(group["targets"])
        if networks < NETWORKS_FOR_A_CLAIM:
            few.append(f"{name} ({networks})")
        rows: list[TableRow] = []
        for arm, by_arm in group["arms"].items():
            q50 = by_arm["q50"]
            rows.append([arm, queries_cell(q50, budget), str(q50["networks"]), str(q50["censored"])])
        shown.append(RowGroup(f"{name}: {join_names(list(group['targets']))}", rows))
    text = [
        "Each group has independently trained networks of one kind, and the interval is over networks, each with all of its "
        "seeds. A network with a censored seed gives a bound and is counted as censored. Queries are over all classes."
    ]
    cautions = [
        f"Fewer than {NETWORKS_FOR_A_CLAIM} independently trained networks: {join_names(few)}. These do not "
        "support a claim about a defence."
    ]
    table = Table(["arm", "queries until half are fooled (Q50)", "networks", "censored"], groups=shown)
    return Section("Groups of networks", text, tables=[table], cautions=cautions if few else [])


def transfer_section(summary: Mapping[str, Any]) -> Section | None:
    found = summary.get("transfer")
    if not found:
        return None
    names, n = found["targets"], len(found["targets"])
    middle = found.get("off_diagonal_median")
    median = "" if middle is None else f" The median over pairs of different targets is {format_share(middle)}."
    text = [
        "Of the elites evolved on the row's target and accepted by it, the share that the column's target accepts as the "
        f"same class, at its own threshold.{median}"
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


def images_section(results: Sequence[Mapping[str, Any]]) -> Section:
    rows: list[TableRow] = []
    for result in results:
        if not (images := result.get("images")):
            rows.append([result["target"]["name"], TableCell(invalid_reason(result), mark="invalid")])
            continue
        declared = format_share(images["declared_top1"]) if images.get("declared_top1") is not None else NOTHING
        suspected = "suspected" if images.get("suspected_training") else "no"
        counts = [f"{images[key]:,}" for key in ("number", "calibration", "control", "correct")]
        top1 = f"{images['top1']:.3f}" if images.get("top1") is not None else NOTHING
        own_thresholds = f"{images.get('classes_with_own_threshold', 0):,} of {result['target']['scored_classes']:,}"
        rows.append(
            [
                result["target"]["name"],
                images["source"],
                images["sha256"][:12],
                *counts,
                top1,
                declared,
                suspected,
                own_thresholds,
            ]
        )
    heads = [
        "target", "source", "sha256", "images", "for thresholds", "for control", "correct", "top-1", "declared",
        "trained on", "own threshold",
    ]  # fmt: skip
    under = (
        "Own threshold: a class with at least 100 correctly classified images has its own threshold; the others share one."
    )
    suspect = [result for result in results if (result.get("images") or {}).get("suspected_training")]
    cautions = [
        f"Suspected training images: {join_names(names)}. {why}, so thresholds may be too high and scores too low."
        for why, known in (
            ("Their accuracy is more than 5 points above the declared one", False),
            ("The weights were trained on some or all of them", True),
        )
        if (names := [o["target"]["name"] for o in suspect if _documented(o["images"]) == known])
    ]
    return Section("Real images", tables=[Table(heads, rows, under=under)], cautions=cautions, closed=True)


def _documented(images: Mapping[str, Any]) -> bool:
    """Whether it is known of some images that the target was trained on them."""
    return bool(images.get("trained_on")) or images.get("declared_top1") is None


def timings_section(results: Sequence[Mapping[str, Any]]) -> Section:
    rows: list[TableRow] = []
    for result in results:
        timings = result.get("timings") or {}
        machines = join_names(list(timings["machines"])) if timings.get("machines") else NOTHING
        memory = f"{timings['peak_memory_mb']:,.0f} MB" if timings.get("peak_memory_mb") is not None else NOTHING
        rows.append(
            [
                result["target"]["name"],
                format_duration(timings.get("wall_seconds")),
                timings.get("device") or NOTHING,
                machines,
                memory,
            ]
        )
    heads = ["target", "time of all cells", "device", "machine", "peak memory"]
    return Section("Time and memory", tables=[Table(heads, rows)], closed=True)


def protocol_section(results: Sequence[Mapping[str, Any]]) -> Section:
    protocols = [result["protocol"] for result in results]
    arms = list(dict.fromkeys(arm for protocol in protocols for arm in protocol["arms"]))
    budgets = [f"{b:,}" for b in sorted({b for protocol in protocols for b in protocol["budgets"]})]
    seeds = sorted({len(protocol["seeds"]) for protocol in protocols})
    versions = sorted({protocol["evofool"] for protocol in protocols})
    ranks = sorted({protocol["rank"] for protocol in protocols})
    text = [
        f"Arms: {join_names(arms)}. Budgets, in queries over all classes: {join_names(budgets)}. Seeds: "
        f"{join_names([str(s) for s in seeds])}. Ranked by {join_names(ranks)}.",
        "Images are 8-bit in every query. A class counts as fooled at 95% acceptance (threshold tau_5) when the target "
        "classifies an image as that class with a margin of at least tau_5, the 5% quantile of the margins of correctly "
        "classified real images. Every method has the same budget of queries; forward and backward passes are counted "
        "separately. Dividing a target's logits by a temperature changes no score.",
        "Classes are fixed and seeds are the sample. Intervals of queries are Student's, on logarithms; those of shares are "
        "Wilson's, with the number of outcomes that has the variance of the seeds. Both include the variance of the "
        "thresholds, which come from a finite set of real images.",
        "The whole protocol, its limits and related work: docs/protocol.md of evofool.",
    ]
    return Section("Protocol", text, f"evofool {join_names(versions)}, protocol version {_versions(results)}", closed=True)


def _versions(results: Sequence[Mapping[str, Any]]) -> str:
    return join_names(sorted({str(result["version"]) for result in results}))


def reading_section(results: Sequence[Mapping[str, Any]]) -> Section:
    top = f"{max((budget_of(result) for result in results), default=10_000):,}"
    meanings = {
        "Margin": "the class's logit minus the highest other logit, divided by the median margin of correctly classified "
        "real images: 1 is the margin of the median real image.",
        "tau_5 and tau_50": "thresholds on the margin; 5% (50%) of the correctly classified real images are below. "
        "Rejecting images below tau_5 keeps 95% of these real images.",
        "Fooled at 95% acceptance (R95), at 50% acceptance (R50)": "the share of classes for which an image was found that "
        "the target accepts at tau_5 (tau_50). 0: no class; 1: every class.",
        "Q50": "queries, over all classes, until half of the classes are fooled at 95% acceptance. A higher number means a "
        "target that is harder to fool. Per class: divided by the number of scored classes.",
        f"> {top}": "censored: fewer than half of the classes are fooled within the budget, so the true number is larger. "
        "The budget is never used in its place.",
        "at least, at most": "a bound in place of an interval, with 95% confidence. Shares near 0 or 1 have one, and "
        "queries where some seeds are censored.",
        "Intervals": "[low, high] for all possible seeds, of the mean of a share and of the median of queries; about 95 of "
        "100 such intervals contain it. One seed may lie outside. Where two intervals overlap, no difference is claimed; "
        "where an interval of queries has no limit, or reaches the budget, the classes fooled within the budget are "
        "compared. Paired ratios have narrower intervals, because both arms of a pair have the same seed.",
        "Few seeds": "the spread of two or three seeds is poorly known, so their interval may reach far beyond the budget. "
        "Such an interval calls for more seeds; it does not mean that so many queries were made.",
        "Invalid": "the evaluation failed, for the reason given. Nothing is concluded about the target, and it enters no "
        "average.",
    }
    return Section("How to read this page", [f"{term}: {meaning}" for term, meaning in meanings.items()], closed=True)
