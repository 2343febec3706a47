"""A standby that is promoted, an address that moves, several hosts, few connections, locks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from monitor.errors import UnavailableError
from monitor.store import Connection, DatabaseSettings, LoginError, Store, open_store, silence
from monitor.store.sequences import advance
from tests.servers.cut import CutProxy
from tests.servers.pgbouncer import StartPooler
from tests.servers.postgres import PostgresServer, own_server
from tests.store.opened import opened
from tests.waiting import until

pytestmark = pytest.mark.integration_test

LIMIT_S = 60


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    server = primary.standby()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def address(primary: PostgresServer) -> Iterator[CutProxy]:
    proxy = CutProxy(primary.port)
    yield proxy
    proxy.close()


def stop_job(connection: Connection, job: int = 1) -> int:
    return connection.execute(
        "INSERT INTO job_state (job_id, stopped_at) VALUES (%s, 0) ON CONFLICT (job_id) DO NOTHING",
        (job,),
    )


def jobs(connection: Connection) -> list[int]:
    return [job for (job,) in connection.query("SELECT job_id FROM job_state ORDER BY job_id")]


async def writes(store: Store, job: int = 1) -> None:
    """Wait until the store takes writes."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(UnavailableError):
                await store.transaction(lambda c: stop_job(c, job))
                return
            await asyncio.sleep(0.05)


def replayed(standby: PostgresServer, name: str) -> bool:
    with contextlib.suppress(Exception):
        return bool(standby.execute("SELECT 1 FROM website_availability.schema_migration", name))
    return False


async def reporting(settings: DatabaseSettings) -> Store:
    store = open_store(settings)
    await store.start()
    return store


async def test_an_address_that_moves_from_a_standby_to_the_primary_is_followed_by_all_connections(
    primary: PostgresServer,
    standby: PostgresServer,
    address: CutProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))):
        pass
    await until(lambda: replayed(standby, name), limit_s=LIMIT_S)
    address.target = standby.port
    caplog.set_level(logging.INFO, "monitor.store")
    store = await reporting(
        DatabaseSettings(url=f"postgresql://postgres@127.0.0.1:{address.port}/{name}")
    )
    try:
        barrier = threading.Barrier(4)

        def together(connection: Connection) -> None:
            jobs(connection)
            barrier.wait(60)

        await asyncio.gather(*(store.read(together) for _ in range(4)))
        for _ in range(5):
            with pytest.raises(UnavailableError, match="a standby, in recovery"):
                await store.transaction(stop_job)
        address.target = primary.port
        with contextlib.suppress(UnavailableError):
            await store.transaction(stop_job)
        # One failure at most: no other connection is still to the standby.
        await asyncio.gather(*(store.transaction(lambda c, n=n: stop_job(c, n)) for n in range(8)))  # type: ignore[misc]
    finally:
        await store.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert "a standby, in recovery, which takes no writes" in lines[0]
    assert lines[1].endswith("accepts writes again")


async def test_listening_on_a_standby_costs_one_line_and_goes_on_once_it_is_promoted(
    primary: PostgresServer, standby: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))):
        pass
    await until(lambda: replayed(standby, name), limit_s=LIMIT_S)
    caplog.set_level(logging.INFO, "monitor.store")
    store = await reporting(DatabaseSettings(url=standby.url(name)))
    try:
        async with contextlib.aclosing(store.listen("news")) as news:
            first = asyncio.create_task(anext(news))
            await until(lambda: store.deaf() is not None, limit_s=LIMIT_S)
            assert "a standby" in str(store.deaf())
            assert not first.done()
            await asyncio.to_thread(standby.promote)
            assert await asyncio.wait_for(first, LIMIT_S) is None
            assert store.deaf() is None
            await writes(store)
            await store.transaction(lambda c: c.notify("news", "heard"))
            assert await asyncio.wait_for(anext(news), LIMIT_S) == "heard"
    finally:
        await store.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert "a standby, in recovery" in lines[0]


async def test_of_several_hosts_the_one_that_takes_writes_is_used_and_else_one_to_read_from(
    primary: PostgresServer, standby: PostgresServer, address: CutProxy
) -> None:
    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))) as store:
        await store.transaction(stop_job)
    await until(
        lambda: bool(
            replayed(standby, name)
            and standby.execute("SELECT 1 FROM website_availability.job_state", name)
        ),
        limit_s=LIMIT_S,
    )
    url = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{address.port}/{name}"
    store = open_store(DatabaseSettings(url=url))
    try:
        assert await store.transaction(lambda c: stop_job(c, 2)) == 1
        address.cut()
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(UnavailableError):
                    assert 1 in await store.read(jobs)
                    break
        await asyncio.to_thread(standby.promote)
        await writes(store, 3)
    finally:
        await store.close()


async def test_of_several_hosts_one_that_hangs_is_given_up_for_one_that_was_promoted(
    primary: PostgresServer,
    standby: PostgresServer,
    address: CutProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(silence, "_PATIENCE_S", 0.1)
    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))):
        pass
    await until(lambda: replayed(standby, name), limit_s=LIMIT_S)
    caplog.set_level(logging.INFO, "monitor.store")
    url = f"postgresql://postgres@127.0.0.1:{address.port},127.0.0.1:{standby.port}/{name}"
    store = await reporting(DatabaseSettings(url=url, connect_timeout=2))
    try:
        await writes(store)
        address.freeze()
        await asyncio.to_thread(standby.promote)
        with pytest.raises(UnavailableError, match="no answer"):
            await asyncio.wait_for(store.transaction(stop_job, timeout=10 * LIMIT_S), LIMIT_S)
        await writes(store, 3)
        # The next connection does not wait for the one that hangs.
        connector = store._connector  # type: ignore[attr-defined]
        assert connector._places()[0] == ("127.0.0.1", str(standby.port))
    finally:
        await store.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert lines[1].endswith(": available again")


async def test_with_few_connections_left_work_goes_to_the_threads_that_have_one(
    primary: PostgresServer,
) -> None:
    name = primary.create_database()
    primary.execute(f"CREATE ROLE few_{name} LOGIN CONNECTION LIMIT 1")
    primary.execute(f"GRANT ALL ON DATABASE {name} TO few_{name}")
    async with opened(DatabaseSettings(url=primary.url(name, f"few_{name}"))) as store:

        def slow(connection: Connection, job: int) -> None:
            stop_job(connection, job)
            connection.query("SELECT pg_sleep(0.02)")

        await asyncio.gather(*(store.transaction(lambda c, n=n: slow(c, n)) for n in range(80)))  # type: ignore[misc]
        assert await store.read(jobs) == list(range(80))


async def test_without_a_connection_to_listen_a_process_hears_itself(
    primary: PostgresServer,
) -> None:
    name = primary.create_database()
    primary.execute(f"CREATE ROLE deaf_{name} LOGIN CONNECTION LIMIT 1")
    primary.execute(f"GRANT ALL ON DATABASE {name} TO deaf_{name}")
    settings = DatabaseSettings(url=primary.url(name, f"deaf_{name}"), connections=1)
    async with opened(settings) as store:
        heard: list[str | None] = []

        async def listen() -> None:
            async with contextlib.aclosing(store.listen("jobs")) as payloads:
                async for payload in payloads:
                    heard.append(payload)  # noqa: PERF401 - while it waits

        listening = asyncio.create_task(listen())
        await until(store.deaf)
        await store.transaction(lambda c: c.notify("jobs", "saved"))
        with pytest.raises(ZeroDivisionError):
            await store.transaction(lambda c: (c.notify("jobs", "no"), 1 / 0))
        await store.transaction(lambda c: c.notify("jobs", "changed"))
        await until(lambda: len(heard) == 2)
        # Once it is heard, it is heard once.
        primary.execute(f"ALTER ROLE deaf_{name} CONNECTION LIMIT 2")
        await until(lambda: None in heard)
        await store.transaction(lambda c: c.notify("jobs", "heard"))
        await until(lambda: "heard" in heard)
        assert heard == ["saved", "changed", None, "heard"]
        listening.cancel()


async def test_a_pooler_with_one_connection_serves_all(
    primary: PostgresServer, start_pooler: StartPooler
) -> None:
    url = start_pooler(primary.url(primary.create_database()), default_pool_size=1)
    async with opened(DatabaseSettings(url=url, connect_timeout=2)) as store:
        await asyncio.gather(*(store.transaction(lambda c, n=n: stop_job(c, n)) for n in range(80)))  # type: ignore[misc]
        assert await store.read(jobs) == list(range(80))


async def test_a_restart_costs_one_line_when_it_begins_and_one_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with own_server() as server:
        settings = DatabaseSettings(url=server.url(server.create_database()))
        async with opened(settings):
            pass
        caplog.set_level(logging.INFO, "monitor.store")
        store = await reporting(settings)
        try:
            async with contextlib.aclosing(store.listen("news")) as news:
                assert await anext(news) is None
                await writes(store)
                server.stop()
                for _ in range(20):
                    with contextlib.suppress(UnavailableError):
                        await store.transaction(stop_job)
                    await asyncio.sleep(0.05)  # while it is down
                server.start()
                await writes(store, 2)
                assert await asyncio.wait_for(anext(news), LIMIT_S) is None
        finally:
            await store.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert lines[0].endswith("; trying again")
    assert lines[1].endswith(": available again")


async def test_a_server_that_takes_connections_and_never_answers_costs_one_line_and_no_long_wait(
    primary: PostgresServer, address: CutProxy, caplog: pytest.LogCaptureFixture
) -> None:
    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))):
        pass
    caplog.set_level(logging.INFO, "monitor.store")
    url = f"postgresql://postgres@127.0.0.1:{address.port}/{name}"
    store = await reporting(DatabaseSettings(url=url, connect_timeout=2))
    try:
        async with contextlib.aclosing(store.listen("news")) as news:
            assert await anext(news) is None
            await writes(store)
            address.freeze()
            long = asyncio.create_task(store.transaction(stop_job, timeout=10 * LIMIT_S))
            short = [store.transaction(stop_job, timeout=0.1) for _ in range(8)]
            errors = await asyncio.gather(*short, return_exceptions=True)
            # Nobody waits for an answer that the server gives nobody.
            errors += await asyncio.wait_for(asyncio.gather(long, return_exceptions=True), LIMIT_S)
            assert all(isinstance(each, UnavailableError) and each.logged for each in errors)
            address.mend()
            await writes(store, 2)
    finally:
        await store.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert "no answer in 2 s" in lines[0] or "timeout expired" in lines[0]
    assert lines[1].endswith(": available again")


async def test_a_transaction_alone_on_a_server_that_hangs_is_given_up_long_before_its_time(
    primary: PostgresServer,
    address: CutProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(silence, "_PATIENCE_S", 0.1)
    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))):
        pass
    caplog.set_level(logging.INFO, "monitor.store")
    url = f"postgresql://postgres@127.0.0.1:{address.port}/{name}"
    store = await reporting(DatabaseSettings(url=url, connect_timeout=2))
    try:
        await writes(store)
        address.freeze()
        with pytest.raises(UnavailableError, match="no answer") as caught:
            await asyncio.wait_for(store.transaction(stop_job, timeout=10 * LIMIT_S), LIMIT_S)
        assert caught.value.logged
        address.mend()
        await writes(store, 2)
        # One that only takes long on a server that answers is left alone.
        await store.transaction(lambda c: c.query("SELECT pg_sleep(0.5)"))
    finally:
        await store.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert lines[1].endswith(": available again")


async def test_a_slow_statement_on_a_server_that_answers_others_is_no_outage(
    primary: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = await reporting(DatabaseSettings(url=primary.url(primary.create_database())))
    try:
        await store.migrate()
        caplog.set_level(logging.INFO, "monitor.store")
        sleeping = [
            store.read(lambda c: c.query("SELECT pg_sleep(60)"), timeout=0.5) for _ in range(8)
        ]
        errors = await asyncio.gather(*sleeping, return_exceptions=True)
        assert all(isinstance(each, UnavailableError) and not each.logged for each in errors)
        await writes(store)
    finally:
        await store.close()
    assert not caplog.records


async def refuses_login(url: str, said: str) -> None:
    """Require that a command ends with 78, as for a bad config."""
    store = open_store(DatabaseSettings(url=url))
    try:
        with pytest.raises(LoginError, match=said) as caught:
            await store.migrate()
        assert caught.value.exit_status == 78
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url + "_missing", r'database ".*_missing" does not exist'),
        (lambda url: url.replace("postgres@", "nobody@"), 'role "nobody" does not exist'),
    ],
)
async def test_a_login_that_is_refused_is_bad_config_for_a_command(
    primary: PostgresServer, change: Any, said: str
) -> None:
    await refuses_login(change(primary.url(primary.create_database())), said)


async def test_a_login_that_a_pooler_refuses_is_bad_config_for_a_command(
    primary: PostgresServer, start_pooler: StartPooler
) -> None:
    known, unknown = primary.create_database(), primary.create_database()
    url = start_pooler(primary.url(known), admin_users="postgres")
    # At a reload it would keep its fallback for databases that are not listed.
    start_pooler.reload("* = host", f"{known} = host")
    start_pooler.stop()
    start_pooler.start_again()
    console = psycopg2.connect(url.replace(known, "pgbouncer"))
    console.autocommit = True
    with contextlib.closing(console), console.cursor() as cursor:
        cursor.execute(f"DISABLE {known}")
    for name, said in ((unknown, "no such database|config error"), (known, "is disabled")):
        await refuses_login(url.replace(known, name), said)


async def test_a_lock_wait_is_called_that_with_the_program_that_holds_the_lock(
    primary: PostgresServer,
) -> None:
    import psycopg2

    name = primary.create_database()
    async with opened(DatabaseSettings(url=primary.url(name))) as store:
        other = psycopg2.connect(primary.url(name), application_name="upgrade")
        with contextlib.closing(other), other.cursor() as cursor:
            cursor.execute("LOCK TABLE website_availability.job_state")
            begun = time.monotonic()
            with pytest.raises(UnavailableError, match="waited too long for a lock") as caught:
                await store.transaction(stop_job, timeout=5)
            assert time.monotonic() - begun < LIMIT_S
            assert "(upgrade) holds AccessExclusiveLock on job_state" in str(caught.value)
            with pytest.raises(UnavailableError) as caught:
                await store.transaction(lambda c: c.query("SELECT pg_sleep(60)"), timeout=0.3)
            assert "abnormally" not in str(caught.value)


async def test_sequences_are_left_alone_while_others_insert(primary: PostgresServer) -> None:
    name = primary.create_database()
    insert = (
        "INSERT INTO website_availability.notification (level, time, sender, message, received_at)"
        " VALUES ('info', 1, 'a', 'b', 1)"
    )

    def busy(connection: Connection) -> list[str]:
        query = connection.query

        def slowly(sql: str, *values: Any) -> list[Any]:
            rows = query(sql, *values)
            primary.execute(insert, name)
            return rows

        connection.query = slowly  # type: ignore[assignment, method-assign]
        return advance(connection)

    async with opened(DatabaseSettings(url=primary.url(name))) as store:
        assert await store.transaction(busy) == []


async def test_sequences_that_start_over_after_a_switch_over_are_moved_behind_the_rows(
    primary: PostgresServer,
) -> None:
    name = primary.create_database()
    # One connection: a second one would look at the sequences when it is made.
    settings = DatabaseSettings(url=primary.url(name), connections=1)

    def notify(connection: Connection) -> list[Any]:
        return connection.query(
            "INSERT INTO notification (level, time, sender, message, received_at)"
            " VALUES ('info', 1, 'a', 'b', 1) RETURNING id"
        )

    async with opened(settings) as store:
        assert [await store.transaction(notify) for _ in range(3)] == [[(1,)], [(2,)], [(3,)]]
        # As logical replication leaves them: rows, and sequences at their start.
        primary.execute("ALTER SEQUENCE website_availability.notification_id_seq RESTART", name)
        primary.execute(
            "SELECT setval('website_availability.log_entry_block', 1, false);"
            " CREATE TABLE website_availability.log_entry_all PARTITION OF"
            " website_availability.log_entry DEFAULT;"
            " INSERT INTO website_availability.log_entry VALUES"
            f" ({7 << 16}, 'info', 1, 'a', 'b', 1)",
            name,
        )
    async with opened(settings) as store:
        assert await store.transaction(notify) == [(4,)]
        assert await store.transaction(lambda c: c.query("SELECT nextval('log_entry_block')")) == [
            (8,)
        ]
    # Also without a new connection, after the first collision.
    async with opened(settings) as store:
        await store.transaction(notify)
        primary.execute("ALTER SEQUENCE website_availability.notification_id_seq RESTART", name)
        with pytest.raises(Exception, match="duplicate key"):
            await store.transaction(notify)
        assert await store.transaction(notify) == [(6,)]
