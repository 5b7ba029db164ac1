"""Pictures: their sizes, that nothing overlaps, and that the shown values are correct."""

import ast
import io
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageColor

from evofool.errors import ImageError
from evofool.pages import curve as curve_module
from evofool.pages.confidence_axis import LOWEST, set_confidence_axis, to_log_odds
from evofool.pages.curve import curve
from evofool.pages.descent import SWITCH, DescentStep, descent_strip
from evofool.pages.graph import graph_svg
from evofool.pages.sheet import (
    LEVELS,
    Tile,
    color,
    confidence_text,
    contact_sheet,
    fit,
    font,
    score_text,
    thumbnail,
    to_ascii,
    wrapped,
)
from genomes import CPPN, GenomeError, Key

SVG = "{http://www.w3.org/2000/svg}"
LONG = "great white shark, white shark, man-eater, man-eating shark"


def noise(side: int = 28, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (channels, side, side), dtype=np.uint8)


def row(evaluations: int, p: float = 0.9, **changes: float) -> dict[str, float]:
    return {"evaluations": evaluations, "median": p, "q25": p, "q75": p, "min": p, "at_99": 3, "distinct": 5} | changes


def disjoint(boxes: list[tuple[int, int, int, int]]) -> bool:
    return all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for a, b in itertools.combinations(boxes, 2))


# --- sheet


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0.0%"), (1e-9, "<0.1%"), (0.001, "0.1%"), (0.123, "12.3%"), (0.1239, "12.3%"),
        (0.29, "29.0%"), (0.9, "90.0%"), (0.99, "99.0%"), (0.995, "99.5%"), (0.999, "99.9%"), (0.9999, "99.99%"),
        (0.99997, "99.997%"), (0.999999, "99.9999%"), (0.9999995, ">99.9999%"),
        (0.9999999, ">99.9999%"), (1.0, ">99.9999%"),
    ],
)  # fmt: skip
def test_a_confidence_is_rounded_down_and_never_to_certainty(p: float, text: str) -> None:
    assert confidence_text(p) == text
    assert confidence_text(np.float64(p)) == text


def test_the_shown_confidence_is_below_the_true_one_by_less_than_its_last_digit() -> None:
    for p in 1 - np.geomspace(1e-6, 0.99, 500):
        shown = confidence_text(p)
        digits = len(shown.split(".")[1]) - 1
        assert 0 <= p * 100 - float(shown[:-1]) + 1e-12 < 10.0**-digits + 2e-12


@pytest.mark.parametrize("p", [-0.1, 1.0001, math.nan, math.inf])
def test_an_invalid_confidence_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        contact_sheet([Tile(noise(), "a", p)])


def test_a_sheet_without_confidences_has_neither_bars_nor_a_legend() -> None:
    tiles = [Tile(np.zeros((3, 60, 90), np.uint8), f"layer {k}") for k in range(6)]
    scored = contact_sheet([replace(t, confidence=0.5) for t in tiles], tile=180)
    plain = contact_sheet(tiles, tile=180)
    assert (plain.width, plain.height < scored.height) == (scored.width, True)
    shades = {ImageColor.getrgb(shade) for _, _, shade in LEVELS}
    assert shades & {shade for _, shade in scored.getcolors(1 << 20)}
    assert not shades & {shade for _, shade in plain.getcolors(1 << 20)}


def test_colours_change_at_the_values_of_the_legend() -> None:
    shades = [color(p) for p in (0.49, 0.5, 0.9, 0.99, 0.999, 1.0)]
    assert len(set(shades)) == 5
    assert shades[-1] == shades[-2]


@pytest.mark.parametrize(
    ("side", "box", "size"),
    [(28, 140, 140), (28, 112, 112), (32, 140, 128), (224, 160, 160), (150, 160, 150), (3, 2, 2)],
)
def test_small_images_grow_by_a_whole_factor_and_large_ones_shrink(side: int, box: int, size: int) -> None:
    image = noise(side, 3)
    picture = thumbnail(image, box)
    assert picture.size == (size, size)
    if size >= side:
        grown = np.asarray(picture).transpose(2, 0, 1)
        assert (grown == image.repeat(size // side, 1).repeat(size // side, 2)).all()


def test_an_image_that_is_wider_than_high_keeps_its_shape() -> None:
    assert thumbnail(np.zeros((1, 100, 400), np.uint8), 160).size == (160, 40)
    assert thumbnail(np.zeros((1, 1, 1000), np.uint8), 160).size == (160, 1)


def test_the_sheet_shows_every_picture_as_it_is() -> None:
    images = [noise(28, seed=k) for k in range(10)]
    sheet = np.asarray(contact_sheet([Tile(image, "a", 0.5) for image in images]))
    for image in images:
        big = np.asarray(thumbnail(image, 140))
        places = np.argwhere(sheet[:, :, 0] == big[0, 0, 0])
        assert any(
            (sheet[y : y + 140, x : x + 140] == big).all()
            for y, x in places
            if sheet[y : y + 140, x : x + 140].shape == big.shape
        )


def test_ten_digits_are_in_two_rows_of_five() -> None:
    tiles = [Tile(noise(), str(k), 0.9) for k in range(10)]
    assert contact_sheet(tiles).size == contact_sheet(tiles, columns=5).size


@pytest.mark.slow
@pytest.mark.parametrize(("n", "side"), [(100, 28), (100, 224), (1000, 28), (1000, 224)])
def test_a_large_sheet_is_about_as_wide_as_a_screen_and_below_6000_pixels(n: int, side: int) -> None:
    sheet = contact_sheet([Tile(noise(side), "a", 0.9)] * n)
    assert 1.0 < sheet.width / sheet.height < 1.8
    assert sheet.width < 6000


@pytest.mark.parametrize("tile", [None, 8])
def test_a_long_label_stays_within_its_tile(tile: int | None) -> None:
    tiles = [Tile(noise(seed=k), "a", 0.9, "b") for k in range(7)]
    plain_sheet = contact_sheet(tiles, columns=3, tile=tile)
    boxes = []
    for k in range(7):
        changed = [Tile(255 - t.image, LONG, 0.99999, LONG) if j == k else t for j, t in enumerate(tiles)]
        box = ImageChops.difference(plain_sheet, contact_sheet(changed, columns=3, tile=tile)).getbbox()
        assert box is not None
        boxes.append(box)
    assert disjoint(boxes)


def test_a_label_is_cut_short_with_an_ellipsis_at_the_given_width() -> None:
    small = font(12)
    assert fit("cat", small, 200) == "cat"
    for width in range(0, 200, 7):
        shown = fit(LONG, small, width)
        assert small.getlength(shown) <= width
        assert not shown or (shown.endswith("…") and LONG.startswith(shown[:-1]))


def test_labels_fall_back_to_the_letters_that_the_font_has() -> None:
    assert to_ascii("Fußgänger \u2013 café\n\u00d72") == "Fussganger - cafe x2"
    assert to_ascii("猫 cat") == "? cat"
    blank = bytes(font(12).getmask("\ue123"))
    assert all(bytes(font(12).getmask(c)) != blank for c in [*map(chr, range(33, 127)), "…", "·", "°"])


def test_a_saturated_confidence_is_shown_with_its_log_odds_where_they_fit() -> None:
    small = font(12)
    assert score_text(0.9, 2.2, small, 140) == "90.0%"
    assert score_text(1.0, 18.34, small, 140) == ">99.99%, log-odds 18.3"
    assert score_text(1.0, 18.34, small, 112) == "log-odds 18.3"
    assert score_text(1.0, None, small, 200) == ">99.9999%"


def test_a_long_title_is_wrapped_and_nothing_of_it_is_cut() -> None:
    head, title = font(20), "mnist-cppn: lenet?weights=network.safetensors, 1,234,567 forward and 1,234,567 backward passes"
    lines = wrapped(title, head, 480)
    assert " ".join(lines) == title
    assert all(head.getlength(line) <= 480 for line in lines)
    tile = Tile(noise(), "a", 0.5)
    assert contact_sheet([tile], title=title).height > contact_sheet([tile], title="short").height


def test_the_bar_is_as_long_as_the_confidence() -> None:
    def length(p: float) -> int:
        pixels = np.asarray(contact_sheet([Tile(np.zeros((1, 28, 28), np.uint8), "", p)]))
        shade = [int(color(p)[i : i + 2], 16) for i in (1, 3, 5)]
        return int((pixels == shade).all(-1).sum(1).max())

    assert [length(p) for p in (0.0, 0.25, 0.5, 0.95, 0.99999, 1.0)] == [1, 35, 70, 133, 139, 140]


def test_an_empty_sheet_and_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one tile"):
        contact_sheet([])
    with pytest.raises(ValueError, match="columns has to be at least 1, not 0"):
        contact_sheet([Tile(noise(), "a", 0.5)], columns=0)
    with pytest.raises(ValueError, match="tile has to be at least 1, not -3"):
        contact_sheet([Tile(noise(), "a", 0.5)], tile=-3)
    with pytest.raises(ImageError):
        contact_sheet([Tile(np.zeros((2, 28, 28), np.uint8), "a", 0.5)])


# --- curve


@pytest.mark.parametrize(
    "rows",
    [
        [row(64)],
        [row(64), row(64)],
        [row(0, 0.0)],
        [row(10**k, 1 - 10.0**-k) for k in range(1, 9)],
        [row(k, 1.0, at_99=k, distinct=0) for k in range(200, 300)],
    ],
    ids=["one row", "equal evaluations", "no elites", "nine decades", "certain"],
)
@pytest.mark.parametrize("classes", [0, 10, 1000])
def test_a_curve_is_a_png_whatever_the_rows(rows: list[dict[str, float]], classes: int) -> None:
    with Image.open(io.BytesIO(curve(rows, "costs $5 & <more>_", classes)), formats=["PNG"]) as picture:
        picture.load()
        assert picture.size == (960, 720)


@pytest.mark.slow
def test_equal_rows_give_equal_bytes_and_other_rows_do_not() -> None:
    rows = [row(10 * k, 1 - 1 / k) for k in range(1, 20)]
    assert curve(rows) == curve(rows)
    assert curve(rows) != curve(rows[:-1])
    assert curve([row(1, 0.999)]) != curve([row(1, 0.9999)])


def test_a_curve_without_rows_or_with_a_column_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        curve([])
    with pytest.raises(ValueError, match="row 1 has no q25, distinct"):
        curve([row(1), {k: v for k, v in row(2).items() if k not in ("q25", "distinct")}])


def test_a_curve_keeps_rising_where_the_confidence_is_nearly_1() -> None:
    odds = to_log_odds(np.array([0.0, 0.5, 1 - 1e-7, 1 - 1e-9, 1.0]))
    assert odds == pytest.approx([LOWEST, 0, 16.118, 20.723, 36.737], abs=1e-3)
    assert curve([row(1, 1 - 1e-8)]) != curve([row(1, 1 - 1e-9)])


def test_the_two_axes_of_a_curve_have_the_same_heights() -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = to_log_odds(np.array([0.001, 0.9, 1 - 1e-12]))
    axes.plot(drawn)
    set_confidence_axis(axes, [drawn], "confidence")
    ticks = {label.get_text(): y for label, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert ticks["0.5"] == 0
    assert ticks["1 - 1e-12"] == pytest.approx(27.63, abs=0.01)
    (right,) = axes.child_axes
    assert right.get_ylabel() == "log-odds"
    figure.canvas.draw()
    assert right.get_ylim() == axes.get_ylim()


def test_matplotlib_is_loaded_when_a_curve_is_drawn_and_pyplot_never() -> None:
    source = Path(curve_module.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert not any("matplotlib" in ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
    assert not any("pyplot" in ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))


# --- graph


def evolved(mode: str, generations: int) -> dict:
    encoding = CPPN(mode=mode)
    genomes = encoding.random(4, Key(3, 0))
    for batch in range(1, generations + 1):
        genomes = encoding.vary(genomes, genomes, Key(3, batch))
    return max((encoding.to_json(g) for g in genomes), key=lambda g: len(g["nodes"]))


def written(nodes: list, edges: list) -> dict:
    return evolved("grey", 0) | {"nodes": nodes, "edges": edges}


def chain() -> dict:
    """64 nodes in a chain."""
    ids = range(5, 68)
    edges = [[0, 5, 1.0], *([i, i + 1, -0.5] for i in ids[:-1]), [67, 4, 2.0], [1, 67, 3.0]]
    return written([[4, "step"], *([i, "square"] for i in ids)], edges)


GENOMES = {
    "newborn": lambda: evolved("grey", 0),
    "grey": lambda: evolved("grey", 40),
    "three outputs": lambda: evolved("hsv", 60),
    "2015": lambda: evolved("hls2015", 10),
    "many": lambda: evolved("rgb", 600),
    "chain": chain,
    "no edges": lambda: written([[4, "gauss"]], []),
    "weight 0": lambda: written([[4, "gauss"]], [[0, 4, 0.0]]),
}


def boxes(svg: ElementTree.Element) -> dict[int, tuple[float, float, float, float]]:
    """Node id to (left, top, right, bottom)."""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        shape = group.find(f"{SVG}rect")
        if shape is not None:
            x, y, w, h = (float(shape.attrib[k]) for k in ("x", "y", "width", "height"))
        else:
            circle = group.find(f"{SVG}circle")
            assert circle is not None
            r = float(circle.attrib["r"])
            x, y, w, h = float(circle.attrib["cx"]) - r, float(circle.attrib["cy"]) - r, 2 * r, 2 * r
        found[int(group.attrib["data-id"])] = (x, y, x + w, y + h)
    return found


@pytest.mark.parametrize("name", GENOMES)
def test_a_graph_has_one_element_per_node_and_per_edge_and_nodes_do_not_overlap(name: str) -> None:
    genome = GENOMES[name]()
    svg = ElementTree.fromstring(graph_svg(genome))
    assert svg.tag == f"{SVG}svg"
    ids = [int(g.attrib["data-id"]) for g in svg.iter(f"{SVG}g") if g.attrib["class"] == "node"]
    assert sorted(ids) == sorted([0, 1, 2, 3, *(i for i, _ in genome["nodes"])])
    assert sum(p.attrib.get("class") == "edge" for p in svg.iter(f"{SVG}path")) == len(genome["edges"])
    assert sum(1 for _ in svg.iter(f"{SVG}polyline")) == len(genome["nodes"])
    box = boxes(svg)
    assert all(
        a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for a, b in itertools.combinations(box.values(), 2)
    )
    left, top, width, height = (float(v) for v in svg.attrib["viewBox"].split())
    assert all(left <= a and top <= b and c <= left + width and d <= top + height for a, b, c, d in box.values())


@pytest.mark.parametrize("name", GENOMES)
def test_every_edge_runs_from_left_to_right(name: str) -> None:
    genome = GENOMES[name]()
    svg = ElementTree.fromstring(graph_svg(genome))
    box = boxes(svg)
    assert all(box[s][2] < box[t][0] for s, t, _ in genome["edges"])
    for path in svg.iter(f"{SVG}path"):
        if path.attrib.get("class") == "edge":
            across = [float(v) for v in re.findall(r"-?\d+\.\d+", path.attrib["d"])[::2]]
            assert across == sorted(across)


def test_an_edge_starts_and_ends_at_its_nodes_in_the_colour_of_its_sign_and_the_width_of_its_weight() -> None:
    svg = ElementTree.fromstring(
        graph_svg(written([[4, "sin"], [9, "cos"]], [[0, 4, 2.0], [1, 4, -1.0], [9, 4, 0.0], [2, 9, -4.0]]))
    )
    box = boxes(svg)
    edges = {p[0].text: p.attrib for p in svg.iter(f"{SVG}path") if p.attrib.get("class") == "edge"}
    assert set(edges) == {"x to node 4: 2", "y to node 4: -1", "node 9 to node 4: 0", "d to node 9: -4"}
    width = {name: float(a["stroke-width"]) for name, a in edges.items()}
    assert width["d to node 9: -4"] > width["x to node 4: 2"] > width["y to node 4: -1"] > width["node 9 to node 4: 0"]
    assert len({a["stroke"] for a in edges.values()}) == 3
    assert edges["y to node 4: -1"]["stroke"] == edges["d to node 9: -4"]["stroke"]
    ends = [float(v) for v in re.findall(r"-?\d+\.\d+", edges["x to node 4: 2"]["d"])]
    assert (ends[0], ends[-2]) == (box[0][2], box[4][0])
    assert ends[1] == pytest.approx((box[0][1] + box[0][3]) / 2, abs=0.1)


def test_nodes_that_reach_no_output_are_faint() -> None:
    # 6 feeds 7, and 7 feeds nothing; input x feeds 6 alone
    genome = written([[4, "sin"], [5, "cos"], [6, "abs"], [7, "relu"]], [[1, 5, 1.0], [5, 4, 1.0], [0, 6, 1.0], [6, 7, 1.0]])
    svg = ElementTree.fromstring(graph_svg(genome))
    faint = {int(g.attrib["data-id"]) for g in svg.iter(f"{SVG}g") if "opacity" in g.attrib}
    assert faint == {0, 2, 3, 6, 7}
    edges = {p[0].text: p.attrib["opacity"] for p in svg.iter(f"{SVG}path") if p.attrib.get("class") == "edge"}
    assert edges["x to node 6: 1"] == edges["node 6 to node 7: 1"] < edges["y to node 5: 1"] == edges["node 5 to node 4: 1"]


def test_a_graph_names_its_channels_from_top_to_bottom() -> None:
    svg = ElementTree.fromstring(graph_svg(evolved("hsv", 30)))
    texts = {t.text: float(t.attrib["y"]) for t in svg.iter(f"{SVG}text")}
    assert texts["hue"] < texts["saturation"] < texts["value"]


def test_an_invalid_cppn_is_refused() -> None:
    with pytest.raises(GenomeError, match="not an evofool CPPN"):
        graph_svg({"format": "direct"})
    with pytest.raises(GenomeError, match="activation"):
        graph_svg(written([[4, "<script>"]], []))
    with pytest.raises(GenomeError, match="cycle"):
        graph_svg(written([[4, "sin"], [5, "sin"], [6, "sin"]], [[5, 6, 1.0], [6, 5, 1.0]]))
    with pytest.raises(GenomeError, match="there is no node 9"):
        graph_svg(written([[4, "sin"]], [[9, 4, 1.0]]))


# --- descent


def test_a_descent_starts_with_the_oldest_for_every_order_given() -> None:
    steps = [DescentStep(noise(seed=k), 10 * k, str(k)) for k in range(5)]
    assert descent_strip(steps[::-1]).tobytes() == descent_strip(steps).tobytes()


def test_a_descent_wraps_after_its_columns() -> None:
    sizes = [descent_strip([DescentStep(noise(), k, "a") for k in range(n)], columns=4).size for n in (1, 4, 5, 8, 9)]
    assert sizes[0][0] < sizes[1][0] == sizes[2][0] == sizes[3][0] == sizes[4][0]
    assert sizes[0][1] == sizes[1][1] < sizes[2][1] == sizes[3][1] < sizes[4][1]


def test_the_texts_of_a_step_stay_below_its_picture() -> None:
    steps = [DescentStep(noise(seed=k), k, "a", "b") for k in range(7)]
    strip = descent_strip(steps, columns=3)
    found = []
    for k in range(7):
        changed = [DescentStep(255 - s.image, s.birth, LONG, LONG) if j == k else s for j, s in enumerate(steps)]
        box = ImageChops.difference(strip, descent_strip(changed, columns=3)).getbbox()
        assert box is not None
        found.append(box)
    assert disjoint(found)


def test_only_a_goal_switch_has_the_coloured_frame() -> None:
    shade = [int(SWITCH[i : i + 2], 16) for i in (1, 3, 5)]

    def framed(switched: list[bool]) -> int:
        pixels = np.asarray(
            descent_strip([DescentStep(np.zeros((1, 28, 28), np.uint8), k, "a", "", s) for k, s in enumerate(switched)])
        )
        return int((pixels == shade).all(-1).sum())

    single = framed([False, True, False])
    assert framed([False] * 3) == 0
    assert single >= 120 * 120 - 112 * 112
    assert framed([True, True, False]) - single == 120 * 120 - 112 * 112


def test_an_empty_descent_and_no_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        descent_strip([])
    with pytest.raises(ValueError, match="columns has to be at least 1, not 0"):
        descent_strip([DescentStep(noise(), 0, "a")], columns=0)
