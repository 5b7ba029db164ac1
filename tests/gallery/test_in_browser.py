"""The gallery in a real browser: what the script does, and that no page loses anything or violates axe's rules."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evofool.explain.phrases import confidence_text
from evofool.gallery.asking import MOST_BYTES
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.scores import log_odds
from evofool.targets import Target
from tests.browser import assert_sound, save_screenshot, screen
from tests.gallery.server import served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(root: Path, lenet: Target) -> Iterator[str]:
    with Run.start(load("mnist-cppn", ["stop.evaluations=600"]), root / "long", lenet) as run:
        run.advance()
    with served(root, asking=True) as found:
        yield found


def waiting() -> Any:
    """Playwright's module, whose `expect` waits long enough for a shared machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect.set_options(timeout=60_000)
    return sync_api


def arrived(page: Any, path: str) -> None:
    """Wait until the page with this address is loaded and its script has run."""
    page.wait_for_url(re.compile(path), wait_until="commit", timeout=90_000)
    page.locator("html[data-ready]").wait_for(state="attached", timeout=90_000)


def opened(context: Any, address: str, run: str = "") -> tuple[Any, list[str]]:
    """A page of the gallery, by its start address, and what it complains about in the console. run: whose grid is opened."""
    page, complaints = context.new_page(), list[str]()
    page.set_default_timeout(90_000)  # machines of CI are shared
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    if run:
        page.locator("table.runs a", has_text=run).click()
    arrived(page, "/run/" if run else "/$")
    return page, complaints


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_sound(address: str, root: Path, browser: Any, width: int, scheme: str) -> None:
    with StoredRun(root / "long") as run:
        birth = max((len(run.store.descent(elite.row.birth)), elite.row.birth) for elite in run.listed())[1]
    context = screen(browser, width, scheme)
    page, complaints = opened(context, address)
    assert_sound(page)
    ids = {name: page.locator("table.runs a", has_text=name).get_attribute("href") for name in ("digits", "other", "long")}
    base = address.split("/?")[0]
    a, b, _ = (found.removeprefix("/run/") for found in ids.values())
    for name, path in {
        "grid-10": ids["digits"],
        "replay": f"{ids['digits']}?at=60&beside=24",
        "cell": f"{ids['digits']}/cell/3",
        "descent": f"{ids['long']}/descent/{birth}",
        "compare": f"/compare?a={a}&b={b}",
        "draw": f"/draw?run={a}&cell=3",
    }.items():
        page.goto(base + path)
        if name == "draw":
            page.locator("#answers li").nth(9).wait_for(timeout=90_000)
        save_screenshot(page, f"gallery-{name}-{width}-{scheme}")
        assert_sound(page)
    assert complaints == []
    context.close()


def test_a_run_is_shown_live(tmp_path: Path, lenet: Target, browser: Any) -> None:
    sync_api = waiting()
    recipe = load("mnist-cppn", ["stop.evaluations=240", "save.seconds=0"])
    context = browser.new_context()
    with Run.start(recipe, tmp_path / "live", lenet) as run:
        run.advance(batches=2)
        with served(tmp_path) as address:
            page, complaints = opened(context, address, "live")
            fact = page.locator('[data-fact="evaluations"]')
            sync_api.expect(fact).to_have_text("24")
            before = page.locator("#grid img").evaluate_all("images => images.map(image => image.src)")
            run.advance(batches=8)
            sync_api.expect(fact).to_have_text("120")
            after = page.locator("#grid img").evaluate_all("images => images.map(image => image.src)")
            assert before != after
            run.advance()
            sync_api.expect(page.locator('[data-fact="state"]')).to_contain_text("ended")
            assert complaints == []
    context.close()


def test_eight_tabs_of_a_live_run_all_load_and_follow(tmp_path: Path, lenet: Target, browser: Any) -> None:
    """A browser opens six connections to one server: streams of six tabs would leave none."""
    sync_api = waiting()
    context = browser.new_context()
    with Run.start(load("mnist-cppn", ["stop.evaluations=240", "save.seconds=0"]), tmp_path / "live", lenet) as run:
        run.advance(batches=2)
        with served(tmp_path) as address:
            pages = [opened(context, address, "live")[0] for _ in range(8)]
            run.advance(batches=3)
            for page in (pages[0], pages[-1]):
                sync_api.expect(page.locator('[data-fact="evaluations"]')).to_have_text("60")
            pages[0].close()
            run.advance(batches=3)
            sync_api.expect(pages[-1].locator('[data-fact="evaluations"]')).to_have_text("96")
            context.close()


def test_the_slider_shows_the_archive_as_it_was(address: str, root: Path, browser: Any) -> None:
    sync_api = waiting()
    context = browser.new_context()
    page, complaints = opened(context, address, "digits")
    page.locator("#at").evaluate("slider => { slider.value = 48; slider.dispatchEvent(new Event('input')); }")
    sync_api.expect(page.locator("#at-text")).to_have_text("48 evaluations")
    with StoredRun(root / "digits") as run:
        from evofool.gallery.history import history_of

        history = history_of(run)
        assert history is not None
        births = {cell: place.birth for cell, place in history.at(48).items()}
    for cell, birth in births.items():
        image = page.locator(f'[data-cell="{cell}"] img')
        sync_api.expect(image).to_have_attribute("src", re.compile(f"/drawn/{birth}\\.png"))
    assert "at=48" in page.url
    assert complaints == []
    context.close()


def test_keys_move_through_the_images(address: str, browser: Any) -> None:
    sync_api = waiting()
    context = browser.new_context()
    page, _ = opened(context, address, "digits")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.locator("h1").click()
    for key in "jjk":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    arrived(page, "/cell/0")
    page.keyboard.press("ArrowRight")
    arrived(page, "/cell/1")
    page.keyboard.press("Escape")
    arrived(page, "/run/[0-9a-z-]+$")
    page.keyboard.press("?")
    sync_api.expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("h")
    arrived(page, "/$")
    context.close()


def test_two_ticked_runs_can_be_compared(address: str, browser: Any) -> None:
    sync_api = waiting()
    context = browser.new_context()
    page, _ = opened(context, address)
    button = page.locator("#compare")
    page.keyboard.press("c")
    assert button.is_disabled()
    for name in ("digits", "other"):
        page.locator(f'input[aria-label="Compare {name}"]').check()
    assert not button.is_disabled()
    page.keyboard.press("c")
    arrived(page, "/compare")
    assert page.locator("li").count() == 10
    page.go_back()
    arrived(page, "/$")
    sync_api.expect(button).to_be_enabled()  # the browser has ticked both again
    button.click()
    arrived(page, "/compare")
    context.close()


def test_the_line_of_descent_can_be_stepped_through(address: str, root: Path, browser: Any) -> None:
    with StoredRun(root / "long") as run:
        birth = max((len(run.store.descent(elite.row.birth)), elite.row.birth) for elite in run.listed())[1]
        first = run.store.descent(birth)[-1].birth
    context = browser.new_context()
    page, complaints = opened(context, address, "long")
    page.goto(f"{page.url}/descent/{birth}")
    slider = page.locator("#scrub-at")
    slider.focus()
    page.keyboard.press("Home")
    assert f"/drawn/{first}.png" in page.locator("#scrub-image").get_attribute("src")
    page.keyboard.press("End")
    assert f"/drawn/{birth}.png" in page.locator("#scrub-image").get_attribute("src")
    assert complaints == []
    context.close()


def test_a_stroke_on_the_paper_is_answered(address: str, browser: Any, lenet: Target) -> None:
    """What is on the paper is what is scored: the answer is that of the canvas' own pixels."""
    sync_api = waiting()
    context = browser.new_context()
    page, complaints = opened(context, address, "digits")
    page.locator("nav a", has_text="Draw").click()
    arrived(page, "/draw")
    sync_api.expect(page.locator("#answers li")).to_have_count(10)
    box = page.locator("#paper").bounding_box()
    across, down = box["x"] + box["width"] / 2, box["y"]
    page.mouse.move(across, down + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(across, down + box["height"] * 0.8, steps=8)
    page.mouse.up()
    shown = page.locator("#answers li b").first
    read = "c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, k) => k % 4 == 0)"
    image = np.array(page.locator("#paper").evaluate(read), np.uint8).reshape(1, 28, 28)
    assert image.max() > 200
    wanted = confidence_text(log_odds(lenet.logits(image[None]))[0].max())
    sync_api.expect(shown).to_have_text(wanted)
    page.locator("#invert").click()
    sync_api.expect(shown).not_to_have_text(wanted)
    page.locator("#undo").click()
    sync_api.expect(shown).to_have_text(wanted)
    assert complaints == []
    context.close()


def test_an_uploaded_photograph_is_fitted_and_lies_on_the_paper(address: str, browser: Any, lenet: Target) -> None:
    """A JPEG of many pixels: the browser makes it smaller, and says so; the server fits it to the target."""
    sync_api = waiting()
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page, complaints = opened(context, address)
    page.goto(f"{address.split('/?')[0]}/draw")
    sync_api.expect(page.locator("#answers li")).to_have_count(10)
    box = page.locator("#paper").bounding_box()
    touch = context.new_cdp_session(page)
    for kind, part in (("touchStart", 0.3), ("touchMove", 0.5), ("touchMove", 0.7), ("touchEnd", None)):
        points = [] if part is None else [{"x": box["x"] + part * box["width"], "y": box["y"] + part * box["height"]}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    middle = "c => c.getContext('2d').getImageData(14, 14, 1, 1).data[0]"
    assert page.locator("#paper").evaluate(middle) > 100, "a finger draws"
    assert page.evaluate("scrollY") == 0, "and does not scroll"
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()}
    page.locator("#upload").set_input_files(file)
    sync_api.expect(page.locator("#fitted")).to_contain_text("from 1600 x 1200 to")
    sync_api.expect(page.locator("#fitted")).to_contain_text("28x28 grey (distorted)")
    Image.new("RGB", (2600, 2000), (9, 9, 9)).save(buffer := io.BytesIO(), "PNG")
    assert len(buffer.getvalue()) < MOST_BYTES
    page.locator("#upload").set_input_files({"name": "flat.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    sync_api.expect(page.locator("#fitted")).to_contain_text("from 2600 x 2000 to")
    sync_api.expect(page.locator("#problem")).to_be_hidden()
    file = {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.locator("#upload").set_input_files(file)
    sync_api.expect(page.locator("#problem")).to_contain_text("not a whole PNG")
    assert [line for line in complaints if "status of 400" not in line] == []
    context.close()


def test_chosen_images_are_downloaded(address: str, browser: Any, tmp_path: Path) -> None:
    sync_api = waiting()
    context = browser.new_context(accept_downloads=True)
    page, complaints = opened(context, address, "digits")
    assert page.locator("#export").is_disabled()
    page.keyboard.press("x")
    sync_api.expect(page.locator("#chosen")).to_contain_text("Tick images")
    for key in "jjxjx":
        page.keyboard.press(key)
    sync_api.expect(page.locator("#chosen")).to_have_text("2 chosen")
    with page.expect_download() as started:
        page.locator("#export").click()
    started.value.save_as(tmp_path / "some.zip")
    with zipfile.ZipFile(tmp_path / "some.zip") as archive:
        chosen = [elite["class"] for elite in json.loads(archive.read("manifest.json"))["elites"]]
    assert chosen == [1, 2]
    page.locator("#choose-all").click()
    sync_api.expect(page.locator("#chosen")).to_have_text("10 chosen")
    page.locator("#at").evaluate("slider => { slider.value = 48; slider.dispatchEvent(new Event('input')); }")
    sync_api.expect(page.locator("#selection")).to_be_hidden()
    assert complaints == []
    context.close()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gallery with a run of a thousand classes, whose target answers at once."""
    folder = tmp_path_factory.mktemp("thousand")
    labels = [f"class {c}: a name that is too long for one line of its tile" for c in range(1000)]
    weights = np.random.default_rng(0).normal(0, 0.02, (3 * 24 * 24, 1000)).astype(np.float32)

    def forward(images: np.ndarray) -> np.ndarray:
        return np.array([image.ravel().astype(np.float32) @ weights for image in images])

    stub = Target("stub", labels, (3, 24, 24), forward, {})
    recipe = load("mnist-cppn", ["stop.evaluations=240", "search.batch=24", "encoding.kind=canvas", "target=stub"])
    with Run.start(recipe, folder / "thousand", stub) as run:
        run.advance()
    with served(folder) as found:
        yield found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_grid_of_a_thousand_classes_is_sound(thousand: str, browser: Any, width: int, scheme: str) -> None:
    sync_api = waiting()
    context = screen(browser, width, scheme)
    page, complaints = opened(context, thousand, "thousand")
    sync_api.expect(page.locator("#grid > li")).to_have_count(1000)
    sync_api.expect(page.locator("#grid img").first).to_have_js_property("complete", True)
    save_screenshot(page, f"gallery-grid-1000-{width}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("/")
    page.keyboard.type("77")
    page.keyboard.press("Enter")
    arrived(page, "text=77")
    labels = page.locator("#grid .label").all_text_contents()
    assert labels == [text for text in labels if "77" in text]
    assert len(labels) == 19, "77, 177 to 977, and 770 to 779"
    assert_sound(page)
    page.locator("#choose-all").click()
    sync_api.expect(page.locator("#chosen")).to_have_text("19 chosen")
    assert complaints == []
    context.close()
