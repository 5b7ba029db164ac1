"""What `evofool bench` prints."""

from pathlib import Path
from typing import Any

import pytest

from evofool.bench.headline import FOOLED, headline_details, headline_lines
from evofool.bench.plan import parse
from evofool.bench.reference import reference_sentence
from evofool.bench.report.overview import strongest
from evofool.cli import bench as cli_bench
from evofool.cli import console_jobs
from evofool.sweep.runner import WorkProgress
from tests.bench.report_pages import ARMS, text_of, written
from tests.bench.samples import results


def console(found: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], details: bool = False) -> str:
    cli_bench.print_outcome({result["target"]["name"]: result for result in found}, {}, details)
    return capsys.readouterr().out


def test_the_console_has_the_ratio_of_each_arm_that_cppn_is_compared_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = console(found := results(5, ARMS, 20), capsys)
    heads = [line for each in found for line in headline_lines(each)]
    assert [line.partition(": ")[2] or line.strip() for line in text.splitlines()[: len(heads)]] == heads
    assert max(map(len, text.splitlines()[: len(heads)])) < 140
    assert text.splitlines()[len(heads)].strip().startswith(FOOLED)
    assert text.splitlines()[len(heads) + 2].split() == [
        "target", "strongest", "arms", "acceptance", "(stricter)", "(queries)"
    ]  # fmt: skip
    assert text.count(": per-class / cppn ") == text.count("; apgd / cppn ") == 4, "one target is invalid"
    assert "nes / cppn" not in text
    text = console(results(1, ["direct", "cppn"], 20), capsys)
    assert " / cppn " not in text
    assert "Brackets: 95% intervals over seeds." in text


def test_with_details_the_console_has_all_conditions_and_the_known_networks_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = results(2, [*ARMS, "canvas"], 20)
    assert "For scale" not in console(found, capsys)
    text = console(found, capsys, details=True)
    assert text.splitlines()[:2] == [f"{each['target']['name']}: {headline_details(each)}" for each in found]
    assert text.count("For scale") == text.splitlines().count(reference_sentence(found[0])) == 1


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
        (WorkProgress(done=24, total=130, running=2, seconds_left=50.0), "24 of 130 cells done, 2 running, about 50 s left"),
        (WorkProgress(done=1, total=1, seconds_left=0.0), "1 of 1 cell done"),
        (WorkProgress("training networks", 4, 4), "training networks: 4 of 4 done"),
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
