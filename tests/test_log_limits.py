import logging

import pytest

from monitor.log_limits import OutageLog, RateLimitedLog

log = logging.getLogger("monitor.test")


def test_repeated_faults_are_counted_instead_of_said(caplog: pytest.LogCaptureFixture) -> None:
    limited = RateLimitedLog(log, lines=2, period_s=10)
    with caplog.at_level(logging.INFO, logger="monitor.test"):
        for second in range(10):
            limited.log(logging.WARNING, "kind", "fault %d", second, now=float(second))
        limited.log(logging.WARNING, "kind", "fault again", now=11.0)
    assert [record.getMessage() for record in caplog.records] == [
        "fault 0",
        "fault 1",
        "kind: too many of these; only counting them now",
        "kind: 8 more in 11 s",
        "fault again",
    ]


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = OutageLog(log, subject="a server", outcome="waiting")
    with caplog.at_level(logging.INFO, logger="monitor.test"):
        outage.recovered("it responds again")
        for _ in range(2):
            for _ in range(5):
                outage.failed("connection refused")
            assert outage.summary == "connection refused; waiting"
            outage.recovered("it responds again")
            assert outage.problem is None
    assert lines(caplog) == 2 * [
        ("WARNING", "a server: connection refused; waiting"),
        ("INFO", "a server: it responds again"),
    ]


def test_problems_that_take_turns_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    outage = OutageLog(log, level=logging.ERROR)
    with caplog.at_level(logging.INFO, logger="monitor.test"):
        for _ in range(5):
            outage.failed("refused")
            outage.failed("timed out", level=logging.INFO)
    assert lines(caplog) == [
        ("ERROR", "refused; trying again"),
        ("INFO", "timed out; trying again"),
    ]
    assert outage.problem == "timed out"


def test_problems_that_are_never_the_same_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = OutageLog(log)
    for number in range(1000):
        outage.failed(f"no answer after {number} s")
    assert len(caplog.records) == 10
    assert outage.problem == "no answer after 999 s"


def test_a_percent_sign_is_no_placeholder(caplog: pytest.LogCaptureFixture) -> None:
    OutageLog(log, subject="100%s").failed("50% full")
    assert lines(caplog) == [("WARNING", "100%s: 50% full; trying again")]
