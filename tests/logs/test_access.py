"""Who may do what to the log service, and how much of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.logs.part import Logs
from monitor.store import DatabaseSettings
from monitor.tokens import Principal, Role
from tests.logs.running import Client, Clock, line, running
from tests.store.opened import opened


@pytest.mark.parametrize(
    ("principal", "upload", "read"),
    [
        (None, "unauthorized", "unauthorized"),
        (Principal("r", Role.READER), "forbidden", None),
        (Principal("addon-1", Role.SENDER), None, "forbidden"),
        (Principal("ops", Role.ADMIN), None, None),
    ],
)
async def test_roles(
    logs: Logs, principal: Principal | None, upload: str | None, read: str | None
) -> None:
    client = Client(logs, principal)

    async def code(action: str, **message: Any) -> str | None:
        answer = await client.ask(action, **message)
        return answer["error"]["code"] if answer["status"] == "error" else None

    assert await code("uploadLogs", **line("x")) == upload
    assert await code("uploadNotifications", **line("x")) == upload
    assert await code("getLogs") == read
    assert await code("getNotifications") == read
    assert await code("followLogs") == read


async def test_of_a_key_given_twice_the_last_one_counts_for_a_senders_token_too(
    logs: Logs,
) -> None:
    device = Client(logs, Principal("addon-1", Role.SENDER))
    for sender, status in (("addon-1", "ok"), ("addon-2", "error")):
        text = json.dumps({"action": "uploadLogs", **line("m", sender=sender)})
        twice = '{"sender": "addon-1", "sender": "addon-2", ' + text[1:]
        await device.session.receive(twice.encode(), device.principal)
        await device.session.answered()
        assert device.answers[-1]["status"] == status
    assert await Client(logs).texts(sender="addon-2") == []


async def test_a_senders_token_fixes_the_sender(logs: Logs) -> None:
    device = Client(logs, Principal("addon-7", Role.SENDER))
    bare = {key: value for key, value in line("mine").items() if key != "sender"}
    answer = await device.ask("uploadLogs", logs=[bare, line("forged", sender="addon-1")])
    assert answer["accepted"] == 1
    assert answer["rejected"][0]["reason"] == "wrong-sender"
    forged = await device.ask("uploadLogs", **line("forged"))
    assert forged["error"]["code"] == "forbidden"
    entries = (await Client(logs).ask("getLogs"))["logs"]
    assert [(each["sender"], each["message"]) for each in entries] == [("addon-7", "mine")]


async def test_rates_are_limited_for_each_connection_and_each_token(
    scratch: DatabaseSettings,
) -> None:
    elapsed = Clock(0.0)
    async with (
        opened(scratch) as store,
        running(store, Clock(), elapsed=elapsed, max_entries_per_second=10) as logs,
    ):
        first, second = Client(logs), Client(logs)
        assert (await first.upload(*"x" * 25))["accepted"] == 25
        limited = await first.ask("uploadLogs", id=3, **line("y"))
        assert limited["id"] == 3
        assert limited["error"]["code"] == "rate-limited"
        wait = limited["error"]["retry_after"]
        assert 0 < wait < 2
        assert (await second.upload("x"))["accepted"] == 1  # another connection
        elapsed.now += wait
        assert (await first.upload("x"))["accepted"] == 1
        token = Principal("addon-1", Role.SENDER)
        assert (await Client(logs, token).upload(*"x" * 25))["accepted"] == 25
        again = await Client(logs, token).upload("x")  # the same token on a new connection
        assert again["error"]["code"] == "rate-limited"


async def test_open_connections_take_up_limits_at_a_reload(scratch: DatabaseSettings) -> None:
    elapsed = Clock(0.0)
    async with (
        opened(scratch) as store,
        running(store, Clock(), elapsed=elapsed, max_entries_per_second=1000) as logs,
    ):
        client = Client(logs)
        assert (await client.upload(*"x" * 1000))["accepted"] == 1000
        fewer = logs.service.settings.replace(max_entries_per_second=10)
        (await logs.prepare(fewer))()
        assert (await client.upload(*"x" * 25))["accepted"] == 25
        limited = await client.upload("x")
        assert limited["error"]["code"] == "rate-limited"
        # So long and not a moment less.
        elapsed.now += limited["error"]["retry_after"]
        assert (await client.upload("x"))["accepted"] == 1
        more = logs.service.settings.replace(max_entries_per_second=10**6)
        (await logs.prepare(more))()
        elapsed.now += 0.1
        assert (await client.upload(*"x" * 5000))["accepted"] == 5000
        assert (await client.upload(*"x" * 5000))["accepted"] == 5000


async def test_who_has_no_valid_token_is_limited_too(scratch: DatabaseSettings) -> None:
    elapsed = Clock(0.0)
    async with (
        opened(scratch) as store,
        running(store, Clock(), elapsed=elapsed, max_entries_per_second=1) as logs,
    ):
        client = Client(logs, None)
        codes = [(await client.ask("getLogs"))["error"]["code"] for _ in range(4)]
        assert codes == ["unauthorized", "unauthorized", "rate-limited", "rate-limited"]
