"""Batches evaluated in parts by workers that die, compared with evaluating each image by itself."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import fields
from itertools import permutations
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evofool.cluster.jobs import JobQueue, OrderJob
from evofool.errors import ScoreError, TargetError
from evofool.search.archive import Quarantined, Winners
from evofool.search.evaluate import BatchEvaluator, Order
from genomes import Direct, Key
from tests.synthetic import CLASSES, SIDE, fake, linear

DIRECT = Direct(1, SIDE, SIDE, rate=0.2, crossover=0.5)


def stepped(images: np.ndarray) -> np.ndarray:
    """linear, rounded so that many logits are equal."""
    return np.round(linear(images) / 2) * 2


BATCH_EVALUATOR = BatchEvaluator(DIRECT, fake(stepped), 4)


def jobs_of(in_order: bool = True, retries: int = 2, most: int = 1000) -> JobQueue:
    return JobQueue(DIRECT, in_order=in_order, retries=retries, max_quarantined=most, target_name="fake")


def order_of(number: int, size: int = 16, threshold: float = -np.inf) -> Order:
    """Of parents whose births are 1000 and more; batch 0 is random."""
    parents: dict[str, Any] = {"mothers": np.full(size, -1), "fathers": np.full(size, -1)}
    key = Key(7, number)
    if number:
        births = np.arange(1000, 1001 + size)
        parents = {
            "mothers": births[:-1],
            "fathers": np.where(DIRECT.uses_second_parent(size, key), births[1:], -1),
            "parents": dict(zip(births.tolist(), DIRECT.random(size + 1, Key(50, number))[:, None], strict=True)),
        }
    return Order(key, number * 100, size, np.full(CLASSES, threshold), np.full(CLASSES, -1), **parents)


def cut(order: Order, step: int) -> list[Order]:
    return [order.cut(at, min(at + step, order.size)) for at in range(0, order.size, step)]


def one_by_one(order: Order, without: Collection[int] = ()) -> Winners:
    """The winners among the remaining rows, each evaluated by itself."""
    rows = [row for row in range(order.size) if row not in without]
    return Winners.merged([BATCH_EVALUATOR(order.cut(row, row + 1)) for row in rows], 1)


def set_aside(order: Order, rows: Iterable[int], why: str) -> tuple[Quarantined, ...]:
    """The Quarantined of rows that broke the target."""
    return tuple(
        Quarantined(
            order.first_birth + row,
            order.batch,
            int(order.mothers[row]),
            int(order.fathers[row]),
            BATCH_EVALUATOR.children(order, row, row + 1),
            why,
        )
        for row in rows
    )


def plain(thing: Any) -> Any:
    """Winners and what is quarantined, to the byte and the dtype, as values that can be compared."""
    if isinstance(thing, Winners | Quarantined):
        return {field.name: plain(getattr(thing, field.name)) for field in fields(thing)}
    if isinstance(thing, tuple):
        return tuple(map(plain, thing))
    return (thing.dtype, thing.shape, thing.tobytes()) if isinstance(thing, np.ndarray) else thing


def as_expected(order: Order, w: Winners, without: Collection[int] = (), why: str = "") -> None:
    """The winners of an order without some rows, and these rows quarantined."""
    expected = plain(one_by_one(order, without)) | {"quarantined": plain(set_aside(order, sorted(without), why))}
    assert plain(w) == expected


def work(jobs: JobQueue, deadly: Collection[int] = ()) -> int:
    """Complete all jobs; a job with a deadly birth kills its worker. Returns the number of deaths."""
    died = 0
    while (job := jobs.next()) is not None:
        if any(job.order.first_birth <= birth < job.order.first_birth + job.order.size for birth in deadly):
            jobs.fail(job, "died")
            died += 1
        else:
            jobs.complete(job, BATCH_EVALUATOR(job.order))
    return died


def all_jobs(jobs: JobQueue) -> list[OrderJob]:
    """All queued jobs."""
    out = []
    while (job := jobs.next()) is not None:
        out.append(job)
    return out


def fail_again(jobs: JobQueue, why: str) -> int:
    """On another worker all queued jobs, of one image each, break the target. Returns their number."""
    queued = all_jobs(jobs)
    for job in queued:
        assert job.order.size == 1
        assert not jobs.complete(job, Winners.none(DIRECT), [(0, why)])
    return len(queued)


def rows_of(job: OrderJob, order: Order) -> tuple[int, int]:
    begin = job.order.first_birth - order.first_birth
    return begin, begin + job.order.size


# --- no worker dies


@pytest.mark.parametrize("number", [0, 1], ids=["random", "bred"])
@pytest.mark.parametrize("step", [1, 3, 4, 16])
def test_a_batch_in_parts_has_the_winners_of_its_images(number: int, step: int) -> None:
    order, jobs = order_of(number), jobs_of()
    jobs.add(order, cut(order, step))
    assert list(jobs.results()) == []
    work(jobs)
    ((same, w),) = jobs.results()
    assert same is order
    as_expected(order, w)
    assert len(w.cells) == CLASSES
    assert (jobs.next(), jobs.pending(), list(jobs.results())) == (None, [], [])


def test_a_batch_without_winners_is_complete() -> None:
    order, jobs = order_of(1, threshold=1e9), jobs_of()
    jobs.add(order, cut(order, 4))
    work(jobs)
    ((_, w),) = jobs.results()
    assert plain(w) == plain(Winners.none(DIRECT))


def test_jobs_come_in_the_order_of_submission_each_once() -> None:
    orders, jobs = [order_of(number) for number in range(3)], jobs_of()
    for order in orders:
        jobs.add(order, cut(order, 6))
    given = [(job.order.batch, *rows_of(job, orders[job.order.batch])) for job in all_jobs(jobs)]
    assert given == [(number, begin, min(begin + 6, 16)) for number in range(3) for begin in (0, 6, 12)]


@pytest.mark.parametrize(
    ("in_order", "finished", "come"),
    [
        (True, [2, 0, 3, 1], [[], [0], [], [1, 2, 3]]),
        (False, [2, 0, 3, 1], [[2], [0], [3], [1]]),
    ],
    ids=["in order", "as they come"],
)
def test_results_come_in_order_or_as_they_are_complete(in_order: bool, finished: list[int], come: list[list[int]]) -> None:
    orders, jobs = [order_of(number) for number in range(4)], jobs_of(in_order)
    for order in orders:
        jobs.add(order, cut(order, 8))
    job_of = {(job.order.batch, rows_of(job, orders[job.order.batch])[0]): job for job in all_jobs(jobs)}
    for job in (job_of[number, 8] for number in range(4)):
        jobs.complete(job, BATCH_EVALUATOR(job.order))
        assert list(jobs.results()) == [], "half a batch is none"
    left = [0, 1, 2, 3]
    for number, expected in zip(finished, come, strict=True):
        job = job_of[number, 0]
        jobs.complete(job, BATCH_EVALUATOR(job.order))
        assert jobs.pending() == [orders[n] for n in left]
        results = list(jobs.results())
        assert [order.batch for order, _ in results] == expected
        for order, w in results:
            as_expected(order, w)
        left = [n for n in left if n not in expected]
        assert jobs.pending() == [orders[n] for n in left], "the oldest first"


def test_complete_batches_come_oldest_first_and_others_can_be_added_meanwhile() -> None:
    jobs = jobs_of(in_order=False)
    for number in range(3):
        jobs.add(order_of(number), [order_of(number)])
    for job in reversed(all_jobs(jobs)):
        jobs.complete(job, BATCH_EVALUATOR(job.order))
    seen = []
    for order, _ in jobs.results():
        seen.append(order.batch)
        jobs.add(order_of(10 + order.batch), [order_of(10 + order.batch)])
    assert seen == [0, 1, 2]
    assert [order.batch for order in jobs.pending()] == [10, 11, 12]
    work(jobs)
    assert [order.batch for order, _ in jobs.results()] == [10, 11, 12]


@pytest.mark.parametrize("number", [0, 1], ids=["random", "bred"])
def test_results_do_not_depend_on_the_order_of_completion(number: int) -> None:
    order = order_of(number)
    ends = []
    for chosen in permutations(range(4)):
        jobs = jobs_of()
        jobs.add(order, cut(order, 4))
        parts = all_jobs(jobs)
        for i in chosen:
            # Each has lost its second row.
            rest = Winners.merged([BATCH_EVALUATOR(parts[i].order.cut(a, b)) for a, b in ((0, 1), (2, 4))], 1)
            assert jobs.complete(parts[i], rest, [(1, "broke")])
        assert list(jobs.results()) == []
        assert fail_again(jobs, "broke") == 4
        ((_, w),) = jobs.results()
        ends.append(plain(w))
    assert all(end == ends[0] for end in ends)
    as_expected(order, w, [1, 5, 9, 13], "broke")


# --- workers die


def test_a_job_that_is_put_back_comes_next_without_a_failure() -> None:
    order, jobs = order_of(1), jobs_of(retries=1)
    jobs.add(order, cut(order, 8))
    for _ in range(5):
        job = jobs.next()
        assert job is not None
        assert rows_of(job, order) == (0, 8)
        jobs.put_back(job)
    work(jobs)
    ((_, w),) = jobs.results()
    as_expected(order, w)


def test_evaluating_a_job_twice_changes_nothing() -> None:
    order, jobs = order_of(1), jobs_of()
    jobs.add(order, cut(order, 8))
    first, second = all_jobs(jobs)
    BATCH_EVALUATOR(first.order)
    jobs.complete(second, BATCH_EVALUATOR(second.order))
    jobs.put_back(first)
    assert list(jobs.results()) == []
    again = jobs.next()
    assert again is first
    jobs.complete(again, BATCH_EVALUATOR(again.order))
    ((_, w),) = jobs.results()
    as_expected(order, w)


@pytest.mark.parametrize("retries", [1, 2, 3])
@pytest.mark.parametrize(("size", "step"), [(72, 9), (20, 3), (8, 1), (2, 1)])
def test_a_job_that_fails_too_often_is_split_into_eight_that_come_next(retries: int, size: int, step: int) -> None:
    order, jobs = order_of(1, size + 5), jobs_of(retries=retries)
    jobs.add(order, cut(order, size))
    rest = [(begin, min(begin + size, size + 5)) for begin in range(size, size + 5, size)]
    for _ in range(retries):
        job = jobs.next()
        assert job is not None
        assert rows_of(job, order) == (0, size)
        jobs.fail(job, "died")
    parts = [(begin, min(begin + step, size)) for begin in range(0, size, step)]
    assert [rows_of(job, order) for job in all_jobs(jobs)] == [*parts, *rest]


@pytest.mark.parametrize("retries", [1, 2, 3])
@pytest.mark.parametrize("row", [0, 29, 63])
def test_few_deaths_narrow_a_batch_down_to_the_image_that_kills(retries: int, row: int) -> None:
    order, jobs = order_of(1, 64), jobs_of(retries=retries)
    jobs.add(order, [order])
    died = work(jobs, {order.first_birth + row})
    assert died == retries + 1 + 2, "as 64, as 8, and twice alone"
    assert jobs.quarantined == 1
    ((_, w),) = jobs.results()
    as_expected(order, w, [row], f"died, {retries + 1} times")
    assert len(w.cells) > 0


@pytest.mark.parametrize("retries", [1, 2, 3])
def test_a_single_image_is_tried_once_more_than_a_job_of_several(retries: int) -> None:
    order, jobs = order_of(1, 4), jobs_of(retries=retries)
    jobs.add(order, cut(order, 1))
    for failure in range(retries + 1):
        job = jobs.next()
        assert job is not None
        assert rows_of(job, order) == (0, 1)
        assert jobs.quarantined == 0
        jobs.fail(job, f"death {failure + 1}")
    work(jobs)
    ((_, w),) = jobs.results()
    as_expected(order, w, [0], f"death {retries + 1}, {retries + 1} times")


def test_a_job_that_fails_less_often_completes_normally() -> None:
    order, jobs = order_of(1), jobs_of(retries=3)
    jobs.add(order, [order])
    for _ in range(2):
        job = jobs.next()
        assert job is not None
        jobs.fail(job, "died")
    assert work(jobs) == 0
    ((_, w),) = jobs.results()
    as_expected(order, w)


@pytest.mark.parametrize("number", [0, 2], ids=["random", "bred"])
def test_quarantined_images_do_not_change_the_winners_among_the_others(number: int) -> None:
    order = order_of(number, 40)
    best = sorted(set((BATCH_EVALUATOR(order).births - order.first_birth).tolist()))
    assert len(best) > 2, "so that others win in their place"
    jobs = jobs_of()
    jobs.add(order, cut(order, 12))
    work(jobs, {order.first_birth + row for row in best})
    ((_, w),) = jobs.results()
    as_expected(order, w, best, "died, 3 times")
    assert len(w.cells) == CLASSES


# --- images that break the target and leave the worker alive


def test_broken_rows_are_counted_from_the_first_row_of_their_job() -> None:
    order, jobs = order_of(1), jobs_of()
    jobs.add(order, cut(order, 6))
    for job in all_jobs(jobs):
        if rows_of(job, order) == (6, 12):
            # As a worker tells them: of a half that broke, the second half may be known first.
            jobs.complete(job, one_by_one(job.order, [1, 5]), [(5, "broke"), (1, "broke")])
        else:
            jobs.complete(job, one_by_one(job.order))
    fail_again(jobs, "broke")
    ((_, w),) = jobs.results()
    as_expected(order, w, [7, 11], "broke")
    assert jobs.quarantined == 2


def test_an_image_that_breaks_the_target_on_one_worker_only_is_evaluated() -> None:
    order, jobs = order_of(1), jobs_of()
    jobs.add(order, cut(order, 8))
    first, second = all_jobs(jobs)
    jobs.complete(second, BATCH_EVALUATOR(second.order))
    assert jobs.complete(first, one_by_one(first.order, [2, 3]), [(2, "sick"), (3, "sick")])
    work(jobs)
    ((_, w),) = jobs.results()
    as_expected(order, w)
    assert jobs.quarantined == 0


def test_with_one_retry_the_first_failure_decides() -> None:
    order, jobs = order_of(1), jobs_of(retries=1)
    jobs.add(order, [order])
    (job,) = all_jobs(jobs)
    assert not jobs.complete(job, one_by_one(order, [2]), [(2, "broke")])
    ((_, w),) = jobs.results()
    as_expected(order, w, [2], "broke")


def test_quarantined_images_belong_to_their_own_batch() -> None:
    orders, jobs = [order_of(number) for number in (1, 2, 3)], jobs_of()
    for order in orders:
        jobs.add(order, cut(order, 8))
    work(jobs, {203, 312})
    (_, first), (_, second), (_, third) = jobs.results()
    as_expected(orders[0], first)
    as_expected(orders[1], second, [3], "died, 3 times")
    as_expected(orders[2], third, [12], "died, 3 times")


@pytest.mark.parametrize("by", ["death", "word"])
def test_a_batch_that_is_quarantined_as_a_whole_is_a_target_error(by: str) -> None:
    jobs, order = jobs_of(), order_of(3)
    jobs.add(order, cut(order, 8))
    if by == "death":
        work(jobs, range(300, 316))
        why = "died, 3 times"
    else:
        for job in all_jobs(jobs):
            jobs.complete(job, Winners.none(DIRECT), [(row, "broke") for row in range(8)])
        fail_again(jobs, "broke")
        why = "broke"
    with pytest.raises(TargetError, match=rf"^fake: fails on every image of batch 3: {why}$"):
        list(jobs.results())
    assert jobs.pending() == [order]


def test_a_batch_with_one_image_left_is_complete() -> None:
    jobs, order = jobs_of(), order_of(3)
    jobs.add(order, [order])
    work(jobs, set(range(300, 316)) - {305})
    ((_, w),) = jobs.results()
    as_expected(order, w, set(range(16)) - {5}, "died, 3 times")
    assert w.births.tolist() == [305]


def test_a_batch_of_one_image_can_be_quarantined() -> None:
    jobs, order = jobs_of(), order_of(3, size=1)
    jobs.add(order, [order])
    work(jobs, {300})
    ((_, w),) = jobs.results()
    assert plain(w) == plain(Winners.none(DIRECT)) | {"quarantined": plain(set_aside(order, [0], "died, 3 times"))}


@pytest.mark.parametrize("by", ["death", "word"])
@pytest.mark.parametrize("most", [0, 2])
def test_more_quarantined_images_than_allowed_end_the_search(by: str, most: int) -> None:
    jobs = jobs_of(most=most)
    orders = [order_of(number) for number in range(1, most + 2)]
    for order in orders[:-1]:
        jobs.add(order, cut(order, 8))
        work(jobs, {order.first_birth + 9})
    assert len(list(jobs.results())) == jobs.quarantined == most
    jobs.add(orders[-1], cut(orders[-1], 8))
    job = all_jobs(jobs)[1]
    why = "died, 3 times" if by == "death" else "broke"
    job = OrderJob(job.order.cut(1, 2), job.batch, failures=2 if by == "death" else 1)
    words = rf"^batch {most + 1}: fake: {why}\. More than {most} images are quarantined: check the target, or raise "
    with pytest.raises(ScoreError, match=words + r"compute\.ray\.quarantine$"):
        jobs.fail(job, "died") if by == "death" else jobs.complete(job, Winners.none(DIRECT), [(0, "broke")])
    assert jobs.pending() == [orders[-1]], "a checkpoint keeps batches that are not complete"
    assert list(jobs.results()) == []


def test_a_job_that_has_failed_goes_only_to_a_worker_that_has_no_other_call() -> None:
    order, jobs = order_of(1), jobs_of(retries=2)
    jobs.add(order, cut(order, 8))
    failed = jobs.next()
    assert failed is not None
    jobs.fail(failed, "died")
    other = jobs.next(alone=False)
    assert other is not None
    assert rows_of(other, order)[0] == 8
    assert jobs.next(alone=False) is None
    assert jobs.next(alone=True) is failed


# --- anything at all


@given(st.sets(st.integers(0, 39), max_size=5), st.integers(1, 40), st.integers(1, 3), st.booleans(), st.integers(0))
@settings(max_examples=40, deadline=None)
def test_deaths_and_order_do_not_change_the_winners_of_a_batch(
    bad: set[int], step: int, retries: int, in_order: bool, seed: int
) -> None:
    chance = Random(seed)
    orders = [order_of(1, 20), order_of(2, 20)]
    jobs = jobs_of(in_order, retries)
    for order in orders:
        jobs.add(order, cut(order, step))
    at_work: list[OrderJob] = []
    deaths: Counter[int] = Counter()
    results = []
    while jobs.pending():
        while len(at_work) < 4 and (job := jobs.next()) is not None:
            at_work.append(job)
        job = at_work.pop(chance.randrange(len(at_work)))
        begin, end = rows_of(job, orders[job.order.batch - 1])
        first = 20 * (job.order.batch - 1)
        if bad & set(range(first + begin, first + end)):
            deaths.update(range(first + begin, first + end))
            jobs.fail(job, "died")
        elif chance.random() < 0.3:
            jobs.put_back(job)
        else:
            jobs.complete(job, BATCH_EVALUATOR(job.order))
        results += jobs.results()
    assert [order.batch for order, _ in results] == [1, 2] or not in_order
    assert {order.batch for order, _ in results} == {1, 2}
    assert (at_work, jobs.next()) == ([], None)
    for order, w in results:
        as_expected(order, w, {row % 20 for row in bad if row // 20 == order.batch - 1}, f"died, {retries + 1} times")
    assert all(deaths[row] >= retries + 1 for row in bad)
    # As 20, as 3 and alone, and its own failures.
    assert all(n <= retries + 3 for n in deaths.values())
