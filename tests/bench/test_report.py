"""The report of a benchmark shows the figures of the JSON; invalid targets are named and enter no figure."""

import copy
import posixpath
import re
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from evofool.bench.headline import headline_sentences
from evofool.bench.interval import format_queries
from evofool.bench.reference import reference_note, reference_rows
from evofool.bench.report.bench_report import FIRST
from evofool.bench.report.overview import strongest
from evofool.bench.report.pictures import within_page
from evofool.bench.report.ranking import ranking_lead, sorted_results
from evofool.bench.report.sharing import sharing_section
from evofool.bench.report.target_page import target_head
from evofool.pages.sheet import Tile
from tests.bench.report_pages import ARMS, THREE, Reader, text_of, written
from tests.bench.samples import CHANGED, WRONG, results, summary, tiles

NASTY = "<script>alert('1')</script> & $x$"


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return results(5, ARMS, 60)


@pytest.fixture(scope="module")
def files(found: list[dict[str, Any]]) -> dict[str, bytes]:
    return written(found, images=tiles(found), notes=["A note."])


@pytest.fixture(scope="module")
def page(files: dict[str, bytes]) -> str:
    return files[FIRST].decode()


def check_links(files: dict[str, bytes]) -> None:
    """Every link and picture is on the page or among the files; nothing else is loaded."""
    shown = set()
    for path in (path for path in files if path.endswith(".html")):
        page = files[path].decode()
        tags = Reader(page).tags
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
        assert not re.search(r"https?:|@import|url\([^#]", page)
        assert {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "style"} == set()
        links = [attributes["href"] or "" for _, attributes in tags if "href" in attributes]
        sources = [attributes["src"] or "" for tag, attributes in tags if tag == "img"]
        assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(ids)
        for link in (link for link in [*links, *sources] if not link.startswith(("#", "data:image/png;base64,"))):
            shown.add(posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(link))))
            assert shown <= set(files), link
    assert {path for path in files if path.endswith(".png")} <= shown


def test_every_link_and_picture_is_on_the_page_or_a_file_beside_it(files: dict[str, bytes], found: Any) -> None:
    check_links(files)
    assert list(files)[-1] == FIRST
    names = [result["target"]["name"] for result in found]
    assert [path for path in files if path.endswith(".html")] == [*(f"report/{name}.html" for name in names), FIRST]
    assert {path for path in files if path.endswith(".png")} == {
        f"report/images/{result['target']['name']}/{arm}.png" for result in found for arm in result["scores"]["arms"]
    }
    alone = written(results(1, THREE, 20), images=tiles(results(1, THREE, 20)))
    check_links(alone)
    assert [path for path in alone if path.endswith(".html")] == [FIRST]


def test_every_page_has_one_main_part_with_its_contents_and_leads_back(files: dict[str, bytes], found: Any) -> None:
    for path in (path for path in files if path.endswith(".html")):
        tags = [tag for tag, _ in Reader(files[path].decode()).tags]
        assert [tags.count(tag) for tag in ("main", "nav", "h1")] == [1, 1, 1]
    for result in found:
        name = result["target"]["name"]
        assert f'href="report/{name}.html">{name}</a>' in files[FIRST].decode()
        assert 'href="../report.html">All 5 targets</a>' in files[f"report/{name}.html"].decode()


def test_a_page_of_twelve_targets_and_of_large_images_has_under_500_kb() -> None:
    many = results(12, points=200)
    rng = np.random.default_rng(0)
    large = [Tile(rng.integers(0, 256, (3, 224, 224), np.uint8), f"class {k}", 0.9) for k in range(30)]
    for result in many[:11]:
        result["target"]["scored_classes"] = 1_000
    photographs = {result["target"]["name"]: {arm: lambda: large for arm in ("canvas", "cppn")} for result in many[:11]}
    for path, content in written(many, images=photographs).items():
        assert not path.endswith(".html") or len(content) < 500_000, path


def test_images_that_do_not_fit_are_made_smaller_and_then_left_out() -> None:
    rng = np.random.default_rng(0)
    large = [Tile(rng.integers(0, 256, (3, 224, 224), np.uint8), str(k), 0.9) for k in range(10)]
    small = [Tile(np.zeros((1, 28, 28), np.uint8), str(k), 0.9) for k in range(10)]
    assert [picture.side for picture in within_page(large, 500_000)] == [84] * 10
    assert [picture.side for picture in within_page(large, 150_000)] == [56] * 10
    few = within_page(large, 50_000)
    assert 0 < len(few) < 10
    assert sum(len(picture.png) for picture in few) <= 50_000
    assert len(within_page(small, 50_000)) == 10
    assert within_page(large, 0) == within_page([], 0) == []


def test_names_and_reasons_are_escaped() -> None:
    targets = results(5, THREE, 20)
    for result in targets:
        result["target"]["name"] = f"{NASTY} {result['target']['name']}"
        result["flags"] = [{"level": level, "message": NASTY} for level in ("invalid", "warning")]
    data = summary(targets)
    data["statements"][0] |= {"statement": NASTY, "figures": NASTY}
    files = written(targets, data, tiles(targets), [NASTY])
    check_links(files)
    assert {posixpath.dirname(path) for path in files if path.endswith(".html")} == {"", "report"}
    for path in (path for path in files if path.endswith(".html")):
        page = files[path].decode()
        assert "script" not in {tag for tag, _ in Reader(page).tags}
        assert page.count("<script") == 0
        assert NASTY in Reader(page).text


def test_the_page_of_a_target_begins_with_its_headline(files: dict[str, bytes], found: Any) -> None:
    for result in found[:4]:
        page = files[f"report/{result['target']['name']}.html"].decode()
        lead = page.index(headline_sentences(result)[0])
        assert page.index("<h1>") < lead < page.index("What this means") < page.index("<svg")
        assert lead < page.index("Nobody has looked at the images") < page.index("<nav")
    black = strongest(found[0], black_box=True)
    queries, q50 = found[0]["scores"]["headline"]["queries"], found[0]["scores"]["arms"][str(black)]["q50"]
    shown = [figure.figure for figure in target_head(found[0]).figures]
    assert shown == [format_queries(queries["value"]), "0.96", format_queries(q50["value"] / 10)]
    assert not target_head(found[0]).tables, "other attacks than those of the reference rows"
    assert strongest(found[0], black_box=False) == "apgd"
    assert strongest(found[0], black_box=True) in ("cppn", "per-class")


def test_the_headline_stands_beside_reference_rows_of_the_same_attacks() -> None:
    whole = results(1, [*ARMS, "canvas"], 20)[0]
    known = [row["target"]["name"] for row in reference_rows(whole)]
    assert known
    (scale,) = target_head(whole).tables
    assert [row[0].text for row in scale.rows] == ["lenet", *known]
    assert scale.under.startswith("Within 100 queries a class by each of canvas, square and apgd; ")
    assert scale.under.endswith(reference_note(whole))
    other = whole | {"target": whole["target"] | {"labels": list("abcdefghij")}}
    assert not target_head(other).tables


def test_words_come_before_symbols(files: dict[str, bytes]) -> None:
    for path in (path for path in files if path.endswith(".html")):
        text = text_of(files, path)
        first = text[: text.index("What this means")]
        assert not re.search("R95|Q50|tau", first)
        assert re.search(r"\bR95\b|\bQ50\b", text)


def test_the_acceptance_scores_are_compared_with_their_controls(files: dict[str, bytes], found: Any) -> None:
    text = text_of(files, f"report/{found[0]['target']['name']}.html")
    section = text[text.rindex("Acceptance under several scores") :]
    assert "The easiest score is pair." in section
    assert "Left out: features: a target without a PyTorch network gives no features." in section
    assert "± 0.006" in section


def test_results_of_an_earlier_evofool_get_a_page() -> None:
    old = results(2, THREE, 20)
    for result in old:
        del result["scores"]["headline"]
    files = written(old)
    assert "The result has no headline: it was written by an earlier evofool." in text_of(files, "report/lenet.html")
    assert "classes fooled after 10,000 queries over all" in text_of(files)
    assert "classes fooled within 100 queries a class\nstrongest" in text_of(written(results(2, [*THREE, "apgd"], 20)))


def test_invalid_targets_are_shown_with_their_reason_and_enter_no_figure(files: dict[str, bytes], found: Any) -> None:
    name = found[4]["target"]["name"]
    for path in (FIRST, f"report/{name}.html"):
        assert f"The evaluation of {name} is invalid: {WRONG}." in text_of(files, path)
    assert f"invalid {WRONG}" in text_of(files)
    assert f"invalid {CHANGED}" in text_of(files, f"report/{found[3]['target']['name']}.html")
    assert "4 of 5 without 3" in text_of(files, f"report/{found[2]['target']['name']}.html")
    assert sorted_results(found)[-1] == found[4]
    assert ranking_lead([found[4], found[0]]) == "Only lenet has a valid result, so nothing is compared."
    shown = sharing_section(found)
    names = [row[0] for table in shown.tables for row in table.rows]
    assert names == [found[k]["target"]["name"] for k in (0, 1, 2)]


def test_without_a_valid_target_the_page_gives_the_reason() -> None:
    targets = results(5, THREE, 20)[4:]
    empty = {"statements": [], "groups": {}, "transfer": None}
    assert WRONG in text_of(written(targets, empty))
    targets.append(targets[0] | {"target": targets[0]["target"] | {"name": "other"}})
    assert "No target has a valid result." in text_of(written(targets, empty))


def test_the_page_of_one_target_has_no_transfer_and_no_groups() -> None:
    text = text_of(written(results(1, THREE, 20)))
    assert "How easily lenet is fooled" in text
    assert "Transfer" not in text
    assert "Groups of networks" not in text


def test_statements_are_met_not_met_or_undecided(page: str) -> None:
    marks = re.findall(r'<b class="\w+">([\w ]+)</b></td><td>(?:evolution|the d|the a)', page)
    assert marks == ["met", "not met", "undecided"]


def test_the_methods_of_the_intervals_are_named(page: str) -> None:
    text = Reader(page).text
    assert "those of shares are Wilson's" in text
    assert "expected to come out within" not in text


def test_a_report_does_not_change_its_arguments(found: list[dict[str, Any]]) -> None:
    before, data = copy.deepcopy(found), summary(found)
    data_before = copy.deepcopy(data)
    written(found[3:], data)
    assert (found, data) == (before, data_before)


def test_with_many_classes_a_note_names_the_images_of_the_sheet() -> None:
    targets = results(1, THREE, 20)
    assert "highest margins" not in text_of(written(targets, images=tiles(targets)))
    targets[0]["target"]["scored_classes"] = 1_000
    text = text_of(written(targets, images=tiles(targets)))
    # In the text of the section, and at the sheet of each arm.
    assert text.count("the 30 images with the highest margins, in the order of classes") == 4
