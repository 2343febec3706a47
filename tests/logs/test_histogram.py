"""How many entries match, by time and level, on both databases."""

from __future__ import annotations

import pytest

from monitor.logs.actions import filter_of, query
from monitor.logs.answers import ActionError, ErrorCode
from monitor.logs.filters import Kind
from monitor.logs.part import Logs
from monitor.tokens import ANYONE, Principal, Role
from tests.logs.running import NOW, Client, line


async def test_entries_are_counted_where_they_are(logs: Logs) -> None:
    client = Client(logs)
    times = {"info": (0.0, 0.5, 9.999), "error": (5.0,), "debug": (-0.001, 10.0)}
    items = [
        line(f"{level} {at}", time=NOW - 50 + at, level=level)
        for level, all_ in times.items()
        for at in all_
    ]
    await client.ask("uploadLogs", logs=items)
    wanted = query(Kind.LOGS, filter_of(), since=NOW - 50, until=NOW - 40)
    found = await logs.service.histogram(wanted, ANYONE, bars=10)
    assert (found.start, found.width) == (NOW - 50, 1.0)
    assert found.levels["info"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found.levels["error"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert sum(found.levels["debug"]) == 0


async def test_filters_choose_what_is_counted(logs: Logs) -> None:
    client = Client(logs)
    items = [
        line(text, time=NOW - 1, sender=sender, level="warning")
        for text in ("Disk is full", "disk is slow", "clock is off")
        for sender in ("a", "b")
    ]
    await client.ask("uploadLogs", logs=items)
    for filter_, count in (
        (filter_of(contains="DISK"), 4),
        (filter_of(contains="disk", excludes=["SLOW"]), 2),
        (filter_of(sender="a"), 3),
        (filter_of(min_level="error"), 0),
    ):
        found = await logs.service.histogram(query(Kind.LOGS, filter_), ANYONE, bars=7)
        assert sum(found.levels["warning"]) == count


async def test_without_a_range_it_begins_where_entries_are_kept_from(logs: Logs) -> None:
    kept = logs.service.settings.timewindow
    found = await logs.service.histogram(query(Kind.LOGS, filter_of()), ANYONE, bars=4)
    assert found.start == pytest.approx(NOW - kept)
    assert found.width == pytest.approx(kept / 4)
    # Of notifications, which have no such limit, it begins with the oldest.
    empty = await logs.service.histogram(query(Kind.NOTIFICATIONS, filter_of()), ANYONE, bars=4)
    assert empty.start < NOW


async def test_a_sender_may_not_count(logs: Logs) -> None:
    sender = Principal("s", Role.SENDER)
    with pytest.raises(ActionError) as caught:
        await logs.service.histogram(query(Kind.LOGS, filter_of()), sender, bars=4)
    assert caught.value.code is ErrorCode.FORBIDDEN
