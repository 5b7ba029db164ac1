"""Pages as HTML files, and maps as pictures."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from evofool.images import decode_png, encode_png
from evofool.pages.heat import framed, full_scale, heat, numbered, outlined, painted
from evofool.pages.html_page import NOTHING, Folded, Picture, Plot, RowGroup, Section, Table, TableCell, files_of, html_page
from evofool.pages.palette import variables

NASTY = "<script>alert('1')</script> & \"quoted\""


def png(side: int = 28, seed: int = 0) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (1, side, side), np.uint8))


class Reader(HTMLParser):
    """The tags with their attributes, the text between, and whether all that was opened was closed again."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def full() -> str:
    table = Table(["label", "log-odds"], [[NASTY, "1.5"], ["b", "-2e-3"]], NASTY)
    return html_page(
        NASTY,
        [
            Section("", ["First."], pictures=[Picture(NASTY, png(), NASTY)]),
            Section(
                NASTY,
                [NASTY, "More."],
                NASTY,
                [Picture("large", png(300))],
                [table],
                [Folded(NASTY, [Picture(NASTY, png(28, 1))], [table])],
                NASTY,
            ),
        ],
        [NASTY],
    )


def test_all_text_is_escaped() -> None:
    page = Reader(full())
    assert not page.open
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) == 15
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images[0]["alt"] == f"{NASTY}, {NASTY}"


def test_pictures_are_embedded_unchanged_and_nothing_is_loaded_from_elsewhere() -> None:
    page = Reader(full())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    found = [base64.b64decode((source or "").removeprefix("data:image/png;base64,")) for source in sources]
    assert found == [png(), png(300), png(28, 1)]
    links = {name for _, attributes in page.tags for name in attributes} & {"href", "srcset", "action", "onload"}
    assert not links
    assert not re.search(r"https?:|@import|url\(", full())
    assert "default-src 'none'" in full()


def test_small_pictures_are_enlarged_by_a_whole_factor_without_smoothing_and_large_ones_are_not() -> None:
    small, large, _ = (attributes for tag, attributes in Reader(full()).tags if tag == "img")
    assert (small["width"], small["height"], small["class"]) == ("224", "224", "small")
    assert (large["width"], large["height"], large.get("class")) == ("300", "300", None)


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    cells = [attributes.get("class") for tag, attributes in Reader(full()).tags if tag in ("th", "td")]
    assert cells == [None, "number"] * 6


def test_bounds_and_shares_are_numbers_too() -> None:
    table = Table(["confidence", "area"], [["> 0.999999", "1.5%"], [">= 0.2", "3%"]])
    cells = [a.get("class") for t, a in Reader(html_page("", [Section("", tables=[table])])).tags if t == "td"]
    assert cells == ["number"] * 4


def test_faults_come_before_the_text() -> None:
    page = html_page("Title", [Section("", ["Text."], fault="Not done.")])
    assert page.index("<h1>") < page.index("Not done.") < page.index("Text.")


def test_the_files_of_a_page_are_read_back_and_those_of_another_page_are_none() -> None:
    assert files_of(html_page(NASTY, [], files=["a-1.png", "b.png"])) == ["a-1.png", "b.png"]
    assert files_of(full()) == []
    assert files_of("<html></html>") is None
    assert files_of(full().replace('pictures" content=""', 'pictures" content="..png a.png -/b.png"')) is None


def test_a_page_has_its_language_and_styles_for_light_dark_and_print() -> None:
    page = full()
    for part in ("prefers-color-scheme: dark", "@media print", '<html lang="en">', '<meta charset="utf-8">', "viewport"):
        assert part in page


def test_an_empty_page_is_valid() -> None:
    assert Reader(html_page("Empty", [])).text.count("Empty") == 2


def test_the_contents_name_every_section_but_the_first_and_lead_to_it() -> None:
    sections = [Section("first"), Section(NASTY), Section("A b"), Section("a-B"), Section("?!")]
    page = Reader(html_page("Title", sections, contents=True))
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    anchors = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert links == [f"#{anchor}" for anchor in anchors]
    assert len(set(anchors)) == 4
    assert page.text.count(NASTY) == 2
    assert "nav" not in {tag for tag, _ in Reader(html_page("Title", sections)).tags}


def test_sections_within_sections_have_smaller_headings_and_the_lead_comes_before_the_text() -> None:
    inner = Section("Inner", ["Text."], lead="Outcome.", parts=[Section("Innermost", ["Deep."])])
    page = html_page("Title", [Section(""), Section("Outer", parts=[inner])])
    assert "<h2>Outer</h2>" in page
    assert "<h3>Inner</h3>" in page
    assert "<h4>Innermost</h4>" in page
    assert page.index("Outcome.") < page.index("Text.") < page.index("Deep.")
    assert not Reader(page).open


def test_each_line_of_a_fault_is_a_paragraph_before_the_cautions() -> None:
    page = html_page("Title", [Section("", ["Text."], fault="One.\nTwo.", cautions=["Three."])])
    assert page.count('<p class="fault">') == 2
    assert page.index("One.") < page.index("Two.") < page.index("Three.") < page.index("Text.")


def test_a_mark_is_a_word_before_the_text_and_others_are_refused() -> None:
    page = html_page("", [Section("", tables=[Table(["a"], [[TableCell(NASTY, NASTY, "invalid")]])])])
    assert f"invalid {NASTY} {NASTY}" in Reader(page).text
    with pytest.raises(ValueError, match='one of met, not met, invalid, undecided, not "maybe"'):
        html_page("", [Section("", tables=[Table(["a"], [[TableCell("b", mark="maybe")]])])])


def test_groups_of_rows_have_a_title_and_columns_are_aligned_over_all_of_them() -> None:
    groups = [
        RowGroup("first", [["a", "1"], ["b", NOTHING]]),
        RowGroup(NASTY, [["c", TableCell("2", "[1, 3]")], ["d", TableCell("", "", "met")]]),
    ]
    page = Reader(html_page("", [Section("", tables=[Table(["name", "value"], groups=groups)])]))
    cells = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert cells == [None, "number"] * 4
    titles = [attributes for tag, attributes in page.tags if tag == "th" and attributes.get("scope") == "rowgroup"]
    assert [attributes["colspan"] for attributes in titles] == ["2", "2"]
    assert NASTY in page.text


def test_the_last_cell_of_a_short_row_takes_the_rest() -> None:
    page = Reader(html_page("", [Section("", tables=[Table(["a", "b", "c"], [["1", "2", "3"], ["4", "text"]])])]))
    cells = [attributes for tag, attributes in page.tags if tag == "td"]
    assert [cell.get("colspan") for cell in cells] == [None, None, None, None, "2"]
    assert [cell.get("class") for cell in cells[:3]] == ["number"] * 3


def test_two_plots_of_a_page_share_no_id_and_keep_their_references() -> None:
    svg = '<svg><defs><path id="a"/></defs><use href="#a"/><g clip-path="url(#a)"/></svg>'
    plots = [Plot(NASTY, svg), Plot("b", svg), Plot("c", png(300))]
    page = Reader(html_page("", [Section("", plots=plots)]))
    assert [a["id"] for t, a in page.tags if t == "path"] == ["p1-a", "p2-a"]
    assert [a["href"] for t, a in page.tags if t == "use"] == ["#p1-a", "#p2-a"]
    assert [a["clip-path"] for t, a in page.tags if t == "g"] == ["url(#p1-a)", "url(#p2-a)"]
    assert [a["aria-label"] for t, a in page.tags if t == "svg"] == [NASTY, "b"]
    assert [a["alt"] for t, a in page.tags if t == "img"] == ["c"]


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_colour_can_be_read_on_its_paper(dark: bool) -> None:
    shades = dict(re.findall(r"--([a-z]+): #([0-9a-f]{6});", variables(dark)))

    def luminance(name: str) -> float:
        channels = [int(shades[name][k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in shades.keys() - {"paper", "panel", "line", "grid", "mint"}:
        least = 4.5 if name in ("ink", "faint", "fault", "caution", "good") else 3
        for ground in ("paper", "panel"):
            low, high = sorted((luminance(name), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= least, (name, ground)


# --- maps as pictures


def test_heat_is_dark_at_the_least_and_bright_at_the_most() -> None:
    ramp = np.linspace(0, 5, 100, dtype=np.float32).reshape(10, 10)
    picture = heat(ramp)
    brightness = picture.astype(int).sum(0).ravel()
    assert (np.diff(brightness) >= 0).all()
    assert picture.shape == (3, 10, 10)
    np.testing.assert_array_equal(heat(3 * ramp + 7), picture)


def test_signed_heat_is_white_at_zero_red_above_and_blue_below() -> None:
    picture = heat(np.array([[-2.0, 0.0, 2.0]]), signed=True).astype(int)
    assert picture[2, 0, 0] > picture[0, 0, 0]
    assert picture[:, 0, 1].min() > 240
    assert picture[0, 0, 2] > picture[2, 0, 2]


def test_the_full_scale_is_where_red_is_full() -> None:
    values = np.linspace(-1, 2, 1000).reshape(20, 50)
    top = full_scale(values)
    assert 1.9 < top < 2
    assert full_scale(values, 1.0) == 2
    picture = heat(values, signed=True)
    assert picture[:, values >= top].T.tolist() == [[230, 30, 30]] * int((values >= top).sum())
    assert full_scale(np.zeros((2, 2))) == 0


def test_red_is_seen_on_black_and_blue_on_white() -> None:
    for level in (0, 255):
        image = np.full((3, 1, 3), level, np.uint8)
        below, zero, above = heat(np.array([[-1.0, 0.0, 1.0]]), image, signed=True)[:, 0].T.astype(int)
        assert above[0] - above[2] > 100
        assert below[2] - below[0] > 100
        assert np.abs(above - zero).max() > 50
        assert np.abs(below - zero).max() > 50


def test_over_an_image_a_signed_map_leaves_it_light_grey_where_it_is_zero() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
    values = np.zeros((4, 4))
    values[0, 0] = 1
    picture = heat(values, image, signed=True)
    grey = np.rint(0.35 * 255 + 0.5 * image.mean(0))
    assert np.abs(picture[:, 1:].astype(float) - grey[1:]).max() <= 1
    assert (picture[:, 1:] == picture[0, 1:]).all()
    assert picture[0, 0, 0] > picture[2, 0, 0]


@pytest.mark.parametrize("signed", [False, True])
def test_a_flat_map_is_one_colour_and_a_lone_peak_is_seen(signed: bool) -> None:
    assert len(np.unique(heat(np.zeros((5, 5)), signed=signed).reshape(3, -1), axis=1).T) == 1
    lone = np.zeros((50, 50))
    lone[3, 3] = 1e-9
    picture = heat(lone, signed=signed)
    assert (picture[:, 3, 3] != picture[:, 0, 0]).any()


def test_a_map_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        heat(np.full((2, 2), np.nan))


def test_a_mask_is_outlined_at_its_border_and_the_rest_is_dimmed_if_asked() -> None:
    image = np.full((1, 20, 20), 90, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:15, :10] = True
    picture, dimmed = outlined(image, mask), outlined(image, mask, dim=True)
    assert picture.shape == (3, 400, 400)
    assert picture[:, 100, 100].tolist() == picture[:, 298, 198].tolist() == picture[:, 200, 0].tolist() == [255] * 3
    assert picture[:, 98, 100].tolist() == picture[:, 200, 201].tolist() == [0] * 3
    assert picture[:, 200, 100].tolist() == picture[:, 50, 50].tolist() == dimmed[:, 200, 100].tolist() == [90] * 3
    assert dimmed[:, 50, 50].tolist() == [30] * 3
    np.testing.assert_array_equal(decode_png(encode_png(picture)), picture)


def test_boxes_are_drawn_at_their_pixels() -> None:
    picture = framed(np.full((3, 20, 40), 90, np.uint8), [((2, 3, 7, 9), (1, 2, 3)), ((2, 3, 4, 5), (9, 9, 9))])
    assert picture.shape == (3, 400, 800)
    drawn = np.argwhere((picture == np.array([1, 2, 3], np.uint8)[:, None, None]).all(0))
    assert drawn.max(0).tolist() == [7 * 20 - 1, 9 * 20 - 1]
    assert picture[:, 40, 60].tolist() == [9, 9, 9]
    assert (picture[:, 100, 100] == 90).all()


def test_painted_gives_one_colour_to_each_number_and_lays_later_masks_on_top() -> None:
    image = np.full((3, 6, 6), 100, np.uint8)
    wide, low, high = np.zeros((3, 6, 6), bool)
    wide[:4], low[0, 0], high[5, 5] = True, True, True
    picture = painted(image, [wide, low, high], [0, 1, 1])
    assert picture[:, 4, 0].tolist() == [100, 100, 100]
    assert picture[:, 0, 0].tolist() == picture[:, 5, 5].tolist() != picture[:, 1, 1].tolist()


def test_numbers_are_written_on_an_enlarged_picture_where_the_masks_are() -> None:
    picture = np.full((3, 20, 30), 90, np.uint8)
    ring, corner = np.zeros((2, 20, 30), bool)
    ring[5:15, 5:15], ring[7:13, 7:13] = True, False
    corner[17:19, 27:29] = True
    found = numbered(picture, {1: ring, 2: corner})
    assert found.shape == (3, 400, 600)
    changed = (found != 90).any(0).reshape(20, 20, 30, 20).any((1, 3))
    assert (changed & ring).any()
    assert (changed & corner).any()
    assert not changed[:, 17:24].any()
    twice = numbered(picture, {1: ring | corner, 2: ring | corner}) != numbered(picture, {1: ring | corner})
    assert twice.any(), "the second number does not lie on the first"
    np.testing.assert_array_equal(numbered(picture, {})[:, ::20, ::20], picture)


def test_an_address_may_be_broken_between_its_parts_and_a_question_not() -> None:
    page = html_page("t", [Section("", ["Loaded by http://host/x?a=1&st=2. Is it so? Yes & no <b>."])])
    assert "http://host/x?<wbr>a=1&amp;<wbr>st=2. Is it so? Yes &amp; no &lt;b&gt;." in page
