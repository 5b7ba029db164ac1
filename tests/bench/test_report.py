"""The report of a benchmark shows the figures of the JSON; invalid targets are named and enter no figure."""

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evofool.bench.headline import headline_sentence, second_sentence
from evofool.bench.plan import parse
from evofool.bench.report.bench_report import bench_report
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
from evofool.bench.report.overview import sharing_section, strongest, summary_section
from evofool.bench.statistics import share_interval
from evofool.cli import bench as cli_bench
from evofool.cli import console_jobs
from evofool.pages.html_page import NOTHING, TableCell
from evofool.sweep.runner import WorkProgress
from tests.bench.samples import CHANGED, WRONG, results, sheets, summary

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


@pytest.fixture(scope="module")
def page(found: list[dict[str, Any]]) -> str:
    return bench_report(found, summary(found), sheets(found), ["A note."])


def test_the_page_loads_nothing_and_every_link_has_its_target_on_the_page(page: str) -> None:
    tags = Reader(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for _, attributes in tags if "href" in attributes]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert not re.search(r"https?:|@import|url\([^#]", page)
    assert {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "style"} == set()
    assert all((a["src"] or "").startswith("data:image/png;base64,") for t, a in tags if t == "img")


def test_names_and_reasons_are_escaped() -> None:
    targets = results(5, THREE, 20)
    for result in targets:
        result["target"]["name"] = f"{NASTY} {result['target']['name']}"
        result["flags"] = [{"level": level, "message": NASTY} for level in ("invalid", "warning")]
    data = summary(targets)
    data["statements"][0] |= {"statement": NASTY, "figures": NASTY}
    page = bench_report(targets, data, {}, [NASTY])
    assert "script" not in {tag for tag, _ in Reader(page).tags}
    assert page.count("<script") == 0
    assert NASTY in Reader(page).text


def test_the_summary_comes_first_and_names_both_strongest_arms(page: str, found: Any) -> None:
    text = Reader(page).text
    first = text[: text.index("How to read this page")]
    q50 = found[0]["scores"]["arms"]["apgd"]["q50"]
    assert f"{q50['value']:,.0f}" in first
    assert strongest(found[0], black_box=False) == "apgd"
    assert strongest(found[0], black_box=True) in ("cppn", "per-class")
    assert page.index("strongest arm") < page.index("<nav") < page.index("<svg")


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


def test_invalid_targets_are_shown_with_their_reason_and_enter_no_figure(page: str, found: Any) -> None:
    text = Reader(page).text
    assert f"The evaluation of {found[4]['target']['name']} is invalid: {WRONG}." in text
    assert f"invalid {WRONG}" in text
    assert f"invalid {CHANGED}" in text
    assert "4 of 5 without 3" in text
    lead = summary_section([found[4], found[0]]).lead
    assert found[4]["target"]["name"] not in lead
    shown = sharing_section(found)
    names = [row[0] for table in shown.tables for row in table.rows]
    assert names == [found[k]["target"]["name"] for k in (0, 1, 2)]


def test_without_a_valid_target_the_page_gives_the_reason() -> None:
    targets = results(5, THREE, 20)[4:]
    text = Reader(bench_report(targets, {"statements": [], "groups": {}, "transfer": None}, {})).text
    assert "No arm that works without gradients has a valid result." in text
    assert WRONG in text


def test_the_page_of_one_target_has_no_transfer_and_no_groups() -> None:
    targets = results(1, THREE, 20)
    text = Reader(bench_report(targets, summary(targets) | {"groups": {}}, {})).text
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
    text = Reader(bench_report(targets[:1], data, {})).text
    assert (
        "Fewer than 5 independently trained networks: undefended (3). These do not support a claim about a defence." in text
    )
    data["groups"]["undefended"]["targets"] = list("abcde")
    assert "do not support a claim" not in Reader(bench_report(targets[:1], data, {})).text


def test_a_censored_group_is_shown_as_a_bound() -> None:
    targets = results(5, THREE, 20)
    data = summary(targets)
    arms = data["groups"]["undefended"]["arms"]
    arms["per-class"] = {"q50": {"value": None, "bound": ">=", "low": 10_000, "high": None, "networks": 5, "censored": 5}}
    text = Reader(bench_report(targets, data, {})).text
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
    text = Reader(bench_report(targets, summary(targets) | {"groups": {}}, {})).text
    assert "images per seed" in text
    assert "static\n7 to 9" in text
    assert "\n1,000\n" in text


def test_without_a_temperature_the_column_of_calibrated_confidence_is_empty() -> None:
    targets = results(1, THREE, 20)
    for arm in targets[0]["scores"]["arms"].values():
        arm["calibrated_confidence"] = None
    text = Reader(bench_report(targets, summary(targets) | {"groups": {}}, {})).text
    assert "0.9997" not in text


@pytest.mark.parametrize(
    ("known", "reason"), [(0, "above the declared one, so"), (2500, "The weights were trained on some or all of them, so")]
)
def test_suspected_training_images_are_shown_with_the_reason(known: int, reason: str) -> None:
    targets = results(1, THREE, 20)
    targets[0]["images"] |= {"suspected_training": True, "declared_top1": 0.9, "trained_on": known}
    text = Reader(bench_report(targets, summary(targets) | {"groups": {}}, {})).text
    assert "Suspected training images: lenet. " in text
    assert reason in text
    assert ("declared one, so" in text) == (not known)


def test_the_methods_of_the_intervals_are_named(page: str) -> None:
    text = Reader(page).text
    assert "those of shares are Wilson's" in text
    assert "expected to come out within" not in text


def test_sheets_that_would_make_the_page_too_large_are_named() -> None:
    targets = results(1, THREE, 20)
    pictures = sheets(targets)
    large = {"lenet": {**pictures["lenet"], "per-class": pictures["lenet"]["per-class"] + bytes(4_000_000)}}
    page = bench_report(targets, summary(targets), large)
    assert "the page would be too large: per-class." in Reader(page).text
    assert len(page) < 2_000_000


def test_a_report_does_not_change_its_arguments(found: list[dict[str, Any]]) -> None:
    before, data = copy.deepcopy(found), summary(found)
    data_before = copy.deepcopy(data)
    summary_section(found)
    bench_report(found[3:], data, {})
    assert (found, data) == (before, data_before)


def test_the_lead_of_one_censored_target_compares_it_with_no_others() -> None:
    targets = results(2, THREE, 20)
    for result in targets:
        for arm in result["scores"]["arms"].values():
            arm["q50"] |= {"value": None, "bound": ">=", "low": None, "high": None}
    alone = "lenet: any arm that needs no gradients fools less than half of its classes within 10,000 queries."
    assert summary_section(targets[:1]).lead == alone
    assert "within 10,000 queries. The most are needed for" in summary_section(targets).lead


def test_with_a_single_seed_a_note_explains_the_missing_intervals() -> None:
    targets = results(2, THREE, 20)
    assert "Brackets: 95% intervals over seeds." in summary_section(targets).tables[0].under
    for result in targets:
        result["protocol"] = result["protocol"] | {"seeds": [0]}
    assert "One seed: no intervals." in summary_section(targets).tables[0].under


def test_with_many_classes_a_note_names_the_images_of_the_sheet() -> None:
    targets = results(1, THREE, 20)
    data = summary(targets) | {"groups": {}}
    assert "highest margins" not in Reader(bench_report(targets, data, sheets(targets))).text
    targets[0]["target"]["scored_classes"] = 1_000
    text = Reader(bench_report(targets, data, sheets(targets))).text
    # In the section of images, at the sheet of the strongest arm, and at the two others.
    assert text.count("the 30 images with the highest margins, in the order of classes") == 4


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
    assert "Brackets: 95% intervals over seeds." in text


def test_a_transfer_attack_is_named_with_its_surrogates_and_is_no_black_box(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(1, ["cppn", "surrogate"], 60)
    assert strongest(found[0], black_box=True) == "cppn"
    assert strongest(found[0], black_box=False) == "surrogate"
    text = Reader(bench_report(found, summary(found), {})).text
    assert "Threat model of the arm surrogate: transfer." in text
    assert "It is no black-box arm" in text
    for figure in ("lenet-cousin", "0.96", "2,500", "surrogates' forwards", "12,345"):
        assert figure in text
    assert "lenet: lenet-cousin (0.96)" in console(found, capsys)
    alone = results(1, ["cppn"], 60)
    assert "surrogate" not in Reader(bench_report(alone, summary(alone), {})).text
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
