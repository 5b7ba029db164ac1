"""The page of an explanation, and maps as pictures."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from evofool.images import decode_png, encode_png
from evofool.pages.explanation import Picture, Section, Table, explanation_page
from evofool.pages.heat import heat, outlined, painted

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
    return explanation_page(
        NASTY,
        [
            Section("", ["First."], pictures=[Picture(NASTY, png(), NASTY)]),
            Section(NASTY, [NASTY, "More."], NASTY, [Picture("large", png(300))], [table], NASTY),
        ],
        [NASTY],
    )


def test_whatever_it_is_given_stays_text() -> None:
    page = Reader(full())
    assert not page.open
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) == 11
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images[0]["alt"] == f"{NASTY}, {NASTY}"


def test_pictures_are_in_the_page_to_the_bit_and_nothing_is_loaded_from_elsewhere() -> None:
    page = Reader(full())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    found = [base64.b64decode((source or "").removeprefix("data:image/png;base64,")) for source in sources]
    assert found == [png(), png(300)]
    links = {name for _, attributes in page.tags for name in attributes} & {"href", "srcset", "action", "onload"}
    assert not links
    assert not re.search(r"https?:|@import|url\(", full())
    assert "default-src 'none'" in full()


def test_small_pictures_are_enlarged_by_a_whole_factor_without_smoothing_and_large_ones_are_not() -> None:
    small, large = (attributes for tag, attributes in Reader(full()).tags if tag == "img")
    assert (small["width"], small["height"], small["class"]) == ("224", "224", "small")
    assert (large["width"], large["height"], large.get("class")) == ("300", "300", None)


def test_columns_of_numbers_alone_are_set_to_the_right() -> None:
    cells = [attributes.get("class") for tag, attributes in Reader(full()).tags if tag in ("th", "td")]
    assert cells == [None, "number"] * 3


def test_a_page_says_light_and_dark_and_print_and_its_language() -> None:
    page = full()
    for words in ("prefers-color-scheme: dark", "@media print", '<html lang="en">', '<meta charset="utf-8">', "viewport"):
        assert words in page


def test_a_page_of_nothing_is_a_page() -> None:
    assert Reader(explanation_page("Empty", [])).text.count("Empty") == 2


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


def test_over_an_image_a_signed_map_leaves_it_grey_where_it_is_zero() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
    values = np.zeros((4, 4))
    values[0, 0] = 1
    picture = heat(values, image, signed=True)
    grey = np.rint(image.mean(0))
    assert (picture[:, 1:] == grey[1:]).all()
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


def test_outlined_dims_what_is_outside_and_draws_the_box() -> None:
    image = np.full((1, 6, 6), 90, np.uint8)
    mask = np.zeros((6, 6), bool)
    mask[1:4, 1:4] = True
    picture = outlined(image, mask, (0, 0, 6, 6))
    assert picture.shape == (3, 6, 6)
    assert (picture[:, 2, 2] == 90).all()
    assert (picture[:, 4, 4] == 30).all()
    assert picture[:, 0, 3].tolist() == [255, 64, 64]
    np.testing.assert_array_equal(decode_png(encode_png(picture)), picture)


def test_painted_gives_one_colour_to_each_number_and_lays_later_masks_on_top() -> None:
    image = np.full((3, 6, 6), 100, np.uint8)
    wide, low, high = np.zeros((3, 6, 6), bool)
    wide[:4], low[0, 0], high[5, 5] = True, True, True
    picture = painted(image, [wide, low, high], [0, 1, 1])
    assert picture[:, 4, 0].tolist() == [100, 100, 100]
    assert picture[:, 0, 0].tolist() == picture[:, 5, 5].tolist() != picture[:, 1, 1].tolist()
