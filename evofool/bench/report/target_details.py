"""The details of a target's page: surrogates, detectors, margins, cost, image metrics."""

from collections.abc import Mapping
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.report.formatting import confidences_cell, format_share, quantiles_cell, share_cell
from evofool.bench.report.overview import by_kind, valid_arms
from evofool.bench.report.scores_table import scores_section
from evofool.bench.report.through_table import through_table
from evofool.pages.bench_plots import detector_curves, margin_quantiles
from evofool.pages.html_page import NOTHING, Folded, Plot, RowGroup, Section, Table, TableCell, TableRow

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


def detail_sections(result: Mapping[str, Any]) -> list[Section]:
    """The remaining figures of a target, folded but for detectors and surrogates."""
    arms, scores = valid_arms(result), result["scores"]
    found: list[Section] = []
    if section := scores_section(result):
        found.append(section)
    if result.get("surrogates"):
        found.append(_surrogates(result))
    if result["valid"] and scores.get("detectors"):
        found.append(_detectors(result))
    if arms or result["valid"]:
        margins = {arm_title(name, arm): arm["scaled_margins"] for name, arm in arms.items() if arm.get("scaled_margins")}
        real = (scores["controls"].get("real") or {}).get("scaled_margins")
        drawn = Plot("Margins of the elites at the largest budget", margin_quantiles(margins, real=real), _MARGINS)
        plots = [drawn] if margins else []
        found.append(Section("Margins, confidences and cost", plots=plots, tables=[_cost(result)], closed=True))
    if result["valid"] and scores.get("image_metrics"):
        found.append(_image_metrics(result))
    target = result["target"]
    text = f"Target: {target['spec']}."
    if target.get("shape"):
        classes = f"{target['classes']:,} classes, {target['scored_classes']:,} of them scored"
        text = f"{text} {classes}; images of {_shape(target['shape'])}. Fingerprint {target['fingerprint'][:16]}."
    return [*found, Section("The target", [text], closed=True)]


_MARGINS = "Thin line: 5% to 95% of the elites; thick line: 25% to 75%; marker: the median."


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
    return Table(heads, groups=by_kind(result, row), under=under)


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
    heads = ["images", *(_METRICS.get(key, key.replace("_", " ")) for key in keys)]
    table = Table(heads, groups=groups, under="Medians and [5%, 95%].")
    return Section("Image metrics", [text], tables=[table], closed=True)


def _shape(shape: list[int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels{', grey' if channels == 1 else f' of {channels} channels'}"
