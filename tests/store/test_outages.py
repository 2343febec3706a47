"""PostgreSQL that goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from monitor.errors import UnavailableError
from monitor.store import Connection, DatabaseSettings, Store, open_store
from tests.servers.cut import CutProxy
from tests.servers.postgres import PostgresServer, own_server
from tests.store.opened import opened

pytestmark = pytest.mark.integration_test


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with own_server() as server:
        yield server


def stop_job(connection: Connection, job: int) -> None:
    connection.execute("INSERT INTO job_state (job_id, stopped_at) VALUES (%s, 0)", (job,))


def jobs(connection: Connection) -> list[int]:
    return [job for (job,) in connection.query("SELECT job_id FROM job_state ORDER BY job_id")]


async def test_a_restart_between_transactions_is_not_noticed(server: PostgresServer) -> None:
    async with opened(DatabaseSettings(url=server.url(server.create_database()))) as store:
        # All four connections, each with a transaction that the others wait for.
        barrier = threading.Barrier(4)

        def together(connection: Connection, job: int) -> None:
            stop_job(connection, job)
            barrier.wait(60)

        await asyncio.gather(*(store.transaction(partial(together, job=job)) for job in range(4)))
        server.crash()
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
            await store.read(jobs)
        server.start()
        assert await store_answers(store) == [0, 1, 2, 3]


async def store_answers(store: Store) -> list[int]:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(UnavailableError):
                return await store.read(jobs)
            await asyncio.sleep(0.05)


async def test_a_crash_within_a_transaction_is_said_and_rolls_back(server: PostgresServer) -> None:
    async with opened(DatabaseSettings(url=server.url(server.create_database()))) as store:
        crashed = threading.Event()

        def interrupted(connection: Connection) -> None:
            stop_job(connection, 1)
            server.crash()
            crashed.set()
            stop_job(connection, 2)

        with pytest.raises(UnavailableError):
            await store.transaction(interrupted)
        assert crashed.is_set()
        server.start()
        assert await store_answers(store) == []


async def test_a_silent_server_is_given_up_in_time(server: PostgresServer) -> None:
    """A firewall that drops packets: connections stay open and nothing comes."""
    name = server.create_database()
    async with opened(DatabaseSettings(url=server.url(name))):
        pass
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/{name}"
        store = open_store(DatabaseSettings(url=url, connect_timeout=2))
        try:
            with pytest.raises(UnavailableError):
                await store.read(jobs, timeout=0.5)
        finally:
            await store.close()


async def test_a_connection_cut_off_in_a_statement_is_said_and_made_anew(
    server: PostgresServer,
) -> None:
    proxy = CutProxy()
    proxy.target = server.port
    name = server.create_database()
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
    try:
        async with opened(DatabaseSettings(url=url)) as store:

            def sleep(connection: Connection) -> None:
                stop_job(connection, 1)
                connection.query("SELECT pg_sleep(60)")

            running = asyncio.create_task(store.transaction(sleep))
            await asyncio.to_thread(_until_sleeping, server, name)
            proxy.cut()
            with pytest.raises(UnavailableError):
                await running
            proxy.mend()
            assert await store_answers(store) == []
    finally:
        proxy.close()


def _until_sleeping(server: PostgresServer, database: str) -> None:
    query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'"
    while not server.execute(f"{query} AND datname = '{database}' AND pid <> pg_backend_pid()"):
        pass


async def test_a_listener_hears_of_the_gap_and_goes_on(server: PostgresServer) -> None:
    settings = DatabaseSettings(url=server.url(server.create_database()))
    async with opened(settings) as store, contextlib.aclosing(store.listen("news")) as news:
        assert await anext(news) is None
        await store.transaction(lambda c: c.notify("news", "before"))
        assert await anext(news) == "before"
        server.crash()
        server.start()
        assert await asyncio.wait_for(anext(news), 60) is None
        await store_answers(store)
        await store.transaction(lambda c: c.notify("news", "after"))
        assert await anext(news) == "after"
