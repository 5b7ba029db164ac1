"""Verdicts follow from counts by exact bounds, at preset numbers of raters, and not from what raters say of everything."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from evofool.errors import StoreError
from evofool.quiz import bounds
from evofool.quiz.names import Names
from evofool.quiz.of_run import candidates, names_of, run_verdicts
from evofool.quiz.schema import CHOICE, NAMING, Answer, Code, Record, Session, Trial
from evofool.quiz.shares import archive_summary
from evofool.quiz.simulated import Kind
from evofool.quiz.tally import PRESETS, Answers, Tally, count_answers, preset, tally
from evofool.quiz.verdicts import LOOK_LEVEL, Verdict, Word, derive, words
from evofool.run.stored import StoredRun
from tests.perf import quiz_errors
from tests.quiz.samples import ANIMALS, DIGITS, changed, made_up_run, record


def derived(records: Sequence[Record], names: Names = DIGITS) -> list[Verdict]:
    return sorted(derive(count_answers(records, names), names).values(), key=lambda v: v.class_id)


def test_the_tests_decide_as_the_exact_bounds_do() -> None:
    for n in (1, 5, 8, 13, 20):
        for k in range(n + 1):
            interval = binomtest(k, n).proportion_ci(0.9, "exact")
            assert bounds.lower_bound(k, n, 0.05) == pytest.approx(interval.low)
            assert bounds.upper_bound(k, n, 0.05) == pytest.approx(interval.high)
            for share in (0.05, 0.1, 0.25, 0.325, 0.5, 0.9):
                assert bounds.exceeds(k, n, share, 0.05) == (binom.sf(k - 1, n, share) < 0.05) == (interval.low > share)
                assert bounds.below(k, n, share, 0.05) == (binom.cdf(k, n, share) < 0.05) == (interval.high < share)
    assert not bounds.exceeds(0, 0, 0.1, 0.05)
    assert not bounds.below(0, 0, 0.1, 0.05)


def test_intervals_and_sensitivity_have_known_values() -> None:
    assert bounds.wilson(27, 180) == pytest.approx((0.105, 0.209), abs=5e-4)  # the figures of the machine rater
    assert bounds.wilson(0, 0) == (0.0, 1.0)
    assert bounds.t_interval([0.1, 0.2, 0.3]) == pytest.approx((0.0, 0.4484), abs=1e-4)
    assert bounds.above_chance(0.1, 0.1) == 0.0
    assert bounds.above_chance(1.0, 0.3) == 1.0
    assert bounds.sensitivity(10, 20, 10, 20) == 0.0
    assert bounds.sensitivity_of_choice(0.1, 10) == pytest.approx(0.0, abs=1e-6)
    # Two options: d' is the square root of 2 times z of the share (Green & Swets 1966).
    assert bounds.sensitivity_of_choice(0.76, 2) == pytest.approx(2**0.5 * 0.7063, abs=1e-3)


def counted(raters: int, named: int = 0, chosen: int = 0, other: int = 0, base: float = 0.0, uncoded: int = 0) -> Tally:
    """Of one image of class 0; `other` raters named it 1."""
    given = np.zeros((2, 10), np.int64)
    given[:, 0], given[0, 1] = (named, chosen), other
    return Tally(
        raters=np.array([raters]),
        named=given[:1],
        uncoded=np.array([uncoded]),
        chosen=given[1:],
        offered=np.full((1, 10), raters),
        named_base=np.full((1, 10), base),
        chosen_base=np.full((1, 10), base),
        chance=0.1,
    )


def word(t: Tally) -> Word:
    return Word(int(words(t)[0, 0]))


@pytest.mark.parametrize(("raters", "least"), [(5, 3), (8, 4), (13, 5), (20, 6)])
@pytest.mark.parametrize("block", ["named", "chosen"])
def test_this_many_are_needed_for_recognised(raters: int, least: int, block: str) -> None:
    assert word(counted(raters, **{block: least})) is Word.RECOGNISED
    assert word(counted(raters, **{block: least - 1})) is not Word.RECOGNISED
    assert word(counted(4, named=4, chosen=4)) is Word.OPEN, "no verdict from fewer than five"


@pytest.mark.parametrize(("raters", "named", "chosen"), [(13, 0, 1), (20, 1, 2)])
def test_at_most_this_many_may_see_what_is_unrecognised(raters: int, named: int, chosen: int) -> None:
    assert word(counted(raters, named, chosen)) is Word.UNRECOGNISED
    assert word(counted(raters, named + 1, chosen)) is Word.OPEN
    assert word(counted(raters, named, chosen + 1)) is Word.OPEN
    assert word(counted(8)) is Word.OPEN, "none of eight may still be a quarter"


def test_an_uncoded_name_can_be_the_class_but_is_no_hit() -> None:
    assert word(counted(13, uncoded=1)) is Word.OPEN
    assert word(counted(5, named=2, uncoded=3)) is Word.OPEN
    assert word(counted(20, uncoded=1)) is Word.UNRECOGNISED


def test_what_is_taken_for_another_class_is_not_unrecognised() -> None:
    assert word(counted(13, other=8)) is Word.TAKEN
    assert word(counted(13, other=4)) is Word.UNRECOGNISED
    assert word(counted(13, named=6, other=7)) is Word.RECOGNISED


def test_a_class_that_is_given_to_everything_needs_more() -> None:
    assert word(counted(5, named=4)) is Word.RECOGNISED
    assert word(counted(5, named=4, base=0.6)) is Word.OPEN
    assert word(counted(20, named=18, base=0.6)) is Word.RECOGNISED


@pytest.mark.parametrize(
    ("kind", "raters", "expected"),
    [
        ("perfect", 5, {Word.RECOGNISED}),
        ("sees nothing", 8, {Word.OPEN}),
        ("sees nothing", 13, {Word.UNRECOGNISED}),
        ("8 for elites", 20, {Word.UNRECOGNISED, Word.OPEN}),
        ("random", 8, set()),
        ("always 8", 8, set()),
        ("lazy", 8, set()),
    ],
)
def test_simulated_raters_get_the_verdicts_that_they_should(kind: Kind, raters: int, expected: set[Word]) -> None:
    found = derived([record(kind, seed) for seed in range(raters)])
    assert {verdict.word for verdict in found} == expected
    assert len(found) == (10 if expected else 0), "who fails the checks gives no answer"
    if kind == "8 for elites":
        assert [v.class_id for v in found if v.word is Word.OPEN] == [8]


def test_verdicts_are_derived_from_the_first_raters_at_a_preset_number_only() -> None:
    assert [preset(n) for n in (0, 4, 5, 7, 8, 12, 13, 19, 20, 99)] == [0, 0, 5, 5, 8, 8, 13, 13, 20, 20]
    first = [record("perfect", seed) for seed in range(5)]
    later = [record("sees nothing", seed) for seed in range(5, 8)]
    at_five, at_seven, at_eight = (derived([*first, *later][:n]) for n in (5, 7, 8))
    assert [(v.word, v.raters, v.named) for v in at_seven] == [(v.word, v.raters, v.named) for v in at_five]
    assert {v.answered for v in at_seven} == {7}
    assert {(v.raters, v.named) for v in at_eight} == {(8, 5)}
    # The order of the sessions in the file does not matter; who ended first is first.
    assert derived([*later, *first][::-1]) == at_eight


def test_one_rater_makes_no_verdict_but_may_be_told() -> None:
    found = derived([record("perfect", 1)])
    assert {(v.word, v.counts(), v.missing()) for v in found} == {
        (Word.OPEN, "named by 1 of 1, chosen by 1 of 1", "4 more raters")
    }
    answers = count_answers([record("perfect", 1)], DIGITS)
    told = archive_summary(found, answers, DIGITS)
    assert (told["judged"], told["named"]["hits"], told["named"]["of"]) == (0, 10, 10)
    assert told["per_rater"] == {"mean": 1.0, "low": None, "high": None, "shares": [1.0]}


def test_a_rater_who_comes_twice_is_one_rater_with_the_first_answers() -> None:
    people = [record("perfect", seed) for seed in range(4)]
    again = record("sees nothing", 9, rater="  RATER   3 ")
    found = derived([*people, again])
    assert {(v.word, v.answered, v.named) for v in found} == {(Word.OPEN, 4, 4)}


def test_counts_are_those_of_a_slow_look_at_every_answer() -> None:
    """Also of base rates, of images that are not the image and not of the class, by the same raters."""
    records = [record(kind, seed, ANIMALS, count=12) for seed, kind in enumerate(["perfect", "8 for elites"] * 3)]
    records[2] = changed(records[2], {(NAMING, "noise"): ""})
    answers = count_answers(records, ANIMALS)
    t = tally(answers, ANIMALS)
    voters = records[:5]
    for i, image in enumerate(answers.images):
        for c in range(len(ANIMALS.labels)):
            name = [bool({c} & (ANIMALS.classes(a.answer) or set())) for t_, a in _first(voters, NAMING, "elite", image)]
            pick = [a.chosen == c for t_, a in _first(voters, CHOICE, "elite", image) if c in t_.options]
            assert (t.named[i, c], t.raters[i]) == (sum(name), len(name))
            assert (t.chosen[i, c], t.offered[i, c]) == (sum(pick), len(pick))
            rates = []
            for kind in ("noise", "elite"):
                others = [(t_, a) for t_, a in _first(voters, NAMING, kind) if c not in t_.classes and t_.image != image]
                hits = sum(c in (ANIMALS.classes(a.answer) or ()) for _, a in others)
                rates.append((1 + hits) / (10 + len(others)))
            assert t.named_base[i, c] == pytest.approx(max(rates)), (i, c)
            rates = []
            for kind in ("noise", "elite"):
                others = [(t_, a) for t_, a in _first(voters, CHOICE, kind) if c not in t_.classes and t_.image != image]
                offered = [(t_, a) for t_, a in others if c in t_.options]
                rates.append((1 + sum(a.chosen == c for _, a in offered)) / (10 + len(offered)))
            assert t.chosen_base[i, c] == pytest.approx(max(rates)), (i, c)


def _first(records: Sequence[Record], block: int, kind: str, image: str = "") -> list[tuple[Trial, Answer]]:
    pairs = [pair for found in records for pair in found.pairs]
    return [(t, a) for t, a in pairs if t.block == block and t.kind == kind and image in ("", t.image)]


def test_the_fast_counts_of_the_measurement_are_those_of_stored_sessions() -> None:
    quizzes = quiz_errors.guessers(0.6, 0.1, 0.4)(np.random.default_rng(0), 3)
    for q in range(3):
        for raters in PRESETS:
            fast = quiz_errors.tally_of(quizzes, raters)
            slow = tally(_as_answers(quizzes, q, raters), DIGITS)
            for name in ("raters", "named", "chosen", "offered", "named_base", "chosen_base"):
                np.testing.assert_allclose(getattr(slow, name), getattr(fast, name)[q], err_msg=name)


def _as_answers(quizzes: quiz_errors.Quizzes, q: int, raters: int) -> Answers:
    options = tuple(range(10))

    def named(answer: int) -> frozenset[int]:
        return frozenset({int(answer)} - {-1})

    own = range(10)
    return Answers(
        raters=tuple(map(str, range(raters))),
        images=tuple(map(str, own)),
        classes=tuple(frozenset({i}) for i in own),
        names=tuple({r: named(quizzes.names[q, r, i]) for r in range(raters)} for i in own),
        choices=tuple({r: (int(quizzes.choices[q, r, i]), options) for r in range(raters)} for i in own),
        noise_names=tuple((r, named(a)) for r in range(raters) for a in quizzes.noise_names[q, r]),
        noise_choices=tuple((r, int(a), options) for r in range(raters) for a in quizzes.noise_choices[q, r]),
        unread=(),
    )


def test_errors_are_rare_and_clear_images_are_found() -> None:
    """A small part of tests.perf.quiz_errors, where each row has 10,000 quizzes."""
    for simulation, wrong in (
        (quiz_errors.guessers(1.0, 0.0), Word.RECOGNISED),
        (quiz_errors.guessers(1.0, 0.0, 0.9), Word.RECOGNISED),
        (quiz_errors.guessers(0.5, 0.1), Word.TAKEN),
        (quiz_errors.seers(0.25, 0.0), Word.UNRECOGNISED),
    ):
        found, pooled = quiz_errors.found_words(simulation, 60, 5)
        assert (found == wrong).mean(axis=(1, 2)).max() < 0.05
    assert pooled.shape == found.shape
    found, _ = quiz_errors.found_words(quiz_errors.seers(0.9, 0.9), 20, 5)
    assert (found[0] == Word.RECOGNISED).mean() > 0.95


def test_looking_four_times_keeps_the_level() -> None:
    """Exactly, for one test of one class whose base rate is known: at any of the four numbers of raters."""
    worst = 0.0
    for share in np.arange(0.1, 0.9, 0.05):
        alive, n, wrong = np.array([1.0]), 0, 0.0
        for look in PRESETS:
            alive = np.convolve(alive, binom.pmf(np.arange(look - n + 1), look - n, share))
            n = look
            rejected = bounds.exceeds(np.arange(look + 1), look, share, LOOK_LEVEL)
            wrong += float(alive[rejected].sum())
            alive = np.where(rejected, 0.0, alive)
        worst = max(worst, wrong)
    assert 0.01 < worst < 0.0275


def test_texts_that_somebody_codes_later_change_the_verdict() -> None:
    people = [changed(record("perfect", s, ANIMALS, count=12), {(NAMING, "elite"): "stripes"}) for s in range(13)]
    people = [changed(p, {(NAMING, "repeat"): "stripes"}) for p in people]
    blank = [p._replace(answers=tuple(_nothing(t, a) for t, a in p.pairs)) for p in people]
    answers = count_answers(blank, ANIMALS)
    assert answers.unread == ("stripes",)
    assert {v.word for v in derived(blank, ANIMALS)} == {Word.OPEN}
    assert {v.missing() for v in derived(blank, ANIMALS)} == {"13 of its names have to be coded"}
    codes = [Code(answer=text, classes=c, coder="Kim", at=1.0) for text, c in (("stripes", (3,)), ("Stripe", ()))]
    assert {v.word for v in derived(blank, names_of(ANIMALS.labels, codes))} == {Word.UNRECOGNISED}, "the last one counts"
    codes.append(Code(answer="stripes", classes=(3,), coder="Kim", at=3.0))
    assert names_of(ANIMALS.labels, codes).classes("a stripe") == {3}, "also if it is coded a third time"
    tigers = derived(blank, names_of(ANIMALS.labels, codes[:1]))
    # Who says it of everything does not see it in the tiger.
    assert {v.class_id: v.word for v in tigers}[3] is Word.OPEN


def _nothing(trial: Trial, answer: Answer) -> Answer:
    return answer.model_copy(update={"chosen": -1}) if (trial.block, trial.kind) == (CHOICE, "elite") else answer


def test_shuffled_classes_are_what_chance_gives() -> None:
    records = [record("perfect", seed) for seed in range(6)]
    records[1] = changed(records[1], {(NAMING, "elite"): ""})
    answers = count_answers(records, DIGITS)
    told = archive_summary(derived(records), answers, DIGITS)
    shuffled = told["named"]["shuffled"]
    assert shuffled["mean"] == pytest.approx(told["named"]["share"] / 10, abs=0.01)
    assert shuffled["p"] == 0.001
    assert told["counts"] == {"open": 0, "recognised": 10, "taken": 0, "unrecognised": 0}
    assert told["recognised"]["low"] == pytest.approx(bounds.wilson(10, 10)[0])
    assert told["per_rater"]["low"] < told["per_rater"]["mean"] < 1.0
    assert told["choice"]["above_chance"] == 1.0


def test_an_archive_is_told_from_all_raters_and_an_image_of_several_classes_is_one_trial() -> None:
    """Beside a slow look at every trial; there are 12 images of one to three classes, and seven raters."""
    draw = np.random.default_rng(3)
    images = 12
    classes = tuple(frozenset(draw.choice(10, draw.integers(1, 4), replace=False).tolist()) for _ in range(images))

    def name(own: frozenset[int]) -> frozenset[int] | None:
        some = [frozenset({min(own)}), frozenset({3}), frozenset({3, 8}), frozenset[int](), None]
        return some[draw.choice(5, p=(0.3, 0.2, 0.1, 0.3, 0.1))]

    def option(own: frozenset[int]) -> int:
        return int(draw.choice([max(own), 4, -1]))

    asked = [sorted(draw.choice(7, draw.integers(5, 8), replace=False).tolist()) for _ in range(images)]
    answers = Answers(
        raters=tuple(map(str, range(7))),
        images=tuple(f"image {i}" for i in range(images)),
        classes=classes,
        names=tuple({r: name(own) for r in who} for own, who in zip(classes, asked, strict=True)),
        choices=tuple({r: (option(own), tuple(range(10))) for r in who} for own, who in zip(classes, asked, strict=True)),
        noise_names=tuple((r, frozenset({3}) if r == 1 else frozenset()) for r in range(7)),
        noise_choices=(),
        unread=(),
    )
    verdicts = list(derive(answers, DIGITS).values())
    told = archive_summary(verdicts, answers, DIGITS)
    assert max(v.raters for v in verdicts) == 5 < max(v.answered for v in verdicts), "verdicts are of the first five"

    trials = [(own, r, n or frozenset()) for own, by in zip(classes, answers.names, strict=True) for r, n in by.items()]
    hits = sum(bool(own & n) for own, _, n in trials)
    assert (told["pairs"], told["images"], told["raters"]) == (sum(map(len, classes)), images, 7)
    assert (told["named"]["hits"], told["named"]["of"]) == (hits, len(trials))
    assert told["per_rater"]["shares"] == [np.mean([bool(own & n) for own, q, n in trials if q == r]) for r in range(7)]
    swapped = [
        np.mean([bool(classes[order[i]] & (n or set())) for i in range(images) for n in answers.names[i].values()])
        for order in (draw.permutation(images) for _ in range(400))
    ]
    assert told["named"]["shuffled"]["mean"] == pytest.approx(np.mean(swapped), abs=0.015)
    assert told["named"]["shuffled"]["high"] == pytest.approx(np.quantile(swapped, 0.95), abs=0.03)

    foreign = [(s, n or frozenset()) for wanted in set(classes) for s, n in _noise_and(answers, wanted)]
    assert told["naming_d_prime"] == pytest.approx(
        bounds.sensitivity(hits, len(trials), sum(bool(s & n) for s, n in foreign), len(foreign))
    )
    chosen = [(own, c) for own, by in zip(classes, answers.choices, strict=True) for c, _ in by.values()]
    share, chance = np.mean([c in own for own, c in chosen]), np.mean([len(own) / 10 for own, _ in chosen])
    assert (told["choice"]["share"], told["choice"]["of"]) == (pytest.approx(share), len(trials))
    assert told["choice"]["above_chance"] == pytest.approx((share - chance) / (1 - chance))
    alone = [c in own for own, c in chosen if len(own) == 1]
    of_one = (sum(alone) + 0.5) / (len(alone) + 1)
    assert 0 < len(alone) < len(chosen)
    assert told["choice"]["d_prime"] == pytest.approx(bounds.sensitivity_of_choice(of_one, 10))


def _noise_and(answers: Answers, wanted: frozenset[int]) -> list[tuple[frozenset[int], frozenset[int] | None]]:
    """These classes beside each name that was given to noise or to an elite of none of them."""
    names = [n for _, n in answers.noise_names]
    for own, by_name in zip(answers.classes, answers.names, strict=True):
        names += by_name.values() if not own & wanted else ()
    return [(wanted, n) for n in names]


def test_thirty_classes_of_one_image_are_one_trial_of_a_rater() -> None:
    names = Names([f"thing {k}" for k in range(40)])
    own = frozenset(range(30))
    answers = Answers(("Kim",), ("a",), (own,), ({0: frozenset({7})},), ({0: (7, (7, *range(30, 39)))},), (), (), ())
    told = archive_summary(list(derive(answers, names).values()), answers, names)
    assert (told["pairs"], told["images"]) == (30, 1)
    assert (told["named"]["hits"], told["named"]["of"], told["per_rater"]["mean"]) == (1, 1, 1.0)
    assert (told["choice"]["hits"], told["choice"]["of"], told["choice"]["chance"]) == (1, 1, 0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_run(tmp_path_factory.mktemp("quiz") / "run")


def test_verdicts_belong_to_pixels_whatever_the_image_was_shown_for(run: Path) -> None:
    with StoredRun(run) as stored:
        own = candidates(stored.elites(), [], DIGITS)
        assert sorted(c for candidate in own for c in candidate.classes) == list(range(10))
        images = {candidate.classes[0]: candidate.image for candidate in own}
        # The same pixels were shown in another run, as an elite of the next class.
        records = [_about(record("perfect", seed), images) for seed in range(5)]
        seen = run_verdicts(stored, records, [])
        assert {elite.row.class_id: v.word for elite, v in seen.by_elite} == dict.fromkeys(images, Word.TAKEN)
        assert {elite.row.class_id: v.taken_for for elite, v in seen.by_elite} == {c: ((c + 1) % 10,) for c in images}
        assert run_verdicts(stored, [], []).by_elite == ()


def _about(source: Record, images: dict[int, str]) -> Record:
    """The same session with these images: that of class c in the place of the elite of class c + 1."""
    trials = [
        trial.model_copy(update={"image": images[(trial.classes[0] - 1) % 10]})
        if trial.kind in ("elite", "repeat")
        else trial
        for trial in source.trials
    ]
    return source._replace(trials=tuple(trials))


def test_who_took_part_is_not_shown_the_same_images_again(run: Path) -> None:
    with StoredRun(run) as stored:
        elites = stored.elites()
        fresh = candidates(elites, [], DIGITS)
        images = {candidate.classes[0]: candidate.image for candidate in fresh}
        records = [_about(record("perfect", seed), images) for seed in range(3)]
        assert {candidate.judged for candidate in candidates(elites, records, DIGITS, "somebody else")} == {3}
        with pytest.raises(OSError, match="has named all 10 images of this run"):
            candidates(elites, records, DIGITS, "Rater 1")


def test_a_session_about_classes_that_there_are_not_is_refused() -> None:
    asked = record("perfect", 1)
    for change in ({"classes": (10,)}, {"options": (3, 10)}):
        trials = (*asked.trials[:-1], asked.trials[-1].model_copy(update=change))
        with pytest.raises(StoreError, match="is about class 10, and there are 10 classes; it belongs to a run of another"):
            count_answers([asked._replace(trials=trials)], DIGITS)


def test_a_session_of_another_protocol_is_not_read() -> None:
    with pytest.raises(ValueError, match="protocol"):
        Session.model_validate({"id": "0" * 32, "protocol": 2, "kind": "person", "rater": "a", "seed": 0, "began": 0.0})
