"""What becomes of uploads, and of whatever else is asked."""

from __future__ import annotations

import asyncio
import json
import random
from sqlite3 import DataError
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.logs.part import Logs
from monitor.store import Connection, DatabaseSettings, Store
from tests.examples import examples
from tests.logs.running import NOW, Client, Clock, line, running, until
from tests.logs.test_actions import messages
from tests.logs.test_entries import json_values
from tests.store.opened import opened


async def test_each_entry_is_judged_by_itself(logs: Logs) -> None:
    client = Client(logs)
    items = [
        line("good"),
        line("old", time=NOW - 61),
        line("ahead", time=NOW + 3601),
        line("level", level="loud"),
        line("x" * 300_000),
        line("nul\0"),
        line("fine", time=NOW + 3600),
    ]
    answer = await client.ask("uploadLogs", logs=items)
    assert answer["accepted"] == 2
    assert [(each["index"], each["reason"]) for each in answer["rejected"]] == [
        (1, "too-old"),
        (2, "in-future"),
        (3, "unknown-level"),
        (4, "entry-too-large"),
        (5, "bad-text"),
    ]
    assert await client.texts() == ["fine", "good"]
    single = await client.ask("uploadLogs", **line("old", time=NOW - 61))
    assert single["status"] == "error"
    assert single["error"]["code"] == "bad-request"
    assert single["rejected"][0]["reason"] == "too-old"
    large = await client.ask("uploadLogs", **line("x" * 300_000))
    assert large["error"]["code"] == "too-large"
    too_many = await client.ask("uploadLogs", logs=[line("x")] * 10_001)
    assert too_many["error"]["code"] == "too-large"
    assert await client.texts() == ["fine", "good"]


async def test_uploads_of_one_connection_are_answered_in_order_and_seen_by_its_next_query(
    logs: Logs,
) -> None:
    client = Client(logs)
    for number in range(200):
        await client.send("uploadLogs", id=number, **line(str(number)))
        if number % 50 == 10:
            await client.send("nonsense", id=number)
    await client.send("getLogs", limit=1000)
    assert len(client.answers[-1]["logs"]) == 200
    ids = [answer["id"] for answer in client.answers if "id" in answer]
    assert ids == sorted(ids)
    assert len(ids) == 204


async def test_many_connections_share_commits(logs: Logs, store: Store) -> None:
    transactions = 0
    transaction = store.transaction

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal transactions
        transactions += 1
        return await transaction(*args, **options)

    store.transaction = counted  # type: ignore[method-assign]
    clients = [Client(logs) for _ in range(300)]
    await asyncio.gather(*(client.send("uploadLogs", **line("x")) for client in clients))
    await asyncio.gather(*(client.session.answered() for client in clients))
    assert all(client.answers[0]["accepted"] == 1 for client in clients)
    assert transactions < 30
    assert len(await clients[0].texts()) == 300


async def test_notifications_are_kept_beyond_the_window_until_told_otherwise(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as logs:
        client = Client(logs)
        items = [line(f"n{age}", time=NOW - age) for age in (0, 1000, 10_000_000)]
        answer = await client.ask("uploadNotifications", notifications=items)
        assert answer["accepted"] == 3
        clock.now += 500
        await logs.retain()
        answer = await client.ask("getNotifications", contains="N1")
        assert [each["message"] for each in answer["notifications"]] == [
            "n1000",
            "n10000000",
        ]
        assert await client.texts() == []
        answer = await client.ask("getNotifications", timewindow=600)
        assert [each["message"] for each in answer["notifications"]] == ["n0"]
    async with running(store, clock, keep_notifications=2000) as logs:
        client = Client(logs)
        answer = await client.ask("getNotifications")
        assert [each["message"] for each in answer["notifications"]] == ["n0", "n1000"]
        await logs.retain()
        old = await client.ask("uploadNotifications", **line("old", time=NOW - 3000))
        assert old["error"]["code"] == "bad-request"
    async with running(store, clock) as logs:
        client = Client(logs)
        answer = await client.ask("getNotifications")
        assert [each["message"] for each in answer["notifications"]] == ["n0", "n1000"]


@pytest.mark.integration_test
async def test_a_database_that_is_away_is_said_and_comes_back(
    postgres_server: Any, postgres_url: str
) -> None:
    database = DatabaseSettings(url=postgres_url, connect_timeout=2)
    async with opened(database) as store, running(store, Clock()) as logs:
        client, follower = Client(logs), Client(logs)
        await follower.ask("followLogs")
        await client.upload("before")
        postgres_server.stop()
        try:
            refused = await client.upload("lost")
            assert refused["error"]["code"] == "unavailable"
            assert refused["error"]["retry_after"] > 0
            assert "postgres" not in json.dumps(refused)
            assert (await client.ask("getLogs"))["error"]["code"] == "unavailable"
            assert logs.state().health == "degraded"
        finally:
            # In this thread: the server ends with the thread that started it.
            postgres_server.start()

        async def stored() -> bool:
            return bool((await client.upload("after"))["status"] == "ok")

        async with asyncio.timeout(60):
            while not await stored():
                await asyncio.sleep(0.05)
        assert set(await client.texts()) == {"before", "after"}
        await logs.retain()
        assert logs.state().health == "ok"
        await until(lambda: "after" in follower.followed())


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(messages | json_values, max_size=12))
async def test_whatever_is_asked_is_answered_once_and_the_service_lives(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Any]
) -> None:
    file = str(tmp_path_factory.mktemp("fuzz") / "monitor.db")
    async with opened(DatabaseSettings(file=file)) as store, running(store, Clock()) as logs:
        client = Client(logs)
        for message in sent:
            data = json.dumps(message).encode("utf-8", "surrogatepass")
            await client.session.receive(data, client.principal)
        await client.session.answered()
        assert len(client.answers) == len(sent)
        for answer in client.answers:
            assert answer["status"] in ("ok", "error")
            if answer["status"] == "error":
                assert answer["error"]["code"] in (
                    "bad-request",
                    "unknown-action",
                    "too-large",
                )
                assert answer["error"]["message"]
        assert (await client.upload("alive"))["accepted"] == 1
        assert "alive" in await client.texts()


@pytest.mark.parametrize("kind", ["log_entry", "notification"])
async def test_an_upload_of_which_the_table_leaves_out_entries_is_not_answered_with_ok(
    logs: Logs, store: Store, kind: str
) -> None:
    def leave_out(connection: Connection) -> None:
        if connection.dialect == "sqlite":
            connection.execute(
                f"CREATE TRIGGER few BEFORE INSERT ON {kind} BEGIN SELECT RAISE(IGNORE); END"
            )
            return
        connection.execute(
            "CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN NULL; END $$;"
            f"CREATE TRIGGER few BEFORE INSERT ON {kind} FOR EACH ROW EXECUTE FUNCTION few()"
        )

    await store.transaction(leave_out)
    action = "uploadLogs" if kind == "log_entry" else "uploadNotifications"
    answer = await Client(logs).ask(action, **line("a"))
    assert answer["error"]["code"] == "unavailable"
    assert f"table {kind}: a trigger" in logs.state().summary


async def test_a_group_with_entries_that_the_database_refuses_sinks_only_theirs(
    logs: Logs,
    store: Store,
) -> None:
    transaction = store.transaction

    async def picky(function: Any, **options: Any) -> Any:
        def refusing(connection: Any) -> Any:
            done = function(connection)
            rows = connection.query("SELECT 1 FROM log_entry WHERE message = 'poison'")
            if rows:
                raise DataError("no such text here")
            return done

        return await transaction(refusing, **options)

    store.transaction = picky  # type: ignore[method-assign]
    clients = [Client(logs) for _ in range(9)]
    texts = ["poison" if number == 4 else f"good {number}" for number in range(9)]
    await asyncio.gather(
        *(c.send("uploadLogs", **line(t)) for c, t in zip(clients, texts, strict=True))
    )
    await asyncio.gather(*(client.session.answered() for client in clients))
    codes = [client.answers[0].get("error", {}).get("code") for client in clients]
    assert codes == [None] * 4 + ["bad-request"] + [None] * 4
    store.transaction = transaction  # type: ignore[method-assign]
    assert sorted(await clients[0].texts()) == sorted(set(texts) - {"poison"})


async def test_shuffled_uploads_are_all_there_and_in_order_of_time(logs: Logs) -> None:
    times = [NOW - 50 + number / 10 for number in range(500)]
    shuffled = random.Random(7).sample(times, len(times))
    clients = [Client(logs) for _ in range(10)]
    await asyncio.gather(
        *(
            client.send("uploadLogs", logs=[line(str(t), time=t) for t in shuffled[n::10]])
            for n, client in enumerate(clients)
        )
    )
    await asyncio.gather(*(client.session.answered() for client in clients))
    assert await clients[0].texts(limit=1000) == [str(t) for t in reversed(times)]
