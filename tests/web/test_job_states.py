from __future__ import annotations

import pytest

from monitor.messages import Phases, Result
from monitor.web.jobs.history import Last
from monitor.web.jobs.states import JobStates


def result(at: float, *, up: bool = True, location: str = "", quorum: int | None = None) -> Result:
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
        location=location,
        quorum=quorum,
    )


def test_a_job_is_up_or_down_since_the_first_result_that_said_so() -> None:
    standings = JobStates(all_seen=True)
    assert not standings.take(result(1))
    assert not standings.take(result(2))
    assert standings.since(1) == 1
    assert standings.take(result(3, up=False))
    assert standings.since(1) == 3
    assert standings.has_turned(1)


def test_of_a_job_that_others_check_the_first_that_is_known_says_no_since() -> None:
    standings = JobStates(all_seen=False)
    standings.take(result(1))
    assert standings.since(1) is None
    standings.restore(1, Last(result(1), 0.5, True))
    assert standings.since(1) == 0.5
    assert standings.has_turned(1)


def test_what_the_database_knew_is_older_than_what_was_seen_since() -> None:
    standings = JobStates(all_seen=True)
    standings.take(result(5, up=False))
    standings.restore(1, Last(result(4), 2.0, False))
    assert standings.last(1) == result(5, up=False)
    assert standings.since(1) == 5
    assert standings.missing([1]) == []


def test_results_that_come_late_into_the_database_are_looked_for_again() -> None:
    standings = JobStates(all_seen=True)
    standings.restore(1, None)
    assert standings.missing([1]) == [1]
    standings.restore(1, Last(result(4), 2.0, False))
    assert standings.last(1) == result(4)
    assert standings.missing([1]) == []


def test_of_several_locations_the_state_is_that_of_the_quorum() -> None:
    states = JobStates(all_seen=True)
    states.restore(1, None)
    turned = []
    for at, location, up in [
        (1, "a", True),
        (1, "b", True),
        (1, "c", True),
        (2, "b", False),
        (2, "a", True),
        (2, "c", False),
        (3, "a", True),
        (3, "b", True),
    ]:
        if states.take(result(at, up=up, location=location), silent_s=60):
            last = states.last(1)
            assert last is not None
            turned.append((at, location, last.up))
    assert turned == [(2, "c", False), (3, "b", True)]
    assert states.since(1) == 3
    assert [each.location for each in states.located(1)] == ["a", "b", "c"]
    assert [each.up for each in states.located(1)] == [True, True, False]


def test_a_result_that_is_read_again_changes_nothing() -> None:
    states = JobStates(all_seen=True)
    states.take(result(1, location="a"))
    states.take(result(2, up=False, location="a"))
    assert not states.take(result(1, location="a"))
    assert not states.take(result(2, up=True, location="a"))
    last = states.last(1)
    assert last is not None
    assert not last.up


def test_a_silent_location_is_shown_and_does_not_count() -> None:
    states = JobStates(all_seen=True)
    for location in ("a", "b"):
        states.take(result(1, up=False, location=location), silent_s=60)
    assert states.take(result(100, location="a"), silent_s=60)
    assert [each.location for each in states.located(1)] == ["a", "b"]


def test_fewer_locations_than_the_quorum_find_no_outage_and_end_none() -> None:
    states = JobStates(all_seen=True)
    states.restore(1, None)

    def take(at: float, location: str, *, up: bool) -> bool:
        return states.take(result(at, up=up, location=location, quorum=2), silent_s=60)

    assert not take(1, "a", up=False)
    assert states.undecided(1) == "down in 1 location, the quorum is 2"
    assert states.last(1) is None
    assert states.missing([1]) == []
    assert not take(2, "b", up=True)
    assert states.undecided(1) is None
    assert take(30, "b", up=False)
    # b is silent: the outage lasts until a sees its end.
    for at in range(31, 200, 30):
        assert not take(at, "a", up=False)
    assert states.since(1) == 30
    assert states.undecided(1) is None
    assert take(211, "a", up=True)
    assert not take(241, "a", up=False)
    assert states.undecided(1) == "down in 1 location, the quorum is 2"
    last = states.last(1)
    assert last is not None
    assert last.up
    assert states.since(1) == 211
    states.forget(1)
    assert states.undecided(1) is None


def test_what_the_database_knows_of_others_makes_a_quorum_with_the_first_own_result() -> None:
    down = result(4, up=False, location="b", quorum=2)
    states = JobStates(all_seen=True)
    assert not states.take(result(5, up=False, location="a", quorum=2))
    states.restore(1, Last(None, None, False, (down,)))
    assert states.undecided(1) is None
    assert states.take(result(6, up=False, location="a", quorum=2))

    alone = JobStates(all_seen=True)
    alone.restore(1, Last(None, None, False, (down,)))
    assert alone.undecided(1) == "down in 1 location, the quorum is 2"


@pytest.mark.parametrize("ahead", [-1e6, -600, 0, 600, 1e6])
def test_a_wrong_clock_silences_nobody_and_decides_nothing_alone(ahead: float) -> None:
    states = JobStates(all_seen=True)
    for at in range(0, 300, 30):
        for location in ("b", "a", "c"):
            wrong = location == "a"
            one = result(at + 1 + (1e7 + ahead if wrong else 1e7), up=not wrong, location=location)
            states.take(one, silent_s=60)
            last = states.last(1)
            assert last is not None
            assert last.up
    assert [each.location for each in states.located(1)] == ["a", "b", "c"]


def test_what_the_database_knows_of_other_locations_joins_the_first_own_result() -> None:
    states = JobStates(all_seen=True)
    states.take(result(5, up=False, location="a"))
    others = (result(4, location="b"), result(4, location="c"))
    assert states.restore(1, Last(others[0], 2.0, False, others)) is None
    last = states.last(1)
    assert last is not None
    assert last.up


@pytest.mark.parametrize(
    ("past", "went_down"),
    [
        (None, True),
        (Last(result(4), 2.0, False), True),
        (Last(result(5, up=False), 5.0, True), True),
        (Last(result(6, up=False), 5.0, False), True),
        (Last(result(4, up=False), 3.0, True), False),
        (Last(result(6, up=False), None, False), False),
    ],
)
def test_a_first_result_that_is_down_is_told_once_its_past_is_known(
    past: Last | None, went_down: bool
) -> None:
    states = JobStates(all_seen=True)
    first = result(5, up=False)
    assert not states.take(first)
    assert not states.take(result(6, up=False))
    assert states.restore(1, past) == (first if went_down else None)
    assert states.restore(1, past) is None


def test_a_job_that_is_up_before_its_past_is_known_is_not_told_as_down() -> None:
    states = JobStates(all_seen=True)
    assert not states.take(result(5, up=False))
    assert states.take(result(6))
    assert states.restore(1, None) is None
