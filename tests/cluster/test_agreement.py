"""Answers of workers compared with those of another process: what counts as a difference, and who is wrong. Without Ray."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evofool.cluster.agreement import Allowance, Contributor, Kind, References, allowance, difference, same_gradients
from evofool.cluster.checks import Checks
from evofool.cluster.messages import Lineage, Receiver, Sender, seal
from evofool.cluster.worker import WorkerInfo
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.targets.speed import NEAR
from genomes import Direct, Key
from tests.synthetic import SIDE, fake, linear

HERE = {"cpu": "a", "threads": 1, "torch": "2.13", "numpy": "2", "numba": "1"}
OWN = Kind(HERE, "float32", False)
DIRECT = Direct(1, SIDE, SIDE, rate=0.2, crossover=0.5)
CHUNK = 4


def kind(number_format: str = "float32", on_device: bool = False, **machine: Any) -> Kind:
    return Kind(HERE | machine, number_format, on_device)


@pytest.mark.parametrize(
    ("other", "strict", "position", "exact"),
    [
        (kind(), True, 0.0, True),
        (kind(torch="2.12"), True, 0.0, True),  # the same packages can be installed there
        (kind(cpu="b"), True, 0.0, False),
        (kind(), False, 0.0, False),
        (kind(), True, 1e-6, False),
        (kind("bfloat16"), True, 0.0, False),
        (kind(on_device=True), True, 0.0, False),
    ],
)
def test_bits_have_to_be_equal_in_reproducible_mode_on_one_kind_of_hardware(
    other: Kind, strict: bool, position: float, exact: bool
) -> None:
    assert allowance(OWN, other, strict, position).exact is exact


def test_what_is_allowed_depends_on_the_number_format() -> None:
    assert allowance(kind("bfloat16"), kind("bfloat16"), True, 0.0).exact
    assert allowance(kind("bfloat16"), kind("bfloat16", cpu="b"), True, 0.0).most == NEAR[1]
    assert allowance(kind("bfloat16"), OWN, True, 0.0).most == NEAR[1]
    assert allowance(OWN, kind(cpu="b"), True, 0.0).most == 1e-3
    assert allowance(OWN, kind(), True, 1e-6) == Allowance(share=1e-6)


LOGITS = np.random.default_rng(0).normal(0, 5, (8, 10)).astype(np.float32)
FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "doubled": lambda z: z * 2,
    "a fixed vector": lambda z: z + np.float32(0.01) * np.random.default_rng(1).normal(size=z.shape[1]).astype(np.float32),
    "NaN": lambda z: np.where(np.arange(len(z))[:, None] == 3, np.nan, z).astype(np.float32),
}


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("other", [kind(), kind(cpu="b")], ids=["one kind", "two kinds"])
def test_faults_are_found_in_whole_answers_and_in_seals(fault: str, other: Kind) -> None:
    wrong, allowed = FAULTS[fault](LOGITS), allowance(OWN, other, True, 0.0)
    assert difference(LOGITS, LOGITS, allowed) is None
    assert difference(seal(0, LOGITS), LOGITS, allowed) is None
    found = difference(wrong, LOGITS, allowed)
    assert found is not None
    assert found.largest == pytest.approx(np.inf if fault == "NaN" else np.abs(wrong - LOGITS).max())
    if fault != "NaN" or allowed.exact:  # a sample of 16 logits need not have the row
        assert difference(seal(0, wrong), LOGITS, allowed) is not None


def test_images_that_may_be_others_are_not_compared() -> None:
    wrong = LOGITS.copy()
    wrong[3] *= 2
    skipped = np.arange(len(LOGITS)) == 3
    for other in (kind(), kind(cpu="b")):
        allowed = allowance(OWN, other, True, 0.0)
        for answer in (wrong, seal(0, wrong)):
            assert difference(answer, LOGITS, allowed, skipped) is None
            assert difference(answer, LOGITS, allowed, np.ones(len(LOGITS), bool)) is None
        assert difference(wrong, LOGITS, allowed, ~skipped) is not None
    assert difference(seal(0, LOGITS + 1), LOGITS, allowance(OWN, kind(), True, 0.0), skipped) is not None
    assert same_gradients(OWN, kind())
    assert not any(same_gradients(OWN, other) for other in (kind(torch="2.12"), kind(cpu="b")))
    assert not same_gradients(kind(device="GPU"), kind(device="GPU"))


def test_last_bits_count_on_one_kind_of_machine_alone() -> None:
    other = np.nextafter(LOGITS, np.float32(np.inf))
    assert difference(seal(0, other), LOGITS, allowance(OWN, kind(), True, 0.0)) is not None
    assert difference(seal(0, other), LOGITS, allowance(OWN, kind(cpu="b"), True, 0.0)) is None
    assert difference(other, LOGITS, allowance(OWN, kind(), True, 1e-5)) is None


def test_equal_rows_without_numbers_are_no_difference() -> None:
    broken = FAULTS["NaN"](LOGITS)
    for other in (kind(), kind(cpu="b")):
        assert difference(broken, broken.copy(), allowance(OWN, other, True, 0.0)) is None


# --- who is wrong


def evaluator(does: Callable[[np.ndarray], np.ndarray] = lambda z: z) -> BatchEvaluator:
    return BatchEvaluator(DIRECT, fake(lambda images: does(linear(images))), CHUNK)


def checks_of(strict: bool = True, own: Kind = OWN) -> Checks:
    return Checks(evaluator(), strict=strict, own=own, threads=1, note=lambda text: None)


def worker(number: int, of: Kind = OWN) -> Contributor:
    return Contributor(number, WorkerInfo(node="n", device="cpu"), of)


def order_of(number: int) -> Order:
    none = np.full(CHUNK, -1)
    return Order(Key(1, number), number * CHUNK, CHUNK, np.zeros(0), np.zeros(0), none, none)


def test_a_worker_that_starts_answers_new_images_and_then_elites_too() -> None:
    checks, wrong = checks_of(), evaluator(FAULTS["doubled"])
    (probe,) = checks.probes()
    assert probe.order.mothers[0] >= 0, "variation is compared too"
    assert checks.probed(probe, worker(0), evaluator().logits(probe.order)) is None
    text = checks.probed(probe, worker(1), wrong.logits(probe.order))
    assert text is not None
    assert text.startswith("worker 1 on n (cpu, torch 2.13) answers differently from this machine: largest difference")
    elite = DIRECT.random(1, Key(5, 5))
    births = np.full(CHUNK, 77)
    checks.note_order(Order(Key(1, 9), 36, CHUNK, np.zeros(0), np.zeros(0), births, births, {77: elite}))
    probes = checks.probes()
    assert len(probes) == 2
    assert np.array_equal(evaluator().children(probes[1].order, 0, 1), elite), "an elite itself"
    assert checks.repeated == 3 * CHUNK, "two of workers, one of this process"


def test_other_versions_are_named() -> None:
    checks = checks_of()
    (probe,) = checks.probes()
    logits = np.nextafter(evaluator().logits(probe.order), np.float32(np.inf))
    text = checks.probed(probe, worker(1, kind(torch="2.12")), logits)
    assert text is not None
    assert "it has torch 2.12, this machine torch 2.13: install there what is installed here" in text


def answered(
    checks: Checks, by: Contributor, does: Callable[[np.ndarray], np.ndarray] = lambda z: z, number: int = 0
) -> None:
    order = order_of(number)
    checks.answered_order(by, order, seal(0, evaluator(does).logits(order)), ())


def test_answers_are_confirmed_once_another_worker_has_repeated_the_last_one() -> None:
    checks, workers = checks_of(), [worker(n) for n in range(3)]
    one = workers[2]
    for accepted in workers:
        checks.accept(accepted)
    checks.mark()
    answered(checks, workers[0], number=9)
    answered(checks, workers[1], number=8)
    for number in range(3):
        answered(checks, one, number=number)
    mark = checks.mark()
    assert checks.next_for(one) is None
    job = checks.next_for(workers[0])
    assert job is not None
    assert isinstance(job.work, Order)
    assert job.work.batch == 2
    own = [checks.without_worker(workers, 1000.0) for _ in range(2)]
    assert [here and here.evidence.by for here in own] == workers[:2], "this process takes the workers in turn"
    answered(checks, one, number=3)
    assert checks.answered_check(job, workers[0], evaluator().logits(job.work), 0.1) == []
    for here in own:
        assert not checks.confirmed(mark)
        assert here is not None
        assert checks.decide(here) == []
    assert checks.confirmed(mark)
    answered(checks, workers[0], number=10)
    answered(checks, workers[1], number=11)
    assert not checks.confirmed(checks.mark()), "the last answer came after the mark"
    next_own = [checks.without_worker(workers, 1000.0) for _ in range(2)]
    assert [here and here.evidence.by.number for here in next_own] == [0, 2]


@pytest.mark.parametrize("fault", ["doubled", "a fixed vector"])
@pytest.mark.parametrize("who", [0, 1])
def test_this_process_decides_which_of_two_workers_is_wrong(fault: str, who: int) -> None:
    checks, workers, does = checks_of(), [worker(0), worker(1)], [lambda z: z] * 2
    does[who] = FAULTS[fault]
    for one in workers:
        checks.accept(one)
    answered(checks, workers[0], does[0])
    answered(checks, workers[1], does[1], number=1)
    checks.mark()
    job = checks.next_for(workers[0])
    assert job is not None
    assert isinstance(job.work, Order)
    wrong = checks.answered_check(job, workers[0], evaluator(does[0]).logits(job.work), 0.1)
    assert [contributor for contributor, _ in wrong] == [workers[who]]
    assert checks.withdraw(workers[1]) is (who == 1), "else its answer is agreed on"
    assert checks.withdraw(workers[0])


def test_where_this_process_cannot_tell_a_third_worker_decides_or_the_first_one_is_believed() -> None:
    far = kind(cpu="b")
    slightly = lambda z: np.nextafter(z, np.float32(np.inf))  # noqa: E731
    for third, expected in ((True, 0), (False, 1)):
        checks, workers = checks_of(), [worker(n, far) for n in range(3 if third else 2)]
        for one in workers:
            checks.accept(one)
        answered(checks, workers[0], slightly)
        checks.mark()
        job = checks.next_for(workers[1])
        assert job is not None
        assert isinstance(job.work, Order)
        wrong = checks.answered_check(job, workers[1], evaluator().logits(job.work), 0.1)
        if third:
            assert wrong == []
            job = checks.next_for(workers[2])
            assert job is not None
            wrong = checks.answered_check(job, workers[2], evaluator().logits(order_of(0)), 0.1)
        assert [contributor.number for contributor, _ in wrong] == [expected]


@pytest.mark.parametrize("fault", ["doubled", "a fixed vector"])
def test_one_of_two_workers_that_becomes_wrong_while_it_checks_the_other_confirms_nothing(fault: str) -> None:
    """The last answer of one is wrong; the other one's was right, and then it becomes wrong in the same way."""
    for first in (1, 0):
        checks, workers = checks_of(), [worker(0), worker(1)]
        for one in workers:
            checks.accept(one)
        checks.mark()
        answered(checks, workers[first], FAULTS[fault])
        answered(checks, workers[1 - first], number=1)
        mark, wrong = checks.mark(), []
        for one in workers:
            while job := checks.next_for(one):
                assert isinstance(job.work, Order)
                wrong += checks.answered_check(job, one, evaluator(FAULTS[fault]).logits(job.work), 0.1)
        while here := checks.without_worker(workers, 1000.0):
            wrong += checks.decide(here)
        assert {contributor.number for contributor, _ in wrong} == {first}
        assert not checks.confirmed(mark)
        assert checks.withdraw(workers[first])


def test_this_process_repeats_what_no_worker_can() -> None:
    checks, one = checks_of(), worker(0)
    checks.accept(one)
    answered(checks, one, FAULTS["doubled"])
    checks.mark()
    job = checks.without_worker([one], 1000.0)
    assert job is not None
    assert [contributor for contributor, _ in checks.decide(job)] == [one]


def test_float32_scores_of_elites_are_checked_as_well() -> None:
    checks, one = checks_of(), worker(0)
    checks.accept(one)
    genomes = DIRECT.random(2, Key(3, 3))
    work = References((5, 6), {5: genomes[:1], 6: genomes[1:]})
    checks.answered_references(one, work, evaluator().reference_logits(genomes) * 2)
    checks.mark()
    (job,) = checks.outstanding()
    assert [contributor for contributor, _ in checks.decide(job, last=True)] == [one]


def test_images_that_break_one_worker_alone_are_its_own_fault() -> None:
    checks, one = checks_of(), worker(0)
    assert checks.wrongly_broken(one, [order_of(0)], "NaN") is not None
    everywhere = Checks(evaluator(FAULTS["NaN"]), strict=True, own=OWN, threads=1, note=lambda text: None)
    assert everywhere.wrongly_broken(one, [order_of(0)], "NaN") is None


def test_a_check_leaves_the_thresholds_of_the_worker_as_they_are() -> None:
    sender, receiver = Sender(DIRECT, Lineage()), Receiver(DIRECT, 1, CHUNK)
    receiver.decode(sender.encode_check(order_of(0)))
    for thresholds in (np.zeros(5), np.array([0.0, 0, 1, 0, 0])):
        order = order_of(1)
        order = Order(order.key, order.first_birth, CHUNK, thresholds, thresholds, order.mothers, order.fathers)
        assert np.array_equal(receiver.decode(sender.encode(order)).thresholds, thresholds)
        receiver.decode(sender.encode_check(order_of(2)))
