"""The quiz as a server asks it: what a rater's page gets to know, what is stored, who counts, and the page in one file."""

import base64
import json
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from evofool.cli.in_browser import quiz_desk
from evofool.errors import TargetError
from evofool.gallery import quiz_file
from evofool.gallery.quiz_desk import QuizError
from evofool.gallery.quiz_file import write_quiz
from evofool.gallery.security import Tokens
from evofool.images import decode_png, encode_png, pixel_sha256, save_png
from evofool.quiz.materials import session_id
from evofool.quiz.names import Names
from evofool.quiz.raters import standing
from evofool.quiz.schema import CHOICE, NAMING
from evofool.quiz.store import QuizStore, trial_ids
from evofool.run.stored import StoredRun
from tests.commands import Call
from tests.gallery.quiz_client import Rater
from tests.gallery.server import PORT, client
from tests.quiz.samples import ANIMALS, DIGITS, first_pixels, made_up_run


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    """A copy of the run of digits, whose quiz is the test's own."""
    return Path(shutil.copytree(root / "digits", tmp_path / "secret-name"))


@contextmanager
def quiz(run: Path, tokens: Tokens | None = None) -> Iterator[Rater]:
    """The quiz of a run, opened by the start address of `evofool quiz`."""
    tokens = tokens or Tokens()
    with StoredRun(run) as stored:
        address = f"/quiz/{stored.meta.id}"
    with client(run, tokens, welcome=False) as found:
        assert found.get(address, params={"token": tokens.start}).status_code == 200
        yield Rater(found, tokens, run, address)


def test_a_rater_s_page_does_not_tell_what_an_image_is(run: Path) -> None:
    with quiz(run) as rater:
        record = rater.begin("Kim").record()
        page = rater.client.get(f"{rater.address}/{rater.session}").text
        assert 'alt="an image to be named"' in page
        ids, encoders, texts = set(), set(), [page, rater.address, rater.session]
        while (state := rater.state())["done"] < state["of"]:
            trial = record.trials[state["done"]]
            ids.add(state["trial"])
            texts.append(json.dumps(state))
            assert state.keys() == {"done", "of", "ended", "keys", "trial", "block", "options"}
            assert re.fullmatch("[0-9a-f]{24}", state["trial"])
            assert state["keys"] == list("0123456789")
            assert sorted(state["options"]) == (list("0123456789") if trial.block == CHOICE else [])
            png = rater.client.get(f"{rater.address}/{rater.session}/{state['trial']}.png")
            with QuizStore.open(run) as store:
                assert png.content == store.image(trial.image)
            assert png.content == encode_png(decode_png(png.content)), "one encoder for all"
            encoders.add((png.headers["cache-control"], png.headers["content-type"]))
            rater.take(most=7)
        assert len(trial_ids(record)) == len(record.trials), "no id is used twice, not even for a repeat"
        assert ids <= trial_ids(record).keys()
        assert encoders == {("no-store", "image/png")}
        assert not re.search("elite|real|noise|repeat|secret-name|confidence", "".join(texts))


def test_only_the_image_that_is_asked_now_is_sent(run: Path) -> None:
    with quiz(run) as rater:
        first = rater.begin("Kim").state()["trial"]
        picture = f"{rater.address}/{rater.session}/{{}}.png"
        rater.take(most=1)
        assert rater.client.get(picture.format(first)).status_code == 400, "there is no way back"
        for trial in ("0" * 24, "x", "../run.db"):
            assert rater.client.get(picture.format(trial)).status_code in (400, 404)


@pytest.mark.parametrize(
    "given",
    [
        {"response": 3, "rt": 500.0}, {"response": None, "rt": 500.0}, {"response": "x" * 201, "rt": 500.0},
        {"response": "7", "rt": -1.0}, {"response": "7", "rt": "soon"}, {"response": "7"},
    ],
)  # fmt: skip
def test_an_invalid_answer_is_refused_in_words(run: Path, given: dict[str, object]) -> None:
    with quiz(run) as rater:
        trial = rater.begin("Kim").state()["trial"]
        reply = rater.post(f"/{rater.session}/answer", {"trial": trial} | given)
        assert reply.status_code == 400
        assert "no answer to the trial" in reply.text
        assert rater.record().answers == ()


def test_bodies_that_are_no_answers_are_refused(run: Path) -> None:
    with quiz(run) as rater:
        rater.begin("Kim")
        address = f"{rater.address}/{rater.session}/answer"
        for body, status in ((b"", 400), (b"[1]", 400), (b"[" * 9000, 400), (b"\xff", 400), (b"9" * 20_000, 413)):
            assert rater.client.post(address, content=body, headers=rater.headers).status_code == status
        assert rater.answer("0" * 24, "7").status_code == 400
        odd = json.dumps({"rater": "\ud800", "viewport": {"a": [1]}})
        assert rater.client.post(f"{rater.address}/begin", content=odd, headers=rater.headers).status_code == 200
        assert rater.post("/begin", {"rater": "  "}).status_code == 400
        assert rater.post("/begin", {"rater": "A", "dpr": "x"}).status_code == 400
        rater.session = "f" * 32
        assert rater.answer("0" * 24, "7").status_code == 404


def test_an_answer_that_was_stored_before_its_page_heard_of_it_is_stored_once(run: Path) -> None:
    with quiz(run) as rater:
        first = rater.begin("Kim").state()["trial"]
        after = rater.answer(first, "7").json()
        assert rater.answer(first, "3").json() == after
        assert [answer.answer for answer in rater.record().answers] == ["7"]


def test_a_session_goes_on_after_another_start_under_the_same_pseudonym(run: Path) -> None:
    with quiz(run) as rater:
        rater.begin("Kim Ono").take(most=7)
        session, of = rater.session, rater.state()["of"]
    with quiz(run) as rater:  # other tokens
        page = rater.client.get(rater.address).text
        assert "Go on as Kim Ono" in page
        assert f"7 of {of} answered" in page
        assert rater.begin(" kim  ONO ").session == session
        assert rater.state()["done"] == 7
        assert rater.begin("Lee").session != session


@pytest.mark.parametrize(("path", "seen"), [("", False), ("/run/{id}", True), ("/", True), ("/run/{id}/cell/3", True)])
def test_a_browser_that_has_shown_the_run_is_known(run: Path, path: str, seen: bool) -> None:
    with quiz(run) as rater:
        if path:
            assert rater.client.get(path.format(id=rater.address.removeprefix("/quiz/"))).status_code == 200
        assert ("does not count" in rater.client.get(rater.address).text) == seen
        assert rater.begin("Kim").record().seen == seen
        assert rater.begin("Lee", seen=True).record().seen, "who says so is believed"


def test_who_opens_the_run_meanwhile_does_not_count(run: Path) -> None:
    with quiz(run) as rater:
        rater.begin("Kim").take()
        rater.client.get(rater.address.replace("/quiz/", "/run/"))
        assert "do not count: the rater knew the run&#39;s images" in rater.end()
        assert standing(rater.record(), DIGITS).why == "the rater knew the run's images"


def test_a_session_that_goes_on_after_its_images_were_seen_does_not_count(run: Path) -> None:
    def counts(name: str, **given: Any) -> bool:
        with quiz(run) as rater:  # a server that knows nothing of the one before
            rater.begin(name, **given).take()
            rater.end()
            return standing(rater.record(), DIGITS).counts

    with quiz(run) as rater:
        for name in ("Ann", "Ben"):
            rater.begin(name).take(most=3)
    assert not counts("Ann", seen=True), "ticked when it goes on"
    assert counts("Ben")
    with quiz(run) as rater:
        rater.begin("Cem").take(most=3)
        rater.client.get(rater.address.replace("/quiz/", "/run/"))
    with quiz(run) as rater:
        page = rater.client.get(rater.address).text
        assert page.count("it does not count, since its images have been seen") == 1
        assert "This browser has shown images" not in page
    assert not counts("Cem"), "the run was opened before another start"


def test_after_the_results_nobody_else_counts_in_this_browser(run: Path) -> None:
    with quiz(run) as rater:
        rater.begin("Ann").take()
        assert rater.client.get(f"{rater.address}/{rater.session}/results").status_code == 400, "it has not ended"
        end = rater.end()
        assert "<img" not in end
        assert "class" not in re.sub("<[^>]*>", "", end).split("Hand over")[0], "what was shown is behind a click"
        ann = rater.session
        rater.begin("Ben").take()
        rater.end()
        assert standing(rater.record(), DIGITS).counts, "the last page shows nothing"
        rater.begin("Cem").take(most=3)
        ben, rater.session = rater.session, ann
        assert rater.results().count("<img") == 20
        rater.session = ben
        rater.take()
        assert "do not count" in rater.end()
        assert "does not count" in rater.client.get(rater.address).text


def test_a_copy_of_a_run_whose_images_were_shown_is_known(run: Path) -> None:
    shutil.copytree(run, run.parent / "copy")
    tokens = Tokens()
    with StoredRun(run) as stored, client(run.parent, tokens, welcome=False) as browser:
        copy, own = f"/quiz/{stored.meta.id}", f"/quiz/{stored.meta.id}-2"
        assert "does not count" not in browser.get(copy, params={"token": tokens.start}).text
        rater = Rater(browser, tokens, run.parent / "copy", copy).begin("Kim")
        assert browser.get(own.replace("/quiz/", "/run/")).status_code == 200
        assert rater.record().seen, "an open session about the same images"
        assert "does not count" in browser.get(copy).text
        assert rater.begin("Lee").record().seen


def test_the_last_page_has_verdicts_from_five_raters_on(run: Path) -> None:
    def pages(name: str) -> str:
        with quiz(run) as rater:
            rater.begin(name).take()
            assert "Thank you" not in rater.client.get(f"{rater.address}/{rater.session}").text, "before the end no results"
            return rater.end() + rater.results()

    page = pages("Ann")
    assert "Your answers count." in page
    assert "One rater alone makes no verdict" in page
    with QuizStore.open(run, write=True) as store:
        (ann,) = store.records()
        images = {trial.image: store.image(trial.image) for trial in ann.trials}
        for seed, name in enumerate(("Ben", "Cem", "Dee")):
            session = ann.session.model_copy(update={"id": session_id(seed), "seed": seed, "rater": name})
            store.add(ann._replace(session=session), images)
    page = pages("Eve")
    assert "One rater alone" not in page
    assert page.count("<td>recognised</td><td>named by 5 of 5, chosen by 5 of 5") == 10


def test_a_session_cannot_end_before_its_last_answer(run: Path) -> None:
    with quiz(run) as rater:
        rater.begin("Kim").take(most=3)
        assert rater.post(f"/{rater.session}/end", {"seen": False}).status_code == 400
        assert rater.record().end is None


@pytest.mark.parametrize("path", ["/begin", "/{session}/answer", "/{session}/end"])
@pytest.mark.parametrize(
    "wrong", [{"origin": "http://evil.example"}, {"origin": f"http://127.0.0.1:{PORT + 1}"}, {"x-form-token": "x"}, {}]
)
def test_a_foreign_page_stores_nothing(run: Path, path: str, wrong: dict[str, str]) -> None:
    with quiz(run) as rater:
        rater.begin("Kim").take(most=1)
        headers = rater.headers | wrong if wrong else {}
        given = {"rater": "Mallory", "trial": rater.state()["trial"], "response": "7", "rt": 500.0, "seen": True}
        address = rater.address + path.format(session=rater.session)
        assert rater.client.post(address, json=given, headers=headers).status_code == 403
        with QuizStore.open(run) as store:
            (record,) = store.records()
        assert len(record.answers) == 1
        assert record.end is None


def test_the_materials_of_a_page_are_no_session_of_a_rater(run: Path) -> None:
    write_quiz(run, run / "quiz.html", quiz_desk(None), 1)
    with quiz(run) as rater, QuizStore.open(run) as store:
        rater.session = store.records()[0].session.id
        assert rater.client.get(f"{rater.address}/{rater.session}").status_code == 400
        assert "no session of a rater" in rater.answer("0" * 24, "7").text


def test_a_quiz_about_some_classes_asks_about_their_images_alone(run: Path) -> None:
    with QuizStore.open(run, write=True) as store:
        quiz_desk(None, classes=[3, 7]).draw_page(run)
        (record,) = store.records()
    elites = {trial.image: trial.classes for trial in record.trials if trial.kind == "elite"}
    with StoredRun(run) as stored:
        held = {pixel_sha256(elite.image) for elite in stored.elites() if elite.row.class_id in (3, 7)}
        everything = {pixel_sha256(elite.image): elite.row.class_id for elite in stored.elites()}
    assert elites.keys() == held
    assert all(everything[image] in classes for image, classes in elites.items())


def test_without_real_images_the_page_says_how_to_give_some(tmp_path: Path) -> None:
    with quiz(made_up_run(tmp_path / "run", ANIMALS)) as rater:
        page = rater.client.get(rater.address).text
        assert "cannot be asked" in page
        assert "--images DIR" in page
        assert rater.post("/begin", {"rater": "Kim"}).status_code == 400


def test_the_gallery_links_to_the_quiz(gallery: TestClient) -> None:
    address = re.findall(r'<a href="(/run/[0-9a-z-]+)">digits<', gallery.get("/").text)[0]
    (link,) = re.findall(r'<a href="(/quiz/[0-9a-z-]+)">Ask people', gallery.get(address).text)
    assert "This browser has shown images of this run" in gallery.get(link).text


# -- the page in one file


def sessions_of(page: str) -> list[dict[str, Any]]:
    content = json.loads(re.findall(r'<script type="application/json" id="sessions">(.*?)</script>', page)[0])
    return [json.loads(zlib.decompress(base64.b64decode(text))) for text in content["sessions"]]


def test_a_page_in_one_file_has_sessions_without_classes(run: Path, tmp_path: Path) -> None:
    made = write_quiz(run, tmp_path / "quiz.html", quiz_desk(None), 3)
    page = (tmp_path / "quiz.html").read_text()
    with QuizStore.open(run) as store:
        records = store.records()
    assert (made.sessions, made.size) == (3, len(page.encode()))
    assert made.trials == len(records[-1].trials)
    assert [record.session.kind for record in records] == ["page"] * 3
    for record, session in zip(records, sessions_of(page), strict=True):
        assert session.keys() == {"images", "trials"}
        for trial, shown in zip(record.trials, session["trials"], strict=True):
            assert shown.keys() == {"trial", "block", "options", "image"}
            with QuizStore.open(run) as store:
                assert base64.b64decode(session["images"][shown["image"]]) == store.image(trial.image)
        first = [shown["image"] for shown in session["trials"] if shown["block"] == NAMING]
        assert list(dict.fromkeys(first)) == list(range(30)), "images are numbered as they are asked"
    assert "://" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "default-src 'none'" in page
    assert "unsafe" not in page


def test_a_page_that_would_be_too_large_is_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiz_file, "LARGEST", 200_000)
    with pytest.raises(QuizError, match=r"with 1000 sessions would be larger than 0 MB.*; at most (\d+) fit: --sessions \1"):
        write_quiz(run, tmp_path / "quiz.html", quiz_desk(None), 1000)
    assert not (tmp_path / "quiz.html").exists()


def test_labels_of_a_page_are_not_read_in_its_source(tmp_path: Path) -> None:
    labels = [f"object {k}" for k in range(11)] + ["<img src=x onerror=alert(1)></script>"]
    names = Names(labels)
    folder = made_up_run(tmp_path / "run", names)
    for k in range(12):
        save_png(np.full((1, 8, 8), 20 * k, np.uint8), tmp_path / "real" / f"{k:03}" / "a.png")
    desk = quiz_desk(tmp_path / "real")
    with StoredRun(folder) as stored:
        desk.check(stored)
        run_id = stored.meta.id
    desk._loaded = run_id, first_pixels(names).logits  # a made-up target cannot be loaded by its name
    write_quiz(folder, tmp_path / "quiz.html", desk, 1)
    page = (tmp_path / "quiz.html").read_text()
    assert "object 3" not in page
    assert "onerror" not in page
    (session,) = sessions_of(page)
    shown = {label for trial in session["trials"] for label in trial["options"]}
    assert labels[-1] in shown
    assert all(len(trial["options"]) in (0, 10) for trial in session["trials"])


def test_a_server_is_not_asked_for_options_without_a_limit(tmp_path: Path) -> None:
    with StoredRun(made_up_run(tmp_path / "run", ANIMALS)) as stored:
        stored.recipe = stored.recipe.model_copy(update={"target": "https://example.org/score"})
        with pytest.raises(TargetError, match=r"every session asks this server about 40 images.*max_requests=100"):
            quiz_desk(None, trust=True).load(stored)


def test_the_command_says_what_it_lacks(call: Call, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    animals = made_up_run(tmp_path / "animals", ANIMALS)
    found = call("quiz", animals)
    assert (found.code, "--images DIR" in found.err) == (2, True)
    (tmp_path / "real" / "tench").mkdir(parents=True)
    found = call("quiz", animals, "--images", tmp_path / "real")
    assert found.code == 2
    assert call("quiz", run, "--sessions", "3").code == 2
    for k in range(12):
        save_png(np.full((1, 8, 8), 20 * k, np.uint8), tmp_path / "animals-real" / f"{k:03}" / "a.png")
    found = call("quiz", animals, "--images", tmp_path / "animals-real")
    assert (found.code, "box" in found.err, found.out) == (2, True, ""), "before the address is told"
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder that has the name of the built-in digits
    found = call("quiz", run, "--html", tmp_path / "a.html", "--sessions", "2")
    assert found.code == 0, found.err
    assert "2 sessions of 6" in found.out
    assert (tmp_path / "a.html").is_file()
