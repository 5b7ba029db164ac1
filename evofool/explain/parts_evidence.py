"""Evidence in the last layer, channel by channel, as a section of the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import TargetError
from evofool.explain.evidence import Crop, Evidence, evidence, exciting
from evofool.explain.part_result import PartResult
from evofool.explain.parts_margin import WIDE
from evofool.explain.phrases import counted, signed, three_decimals
from evofool.images import encode_png, resized
from evofool.pages.heat import heat
from evofool.pages.html_page import NOTHING, Picture, RowGroup, Section, Table
from evofool.targets import Target

_TITLE = "Evidence in the last layer"
_LISTED = 6  # channels for either class
_SHOWN = 3  # of them with pictures
_TILE, _GAP = 112, 4  # pixels
_SOURCE = "Zhou et al. 2016, equations 1 and 2."


def evidence_part(target: Target, image: np.ndarray, class_id: int, against: int, real: Path | None) -> PartResult:
    """The channels' contributions to the margin. One query, and up to 256 more with real pictures.

    A network without such a last layer has a section that says why.
    """
    try:
        found = evidence(target, image, class_id, against)
    except TargetError as why:
        reads = "This part reads networks whose logits are a linear layer over features averaged over positions."
        return PartResult(Section(_TITLE, [f"There is no evidence by channels. {reads} {why}."], _SOURCE))
    label, other = target.labels[class_id], target.labels[against]
    for_class, for_other = found.strongest(_LISTED)
    shown = [*for_class[:_SHOWN], *for_other[:_SHOWN]]
    crops: Mapping[int, Sequence[Crop]] = {}
    compared = 0
    if real is not None and shown:
        crops, compared = exciting(target, found.last, real, shown)
    size = (image.shape[1], image.shape[2])
    of_class, of_margin = found.map_of_class(size), found.map_of_margin(size)
    pictures = [
        _evidence_map(f"For {label}", of_class, image, f"red: for {label}, blue: against it"),
        _evidence_map(f"For {label}, not {other}", of_margin, image, f"red: for {label}, blue: for {other}"),
    ]
    strongest = Section(
        "The strongest channels",
        [_shows(crops, compared)],
        pictures=[_channel(found, channel, image, crops.get(channel, ()), label, other) for channel in shown],
        tables=[_table(target, found, for_class, for_other, label, other)],
    )
    text = [
        _result(found, label, other),
        f"The last layer, {found.last.linear}, adds up {len(found.of_class):,} channels: each one's mean activation over "
        f"{found.features.shape[1]} x {found.features.shape[2]} positions times the weight of the class. A channel's part "
        f"of the margin is what it adds for {label} less what it adds for {other}. The same sum by positions gives the "
        "maps: red where the image adds to the logit or the margin.",
        f"Sum and bias equal the outputs of {found.last.linear} up to {found.residual:.1g}.",
    ]
    figures = {"evidence": _figures(target, found, for_class, for_other)}
    section = Section(_TITLE, text, _SOURCE, pictures, parts=[strongest])
    return PartResult(section, maps={"evidence": of_margin}, figures=figures)


def _result(found: Evidence, label: str, other: str) -> str:
    """How much speaks for either class, and how few channels carry it."""
    of_margin = found.of_margin
    speaks_for, speaks_against = of_margin[of_margin > 0].sum(), -of_margin[of_margin < 0].sum()
    bias = found.bias[0] - found.bias[1]
    ranked = np.cumsum(np.sort(of_margin[of_margin > 0])[::-1])
    half = int(np.searchsorted(ranked, speaks_for / 2)) + 1 if len(ranked) else 0
    return (
        f"The margin of {label} over {other} is {three_decimals(found.margin)}: channels add {three_decimals(speaks_for)} "
        f"for {label} and {three_decimals(speaks_against)} for {other}, and the bias {signed(bias)}. Half of what speaks "
        f"for {label} comes from {counted(half, 'channel')} of {len(of_margin):,}."
    )


def _shows(crops: Mapping[int, Sequence[Crop]], compared: int) -> str:
    names = "The table names the classes for which a channel has the largest weights."
    if not crops:
        return (
            f"{names} The pictures show where a channel is active in this image. With real images (--real-images DIR) they "
            "also show which real images excite it most."
        )
    return (
        f"{names} The pictures show where a channel is active in this image, and then the parts of {compared:,} real images "
        "that excite it most."
    )


def _evidence_map(title: str, values: np.ndarray, image: np.ndarray, scale: str) -> Picture:
    return Picture(title, encode_png(heat(values, image, signed=True)), scale, width=WIDE)


def _channel(found: Evidence, channel: int, image: np.ndarray, crops: Sequence[Crop], label: str, other: str) -> Picture:
    """Where a channel is active in the image, and beside it the crops that excite it."""
    active = heat(found.map_of_channel(channel, (image.shape[1], image.shape[2])), image)
    tiles = [resized(tile, (3, _TILE, _TILE)) for tile in (active, *(crop.pixels for crop in crops))]
    gap = np.full((3, _TILE, _GAP), 255, np.uint8)
    row = [piece for tile in tiles for piece in (tile, gap)][:-1]
    part = found.of_margin[channel]
    caption = f"{signed(part)} for the margin: speaks for {label if part > 0 else other}"
    if crops:
        caption += f"; beside it {', '.join(crop.file.name for crop in crops)}"
    drawn = np.concatenate(row, 2)
    return Picture(f"Channel {channel}", encode_png(drawn), caption, width=drawn.shape[2])


def _table(
    target: Target, found: Evidence, for_class: Sequence[int], for_other: Sequence[int], label: str, other: str
) -> Table:
    of_class, of_other, of_margin = found.of_class, found.of_other, found.of_margin
    means = found.features.mean((1, 2))

    def rows(channels: Sequence[int]) -> list[list[str]]:
        return [
            [
                str(k),
                f"{means[k]:.3g}",
                *map(signed, (of_class[k], of_other[k], of_margin[k])),
                ", ".join(target.labels[c] for c in found.classes_of(k)),
            ]
            for k in channels
        ]

    first, second = found.bias
    total = [
        [f"all {len(means):,}", NOTHING, *map(signed, (of_class.sum(), of_other.sum(), of_margin.sum())), ""],
        ["bias", NOTHING, *map(signed, (first, second, first - second)), ""],
        ["logit", NOTHING, *map(signed, (*found.logits, found.margin)), ""],
    ]
    heads = ["channel", "mean activation", f"adds to {label}", f"adds to {other}", "to the margin", "largest weights for"]
    groups = [RowGroup(f"Speaks for {label}", rows(for_class)), RowGroup(f"Speaks for {other}", rows(for_other))]
    return Table(
        heads,
        [],
        "The channels that add most to the margin, and that take most from it",
        [group for group in groups if group.rows] + [RowGroup("Together", total)],
    )


def _figures(target: Target, found: Evidence, for_class: Sequence[int], for_other: Sequence[int]) -> dict[str, Any]:
    return {
        "layer": found.last.linear,
        "pooled": found.last.place,
        "channels": len(found.of_class),
        "logits": list(found.logits),
        "bias": list(found.bias),
        "residual": found.residual,
        "strongest": [
            {
                "channel": k,
                "of_class": float(found.of_class[k]),
                "of_other": float(found.of_other[k]),
                "of_margin": float(found.of_margin[k]),
                "largest_weights": [target.labels[c] for c in found.classes_of(k)],
            }
            for k in (*for_class, *for_other)
        ],
    }
