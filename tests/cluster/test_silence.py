"""Jobs that are silent for too long, and workers that fail to start: what is told apart, and when it is enough."""

import pytest

from evofool.cluster.settings import RayOptions
from evofool.cluster.silence import Silence
from evofool.cluster.start_up import StartUp
from evofool.errors import TargetError


def test_a_job_hangs_if_its_process_gives_no_sign_of_life() -> None:
    silence = Silence(10.0)
    silence.begin(3, 0.0)
    silence.update(3, (1, 1), 5.0)
    assert silence.reason(3, 14.0) == ""
    assert silence.reason(3, 16.0) == "its process gave no sign of life in 10 seconds"
    silence.update(3, (1, 2), 16.0)
    assert silence.reason(3, 17.0) == ""


def test_a_job_hangs_if_it_lives_and_reports_no_progress_for_four_times_as_long() -> None:
    silence = Silence(10.0)
    silence.begin(0, 0.0)
    silence.update(0, (1, 1), 0.0)
    for second in range(1, 50):
        silence.update(0, (1, 1 + second), float(second))
    assert silence.reason(0, 40.0) == ""
    assert silence.reason(0, 41.0) == "it reported no progress in 40 seconds"
    silence.update(0, (2, 100), 42.0)
    assert silence.reason(0, 43.0) == ""


def test_a_job_that_is_not_begun_may_wait_four_times_as_long() -> None:
    silence = Silence(10.0)
    silence.begin(0, 0.0)
    assert not silence.begun(0)
    silence.update(0, (0, 1), 25.0)
    assert silence.begun(0), "it imports what it needs"
    assert silence.reason(0, 39.0) == ""
    assert silence.reason(0, 41.0) == "it was not begun in 40 seconds"


def test_where_signs_are_not_passed_on_time_counts_anew() -> None:
    silence = Silence(10.0)
    silence.begin(0, 0.0)
    silence.update(0, (1, 1), 0.0)
    silence.restart([0], 30.0)
    assert silence.reason(0, 39.0) == ""


def test_deaths_end_a_search_only_where_no_worker_has_ever_answered() -> None:
    start_up = StartUp(RayOptions(), 2)
    for _ in range(50):
        start_up.died(0)  # the other one may still come
    for _ in range(6):
        start_up.died(1)
    with pytest.raises(TargetError, match="killed or crashed 7 times in a row before it had answered"):
        start_up.died(1)
    start_up = StartUp(RayOptions(), 2)
    start_up.answer(0)
    for number in (0, 1) * 50:
        start_up.died(number)


def test_the_third_failed_start_in_a_row_ends_a_search_if_no_other_worker_works() -> None:
    start_up = StartUp(RayOptions(), 1)
    for _ in range(2):
        start_up.failed(0, "no such file", others_work=False)
    start_up.answer(0)
    for _ in range(2):
        start_up.failed(0, "no such file", others_work=False)
    start_up.failed(0, "no such file", others_work=True)
    with pytest.raises(TargetError, match="no worker can be started: no such file"):
        start_up.failed(0, "no such file", others_work=False)
