"""The pages of the gallery: what they say of a run, and hostile or wrong input."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from evofool.gallery.history import history_of
from evofool.gallery.open_runs import OpenRun
from evofool.gallery.security import Tokens
from evofool.image_metrics.names import HAS_OWN_SHAPE, OWN_SHAPE
from evofool.images import decode_png, pixel_sha256
from evofool.quiz import of_run
from evofool.quiz.store import QuizStore
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.schema import ImageMetric
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.targets import Target, target
from tests.gallery.server import client
from tests.quiz.samples import asked, made_up_run

HOSTILE = ["<img src=x onerror=alert(1)>", '"><script>alert(2)</script>', "../../etc", "{{7*7}}", "' onload='alert(3)"]


def runs_of(gallery: TestClient) -> dict[str, str]:
    """By name the address of each run on the first page."""
    found = re.findall(r'<a href="(/run/[0-9a-z-]+)">([^<]+)</a>', gallery.get("/").text)
    return {name: address for address, name in found}


def test_the_first_page_lists_runs_and_finds_them_by_words(gallery: TestClient) -> None:
    assert {"digits", "other"} <= runs_of(gallery).keys()
    assert "digits" not in re.findall(r">(\w+)</a></th>", gallery.get("/", params={"text": "other"}).text)
    assert "No run has all of these words" in gallery.get("/", params={"text": "nothing has this"}).text


def test_a_grid_has_the_image_of_every_cell_as_it_is_stored(gallery: TestClient, root: Path) -> None:
    address = runs_of(gallery)["digits"]
    page = gallery.get(address).text
    with StoredRun(root / "digits") as run:
        elites = run.elites()
        for elite in elites:
            assert f'/elite/{elite.row.birth}-{elite.row.sha256}.png?side=224"' in page
            png = gallery.get(f"{address}/elite/{elite.row.birth}-{elite.row.sha256}.png").content
            assert (decode_png(png) == elite.image).all()
            gone = gallery.get(f"{address}/elite/{elite.row.birth}-{'0' * 64}.png").content
            assert (decode_png(gone) == elite.image).all(), "one that was replaced is drawn again"
            drawn = gallery.get(f"{address}/drawn/{elite.row.birth}.png").content
            assert (decode_png(drawn) == elite.image).all(), "drawn again it is the same"
    assert page.count("data-cell=") == len(elites)


def test_a_grid_says_what_people_see_and_what_is_shaped_like_its_class(tmp_path: Path) -> None:
    folder = made_up_run(tmp_path / "run")
    with Store.open(folder, write=True) as store:
        details = {"key": {"images": "digits", "reference": 9, "held_out": 9}}
        metrics = [(c, ImageMetric(OWN_SHAPE, 50.0 + 4 * (c != 3), "key")) for c in range(10)]
        store.set_image_metrics([*metrics, (3, ImageMetric(HAS_OWN_SHAPE, 1.0, "key"))], details)
    with client(tmp_path, Tokens()) as gallery:
        (address,) = runs_of(gallery).values()
        page = gallery.get(address).text
        assert page.count("shaped like its class") == 1
        assert 'name="said"' not in page, "nobody was asked"
        assert re.findall(r'data-cell="(\d+)"', gallery.get(address, params={"sort": "shape"}).text)[0] == "3"
        assert "Shaped like its class" in gallery.get(f"{address}/cell/3").text
        assert "Shaped like its class" not in gallery.get(f"{address}/cell/4").text

        asked(folder, ["perfect"] * 5)
        assert gallery.get(address).text.count('<span class="said">recognised</span>') == 10, "answers come while it is open"
        assert "recognised: named by 5 of 5, chosen by 5 of 5" in gallery.get(f"{address}/cell/3").text
        for said, count in (("recognised", 10), ("open", 0), ("nobody was asked", 0), ("no such word", 10)):
            assert gallery.get(address, params={"said": said}).text.count("data-cell=") == count


def test_the_address_sorts_and_chooses(gallery: TestClient, root: Path) -> None:
    address = runs_of(gallery)["digits"]
    with StoredRun(root / "digits") as run:
        odds = {elite.row.cell: elite.row.log_odds for elite in run.listed()}
    cells = re.findall(r'data-cell="(\d+)"', gallery.get(address, params={"sort": "log-odds"}).text)
    assert [int(cell) for cell in cells] == sorted(odds, key=lambda cell: -odds[cell])
    least = gallery.get(address, params={"least": "0.9"}).text
    assert len(re.findall("data-cell", least)) == sum(value >= np.log(9) for value in odds.values())
    assert re.findall(r'data-cell="(\d+)"', gallery.get(address, params={"text": "7"}).text) == ["7"]


@pytest.mark.parametrize(
    "query",
    [
        "sort=x&least=nan&size=9&at=-1&niche=x",
        "least=inf",
        "at=99999999999999999999",
        "size=56&at=0&beside=0",
        "text=" + "x" * 5000,
    ],
)
def test_an_address_that_makes_no_sense_shows_a_page(gallery: TestClient, query: str) -> None:
    assert gallery.get(f"{runs_of(gallery)['digits']}?{query}").status_code == 200


def test_the_archive_after_some_evaluations_is_that_of_a_shorter_run(
    gallery: TestClient, root: Path, tmp_path: Path
) -> None:
    recipe = load("mnist-cppn", ["stop.evaluations=60"])
    with Run.start(recipe, tmp_path / "short", target("lenet")) as shorter:
        shorter.advance()
    with StoredRun(tmp_path / "short") as short, StoredRun(root / "digits") as run:
        wanted = {elite.row.cell: elite.row.birth for elite in short.listed()}
        history = history_of(run)
        assert history is not None
        assert {cell: place.birth for cell, place in history.at(60).items()} == wanted
        assert history.at(0) == {}
        whole = {elite.row.cell: elite.row.birth for elite in run.listed()}
        assert {cell: place.birth for cell, place in history.at(10**9).items()} == whole
    answer = gallery.get(f"{runs_of(gallery)['digits']}/at", params={"at": 60}).json()
    assert {int(cell): int(re.findall(r"\d+", place[0])[0]) for cell, place in answer["places"].items()} == wanted


def test_an_image_in_full_has_its_scores_and_files(gallery: TestClient, root: Path) -> None:
    address = runs_of(gallery)["digits"]
    with StoredRun(root / "digits") as run:
        elite = run.listed()[3]
        genome = run.genome_json(elite)
    page = gallery.get(f"{address}/cell/{elite.row.cell}").text
    assert f"{elite.row.log_odds:.3f}" in page
    assert gallery.get(f"{address}/genome/{elite.row.birth}.json").json() == json.loads(json.dumps(genome))
    large = decode_png(gallery.get(f"{address}/drawn/{elite.row.birth}.png", params={"large": 300}).content)
    assert large.shape == (1, 300, 300)
    graph = gallery.get(f"{address}/graph/{elite.row.birth}.svg")
    assert graph.headers["content-type"].startswith("image/svg+xml")
    assert "script-src" not in graph.headers["content-security-policy"]


def test_a_line_of_descent_ends_with_the_image(gallery: TestClient, root: Path) -> None:
    address = runs_of(gallery)["digits"]
    with StoredRun(root / "digits") as run:
        birth = max(elite.row.birth for elite in run.listed())
        line = run.store.descent(birth)
    page = gallery.get(f"{address}/descent/{birth}").text
    assert [int(each) for each in re.findall(r'data-birth="(\d+)"', page)] == [step.birth for step in line][::-1]


def test_two_runs_are_compared_class_by_class(gallery: TestClient) -> None:
    addresses = runs_of(gallery)
    a, b = (addresses[name].removeprefix("/run/") for name in ("digits", "other"))
    page = gallery.get("/compare", params={"run": [a, b]}).text
    assert page.count('class="label"') == 10
    assert gallery.get("/compare", params={"a": a, "b": b, "sort": "difference"}).status_code == 200
    assert "tick" in gallery.get("/compare", params={"run": a}).text


@pytest.mark.parametrize(
    "path",
    [
        "/run/no",
        "{run}/cell/99",
        "{run}/descent/999999",
        "{run}/descent/" + "9" * 5000,
        "{run}/drawn/999999.png",
        "{run}/elite/999999-no.png",
        "{run}/cell/x",
        "/nothing",
    ],
)
def test_what_is_not_there_is_said_so(gallery: TestClient, path: str) -> None:
    answer = gallery.get(path.format(run=runs_of(gallery)["digits"]))
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


def test_sizes_that_are_not_offered_are_refused(gallery: TestClient) -> None:
    address = runs_of(gallery)["digits"]
    name = re.findall(r"elite/([0-9a-f-]+)\.png", gallery.get(address).text)[0]
    assert gallery.get(f"{address}/elite/{name}.png", params={"side": 9999}).status_code == 400
    assert gallery.get(f"{address}/drawn/0.png", params={"large": 4000}).status_code == 400


def test_labels_are_text_and_never_markup(tmp_path: Path, tokens: Tokens) -> None:
    (tmp_path / "labels.txt").write_text("\n".join([*HOSTILE, *"56789"]), encoding="utf-8")
    attacked = target(f"lenet?labels={tmp_path / 'labels.txt'}")
    recipe = load("mnist-cppn", ["stop.evaluations=48", f"target=lenet?labels={tmp_path / 'labels.txt'}"])
    with Run.start(recipe, tmp_path / "runs" / "<b>bold", attacked) as run:
        run.advance()
    with client(tmp_path / "runs", tokens) as gallery:
        home = gallery.get("/").text
        address = re.findall(r"/run/[0-9a-z-]+", home)[0]
        for path in ("", "/cell/0", "/cell/1", "/cell/3", "/cell/4", "/descent/1"):
            text = gallery.get(f"{address}{path}").text + home
            for bad in ("<img src=x", "<script>alert", "<b>bold", ">49<", "' onload='"):
                assert bad not in text, (path, bad)
        assert "&lt;img src=x onerror=alert(1)&gt;" in gallery.get(address).text


def test_a_damaged_run_is_named_and_the_others_are_shown(root: Path, tmp_path: Path, tokens: Tokens) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "run.db").write_bytes(b"no database")
    (tmp_path / "good").symlink_to(root / "digits")
    with client(tmp_path, tokens) as gallery:
        page = gallery.get("/").text
        assert "bad" in page
        assert 'class="fault"' in page


def test_a_run_that_was_deleted_and_made_again_is_the_new_one(tmp_path: Path, lenet: Target, tokens: Tokens) -> None:
    with client(tmp_path, tokens) as gallery:
        for evaluations in (24, 48):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            with Run.start(load("mnist-cppn", [f"stop.evaluations={evaluations}"]), tmp_path / "run", lenet) as run:
                run.advance()
            address = runs_of(gallery)["run"]
            assert f'data-fact="evaluations">{evaluations}<' in gallery.get(address).text


def test_runs_with_the_same_id_have_addresses_of_their_own(root: Path, tmp_path: Path, tokens: Tokens) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.db").write_bytes((root / "digits" / "run.db").read_bytes())
    with client(tmp_path, tokens) as gallery:
        addresses = runs_of(gallery)
        assert len(set(addresses.values())) == 2
        assert all(gallery.get(address).status_code == 200 for address in addresses.values())


def test_an_image_is_decoded_once_for_its_verdict(tmp_path: Path, lenet: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again after each checkpoint: only images that are new."""
    decoded = list[int]()

    def counting(image: np.ndarray) -> str:
        decoded.append(1)
        return pixel_sha256(image)

    recipe = load("mnist-cppn", ["stop.evaluations=240", "save.seconds=0"])
    with Run.start(recipe, tmp_path / "live", lenet) as live:
        live.advance(batches=2)
        QuizStore.open(tmp_path / "live", write=True).close()
        run = OpenRun(tmp_path / "live")
        monkeypatch.setattr(of_run, "pixel_sha256", counting)

        def pictures() -> set[bytes]:
            run.refresh()
            assert run.verdicts == {}, "nobody has answered"
            return {elite.row.png for elite in run.stored.elites()}

        seen = pictures()
        assert len(decoded) == len(seen)
        while (now := pictures()) == seen:
            live.advance(batches=1)
        assert len(decoded) == len(seen | now)
        assert now & seen, "some have stayed"
        run.close()
