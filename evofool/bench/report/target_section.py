"""A target's section of the report: flags, scores of its arms, their images, detectors, and image metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.report.formatting import (
    KINDS,
    confidences_cell,
    format_share,
    join_names,
    quantiles_cell,
    queries_cell,
    selection_note,
    share_cell,
)
from evofool.bench.report.overview import budget_of, strongest, valid_arms
from evofool.bench.report.through_table import through_table
from evofool.pages.bench_plots import detector_curves, margin_quantiles, share_curves
from evofool.pages.html_page import NOTHING, Folded, Picture, Plot, RowGroup, Section, Table, TableCell, TableRow

_CONTROLS = {
    "uniform-noise": "uniform noise (control)",
    "smooth-noise": "smooth noise (control)",
    "real": "real images (control)",
}
_METRICS = {
    "nearest_real_pixels_percentile": "nearest real image by pixels, percentile",
    "nearest_real_hog_percentile": "nearest real image by HOG, percentile",
    "nearest_real_features_percentile": "nearest real image by another network's features, percentile",
    "bytes_per_pixel": "bytes per pixel of the PNG",
    "total_variation": "total variation",
}


def target_section(result: Mapping[str, Any], sheets: Mapping[str, bytes], left_out: Sequence[str] = ()) -> Section:
    """The section of one target. sheets: PNGs by arm; left_out: arms whose sheet does not fit on the page."""
    target, arms = result["target"], valid_arms(result)
    flags = {
        level: [flag["message"] for flag in result["flags"] if flag["level"] == level] for level in ("invalid", "warning")
    }
    before = [] if result["valid"] else ["Invalid: no figure of this report includes this target."]
    fault = "\n".join([*before, *(f"Invalid: {message.rstrip('.')}." for message in flags["invalid"])])
    cautions = [f"Warning: {message.rstrip('.')}." for message in flags["warning"]]
    text = f"Target: {target['spec']}."
    if target.get("shape"):
        classes = f"{target['classes']:,} classes, {target['scored_classes']:,} of them scored"
        text = f"{text} {classes}; images of {_shape(target['shape'])}. Fingerprint {target['fingerprint'][:16]}."
    parts, plots, tables = [], [], []
    if arms:
        curves = share_curves(
            {arm_title(name, arm): _curve(arm) for name, arm in arms.items()}, result["protocol"]["budgets"]
        )
        plots.append(
            Plot(
                "Share of classes fooled at 95% acceptance, against queries",
                curves,
                f"Bands: intervals, for arms with {_BAND} seeds or more.",
            )
        )
    if arms or result["valid"]:
        tables.append(_accepted(result))
        margins = {arm_title(name, arm): arm["scaled_margins"] for name, arm in arms.items() if arm.get("scaled_margins")}
        real = (result["scores"]["controls"].get("real") or {}).get("scaled_margins")
        drawn = (
            [Plot("Margins of the elites at the largest budget", margin_quantiles(margins, real=real), _MARGINS)]
            if margins
            else []
        )
        parts.append(Section("Margins, confidences and cost", plots=drawn, tables=[_cost(result)]))
    if result.get("surrogates"):
        parts.append(_surrogates(result))
    if sheets or left_out:
        parts.append(_images(result, sheets, left_out))
    if result["valid"] and result["scores"].get("detectors"):
        parts.append(_detectors(result))
    if result["valid"] and result["scores"].get("image_metrics"):
        parts.append(_image_metrics(result))
    return Section(target["name"], [text], plots=plots, tables=tables, parts=parts, fault=fault, cautions=cautions)


_BAND = 3  # seeds; with fewer the band of an interval would fill the plot


def _curve(arm: Mapping[str, Any]) -> dict[str, Any]:
    curve = arm["curve"]
    return {key: curve[key] for key in ("queries", "value", *(("low", "high") if len(arm["seeds"]) >= _BAND else ()))}


_MARGINS = "Thin line: 5% to 95% of the elites; thick line: 25% to 75%; marker: the median."


def _images(result: Mapping[str, Any], sheets: Mapping[str, bytes], left_out: Sequence[str]) -> Section:
    """The strongest arm without gradients is shown, if it has a sheet; the others are folded."""
    best = strongest(result, black_box=True)
    which = selection_note(result)
    title = f"{best}, the strongest arm that needs no gradients"
    first = [Picture(title, sheets[best], which)] if best and best in sheets else []
    others = [Picture(arm, png, which) for arm, png in sheets.items() if not first or arm != best]
    more = (
        f"Not shown, because the page would be too large: {join_names(left_out)}. Their images are in the runs of the cells."
    )
    folded = [Folded(f"Images of {join_names([picture.title for picture in others])}", others)] if others else []
    return Section("Images", [more] if left_out else [], pictures=first, folded=folded)


def _accepted(result: Mapping[str, Any]) -> Table:
    budget, scored = budget_of(result), result["target"]["scored_classes"]
    budgets = sorted(result["protocol"]["budgets"])

    def row(name: str, arm: Mapping[str, Any]) -> TableRow:
        if not arm["seeds"]:
            return [name, TableCell("; ".join(dict.fromkeys(arm["invalid"].values())), mark="invalid")]
        at = [{entry["queries"]: entry for entry in arm[level]} for level in ("r95", "r50")]
        shares = [share_cell(by.get(b)) for by in at for b in budgets]
        n, gone = len(arm["seeds"]), arm.get("invalid") or {}
        seeds = TableCell(f"{n} of {n + len(gone)}", f"without {', '.join(gone)}") if gone else str(n)
        return [name, seeds, queries_cell(arm["q50"], budget), queries_cell(arm["q50"], budget, scored), *shares]

    levels = ("95%", "50%")
    heads = ["arm", "seeds", "Q50", "Q50 per class"]
    heads += [f"fooled at {level} acceptance, {b:,} queries" for level in levels for b in budgets]
    return Table(heads, groups=_by_kind(result, row))


def _surrogates(result: Mapping[str, Any]) -> Section:
    """The threat model of the arm surrogate, and how often each surrogate agrees with the target."""
    name = result["target"]["name"]
    text = [
        f"Threat model of the arm surrogate: transfer. The attacker has the weights of the networks below and climbs their "
        f"gradients; {name} itself is asked for outputs only, and each image that it classifies is a query. The surrogates' "
        "passes are no queries and are counted apart. It is no black-box arm, which has no other network."
    ]
    rows: list[TableRow] = [
        [row["name"], share_cell(row | {"value": row["agreement"]}), format_share(row["by_chance"]), f"{row['images']:,}"]
        for row in result["surrogates"]
    ]
    under = (
        f"Agrees: the share of real images that the surrogate and {name} assign to the same class. By chance: the share if "
        "both named classes as often as they do, but independently. A surrogate that seldom agrees gives little or nothing."
    )
    return Section(
        "Surrogates", text, tables=[Table(["surrogate", f"agrees with {name}", "by chance", "of"], rows, under=under)]
    )


def _cost(result: Mapping[str, Any]) -> Table:
    costs = (*_COSTS, *(_CLIMBS if result.get("surrogates") else ()))

    def row(name: str, arm: Mapping[str, Any]) -> TableRow:
        if not arm["seeds"]:
            return [name, TableCell("no seed is valid", mark="invalid")]
        cost = arm["cost"]
        spent = [f"{cost[key]:,.0f}" if cost.get(key) is not None else NOTHING for key in costs]
        margins = quantiles_cell(arm.get("scaled_margins")), quantiles_cell(arm.get("margin_percentiles"), 1)
        return [name, *margins, confidences_cell(arm.get("calibrated_confidence")), *spent]

    heads = [
        "arm", "margin, in medians of real images", "its percentile among real images", "confidence at fitted temperature",
        *(key.replace("_", "s' ") for key in costs),
    ]  # fmt: skip
    under = "Medians over the elites, and [5%, 95%]. Cost: mean over seeds; answers include repeats and verification."
    return Table(heads, groups=_by_kind(result, row), under=under)


_COSTS = ("queries", "forwards", "backwards", "answers")
_CLIMBS = ("surrogate_forwards", "surrogate_backwards")


def _detectors(result: Mapping[str, Any]) -> Section:
    found = [entry for entry in result["scores"]["detectors"] if entry.get("auroc") is not None]
    rows: list[TableRow] = [
        [
            entry["arm"],
            entry["detector"],
            entry["kind"],
            _number_of(entry),
            share_cell(entry | {"value": entry["auroc"]}),
            _alarms(entry),
        ]
        for entry in sorted(found, key=lambda entry: (entry["arm"], entry["detector"], entry["kind"] == "adaptive"))
    ]
    text = [
        "How well detectors separate the elites from real images. Fooling images are the positives: an AUROC of 1 ranks all "
        "of them above every real image, 0.5 is chance. FPR95: the share of real images that are flagged at the threshold "
        "that flags 95% of the fooling images. Static: evolved against the classifier alone. Adaptive: evolved "
        "against classifier and detector together. Only images that the classifier classifies as intended count, each once.",
    ]
    under = "AUROC below 0.5: the detector scores fooling images as more typical than real ones."
    table = Table(["arm", "detector", "elites", "images per seed", "AUROC", "FPR95"], rows, under=under)
    drawn = [entry for entry in found if entry.get("curve")]
    plots = [Plot("ROC curves of the detectors", detector_curves(drawn))] if drawn else []
    through = through_table(result["scores"]["detectors"])
    return Section(
        "Detectors",
        text,
        plots=plots,
        tables=[through] if through else [],
        folded=[Folded(f"All {len(rows)} figures", tables=[table])],
    )


def _number_of(entry: Mapping[str, Any]) -> str:
    """The number of fooling images of each seed."""
    least, most = min(entry["images"]), max(entry["images"])
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _alarms(entry: Mapping[str, Any]) -> TableCell:
    return share_cell({"value": entry["fpr95"], "low": entry.get("fpr95_low"), "high": entry.get("fpr95_high")})


def _image_metrics(result: Mapping[str, Any]) -> Section:
    metrics = {name: entry for name, entry in result["scores"]["image_metrics"].items() if entry}
    keys = list(dict.fromkeys(key for entry in metrics.values() for key in entry))
    rows: list[list[TableRow]] = [[], []]
    for name, entry in metrics.items():
        row = [_CONTROLS.get(name, name), *(quantiles_cell(entry.get(key), 1 if "nearest" in key else 2) for key in keys)]
        rows[name in _CONTROLS].append(row)
    text = (
        "Distances from the elites to real images, and measures of their detail. These figures do not say whether people "
        "recognise anything in them. At a percentile of 100 an image is at least as far from its nearest real image as "
        "every held-out real image is from its own. Noise is listed for comparison."
    )
    groups = [
        RowGroup(title, members) for title, members in zip(("Elites of", "For comparison"), rows, strict=True) if members
    ]
    heads = ["", *(_METRICS.get(key, key.replace("_", " ")) for key in keys)]
    return Section("Image metrics", [text], tables=[Table(heads, groups=groups, under="Medians and [5%, 95%].")])


def _by_kind(result: Mapping[str, Any], row: Any) -> list[RowGroup]:
    arms = result["scores"]["arms"]
    kinds = dict.fromkeys([*KINDS, *(arm["kind"] for arm in arms.values())])
    groups = [
        (kind, [row(arm_title(name, arm), arm) for name, arm in arms.items() if arm["kind"] == kind]) for kind in kinds
    ]
    return [RowGroup(KINDS.get(kind, kind), rows) for kind, rows in groups if rows]


def _shape(shape: list[int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels{', grey' if channels == 1 else f' of {channels} channels'}"
