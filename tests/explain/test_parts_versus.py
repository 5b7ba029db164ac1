"""The parts that compare two classes, and sufficient subsets, on a page."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.explain import options as explain_options
from evofool.explain.evidence import evidence
from evofool.explain.figures import figures
from evofool.explain.options import ExplanationOptions
from evofool.explain.page import Explanation, explain
from evofool.explain.part_result import PassCounter, Progress
from evofool.explain.parts_captum import _summed
from evofool.explain.parts_sufficient import sufficient_part
from evofool.images import save_png
from evofool.targets import Target
from tests.explain.one_patch import PATCH, lit, one_patch
from tests.explain.test_evidence import SHAPE, image
from tests.explain.test_evidence import target as pooling
from tests.explain.test_sufficient import Weighted


def explained(target: Target, folder: Path, **options: object) -> Explanation:
    return explain(
        target,
        image(),
        2,
        folder,
        source="noise.png",
        options=ExplanationOptions(**options),  # type: ignore[arg-type]
    )


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]*"', "", page.read_text(encoding="utf-8"))))


def test_a_page_divides_the_margin_among_channels_and_pixels(tmp_path: Path) -> None:
    pytest.importorskip("captum.attr")
    (tmp_path / "real").mkdir()
    for k in range(4):
        save_png(np.random.default_rng(k).integers(0, 256, SHAPE, np.uint8), tmp_path / "real" / f"real-{k}.png")
    target = pooling()
    before = target.queries
    only = ["evidence", "integrated", "grad-cam", "sufficient"]
    found = explained(target, tmp_path / "out", only=only, against=1, real_images=tmp_path / "real")
    assert not found.faults
    assert found.forwards == target.queries - before
    page = found.page.read_text(encoding="utf-8")
    compared, subsets, *_ = re.findall(r"<h2>(.*?)</h2>", page)
    assert re.fullmatch("Why c and not b|c compared with b", compared)
    assert subsets == "Sufficient subsets"
    ours = evidence(target, image(), 2, 1)
    text = text_of(found.page)
    assert f"The margin of c over b is {ours.margin:.3f}: channels add" in text
    assert re.search(r"beside it real-\d\.png, real-\d\.png, real-\d\.png", text)
    assert "the parts of 4 real images that excite it most" in text
    shown = json.loads(json.dumps(figures(found, target), allow_nan=False))
    assert shown["evidence"]["logits"] == list(ours.logits)
    assert [each["channel"] for each in shown["evidence"]["strongest"]] == [*ours.strongest(6)[0], *ours.strongest(6)[1]]
    assert shown["integrated"]["margin"] == pytest.approx(ours.margin, abs=1e-4)
    assert (shown["integrated"]["fill"], shown["integrated"]["steps"]) == ("mean", 32)
    # Its mean colour alone keeps the class.
    assert {*shown["sufficient"]["shares"]} == {"evidence", "Grad-CAM", "random pixels", "random patches"}
    assert {subset["share"] for subset in shown["sufficient"]["shares"].values()} == {0.0}


def test_a_network_that_is_not_pooled_has_the_reason_instead(lenet: Target, tmp_path: Path) -> None:
    options = ExplanationOptions(only=["evidence"])
    found = explain(lenet, np.zeros((1, 28, 28), np.uint8), 0, tmp_path, source="black.png", options=options)
    assert not found.faults
    assert "There is no evidence by channels" in text_of(found.page)
    assert "is not the mean over positions of a layer's output" in text_of(found.page)


def test_without_captum_the_page_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_options, "available", lambda: False)
    monkeypatch.setattr("evofool.explain.page.available", lambda: False)
    with pytest.raises(TargetError, match=r"the part integrated needs captum, .*: pip install 'evofool\[explain\]'"):
        explained(pooling(), tmp_path / "asked", only=["integrated"])
    monkeypatch.setattr("evofool.explain.page.evenly", lambda _target: ["conv"])
    found = explained(pooling(), tmp_path / "all")
    assert not found.faults
    assert "Not run: grad-cam and integrated need captum, which is not installed" in text_of(found.page)
    assert "<h2>Grad-CAM</h2>" not in found.page.read_text(encoding="utf-8")


def test_a_black_box_has_rise_and_subsets_by_its_maps(tmp_path: Path) -> None:
    options = ExplanationOptions(only=["occlusion", "rise", "sufficient", "curves"])
    found = explain(one_patch(), lit(), 0, tmp_path, source="patch.png", options=options)
    assert not found.faults
    assert [mask.part for mask in found.masks] == ["occlusion", "rise"]
    shares = {name: subset["share"] for name, subset in found.figures["sufficient"]["shares"].items()}
    assert max(shares["occlusion"], shares["RISE"]) < min(shares["random pixels"], shares["random patches"])
    assert "are enough: alone they keep 90% of the confidence in bright" in text_of(found.page)
    assert [*found.curves] == ["occlusion", "RISE", "random pixels", "random patches"]
    with pytest.raises(TargetError, match="the part sufficient needs a part with a map"):
        explain(one_patch(), lit(), 0, tmp_path, source="patch.png", options=ExplanationOptions(only=["sufficient"]))


def test_where_the_mean_colour_keeps_the_class_no_pixel_is_selected(tmp_path: Path) -> None:
    target = pooling()
    flat = np.full(SHAPE, 90, np.uint8)
    found = explain(target, flat, 0, tmp_path, source="flat.png", options=ExplanationOptions(only=["sufficient"]))
    assert not found.faults
    assert found.backwards == 0
    assert found.forwards <= 8
    assert "no pixel is needed, so there is no sufficient subset" in text_of(found.page)


def test_backward_selection_is_in_the_place_of_maps_of_gradients(tmp_path: Path) -> None:
    target = Target.from_module(Weighted(PATCH[None] - PATCH.mean()), ["bright", "dark"], (1, *PATCH.shape))
    options = ExplanationOptions(only=["saliency", "sufficient"])
    events: list[str | Progress] = []
    found = explain(target, lit()[:1], 0, tmp_path, source="patch.png", options=options, report=events.append)
    assert not found.faults
    shares = {name: subset["share"] for name, subset in found.figures["sufficient"]["shares"].items()}
    assert [*shares] == ["backward selection", "random pixels", "random patches"]
    assert shares["backward selection"] < min(shares["random pixels"], shares["random patches"])
    assert "It takes the place of the maps of gradients" in text_of(found.page)
    steps = [event for event in events if isinstance(event, Progress) and "backward selection" in event.what]
    assert [event.done for event in steps] == list(range(1, len(steps) + 1))
    assert steps[0].of > 1


def test_maps_and_random_pixels_have_the_same_rounds(tmp_path: Path) -> None:
    target = one_patch()
    maps = {"patch": PATCH * 1.0}
    before = target.queries
    found = sufficient_part(target, lit(), 0, maps, 0, lambda _event: None, PassCounter())
    assert target.queries - before == 2 + 10 * (1 + 4)
    assert [*found.figures["sufficient"]["shares"]] == ["patch", "random pixels", "random patches"]


def test_squares_add_up_to_the_whole() -> None:
    values = np.arange(35.0).reshape(5, 7)
    found = _summed(values, 3)
    assert found.shape == (5, 7)
    assert found[0, 0] == values[:3, :3].sum()
    assert found[4, 6] == values[3:, 6:].sum()
