"""All parts of an explanation in one folder: the page, failures and interruptions of parts, black boxes."""

import base64
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import evofool
from evofool.ascend.hooks import Hooks
from evofool.errors import ImageError, ScoreError, StoreError, TargetError
from evofool.explain import parts_layers, parts_occlusion, parts_saliency
from evofool.explain.figures import figures
from evofool.explain.inversion import InversionSettings, graded_steps, invert
from evofool.explain.occlusion import occlude
from evofool.explain.options import PARTS, ExplanationOptions
from evofool.explain.page import Explanation, explain
from evofool.explain.part_result import Progress, Report
from evofool.images import decode_png, save_png
from evofool.machine import torch_threads
from evofool.targets import Target

pytestmark = pytest.mark.slow
SALIENCY = ("saliency", "mean over ten crops", "smooth", "smooth, squared", "variance")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """By default a single layer is inverted; one thread, as in the command."""
    monkeypatch.setattr("evofool.explain.page.evenly", lambda _target, count=1: ["fc1", "conv2", "fc2"][:count])
    with torch_threads(1):
        yield


def ring() -> np.ndarray:
    y, x = np.mgrid[:28, :28]
    return (255 * (np.abs(np.hypot(y - 14, x - 14) - 8) < 1.8)).astype(np.uint8)[None]


def black() -> Target:
    white = evofool.target("lenet")
    return Target("box", white.labels, white.shape, white.logits, {})


def explained(target: Target, folder: Path, report: Report = lambda _line: None, **options: Any) -> Explanation:
    return explain(target, ring(), 0, folder, source="ring.png", options=ExplanationOptions(**options), report=report)


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]*"', "", page.read_text(encoding="utf-8")))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float64)


def pictures_of(page: Path) -> list[np.ndarray]:
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", page.read_text(encoding="utf-8"))
    return [pixels(base64.b64decode(png)) for png in encoded]


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))


def test_the_page_has_every_part_and_every_picture_is_a_file_beside_it(lenet: Target, tmp_path: Path) -> None:
    reals = tmp_path / "reals"
    reals.mkdir()
    for i in range(4):
        save_png(np.random.default_rng(i).integers(0, 256, (1, 28, 28), np.uint8), reals / f"{i}.png")
    lines: list[str | Progress] = []
    found = explained(lenet, tmp_path / "out", real_images=reals, dream="conv2", report=lines.append)
    assert headings(found.page) == [
        f"Why 0 and not {found.against}",
        "Sufficient subsets",
        "Maps",
        "Occlusion",
        "Elements",
        "Saliency",
        "Segmentation",
        "Grad-CAM",
        "Deletion and insertion",
        "Inversion",
        "Dream",
        "What HOG leaves",
        "Nearest real images",
    ]
    assert not found.faults
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", *(path.name for path in found.pictures)}
    files = [pixels(path.read_bytes()) for path in found.pictures]
    shown = pictures_of(found.page)
    assert len(shown) > 10
    for picture in shown:  # in fewer colours than its file
        assert any(file.shape == picture.shape and np.abs(file - picture).mean() < 4 for file in files)
    np.testing.assert_array_equal(decode_png((tmp_path / "out" / "image.png").read_bytes()), ring())
    assert lines[:2] == ["Explaining ring.png as 0 (class 0) of lenet", f"occlusion (1 of {len(PARTS) - 1})"]
    assert {"nearest: 4 of 4 pictures", "occlusion: 169 of 169 patches"} <= set(map(str, lines))
    text = text_of(found.page)
    assert "Why lenet classifies this image as 0" in text
    assert "lenet classifies this image as 0: log-odds" in text
    assert "Not run yet" not in text
    assert "Warning" not in text
    assert f"Passes spent: {found.forwards:,} forward, {found.backwards:,} backward" in text


def test_passes_are_counted_forward_and_backward(lenet: Target, tmp_path: Path) -> None:
    before = lenet.queries
    found = explained(lenet, tmp_path, only=["saliency", "segmentation"])
    gradients, checks = 1 + 10 + 16, 2 * (5 + 64)  # both parts share the noisy copies
    assert found.forwards == lenet.queries - before == 1 + gradients + checks
    assert found.backwards == gradients


def test_passes_of_a_part_that_fails_are_counted_too(lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImageError("no object")

    monkeypatch.setattr(parts_saliency, "object_mask", fail)
    monkeypatch.setattr(parts_layers, "energies", fail)
    found = explained(lenet, tmp_path, only=["segmentation", "dream"], dream="conv2")
    assert found.faults == {"segmentation": "no object", "dream": "no object"}
    assert found.backwards == 16 + 4 * 10  # noisy copies; four octaves


def test_inversions_show_the_error_and_whether_the_class_was_kept(lenet: Target, tmp_path: Path) -> None:
    lines: list[str | Progress] = []
    found = explained(lenet, tmp_path, only=["inversion"], layers=["fc2", "conv1", "fc2"], report=lines.append)
    assert [path.name for path in found.pictures] == ["image.png", "inversion-from-conv1.png", "inversion-from-fc2.png"]
    text = html.unescape(text_of(found.page))
    assert "divided by the norm of the image's" in text
    assert "The inversion of fc2, the deepest of the layers, is classified as 0 too (log-odds" in text
    assert "If you see no 0 in it, it is a fooling image too" in text
    assert "dropped by the layer, smoothed by the search, or not removed in its steps" in text
    assert "squared" not in text
    with Hooks(lenet, ["conv1", "fc2"]) as hooks:
        layers = hooks.forward(torch.zeros(1, *lenet.shape))
    early, deep = (graded_steps(lenet.shape, layers.layer(name).numel()) for name in ("conv1", "fc2"))
    assert found.backwards == early + deep
    assert deep < early
    steps = [event for event in lines if isinstance(event, Progress)]
    shown = [str(steps[k]) for k in (early - 2, early - 1)]
    assert shown == [f"inversion: conv1: {step} of {early} steps" for step in (early - 1, early)]
    assert steps[0].rate == 0  # the first step also prepares the network
    assert all(event.rate > 0 for event in steps[1:early])


def test_inversions_show_both_errors_with_real_images(lenet: Target, tmp_path: Path) -> None:
    for i in range(3):
        save_png(np.random.default_rng(i).integers(0, 256, (1, 28, 28), np.uint8), tmp_path / f"{i}.png")
    text = text_of(explained(lenet, tmp_path / "out", only=["inversion"], layers=["conv1"], real_images=tmp_path).page)
    assert "error, squared" in text
    assert "error, unsquared" in text


def test_an_inversion_that_equals_the_image_is_not_called_a_fooling_image(lenet: Target, tmp_path: Path) -> None:
    text = text_of(explained(lenet, tmp_path, only=["inversion"], layers=["conv1"]).page)
    assert "The inversion of conv1, the deepest of the layers, is classified as 0 too" in text
    assert "fooling image" not in text


def inverting_until(layer: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inversions of the other layers succeed."""

    def some(target: Target, images: np.ndarray, name: str, **how: object) -> object:
        if name == layer:
            raise error
        return invert(target, images, name, **{**how, "settings": InversionSettings(steps=5)})  # type: ignore[arg-type]

    monkeypatch.setattr(parts_layers, "invert", some)


def test_a_layer_that_fails_is_a_row_and_the_others_are_kept(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverting_until("conv2", ScoreError("conv2 is not finite"), monkeypatch)
    found = explained(lenet, tmp_path, only=["inversion"], layers=["conv1", "conv2", "fc2"])
    assert found.faults == {"inversion": "Layer conv2 failed: conv2 is not finite"}
    assert [path.name for path in found.pictures] == ["image.png", "inversion-from-conv1.png", "inversion-from-fc2.png"]
    assert "<td>conv2</td><td>failed</td>" in re.sub(r' class="number"', "", found.page.read_text(encoding="utf-8"))
    assert "Failed: inversion." in text_of(found.page)


def test_an_interrupt_keeps_the_layers_that_are_done(lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inverting_until("conv2", KeyboardInterrupt(), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        explained(lenet, tmp_path, only=["inversion", "dream"], dream="conv1", layers=["conv1", "conv2", "fc2"])
    text = text_of(tmp_path / "index.html")
    assert "Interrupted before these were finished: conv2, fc2" in text
    assert "Not run yet: inversion, dream." in text
    assert "Failed" not in text
    assert (tmp_path / "inversion-from-conv1.png").exists()


def test_a_zoom_shows_some_frames_and_keeps_all(lenet: Target, tmp_path: Path) -> None:
    found = explained(lenet, tmp_path, only=["dream"], dream="conv1", zoom=13)
    names = [path.name for path in found.pictures if path.name.startswith("dream-")]
    assert sorted(names) == [f"dream-frame-{k:03d}.png" for k in range(14)]
    assert found.page.read_text(encoding="utf-8").count("data:image/png;base64,") == 1 + 12
    assert "-fold" in text_of(found.page)
    assert found.backwards == 14 * 4 * 10
    for name in names:
        assert decode_png((tmp_path / name).read_bytes()).shape == (1, 28, 28)


def test_a_layer_that_accepts_only_one_size_is_enhanced_in_tiles_of_that_size(lenet: Target, tmp_path: Path) -> None:
    found = explained(lenet, tmp_path, only=["dream"], dream="fc1")
    assert "increase the response of fc1, at 4 sizes" in text_of(found.page)
    assert found.backwards == 40


def test_equal_seeds_give_equal_files(lenet: Target, tmp_path: Path) -> None:
    first, second = (explained(lenet, tmp_path / name, seed=3) for name in "ab")
    assert first.page.read_bytes() == second.page.read_bytes()


def test_a_black_box_has_the_parts_without_gradients(tmp_path: Path) -> None:
    found = explained(black(), tmp_path)
    with_maps = ["Sufficient subsets", "Maps", "Occlusion", "Elements", "RISE", "Deletion and insertion"]
    assert headings(found.page) == [*with_maps, "What HOG leaves"]
    text = text_of(found.page)
    assert "box has no gradients" in text
    assert "evofool baseline square, nes or random" in text
    assert found.backwards == 0
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        explained(black(), tmp_path, only=["saliency"])


def test_a_part_that_fails_is_named_on_the_page_and_the_others_are_kept(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of <luck>")

    monkeypatch.setattr(parts_saliency, "segmentation_part", fail)
    lines: list[str | Progress] = []
    found = explained(lenet, tmp_path, report=lines.append)
    assert found.faults == {"segmentation": "RuntimeError: out of <luck>"}
    assert headings(found.page) == [
        f"Why 0 and not {found.against}",
        "Sufficient subsets",
        "Maps",
        "Occlusion",
        "Elements",
        "Saliency",
        "Segmentation",
        "Grad-CAM",
        "Deletion and insertion",
        "Inversion",
        "What HOG leaves",
    ]
    assert "This part failed: RuntimeError: out of &lt;luck&gt;" in found.page.read_text(encoding="utf-8")
    assert "segmentation failed: RuntimeError: out of <luck>" in lines


def test_finished_parts_are_kept_after_an_interrupt(lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts_saliency, "saliency_part", stop)
    lines: list[str | Progress] = []
    with pytest.raises(KeyboardInterrupt):
        explained(lenet, tmp_path, report=lines.append)
    assert lines[-1] == f"interrupted; the finished parts are in {tmp_path}"
    assert headings(tmp_path / "index.html") == ["Maps", "Occlusion", "Elements"]
    text = text_of(tmp_path / "index.html")
    assert text.index(
        "Not run yet: saliency, segmentation, grad-cam, margin, evidence, integrated, sufficient, curves, inversion, hog."
    ) < text.index("lenet classifies this image as 0:")
    assert (tmp_path / "occlusion-drop-of-log-odds.png").exists()


def test_a_page_replaces_an_earlier_one_and_only_its_pictures(lenet: Target, tmp_path: Path) -> None:
    explained(lenet, tmp_path, only=["dream"], dream="conv1", zoom=13)
    (tmp_path / "mine.png").write_bytes(b"mine")
    (tmp_path / "elements-elements.png").write_bytes(b"mine too")
    found = explained(lenet, tmp_path, only=["elements"])
    assert "elements-elements-2.png" in {path.name for path in found.pictures}
    kept = {"index.html", "mine.png", "elements-elements.png"}
    assert {path.name for path in tmp_path.iterdir()} == kept | {path.name for path in found.pictures}
    assert (tmp_path / "elements-elements.png").read_bytes() == b"mine too"
    again = explained(lenet, tmp_path, only=["elements"])
    assert again.pictures == found.pictures


def test_a_complete_page_stays_until_another_one_is_complete(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    only = ["elements", "saliency"]
    explained(lenet, tmp_path, only=only)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    lines: list[str | Progress] = []
    with monkeypatch.context() as stopped:
        stopped.setattr(parts_saliency, "saliency_part", stop)
        with pytest.raises(KeyboardInterrupt):
            explained(lenet, tmp_path, only=only, seed=1, report=lines.append)
    assert lines[-1] == f"interrupted; the earlier explanation in {tmp_path} is complete and stays"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    found = explained(lenet, tmp_path, only=only, seed=1)
    assert (tmp_path / "index.html").read_bytes() != before["index.html"]
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", *(path.name for path in found.pictures)}


def test_an_unfinished_page_is_replaced_by_another_one(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts_saliency, "saliency_part", stop)
    for only in (["elements", "saliency"], ["occlusion", "saliency"]):
        with pytest.raises(KeyboardInterrupt):
            explained(lenet, tmp_path, only=only)
    assert "Occlusion" in headings(tmp_path / "index.html")
    assert "Elements" not in headings(tmp_path / "index.html")


def test_an_earlier_page_stays_until_a_part_of_the_new_one_is_done(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    explained(lenet, tmp_path / "out", only=["elements"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ImageError, match="is not a folder"):
        explained(lenet, tmp_path / "out", real_images=tmp_path / "typo")
    monkeypatch.setattr(parts_occlusion, "occlusion_part", stop)
    lines: list[str | Progress] = []
    with pytest.raises(KeyboardInterrupt):
        explained(lenet, tmp_path / "out", report=lines.append)
    assert lines[-1] == f"interrupted; the earlier explanation in {tmp_path / 'out'} is complete and stays"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_page_of_another_program_is_not_changed(lenet: Target, tmp_path: Path) -> None:
    for content in (b"<html>mine</html>", b"\xff\xfe\xfa"):
        (tmp_path / "index.html").write_bytes(content)
        with pytest.raises(StoreError, match=r"was not written by evofool and is not changed; .* --out DIR"):
            explained(lenet, tmp_path, only=["occlusion"])
        assert (tmp_path / "index.html").read_bytes() == content


def test_another_class_than_the_predicted_one_is_explained(lenet: Target, tmp_path: Path) -> None:
    found = explain(lenet, ring(), 7, tmp_path, source="ring.png", options=ExplanationOptions(only=["occlusion"]))
    text = text_of(found.page)
    assert "Evidence for 7 in an image that lenet classifies as 0" in text
    assert "lenet classifies this image as 0: log-odds" in text
    assert "Why lenet classifies" not in text


def test_the_class_is_compared_with_the_next_one_or_the_one_that_is_named(lenet: Target, tmp_path: Path) -> None:
    order = np.argsort(-lenet.logits(ring()[None])[0], kind="stable").tolist()
    before = lenet.queries
    found = explained(lenet, tmp_path / "next", only=["saliency", "margin"])
    # The noisy copies are shared: of 1 + 10 + 16 gradients the last 16 have a second backward pass.
    assert (found.against, found.backwards, lenet.queries - before) == (order[1], 1 + 10 + 2 * 16, found.forwards)
    assert headings(found.page)[0] == f"Why 0 and not {order[1]}"
    text = html.unescape(text_of(found.page))
    assert f"gradient of the logit of 0 less that of {order[1]}" in text
    assert re.search(r"\d+% of the pixels that matter most for 0 are also among those", text)
    z = lenet.logits(ring()[None])[0]
    assert f"The logit of 0 is {z[0] - z[order[1]]:.3f} above that of {order[1]}." in text
    assert figures(found, lenet)["against"] == {"class": order[1], "label": str(order[1])}
    last = explained(lenet, tmp_path / "last", only=["margin"], against=order[-1])
    assert headings(last.page) == [f"Why 0 and not {order[-1]}"]
    assert f"<td>{order[-1]}</td>" in re.sub(r' class="number"', "", last.page.read_text(encoding="utf-8"))
    options = ExplanationOptions(only=["margin"])
    other = explain(lenet, ring(), order[2], tmp_path / "other", source="ring.png", options=options)
    assert headings(other.page) == [f"{order[2]} compared with 0"]


def test_elements_are_listed_by_the_effect_of_covering_them(lenet: Target, tmp_path: Path) -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    for row in range(2, 26, 6):
        image[0, row : row + 3, 2:5] = image[0, row : row + 3, 14:17] = 255
    image[0, 4:24, 22:25] = 160
    found = explain(lenet, image, 1, tmp_path, source="dots.png", options=ExplanationOptions(only=["elements"]))
    page = found.page.read_text(encoding="utf-8")
    assert "Element 1 has the largest effect" in page
    assert "Without all 8 copies of group A the log-odds are" in page
    assert "-0.000" not in page
    changes = [
        float(row.split("</td>")[-3].rpartition(">")[2])
        for row in re.findall(r"<tr>(<td.*?)</tr>", page)
        if row.count("<td") == 6
    ]
    assert changes == sorted(changes)
    assert len(changes) == 9


def test_the_rest_of_many_elements_is_folded(lenet: Target, tmp_path: Path) -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    for row in range(2, 26, 6):
        for column in range(2, 26, 6):
            image[0, row : row + 3, column : column + 3] = 255
    page = explain(
        lenet, image, 8, tmp_path, source="dots.png", options=ExplanationOptions(only=["elements"])
    ).page.read_text(encoding="utf-8")
    shown, folded = page.split("<summary>The other 6 elements</summary>")
    ten = [row for row in re.findall(r"<tr>(<td.*?)</tr>", shown) if row.count("<td") == 6]
    assert len(ten) == 10
    assert folded.count("<summary>Group A") == 1


def test_occlusion_draws_the_patch_with_the_largest_effect(lenet: Target, tmp_path: Path) -> None:
    found = occlude(lenet, ring(), 0)
    top, left = found.corners[found.drops.argmax()].tolist()
    text = text_of(explained(lenet, tmp_path, only=["occlusion"]).page)
    assert f"the black square, lowers the log-odds of the class by {found.drops.max():.3f} at most" in text
    assert f"full red by {np.quantile(np.abs(found.map), 0.995):.3g}" in text
    assert not re.search(r"rows \d", text)
    drawn = pixels((tmp_path / "occlusion-drop-of-log-odds.png").read_bytes())
    factor = len(drawn) // 28
    black = np.argwhere((drawn == 0).all(2)) // factor
    assert black.min(0).tolist() == [top, left]
    assert black.max(0).tolist() == [top + 3, left + 3]


def test_the_answer_and_its_mask_are_on_top(lenet: Target, tmp_path: Path) -> None:
    lines: list[str | Progress] = []
    found = explained(lenet, tmp_path, only=["occlusion", "saliency", "curves"], report=lines.append)
    best = max(found.masks, key=lambda m: m.beyond)
    assert best.passed
    assert [mask.part for mask in found.masks] == ["occlusion", "saliency"]
    text = html.unescape(text_of(found.page))
    assert (
        text.index(found.answer) < text.index("lenet classifies this image as 0: log-odds") < text.index("this is not shown")
    )
    first = pictures_of(found.page)[0]
    factor = len(first) // 28
    dark = (first == 255).any(2)[:, :].reshape(28, factor, 28, factor).any((1, 3))
    assert (dark[best.mask & (ring()[0] == 255)]).all()
    shown = pixels((tmp_path / f"{best.part}-the-outlined-part.png").read_bytes())
    np.testing.assert_allclose(first, shown, atol=8)
    assert [*found.curves] == ["occlusion", *SALIENCY, "random pixels", "random patches"]
    assert f"{found.curves['occlusion'].deletion_area:.3f}" in text


def test_a_mask_that_costs_no_more_than_its_copies_is_not_called_the_place_of_the_class(
    lenet: Target, tmp_path: Path
) -> None:
    found = explained(lenet, tmp_path, only=["segmentation"])
    assert [mask.passed for mask in found.masks] == [False]
    text = html.unescape(text_of(found.page))
    assert found.answer.startswith('No part of this image is shown to be where lenet sees "0"')
    assert found.answer in text
    assert "So this is not shown to be where the class is" in text
    assert "The outlined part" not in text


def test_figures_of_masks_and_curves_are_plain_numbers(lenet: Target, tmp_path: Path) -> None:
    found = explained(lenet, tmp_path, only=["occlusion", "curves"])
    shown = json.loads(json.dumps(figures(found, lenet), allow_nan=False))
    assert shown["answer"] == found.answer
    (mask,) = shown["masks"]
    (checked,) = found.masks
    check, blurred = checked.check, checked.blurred
    assert blurred is not None
    assert (mask["part"], mask["passed"]) == ("occlusion", checked.passed)
    for each in (check, blurred):
        shown_check = [mask[each.fill][key] for key in ("passed", "cost", "limit", "copies")]
        assert shown_check == [each.passed, each.cost, each.limit, each.copies.tolist()]
    assert mask["mean"]["without"] == check.removal.without
    assert mask["blur"]["seen_alone"] in lenet.labels
    assert shown["curves"]["occlusion"]["deletion_area"] == found.curves["occlusion"].deletion_area
    assert len(shown["curves"]["random pixels"]["insertion"]) == 11


def test_an_image_without_elements_has_a_message(lenet: Target, tmp_path: Path) -> None:
    flat = np.full((1, 28, 28), 77, np.uint8)
    found = explain(lenet, flat, 1, tmp_path, source="flat.png", options=ExplanationOptions(only=["elements"]))
    assert "no elements" in text_of(found.page)


def test_invalid_arguments_are_refused_before_anything_is_written(lenet: Target, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(TargetError, match=r'no part "saleincy".*did you mean "saliency"'):
        explained(lenet, folder, only=["saleincy"])
    with pytest.raises(TargetError, match=r'no layer "conv3".*conv2'):
        explained(lenet, folder, layers=["conv1", "conv3"])
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        explained(black(), folder, layers=["conv1"])
    with pytest.raises(TargetError, match="--dream LAYER, for example conv1"):
        explained(lenet, folder, only=["dream"])
    with pytest.raises(TargetError, match=r'no layer "conv9"'):
        explained(lenet, folder, dream="conv9")
    with pytest.raises(ImageError, match="--real-images DIR"):
        explained(lenet, folder, only=["nearest"])
    for class_id in (-1, 10):
        with pytest.raises(TargetError, match=f"lenet: no class {class_id}; it has 0 to 9"):
            explain(lenet, ring(), class_id, folder, source="ring.png")
    with pytest.raises(TargetError, match=r"0 \(class 0\) is the class that is explained.*leave --against out"):
        explained(lenet, folder, against=0)
    with pytest.raises(TargetError, match="lenet: no class 10; it has 0 to 9"):
        explained(lenet, folder, against=10)
    save_png(ring(), tmp_path / "lone.png")
    with pytest.raises(ImageError, match="at least 2"):
        explained(lenet, folder, real_images=tmp_path)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_named(lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StoreError, match=r"file is a file, so .* cannot be a folder; .* --out DIR"):
            explained(lenet, out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"\.png cannot be written \(No space left on device\)"):
        explained(lenet, tmp_path / "out", only=["occlusion"])


def test_every_part_is_tested(lenet: Target, tmp_path: Path) -> None:
    for name in PARTS:
        if name not in ("nearest", "curves"):
            found = headings(explained(lenet, tmp_path / name, only=[name], dream="conv1").page)
            assert len([heading for heading in found if heading != "Maps"]) == 1


def test_curves_need_a_map(lenet: Target, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="--parts occlusion,curves"):
        explained(lenet, tmp_path / "out", only=["curves", "segmentation"])
    flat = np.full((1, 28, 28), 77, np.uint8)
    options = ExplanationOptions(only=["elements", "curves"])
    found = explain(lenet, flat, 1, tmp_path / "out", source="flat.png", options=options)
    assert not found.faults
    assert "No part has a map of this image" in text_of(found.page)
