"""Fooling images of before: which of them still fool, by a slow count, in a page, and in JSON."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool import scores
from evofool.bench.sets.survivors import Survivors, fooling_rule, known_survivors
from evofool.bench.sets.survivors_page import survivors_folder, survivors_page
from evofool.cli.score_set import score_set as command
from evofool.csv_file import write_csv
from evofool.errors import RecipeError, StoreError
from evofool.images import save_png
from evofool.targets import Target
from tests.bench.image_sets import LABELS, SHAPE, calibration, network, noise, noise_set, scored
from tests.browser import assert_sound, save_screenshot, screen
from tests.commands import invoke


def survivors(folder: Path, rule: str | None = None, target: Target | None = None, real: Any = None) -> Survivors:
    target = target or network()
    return Survivors(scored(folder, target, real), fooling_rule(rule, target, real is not None))


@pytest.mark.parametrize("rule", ["p>=0.9", "p>0.5", "margin>=1", "log_odds>=0", "tau_5", "tau_50"])
def test_an_image_fools_if_its_class_is_predicted_alone_and_reaches_the_threshold(tmp_path: Path, rule: str) -> None:
    target = network()
    real = calibration(target)
    found = survivors(noise_set(tmp_path, 120), rule, target, real)
    slow = []
    for k, c in enumerate(found.scored.classes):
        z = target.logits(found.image(k)[None])[0].astype(np.float64)
        gap, p = z[c] - np.delete(z, c).max(), np.exp(z[c] - z.max()) / np.exp(z - z.max()).sum()
        reached = {
            "p>=0.9": p >= 0.9, "p>0.5": p > 0.5, "margin>=1": gap >= 1, "log_odds>=0": p >= 0.5,
            "tau_5": gap >= real.tau5[c], "tau_50": gap >= real.tau50[c],
        }[rule]  # fmt: skip
        slow.append(bool(reached and z.argmax() == c and gap > 0))
    assert found.fools.tolist() == slow
    assert 0 < sum(slow) < 120
    assert sorted(found.ranking) == np.flatnonzero(slow).tolist()
    assert (np.diff(found.scored.log_odds[found.ranking]) <= 0).all()
    counted = {name: (int(found.fools[rows].sum()), len(rows)) for name, rows in found.groups("class").items()}
    assert list(counted) == list(LABELS)
    assert sum(left for left, _ in counted.values()) == sum(slow)
    assert found.summary().startswith(f"{sum(slow)} of 120 images, of ")


def test_the_rule_is_tau_5_with_real_images_and_else_a_confidence() -> None:
    guarded = Target("guarded", LABELS, SHAPE, network().logits, {"guard": {}})
    for target, default in ((network(), "p >= 0.99"), (guarded, "margin >= 0")):
        assert [str(fooling_rule(None, target, calibrated)) for calibrated in (True, False)] == ["tau_5", default]
    for text, calibrated, message in (
        ("tau_5", False, "tau_5 is a threshold from real images: name these"),
        ("tau5", True, r"is no rule of acceptance; write p>=0.9 .*; or, with real images, tau_5 or tau_50"),
        ("p>=2", False, "2 is no level of p"),
    ):
        with pytest.raises(RecipeError, match=message):
            fooling_rule(text, network(), calibrated)


def test_classes_without_real_images_are_not_judged(tmp_path: Path) -> None:
    target = network()
    found = survivors(noise_set(tmp_path), "tau_5", target, calibration(target, classes=(0, 1, 2)))
    dogs = found.groups("class")["dog"]
    assert len(dogs) > 0
    assert not found.fools[dogs].any()
    assert found.as_json()["judged"] == len(found.scored.rows) - len(dogs)
    assert found.cautions() == [f"{len(dogs)} images are of classes without real images, for which there is no threshold"]


def test_equal_logits_and_rejected_images_do_not_fool(tmp_path: Path) -> None:
    even = Target("even", LABELS, SHAPE, lambda images: np.zeros((len(images), 4), np.float32), {})
    assert not survivors(noise_set(tmp_path / "set"), "log_odds>=-9", even).fools.any()
    base = network()

    def rejecting(images: np.ndarray) -> np.ndarray:
        logits = base.logits(images)
        rejected = np.where(images.reshape(len(images), -1)[:, :1] < 128, 99.0, -99.0).astype(np.float32)
        return np.concatenate([logits, rejected], axis=1)

    guarded = Target("guarded", [*LABELS, "rejected"], SHAPE, rejecting, {"guard": {}})
    plain, behind = survivors(tmp_path / "set", "margin>=0", base), survivors(tmp_path / "set", None, guarded)
    dark = np.array([behind.image(row)[0, 0, 0] < 128 for row in range(60)])
    assert behind.rejected.tolist() == dark.tolist()
    assert behind.fools.tolist() == (plain.fools & ~dark).tolist()
    assert 0 < behind.fools.sum() < plain.fools.sum()
    assert (plain.has_rejections, behind.has_rejections) == (False, True)
    assert behind.summary().endswith(f"still fool guarded (margin >= 0); {dark.sum()} are rejected")


def test_the_confidence_of_before_is_read_from_runs_and_exports(tmp_path: Path) -> None:
    folder = noise_set(tmp_path)
    rows = [{"file": "cow/4.png", "confidence": 0.75}, {"file": "dog/none.png", "confidence": 0.5}]
    names = survivors(folder).scored.images.names
    write_csv(folder / "elites.csv", ["file", "confidence"], [{"file": names[3], "confidence": 0.75}, *rows[1:]])
    found = survivors(folder)
    assert [found.then(row) for row in range(5)] == [None, None, None, 0.75, None]
    assert "(75.0% when it was made)" in found.line(3)
    (folder / "elites.csv").write_text("file;confidence\na;nan\n")
    assert survivors(folder).then(3) is None


def test_the_json_lists_what_still_fools_and_knows_it_again(tmp_path: Path) -> None:
    found = survivors(noise_set(tmp_path / "my own" / "set"), "p>=0.5")
    with survivors_folder(tmp_path / "out") as write:
        write(found)
    data = json.loads((tmp_path / "out" / "survivors.json").read_text())
    assert (data["survivors"], data["rule"]) == (len(found.ranking), "p >= 0.5")
    assert sum(row["survivors"] for row in data["per_class"]) == len(data["images"]) == len(found.ranking)
    first = data["images"][0]
    row = int(found.ranking[0])
    assert (
        first["confidence"]
        == float(scores.confidence(found.scored.log_odds[row]))
        == max(image["confidence"] for image in data["images"])
    )
    pixels = found.image(row)
    assert first["sha256"] == hashlib.sha256(f"{SHAPE} {first['label']} ".encode() + pixels.tobytes()).hexdigest()
    assert known_survivors(tmp_path / "out" / "survivors.json") == {image["sha256"] for image in data["images"]}
    assert "my own" not in json.dumps(data)
    (tmp_path / "other.json").write_text(json.dumps({"schema": "evofool.survivors", "version": 1, "images": [3]}))
    with pytest.raises(StoreError, match="has no list of images with sha256"):
        known_survivors(tmp_path / "other.json")


def test_a_page_is_replaced_and_another_folder_is_not(tmp_path: Path) -> None:
    found = survivors(noise_set(tmp_path / "set"))
    for _ in range(2):
        with survivors_folder(tmp_path / "out") as write:
            write(found)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"index.html", "survivors.json", ".evofool-survivors"}
    with pytest.raises(StoreError, match="is not empty, and has"), survivors_folder(tmp_path / "set"):
        pass


def test_the_command_writes_the_page_of_what_still_fools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["evofool.targets"], "target", lambda spec: network())
    folder = noise_set(tmp_path / "set")
    result = invoke(command, folder, "--target", "network", "--fools", "p>=0.6", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    found = survivors(folder, "p>=0.6")
    assert found.summary() in result.output
    assert f"Written: {tmp_path / 'out' / 'index.html'}" in result.output
    assert f"{len(found.ranking)} of 60 images still fool it, of " in (tmp_path / "out" / "index.html").read_text()
    result = invoke(command, folder, "--target", "network", "--fools", "tau_50")
    assert isinstance(result.exception, RecipeError)


def test_images_of_another_size_are_counted(tmp_path: Path) -> None:
    save_png(noise(1, 5, (3, 12, 10))[0], noise_set(tmp_path, 8) / "cow" / "large.png")
    (note,) = survivors(tmp_path).cautions()
    assert note == "1 images have another size (12 x 10), and are resized to 6 x 5; this makes some of them harmless"


def many(tmp_path: Path) -> Survivors:
    """More survivors than a page shows, of hostile names, beside images that do not fool."""
    folder = noise_set(tmp_path / "set", 240)
    labels = ["ant<b>", "big bee with a name that is so long that it cannot stand on a line", "cow", "dog"]
    base = network()
    target = Target("hostile<script>", labels, SHAPE, base.logits, {})
    for k, label in enumerate(LABELS):
        (folder / label.replace(" ", "_")).rename(folder / f"{k}_")
    for k in range(4):
        (folder / f"{k}_").rename(folder / str(k))
    return survivors(folder, "p>=0.25", target)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_is_sound_in_a_browser(
    tmp_path: Path, browser: Any, width: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[survivors_page.__module__], "SHOWN", 40)
    found = many(tmp_path)
    assert len(found.ranking) > 40
    file = tmp_path / "index.html"
    file.write_text(survivors_page(found))
    context = screen(browser, width, scheme)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    assert page.locator("figure img").count() == 40
    assert page.get_by_text(f"Shown are the first 40 of {len(found.ranking)}.").count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == "Images that still fool hostile<script>"
    assert page.locator("dl.figures dd").all_inner_texts()[:2] == [
        f"{len(found.ranking)}", f"{240 - len(found.ranking)}",
    ]  # fmt: skip
    assert_sound(page)
    save_screenshot(page, f"survivors-{width}")
    assert said == []
    context.close()


def test_a_page_without_survivors_says_so(tmp_path: Path) -> None:
    page = survivors_page(survivors(noise_set(tmp_path), "p>=0.999999"))
    assert "None of 60 images fools it any more" in page
    assert "<img" not in page
