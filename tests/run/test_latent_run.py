"""Runs of codes: the file has a copy of the decoder, so that it can be moved, resumed and verified without the first one."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evofool.errors import EvofoolError, RecipeError, StoreError
from evofool.recipe import Recipe, parse
from evofool.run.merge import merge
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from genomes import Latent
from genomes.upconv import Decoder, Layout, decoder_bytes
from tests.commands import Call
from tests.run.cases import unbroken
from tests.stored import content
from tests.synthetic import fake


def decoder_file(path: Path, seed: int = 0, image: tuple[int, int, int] = (1, 6, 6)) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        path.write_bytes(decoder_bytes(Decoder(Layout((4,), image, (5,))), {}))
    return path


def recipe(decoder: Path | str, evaluations: int = 240, seed: int = 3, **encoding: Any) -> Recipe:
    data = {
        "target": "fake",
        "encoding": {"kind": "latent", "decoder": str(decoder), **encoding},
        "search": {"seed": seed, "batch": 8},
        "stop": {"evaluations": evaluations},
    }
    return parse(data, "test")


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return decoder_file(tmp_path / "mine.safetensors")


def test_a_run_has_a_copy_of_its_decoder_and_needs_the_first_one_no_more(tmp_path: Path, decoder: Path) -> None:
    whole = unbroken(tmp_path / "whole", recipe(decoder))
    with Run.start(recipe(decoder), tmp_path / "run", fake()) as run:
        run.advance(batches=7)
    data = decoder.read_bytes()
    decoder.unlink()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "run")
    folder = tmp_path / "elsewhere" / "run"
    with Run.resume(folder, target=fake()) as run:
        run.advance(batches=5)
    with Run.resume(folder, recipe(decoder), fake()) as run:  # a decoder that is gone is the run's own
        assert run.advance()
    assert content(folder) == whole
    with StoredRun(folder) as stored:
        assert stored.store.decoder() == data
        assert isinstance(stored.encoding, Latent)
        assert stored.meta.recipe["encoding"]["sha256"] == stored.encoding.sha256
        assert verify(stored, fake()).faults == ()
        elite = stored.elites()[0]
        assert np.array_equal(stored.encoding.from_json(stored.genome_json(elite)), stored.genome(elite))


def test_a_run_keeps_its_decoder(tmp_path: Path, decoder: Path) -> None:
    unbroken(tmp_path / "run", recipe(decoder, 80))
    decoder_file(decoder, seed=1)
    with pytest.raises(RecipeError, match=r"has a run with the decoder .*mine\.safetensors of SHA-256 \w+, and .* now has"):
        Run.resume(tmp_path / "run", recipe(decoder, 80), fake())
    with pytest.raises(RecipeError, match=r"encoding\.sigma = 0\.1, not 0\.2"):
        Run.resume(tmp_path / "run", recipe(decoder_file(decoder), 80, sigma=0.2), fake())
    with pytest.raises(RecipeError, match=r"cannot be read \(No such file or directory\)"):
        Run.resume(tmp_path / "run", recipe(tmp_path / "other.safetensors", 80), fake())


def test_a_decoder_that_does_not_fit_is_named_before_a_folder_is_made(tmp_path: Path) -> None:
    files = {
        "colour": decoder_file(tmp_path / "colour", image=(3, 6, 6)),
        "cut": tmp_path / "cut",
        "pickle": tmp_path / "pickle",
    }
    files["cut"].write_bytes(files["colour"].read_bytes()[:-9])
    files["pickle"].write_bytes(b"\x80\x04K\x01.")
    messages = {
        "colour": "draws images of 3 channels, and these have 1",
        "cut": "is not a whole safetensors file",
        "pickle": "is a pickle or a zip",
    }
    for name, message in messages.items():
        with pytest.raises(RecipeError, match=rf"encoding\.decoder: .*{name} {message}"):
            Run.start(recipe(files[name]), tmp_path / "run", fake())
    with pytest.raises(RecipeError, match=r"encoding\.sha256 is 0+: it is another decoder"):
        Run.start(recipe(decoder_file(tmp_path / "fits"), sha256="0" * 64), tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()


def test_runs_of_one_decoder_merge_and_seed_others_and_of_two_do_not(tmp_path: Path, decoder: Path) -> None:
    for seed in (0, 1):
        unbroken(tmp_path / f"{seed}", recipe(decoder, seed=seed))
    other = decoder_file(tmp_path / "other", seed=1)
    unbroken(tmp_path / "other-run", recipe(other))
    merge([tmp_path / "0", tmp_path / "1"], tmp_path / "merged")
    decoder.unlink()
    with StoredRun(tmp_path / "merged") as stored:
        assert verify(stored, fake()).faults == ()
    with pytest.raises(EvofoolError, match=r"encoding\.sha256"):
        merge([tmp_path / "0", tmp_path / "other-run"], tmp_path / "wrong")
    seeded = recipe(decoder_file(decoder)).changed([f"search.parents={tmp_path / 'merged'}"], "test")
    with Run.start(seeded, tmp_path / "seeded", fake()) as run:
        assert run.advance()
    with pytest.raises(RecipeError, match=r"encoding\.sha256"):
        Run.start(recipe(other).changed([f"search.parents={tmp_path / 'merged'}"], "test"), tmp_path / "no", fake())


def test_surrogates_are_refused(decoder: Path) -> None:
    with pytest.raises(RecipeError, match="latent genomes cannot climb on surrogates"):
        recipe(decoder).changed(["search.surrogate.targets=['lenet']"], "test")


def test_a_decoder_that_was_changed_in_the_file_is_found(tmp_path: Path, decoder: Path) -> None:
    unbroken(tmp_path / "run", recipe(decoder, 80))
    other = decoder_file(tmp_path / "other", seed=1).read_bytes()
    with closing(sqlite3.connect(tmp_path / "run" / "run.db")) as db, db:
        db.execute("UPDATE decoder SET file = ?", (other,))
    with pytest.raises(EvofoolError, match="it is another decoder"):
        StoredRun(tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run" / "run.db")) as db, db:
        db.execute("UPDATE decoder SET file = ?", (decoder.read_bytes(),))
        birth = db.execute("SELECT MIN(birth) FROM genomes").fetchone()[0]
        db.execute("UPDATE genomes SET steps = 1, genome = ? WHERE birth = ?", (b"made by x", birth))
    decoder.unlink()
    with StoredRun(tmp_path / "run") as stored, pytest.raises(StoreError, match="those of this encoding are not"):
        stored.store.genomes({birth})  # by the run's own decoder: the path in a recipe may be any file's
    with closing(sqlite3.connect(tmp_path / "run" / "run.db")) as db, db:
        db.execute("DROP TABLE decoder")
    with pytest.raises(StoreError, match="it has no decoder"):
        StoredRun(tmp_path / "run")


def test_the_commands_take_such_a_run(tmp_path: Path, decoder: Path, call: Call) -> None:
    line = ["run", "mnist-latent", "--out", tmp_path / "run", "--set", "stop.evaluations=64", "--set", "stop.confidence="]
    assert call(*line, "--set", f"encoding.decoder={decoder_file(tmp_path / 'd', image=(1, 28, 28))}").code == 0
    assert call("verify", tmp_path / "run").code == 0
    assert call("lineage", tmp_path / "run", "--class", "3").code == 0
    assert call("replay", tmp_path / "run").code == 0
    assert call("polish", tmp_path / "run", "--out", tmp_path / "p", "--classes", "3", "--budget", "2").code == 0
    assert call("export", tmp_path / "run", tmp_path / "out", "--size", "40").code == 0
    assert "codes" in (tmp_path / "out" / "README.md").read_text()
    refused = call("polish", tmp_path / "run", "--out", tmp_path / "w", "--parameters", "weights")
    assert (refused.code, "has latent images, which have no weights" in " ".join(refused.err.split())) == (2, True)
