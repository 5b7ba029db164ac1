"""The quiz in a real browser: taken by a scripted rater, from the server and as one file, and its pages' soundness."""

import csv
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.cli.in_browser import quiz_desk
from evofool.gallery.quiz_file import write_quiz
from evofool.images import save_png
from evofool.quiz.materials import session_id
from evofool.quiz.names import Names
from evofool.quiz.raters import standing
from evofool.quiz.schema import CHOICE, Trial
from evofool.quiz.store import QuizStore, trial_ids
from evofool.run.stored import StoredRun
from tests.browser import assert_sound, save_screenshot, screen
from tests.commands import Call
from tests.gallery.quiz_client import response, sees_all
from tests.gallery.server import served
from tests.quiz.samples import ANIMALS, DIGITS, first_pixels, made_up_run

pytestmark = pytest.mark.slow

_SLOWLY = "const now = performance.now.bind(performance); performance.now = () => now() - 700"
"""As if every image had been looked at for 0.7 s longer: the rules do not count raters who answer within 0.3 s."""
_PATIENCE = 120.0
"""Seconds in which a server has to say its address."""
_STEP = "#trial[data-shown]:visible, #intro:visible, #last:visible, #stopped:visible"


@contextmanager
def quiz_process(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`evofool quiz RUN` in a process of its own, and the address that it prints."""
    command = [sys.executable, "-m", "evofool", "quiz", str(run), "--no-open"]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        late = threading.Timer(_PATIENCE, process.kill)  # then readline ends
        late.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            late.cancel()
            complaints.seek(0)
            found = re.findall(r"http://\S+", line)
            assert found, f"no address after {_PATIENCE:.0f} s at the most, but {line!r} and {complaints.read()!r}"
            yield process, found[0]
        finally:
            late.cancel()
            process.kill()


def opened(context: Any, address: str) -> tuple[Any, list[str]]:
    """A page with a quiz, and what it complains about in the console."""
    page, complaints = context.new_page(), list[str]()
    page.set_default_timeout(60_000)  # machines of CI are shared
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.locator("html[data-ready]").wait_for(state="attached")
    return page, complaints


def take(page: Any, run: Path, give: Callable[[Any, Trial], None], most: int = 1000) -> int:
    """Answer trials until the last question, or so many of them; returns how many."""
    with QuizStore.open(run) as store:
        trials = {name: record.trials[n] for record in store.records() for name, n in trial_ids(record).items()}
    for done in range(most):
        page.locator(_STEP).first.wait_for()
        if page.locator("#intro").is_visible():
            page.keyboard.press("Enter")
            page.locator("#trial[data-shown]").wait_for()
        if page.locator("#last").is_visible():
            return done
        give(page, trials[page.locator("#trial").get_attribute("data-shown")])
    return most


def press_digit(page: Any, trial: Trial) -> None:
    seen = sees_all(trial)
    page.keyboard.press("n" if seen is None else str(seen))


def test_a_quiz_is_taken_from_the_link_to_the_verdict_with_a_kill_in_the_middle(
    root: Path, tmp_path: Path, browser: Any, call: Call
) -> None:
    run = Path(shutil.copytree(root / "digits", tmp_path / "run"))
    context = browser.new_context()
    context.add_init_script(_SLOWLY)
    with quiz_process(run) as (process, address):
        page, complaints = opened(context, address)
        page.locator("#rater").fill("Kim")
        page.locator("#begin button").click()
        page.locator("#intro").wait_for()
        assert take(page, run, press_digit, most=20) == 20
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.locator(_STEP).first.wait_for()
        if page.locator("#trial").is_visible():  # the server had sent the next image
            page.keyboard.press("1")
        page.locator("#stopped").wait_for()
        assert "does not answer" in page.locator("#stopped-text").inner_text()
        assert "give the same pseudonym" in page.locator("#stopped-hint").inner_text()
        assert all("net::ERR_" in text for text in complaints), complaints
    with QuizStore.open(run) as store:
        (before,) = store.records()
    assert len(before.answers) in (19, 20), "the server may have died before the last one"
    with quiz_process(run) as (_, address):
        page, complaints = opened(context, address)
        assert f"{len(before.answers)} of {len(before.trials)} answered" in page.locator(".unfinished").inner_text()
        page.locator(".resume").click()
        page.wait_for_url(re.compile(before.session.id))
        take(page, run, press_digit)
        page.locator("#not-seen").click()
        page.locator(".lead").wait_for()
        assert "Your answers count" in page.locator("main").inner_text()
        assert "4 more are needed" in page.locator("main").inner_text()
        assert complaints == []
        with QuizStore.open(run, write=True) as store:
            (kim,) = store.records()
            assert kim.answers[: len(before.answers)] == before.answers
            assert standing(kim, DIGITS).counts
            assert min(answer.rt_ms for answer in kim.answers) > 700
            images = {trial.image: store.image(trial.image) for trial in kim.trials}
            for seed in range(4):  # four more raters of the same mind
                session = kim.session.model_copy(update={"id": session_id(seed), "seed": seed, "rater": f"rater {seed}"})
                store.add(kim._replace(session=session), images)
        page.get_by_role("link", name="Show the images and the verdicts").click()
        page.locator("li img").first.wait_for()
        assert page.locator("tr", has_text="recognised").count() == 10
        save_screenshot(page, "quiz-verdicts")
        page.goto(re.sub(r"/quiz/(\w+).*", r"/run/\1", page.url))
        assert page.locator("#grid .said", has_text="recognised").count() == 10
        save_screenshot(page, "gallery-verdicts")
    context.close()
    assert call("verdicts", run).out.count("recognised") > 10


def test_a_page_in_one_file_is_taken_reloaded_and_imported(tmp_path: Path, browser: Any, call: Call) -> None:
    names = Names([*ANIMALS.labels, "<img src=x onerror=alert(1)>"])
    run = made_up_run(tmp_path / "run", names)
    for k in names.nameable:
        save_png(np.full((1, 8, 8), 10 * k, np.uint8), tmp_path / "real" / f"{k:03}" / "a.png")
    desk = quiz_desk(tmp_path / "real")
    with StoredRun(run) as stored:
        desk._loaded = stored.meta.id, first_pixels(names).logits  # a made-up target cannot be loaded by its name
    write_quiz(run, tmp_path / "quiz.html", desk, 3)

    def type_name(page: Any, trial: Trial) -> None:
        seen = sees_all(trial)
        if trial.block == CHOICE:
            position = int(response(trial, seen))
            page.keyboard.press("n" if position == len(trial.options) else str((position + 1) % 10))
        else:
            page.keyboard.type("" if seen is None else f'{names.labels[seen]}, "or so"')
            page.keyboard.press("Enter")

    context = browser.new_context(accept_downloads=True)
    context.add_init_script(_SLOWLY)
    page, complaints = opened(context, (tmp_path / "quiz.html").as_uri())
    page.locator("#rater").fill("=Kim")
    page.locator("#begin button").click()
    take(page, run, type_name, most=9)
    page.locator(_STEP).first.wait_for()
    page.reload()
    page.locator("#intro").wait_for()
    with QuizStore.open(run) as store:
        of = {len(record.trials) for record in store.records()}
    assert 9 + take(page, run, type_name) in of, "no answer is lost"
    page.locator("#not-seen").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    save_screenshot(page, "quiz-file-end")
    assert complaints == []
    download.value.save_as(tmp_path / "answers.csv")
    context.close()
    found = call("verdicts", run, "--import", tmp_path / "answers.csv")
    assert found.code == 0, found.err
    assert "1 raters of" in found.out
    assert "1 of 1 sessions count" in found.out
    with QuizStore.open(run) as store:
        taken = store.records()[-1]
    assert re.fullmatch("=Kim-[0-9a-v]{5}", taken.session.rater), "two raters may choose one pseudonym"
    assert taken.end is not None
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        (ended,) = {row["ended"] for row in csv.DictReader(file)}
    assert taken.end.at == datetime.fromisoformat(ended).timestamp(), "when the rater ended, not when it is imported"
    choices = [(trial, answer) for trial, answer in taken.pairs if (trial.block, trial.kind) == (CHOICE, "real")]
    assert [(answer.chosen,) for _, answer in choices] == [trial.classes for trial, _ in choices]
    assert standing(taken, names).real_named == 10
    assert "stored already" in call("verdicts", run, "--import", tmp_path / "answers.csv").out


def test_a_page_says_so_in_a_browser_that_cannot_unpack_it(root: Path, tmp_path: Path, browser: Any) -> None:
    run = Path(shutil.copytree(root / "digits", tmp_path / "run"))
    write_quiz(run, tmp_path / "quiz.html", quiz_desk(None), 1)
    context = browser.new_context()
    context.add_init_script("delete globalThis.DecompressionStream")
    page, complaints = opened(context, (tmp_path / "quiz.html").as_uri())
    assert "This browser is too old for the quiz" in page.locator("#fault").inner_text()
    page.locator("#rater").fill("Kim")
    assert page.locator("#begin button").is_disabled()
    assert complaints == []
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_of_the_quiz_is_sound(root: Path, tmp_path: Path, browser: Any, width: int, scheme: str) -> None:
    run, desk = Path(shutil.copytree(root / "digits", tmp_path / "run")), quiz_desk(None)

    def answer(until: Callable[[Trial], bool]) -> None:
        with QuizStore.open(run) as store:
            record = store.records()[0]
        for trial in record.trials[len(record.answers) :]:
            if until(trial):
                return
            shown = desk.state(run, record.session.id)["trial"]
            given = {"trial": shown, "response": response(trial, sees_all(trial)), "rt": 900.0}
            desk.answer(run, record.session.id, given)

    def sound(name: str) -> None:
        assert_sound(page)
        save_screenshot(page, f"quiz-{name}-{width}-{scheme}")

    with StoredRun(run) as stored:
        path = f"/quiz/{stored.meta.id}?"
    context = screen(browser, width, scheme)
    with served(run) as address:
        page, complaints = opened(context, address.replace("/?", path))
        sound("start")
        page.locator("#rater").fill("Kim")
        page.locator("#begin button").click()
        page.locator("#intro").wait_for()
        sound("intro")
        page.locator("#ready").click()
        page.locator("#trial[data-shown]").wait_for()
        size = page.locator("#image").bounding_box()
        assert size["width"] % 28 == size["height"] % 28 == 0, "a whole factor"
        sound("naming")
        answer(lambda trial: trial.block == CHOICE)
        page.reload()
        page.locator("#ready").click()
        page.locator("#trial[data-shown]").wait_for()
        assert page.locator("#image").bounding_box()["width"] == size["width"]
        sound("choice")
        answer(lambda trial: False)
        page.reload()
        page.locator("#last").wait_for()
        sound("last")
        page.locator("#was-seen").click()
        page.locator(".lead").wait_for()
        assert "do not count: the rater knew" in page.locator(".lead").inner_text()
        sound("end")
        page.get_by_role("link", name="Show the images and the verdicts").click()
        page.locator(".said").wait_for()
        sound("results")
        assert complaints == []
    write_quiz(run, tmp_path / "quiz.html", desk, 1)
    page, complaints = opened(context, (tmp_path / "quiz.html").as_uri())
    sound("file-start")
    assert complaints == []
    context.close()
