from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import Any

import pytest

from monitor.errors import UnavailableError
from monitor.logs import instances
from monitor.logs.entries import Entry
from monitor.logs.filters import Kind
from monitor.logs.part import Logs
from monitor.logs.tables import AcceptedUpload, commit
from monitor.store import Connection, DatabaseSettings, open_store
from monitor.tokens import Principal, Role
from tests.logs.running import NOW, Client, Clock, line, running, two_instances, until
from tests.servers.cut import CutProxy
from tests.servers.postgres import PostgresServer, make_server
from tests.store.opened import opened


async def test_followers_get_what_matches_once_and_in_order(logs: Logs) -> None:
    everything, mine, severe, left = (Client(logs) for _ in range(4))
    sender = Client(logs)
    await sender.upload("before")
    await everything.ask("followLogs", id=1)
    await mine.ask("followLogs", sender="addon-2")
    await severe.ask("followLogs", min_level="error", contains="ODD")
    await left.ask("followLogs")
    await left.ask("unfollowLogs")
    for number in range(100):
        word = "odd" if number % 2 else "even"
        await sender.send(
            "uploadLogs",
            **line(
                f"{number} {word}",
                sender=f"addon-{number % 4}",
                level="error" if number % 3 == 0 else "info",
            ),
        )
    await sender.session.answered()
    await until(lambda: len(everything.followed()) == 100)
    numbers = range(100)
    words = {n: f"{n} {'odd' if n % 2 else 'even'}" for n in numbers}
    assert everything.followed() == list(words.values())
    await until(lambda: len(mine.followed()) == 25)
    assert mine.followed() == [words[n] for n in numbers if n % 4 == 2]
    assert severe.followed() == [words[n] for n in numbers if n % 3 == 0 and n % 2]
    assert left.live == []
    assert len(everything.live) < 100, "nothing was gathered"
    assert {message["action"] for message in everything.live} == {"log"}
    assert {message["dropped"] for message in everything.live} == {0}


async def test_following_anew_replaces_the_filter(scratch: DatabaseSettings) -> None:
    async with opened(scratch) as store, running(store, Clock()) as logs:
        client, sender = Client(logs), Client(logs)
        await client.ask("followLogs", sender="a")
        await client.ask("followLogs", sender="b")
        await sender.upload("for a", sender="a")
        await sender.upload("for b", sender="b")
        await until(client.followed)
        logs.service.tail.flush()
        assert client.followed() == ["for b"]
        client.session.close()
        assert len(logs.service.tail) == 0


async def test_a_slow_follower_is_told_how_many_it_missed(scratch: DatabaseSettings) -> None:
    async with opened(scratch) as store, running(store, Clock()) as logs:
        slow, quick, sender = Client(logs), Client(logs), Client(logs)
        await slow.ask("followLogs")
        await quick.ask("followLogs")
        slow.takes = False
        await sender.upload(*"abcde")
        await until(lambda: len(quick.followed()) == 5)
        slow.takes = True
        await sender.upload("f")
        await until(slow.live.__len__)
        assert [(m["dropped"], len(m["logs"])) for m in slow.live] == [(5, 1)]
        slow.takes = False
        await sender.upload("g")
        await until(lambda: len(quick.followed()) == 7)
        slow.takes = True
        # Nothing new comes, and it learns of it all the same.
        await until(lambda: len(slow.live) == 2)
        assert (slow.live[1]["dropped"], slow.live[1]["logs"]) == (1, [])


async def test_there_are_so_many_followers_and_no_more(scratch: DatabaseSettings) -> None:
    async with opened(scratch) as store, running(store, Clock(), max_followers=2) as logs:
        clients = [Client(logs) for _ in range(3)]
        answers = [await client.ask("followLogs") for client in clients]
        assert [answer["status"] for answer in answers] == ["ok", "ok", "error"]
        assert answers[2]["error"]["code"] == "unavailable"
        # Who follows already may follow something else.
        assert (await clients[0].ask("followLogs", sender="a"))["status"] == "ok"
        clients[0].session.close()
        assert (await clients[2].ask("followLogs"))["status"] == "ok"


async def test_one_tokens_followers_leave_room_for_other_tokens(scratch: DatabaseSettings) -> None:
    greedy, modest = Principal("greedy", Role.READER), Principal("modest", Role.READER)
    async with opened(scratch) as store, running(store, Clock(), max_followers=4) as logs:
        many = [Client(logs, greedy) for _ in range(5)]
        answers = [await client.ask("followLogs", id=n) for n, client in enumerate(many)]
        assert [answer["status"] for answer in answers] == [*["ok"] * 4, "error"]
        few = [Client(logs, modest) for _ in range(3)]
        got = [(await client.ask("followLogs"))["status"] for client in few]
        # Half of the room for each, and nobody takes what another one needs as much.
        assert got == ["ok", "ok", "error"]
        assert (await many[4].ask("followLogs"))["status"] == "error"
        assert [client.session.following for client in many] == [True, True, False, False, False]
        for number in (2, 3):
            told = many[number].answers[-1]
            assert (told["action"], told["id"]) == ("followLogs", number)
            assert told["error"]["code"] == "unavailable"


async def test_large_live_messages_are_split(scratch: DatabaseSettings) -> None:
    async with (
        opened(scratch) as store,
        running(store, Clock(), max_entries_per_second=10**6) as logs,
    ):
        client, sender = Client(logs), Client(logs)
        await client.ask("followLogs")
        await sender.ask("uploadLogs", logs=[line(str(n)) for n in range(5000)])
        await sender.ask("uploadLogs", logs=[line("x" * 200_000) for _ in range(5)])
        await until(lambda: len(client.followed()) == 5005)
        assert max(len(message["logs"]) for message in client.live) <= 1000
        assert max(sum(len(e["message"]) for e in m["logs"]) for m in client.live) <= 456_144


@pytest.mark.integration_test
async def test_an_instance_with_a_smaller_window_shows_nothing_older(postgres_url: str) -> None:
    async with two_instances(postgres_url, timewindows=(3600, 60)) as (here, there):
        follower, own, sender = Client(there), Client(here), Client(here)
        await follower.ask("followLogs")
        await own.ask("followLogs")
        await until(lambda: there._instances.listening)
        for age in (61, 60, 0):
            await sender.upload(f"-{age}", time=NOW - age)
        await until(lambda: len(own.followed()) == 3)
        await until(lambda: len(follower.followed()) == 2)
        assert follower.followed() == ["-60", "-0"]


@pytest.mark.integration_test
async def test_uploads_to_one_instance_are_followed_on_another_in_spite_of_commit_order(
    postgres_url: str,
) -> None:
    async with (
        opened(DatabaseSettings(url=postgres_url)) as other,
        two_instances(postgres_url) as (here, there),
    ):
        follower, own = Client(there), Client(here)
        await follower.ask("followLogs")
        await own.ask("followLogs")
        await until(lambda: here._instances.listening and there._instances.listening)
        senders = [Client(here), Client(there)]
        # A transaction that took its block long before the others, and commits after them.
        taken, go = threading.Event(), threading.Event()

        def slow(connection: Connection) -> None:
            upload = AcceptedUpload(Kind.LOGS, [Entry("info", NOW, "addon-9", "late")])
            commit(connection, [upload], received_at=NOW, width_s=60, instance="another")
            taken.set()
            go.wait(60)

        transaction = asyncio.create_task(other.transaction(slow))
        assert await asyncio.to_thread(taken.wait, 20)
        for number in range(50):
            for side, sender in enumerate(senders):
                await sender.send("uploadLogs", **line(f"{side} {number}"))
        for sender in senders:
            await sender.session.answered()
        go.set()
        await transaction
        expected = {f"{side} {number}" for side in (0, 1) for number in range(50)} | {"late"}
        await until(lambda: len(follower.followed()) >= 101 and len(own.followed()) >= 101)
        for client in (follower, own):
            assert sorted(client.followed()) == sorted(expected)


@pytest.mark.integration_test
async def test_what_another_instance_stored_while_the_listener_was_away_is_shown_once(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with two_instances(postgres_url) as (here, there):
        follower, sender = Client(there), Client(here)
        await follower.ask("followLogs")
        await until(lambda: there._instances.listening)
        await sender.upload("a")
        await until(lambda: follower.followed() == ["a"])
        # While its connection is cut again and again, entries keep coming.
        name = postgres_url.rpartition("/")[2]
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND query LIKE 'LISTEN%'"
        )
        for number in range(20):
            if number % 5 == 0:
                await asyncio.to_thread(postgres_server.execute, cut)
            assert (await sender.upload(str(number)))["status"] == "ok"
        expected = ["a", *map(str, range(20))]
        await until(lambda: len(follower.followed()) >= len(expected))
        assert sorted(follower.followed()) == sorted(expected)


@pytest.mark.integration_test
async def test_what_could_not_be_read_of_another_instance_is_read_later(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server has no connection left for a moment."""
    failed: list[str] = []

    def failing(name: str) -> None:
        read = getattr(instances, name)

        def once(*arguments: Any, **options: Any) -> Any:
            if name not in failed:
                failed.append(name)
                raise UnavailableError("database", "too many clients")
            return read(*arguments, **options)

        monkeypatch.setattr(instances, name, once)

    for name in ("last_block", "entries_of_block", "entries_since_block"):
        failing(name)
    database = DatabaseSettings(url=postgres_url)
    async with (
        opened(database) as one,
        opened(database) as two,
        running(one, Clock()) as here,
        running(two, Clock()) as there,
    ):
        follower, sender = Client(there), Client(here)
        await until(lambda: there._instances.listening)
        await follower.ask("followLogs")
        await sender.upload("a")
        await until(lambda: follower.followed() == ["a"])
        await sender.upload("b")
        await until(lambda: follower.followed() == ["a", "b"])
    assert failed == ["last_block", "entries_of_block", "entries_since_block"]


@pytest.mark.integration_test
async def test_entries_whose_commit_was_never_answered_are_followed_once(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with contextlib.closing(CutProxy(postgres_server.port)) as proxy:
        url = postgres_url.replace(str(postgres_server.port), str(proxy.port))
        async with (
            opened(DatabaseSettings(url=url)) as store,
            running(store, Clock()) as logs,
        ):
            follower, sender = Client(logs), Client(logs)
            await follower.ask("followLogs")
            await until(lambda: logs._instances.listening)
            upload = {"upload_id": "u-1", "logs": [line("cut off")]}
            proxy.swallow_answer_to = re.compile(rb"pg_notify.*COMMIT\0$", re.DOTALL)
            answer = await sender.ask("uploadLogs", **upload)
            assert answer["error"]["code"] == "unavailable"
            # The sender follows its script.
            assert (await sender.ask("uploadLogs", **upload))["accepted"] == 1
            await sender.upload("later")
            await until(lambda: len(follower.followed()) >= 2 and "later" in follower.followed())
            assert sorted(follower.followed()) == ["cut off", "later"]
            assert await sender.texts() == ["later", "cut off"]


@pytest.mark.integration_test
async def test_on_a_standby_a_follower_is_answered_that_nothing_would_arrive() -> None:
    primary = make_server({"fsync": "off", "shared_buffers": "32MB"})
    standby = None
    try:
        primary.start()
        name = primary.create_database()
        async with opened(DatabaseSettings(url=primary.url(name))):
            pass
        standby = primary.standby()
        standby.start()
        store = open_store(DatabaseSettings(url=standby.url(name)))
        async with running(store, Clock()) as logs:
            await until(lambda: store.deaf() is not None)
            answer = await Client(logs).ask("followLogs", id=3)
            assert (answer["status"], answer["id"]) == ("error", 3)
            assert answer["error"]["code"] == "unavailable"
            assert "a standby, in recovery" in answer["error"]["message"]
            await asyncio.to_thread(standby.promote)
            await until(lambda: store.deaf() is None)
            assert (await Client(logs).ask("followLogs"))["status"] == "ok"
        await store.close()
    finally:
        for server in (standby, primary):
            if server is not None:
                server.remove()
