"""The materials of a session follow from the candidates and the seed, and tell a rater nothing."""

from collections import Counter

import numpy as np
import pytest

from evofool.errors import ImageError
from evofool.images import decode_png, pixel_sha256
from evofool.quiz import materials as m
from evofool.quiz.materials import ELITES, NOISE, OPTIONS, REAL, REPEATS, Candidate, choose_elites, materials, pick_real
from evofool.quiz.schema import CHOICE, NAMING
from tests.quiz.samples import ANIMALS, DIGITS, SHAPE, elites, made, picture, real


def test_the_same_seed_gives_the_same_session_and_another_one_another_order() -> None:
    assert made(1) == made(1)
    orders = {tuple(trial.image for trial in made(seed).trials) for seed in range(4)}
    assert len(orders) == 4


@pytest.mark.parametrize("names", [DIGITS, ANIMALS], ids=["digits", "animals"])
def test_all_are_named_before_anything_is_chosen_and_each_is_chosen_once(names: m.Names) -> None:
    found = made(3, names, count=50)
    blocks = [trial.block for trial in found.trials]
    assert blocks == sorted(blocks)
    naming = Counter(trial.kind for trial in found.trials if trial.block == NAMING)
    choice = Counter(trial.kind for trial in found.trials if trial.block == CHOICE)
    assert naming == {"elite": ELITES, "real": REAL, "noise": NOISE, "repeat": REPEATS}
    assert choice == {"elite": ELITES, "real": REAL, "noise": NOISE}
    assert max(Counter(t.image for t in found.trials if t.block == CHOICE).values()) == 1
    assert {trial.image for trial in found.trials} == found.images.keys()
    assert all(pixel_sha256(decode_png(png)) == image for image, png in found.images.items())
    assert [t.image for t in found.trials if t.block == CHOICE] != [
        t.image for t in found.trials if t.block == NAMING and t.kind != "repeat"
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_repeat_comes_long_after_the_first_time(seed: int) -> None:
    trials = [trial for trial in made(seed, count=40).trials if trial.block == NAMING]
    first = {trial.image: trial.n for trial in trials if trial.kind == "elite"}
    gaps = [trial.n - first[trial.image] for trial in trials if trial.kind == "repeat"]
    assert len(gaps) == REPEATS
    assert min(gaps) > len(trials) // 5


def test_ids_are_different_in_every_trial_and_do_not_show_the_image_or_its_class() -> None:
    found = made(5)
    ids = {m.trial_id(5, trial.n) for trial in found.trials}
    assert len(ids) == len(found.trials)
    assert all(len(name) == 24 and int(name, 16) >= 0 for name in ids)
    assert not ids & {m.trial_id(6, trial.n) for trial in found.trials}


def test_the_least_judged_come_first_and_the_classes_take_turns() -> None:
    many = [Candidate.of(picture(k), [k % 3], judged=k // 60) for k in range(120)]
    chosen = choose_elites(7, many)
    assert [candidate.judged for candidate in chosen] == [0] * ELITES
    assert sorted(Counter(candidate.classes[0] for candidate in chosen).values()) == [13, 13, 14]
    few = [*elites(DIGITS, 3, judged=2), *elites(DIGITS, 10)[5:]]
    assert [candidate.judged for candidate in choose_elites(1, few)] == [0] * 5 + [2] * 3


def test_real_images_are_of_different_classes_as_far_as_possible() -> None:
    classes = [0] * 100 + [1, 2, 3, 4, 5, 6, 7, 8, 9]
    rows = pick_real(11, classes)
    assert rows == sorted(rows)
    assert sorted(classes[row] for row in rows) == list(range(10))
    assert len(pick_real(11, [0] * 30)) == REAL
    assert pick_real(11, classes) != pick_real(12, classes)


def test_digits_have_all_digits_as_options_in_an_order_of_its_own_in_each_trial() -> None:
    options = [trial.options for trial in made(2).trials if trial.block == CHOICE]
    assert all(sorted(found) == list(range(10)) for found in options)
    assert len(set(options)) > len(options) // 2
    places = Counter(found.index(3) for seed in range(10) for found in (t.options for t in made(seed).trials if t.options))
    assert len(places) == 10
    assert max(places.values()) < 3 * min(places.values())


def test_an_elite_has_its_class_and_the_models_next_guesses_among_its_options() -> None:
    for seed in range(5):
        for trial in made(seed, ANIMALS, count=12).trials:
            if trial.block != CHOICE:
                assert trial.options == ()
                continue
            assert len(trial.options) == len(set(trial.options)) == OPTIONS
            assert set(trial.options) <= set(ANIMALS.nameable)
            assert len(set(trial.options) & set(trial.classes)) == len(trial.classes[:1])
            if trial.kind == "elite":
                rivals = [c for c in ANIMALS.nameable if c not in trial.classes][:4]
                assert set(rivals) <= set(trial.options)


def test_only_one_class_of_an_image_that_holds_several_is_an_option() -> None:
    several = Candidate.of(picture(0), [0, 1, 2], 0, ANIMALS.nameable)
    found = materials(1, [several], real(ANIMALS), ANIMALS, SHAPE)
    (trial,) = [t for t in found.trials if t.kind == "elite" and t.block == CHOICE]
    assert len({0, 1, 2} & set(trial.options)) == 1
    assert len(trial.options) == 10


def test_half_of_the_noise_is_smooth_and_all_of_it_fills_the_levels() -> None:
    images = m.noise(4, (3, 32, 32))
    steps = [float(np.abs(np.diff(image.astype(int), axis=-1)).mean()) for image in images]
    assert min(steps[:5]) > 2 * max(steps[5:])
    assert len({pixel_sha256(image) for image in images}) == NOISE
    assert all(image.shape == (3, 32, 32) and np.ptp(image) > 150 for image in images)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ImageError, match="an elite and 10 real images; there are 0 elites and 10 real images"):
        materials(0, [], real(DIGITS), DIGITS, SHAPE)
    with pytest.raises(ImageError, match="there are 10 elites and 9 real images"):
        materials(0, elites(DIGITS), real(DIGITS)[:9], DIGITS, SHAPE)
