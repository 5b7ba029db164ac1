"""A target's section of the report: its flags, its arms, their images, what detectors see, how the images compare."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.report.formatting import (
    KINDS,
    confidences_cell,
    join_words,
    quantiles_cell,
    queries_cell,
    selection_note,
    share_cell,
)
from evofool.bench.report.overview import budget_of, strongest, valid_arms
from evofool.pages.bench_plots import detector_curves, margin_quantiles, share_curves
from evofool.pages.html_page import NOTHING, Folded, Picture, Plot, RowGroup, Section, Table, TableCell, TableRow

_NAMES = {
    "uniform-noise": "uniform noise (control)",
    "smooth-noise": "smooth noise (control)",
    "real": "real images (control)",
}
_LOOKS = {
    "nearest_real_pixels_percentile": "nearest real image by pixels, percentile",
    "nearest_real_hog_percentile": "nearest real image by HOG, percentile",
    "nearest_real_features_percentile": "nearest real image by another network's features, percentile",
    "bytes_per_pixel": "bytes per pixel of the PNG",
    "total_variation": "total variation",
}


def target_section(result: Mapping[str, Any], sheets: Mapping[str, bytes], left_out: Sequence[str] = ()) -> Section:
    """All of a target. sheets: PNGs by arm; left_out: arms that have one too, for which the page has no room."""
    target, arms = result["target"], valid_arms(result)
    flags = {
        level: [flag["message"] for flag in result["flags"] if flag["level"] == level] for level in ("invalid", "warning")
    }
    before = [] if result["valid"] else ["Invalid: nothing of this target enters any figure."]
    fault = "\n".join([*before, *(f"Invalid: {what.rstrip('.')}." for what in flags["invalid"])])
    cautions = [f"Warning: {what.rstrip('.')}." for what in flags["warning"]]
    said = f"Loaded by {target['spec']}."
    if target.get("shape"):
        classes = f"{target['classes']:,} classes, {target['scored_classes']:,} of them scored"
        said = f"{classes}; images of {_shape(target['shape'])}. {said} Fingerprint {target['fingerprint'][:16]}."
    parts, plots, tables = [], [], []
    if arms:
        curves = share_curves({name: _curve(arm) for name, arm in arms.items()}, result["protocol"]["budgets"])
        plots.append(
            Plot("Share of classes accepted against queries", curves, f"Bands: intervals over {_BAND} seeds or more.")
        )
    if arms or result["valid"]:
        tables.append(_accepted(result))
        margins = {name: arm["scaled_margins"] for name, arm in arms.items() if arm.get("scaled_margins")}
        real = (result["scores"]["controls"].get("real") or {}).get("scaled_margins")
        drawn = (
            [Plot("Margins of the elites at the largest budget", margin_quantiles(margins, real=real), _MARGINS)]
            if margins
            else []
        )
        parts.append(Section("Margins, confidences and cost", plots=drawn, tables=[_cost(result)]))
    if sheets or left_out:
        parts.append(_images(result, sheets, left_out))
    if result["valid"] and result["scores"].get("detectors"):
        parts.append(_detectors(result))
    if result["valid"] and result["scores"].get("image_metrics"):
        parts.append(_image_metrics(result))
    return Section(target["name"], [said], plots=plots, tables=tables, parts=parts, fault=fault, cautions=cautions)


_BAND = 3  # seeds; of fewer an interval is all of the plot


def _curve(arm: Mapping[str, Any]) -> dict[str, Any]:
    told = arm["curve"]
    return {key: told[key] for key in ("queries", "value", *(("low", "high") if len(arm["seeds"]) >= _BAND else ()))}


_MARGINS = "Thin: 5% to 95% of the elites, thick: 25% to 75%, the mark: the median."


def _images(result: Mapping[str, Any], sheets: Mapping[str, bytes], left_out: Sequence[str]) -> Section:
    """The strongest arm's that asks only are seen at once, where there is a sheet of it."""
    best = strongest(result, black_box=True)
    which = selection_note(result)
    title = f"{best}, the strongest arm that needs no gradients"
    first = [Picture(title, sheets[best], which)] if best and best in sheets else []
    others = [Picture(arm, png, which) for arm, png in sheets.items() if not first or arm != best]
    more = f"Left out, for which the page has no room: {join_words(list(left_out))}. Every cell is a run that can be opened."
    folded = [Folded(f"Images of {join_words([one.title for one in others])}", others)] if others else []
    return Section("Images", [more] if left_out else [], pictures=first, folded=folded)


def _accepted(result: Mapping[str, Any]) -> Table:
    budget, scored = budget_of(result), result["target"]["scored_classes"]
    budgets = sorted(result["protocol"]["budgets"])

    def row(name: str, arm: Mapping[str, Any]) -> TableRow:
        if not arm["seeds"]:
            return [name, TableCell("; ".join(dict.fromkeys(arm["invalid"].values())), mark="invalid")]
        at = [{one["queries"]: one for one in arm[level]} for level in ("r95", "r50")]
        shares = [share_cell(by.get(b)) for by in at for b in budgets]
        n, gone = len(arm["seeds"]), arm.get("invalid") or {}
        seeds = TableCell(f"{n} of {n + len(gone)}", f"without {', '.join(gone)}") if gone else str(n)
        return [name, seeds, queries_cell(arm["q50"], budget), queries_cell(arm["q50"], budget, scored), *shares]

    heads = ["arm", "seeds", "Q50", "Q50 per class", *(f"{r} at {b:,}" for r in ("R95", "R50") for b in budgets)]
    return Table(heads, groups=_by_kind(result, row))


def _cost(result: Mapping[str, Any]) -> Table:
    def row(name: str, arm: Mapping[str, Any]) -> TableRow:
        if not arm["seeds"]:
            return [name, TableCell("no seed is valid", mark="invalid")]
        cost = arm["cost"]
        spent = [f"{cost[key]:,.0f}" if cost.get(key) is not None else NOTHING for key in _COSTS]
        margins = quantiles_cell(arm.get("scaled_margins")), quantiles_cell(arm.get("margin_percentiles"), 1)
        return [name, *margins, confidences_cell(arm.get("calibrated_confidence")), *spent]

    heads = ["arm", "margin, in real medians", "its percentile among real", "p, temperature fitted", *_COSTS]
    under = "Medians over the elites, and [5%, 95%]. Cost is of a seed; answers include repeats and verification."
    return Table(heads, groups=_by_kind(result, row), under=under)


_COSTS = ("queries", "forwards", "backwards", "answers")


def _detectors(result: Mapping[str, Any]) -> Section:
    found = [one for one in result["scores"]["detectors"] if one.get("auroc") is not None]
    rows: list[TableRow] = [
        [one["arm"], one["detector"], one["kind"], _number_of(one), share_cell(one | {"value": one["auroc"]}), _alarms(one)]
        for one in sorted(found, key=lambda one: (one["arm"], one["detector"], one["kind"] == "adaptive"))
    ]
    text = [
        "Can a detector tell the elites from real images? Fooling images are the positives: AUROC 1 is a detector that "
        "flags them all before any real image, 0.5 one that guesses. FPR95: the share of real images flagged where 95% "
        "of the fooling images are. Static: elites evolved against the classifier alone; adaptive: against the detector "
        "too, which is the honest test. Judged are the images that the classifier calls what they were made for, each once."
    ]
    under = "An AUROC below 0.5 means that the detector finds fooling images more usual than real ones."
    table = Table(["arm", "detector", "elites", "images a seed", "AUROC", "FPR95"], rows, under=under)
    drawn = [one for one in found if one.get("curve")]
    plots = [Plot("ROC curves of the detectors", detector_curves(drawn))] if drawn else []
    return Section("Detectors", text, plots=plots, folded=[Folded(f"All {len(rows)} figures", tables=[table])])


def _number_of(one: Mapping[str, Any]) -> str:
    """How many fooling images were judged, of each seed."""
    least, most = min(one["images"]), max(one["images"])
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _alarms(one: Mapping[str, Any]) -> TableCell:
    return share_cell({"value": one["fpr95"], "low": one.get("fpr95_low"), "high": one.get("fpr95_high")})


def _image_metrics(result: Mapping[str, Any]) -> Section:
    metrics = {name: one for name, one in result["scores"]["image_metrics"].items() if one}
    keys = list(dict.fromkeys(key for one in metrics.values() for key in one))
    rows: list[list[TableRow]] = [[], []]
    for name, one in metrics.items():
        row = [_NAMES.get(name, name), *(quantiles_cell(one.get(key), 1 if "nearest" in key else 2) for key in keys)]
        rows[name in _NAMES].append(row)
    text = (
        "Whether people recognise something is for people to say. These figures say how far the elites are from real "
        "images, and how busy they are: at a percentile of 100 an image is at least as far from its nearest real one as "
        "every held-out real image is from its own. Read them beside the noise."
    )
    groups = [RowGroup(title, own) for title, own in zip(("Elites of", "For comparison"), rows, strict=True) if own]
    heads = ["", *(_LOOKS.get(key, key.replace("_", " ")) for key in keys)]
    return Section("What the images are like", [text], tables=[Table(heads, groups=groups, under="Medians and [5%, 95%].")])


def _by_kind(result: Mapping[str, Any], row: Any) -> list[RowGroup]:
    arms = result["scores"]["arms"]
    kinds = dict.fromkeys([*KINDS, *(arm["kind"] for arm in arms.values())])
    groups = [(kind, [row(name, arm) for name, arm in arms.items() if arm["kind"] == kind]) for kind in kinds]
    return [RowGroup(KINDS.get(kind, kind), rows) for kind, rows in groups if rows]


def _shape(shape: list[int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels{', grey' if channels == 1 else f' of {channels} channels'}"
