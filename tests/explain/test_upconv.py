"""Decoders that invert a layer: their samples, training, files, errors, changed codes and pages."""

import json
import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import ImageError, ScoreError, StoreError, TargetError
from evofool.explain.options import ExplanationOptions
from evofool.explain.page import explain
from evofool.explain.part_result import Progress
from evofool.explain.upconv import training
from evofool.explain.upconv.codes import between, binarised, dropped_out
from evofool.explain.upconv.errors import by_mean, by_ridge, distances, pair_distance
from evofool.explain.upconv.inversion import compared, invert
from evofool.explain.upconv.model import (
    LayerInverse,
    kept_inverse,
    learned_inverse,
    load_inverse,
    save_inverse,
)
from evofool.explain.upconv.page import InversePageOptions, Subject, inverse_page
from evofool.explain.upconv.samples import (
    LEAST,
    Samples,
    by_pixels,
    fitting,
    held_out,
    image_shape,
    inputs,
    pictures_of,
    samples,
)
from evofool.explain.upconv.training import TrainingSettings, layout_for, train
from evofool.images import from_pil, save_png, to_pil
from evofool.targets import Preprocessing, Target
from genomes.upconv import Decoder, Layout, decoder_bytes

QUICK = TrainingSettings(epochs=2)
SHAPE = (3, 72, 96)


def small(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Target:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(shape[0], 6, 5, 4, 2), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1), nn.Flatten(), nn.LazyLinear(5)
        )
        net(torch.zeros(1, *shape))
    return Target.from_module(net, list("abcde"), shape, name=f"small {seed}")


def picture(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A bright box at a random place on a random colour: uint8."""
    rng = np.random.default_rng(seed)
    image = np.empty(shape, np.uint8)
    image[:] = rng.integers(0, 120, (shape[0], 1, 1))
    top, left = int(rng.integers(shape[1] // 2)), int(rng.integers(shape[2] // 2))
    image[:, top : top + shape[1] // 3, left : left + shape[2] // 3] = rng.integers(150, 256, (shape[0], 1, 1))
    return image


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Target, LayerInverse, Path]:
    target = small()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOFOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        model, path = learned_inverse(target, "2", by_pixels(np.stack([picture(k) for k in range(60)])), QUICK)
    return target, model, path


def test_the_split_and_the_crops_depend_on_content_and_seed_only(tmp_path: Path) -> None:
    target = small()
    for k in range(LEAST):
        save_png(picture(k), tmp_path / "one" / f"{k}.png")
        save_png(picture(k), tmp_path / "two" / "deep" / f"{90 - k}.png")
    one, two = pictures_of(tmp_path / "one"), pictures_of(tmp_path / "two")
    assert list(one) == list(two)
    assert held_out([*one]) == held_out([*two, "f" * 64])[:2]
    digest = next(iter(one))
    first = inputs(digest, one[digest], target, 4, 0)
    np.testing.assert_array_equal(first, inputs(digest, two[digest], target, 4, 0))
    assert np.abs(first[1:].astype(int) - inputs(digest, two[digest], target, 4, 1)[1:]).max() > 0
    assert {image.tobytes() for image in first[1:]} & {first[0].tobytes()} == set()
    original = from_pil(to_pil(first[0]))
    assert first.shape == (4, *SHAPE)
    assert original.tobytes() in {picture(k).tobytes() for k in range(LEAST)}, "the first is the target's own input"


def test_samples_are_the_layers_outputs_and_the_pictures_in_small() -> None:
    target = small()
    pictures = by_pixels(np.stack([picture(k) for k in range(20)]))
    shape = image_shape(target, 48)
    assert shape == (3, 36, 48)
    found = samples(target, ["2", "logits"], pictures, shape, 2)
    assert found["2"].codes.shape == (40, 4, 9, 12)
    assert found["2"].codes.dtype == np.float16
    assert found["logits"].codes.shape == (40, 5)
    assert found["2"].images.shape == (40, 3, 36, 48)
    own = np.stack([image for image in pictures.values() if isinstance(image, np.ndarray)])
    np.testing.assert_allclose(found["logits"].codes[::2], target.logits(own), rtol=2e-3, atol=2e-3)
    assert fitting(1000, (64, 64, 64), 4) == (1000, 2)
    assert fitting(1000, (9,), 4) == (1000, 4)
    pictures_that_fit, crops = fitting(2000, (256, 56, 56), 4)
    assert (pictures_that_fit, crops) == (668, 1)


def test_a_decoder_of_a_layer_is_nearer_to_unseen_pictures_than_the_mean(
    learned: tuple[Target, LayerInverse, Path],
) -> None:
    target, model, _ = learned
    assert (model.pictures, model.crops, model.held_out, model.epochs, model.of) == (54, 4, 6, 2, 2)
    assert model.error < model.of_mean
    assert model.of_ridge < model.of_mean
    unseen = np.stack([picture(1000 + k) for k in range(6)])
    found = invert(target, unseen, model)
    assert found.pictures.shape == (6, 3, 48, 64)
    assert found.image_errors.mean() < 0.9 * model.of_mean
    same = compared(target, unseen, unseen, model, 0.0)
    np.testing.assert_allclose([*same.image_errors, *same.code_errors], 0, atol=1e-6)
    np.testing.assert_array_equal(same.classes, target.logits(unseen).argmax(1))


def test_the_ridge_regression_finds_a_linear_map_and_more_than_the_mean() -> None:
    rng = np.random.default_rng(0)
    for code in ((5,), (3, 4, 6)):
        codes = rng.normal(size=(300, *code)).astype(np.float16)
        if len(code) == 1:
            drawn = codes.astype(float) @ rng.normal(size=(5, 24)) * 4 + 128
            images = drawn.reshape(300, 1, 4, 6).clip(0, 255).round().astype(np.uint8)
        else:
            images = (codes[:, :1].astype(float) * 30 + 128).clip(0, 255).round().astype(np.uint8)
        training = Samples(codes[:250], images[:250])
        unit = pair_distance(images[250:])
        assert distances(by_ridge(training, codes[250:]), images[250:]).mean() / unit < 0.04
        assert 0.6 < distances(by_mean(training, 50), images[250:]).mean() / unit < 0.8


def test_training_repeats_exactly_and_ends_early_with_the_last_whole_epoch() -> None:
    target = small()
    data = samples(target, ["2"], by_pixels(np.stack([picture(k) for k in range(32)])), (3, 36, 48))["2"]
    files = [decoder_bytes(train(data, replace(QUICK, seed=seed), target, "2").decoder, {}) for seed in (0, 0, 1)]
    assert files[0] == files[1] != files[2]

    def stop_at(wanted: int) -> training.Trained:
        def count(done: int, _of: int) -> None:
            if done > wanted:
                raise KeyboardInterrupt

        return train(data, QUICK, target, "2", count=count)

    found = stop_at(40)
    assert (found.epochs, found.of) == (1, 2)
    with pytest.raises(KeyboardInterrupt):
        stop_at(10)


def test_the_epoch_with_the_smallest_error_on_the_last_samples_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    target, weights = small(), []
    data = samples(target, ["2"], by_pixels(np.stack([picture(k) for k in range(20)])), (3, 36, 48))["2"]
    errors = iter((3.0, 1.0, 2.0))

    def error(decoder: Decoder, _data: Samples, begin: int, _batch: int) -> float:
        assert begin == 18
        weights.append(decoder.to_image.weight.clone())
        return next(errors)

    monkeypatch.setattr(training, "_error", error)
    found = train(data, replace(QUICK, epochs=3), target, "2")
    assert (found.epochs, found.of) == (3, 3)
    assert torch.equal(found.decoder.to_image.weight, weights[1])


def test_dropout_is_of_vectors_and_keeps_their_mean() -> None:
    decoder = Decoder(Layout((4,), (1, 8, 8), (4,)))
    decoder.code_mean += 7
    codes = decoder.code_mean + torch.tensor([1.0, -2.0, 3.0, 0.5]).repeat(4000, 1)
    found = training._dropped(decoder, codes, 0.5, np.random.default_rng(0))
    torch.testing.assert_close(found.mean(0), codes[0], rtol=0.02, atol=0.02)
    assert 0.45 < (found == 7).double().mean() < 0.55
    maps = torch.ones(2, 3, 4, 4)
    assert training._dropped(decoder, maps, 0.5, np.random.default_rng(0)) is maps


def test_the_loss_of_features_makes_features_nearer() -> None:
    target = small()
    data = samples(target, ["2"], by_pixels(np.stack([picture(k) for k in range(48)])), (3, 36, 48))["2"]
    models = [train(data, replace(QUICK, epochs=6, feature_weight=w), target, "2").decoder for w in (0.0, 3.0)]
    images = torch.from_numpy(data.images[:16]).float() / 255
    distance = training._FeatureDistance(target, "2", data)
    with torch.no_grad():
        plain, by_features = (float(distance(model(torch.from_numpy(data.codes[:16])), images)) for model in models)
    distance.close()
    assert by_features < 0.9 * plain


def test_a_map_keeps_its_places_and_a_vector_begins_with_a_small_grid() -> None:
    for code, image, widths in (
        ((40, 28, 28), (3, 64, 64), (64, 32)),
        ((192, 7, 7), (3, 64, 64), (128, 96, 64, 32)),
        ((16, 64, 64), (3, 64, 64), (32, 32)),
        ((1000,), (3, 64, 64), (128, 96, 64, 32)),
        ((500,), (1, 28, 28), (96, 64, 32)),
        ((7,), (1, 5, 5), (32, 32)),
    ):
        assert layout_for(code, image) == Layout(code, image, widths, transposed=True)


def test_changed_codes_keep_their_norm() -> None:
    codes = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    codes[0, 0] = 0
    for changed in (binarised(codes), dropped_out(codes)):
        np.testing.assert_allclose(
            np.linalg.norm(changed.reshape(3, -1), axis=1), np.linalg.norm(codes.reshape(3, -1), axis=1), rtol=1e-5
        )
    sizes = np.abs(binarised(codes)[0])
    assert (sizes[0] == 0).all()
    np.testing.assert_allclose(sizes[1:], sizes[1, 0, 0])
    np.testing.assert_array_equal(np.sign(binarised(codes)), np.sign(codes))
    assert 0.35 < (dropped_out(codes)[1:] == 0).mean() < 0.65
    assert (dropped_out(np.zeros((1, 3), np.float32)) == 0).all()
    way = between(codes[0], codes[1], 3)
    np.testing.assert_allclose(way, [codes[0], (codes[0] + codes[1]) / 2, codes[1]], rtol=1e-6)


def test_a_decoder_is_learned_once_kept_and_found_again(
    learned: tuple[Target, LayerInverse, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, model, path = learned
    monkeypatch.setenv("EVOFOOL_CACHE", str(path.parent))
    events: list[object] = []
    images = np.stack([picture(k) for k in range(60)])
    again, same = learned_inverse(target, "2", by_pixels(images[::-1]), QUICK, report=events.append)
    assert (same, events) == (path, [])
    assert again.error == model.error
    kept = kept_inverse(target, "2")
    assert kept is not None
    assert kept.learned == model.learned
    assert kept_inverse(target, "logits") is None
    assert kept_inverse(small(1), "2") is None
    assert sum(model.learned_from(digest) for digest in by_pixels(images)) == 54
    save_inverse(again, path.with_name("again"))
    assert path.with_name("again").read_bytes() == path.read_bytes()
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert kept_inverse(target, "2") is None
    path.write_bytes(whole)


def test_ctrl_c_keeps_the_decoder_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path))
    target, lines = small(), []

    def report(event: str | Progress) -> None:
        lines.append(str(event))
        if "training" in str(event) and isinstance(event, Progress) and event.done > event.of / 2:
            raise KeyboardInterrupt

    model, path = learned_inverse(target, "2", by_pixels(np.stack([picture(k) for k in range(20)])), QUICK, report=report)
    assert (model.epochs, model.of) == (1, 2)
    assert path.name.endswith("-1-of-2.safetensors")
    assert "Interrupted: the best decoder of 1 of 2 epochs is used" in lines
    assert kept_inverse(target, "2") is None
    assert load_inverse(path, target, "2").epochs == 1


def test_files_of_other_networks_layers_and_kinds_are_refused_in_one_sentence(
    learned: tuple[Target, LayerInverse, Path], tmp_path: Path
) -> None:
    target, model, path = learned
    bad = tmp_path / "bad.safetensors"

    def refused(file: Path, message: str, network: Target = target, layer: str = "2") -> None:
        with pytest.raises(StoreError, match=message) as raised:
            load_inverse(file, network, layer)
        assert str(file) in str(raised.value)
        assert "\n" not in str(raised.value)

    refused(path, r"inverts small 0 \(fingerprint \w{12}\), and small 1 is another network", small(1))
    refused(path, "inverts the layer 2, not 0", layer="0")
    bad.write_bytes(path.read_bytes()[:5000])
    refused(bad, "is not a whole safetensors file .*; learn another one by --train DIR")
    bad.write_bytes(pickle.dumps([1]))
    refused(bad, "is a pickle or a zip, which evofool does not unpack")
    bad.write_bytes(decoder_bytes(model.decoder, {}))
    refused(bad, 'is not a decoder of a layer: its kind is "None"')
    save_inverse(replace(model, image_unit=0.0), bad)
    refused(bad, "is damaged: its errors and units are")
    save_inverse(replace(model, decoder=Decoder(Layout((4, 9, 9), (3, 48, 64), (8,)))), bad)
    refused(bad, r"is damaged: it takes codes of \(4, 9, 9\), and 2 has \(4, 9, 12\)")
    refused(tmp_path / "no", "cannot be read")


def test_folders_and_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    target = small()
    for k in range(3):
        save_png(picture(k), tmp_path / f"{k}.png")
    with pytest.raises(ImageError, match="has 3 different pictures; a decoder is learned from at least 16"):
        pictures_of(tmp_path)
    with pytest.raises(ImageError, match="is not a folder"):
        pictures_of(tmp_path / "no")
    for k in range(20):
        (tmp_path / f"broken-{k}.png").write_bytes(bytes([k]))
    with pytest.raises(ImageError, match="has 3 different pictures"):
        pictures_of(tmp_path)
    with pytest.raises(TargetError, match='no layer "9"; there are'):
        learned_inverse(target, "9", {}, QUICK)
    box = Target.probed(
        "box", lambda images: images.mean((2, 3))[:, :2].astype(np.float32), ["a", "b"], SHAPE, Preprocessing(), "logits", {}
    )
    with pytest.raises(TargetError, match="it has neither gradients nor layers"):
        learned_inverse(box, "2", {}, QUICK)


def test_a_page_has_both_inverses_the_changed_codes_and_the_way(
    learned: tuple[Target, LayerInverse, Path], tmp_path: Path
) -> None:
    target, model, _ = learned
    one, other = Subject(picture(70), "one.png"), Subject(picture(71), "other.png", ["other.png became small"])
    page = inverse_page(target, one, model, tmp_path, options=InversePageOptions(towards=other))
    assert list(page.found) == ["decoder", "search"]
    assert list(page.changed) == ["binarised", "half dropped out"]
    assert len(page.steps) == 7
    text = page.output.page.read_text()
    assert "What 2 of small 0 keeps of one.png" in text
    assert f"mean image error over 6 pictures that were held out is {model.error:.3f}" in text
    assert "other.png became small" in text
    assert len(page.output.pictures) == 3 + 3 + 7
    assert page.found["search"].code_errors[0] < page.found["decoder"].code_errors[0]
    without = inverse_page(target, one, model, tmp_path, options=InversePageOptions(search=False, perturb=False))
    assert (list(without.found), without.changed, without.steps) == (["decoder"], {}, [])


def test_an_explanation_shows_the_decoders_that_are_kept(
    learned: tuple[Target, LayerInverse, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, path = learned
    options = ExplanationOptions(("inversion",), layers=("2",))
    for cache, shown in ((path.parent, True), (tmp_path / "none", False)):
        monkeypatch.setenv("EVOFOOL_CACHE", str(cache))
        made = explain(target, picture(70), 0, tmp_path / str(shown), source="here", options=options)
        text = made.page.read_text()
        assert ("By a decoder" in text, "Decoded from 2" in text) == (shown, shown)
        assert any(file.name == "inversion-decoded-from-2.png" for file in made.pictures) == shown


def test_settings_are_part_of_a_decoder(learned: tuple[Target, LayerInverse, Path]) -> None:
    assert json.loads(learned[1].settings)["epochs"] == 2
    for wrong in ({"rate": 0.0}, {"rate": np.inf}, {"feature_weight": np.nan}, {"feature_weight": np.inf}):
        with pytest.raises(ValueError, match="rate is above 0"):
            TrainingSettings(**wrong)


def test_a_training_that_diverges_and_weights_beyond_float16_are_named(
    learned: tuple[Target, LayerInverse, Path], tmp_path: Path
) -> None:
    target, model, _ = learned
    data = samples(target, ["2"], by_pixels(np.stack([picture(k) for k in range(16)])), (3, 36, 48))["2"]
    with pytest.raises(ScoreError, match="the decoder of 2 diverged: its error is finite after no epoch"):
        train(data, replace(QUICK, rate=1e30), target, "2")
    decoder = Decoder(model.decoder.layout)
    decoder.to_image.bias.data[0] = 1e6
    with pytest.raises(ScoreError, match=r"is not written: the decoder's to_image.bias has .* beyond float16"):
        save_inverse(replace(model, decoder=decoder), tmp_path / "large")


def test_of_pictures_whose_codes_do_not_fit_fewer_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path))
    monkeypatch.setattr("evofool.explain.upconv.samples._MOST_BYTES", 18 * 2 * 4 * 9 * 12)
    lines: list[object] = []
    pictures = by_pixels(np.stack([picture(k) for k in range(30)]))
    model, _ = learned_inverse(small(), "2", pictures, replace(QUICK, epochs=1), report=lines.append)
    assert "2: 18 of 30 pictures are used, whose outputs fit in 1 GiB" in lines
    assert (model.pictures, model.held_out, model.crops) == (16, 2, 1)


def test_a_layer_with_of_in_its_name_is_found(
    learned: tuple[Target, LayerInverse, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path))
    net = nn.Sequential()
    net.add_module("bag_of_words", nn.Conv2d(3, 4, 8, 8))
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(4 * 9 * 12, 5))
    target = Target.from_module(net, list("abcde"), SHAPE, name="bag")
    made = replace(learned[1], network=target.fingerprint(), name="bag", layer="bag_of_words")
    beginning = f"upconv-{target.fingerprint()[:16]}-bag-of-words-0123456789abcdef"
    save_inverse(made, tmp_path / f"{beginning}-1-of-2.safetensors")
    assert kept_inverse(target, "bag_of_words") is None
    save_inverse(made, tmp_path / f"{beginning}.safetensors")
    assert kept_inverse(target, "bag_of_words") is not None


@pytest.mark.parametrize("stop", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_decoder_that_fails_or_is_interrupted_leaves_the_searches(
    learned: tuple[Target, LayerInverse, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    target, _, path = learned
    monkeypatch.setenv("EVOFOOL_CACHE", str(path.parent))

    def fail(*_: object) -> None:
        raise stop

    monkeypatch.setattr("evofool.explain.parts_upconv.invert", fail)
    expected = pytest.raises(KeyboardInterrupt) if isinstance(stop, KeyboardInterrupt) else nullcontext()
    with expected:
        options = ExplanationOptions(("inversion",), layers=("2",))
        explain(target, picture(70), 0, tmp_path, source="here", options=options)
    text = (tmp_path / "index.html").read_text()
    assert "From 2" in text
    assert "By a decoder" not in text
    interrupted = "Interrupted before these were finished: the inverses by decoders"
    stopped = isinstance(stop, KeyboardInterrupt)
    assert (interrupted in text, "The decoder of 2 failed: RuntimeError: no memory" in text) == (stopped, not stopped)
