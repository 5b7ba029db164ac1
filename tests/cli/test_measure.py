"""The command that measures the image metrics of a run."""

import json
from pathlib import Path

import numpy as np
from typer import Typer
from typer.testing import CliRunner

from evofool.cli.app import app as evofool_app
from evofool.cli.measure import measure
from evofool.errors import ImageError
from evofool.image_metrics.metrics import MIN_REAL_IMAGES
from evofool.images import save_png
from evofool.run.reader import FILE
from evofool.run.schema import IMAGE_METRICS
from evofool.run.store import Store
from tests.commands import Call
from tests.image_metrics.samples import SHAPE, measured, random_images, started

PIXELS, HOG, FEATURES, VARIATION = IMAGE_METRICS[:4]


def folder_of(home: Path, images: np.ndarray) -> Path:
    for k, image in enumerate(images):
        (home / "abcd"[k % 4]).mkdir(parents=True, exist_ok=True)
        save_png(image, home / "abcd"[k % 4] / f"{k:02d}.png")
    return home


def test_the_command_warns_where_noise_is_near_real_images(tmp_path: Path) -> None:
    folder, pictures = started(tmp_path / "run"), tmp_path / "real"
    noise = np.random.default_rng(0).integers(0, 256, (60, *SHAPE), np.uint8)
    for k, image in enumerate(noise):
        (pictures / "abcd"[k % 4]).mkdir(parents=True, exist_ok=True)
        save_png(image, pictures / "abcd"[k % 4] / f"{k:02d}.png")
    app = Typer()
    app.command()(measure)
    result = CliRunner().invoke(app, [str(folder), "--images", str(pictures)])
    assert "Noise is near these real images too by pixel distance to the nearest real image, percentile" in result.output


def test_the_command_prints_medians_beside_those_of_the_controls(tmp_path: Path) -> None:
    folder, pictures = started(tmp_path / "run"), tmp_path / "real"
    for k, image in enumerate(random_images(60, 0)):
        home = pictures / "abcd"[k % 4]
        home.mkdir(parents=True, exist_ok=True)
        save_png(image, home / f"{k:02d}.png")
    app = Typer()
    app.command()(measure)
    result = CliRunner().invoke(app, [str(folder), "--images", str(pictures), "--network", "lenet"])
    assert result.exit_code == 0, result.output
    assert "4 elites of" in result.output
    assert "30 real images of" in result.output
    assert "feature distance to the nearest real image, percentile" in result.output
    assert "uniform noise" in result.output
    assert "`evofool quiz` asks them" in result.output
    assert "nrecognis" not in result.output
    again = CliRunner().invoke(app, [str(folder), "--images", str(pictures)])
    assert "0 elites of" in again.output
    assert "The features of another classifier were not compared: --network SPEC" in again.output
    assert all(len(row) == 4 for row in measured(folder))
    with Store.open(folder) as store:
        assert {what["images"] for what in store.meta().references.values()} == {str(pictures)}
        json.dumps(store.meta().references)
    assert (folder / FILE).exists()


def test_the_command_refuses_few_real_images_and_lists_what_it_replaced(tmp_path: Path) -> None:
    folder, app = started(tmp_path / "run"), Typer()
    app.command()(measure)
    few = folder_of(tmp_path / "few", random_images(MIN_REAL_IMAGES - 1, 1))
    many, others = (
        folder_of(tmp_path / name, random_images(MIN_REAL_IMAGES, seed)) for name, seed in (("many", 0), ("others", 5))
    )
    result = CliRunner().invoke(app, [str(folder), "--images", str(many), "--network", "lenet"])
    assert result.exit_code == 0, result.output
    assert "were replaced" not in result.output
    before = measured(folder)
    refused = CliRunner().invoke(app, [str(folder), "--images", str(few)])
    assert isinstance(refused.exception, ImageError)
    assert f"few: {MIN_REAL_IMAGES - 1} real images, and percentiles among them need at least {MIN_REAL_IMAGES}" in str(
        refused.exception
    )
    assert measured(folder) == before
    result = CliRunner().invoke(app, [str(folder), "--images", str(others)])
    line = f"Results with other real images were replaced: {many} (25 and 25 held out)\n"
    assert line in result.output
    assert {m.name for row in measured(folder) for m in row} == {PIXELS, HOG, VARIATION}
    shown = json.loads(CliRunner().invoke(evofool_app, ["show", str(folder), "--json"]).output)
    assert [what["images"] for what in shown["references"].values()] == [str(others)]


def test_it_tells_how_many_elites_survive_a_pipeline(call: Call, cppn_run: Path) -> None:
    printed = call("measure", cppn_run, "--through", "same,jpeg:75")
    assert printed.code == 0
    lines = printed.out.splitlines()
    assert lines[0].split() == ["elites", "keep", "their", "class", "p", ">=", "0.9", "p", ">=", "0.99", "median", "p"]
    assert [line.partition("  ")[0] for line in lines[1:5]] == ["as stored", "same", "jpeg:75", "every pipeline"]
    assert "(100%)" in lines[2]
    told = json.loads(call("measure", cppn_run, "--through", "jpeg:75", "--json").out)
    assert told["pipelines"]["jpeg:75"]["class"]["of"] == told["stored"]["class"]
    assert len(told["pipelines"]["jpeg:75"]["elites"]) == told["elites"] == 10


def test_one_thing_is_measured_at_a_time(call: Call, cppn_run: Path) -> None:
    for arguments, message in {
        (): "give --images, to compare with real images, or --through",
        ("--images", "digits", "--through", "jpeg:75"): "give only one of --images and --through",
        ("--images", "digits", "--json"): "--json is for --through",
        ("--through", "jpeg:75", "--network", "lenet"): "--network compares with real images",
        ("--through", "jpeg:101"): "--through: through has",
        ("--through", "jpeg:75,crop:300"): "--through: crop:300 does not fit into 28 x 28 pixels",
    }.items():
        printed = call("measure", cppn_run, *arguments)
        assert printed.code == 2, arguments
        assert message in printed.err
