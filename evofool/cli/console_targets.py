"""What the commands print of targets: their kinds, one target, the report of a check. Plain text to standard output."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from evofool.printer import Table, print_lines

if TYPE_CHECKING:
    from evofool.ascend.kinship import Kinship
    from evofool.targets.validation import Accuracy, Report, Validation

_SHOWN_LABELS = 6


def kinds() -> list[dict[str, Any]]:
    """A row for each kind of target; imports nothing optional."""
    from evofool.targets import KINDS

    return [
        {
            "spec": k.form,
            "description": k.description,
            "extra": k.extra or None,
            "installed": not k.module or find_spec(k.module) is not None,
        }
        for k in KINDS.values()
    ]


def print_kinds(rows: list[dict[str, Any]]) -> None:
    table = Table()
    table.column("target", no_wrap=True)
    table.column("description")
    table.column("needs", no_wrap=True)
    for row in rows:
        needs = ["" if row["extra"] is None else f"evofool[{row['extra']}]", "" if row["installed"] else "not installed"]
        table.row(row["spec"], row["description"], ", ".join(filter(None, needs)))
    table.print()
    print_lines("", "Options follow a question mark, KIND:NAME?size=224&labels=FILE; docs/targets.md has them all.")


def print_target(description: dict[str, Any]) -> None:
    from evofool.targets.kinds import fed_by_server

    labels, p = description["labels"], description.get("preprocessing", {})
    more = f", ... ({len(labels):,} classes)" if len(labels) > _SHOWN_LABELS else f" ({len(labels)} classes)"
    channels, height, width = description["shape"]
    rows = {
        "target": description["spec"],
        "images": f"{width} x {height}, {'grey' if channels == 1 else 'RGB'}",
        "labels": ", ".join(labels[:_SHOWN_LABELS]) + more,
        "outputs": description["outputs"]
        + (f" of the top {description['top_k']} classes" if description["top_k"] < len(labels) else ""),
        "pixels": "preprocessed by the server" if fed_by_server(description) else _pixels(p, channels),
        "through": _through(description),
        "photographs": _photographs(p),
        "weights": description.get("file"),
        "SHA-256": description.get("file_sha256") or description.get("weights_sha256"),
        "backend": description.get("backend"),
        "device": description.get("device"),
        "formats": ", ".join(description["formats"]),
        "gradients": description.get("gradient") or ("yes" if description["differentiable"] else "none: a black box"),
        "fingerprint": description["fingerprint"],
    }
    for name, value in rows.items():
        if value:
            print_lines(f"{name:<12} {value}")
    for note in description.get("notes", ()):
        print_lines(f"note         {note}")


def print_layers(rows: "Sequence[tuple[str, str, tuple[int, ...]]]") -> None:
    table = Table()
    table.column("layer", no_wrap=True)
    table.column("type", no_wrap=True)
    table.column("output", right=True, no_wrap=True)
    for name, kind, shape in rows:
        table.row(name, kind, " x ".join(map(str, shape)))
    table.print()


def print_kinship(found: "Sequence[Kinship]") -> None:
    from evofool.targets.redaction import short_name

    table = Table()
    table.column("surrogate", no_wrap=True)
    for name in ("images", "agrees", "95% interval", "by chance"):
        table.column(name, right=True, no_wrap=True)
    for each in found:
        low, high = each.interval
        table.row(
            short_name(each.surrogate),
            f"{each.images:,}",
            f"{each.agreement:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{each.by_chance:.1%}",
        )
    table.print()


def print_report(report: "Report") -> None:
    """Print the results of a check; the caller raises its faults."""
    print_target({**report.target, "gradient": report.gradient, "notes": ()})
    _print_validation(report.validation)
    if report.accuracy is not None:
        _print_accuracy(report.accuracy)
    if report.rates:
        _print_speed(report)
    queries = f"{report.queries:,} images" + (f" in {report.requests:,} requests" if report.requests else "")
    print_lines(f"{'queries':<12} {queries}")
    for note in report.notes:
        print_lines(f"{'note':<12} {note}")
    if not report.faults:
        print_lines(f"{report.target['spec']} passes")


def _print_validation(validation: "Validation") -> None:
    print_lines(f"{'finite':<12} {'yes' if validation.finite else 'no'}, on {validation.images} patterns")
    for name, value, comparison in (
        ("twice", validation.twice, "the same images scored twice"),
        ("alone", validation.alone, f"batch 1 against batch {validation.images}"),
    ):
        if value is not None:
            print_lines(f"{name:<12} {comparison}: log-odds differ by at most {value:.2g}")
    position = validation.position
    if position is not None and position.tolerance is not None:
        depends = "depend" if position.dependent else "do not depend"
        print_lines(f"{'position':<12} last bits {depends} on an image's row in a batch of {position.chunk}")


def _print_accuracy(accuracy: "Accuracy") -> None:
    a = accuracy
    print_lines(
        f"{'top-1':<12} {a.top1:.3f} +- {a.standard_error:.3f} (95% interval {a.interval[0]:.3f} to {a.interval[1]:.3f}): "
        f"{a.correct:,} of {a.images:,} photographs" + ("" if a.published is None else f"; published: {a.published:.3f}")
    )
    print_lines(f"{'confidence':<12} median {a.median_confidence:.4f}")
    if a.margins:
        print_lines(f"{'':<12} of those classified correctly, quantiles: " + "  ".join(f"{q:>7}" for q in a.margins))
        for name, values in (("margin", a.margins), ("confidence", a.confidences)):
            print_lines(f"{'':<12} {name:>41}: " + "  ".join(f"{v:7.4g}" for v in values.values()))


def _print_speed(report: "Report") -> None:
    assert report.choice is not None
    settings = sorted({(r.chunk, r.workers) for r in report.rates})
    cells = {(r.number_format, r.chunk, r.workers): r.images_per_second for r in report.rates}
    table = Table("images/s")
    table.column("number format", no_wrap=True)
    table.column("log-odds from float32: median, 99%", right=True)
    for chunk, workers in settings:
        table.column(f"{chunk} x {workers}", right=True, no_wrap=True)
    for name in dict.fromkeys(r.number_format for r in report.rates):
        difference = report.choice.differences.get(name)
        row = [
            f"{cells[(name, *s)]:,.1f}" if cells.get((name, *s)) is not None else "none" if (name, *s) in cells else ""
            for s in settings
        ]
        table.row(name, "" if difference is None else f"{difference[0]:.2g}, {difference[1]:.2g}", *row)
    table.print()
    print_lines("chunk x calls at once, one thread each; none: out of memory")
    for name, reason in report.choice.dropped.items():
        print_lines(f"{'left out':<12} {name}: {reason}")
    best = max(report.rates, key=lambda r: r.images_per_second or 0.0)
    print_lines(f"{'fastest':<12} {best.number_format}, {best.chunk} x {best.workers}")
    print_lines(f"{'ranks by':<12} {report.choice.number_format}")


def _pixels(p: dict[str, Any], channels: int) -> str:
    if "mean" not in p:
        return ""
    scale, divisor = p["scale"], round(1 / p["scale"])
    fed = "pixel" if scale == 1 else f"pixel / {divisor}" if abs(scale * divisor - 1) < 1e-9 else f"pixel * {scale:g}"
    if any(p["mean"]):
        fed = f"{fed} - {_numbers(p['mean'])}"
    if any(v != 1 for v in p["std"]):
        fed = f"({fed}) / {_numbers(p['std'])}"
    if p.get("invert"):
        fed = fed.replace("pixel", "(255 - pixel)", 1)
    turned = "; rows and columns swapped" if p.get("transpose") else ""
    crops = "" if p["crops"] == 1 else f"; mean of {p['crops']} crops of {p['crop'][1]} x {p['crop'][0]}"
    return fed + ("" if channels == 1 else f", {p['order']}") + turned + crops


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{v:g}' for v in values)})"


def _through(details: dict[str, Any]) -> str:
    by = f"; of their probabilities the {details['through_by']}" if "through_by" in details else ""
    return f"{details['through']}{by}" if "through" in details else ""


def _photographs(p: dict[str, Any]) -> str:
    if not p:
        return ""
    how = (
        f"short side to {p['resize']}, then a centre crop"
        if p.get("resize")
        else "resized to the shape, without keeping the aspect ratio"
    )
    return f"{how}; {p.get('interpolation', 'bilinear')}"
