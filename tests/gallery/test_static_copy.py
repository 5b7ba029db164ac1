"""A gallery as files: every link leads to a file of the copy, and nothing of the server or of this machine is left."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from evofool.errors import StoreError
from evofool.gallery.history import history_of
from evofool.gallery.security import COPY_POLICY, Tokens
from evofool.gallery.static_copy import spread, write_static
from evofool.images import decode_png
from evofool.pages.html_page import Section, html_page
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target
from tests.browser import assert_sound, save_screenshot, screen
from tests.commands import Call
from tests.gallery.server import client
from tests.gallery.test_in_browser import waiting
from tests.gallery.test_pages import HOSTILE

ADDRESS = re.compile(r'(?:href|src|action|data-picture|data-post|data-ask)="([^"]*)"')


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    explained = root / "digits" / "explain-3"
    explained.mkdir(exist_ok=True)
    with StoredRun(root / "digits") as run:
        birth = run.listed()[3].row.birth
    page = html_page(f"elite of class 3 of digits, birth {birth}", [Section("Why")], [], ["a.png"])
    (explained / "index.html").write_text(page, encoding="utf-8")
    (explained / "a.png").write_bytes(b"a picture")
    folder = tmp_path_factory.mktemp("copy") / "copy"
    copied = write_static([root], folder)
    assert copied.runs == 2
    assert (
        copied.size == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) - mark(folder).stat().st_size
    )
    return folder


@pytest.fixture
def two(root: Path, tmp_path: Path) -> Path:
    """A folder with the runs bad, whose recipe has an unknown encoding, and good."""
    for name in ("bad", "good"):
        shutil.copytree(root / "other", tmp_path / "two" / name)
    with closing(sqlite3.connect(tmp_path / "two" / "bad" / "run.db")) as db, db:
        db.execute("""UPDATE meta SET value = replace(value, '"cppn"', '"hieroglyphs"') WHERE key = 'recipe'""")
    return tmp_path / "two"


def mark(folder: Path) -> Path:
    return folder / "evofool-gallery.json"


def pages(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*.html")):
        if "explain" not in file.parent.name:
            yield file, file.read_text(encoding="utf-8")


def test_every_address_is_a_file_of_the_copy(copy: Path) -> None:
    found = set()
    for file, text in pages(copy):
        for address in map(unescape, ADDRESS.findall(text)):
            if not address.startswith("#"):
                assert not re.match(r"/|[a-z]+:|\?", address), (file, address)
                assert (file.parent / address).is_file(), (file, address)
                found.add((file.parent / address).resolve())
        if data := re.findall(r'<script type="application/json" id="data">(.*?)</script>', text):
            for _, changed in json.loads(data[0])["history"]:
                found.update((file.parent / name).resolve() for name, *_ in changed.values())
    written = {file.resolve() for file in copy.rglob("*") if file.is_file()}
    assert found <= written
    assert written - found <= {mark(copy).resolve(), (copy / "digits-explain-3" / "a.png").resolve()}


def test_nothing_of_the_server_or_the_machine_is_in_it(copy: Path, root: Path) -> None:
    for file, text in pages(copy):
        assert "form-token" not in text, file
        assert "data-post" not in text, file
        assert "/draw" not in text, file
        assert str(root) not in text, file
        for tag in re.findall(r"<form\b[^>]*>", text):
            assert tag == '<form method="dialog">' or " hidden" in tag, (file, tag)
    assert "evofool explain" not in (copy / "digits" / "cell-3.html").read_text()


def test_its_pictures_are_those_of_the_run(copy: Path, root: Path) -> None:
    """Each once: a digit is as large in the grid as in full."""
    text = (copy / "digits" / "index.html").read_text()
    with StoredRun(root / "digits") as run:
        for elite in run.elites():
            tile = re.findall(rf'data-cell="{elite.row.cell}".*?src="([^"]+)"', text, re.DOTALL)[0]
            assert (decode_png((copy / "digits" / tile).read_bytes()) == elite.image).all()
            whole = re.findall(r'src="([^"]+\.png)"', (copy / "digits" / f"cell-{elite.row.cell}.html").read_text())[0]
            assert whole == tile
    pictures = [file.read_bytes() for file in (copy / "pictures").iterdir()]
    assert len({decode_png(png).tobytes() for png in pictures}) == len(pictures)


def test_the_replay_is_the_history(copy: Path, root: Path) -> None:
    text = (copy / "digits" / "index.html").read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    with StoredRun(root / "digits") as run:
        history = history_of(run)
        assert history is not None
        assert [evaluations for evaluations, _ in data["history"]] == history.moments()
        places: dict[str, Any] = {}
        for evaluations, changed in data["history"]:
            places |= changed
            births = {str(cell): place.birth for cell, place in history.at(evaluations).items()}
            assert places.keys() == births.keys()
            for cell, (name, *_) in changed.items():
                drawn = run.encoding.render(run.genomes([births[cell]]))[0]
                assert (decode_png((copy / "digits" / name).read_bytes()) == drawn).all()
        odds = {elite.row.cell: elite.row.log_odds for elite in run.listed()}
    assert data["orders"]["log-odds"] == sorted(odds, key=lambda cell: -odds[cell])


def test_reports_and_comparisons_are_in_it(copy: Path) -> None:
    assert (copy / "digits-explain-3" / "a.png").read_bytes() == b"a picture"
    assert "../digits-explain-3/index.html" in (copy / "digits" / "cell-3.html").read_text()
    text = (copy / "index.html").read_text()
    assert 'href="digits-and-other.html"' in text
    assert 'href="digits-and-other-by-difference.html"' in (copy / "digits-and-other.html").read_text()


def test_a_copy_is_replaced_and_other_files_are_not(root: Path, tmp_path: Path, tokens: Tokens) -> None:
    (tmp_path / "site").mkdir()
    write_static([root / "other"], tmp_path / "site")
    write_static([root / "other"], tmp_path / "site")
    assert os.listdir(tmp_path) == ["site"], "nothing is left beside it"
    (tmp_path / "site" / "other" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=r"has other/notes\.txt, which is not of an earlier copy"):
        write_static([root / "other"], tmp_path / "site")
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(StoreError, match="nothing to copy"):
        write_static([tmp_path], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="is a file"):
        write_static([root / "other"], tmp_path / "file")
    with client(tmp_path, tokens) as found:
        assert "site" not in found.get("/").text, "a copy is none of what a gallery shows"


def test_hostile_labels_stay_text_and_paths_stay_private(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join([*HOSTILE, 'x" href="/run/y', "</script>", *"789"]), encoding="utf-8")
    spec = f"lenet?labels={tmp_path / 'labels.txt'}"
    for name in ("../x", "<b>bold"):
        folder = tmp_path / "runs" / name.replace("/", "-")
        with Run.start(load("mnist-cppn", ["stop.evaluations=48", f"target={spec}"]), folder, target(spec)) as run:
            run.advance()
    write_static([tmp_path / "runs"], tmp_path / "site")
    for file, text in pages(tmp_path / "site"):
        for bad in ("<img src=x", "<script>alert", "<b>bold", "' onload='", str(tmp_path), 'href="/run'):
            assert bad not in text, (file, bad)
    assert all(re.fullmatch(r"[a-z0-9_-]+", path.name) for path in (tmp_path / "site").iterdir() if path.is_dir())


def test_a_run_that_cannot_be_opened_is_left_out(two: Path, tmp_path: Path) -> None:
    """The catalogue does not see its fault: only opening it does."""
    copied = write_static([two], tmp_path / "site")
    assert copied.runs == 1
    (left,) = copied.left_out
    assert re.match(r"bad, which cannot be read \(.*hieroglyphs", left)
    assert "hieroglyphs" in (tmp_path / "site" / "index.html").read_text()
    assert not (tmp_path / "site" / "bad").exists()
    shutil.rmtree(two / "good")
    with pytest.raises(StoreError, match="nothing to copy"):
        write_static([two], tmp_path / "none")


def test_no_script_of_a_report_runs_in_a_copy(root: Path, tmp_path: Path) -> None:
    """Anyone may have written it. Pages of evofool stay as they are: their policy, at their beginning, forbids scripts."""
    own = html_page("A report", [Section("All")])
    bad = f"<script>alert(1)</script>{own}"
    (tmp_path / "runs" / "bench" / "report").mkdir(parents=True)
    shutil.copytree(root / "other", tmp_path / "runs" / "run")
    for name, text in {"report.html": bad, "report/own.html": own, "report/bad.html": bad, "summary.json": "{}"}.items():
        (tmp_path / "runs" / "bench" / name).write_text(text, encoding="utf-8")
    write_static([tmp_path / "runs"], tmp_path / "site")
    found = {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "site" / "bench").rglob("*.html")}
    assert found["own.html"] == own
    policy = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; """
    for name in ("report.html", "bad.html"):
        assert found[name].startswith(policy), name
        assert found[name].endswith(bad)
        assert "script-src" not in found[name]


def test_every_page_of_a_copy_has_a_policy(copy: Path) -> None:
    """Before anything that it loads or shows."""
    for file, text in pages(copy):
        found = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text.partition("<title>")[0])
        assert [unescape(each) for each in found] == [COPY_POLICY], file


def test_names_of_comparisons_do_not_collide(root: Path, tmp_path: Path) -> None:
    names = ("a", "b-and-c", "a-and-b", "c")
    for name in names:
        shutil.copytree(root / "other", tmp_path / "runs" / name)
    write_static([tmp_path / "runs"], tmp_path / "site")
    listed = re.findall(r'href="([^"/]+)">([^<]+) and ([^<]+)</a>', (tmp_path / "site" / "index.html").read_text())
    assert len({file for file, _, _ in listed}) == len(listed) == 6
    for file, a, b in listed:
        text = (tmp_path / "site" / file).read_text()
        assert f"<h1>{a} and {b}</h1>" in text
        (other,) = re.findall(r'href="([^"/]+)">Sort by difference', text)
        assert f"<h1>{a} and {b}</h1>" in (tmp_path / "site" / other).read_text()


def test_steps_are_spread_with_the_first_and_the_last() -> None:
    assert spread([12, 24, 96], 60) == [12, 24, 96]
    moments = np.unique(np.random.default_rng(0).integers(1, 100_000, 3000)).tolist()
    found = spread(moments, 60)
    assert (found[0], found[-1]) == (moments[0], moments[-1])
    assert 40 < len(found) <= 60
    assert set(found) <= set(moments)


def test_the_command_says_what_it_wrote(call: Call, root: Path) -> None:
    done = call("gallery", root / "other", "--static", "site")
    assert done.code == 0
    assert re.search(r"1 run, \d+ pages, \d+ pictures, [0-9.]+ MB: site/index\.html", done.out)
    assert call("gallery", root / "other", "--static", "site", "--ask").code == 2
    assert call("gallery", root / "other", "--target", "lenet").code == 2


@pytest.mark.slow
def test_the_policy_of_a_copy_lets_its_own_files_in(copy: Path, browser: Any) -> None:
    """Opened as a file: its style, script and pictures are loaded; a script within the page is not run."""
    page = browser.new_page()
    page.goto((copy / "digits" / "index.html").as_uri())
    page.locator("html[data-ready]").wait_for(state="attached")
    assert page.locator("#grid").evaluate("grid => getComputedStyle(grid).display") == "grid"
    assert page.locator("#grid img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 28
    foreign = "const s = document.createElement('script'); s.text = 'document.title = 1'; document.head.append(s)"
    page.evaluate(f"() => {{ {foreign} }}")
    assert page.title() != "1"
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_a_copy_works_from_a_folder(copy: Path, browser: Any, width: int, scheme: str) -> None:
    """Opened as a file, without any server: search, sort, replay and descent."""
    sync_api = waiting()
    context = screen(browser, width, scheme)
    page, complaints = context.new_page(), list[str]()
    # Not of the console: axe asks for the style sheet by a script, which a browser refuses to files.
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((copy / "index.html").as_uri())
    assert_sound(page)
    page.locator("table.runs a", has_text="digits").click()
    page.locator("html[data-ready]").wait_for(state="attached")
    save_screenshot(page, f"static-{width}-{scheme}")
    if width < 640:
        page.locator("summary", has_text="Search").click()
    page.locator("#search").fill("7")
    sync_api.expect(page.locator("#grid > li:visible")).to_have_count(1)
    page.locator("#search").fill("")
    page.locator("select[name=sort]").select_option("log-odds")
    first = page.locator("#grid .p b").first.text_content()
    page.locator("select[name=sort]").select_option("class")
    sync_api.expect(page.locator("#grid .label").first).to_have_text("0")
    now = page.locator('[data-cell="3"] img').get_attribute("src")
    assert first
    page.locator("#at").evaluate("slider => { slider.value = 24; slider.dispatchEvent(new Event('input')); }")
    sync_api.expect(page.locator("#at-text")).to_have_text("24 evaluations")
    sync_api.expect(page.locator('[data-cell="3"] img')).not_to_have_attribute("src", now or "")
    page.locator("#at").evaluate("slider => { slider.value = slider.max; slider.dispatchEvent(new Event('input')); }")
    sync_api.expect(page.locator('[data-cell="3"] img')).to_have_attribute("src", now or "")
    assert_sound(page)
    page.locator('[data-cell="3"] a').click()
    page.locator("text=Line of descent").click()
    page.locator("#scrub-at").focus()
    page.keyboard.press("Home")
    sync_api.expect(page.locator("#scrub-text")).to_contain_text("1 of ")
    assert_sound(page)
    assert complaints == []
    context.close()


def test_the_server_s_pages_are_not_those_of_a_copy(gallery: TestClient) -> None:
    assert "data-static" not in gallery.get("/").text
