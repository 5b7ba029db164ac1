"""A set of fooling images: its rows, its three layouts, an interrupted build, and what cannot be built."""

import csv
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner

from evofool.bench.arms import search_recipe
from evofool.bench.cell import RECORD
from evofool.cli.app import app
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.fooling_set import build
from evofool.fooling_set import prepare as prepare_module
from evofool.fooling_set.build import build_set
from evofool.fooling_set.index import SetIndex
from evofool.fooling_set.layouts import TABLE
from evofool.fooling_set.prepare import listed_entries, prepare
from evofool.fooling_set.recipe import load, parse, with_more
from evofool.fooling_set.rows import COLUMNS, DESCRIPTIONS, VERDICT_COLUMNS, matrix_columns, matrix_descriptions
from evofool.images import decode_png, resized
from evofool.recipe import shipped_recipes, shipped_sets
from evofool.run.stored import StoredRun
from evofool.scores import log_odds
from evofool.sweep.runner import WorkProgress
from evofool.targets import Target, target
from tests.fooling_set.sets import CLASSIFIERS, TINY, built_in, content, tiny
from tests.quiz.samples import asked

pytestmark = pytest.mark.slow


def rows(built: Path) -> list[dict]:
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(built / "set" / TABLE).to_pylist()


def test_there_is_a_row_for_each_class_of_each_cell(built: Path) -> None:
    ids = [row["id"] for row in rows(built)]
    digits = [f"{name}/{arm}-0/{c}" for name in ("lenet", "other") for arm in ("cppn", "latent", "noise") for c in (1, 3)]
    assert ids == [*digits, *(f"colours/noise-0/{c}" for c in range(3))]


def test_a_row_has_what_its_run_has(built: Path) -> None:
    by_id = {row["id"]: row for row in rows(built)}
    with StoredRun(built / "cells" / "other" / "cppn-0") as run:
        (elite,) = run.elites(3)
        row = by_id["other/cppn-0/3"]
        assert row["image"]["bytes"] == elite.row.png
        assert row["sha256"] == hashlib.sha256(elite.row.png).hexdigest()
        assert (row["label"], row["label_name"], row["classifier"], row["arm"]) == (3, "3", "other", "cppn")
        assert row["target_fingerprint"] == target("lenet?std=0.5").fingerprint()
        assert (row["encoding"], row["seed"], row["license"]) == ("cppn", 0, "CC0-1.0")
        assert row["log_odds"] == elite.row.log_odds
        assert json.loads(row["genome"]) == run.genome_json(elite)
        first = int(row["lineage"].removeprefix("other/cppn-0/"))
        assert run.store.descent(row["birth"])[-1].birth == first
        assert run.store.descent(first)[0].mother == -1
    assert all(row["genome"] is None for row in by_id.values() if row["encoding"] == "direct")


def test_the_matrix_has_the_answers_of_every_classifier_to_every_image(built: Path) -> None:
    labels = dict(zip(CLASSIFIERS, (target("lenet").labels, target("lenet").labels, ("red", "green", "3")), strict=True))
    specs = dict(zip(CLASSIFIERS, ("lenet", "lenet?std=0.5", "python:set_nets:colours"), strict=True))
    table = rows(built)
    for name, spec in specs.items():
        of = target(spec)
        images = np.stack([resized(decode_png(row["image"]["bytes"], "a row"), of.shape) for row in table])
        logits = np.concatenate([of.logits(images[i : i + 1], 16) for i in range(len(images))])
        odds = log_odds(logits)
        for k, row in enumerate(table):
            assert row[f"predicted/{name}"] == int(logits[k].argmax())
            if row["label_name"] in labels[name]:
                expected = odds[k, labels[name].index(row["label_name"])]
                assert row[f"log_odds/{name}"] == pytest.approx(expected, abs=1e-4)
            else:
                assert row[f"log_odds/{name}"] is None
    assert any(row["log_odds/colours"] is not None for row in table if row["group"] == "digits")
    assert all(row[f"log_odds/{row['classifier']}"] == pytest.approx(row["log_odds"], abs=1e-4) for row in table)


def test_nobody_judged_and_nothing_says_so(built: Path) -> None:
    assert all(row[name] is None for row in rows(built) for name in VERDICT_COLUMNS)
    assert "Nobody was asked" in (built / "set" / "README.md").read_text()


def test_what_people_said_of_a_cell_stands_in_its_rows(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "copy")
    asked(folder / "cells" / "lenet" / "cppn-0", ["perfect"] * 5)
    built_in(folder)
    judged = {row["id"]: (row["verdict"], row["verdict_raters"], row["verdict_named"]) for row in rows(folder)}
    assert judged.pop("lenet/cppn-0/1") == judged.pop("lenet/cppn-0/3") == ("recognised", 5, 5)
    assert set(judged.values()) == {(None, None, None)}
    assert "People were asked what 2 of 15 images show" in (folder / "set" / "README.md").read_text()


def test_images_of_groups_with_real_images_are_compared_with_these(built: Path) -> None:
    table = rows(built)
    assert all(0 <= row["nearest_real_hog_percentile"] <= 100 for row in table if row["group"] == "digits")
    assert {row["has_own_shape"] for row in table if row["group"] == "digits"} <= {0.0, 1.0}
    assert all(row["nearest_real_hog_percentile"] is None for row in table if row["group"] == "colours")
    assert f"{len(table) - 3} of the {len(table)} images were compared" in (built / "set" / "README.md").read_text()


def test_the_three_layouts_have_the_same_images(built: Path) -> None:
    table, folder = rows(built), built / "set"
    with (folder / "images" / "metadata.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["id"] for row in listed] == [row["id"] for row in table]
    with tarfile.open(folder / "webdataset" / "train-000000.tar") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}  # type: ignore[union-attr]
        assert {(member.mtime, member.uid, member.uname) for member in archive.getmembers()} == {(0, 0, "")}
    for k, (row, line) in enumerate(zip(table, listed, strict=True)):
        png = row["image"]["bytes"]
        file = folder / "images" / line["file_name"]
        assert file.read_bytes() == png == members[f"{k:08d}.png"]
        assert members[f"{k:08d}.cls"] == str(row["label"]).encode()
        assert json.loads(members[f"{k:08d}.json"]) == {name: value for name, value in row.items() if name != "image"}
        assert file.with_suffix(".json").exists() == (row["genome"] is not None)
    assert ImageFolder(str(folder / "images" / "digits")).classes == ["1_1", "3_3"]


def test_the_decoder_that_draws_latent_genomes_is_there(built: Path) -> None:
    for row in rows(built):
        name = row["decoder_sha256"]
        assert (name is not None) == (row["encoding"] == "latent")
        if name:
            decoder = (built / "set" / "decoders" / f"{name}.safetensors").read_bytes()
            assert hashlib.sha256(decoder).hexdigest() == name


def test_every_column_is_described() -> None:
    assert {"image", "label", *COLUMNS} == DESCRIPTIONS.keys()
    assert matrix_columns(["a"]).keys() == matrix_descriptions(["a"]).keys()


def test_the_index_has_the_hashes_of_the_files(built: Path) -> None:
    index = SetIndex.read(built)
    assert {TABLE, "images/metadata.csv", "webdataset/train-000000.tar"} < index.files.keys()
    for path, record in index.files.items():
        data = (built / "set" / path).read_bytes()
        assert record == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (
        index.images == len(rows(built)) == sum(of["images"] for by_arm in index.counts.values() for of in by_arm.values())
    )
    for name, by_arm in index.counts.items():
        for arm, of in by_arm.items():
            cell = [row for row in rows(built) if (row["classifier"], row["arm"]) == (name, arm)]
            predicted = [row for row in cell if row[f"predicted/{name}"] == row["label"]]
            assert (of["images"], of["predicted"]) == (len(cell), len(predicted))
            assert of["confident"] == sum(row["confidence"] >= 0.99 for row in predicted)
    assert str(built) not in (built / "set" / "set.json").read_text() + (built / "set" / "README.md").read_text()


def test_a_build_that_was_interrupted_and_killed_ends_with_the_same_bytes(built: Path, tmp_path: Path) -> None:
    folder, seen = tmp_path / "again", list[WorkProgress]()

    def after_the_first_cell(progress: WorkProgress) -> bool:
        return progress.done >= 1

    def killed_while_answering(progress: WorkProgress) -> bool:
        if progress.message.startswith("other on other"):
            raise KeyboardInterrupt
        return False

    assert build_set(tiny(), folder, after_the_first_cell).index is None
    done = [path.parent.name for path in (folder / "cells").rglob(RECORD)]
    assert done == ["cppn-0"]
    first = (folder / "cells" / "lenet" / "cppn-0" / RECORD).stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        build_set(tiny(), folder, killed_while_answering)
    assert not (folder / "set").exists()
    assert (folder / "answers" / "lenet").exists()
    assert build_set(tiny(), folder, lambda progress: bool(seen.append(progress))).index is not None
    assert not any(progress.message.startswith("lenet on") for progress in seen), "its answers were there"
    assert (folder / "cells" / "lenet" / "cppn-0" / RECORD).stat().st_mtime_ns == first
    assert content(folder / "set") == content(built / "set")


def test_a_failed_cell_leaves_the_earlier_set_as_it_was(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "copy")
    before = content(folder / "set")
    (folder / "cells" / "lenet" / "noise-0" / RECORD).write_text("{}")
    with pytest.raises(StoreError, match=r"1 of 7 cells failed.*lenet/noise-0/cell.json is damaged"):
        build_set(tiny(), folder)
    assert content(folder / "set") == before


def test_damaged_answers_are_made_anew(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "copy")
    (folder / "answers" / "lenet" / "other" / "cppn-0.safetensors").write_bytes(b"nothing")
    built_in(folder)
    assert content(folder / "set") == content(built / "set")


def test_the_command_builds_and_says_what(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    text.write('name = "tiny"\nseeds = 1\n')
    for group in TINY["groups"]:
        targets = ", ".join("{" + ", ".join(f'{k} = "{v}"' for k, v in of.items()) + "}" for of in group["targets"])
        own = {key: value for key, value in group.items() if key != "targets"}
        text.write("[[groups]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in own.items()))
        text.write(f"targets = [{targets}]\n")
    (tmp_path / "tiny.toml").write_text(text.getvalue())
    copy = shutil.copytree(built, tmp_path / "runs" / "tiny")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["set", "build", "tiny.toml", "--set", "version=1.0.0"])
    assert result.exit_code == 0, result.output
    assert "tiny 1.0.0: 15 images of 3 classifiers" in result.output
    assert content(copy / "set" / "data") == content(built / "set" / "data")


def test_what_is_published_of_a_recipe_names_no_folder() -> None:
    latent = {
        "latent": {"set": ["encoding.decoder=/home/me/a.safetensors", "encoding.sigma=0.5"]},
        "cppn": {"budget": 30},
    }
    group = {
        **TINY["groups"][0],
        "images": "/home/me/photos",
        "arm": latent,
        "targets": [{"target": "onnx:/home/me/n.onnx"}],
    }
    (found,) = build._public(tiny(groups=[group]))["groups"]
    assert found["arm"]["latent"]["set"] == ["encoding.decoder=a.safetensors", "encoding.sigma=0.5"]
    assert found["arm"]["cppn"] == {"budget": 30}
    assert (found["images"], found["targets"]) == ("photos", [{"target": "onnx:n.onnx"}])


def test_an_arm_may_have_its_own_budget_and_a_group_a_number_format(tmp_path: Path) -> None:
    group = {**TINY["groups"][0], "arm": {"cppn": {"budget": 30, "set": ["search.batch=3"]}}, "format": "float32-folded"}
    recipe = tiny(groups=[group])
    (first, _) = prepare(recipe, listed_entries(recipe, tmp_path), tmp_path, lambda text: None)
    jobs = {job.arm: job for job in first.cells}
    assert {arm: job.queries for arm, job in jobs.items()} == {"cppn": 30, "latent": 40, "noise": 40}
    assert {job.format for job in first.cells} == {"float32-folded"}
    searched = search_recipe(jobs["cppn"], first.target)
    assert (searched.search.batch, searched.search.rank, searched.stop.evaluations) == (3, "log_odds", 30)


def test_gradients_are_checked_with_the_budget_of_the_arms_that_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, choose = [], prepare_module.choose_gradients

    def spy(target: Target, arms: tuple[str, ...], budget: int, *others: object) -> object:
        given.append(budget)
        return choose(target, arms, budget, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_module, "choose_gradients", spy)
    group = {**TINY["groups"][0], "arms": ["cppn", "apgd", "fourier"], "arm": {"cppn": {"budget": 30}}, "budget": 400}
    recipe = tiny(groups=[{**group, "arm": {**group["arm"], "fourier": {"budget": 200}}}])
    prepare(recipe, listed_entries(recipe, tmp_path), tmp_path, lambda text: None)
    assert given == [200, 200]


def test_a_budget_that_is_too_small_names_the_arm(tmp_path: Path) -> None:
    recipe = tiny(groups=[{**TINY["groups"][0], "arms": ["cppn", "apgd"], "arm": {"apgd": {"budget": 3}}}])
    with pytest.raises(RecipeError, match="lenet: a budget of 3 queries is too small for 2 classes: apgd needs at least"):
        build_set(recipe, tmp_path)


@pytest.mark.parametrize("path", shipped_sets(), ids=lambda path: path.stem)
def test_the_shipped_recipe_loads(path: Path) -> None:
    recipe = load(path.stem)
    assert [group.name for group in recipe.groups] == ["digits", "photographs", "filter"]
    assert path not in shipped_recipes()
    more = with_more(recipe, ["photographs=torchvision:squeezenet1_0?weights=a.safetensors&size=227"])
    assert more.groups[1].targets[-1].target == "torchvision:squeezenet1_0?weights=a.safetensors&size=227"
    assert more.name == recipe.name
    compared = with_more(recipe, images=["photographs=photos"])
    assert [group.images for group in compared.groups] == ["digits", "photos", None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["cpn"]}, 'there is no arm "cpn"'),
        ({"arms": ["surrogate"]}, "surrogate climbs other networks, which a set does not name"),
        ({"budget": 0}, "groups.0.budget: .*greater than or equal to 1"),
        ({"budgets": [3]}, "groups.0.budgets: there is no such key"),
        ({"arm": {"cppn": {"budget": 0}}}, "groups.0.arm.cppn.budget: .*greater than or equal to 1"),
        ({"format": "float8"}, "groups.0.format: Input should be 'auto', 'float32'"),
        ({"targets": []}, "groups.0.targets"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_key(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse({**TINY, "groups": [{**TINY["groups"][0], **changes}]}, "here")


def test_other_errors_name_the_culprit(nets: None, tmp_path: Path) -> None:
    digits = {key: value for key, value in TINY["groups"][0].items() if key != "images"}
    with pytest.raises(RecipeError, match="two have the name digits"):
        tiny(groups=[digits, digits])
    with pytest.raises(RecipeError, match=r'set-2 is no recipe of a set; shipped are set-1.*did you mean "set-1"'):
        load("set-2")
    with pytest.raises(RecipeError, match="has to be GROUP=SPEC, and the groups of tiny are digits, colours"):
        with_more(tiny(), ["lenet"])
    with pytest.raises(RecipeError, match="two classifiers of the set are called lenet"):
        build_set(tiny(groups=[digits, {**digits, "name": "more"}]), tmp_path / "a")
    with pytest.raises(TargetError, match="no class 11"):
        build_set(tiny(groups=[{**digits, "classes": [11]}]), tmp_path / "b")
    with pytest.raises(RecipeError, match="there is no folder photos"):
        build_set(tiny(groups=[{**digits, "images": "photos"}]), tmp_path / "c")
    (tmp_path / "e" / "set").mkdir(parents=True)
    (tmp_path / "e" / "build.json").touch()
    (tmp_path / "e" / "set" / "mine").touch()
    with pytest.raises(StoreError, match="set is not empty, and has mine"):
        build_set(tiny(), tmp_path / "e")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").touch()
    with pytest.raises(StoreError, match="is not empty and holds no set of fooling images"):
        build_set(tiny(), tmp_path / "d")
