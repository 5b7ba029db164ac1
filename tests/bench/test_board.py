"""The leaderboard: who is ranked with whom, places that intervals allow, and the page, with and without JavaScript."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evofool.bench.board.board import Board, make_board, rank_results, result_files
from evofool.bench.board.board_page import COLUMNS, board_json, board_page
from evofool.bench.report.ranking import sorted_results
from evofool.bench.result_file import STRIPPED, small_copy
from evofool.cli.app import app
from evofool.errors import RecipeError, StoreError
from evofool.pages.html_page import NOTHING
from tests.bench.samples import invalid, result

ARMS = ["canvas", "square", "apgd", "noise"]


def made(name: str, value: float = 0.5, low: float | None = 0.4, high: float | None = 0.6, key: int = 0) -> dict[str, Any]:
    """A result with this headline."""
    found = result(name, key, ARMS, points=5)
    found["target"]["fingerprint"] = name.encode().hex()
    row = found["scores"]["headline"]
    for part in (row, row["by_score"]["margin"]):
        part |= {"value": value, "low": low, "high": high}
    return found


def ranked(*results: dict[str, Any]) -> Board:
    return rank_results({f"{k}.json": found for k, found in enumerate(results)})


def places(board: Board) -> list[list[tuple[str, str]]]:
    return [[(row.entry.target.name, str(row.places)) for row in group.rows] for group in board.groups]


def test_a_place_is_a_range_where_no_difference_is_shown() -> None:
    board = ranked(
        made("worst", 0.95, 0.9, 1.0),
        made("a", 0.30, 0.2, 0.45),
        made("b", 0.40, 0.3, 0.50),
        made("c", 0.55, 0.48, 0.60),
        made("one seed", 0.10, None, None),
    )
    assert places(board) == [[("one seed", "1-5"), ("a", "1-3"), ("b", "1-4"), ("c", "2-4"), ("worst", "4-5")]]
    assert board.groups[0].decided
    same = ranked(made("a", 0.3, 0.2, 0.4), made("b", 0.5, 0.4, 0.6), made("c", 0.4, 0.3, 0.5))
    assert places(same) == [[("a", "1-3"), ("c", "1-3"), ("b", "1-3")]], "an equal limit is no difference"
    assert not same.groups[0].decided
    none = "No difference of the share fooled is shown between any two of these rows."
    assert none in board_page(same)
    assert none not in board_page(board)
    assert places(ranked(made("a", 0.1, 0, 0.2), made("b", 0.9, 0.8, 1))) == [[("a", "1"), ("b", "2")]]


def test_where_all_classes_are_fooled_the_second_figure_has_ranks_of_its_own() -> None:
    found = [made(name, 1.0, 0.9, 1.0) for name in "abc"]
    for each, (value, low, high) in zip(found, ((0.9, 0.8, 0.95), (0.3, 0.2, 0.4), (0.35, 0.25, 0.5)), strict=True):
        each["scores"]["headline"]["reached"] = {"value": value, "low": low, "high": high, "per_seed": [value]}
    board = ranked(*found)
    assert places(board) == [[("a", "1-3"), ("b", "1-3"), ("c", "1-3")]]
    assert [str(row.reached_places) for row in board.groups[0].rows] == ["3", "1-2", "1-2"]
    assert "[0.80, 0.95] rank by reached 3" in board_page(board)
    del found[0]["scores"]["headline"]["reached"]
    assert [str(row.reached_places) for row in ranked(*found).groups[0].rows] == ["1-3", "1-3", "1-3"], "an older result"


def test_equal_shares_are_in_the_order_of_the_report_by_queries_whatever_is_reached() -> None:
    """As of two shipped networks: the one that is fooled sooner, by images it is less sure of, is the easier one."""
    found = [made(name, 1.0, 0.8, None) for name in ("sooner", "later")]
    for each, queries, reached in zip(found, (2.4, 5.8), (0.86, 0.991), strict=True):
        row = each["scores"]["headline"]
        row["reached"] = {"value": reached, "low": None, "high": None}
        row["queries"] |= {"value": queries, "low": None, "high": None}
    assert [name for name, _ in places(ranked(*found))[0]] == ["later", "sooner"]
    assert [result["target"]["name"] for result in sorted_results(found)] == ["later", "sooner"]


def test_of_several_detectors_the_one_that_lets_most_through_is_shown() -> None:
    found = made("a")
    (row,) = [row for row in found["scores"]["detectors"] if (row["detector"], row["kind"]) == ("msp", "adaptive")]
    worse = json.loads(json.dumps(row)) | {"detector": "energy"}
    worse["through"]["joint"] |= {"value": row["through"]["joint"]["value"] + 0.1}
    for rows in ([row, worse], [worse, row]):
        found["scores"]["detectors"] = rows
        detector = ranked(found).groups[0].rows[0].detector
        assert detector is not None
        assert detector.detector == "energy"


def test_equal_values_are_in_the_order_of_names_and_have_the_same_places() -> None:
    assert places(ranked(made("b"), made("a"))) == [[("a", "1-2"), ("b", "1-2")]]


OTHER: dict[str, Any] = {
    "real images": lambda r: r["images"].update(sha256="0" * 64),
    "files of real images": lambda r: r["images"].update(content_sha256="0" * 64),
    "attacks": lambda r: r["scores"]["headline"].update(arms=["canvas", "square"]),
    "what an attack climbs": lambda r: r["scores"]["arms"]["apgd"].update(gradients="student"),
    "settings of an attack": lambda r: r["protocol"].update(settings={"square": ["p=0.1"]}),
    "queries": lambda r: r["scores"]["headline"].update(queries_per_class=50),
    "budget": lambda r: r["scores"]["headline"].update(attack_queries_per_class=300.0),
    "classes": lambda r: r["images"].update(classes_left_out=["7"]),
    "labels": lambda r: r["target"].update(labels=[f"digit {k}" for k in range(10)]),
    "acceptance scores": lambda r: r["scores"]["headline"]["by_score"].update(pair={"value": 0.5}),
    "size of images": lambda r: r["target"].update(shape=[3, 224, 224]),
    "number format": lambda r: r["protocol"].update(format="bfloat16"),
    "answers that are averaged": lambda r: r["target"].update(average=16),
    "views": lambda r: r["target"].update(views=8),
}


@pytest.mark.parametrize("what", OTHER)
def test_results_of_another_protocol_are_not_ranked_together(what: str) -> None:
    other = made("b")
    OTHER[what](other)
    assert places(ranked(made("a"), other, made("c"))) == [[("a", "1-2"), ("c", "1-2")], [("b", "1")]]


def test_what_does_not_change_the_protocol_does_not_separate_results() -> None:
    """Another size of the same files, a class for rejected images, settings of an arm outside the suite."""
    a, b = made("a"), made("b")
    for found in (a, b):
        found["images"]["content_sha256"] = "c" * 64
    b["images"]["sha256"] = "0" * 64
    b["target"]["labels"] += ["rejected"]
    b["images"]["classes_without_images"] = ["rejected"]
    b["protocol"]["settings"] |= {"cppn": ["search.batch=32"]}
    b["protocol"]["evofool"] = "0.2.0"
    board = ranked(a, b)
    assert places(board) == [[("a", "1-2"), ("b", "1-2")]]
    assert "These results are of evofool 0.1.0 and 0.2.0; CHANGELOG.md lists what moved results." in board_page(board)


def test_invalid_results_and_those_without_a_headline_have_no_rank_and_their_reason() -> None:
    broken = made("broken") | {"valid": False, "flags": [invalid("random answers")]}
    old, none = made("old"), made("none")
    del old["scores"]["headline"]
    none["scores"]["headline"] = None
    board = ranked(broken, old, none, made("a"))
    assert places(board) == [[("a", "1")]]
    assert [(one.name, one.reason.partition(":")[0]) for one in board.unranked] == [
        ("broken", "invalid"), ("old", "no headline"), ("none", "no headline"),
    ]  # fmt: skip
    assert "invalid: random answers" in board_page(board)


def write(folder: Path, name: str, data: Any) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, r"bad\.json has version 1; this evofool reads version 2"),
        ({"schema": "evofool.board"}, r"bad\.json is not a file of schema evofool\.bench"),
        ({"target": {}}, r"bad\.json: this is not a complete result of evofool bench \(target\.name: Field required"),
        ({"scores": {"arms": {}, "headline": {"value": 2}}}, r"bad\.json: .*value: Input should be less than or equal to 1"),
        (
            {"scores": {**made("a")["scores"], "arms": {}}},
            r"bad\.json: .*the headline has canvas, square, apgd, but arms does",
        ),
    ],
)
def test_a_file_that_is_no_result_of_this_protocol_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bad = write(tmp_path, "bad.json", made("a") | change)
    with pytest.raises((RecipeError, StoreError), match=message):
        make_board([write(tmp_path, "good.json", made("b")), bad])
    with pytest.raises(StoreError, match=r"no\.json"):
        make_board([tmp_path / "no.json"])
    with pytest.raises(StoreError, match=r"pickle\.json is not a JSON file|cannot be read|is not"):
        make_board([write(tmp_path, "pickle.json", "cos\nsystem\n(S'true'\ntR.")])


def test_the_same_result_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"0\.json and 1\.json are results of the same network, protocol and seeds"):
        ranked(made("a"), made("a") | {"timings": {}})


def test_the_results_of_a_folder_are_those_of_its_benchmark(tmp_path: Path) -> None:
    a = write(tmp_path, "bench/results/a.json", made("a"))
    write(tmp_path, "bench/summary.json", {})
    b = write(tmp_path, "small/b.json", made("b"))
    write(tmp_path, "small/summary.json", {"schema": "evofool.bench.summary", "version": 2})
    write(tmp_path, "small/list.json", [])
    assert result_files([tmp_path / "bench", tmp_path / "small", b]) == [a, b]
    damaged = write(tmp_path, "damaged/c.json", "{")
    assert result_files([tmp_path / "damaged"]) == [damaged], "it is refused by name later"
    write(tmp_path, "empty/summary.json", {"schema": "evofool.bench.summary", "version": 2})
    with pytest.raises(RecipeError, match=r"empty has no result \(TARGET\.json\)"):
        result_files([tmp_path / "empty"])


class Cells(HTMLParser):
    """The rows of each table as texts, and the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.scripts = 0
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.inside = tag in ("td", "th", "i")
        self.scripts += tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside and self.tables and self.tables[-1]:
            self.tables[-1][-1][-1] += f"{data} "


def test_the_page_has_each_figure_of_each_row() -> None:
    found = made("a", 0.84, 0.7, 0.95)
    found["target"]["defence"] = "outlier-exposure"
    found["scores"]["transfer"] = {"arm": "cppn", "of": {"b": 0.25, "c": 0.75, "d": None}, "median": 0.5}
    found["images"]["suspected_training"] = True
    (table,) = Cells(board_page(ranked(found))).tables
    cells = dict(zip(table[0], table[1], strict=True))
    assert {head.strip(): text.strip() for head, text in cells.items()} == {
        "classifier": "a",
        "rank": "1",
        "defence": "outlier-exposure",
        "fooled": "0.84 [0.70, 0.95] by margin",
        "reached": cells["reached "].strip(),
        "queries a class": cells["queries a class "].strip(),
        "Q50": cells["Q50 "].strip(),
        "through a detector": "0.60 [0.50, 0.70] msp",
        "transfer": "0.50 of 2 networks, cppn",
        "top-1": "0.99 suspected training images",
        "seeds": "5",
        "protocol": "version 2 evofool 0.1.0",
        "hashes": "61 images 2c26b46b68ff",
    }
    assert re.match(r"[0-9.]+ \[[0-9.]+, [0-9.]+\] apgd $", cells["Q50 "])


def test_an_unmeasured_figure_is_a_dash() -> None:
    found = made("a")
    found["scores"]["detectors"] = []
    for arm in found["scores"]["arms"].values():
        arm["q50"] = {"value": None, "bound": ">=", "low": 10_000, "high": None}
    (table,) = Cells(board_page(ranked(found))).tables
    cells = {head.strip(): text.strip() for head, text in zip(*table, strict=True)}
    assert (cells["through a detector"], cells["transfer"], cells["defence"]) == (NOTHING,) * 3
    assert cells["Q50"].startswith("> 10,000")


def test_a_small_copy_gives_the_same_row_and_says_what_is_missing() -> None:
    whole = result("a", 0, ARMS)
    small = small_copy(whole)
    assert small["stripped"] == list(STRIPPED)
    assert small_copy(small) == small
    assert board_json(ranked(small)) == board_json(ranked(whole))
    assert "curve" in whole["scores"]["arms"]["apgd"], "the result itself is not changed"
    assert len(json.dumps(small)) < 60_000 < len(json.dumps(whole))


HOSTILE = "</td><script>alert(1)</script>\"'&\x1b]0;PWN\x07\u202e"


def test_texts_of_a_result_are_escaped_and_formulas_are_text(tmp_path: Path) -> None:
    found = made("=HYPERLINK(1)")
    found["target"] |= {"spec": HOSTILE, "group": "@SUM(A1)", "fingerprint": HOSTILE}
    found["images"]["source"] = HOSTILE
    found["protocol"]["evofool"] = HOSTILE
    row = found["scores"]["headline"]
    row["score"], row["by_score"] = HOSTILE, {HOSTILE: row["by_score"]["margin"]}
    broken = made(HOSTILE) | {"valid": False, "flags": [invalid(HOSTILE)]}
    files = [str(write(tmp_path, f"{k}.json", data)) for k, data in enumerate((found, broken))]
    done = CliRunner().invoke(
        app, ["bench", "board", *files, "--out", str(tmp_path / "b.html"), "--csv", str(tmp_path / "b.csv")]
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "b.html").read_text()
    assert Cells(page).scripts == 1
    assert "<script>alert" not in page
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", page)
    with (tmp_path / "b.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert list(line) == list(COLUMNS)
    assert (line["classifier"], line["defence"]) == ("'=HYPERLINK(1)", "'@SUM(A1)")
    assert "\x1b" not in "".join(line.values())


def test_the_command_prints_places_and_writes_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "r/results/a.json", made("a", 0.2, 0.1, 0.3))
    write(tmp_path, "r/results/b.json", made("b", 0.8, 0.7, 0.9))
    done = CliRunner().invoke(app, ["bench", "board", "r", "--copies", "copies"])
    assert done.exit_code == 0, done.output
    assert re.search(r"  1 +0\.200 fooled  a\n  2 +0\.800 fooled  b\n", done.output)
    assert make_board(result_files([tmp_path / "copies"])).groups[0].rows[0].entry.target.name == "a"
    assert (tmp_path / "board.html").exists()
    (tmp_path / "board.html").unlink()
    done = CliRunner().invoke(app, ["bench", "board", "r", "--json"])
    assert [row["rank_first"] for row in json.loads(done.output)["rows"]] == [1, 2]
    assert not (tmp_path / "board.html").exists()
    write(tmp_path, "s/a.json", made("a", key=1))
    done = CliRunner().invoke(app, ["bench", "board", "r/results/a.json", "s/a.json", "--copies", "copies"])
    assert done.exit_code != 0


@pytest.mark.parametrize("folder", ["r/results", "r/../r/results", "link"])
def test_copies_replace_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, "r/results/a.json", made("a"))
    (tmp_path / "link").symlink_to(file.parent)
    before = file.read_bytes()
    done = CliRunner().invoke(app, ["bench", "board", "r", "--copies", folder])
    assert done.exit_code != 0
    assert "is a result itself, which its copy would replace; name another folder" in str(done.exception)
    assert file.read_bytes() == before
    assert not (tmp_path / "board.html").exists()
