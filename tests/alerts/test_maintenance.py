"""Maintenance windows by the clock on the wall."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerts.maintenance import open_until
from monitor.alerts.settings import Maintenance
from monitor.errors import SettingError

PRAGUE = ZoneInfo("Europe/Prague")


def window(**keys: Any) -> Maintenance:
    found = msgspec.convert({"name": "w", "time_zone": "Europe/Prague", **keys}, Maintenance)
    found.verify()
    return found


def at(text: str, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=PRAGUE, fold=fold).timestamp()


SUNDAY = window(days=["sun"], **{"from": "02:00", "until": "04:00"})


@pytest.mark.parametrize(
    ("moment", "until"),
    [
        ("2026-06-07T01:59:59", None),
        ("2026-06-07T02:00:00", "2026-06-07T04:00:00"),
        ("2026-06-07T03:59:59", "2026-06-07T04:00:00"),
        ("2026-06-07T04:00:00", None),
        ("2026-06-08T03:00:00", None),
        # Clocks are set ahead at 02:00: there is one hour of it.
        ("2026-03-29T01:59:59", None),
        ("2026-03-29T03:00:00", "2026-03-29T04:00:00"),
    ],
)
def test_a_window_is_open_on_its_day_between_its_times(moment: str, until: str | None) -> None:
    assert open_until(SUNDAY, at(moment)) == (None if until is None else at(until))


@pytest.mark.parametrize("fold", [0, 1])
def test_an_hour_that_there_is_twice_is_in_the_window_twice(fold: int) -> None:
    moment = at("2026-10-25T02:30:00", fold=fold)
    assert open_until(SUNDAY, moment) == at("2026-10-25T04:00:00")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = window(days=["mon"], **{"from": "22:00", "until": "02:00"})
    assert open_until(night, at("2026-06-08T23:00:00")) == at("2026-06-09T02:00:00")
    assert open_until(night, at("2026-06-09T01:59:00")) == at("2026-06-09T02:00:00")
    assert open_until(night, at("2026-06-08T01:00:00")) is None
    assert open_until(night, at("2026-06-09T23:00:00")) is None


@given(
    # Clocks are set in Prague and Troll, in Prague, Apia, Lord Howe, Casablanca or Caracas, or at
    # any time.
    moment=st.floats(0, 4e9)
    | st.builds(
        float.__add__,
        st.sampled_from(
            [1774746000.0, 1792890000.0, 1325239200.0, 1775314800.0, 1771120800.0, 1462086000.0]
        ),
        st.floats(-86400, 86400),
    ),
    begin=st.integers(0, 1439),
    length=st.integers(1, 1439),
    zone=st.sampled_from(
        [
            "UTC",
            "Europe/Prague",
            "America/St_Johns",
            "Pacific/Apia",
            "Asia/Kolkata",
            # By half an hour, by two hours, back for the month of fasting, and by a new law.
            "Australia/Lord_Howe",
            "Antarctica/Troll",
            "Africa/Casablanca",
            "America/Caracas",
        ]
    ),
)
def test_a_window_of_every_day_is_open_exactly_when_the_wall_says_so(
    moment: float, begin: int, length: int, zone: str
) -> None:
    end = (begin + length) % 1440
    found = window(
        time_zone=zone,
        **{"from": f"{begin // 60:02}:{begin % 60:02}", "until": f"{end // 60:02}:{end % 60:02}"},
    )
    wall = datetime.fromtimestamp(moment, ZoneInfo(zone))
    minutes = wall.hour * 60 + wall.minute
    expected = begin <= minutes < end if begin < end else minutes >= begin or minutes < end
    until = open_until(found, moment)
    assert (until is not None) is expected
    if until is not None:
        assert until > moment
        assert open_until(found, until - 0.5) == until
        assert until - moment <= timedelta(days=1, hours=25).total_seconds()


@pytest.mark.parametrize(
    "keys",
    [
        {"from": "24:00"},
        {"from": "2"},
        {"until": "25:00"},
        {"until": "02:60"},
        {"from": "02:00", "until": "02:00"},
        {"time_zone": "Europe/Nowhere"},
        {"time_zone": "../../etc/passwd"},
    ],
)
def test_a_wrong_window_is_refused_with_its_key(keys: dict[str, str]) -> None:
    with pytest.raises(SettingError) as raised:
        window(**keys)
    assert raised.value.path[0] in keys
