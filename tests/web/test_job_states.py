from __future__ import annotations

from monitor.messages import Phases, Result
from monitor.web.jobs.history import Last
from monitor.web.jobs.states import JobStates


def result(at: float, *, up: bool = True) -> Result:
    return Result(
        job_id=1,
        url="http://x/",
        scheduled_at=at,
        checked_at=at,
        up=up,
        status=200,
        response_time=0.1,
        duration=0.1,
        error=None,
        matched=True,
        phases=Phases(),
    )


def test_a_job_is_up_or_down_since_the_first_result_that_said_so() -> None:
    standings = JobStates(all_seen=True)
    assert not standings.take(result(1), listed=True)
    assert not standings.take(result(2), listed=True)
    assert standings.since(1) == 1
    assert standings.take(result(3, up=False), listed=True)
    assert standings.since(1) == 3
    assert standings.has_turned(1)


def test_of_a_job_that_others_check_the_first_that_is_known_says_no_since() -> None:
    standings = JobStates(all_seen=False)
    standings.take(result(1), listed=True)
    assert standings.since(1) is None
    standings.restore(1, Last(result(1), 0.5, True))
    assert standings.since(1) == 0.5
    assert standings.has_turned(1)


def test_what_the_database_knew_is_older_than_what_was_seen_since() -> None:
    standings = JobStates(all_seen=True)
    standings.take(result(5, up=False), listed=True)
    assert standings.restore(1, Last(result(4), 2.0, False))
    assert standings.last(1) == result(5, up=False)
    assert standings.since(1) == 5
    assert standings.missing([1]) == []


def test_results_that_come_late_into_the_database_are_looked_for_again() -> None:
    standings = JobStates(all_seen=True)
    assert not standings.restore(1, None)
    assert standings.missing([1]) == [1]
    assert standings.restore(1, Last(result(4), 2.0, False))
    assert standings.last(1) == result(4)
    assert standings.missing([1]) == []
