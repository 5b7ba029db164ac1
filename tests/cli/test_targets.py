"""`evofool targets list|show|check|serve`, as a user calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from evofool.targets import KINDS
from evofool.targets.digits import digits as all_digits
from evofool.targets.kinds import COMMON
from tests.commands import Call


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 real digits, four of each."""
    images, labels = all_digits()
    folder = tmp_path_factory.mktemp("digits")
    for i in range(0, 5000, 125):
        home = folder / str(labels[i])
        home.mkdir(exist_ok=True)
        Image.fromarray(images[i, 0]).save(home / f"{i}.png")
    return folder


def test_list_has_a_row_for_every_kind_and_marks_what_is_not_installed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evofool.cli.console_targets.find_spec", lambda name: None if name == "timm" else object())
    result = call("targets", "list")
    assert result.code == 0
    for kind in KINDS.values():
        (row,) = [line for line in result.out.splitlines() if line.startswith(f"{kind.form} ")]
        assert ("not installed" in row) == (kind.module == "timm")
    rows = json.loads(call("targets", "list", "--json").out)
    assert [row["spec"] for row in rows] == [kind.form for kind in KINDS.values()]
    assert [row["spec"] for row in rows if not row["installed"]] == [KINDS["timm"].form]
    assert {row["extra"] for row in rows} >= {None, "imagenet", "onnx", "http"}


def test_show_prints_the_resolved_target(call: Call) -> None:
    result = call("targets", "show", "lenet?mean=0.1&std=0.3")
    assert result.code == 0
    for part in ("28 x 28, grey", "0, 1, 2, 3, 4, 5, ... (10 classes)", "(pixel / 255 - 0.1) / 0.3", "logits", "SHA-256"):
        assert part in result.out
    whole = json.loads(call("targets", "show", "lenet", "--json").out)
    assert (whole["spec"], whole["shape"], whole["labels"]) == ("lenet", [1, 28, 28], list("0123456789"))
    assert whole["preprocessing"]["scale"] == 1 / 255
    assert len(whole["fingerprint"]) == len(whole["file_sha256"]) == 64


def test_kinship_prints_how_often_surrogates_agree_with_the_target(call: Call) -> None:
    surrogate = "lenet?mean=0.1&std=0.3"
    (row,) = json.loads(call("targets", "kinship", "lenet", surrogate, "--json").out)
    assert (row["surrogate"], row["images"]) == (surrogate, 256)
    assert 0 < row["agreement"] < 1
    assert f"{row['agreement']:.1%}" in call("targets", "kinship", "lenet", surrogate).out
    assert "is the target itself" in call("targets", "kinship", "lenet", "lenet").err


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_target_that_cannot_be_loaded_ends_in_one_sentence(call: Call, command: str) -> None:
    result = call("targets", command, "lenets")
    assert (result.code, result.out) == (2, "")
    assert 'evofool: no target is called "lenets"' in result.err
    assert 'did you mean "lenet"?' in result.err


@pytest.mark.slow
def test_check_passes_a_sound_target_and_prints_its_figures(call: Call, digits: Path) -> None:
    result = call("targets", "check", "lenet", "--images", digits, "--published", "0.99")
    assert result.code == 0
    assert "lenet passes" in result.out
    for part in (
        "top-1        1.000 +- 0.000",
        "40 of 40 photographs; published: 0.990",
        "images/s",
        "ranks by     float32",
    ):
        assert part in result.out
    assert "40 of 40 photographs, 40 correct" in result.err


def test_check_in_json_has_the_same_figures(call: Call, digits: Path) -> None:
    result = call("targets", "check", "lenet", "--images", digits, "--no-speed", "--json")
    assert result.code == 0
    report = json.loads(result.out)
    assert report["accuracy"]["correct"] == 40
    assert list(report["accuracy"]["margins"]) == ["5%", "25%", "50%", "75%", "95%"]
    assert (report["gradient"], report["faults"], report["rates"], report["choice"]) == ("yes", [], [], None)
    assert report["validation"]["twice"] == 0


def test_check_ends_with_1_and_the_faults_after_the_report(call: Call, digits: Path) -> None:
    wrong = "lenet?mean=1"
    for flags in ((), ("--json",)):
        result = call("targets", "check", wrong, "--images", digits, "--published", "0.99", "--no-speed", *flags)
        assert result.code == 1
        assert "passes" not in result.out
        assert f"evofool: {wrong} does not pass:\n  on 40 photographs top-1 is 0." in result.err
        assert "\n  top-1 on 40 photographs is 0." in result.err
        assert 'Use "lenet?mean=0"' in result.err
        if flags:
            assert json.loads(result.out)["faults"][0] in result.err


def test_a_folder_of_other_classes_ends_with_2_and_says_what_is_needed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "cat" / "1.png")
    result = call("targets", "check", "lenet", "--images", tmp_path, "--no-speed")
    assert result.code == 2
    assert "not among the target's 10 (cat)" in result.err


@pytest.mark.slow
def test_a_served_target_is_checked_over_http(call: Call) -> None:
    pytest.importorskip("httpx")
    command = [sys.executable, "-m", "evofool", "targets", "serve", "lenet", "--port", "0", "--answers", "probabilities"]
    server = subprocess.Popen(
        [*command, "--decimals", "4"], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert server.stdout is not None
        first, second = server.stdout.readline(), server.stdout.readline()
        assert first.startswith("lenet answers at http://127.0.0.1:")
        url = first.split()[-1]
        assert second == f"Attack it:  evofool run mnist-cppn --set target={url}\n"
        result = call("targets", "check", url)
        assert result.code == 0
        assert f"{url} passes" in result.out
        assert "answers are rounded to 4 decimals" in result.out
        assert "speed was not measured: every request counts" in result.out
        assert "gradients    none: a black box" in result.out
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]


def test_a_server_that_cannot_be_started_says_why(call: Call) -> None:
    result = call("targets", "serve", "lenet", "--port", "0", "--answers", "top", "--top", "11")
    assert result.code == 2
    assert "it has to be 1 to 10" in result.err


def test_every_kind_and_every_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    assert [kind.form for kind in KINDS.values() if f"`{kind.form}`" not in page] == []
    options = {*COMMON, *(option for kind in KINDS.values() for option in kind.options or ())}
    assert [option for option in options if f"`{option}`" not in page] == []
