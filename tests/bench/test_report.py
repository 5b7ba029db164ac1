"""The report of a benchmark shows the figures of the JSON; invalid targets are named and enter no figure."""

import copy
import posixpath
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from evofool.bench.headline import headline_sentence, headline_sentences, second_sentence
from evofool.bench.interval import format_queries
from evofool.bench.plan import parse
from evofool.bench.reference import reference_note, reference_rows, reference_sentence
from evofool.bench.report.bench_report import FIRST, bench_report
from evofool.bench.report.formatting import (
    confidences_cell,
    counted,
    format_duration,
    format_share,
    join_names,
    quantiles_cell,
    queries_cell,
    ratio_cell,
    share_cell,
)
from evofool.bench.report.likeness import likeness_section, looked_sentence
from evofool.bench.report.overview import strongest
from evofool.bench.report.pictures import Tiles, within_page
from evofool.bench.report.places import listed, places, tied_first
from evofool.bench.report.ranking import ranking_head, ranking_lead, sorted_results
from evofool.bench.report.sharing import sharing_section
from evofool.bench.report.target_page import attacks_section, target_head, target_images_section
from evofool.bench.statistics import share_interval
from evofool.cli import bench as cli_bench
from evofool.cli import console_jobs
from evofool.pages.html_page import NOTHING, TableCell
from evofool.pages.sheet import Tile
from evofool.sweep.runner import WorkProgress
from tests.bench.samples import CHANGED, WRONG, results, summary, tiles

ARMS = ["direct", "cppn", "per-class", "square", "apgd"]
THREE = ["direct", "cppn", "per-class"]
NASTY = "<script>alert('1')</script> & $x$"


class Reader(HTMLParser):
    """The tags with their attributes, and the text, a line for each element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page[page.index("<body>") :])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag in ("i", "b") else "\n"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return results(5, ARMS, 60)


def written(
    found: list[dict[str, Any]], data: dict[str, Any] | None = None, images: Tiles | None = None, notes: Sequence[str] = ()
) -> dict[str, bytes]:
    """The files of a report, in their order. Without data: that of the samples, without groups for a single target."""
    if data is None:
        data = summary(found) | ({"groups": {}} if len(found) == 1 else {})
    return dict(bench_report(found, data, images or {}, notes))


def text_of(files: dict[str, bytes], path: str = FIRST) -> str:
    return Reader(files[path].decode()).text


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


def test_the_strongest_arm_has_the_lowest_q50_or_if_all_are_censored_the_most_classes() -> None:
    found = results(1, points=20)[0]
    arms = found["scores"]["arms"]
    for arm in arms.values():
        arm["q50"]["value"] = None
        for row in arm["r95"]:
            row["value"] = 0.1
    arms["square"]["r95"][-1]["value"] = 0.4
    arms["noise"]["r95"][-1]["value"] = 0.9
    assert strongest(found, black_box=True) == "square"
    arms["nes"]["q50"]["value"] = 9_000.0
    arms["fourier"]["q50"]["value"] = 8_000.0
    assert strongest(found, black_box=True) == "nes"
    assert strongest(found, black_box=False) == "fourier"
    assert strongest(found | {"valid": False}, black_box=True) is None


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


@pytest.mark.parametrize(
    ("rows", "lead"),
    [
        ([(2.0, 1.5, 3.0)], "Yes: against the control, sharing saves queries."),
        ([(0.5, 0.3, 0.8)], "No: against the control, sharing costs queries."),
        ([(1.1, 0.8, 1.4)], "Undecided: against the control"),
        ([(2.0, 1.5, 3.0), (0.5, 0.3, 0.8)], "It depends on the target"),
        (
            [(2.0, 1.5, None), (1.1, 0.8, None)],
            "saves queries on the targets where the interval excludes 1 (fewer queries on 1 of 2 targets, more on 0, "
            "undecided on 1)",
        ),
        ([(None, None, None)], "Undecided: against the control"),
        ([(0.5, None, 0.9)], "No: against the control, sharing costs queries."),
    ],
)
def test_the_question_of_sharing_is_answered_for_every_outcome(rows: list[tuple[Any, ...]], lead: str) -> None:
    targets = results(len(rows), THREE, 20)
    for result, (ratio, low, high) in zip(targets, rows, strict=True):
        bound = "unknown" if ratio is None else ">=" if high is None else "<=" if low is None else "="
        row = {"value": ratio, "bound": bound, "low": low, "high": high, "pairs": 5, "censored": int(bound != "=")}
        result["scores"]["sharing"] = {"per-class": row}
    section = sharing_section(targets)
    assert lead in section.lead
    assert bool(section.plots) == any(ratio for ratio, _, _ in rows)


def test_without_the_arms_sharing_is_reported_as_not_measured() -> None:
    targets = results(1, THREE[:2], 20)
    assert "Not measured" in sharing_section(targets).lead
    targets[0]["scores"]["sharing"] = {
        "nes": {"value": 2.0, "bound": "=", "low": 1.5, "high": 3.0, "pairs": 5, "censored": 0}
    }
    assert "the arm per-class was not run" in sharing_section(targets).lead


def test_statements_are_met_not_met_or_undecided(page: str) -> None:
    marks = re.findall(r'<b class="\w+">([\w ]+)</b></td><td>(?:evolution|the d|the a)', page)
    assert marks == ["met", "not met", "undecided"]


def test_a_claim_needs_five_networks() -> None:
    targets = results(5, THREE, 20)
    data = summary(targets)
    text = text_of(written(targets, data))
    assert (
        "Fewer than 5 independently trained networks: undefended (3). These do not support a claim about a defence." in text
    )
    data["groups"]["undefended"]["targets"] = list("abcde")
    data["groups"]["outlier exposure"] = data["groups"]["undefended"]
    assert "do not support a claim" not in text_of(written(targets, data))


def test_a_censored_group_is_shown_as_a_bound() -> None:
    targets = results(5, THREE, 20)
    data = summary(targets)
    arms = data["groups"]["undefended"]["arms"]
    arms["per-class"] = {"q50": {"value": None, "bound": ">=", "low": 10_000, "high": None, "networks": 5, "censored": 5}}
    text = text_of(written(targets, data))
    assert "apgd\n240 [at least 150]\n3\n1" in text
    assert "per-class\n> 10,000 [at least 10,000]\n5\n5" in text


def test_a_median_of_bounds_is_shown_as_a_bound() -> None:
    targets = results(3, THREE, 20)
    rows = [(2.0, ">="), (3.0, "="), (4.0, "=")]

    def sharing_text() -> str:
        for result, (ratio, bound) in zip(targets, rows, strict=True):
            limits = {"low": 1.5, "high": None if bound == ">=" else 9.0, "pairs": 5, "censored": 1}
            result["scores"]["sharing"] = {"per-class": {"value": ratio, "bound": bound, **limits}}
        return " ".join(sharing_section(targets).text)

    assert "the median ratio is >= 3.00" in sharing_text()
    rows[0] = (2.0, "=")
    assert "the median ratio is 3.00" in sharing_text()
    rows[0], rows[1] = (2.0, ">="), (3.0, "<=")
    assert "the median ratio" not in sharing_text()


def test_the_number_of_images_of_each_seed_is_shown_for_detectors() -> None:
    targets = results(1, THREE, 20)
    for k, row in enumerate(targets[0]["scores"]["detectors"]):
        row["images"] = [7, 9, 8] if k else [1_000] * 3
    text = text_of(written(targets))
    assert "images per seed" in text
    assert "static\n7 to 9" in text
    assert "\n1,000\n" in text


def test_without_a_temperature_the_column_of_calibrated_confidence_is_empty() -> None:
    targets = results(1, THREE, 20)
    for arm in targets[0]["scores"]["arms"].values():
        arm["calibrated_confidence"] = None
    text = text_of(written(targets))
    assert "0.9997" not in text


@pytest.mark.parametrize(
    ("known", "reason"), [(0, "above the declared one, so"), (2500, "The weights were trained on some or all of them, so")]
)
def test_suspected_training_images_are_shown_with_the_reason(known: int, reason: str) -> None:
    targets = results(1, THREE, 20)
    targets[0]["images"] |= {"suspected_training": True, "declared_top1": 0.9, "trained_on": known}
    text = text_of(written(targets))
    assert "Suspected training images: lenet. " in text
    assert reason in text
    assert ("declared one, so" in text) == (not known)


def test_the_methods_of_the_intervals_are_named(page: str) -> None:
    text = Reader(page).text
    assert "those of shares are Wilson's" in text
    assert "expected to come out within" not in text


def test_a_report_does_not_change_its_arguments(found: list[dict[str, Any]]) -> None:
    before, data = copy.deepcopy(found), summary(found)
    data_before = copy.deepcopy(data)
    written(found[3:], data)
    assert (found, data) == (before, data_before)


def test_with_a_single_seed_a_note_explains_the_missing_intervals() -> None:
    targets = results(2, THREE, 20)
    assert "Brackets: 95% intervals over seeds." in ranking_head(targets, {}).tables[0].under
    for result in targets:
        result["protocol"] = result["protocol"] | {"seeds": [0]}
    assert "One seed: no intervals." in ranking_head(targets, {}).tables[0].under


def test_with_many_classes_a_note_names_the_images_of_the_sheet() -> None:
    targets = results(1, THREE, 20)
    assert "highest margins" not in text_of(written(targets, images=tiles(targets)))
    targets[0]["target"]["scored_classes"] = 1_000
    text = text_of(written(targets, images=tiles(targets)))
    # In the text of the section, and at the sheet of each arm.
    assert text.count("the 30 images with the highest margins, in the order of classes") == 4


# --- order, as far as it is shown


def q50(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "bound": ">=" if value is None or high is None else "=", "low": low, "high": high}


def test_the_images_of_a_target_say_how_many_of_them_fool_it() -> None:
    result = results(1)[0]
    result["scores"]["arms"]["cppn"]["accepted_at"] = {"0": [12, None, None, 7], "1": [1, 2, 3, 4]}
    section = target_images_section(result, "cppn", [], [])
    assert "2 of 4 classes are fooled in this seed." in section.text[0]
    del result["scores"]["arms"]["cppn"]["accepted_at"]
    assert "in this seed" not in target_images_section(result, "cppn", [], []).text[0]


def test_places_are_what_intervals_that_do_not_overlap_allow() -> None:
    rows = {"a": q50(10, 8, 12), "b": q50(14, 11, 20), "c": q50(30, 21, 40), "d": q50(None, 10_000), "e": q50(50)}
    assert {name: str(place) for name, place in places(rows).items()} == {
        "a": "1 to 3", "b": "1 to 3", "c": "3 to 4", "d": "4 to 5", "e": "1 to 5"
    }  # fmt: skip
    assert tied_first(rows) == ["a", "b", "e"]
    assert tied_first(rows, most=True) == ["d", "e"]
    assert str(places({"a": q50(1)})["a"]) == "1"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 others"


def two(first: dict[str, Any], second: dict[str, Any], arms: list[str] = THREE) -> list[dict[str, Any]]:
    """Two targets whose arms all have this Q50."""
    found = results(2, arms, 20)
    for result, row in zip(found, (first, second), strict=True):
        for arm in result["scores"]["arms"].values():
            arm["q50"] = row
    return found


def test_a_winner_is_named_only_where_the_intervals_do_not_overlap() -> None:
    apart = two(q50(100, 90, 110), q50(200, 150, 260))
    lead = ranking_lead(apart)
    assert lead == (
        "lenet-2015 is the hardest to fool (20 queries a class). lenet is the easiest to fool (10 queries a class)."
    )
    assert [result["target"]["name"] for result in sorted_results(apart)] == ["lenet-2015", "lenet"]
    (table,) = ranking_head(apart, {}).tables
    assert [row[1] for row in table.rows] == ["1", "2"]
    together = two(q50(100, 90, 210), q50(200, 150, 260))
    assert ranking_lead(together).startswith("No difference shown between lenet-2015 and lenet: ")
    (table,) = ranking_head(together, {}).tables
    assert [row[1] for row in table.rows] == ["1 to 2", "1 to 2"]
    assert ranking_lead(two(q50(100), q50(200))).startswith("No difference shown"), "one seed"
    beyond = two(q50(None, 10_000), q50(200, 150, 260))
    assert ranking_lead(beyond).startswith("lenet is the hardest to fool (> 1,000 queries a class).")


def test_targets_whose_headlines_do_not_compare_are_ordered_by_their_strongest_attack() -> None:
    found = two(q50(100, 90, 110), q50(200, 150, 260), ARMS)
    for result, queries in zip(found, (50.0, 5.0), strict=True):
        result["scores"]["headline"]["queries"] = {"value": queries, "low": queries - 1, "high": queries + 1}
    assert ranking_lead(found).startswith("lenet is the hardest to fool (50 queries a class).")
    found[0]["scores"]["arms"]["apgd"] |= {"gradients": "student"}
    assert ranking_lead(found).startswith("lenet-2015 is the hardest to fool (20 queries a class).")
    note = "By the strongest attack on each target. Their headlines do not compare; what differs: attacks. "
    assert ranking_head(found, {}).tables[0].under.startswith(note)


@pytest.mark.parametrize("option", ["average", "views"])
def test_targets_that_take_other_numbers_of_queries_for_an_image_have_no_order(option: str) -> None:
    found = two(q50(100, 90, 110), q50(1600, 1500, 1700))
    found[1]["target"][option] = 16
    assert ranking_lead(found) == (
        "Not compared, because an image takes another number of queries on each target: lenet was measured with one answer "
        f"to each image; lenet-2015 was measured with {option}=16."
    )
    assert sorted_results(found) == found
    assert [row[1] for row in ranking_head(found, {}).tables[0].rows] == [NOTHING, NOTHING]
    found[0]["target"][option] = 16
    assert ranking_lead(found).startswith("lenet-2015 is the hardest to fool")


def test_of_attacks_too_no_strongest_one_is_named_where_intervals_overlap() -> None:
    found = two(q50(100, 90, 110), q50(100, 90, 110))[0]
    assert attacks_section(found).lead == "No difference shown between direct, cppn and per-class: their intervals overlap."
    found["scores"]["arms"]["per-class"]["q50"] = q50(50, 40, 60)
    assert attacks_section(found).lead == "per-class needs the fewest queries; its interval overlaps no other."
    (table,) = attacks_section(found).tables
    assert [(row[0].text, row[-1]) for row in table.rows] == [("per-class", "1"), ("direct", "2 to 3"), ("cppn", "2 to 3")]


# --- whether the images look like their class


def test_until_somebody_has_looked_the_page_says_so_and_then_has_the_figures_with_and_without() -> None:
    (found,) = results(1, THREE, 20)
    assert looked_sentence([found]).startswith("Nobody has looked at the images")
    assert not likeness_section(found).tables
    share = {"value": 0.7, "low": 0.6, "high": 0.8}
    found["scores"]["likeness"] = {
        "queries_per_class": 100,
        "with": {"value": 0.9, "low": 0.8, "high": 1.0},
        "measure": {"images": 10, "alike": 2, "without": share},
        "people": None,
    }
    assert looked_sentence([found]).startswith("Nobody has looked at the images")
    (table,) = likeness_section(found).tables
    assert [row[1] for row in table.rows] == [TableCell("0.90", "[0.80, 1.00]"), TableCell("0.70", "[0.60, 0.80]")]
    found["scores"]["likeness"]["people"] = {"raters": 8, "images": 10, "alike": 1, "open": 3, "without": share}
    assert looked_sentence([found]) == "8 people looked at 10 images: 1 shows its class, 3 are undecided."
    (table,) = likeness_section(found).tables
    assert table.rows[2][2:] == ["10", "1"]
    assert "8 people looked" in text_of(written([found]))


# --- the console


def console(found: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> str:
    cli_bench.print_outcome({result["target"]["name"]: result for result in found}, {})
    return capsys.readouterr().out


def test_the_console_has_the_ratio_of_each_arm_that_cppn_is_compared_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = console(found := results(5, ARMS, 20), capsys)
    heads = [f"{each['target']['name']}: {headline_sentence(each)} {second_sentence(each)}".rstrip() for each in found]
    assert text.splitlines()[:5] == heads
    assert text.splitlines()[6].split() == ["target", "strongest", "arms", "acceptance", "(stricter)", "(queries)"]
    assert text.count(": per-class / cppn ") == text.count("; apgd / cppn ") == 4, "one target is invalid"
    assert "nes / cppn" not in text
    text = console(results(1, ["direct", "cppn"], 20), capsys)
    assert " / cppn " not in text
    text = console(found := results(2, [*ARMS, "canvas"], 20), capsys)
    assert text.count("For scale") == text.splitlines().count(reference_sentence(found[0])) == 1
    assert "Brackets: 95% intervals over seeds." in text


def test_a_transfer_attack_is_named_with_its_surrogates_and_is_no_black_box(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(1, ["cppn", "surrogate"], 60)
    assert strongest(found[0], black_box=True) == "cppn"
    assert strongest(found[0], black_box=False) == "surrogate"
    text = text_of(written(found))
    assert "Threat model of the arm surrogate: transfer." in text
    assert "It is no black-box arm" in text
    for figure in ("lenet-cousin", "0.96", "2,500", "surrogates' forwards", "12,345"):
        assert figure in text
    assert "lenet: lenet-cousin (0.96)" in console(found, capsys)
    alone = results(1, ["cppn"], 60)
    assert "urrogate" not in text_of(written(alone))
    assert "urrogate" not in console(alone, capsys)


def test_an_invalid_target_has_no_figures_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(5, ARMS, 20)
    rows = [line.split() for line in console(found, capsys).splitlines()]
    assert [found[4]["target"]["name"], "INVALID"] in rows


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (WorkProgress(done=24, total=130), "24 of 130 cells done"),
        (
            WorkProgress(done=24, total=130, running=2, running_share=1.0, done_here=4, seconds=50),
            "24 of 130 cells done, 2 runn",
        ),
        (WorkProgress(done=1, total=1, done_here=1, seconds=9), "1 of 1 cell done"),
        (WorkProgress("training networks", 4, 4, 0, 0.0, 4, 9.0), "training networks: 4 of 4 done"),
        (WorkProgress("lenet (1 of 1)"), "lenet (1 of 1)"),
    ],
)
def test_progress_leaves_out_zeros_and_the_time_of_finished_work(progress: WorkProgress, text: str) -> None:
    shown = console_jobs.progress_text(progress, "cell")
    assert shown.startswith(text)
    assert ("left" in shown) == (progress.running > 0)
    assert "0 under way" not in shown


def test_singular_and_plural_agree_in_the_opening_text() -> None:
    recipe = {"images": "digits", "arms": ["cppn"], "budgets": [100], "seeds": 1, "targets": [{"target": "lenet"}]}
    text = "\n".join(cli_bench._opening_lines(parse(recipe, "here"), Path("x")))
    assert "1 target x 1 arm x 1 seed = 1 cell of 100 queries" in text
    assert "workers" not in text
    recipe |= {"workers": 2, "targets": [{"target": "lenet"}, {"target": "http://localhost:1/x"}], "seeds": 3}
    text = "\n".join(cli_bench._opening_lines(parse(recipe, "here"), Path("x")))
    assert "2 targets x 1 arm x 3 seeds = 6 cells" in text
    assert "2, but none for black boxes, whose cells run one after the other" in text


def test_two_results_with_the_same_name_get_the_names_of_their_files() -> None:
    names = cli_bench._names
    assert names(("a", "b"), (Path("x/a.json"), Path("y/b.json"))) == ("a", "b")
    assert names(("a", "a"), (Path("x/old.json"), Path("y/new.json"))) == ("a (old.json)", "a (new.json)")
    paths = Path("x/a.json"), Path("y/a.json")
    assert names(("a", "a"), paths) == (f"a ({paths[0]})", f"a ({paths[1]})")


# --- figures


def test_shares_are_never_rounded_to_0_or_1() -> None:
    assert [format_share(v) for v in (0, 0.001, 0.005, 0.123, 0.994, 0.9951, 1, None)] == [
        "0.00", "<0.01", "0.01", "0.12", "0.99", ">0.99", "1.00", NOTHING
    ]  # fmt: skip


def test_a_share_near_1_is_shown_with_a_bound() -> None:
    found = share_interval([1.0] * 3, None, 10)
    assert share_cell(found.to_dict()) == TableCell("1.00", "[at least 0.76]")
    assert share_cell(share_interval([0.0] * 3, None, 10).to_dict()) == TableCell("0.00", "[at most 0.24]")


def test_queries_can_be_divided_by_the_number_of_classes() -> None:
    row = {"value": 812.0, "bound": ">=", "low": 700.0, "high": None}
    assert queries_cell(row, 10_000) == TableCell("812", "[at least 700]")
    assert queries_cell(row, 10_000, 100) == TableCell("8.1", "[at least 7.0]")
    beyond = {"value": None, "bound": ">=", "low": None, "high": None}
    assert [queries_cell(beyond, 10_000, per).text for per in (1, 10)] == ["> 10,000", "> 1,000"]


def test_unknown_ratios_quantiles_and_confidences_are_shown_as_unknown() -> None:
    assert ratio_cell({"value": 2.0, "bound": ">=", "low": 1.5, "high": None}) == TableCell("2.00", "[at least 1.50]")
    assert ratio_cell({"value": None, "bound": "unknown", "low": None, "high": None}) == TableCell(NOTHING, "unknown")
    assert ratio_cell(None) == TableCell(NOTHING)
    assert quantiles_cell({}) == TableCell(NOTHING)
    assert quantiles_cell({"5": 1.0, "50": 2.0, "95": 3.0}, 1) == TableCell("2.0", "[1.0, 3.0]")
    assert confidences_cell({"5": 1e-9, "50": 0.99999, "95": 1.0}) == TableCell(">0.9999", "[<0.0001, 1]")


def test_durations_numbers_and_lists_are_formatted_for_reading() -> None:
    assert [format_duration(v) for v in (5, 600, 7_200, None)] == ["5 s", "10 min", "2.0 h", NOTHING]
    assert [counted(number, "seed") for number in (0, 1, 1_000)] == ["0 seeds", "1 seed", "1,000 seeds"]
    assert [join_names(names) for names in ([], ["a"], ["a", "b", "c"])] == ["none", "a", "a, b and c"]
