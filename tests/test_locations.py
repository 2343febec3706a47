"""Whether a site is down by what its locations say, against plain counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.locations import ALL_LOCATIONS, decisive, is_down, silent_after_s
from monitor.messages import Result


def result(location: str, at: float, *, up: bool, quorum: int | None = None) -> Result:
    return Result(
        job_id=1,
        url="http://x/",
        scheduled_at=at,
        checked_at=at,
        up=up,
        location=location,
        quorum=quorum,
    )


@pytest.mark.parametrize(
    ("down", "locations", "quorum", "expected"),
    [
        (0, 0, None, False),
        (0, 3, 1, False),
        (1, 1, None, True),
        (1, 2, None, False),
        (2, 2, None, True),
        (1, 3, None, False),
        (2, 3, None, True),
        (2, 4, None, False),
        (1, 3, 1, True),
        (2, 3, 3, False),
        (2, 2, 3, None),
        (1, 2, 3, False),
        (1, 1, 2, None),
        (1, 1, ALL_LOCATIONS, True),
        (2, 3, ALL_LOCATIONS, False),
    ],
)
def test_a_quorum_is_more_than_half_or_the_number_that_is_set(
    down: int, locations: int, quorum: int | None, expected: bool | None
) -> None:
    assert is_down(down, locations, quorum) is expected


@given(
    said=st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.integers(0, 100), st.booleans()),
        min_size=1,
    ),
    quorum=st.none() | st.integers(1, 7),
    silent_s=st.integers(1, 120),
    was_down=st.booleans(),
)
def test_the_newest_result_that_agrees_with_the_quorum_shows_the_state(
    *, said: dict[str, tuple[int, bool]], quorum: int | None, silent_s: int, was_down: bool
) -> None:
    results = [result(name, at, up=up, quorum=quorum) for name, (at, up) in said.items()]
    shown = decisive(results, silent_s=silent_s, was_down=was_down)
    now = max(at for at, _ in said.values())
    votes = [up for at, up in said.values() if now - at <= silent_s]
    needed = len(votes) // 2 + 1 if quorum is None else quorum
    if shown is None:
        assert not was_down
        assert not any(votes)
        assert len(votes) < needed
        return
    kept = was_down and not any(votes)
    assert shown.up is (votes.count(False) < needed and not kept)
    agreeing = [at for at, up in said.values() if now - at <= silent_s and up is shown.up]
    assert shown.checked_at == max(agreeing)


def test_a_location_is_silent_after_three_runs_without_a_result() -> None:
    assert silent_after_s(60, 10) == 190
    assert silent_after_s(0.5, 1) == 10


def test_the_headers_name_the_location() -> None:
    assert result("prague", 1.0, up=True).headers()["ce_source"] == "/locations/prague/producers/1"
    assert result("", 1.0, up=True).headers()["ce_source"] == "/producers/1"
