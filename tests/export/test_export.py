"""An archive for others: the Parquet table, the data card, and what neither may tell."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evofool.export.export as exports
from evofool.cli.export import export as command
from evofool.errors import EvofoolError, ImageError, RecipeError, StoreError
from evofool.export import parquet as dataset
from evofool.export.export import export
from evofool.export.parquet import COLUMNS, TableImage, read_images, write_elites
from evofool.images import decode_png
from evofool.machine import torch_threads
from evofool.quiz.verdicts import VERDICT_COLUMNS
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.scores import confidence, log_odds, margin
from evofool.targets.loaders import lenet
from evofool.targets.redaction import public_name, short_name, without_folders
from tests.commands import invoke

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

TINY = ("stop.evaluations=320", "stop.confidence=", "search.batch=16")
TABLE = "data/train-00000-of-00001.parquet"


def made(recipe: str, folder: Path, *changes: str) -> Path:
    with Run.start(load(recipe, [*TINY, *changes]), folder) as run:
        run.advance()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("mnist-cppn", tmp_path_factory.mktemp("cppn") / "run")


@pytest.fixture(scope="module")
def direct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    niches = "niches={descriptor='mirror_symmetry', edges=[0.6, 0.68]}"
    return made("mnist-direct", tmp_path_factory.mktemp("direct") / "run", niches, "search.seed=7")


@pytest.fixture
def run(folder: Path) -> Iterator[StoredRun]:
    with StoredRun(folder) as stored:
        yield stored


@pytest.fixture
def direct(direct_folder: Path) -> Iterator[StoredRun]:
    with StoredRun(direct_folder) as stored:
        yield stored


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden files too, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def front_matter(card: Path) -> list[str]:
    begin, head, _ = card.read_text(encoding="utf-8").split("---\n", 2)
    assert begin == ""
    return head.splitlines()


# --- the table


def test_the_target_gives_the_exported_images_the_exported_scores(run: StoredRun, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out", layout="parquet").images == 10
    rows = pq.read_table(tmp_path / "out" / TABLE).to_pylist()
    images = np.stack([decode_png(row["image"]["bytes"]) for row in rows])
    target, chunk = run.target(), run.recipe.chunk
    with torch_threads(run.recipe.compute.threads):
        logits = np.concatenate([target.logits(images[at : at + chunk], chunk) for at in range(0, len(images), chunk)])
    classes, items = np.array([row["label"] for row in rows]), np.arange(len(rows))
    assert log_odds(logits)[items, classes].tolist() == [row["log_odds"] for row in rows]
    assert margin(logits)[items, classes].tolist() == [row["margin"] for row in rows]
    assert np.asarray(confidence(log_odds(logits)[items, classes])).tolist() == [row["confidence"] for row in rows]


def test_a_row_holds_the_stored_png_and_all_that_is_known_of_it(direct: StoredRun, tmp_path: Path) -> None:
    elites = direct.elites()
    assert write_elites(tmp_path / "t.parquet", [(direct.folder, {})]) == len(elites)
    for elite, row in zip(elites, pq.read_table(tmp_path / "t.parquet").to_pylist(), strict=True):
        image, expected = row.pop("image"), elite.summary()
        assert image["bytes"] == elite.row.png
        assert image["path"] == f"{elite.label}_{elite.confidence:.6f}_{elite.row.birth}_niche{elite.row.niche}.png"
        assert row.pop("run") == direct.meta.id
        expected |= {"label": expected.pop("class"), "label_name": expected["label"], **dict.fromkeys(VERDICT_COLUMNS)}
        assert row == expected


def test_every_thing_that_is_told_of_an_elite_has_a_column(run: StoredRun) -> None:
    expected = run.elites()[0].summary()
    assert COLUMNS.keys() - {"run", "label_name", *VERDICT_COLUMNS} == expected.keys() - {"class", "label"}


def test_the_schema_says_to_the_datasets_library_what_is_a_picture(run: StoredRun, tmp_path: Path) -> None:
    write_elites(tmp_path / "t.parquet", [(run.folder, {"arm": "cppn"})])
    schema = pq.read_schema(tmp_path / "t.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "ClassLabel", "names": run.labels}
    assert features["log_odds"] == {"_type": "Value", "dtype": "float64"}
    assert features["arm"] == {"_type": "Value", "dtype": "string"}
    assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(schema.field("label").type) == "int64"
    # Where an arrow type is called otherwise than in `datasets`, the table would be cast or refused.
    called = {"double": "float64"}
    for name in features.keys() - {"image", "label"}:
        arrow = str(schema.field(name).type)
        assert features[name]["dtype"] == called.get(arrow, arrow)


def test_the_elites_of_many_runs_make_one_table(run: StoredRun, direct: StoredRun, tmp_path: Path) -> None:
    path = tmp_path / "new" / "elites.parquet"
    expected: list[tuple[Path, dict[str, Any]]] = [
        (run.folder, {"target": "a", "arm": "cppn", "seed": 0, "share": 1, "valid": True, "why": None}),
        (direct.folder, {"target": "b", "arm": "direct", "seed": 1, "share": 0.5, "valid": False, "why": None}),
    ]
    number = write_elites(path, expected)
    table = pq.read_table(path)
    assert number == len(table) == len(run.elites()) + len(direct.elites())
    first = table.slice(0, 10).to_pylist()
    assert {(r["target"], r["arm"], r["seed"], r["share"], r["valid"], r["why"]) for r in first} == {
        ("a", "cppn", 0, 1.0, True, None)
    }
    assert set(table.column("run").to_pylist()) == {run.meta.id, direct.meta.id}
    assert [str(table.schema.field(name).type) for name in ("seed", "share", "valid")] == ["int64", "double", "bool"]
    assert pq.ParquetFile(path).num_row_groups == 2, "a run at a time"
    assert [p.name for p in path.parent.iterdir()] == ["elites.parquet"]


def test_labels_that_differ_between_runs_are_numbers(run: StoredRun, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {c}" for c in range(10)))
    named = made("mnist-cppn", tmp_path / "named", f"target=lenet?labels={names}", "stop.evaluations=16")
    write_elites(tmp_path / "t.parquet", [(run.folder, {}), (named, {})])
    table = pq.read_table(tmp_path / "t.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"_type": "Value", "dtype": "int64"}
    assert {"3", "digit 3"} <= set(table.column("label_name").to_pylist())


def test_a_run_without_elites_has_no_row(run: StoredRun, tmp_path: Path) -> None:
    Run.start(load("mnist-cppn"), tmp_path / "begun").store.close()
    number = write_elites(tmp_path / "t.parquet", [(tmp_path / "begun", {}), (run.folder, {})])
    assert number == len(pq.read_table(tmp_path / "t.parquet")) == 10


def test_a_table_that_cannot_be_finished_leaves_the_old_one(
    run: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    write_elites(path, [(run.folder, {})])
    before, real, seen = path.read_bytes(), dataset._row, []

    def failing(*arguments: Any) -> dict[str, Any]:
        seen.append(1)
        if len(seen) > 12:
            raise StoreError("damaged")
        return real(*arguments)

    monkeypatch.setattr(dataset, "_row", failing)
    with pytest.raises(StoreError, match="damaged"):
        write_elites(path, [(run.folder, {}), (run.folder, {})])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ({"arm": "a"}, {"seed": 1}, "the same for all runs"),
        ({"margin": 1.0}, {"margin": 1.0}, "called margin"),
        ({"arm": "a"}, {"arm": 1}, "the extra column arm holds int and str"),
        ({"arm": ["a"]}, {"arm": ["a"]}, "the extra column arm holds list"),
    ],
)
def test_extra_columns_that_cannot_be_are_named(run: StoredRun, tmp_path: Path, one: Any, two: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_elites(tmp_path / "t.parquet", [(run.folder, one), (run.folder, two)])
    assert not list(tmp_path.iterdir())


def test_images_are_read_back(run: StoredRun, tmp_path: Path) -> None:
    write_elites(tmp_path / "t.parquet", [(run.folder, {})])
    read = list(read_images(tmp_path / "t.parquet"))
    made = [(e.label, e.row.png, e.confidence, "") for e in run.elites()]
    assert [(each.label, each.png, each.confidence, each.classifier) for each in read] == made
    write_elites(tmp_path / "named.parquet", [(run.folder, {"classifier": "one"})])
    assert {each.classifier for each in read_images(tmp_path / "named.parquet")} == {"one"}


def test_what_is_no_table_of_pictures_is_named(run: StoredRun, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("no")
    pq.write_table(pq.read_table(_table(run, tmp_path)).drop(["label_name"]), tmp_path / "other.parquet")
    for name, words in (("no.parquet", "cannot be read as a table"), ("other.parquet", "no column label_name")):
        with pytest.raises(ImageError, match=words):
            list(read_images(tmp_path / name))


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("label_name", pa.array(["0", None]), r"row 1: its label_name is None; it has to be what the class is called"),
        ("label_name", pa.array([3, 7]), r"row 0: its label_name is 3;"),
        ("label_name", pa.array([b"\xff", b"0"]), r"row 0: its label_name is b'\\xff';"),
        ("image", pa.array([b"png", b"png"]), r"row 0: its image is no struct of bytes"),
        ("image", pa.array([None, None]), r"row 0: its image is no struct of bytes"),
        ("image", pa.array([{"bytes": None, "path": "a"}] * 2, PICTURE), r"row 0: its image is no struct of bytes"),
        ("image", pa.array([{"path": "a.png"}] * 2), r"row 0: its image is no struct of bytes"),
    ],
)
def test_a_foreign_table_with_other_values_is_named_with_its_row(
    tmp_path: Path, column: str, values: Any, words: str
) -> None:
    sound = {"image": pa.array([{"bytes": b"png", "path": None}] * 2, PICTURE), "label_name": pa.array(["0", "1"])}
    pq.write_table(pa.table(sound), tmp_path / "sound.parquet")
    assert list(read_images(tmp_path / "sound.parquet")) == [TableImage("", "0", b"png"), TableImage("", "1", b"png")]
    pq.write_table(pa.table({**sound, column: values}), tmp_path / "t.parquet")
    with pytest.raises(ImageError, match=rf"t\.parquet, {words}"):
        list(read_images(tmp_path / "t.parquet"))


def _table(run: StoredRun, folder: Path) -> Path:
    write_elites(folder / "t.parquet", [(run.folder, {})])
    return folder / "t.parquet"


# --- the folder


def test_a_parquet_folder_is_a_data_set_as_it_is(run: StoredRun, tmp_path: Path) -> None:
    export(run, tmp_path / "out", layout="parquet", license="CC-BY-4.0")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()) == [
        "README.md",
        TABLE,
    ]
    head = front_matter(tmp_path / "out" / "README.md")
    assert 'path: "data/train-*.parquet"' in [line.strip() for line in head]
    assert "license: cc-by-4.0" in head


def test_pictures_drawn_again_keep_the_scores_of_the_stored_size(run: StoredRun, tmp_path: Path) -> None:
    export(run, tmp_path / "out", size=56, layout="parquet")
    rows = pq.read_table(tmp_path / "out" / TABLE).to_pylist()
    assert {decode_png(row["image"]["bytes"]).shape for row in rows} == {(1, 56, 56)}
    assert [row["log_odds"] for row in rows] == [elite.row.log_odds for elite in run.elites()]
    assert "scores are those of the size the classifier takes, 28 x 28" in (tmp_path / "out" / "README.md").read_text()


def test_canvases_of_another_size_are_drawn_again_while_they_are_cppns_and_else_resampled(tmp_path: Path) -> None:
    # a high rate of the CPPNs' mutation, so that some elites are still CPPNs
    made("mnist-canvas", tmp_path / "run", "search.seed=2", "encoding.rates.cppn=40")
    with StoredRun(tmp_path / "run") as stored:
        elites = stored.elites()
        genomes = np.concatenate([stored.genome(elite) for elite in elites])
        drawn = int(stored.encoding.is_cppn(genomes).sum())  # type: ignore[attr-defined]
        assert 0 < drawn < len(elites)
        exported = export(stored, tmp_path / "out", size=56, layout="parquet")
        assert (exported.images, exported.resampled) == (len(elites), len(elites) - drawn)
        rows = pq.read_table(tmp_path / "out" / TABLE).to_pylist()
        np.testing.assert_array_equal(
            [decode_png(row["image"]["bytes"]) for row in rows], stored.encoding.render(genomes, (56, 56))
        )
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{exported.resampled} pictures were resampled to another size by a triangle filter, and {drawn}, whose" in card
    assert "MAP-Elites over canvases" in card


def test_canvases_of_cosines_are_drawn_at_another_size_and_none_is_resampled(tmp_path: Path) -> None:
    made("mnist-canvas", tmp_path / "run", "search.seed=2", "encoding.cosines=12", "encoding.rates.cppn=40")
    with StoredRun(tmp_path / "run") as stored:
        genomes = np.concatenate([stored.genome(elite) for elite in stored.elites()])
        exported = export(stored, tmp_path / "out", size=100, layout="parquet")
        rows = pq.read_table(tmp_path / "out" / TABLE).to_pylist()
        large = stored.encoding.render(genomes, (100, 100))
    assert exported.resampled == 0
    np.testing.assert_array_equal([decode_png(row["image"]["bytes"]) for row in rows], large)


def test_pixels_are_drawn_at_no_other_size(direct: StoredRun, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--size is for CPPN, canvas and latent runs"):
        export(direct, tmp_path / "out", size=56, layout="parquet")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["imagefolder", "parquet"])
def test_a_folder_that_holds_something_is_refused(run: StoredRun, tmp_path: Path, layout: str) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="is not empty"):
        export(run, tmp_path, layout=layout)
    with pytest.raises(StoreError, match="is a file"):
        export(run, tmp_path / "mine", layout=layout)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("layout", ["imagefolder", "parquet"])
def test_what_a_killed_export_has_left_is_no_hindrance(
    run: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    export(run, tmp_path / "whole", layout=layout)
    half = tmp_path / "half"
    with monkeypatch.context() as patched:
        # As a kill: whatever the export would do when it fails is not done.
        patched.setattr(exports, "_clear", lambda folder: None)
        patched.setattr(exports, "card", killed)
        with pytest.raises(KeyboardInterrupt):
            export(run, half, layout=layout)
    left = files(half)
    assert len(left) > 1
    (half / ".evofool-0123456789abcdef.new").write_text("half of the table")
    (half / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not empty"):
        export(run, half, layout=layout)
    assert list(files(half)) == ["mine.txt"], "what is not the export's stays"
    (half / "mine.txt").unlink()
    assert export(run, half, layout=layout).images == 10
    assert files(half) == files(tmp_path / "whole")


def test_an_export_that_fails_leaves_nothing(run: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "card", killed)
    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("layout", "where"), [("imagefolder", exports), ("parquet", dataset)])
def test_an_export_is_of_one_checkpoint_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, where: Any
) -> None:
    folder, real, later = made("mnist-cppn", tmp_path / "run"), where.picture, []

    def further(evaluations: int) -> list[int]:
        with Run.resume(folder, load("mnist-cppn", [*TINY, f"stop.evaluations={evaluations}"])) as search:
            search.advance()
        with StoredRun(folder) as stored:
            return [elite.row.birth for elite in stored.elites()]

    def drawn(*arguments: Any) -> bytes:
        if not later:
            later.append(further(1280))
        return real(*arguments)

    monkeypatch.setattr(where, "picture", drawn)
    with StoredRun(folder) as stored:
        births = further(640)
        export(stored, tmp_path / "out", layout=layout)
    assert births != later[0], "it went on meanwhile"
    assert "; 640 evaluations" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    if layout == "parquet":
        assert pq.read_table(tmp_path / "out" / TABLE).column("birth").to_pylist() == births
    else:
        assert sorted(int(p.stem.rpartition("_")[2]) for p in (tmp_path / "out").rglob("*.png")) == sorted(births)


def test_a_folder_that_cannot_be_written_is_named(run: StoredRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        export(run, tmp_path / "file" / "below", layout="parquet")


def test_without_pyarrow_the_extra_is_named(run: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EvofoolError, match=r"pip install 'evofool\[bench\]'"):
        export(run, tmp_path / "out", layout="parquet")
    assert not list(tmp_path.rglob("*.parquet"))
    assert export(run, tmp_path / "files").images == 10, "the other layout needs none"


# --- the card


def test_the_card_says_what_the_images_are_and_how_they_were_made(run: StoredRun, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    card, target = (tmp_path / "out" / "README.md").read_text(encoding="utf-8"), run.meta.target
    for words in (
        "what the classifier calls an image, or was meant to, not what the image shows",
        target.fingerprint,
        target.details["weights_sha256"],
        json.dumps(target.details["preprocessing"]),
        "MAP-Elites over CPPNs",
        "ranked by log_odds; seed 0; batches of 16; 320 evaluations",
        "Made: 10 evolved.",
        f"Run `{run.meta.id}`",
        "`margin` = z_c - the largest other z_j",
        "Of the images: not stated; add it with --license.",
        "@inproceedings{nguyen2015deep",
    ):
        assert words in card
    head = front_matter(tmp_path / "out" / "README.md")
    assert "license: unknown" in head
    assert 'path: "*/*.png"' in [line.strip() for line in head]


@pytest.mark.parametrize(
    ("license", "lines"),
    [
        ("MIT", ["license: mit"]),
        ("ODC-By-1.0", ["license: other", 'license_name: "odc-by-1.0"']),
        (None, ["license: unknown"]),
    ],
)
def test_the_licence_is_told_as_the_hub_has_it(
    run: StoredRun, tmp_path: Path, license: str | None, lines: list[str]
) -> None:
    export(run, tmp_path / "out", license=license)
    assert [line for line in front_matter(tmp_path / "out" / "README.md") if "license" in line] == lines


@pytest.mark.parametrize("layout", ["imagefolder", "parquet"])
def test_no_file_tells_of_the_folders_of_this_machine(tmp_path: Path, layout: str) -> None:
    secret = tmp_path / "secret place"
    secret.mkdir()
    shutil.copy(next((Path(lenet.__file__).parents[1] / "weights").glob("lenet*.safetensors")), secret / "mine.safetensors")
    (secret / "names.txt").write_text("\n".join(f"digit {c}" for c in range(10)))
    spec = f"lenet?weights={secret / 'mine.safetensors'}&labels={secret / 'names.txt'}"
    with StoredRun(made("mnist-cppn", tmp_path / "run", f"target={spec}")) as stored:
        export(stored, tmp_path / "out", layout=layout)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "`lenet?weights=mine.safetensors&labels=names.txt`" in card
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            assert b"secret" not in file.read_bytes(), file.name
            assert str(tmp_path).encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet", "lenet"),
        ("onnx:/home/me/nets/a.onnx?size=224", "onnx:a.onnx?size=224"),
        ("timm:vit?weights=/home/me/w.safetensors&scale=1/255", "timm:vit?weights=w.safetensors&scale=1/255"),
        ("python:mine.net:make", "python:mine.net:make"),
        ("https://me:word@host.org/classify?key=abc&timeout=9", "https://host.org/classify?key=...&timeout=9"),
        ("/home/me too/My Net", "My Net"),
        ("Sequential", "Sequential"),
    ],
)  # fmt: skip
def test_a_target_is_named_without_folders_and_secrets(name: str, expected: str) -> None:
    assert public_name(name) == expected


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("lenet", "lenet"),
        ("lenet?weights=/home/ann/run-1/network.safetensors", "lenet?weights=network.safetensors"),
        ("onnx:/home/ann/net.onnx?labels=/home/ann/labels.txt&scale=1/255", "onnx:net.onnx"),
        ("my own /home/ann/classifier", "my own classifier"),
    ],
)
def test_a_title_shows_the_short_name_of_a_target(name: str, short: str) -> None:
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weights of /home/me/a.bin are odd", "weights of a.bin are odd"),
        ("see 'C:\\Users\\me\\a.bin'", "see 'a.bin'"),
        ("at ~/nets/a.bin, 1/255 of https://host/path", "at a.bin, 1/255 of https://host/path"),
        ("either/or stays, ./a/b and ../c/d too", "either/or stays, ./a/b and ../c/d too"),
        ("log(p)/2 of 1 / 255", "log(p)/2 of 1 / 255"),
        ("'/home/me too/my net.bin' is odd", "'my net.bin' is odd"),
        ("\"/home/o'neil/a b.bin\" and /home/o'neil/c.bin", '"a b.bin" and c.bin'),
        ("the target's /home/me/a.bin isn't /home/me/b.bin", "the target's a.bin isn't b.bin"),
        ("lenet?weights=/home/me/c.safetensors&scale=1/255", "lenet?weights=c.safetensors&scale=1/255"),
        ("onnx:/home/me/a.onnx?scale=1/255&mean=0", "onnx:a.onnx?scale=1/255&mean=0"),
        ("--target 'lenet?weights=/home/me too/c.bin&x=1/2'", "--target 'lenet?weights=c.bin&x=1/2'"),
        ("guarded:/home/me/g.bin: its base onnx:/home/me/a.onnx", "guarded:g.bin: its base onnx:a.onnx"),
        ("(/home//me/a.bin) and [/home/me/runs/]", "(a.bin) and [runs/]"),
        ("file:///home/me/a.bin, http://me/b/c?labels=/home/d", "a.bin, http://me/b/c?labels=d"),
        ("~me/a/b.bin", "b.bin"),
    ],
)
def test_a_text_loses_its_folders(text: str, expected: str) -> None:
    assert without_folders(text) == expected


# --- runners-up


def test_runners_up_are_exported_on_request_with_the_scores_that_they_are_ranked_by(
    direct_folder: Path, tmp_path: Path
) -> None:
    kept = made("mnist-direct", tmp_path / "run", "search.keep=3", "stop.evaluations=160")
    for layout, to in (("imagefolder", tmp_path / "folder"), ("parquet", tmp_path / "table")):
        result = invoke(command, kept, to, "--runners-up", "--format", layout)
        assert (result.exit_code, result.output.replace("\n", "")) == (0, f"10 elites and 20 runners-up written to {to}")
    card = (tmp_path / "table" / "README.md").read_text()
    assert "30 fooling images, 20 of them runners-up" in card
    assert "`place` is 0 for the best image of a class" in card
    with (tmp_path / "folder" / "elites.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "table" / TABLE).to_pylist()
    assert sorted((row["class"], row["place"], row["birth"]) for row in rows) == sorted(
        (str(row["label"]), str(row["place"]), str(row["birth"])) for row in table
    )
    with StoredRun(kept) as run:
        listed = {(c, each.place): each for c in range(10) for each in run.class_list(c)}
        for row in table:
            each = listed.pop((row["label"], row["place"]))
            known = row["birth"], row["search_log_odds"], row["search_margin"], row["mother"], row["father"]
            assert known == (each.birth, each.log_odds, each.margin, each.mother, each.father)
            assert (row["confidence"] is None) == (row["log_odds"] is None) == (each.place > 0)
            drawn = run.encoding.render(run.genomes([each.birth]))[0]
            assert (decode_png(row["image"]["bytes"]) == drawn).all()
        assert not listed
    (best,) = (row for row in rows if (row["class"], row["place"]) == ("3", "1"))
    assert best["file"] == f"3_3/3_{confidence(float(best['search_log_odds'])):.6f}_{best['birth']}_place1.png"
    assert best["log_odds"] == ""
    with (
        StoredRun(direct_folder) as run,
        pytest.raises(StoreError, match=r"keeps one genome a cell, its elite \(search\.keep is 1\)"),
    ):
        export(run, tmp_path / "none", runners_up=True)
    assert not (tmp_path / "none").exists()


# --- the command


def test_the_command_writes_either_layout(folder: Path, tmp_path: Path) -> None:
    for layout, file in (("imagefolder", "elites.csv"), ("parquet", TABLE)):
        to = tmp_path / layout
        result = invoke(command, folder, to, "--format", layout, "--license", "CC0-1.0")
        assert (result.exit_code, result.output.replace("\n", "")) == (0, f"10 elites written to {to}")
        assert (to / file).is_file()


def test_another_layout_or_licence_is_refused_with_what_there_is(folder: Path, tmp_path: Path) -> None:
    for options, words in ((("--format", "csv"), "imagefolder and parquet"), (("--license", "my own"), "CC-BY-4.0")):
        result = invoke(command, folder, tmp_path / "out", *options)
        assert isinstance(result.exception, RecipeError)
        assert words in str(result.exception)
        assert not (tmp_path / "out").exists()
