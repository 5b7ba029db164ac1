"""The report's table of what fools a classifier and its detector together."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.report.formatting import MET, format_share, share_cell
from evofool.pages.html_page import NOTHING, Table, TableCell, TableRow


def through_table(detectors: Sequence[Mapping[str, Any]]) -> Table | None:
    """The rows of scores.detectors (docs/protocol.md, section 7) that have the pair's figures; None if no row has."""
    found = [row for row in detectors if row.get("through")]
    order = sorted(found, key=lambda row: (row["arm"], row["detector"], row["kind"] == "adaptive"))
    heads = [
        "arm", "detector", "elites", "real images that the detector rejects", "fooled, each keeps 95%",
        "both keep, of real images", "fooled, both keep 95%", "both keep, of real images",
    ]  # fmt: skip
    under = (
        "Fooled: the share of classes with an image that the classifier assigns to the class above its threshold and that "
        "the detector passes, at the largest budget. Each keeps 95%: of both thresholds, each was set to keep 95% of real "
        "images, so that both together keep fewer. Both keep 95%: thresholds that keep 95% of real images together, and are "
        "less strict. Adaptive elites count for a defence; static ones do not know the detector. Shares of real images are "
        "those of the half that set no threshold."
    )
    return (
        Table(heads, [_row(row) for row in order], "Through classifier and detector together", under=under)
        if found
        else None
    )


def _row(row: Mapping[str, Any]) -> TableRow:
    cells = [row["arm"], row["detector"], row["kind"], _real(row["real"], "rejected")]
    for pair in ("separate", "joint"):
        through = row["through"][pair]
        cells += [share_cell(through), _real(through["real"], "kept")]
    return cells


def _real(row: Mapping[str, Any], what: str) -> TableCell:
    """A share of real images; its standard error, and a mark where it is not what the thresholds were set for."""
    if row.get(what) is None:
        return TableCell(NOTHING)
    mark = "" if row.get("met", True) else MET[False]
    return TableCell(format_share(row[what]), f"± {row['standard_error']:.3f}", mark=mark)
