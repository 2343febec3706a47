from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.limits import Allowance
from monitor.logs.settings import LogsSettings
from monitor.logs.tables import partition_width_s


def test_a_burst_passes_and_then_it_takes_its_time() -> None:
    allowance = Allowance(rate=10, now=0)
    for _ in range(20):
        assert allowance.wait_s(10, 0) == 0
        allowance.spend(1)
    assert allowance.wait_s(10, 0) == pytest.approx(0.1)
    assert allowance.wait_s(10, 0.2) == 0


def test_a_request_larger_than_the_burst_passes_and_leaves_a_debt() -> None:
    allowance = Allowance(rate=10, now=0)
    assert allowance.wait_s(10, 0) == 0
    allowance.spend(120)
    assert allowance.wait_s(10, 0) == pytest.approx(10.1)
    assert allowance.wait_s(10, 10.1) == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), max_size=60))
def test_in_the_long_run_no_more_than_the_rate_passes(requests: list[tuple[float, int]]) -> None:
    allowance = Allowance(rate=10, now=0)
    now, passed, largest = 0.0, 0, 0
    for pause, amount in requests:
        now += pause
        if allowance.wait_s(10, now) == 0:
            allowance.spend(amount)
            passed += amount
            largest = max(largest, amount)
    assert passed <= 20 + 10 * now + largest + 1e-6


@given(st.integers(1, 200), st.floats(0, 5))
def test_who_waits_as_long_as_told_passes(spent: int, later: float) -> None:
    allowance = Allowance(rate=10, now=0)
    allowance.spend(spent)
    wait = allowance.wait_s(10, later)
    assert allowance.wait_s(10, later + wait + 1e-9) == 0


def test_a_clock_that_goes_back_takes_nothing() -> None:
    allowance = Allowance(rate=10, now=100)
    allowance.spend(19)
    assert allowance.wait_s(10, 50) == 0


def test_a_change_of_rates_keeps_debts_and_grants_nothing_at_once() -> None:
    allowance = Allowance(rate=10, now=0)
    allowance.spend(21)
    assert allowance.wait_s(100, 0) == pytest.approx(0.02)
    assert allowance.wait_s(1, 0) == pytest.approx(2)
    fuller = Allowance(rate=10, now=0)
    assert fuller.wait_s(1, 0) == 0
    fuller.spend(3)
    assert fuller.wait_s(1, 0) == pytest.approx(2)


@given(st.floats(1e-9, 1e6))
def test_a_retry_after_is_never_too_short_and_within_a_millisecond(wait: float) -> None:
    error = ActionError(ErrorCode.RATE_LIMITED, "slower", retry_after=wait)
    told = json.loads(error.answer(Head("getLogs")))["error"]["retry_after"]
    assert wait <= told <= wait + 0.001 + 1e-9


def test_the_environment_wins_over_the_file() -> None:
    settings = LogsSettings(timewindow=5)
    assert settings.with_environment({}) == settings
    found = settings.with_environment({"LOGS_TIMEWINDOW": "90", "CLEANUP_INTERVAL": "0.5"})
    assert (found.timewindow, found.cleanup_interval) == (90.0, 0.5)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1 2"])
def test_an_environment_that_makes_no_sense_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="LOGS_TIMEWINDOW"):
        LogsSettings().with_environment({"LOGS_TIMEWINDOW": text})


def test_an_entry_must_fit_a_message() -> None:
    with pytest.raises(SettingError, match="max_message_bytes"):
        LogsSettings(max_entry_bytes=1000, max_message_bytes=1000).verify()
    LogsSettings().verify()


@pytest.mark.parametrize(
    ("window", "width"), [(0.5, 60), (60, 60), (1440, 60), (1441, 61), (86400, 3600)]
)
def test_partitions_are_a_24th_of_the_window_but_at_least_a_minute(
    window: float, width: int
) -> None:
    assert partition_width_s(window) == width
