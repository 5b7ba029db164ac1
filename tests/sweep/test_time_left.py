"""How long jobs will still take."""

import pytest

from evofool.sweep.time_left import Running, TimeLeft


def test_nothing_is_said_before_anything_is_known() -> None:
    left = TimeLeft()
    assert left.seconds({}, 5) is None
    assert left.seconds({0: Running(0.01, 0.0, 1.0)}, 5) is None


def test_waiting_jobs_take_as_long_as_those_that_run() -> None:
    running = {0: Running(0.5, 0.0, 10.0), 1: Running(0.25, 0.0, 10.0)}  # 20 s and 40 s
    assert TimeLeft().seconds(running, 4) == pytest.approx((10 + 30 + 4 * 30) / 2)


def test_long_jobs_after_many_short_ones_count_by_the_long_ones() -> None:
    left = TimeLeft()
    for job in range(200):
        left.seconds({job: Running(0.5, 0.0, 0.5)}, 210 - job)
        left.ended(job)
    left.seconds({200: Running(0.5, 0.0, 50.0)}, 10)
    left.ended(200)
    assert left.seconds({201: Running(0.5, 0.0, 50.0)}, 9) == pytest.approx(50 + 9 * 100)


def test_a_continued_job_counts_from_where_it_was_begun_here() -> None:
    assert TimeLeft().seconds({0: Running(0.75, 0.5, 25.0)}, 0) == pytest.approx(25.0)


def test_between_two_jobs_the_last_one_counts() -> None:
    left = TimeLeft()
    left.seconds({0: Running(0.9, 0.0, 9.0)}, 3)
    left.ended(0)
    assert left.seconds({}, 3) == pytest.approx(30.0)


def test_the_longest_job_is_waited_for() -> None:
    running = {0: Running(0.9, 0.0, 9.0), 1: Running(0.1, 0.0, 10.0)}  # 1 s and 90 s are left
    assert TimeLeft().seconds(running, 0) == pytest.approx(90.0)


def test_when_one_of_two_jobs_ended_the_waiting_ones_still_share_the_work() -> None:
    left = TimeLeft()
    left.seconds({0: Running(0.5, 0.0, 10.0), 1: Running(0.5, 0.0, 10.0)}, 4)
    left.ended(0)
    assert left.seconds({1: Running(0.5, 0.0, 10.0)}, 4) == pytest.approx((10 + 4 * 20) / 2)
