"""The plots of a benchmark: valid SVG that loads nothing, with real text, and marks at their values."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from evofool.pages import bench_plots, svg
from evofool.pages.bench_plots import detector_curves, margin_quantiles, q50_dots, ratio_dots, share_curves, transfer_heat
from evofool.pages.palette import BLUE, ORANGE, following
from evofool.pages.svg import drawing, prefixed

NASTY = "a < b & $x$ <script>"


def curve(points: int, high: float = 1.0) -> dict[str, list[float]]:
    queries = np.unique(np.geomspace(1, 10_000, points).round()).tolist()
    value = np.linspace(0, high, len(queries))
    return {"queries": queries, "value": value.tolist(), "low": (0.9 * value).tolist(), "high": value.tolist()}


def q50(value: float | None, low: float | None = None, high: float | None = None, bound: str = "=") -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "bound": bound}


def detector(arm: str, kind: str) -> dict[str, object]:
    return {"detector": NASTY, "arm": arm, "kind": kind, "curve": {"fpr": [0, 0.5, 1], "tpr": [0, 0.8, 1]}}


PLOTS: dict[str, Callable[[], str]] = {
    "curves": lambda: share_curves({NASTY: curve(50), "cppn": curve(50)}, [100, 10_000]),
    "q50": lambda: q50_dots(
        {NASTY: {"cppn": q50(100, 50, 200), NASTY: q50(None, bound=">=")}, "b": {"per-class": q50(9, 1, bound=">=")}},
        {NASTY: 999, "b": 999},
    ),
    "q50 of one target": lambda: q50_dots({"a": {NASTY: q50(100, 50, 200)}}, {"a": 1_000}),
    "ratio": lambda: ratio_dots({"a": {NASTY: q50(2.0, 1.5, bound=">=")}}),
    "margins": lambda: margin_quantiles({NASTY: {"5": -0.1, "25": 0.5, "50": 1.0, "75": 2.0, "95": 30.0}}),
    "heat": lambda: transfer_heat([NASTY, "b"], [[1, 0.2], [None, 1]], [[0.9, 0.1], [None, 0.9]], [[1, 0.3], [None, 1]]),
    "detectors": lambda: detector_curves([detector(NASTY, "static"), detector(NASTY, "adaptive")]),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_valid_xml_that_loads_nothing_and_keeps_its_text(name: str) -> None:
    drawn = PLOTS[name]()
    root = ElementTree.fromstring(drawn)
    assert "script" not in {element.tag for element in root.iter()}
    assert NASTY in [text for element in root.iter("text") for text in element.itertext()]
    assert not re.search(r"https?:|<style|<!|\bnan\b", drawn)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawn))
    assert {a or b for a, b in used} == set(ids)
    assert re.fullmatch(r'<svg viewBox="0 0 [\d.]+ [\d.]+">', drawn[: drawn.index(">") + 1])


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_values_give_the_same_bytes_and_no_setting_is_left(name: str) -> None:
    before = dict(matplotlib.rcParams)
    assert PLOTS[name]() == PLOTS[name]()
    assert dict(matplotlib.rcParams) == before


def test_a_curve_of_a_thousand_points_is_as_small_as_one_of_a_hundred_and_ends_where_it_ends() -> None:
    few, many = (share_curves({"cppn": curve(n, 0.5)}, [10_000]) for n in (120, 5_000))
    assert len(many) < 1.2 * len(few) < 30_000
    kept = bench_plots._thinned(curve(5_000)["queries"])
    assert kept[0] == 0
    assert kept[-1] == len(curve(5_000)["queries"]) - 1
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= bench_plots._POINTS + 2


def test_a_curve_with_gaps_and_one_that_nothing_is_accepted_on_are_drawn() -> None:
    gaps = {"queries": [1, 10, 100], "value": [0.0, 0.0, 0.0], "low": [None] * 3, "high": [None] * 3}
    assert "noise" in share_curves({"noise": gaps}, [100])


def test_every_arm_has_a_separate_fixed_style() -> None:
    arms = ["direct", "cppn", "per-class", "random", "square", "nes", "apgd", "fourier", "noise", "mine", "yours"]
    styles = bench_plots._styles(arms)
    assert len(set(styles.values())) == len(arms)
    assert len({style.marker for style in styles.values()}) == len(arms)
    assert all(bench_plots._styles([arm])[arm] == styles[arm] for arm in arms[:9])


def test_a_bound_has_an_arrow_and_an_exact_value_has_none() -> None:
    def arrows(row: dict[str, Any]) -> int:
        return q50_dots({"a": {"cppn": row}}, {"a": 1_000}).count("stroke-linecap: round")

    assert arrows(q50(100, 50, 200)) == 0
    assert arrows(q50(100)) == 0, "one seed has no limits, and nothing is censored"
    assert arrows(q50(100, 50, bound=">=")) > 0
    assert arrows(q50(None, 1_000, bound=">=")) > 0
    assert arrows(q50(100, None, 200, bound="<=")) > 0


def test_one_target_beyond_the_budget_has_its_arrows_on_the_axis() -> None:
    drawn = q50_dots({"a": {"cppn": q50(None, bound=">="), "per-class": q50(None, 1_000, bound=">=")}}, {"a": 1_000})
    arrows = re.findall(r'd="M ([\d.]+) [\d.]+ Q [\d.]+ [\d.]+ ([\d.]+)', drawn)
    assert len(arrows) == 2
    assert all(float(end) - float(start) > 3 for start, end in arrows)
    assert ">100<" in drawn
    assert ">1,000<" in drawn


def test_the_diagonal_has_no_intervals_and_other_cells_have() -> None:
    drawn = transfer_heat(["a", "b"], [[1, 0.2], [0.3, 1]], [[0.91, 0.1], [0.2, 0.92]], [[1, 0.3], [0.4, 1]])
    assert set(re.findall(r">(\d\.\d\d - \d\.\d\d)<", drawn)) == {"0.10 - 0.30", "0.20 - 0.40"}


@pytest.mark.parametrize(("row", "side"), [(q50(2.0, 1.5, bound=">="), 1), (q50(0.5, None, 0.8, bound="<="), -1)])
def test_the_arrow_of_a_bound_points_to_the_possible_true_values(row: dict[str, Any], side: int) -> None:
    drawn = ratio_dots({"a": {"per-class": row}})
    ((start, end),) = re.findall(r'd="M ([\d.]+) [\d.]+ Q [\d.]+ [\d.]+ ([\d.]+)', drawn)
    assert (float(end) - float(start)) * side > 0
    low, high = map(float, re.findall(r'd="M ([\d.]+) [\d.]+ L ([\d.]+) [\d.]+ ?" clip', drawn)[0])
    assert (float(start) - (low + high) / 2) * side > 0, "it goes on where the whisker ends"


def test_static_is_beside_adaptive_and_the_axes_name_what_is_flagged() -> None:
    drawn = detector_curves([detector("cppn", "static"), detector("cppn", "adaptive")])
    places = {text: float(x) for x, text in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>(cppn, \w+)</text>', drawn)}
    assert places["cppn, static"] < places["cppn, adaptive"]
    assert "share of real images flagged" in drawn
    assert "share of fooling images flagged" in drawn


def test_the_palette_follows_the_page_and_other_colours_stay() -> None:
    svg = '<g style="fill: {}; stroke: {}; color: #123456"><text>net ' + f"{BLUE}</text></g>"
    assert following(svg.format(BLUE, ORANGE)) == svg.format(f"var(--blue, {BLUE})", f"var(--orange, {ORANGE})")


def test_a_prefix_is_on_every_id_and_every_use_of_one() -> None:
    assert prefixed('<a id="b"/><c href="#b" fill="url(#b)"/>', "p-") == '<a id="p-b"/><c href="#p-b" fill="url(#p-b)"/>'


def test_a_drawing_that_fails_leaves_the_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with pytest.raises(KeyError), drawing(1, 1):
        raise KeyError
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_imported_late_and_pyplot_never() -> None:
    for module in (bench_plots, svg):
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert not re.search(r"^(import|from) matplotlib", source, re.MULTILINE)
        assert not re.search(r"^\s*(import|from) .*pyplot", source, re.MULTILINE)
