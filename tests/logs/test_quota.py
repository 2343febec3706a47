from __future__ import annotations

import logging

import pytest

from monitor.logs.part import Logs
from monitor.logs.settings import LogsSettings
from monitor.store import DatabaseSettings
from tests.logs.running import NOW, Client, Clock, line, opened, running


async def notify(client: Client, *texts: str, **fields: object) -> None:
    entries = [line(text, **fields) for text in texts]
    answer = await client.ask("uploadNotifications", notifications=entries)
    assert answer["status"] == "ok"


async def notifications(client: Client) -> list[str]:
    answer = await client.ask("getNotifications")
    return [entry["message"] for entry in answer["notifications"]]


def evicted(logs: Logs) -> dict[str, float]:
    (metric,) = (each for each in logs.metrics() if each.name == "log_evicted_total")
    return {labels["kind"]: value for labels, value in metric.samples}


async def test_the_oldest_go_first_counted_and_said(
    logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(logs)
    # Each counts 1000 + 7 + 100 bytes; the clock of the sender decides which is the oldest.
    for number in (3, 1, 4, 0, 5, 2, 9, 6, 8, 7):
        await notify(client, f"{number}".ljust(1000), time=NOW + number)
        await client.upload(f"{number}".ljust(1000), time=NOW + number)
    logs.service.adopt(LogsSettings(timewindow=1e6, max_notification_bytes=5 * 1107))
    with caplog.at_level(logging.WARNING):
        await logs.retain()
    assert [text.strip() for text in await notifications(client)] == ["9", "8", "7", "6"]
    assert len(await client.texts()) == 10
    assert evicted(logs) == {"log_entry": 0, "notification": 6}
    assert "over logs.max_notification_bytes (5535 bytes): deleted the oldest 6" in caplog.text
    await logs.retain()
    assert evicted(logs)["notification"] == 6
    await notify(client, "more".ljust(1000), "again".ljust(1000), time=NOW + 10)
    await logs.retain()
    assert len(await notifications(client)) == 4
    logs.service.adopt(LogsSettings(timewindow=1e6, max_bytes=3 * 1107))
    await logs.retain()
    assert [text.strip() for text in await client.texts()] == ["9", "8"]
    assert evicted(logs) == {"log_entry": 8, "notification": 8}


async def test_what_another_instance_deleted_is_not_deleted_twice(
    scratch: DatabaseSettings,
) -> None:
    limit = 10 * 110
    async with (
        opened(scratch) as store,
        running(store, Clock(), max_notification_bytes=limit) as one,
        running(store, Clock(), max_notification_bytes=limit) as two,
    ):
        client = Client(one)
        for _ in range(3):
            await notify(client, *(["abc"] * 9))
            for logs in (one, two):
                await logs.retain()
            assert len(await notifications(client)) >= 9


async def test_there_is_no_limit_for_logs_and_a_large_one_for_notifications(logs: Logs) -> None:
    settings = LogsSettings()
    assert (settings.max_bytes, settings.max_notification_bytes) == (None, 1 << 30)
    client = Client(logs)
    await client.upload(*(["x"] * 100))
    await notify(client, *(["x"] * 100))
    await logs.retain()
    assert evicted(logs) == {"log_entry": 0, "notification": 0}
