"""Tables stay in their schema and values stay exact, whatever server, database or pooler sets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from operator import methodcaller
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from monitor.errors import UnavailableError
from monitor.store import (
    Connection,
    DatabaseSettings,
    Store,
    TablesError,
    migrate,
    open_store,
)
from tests.servers.pgbouncer import StartPooler
from tests.servers.postgres import PostgresServer
from tests.store.opened import opened
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.integration_test

# Settings that an administrator may give a database, each with what it would change.
SETTINGS = {
    "extra_float_digits": "0",
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "'iso_8601'",
    "TimeZone": "'Asia/Tokyo'",
    "bytea_output": "'escape'",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "default_transaction_isolation": "'serializable'",
    "search_path": "'public, pg_catalog'",
    "standard_conforming_strings": "off",
    "idle_session_timeout": "'2s'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "client_encoding": "'LATIN1'",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "synchronous_commit": "off",
}
FLOAT = 1700000000.1234567
TEXTS = ["\\", "\\'", "a\\\\b\\n", "'; --", "\\x00"]


def foreign_objects(server: PostgresServer, url: str) -> None:
    """Make what another program has in the schema public."""
    name = url.rpartition("/")[2]
    server.execute("CREATE TABLE public.customers (id int)", name)
    server.execute(
        "CREATE FUNCTION public.other() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        name,
    )


def objects(server: PostgresServer, url: str, schema: str) -> set[str]:
    rows = server.execute(
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
        f" AND relkind IN ('r', 'p') AND NOT relispartition UNION ALL SELECT proname FROM pg_proc"
        f" WHERE pronamespace = '{schema}'::regnamespace",
        url.rpartition("/")[2],
    )
    return {str(name) for (name,) in rows}


async def test_a_pooler_that_drops_startup_parameters_changes_no_schema(
    postgres_server: PostgresServer, postgres_url: str, start_pooler: StartPooler
) -> None:
    foreign_objects(postgres_server, postgres_url)
    settings = DatabaseSettings(url=start_pooler(postgres_url))
    async with opened(settings) as store:
        assert "log_entry" in objects(postgres_server, postgres_url, settings.schema)
        assert objects(postgres_server, postgres_url, "public") == {"customers", "other"}
        await store.reset()
        assert await store.read(float_of) == FLOAT
    assert objects(postgres_server, postgres_url, "public") == {"customers", "other"}


async def test_a_reset_drops_only_what_is_ours_from_a_schema_that_others_use(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    foreign_objects(postgres_server, postgres_url)
    async with opened(DatabaseSettings(url=postgres_url, schema="public")) as store:
        await store.reset()
        found = objects(postgres_server, postgres_url, "public")
        assert {"customers", "other", "log_entry", "counts_add"} <= found


async def test_a_reset_spares_a_view_that_needs_a_table_and_names_it(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        postgres_server.execute(
            "CREATE VIEW public.lines AS SELECT * FROM website_availability.log_entry",
            postgres_url.rpartition("/")[2],
        )
        with pytest.raises(TablesError, match=r"view public.lines depends on table"):
            await store.reset()
        await store.read(lambda c: c.query("SELECT * FROM log_entry, public.lines"))


async def test_a_role_that_may_not_use_the_schema_is_told_so(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    async with opened(DatabaseSettings(url=postgres_url)):
        postgres_server.execute(f"CREATE ROLE guest_{name} LOGIN")
    store = open_store(DatabaseSettings(url=postgres_server.url(name, f"guest_{name}")))
    try:
        with pytest.raises(TablesError, match=r"cannot use the schema website_.*: grant USAGE"):
            await store.read(float_of)
    finally:
        await store.close()


@pytest.mark.parametrize(
    "change",
    [
        "REVOKE ALL ON notification FROM {role}",
        "REVOKE ALL ON SEQUENCE notification_id_seq FROM {role};"
        " INSERT INTO notification OVERRIDING SYSTEM VALUE VALUES (7, 'info', 1, 'a', 'b', 1)",
        "LOCK TABLE notification",
    ],
)
async def test_tables_that_a_transaction_does_not_use_may_be_denied_or_locked(
    postgres_server: PostgresServer, postgres_url: str, change: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    role = f"daemon_{name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    postgres_server.execute(f"GRANT CREATE ON DATABASE {name} TO {role}")
    database = DatabaseSettings(url=postgres_server.url(name, role))
    async with opened(database):
        pass
    store = open_store(database)
    with contextlib.closing(psycopg2.connect(postgres_url)) as other:
        with other.cursor() as cursor:
            cursor.execute(f"SET search_path = website_availability; {change.format(role=role)}")
        if "LOCK" not in change:
            other.commit()
        try:
            # In a new session, which looks at all sequences.
            stop = "INSERT INTO job_state VALUES (1, 2)"
            assert await store.transaction(lambda c: c.execute(stop)) == 1
        finally:
            await store.close()


async def test_each_column_of_another_type_is_named_and_spares_the_other_tables(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.store.columns._FRESH_S", 0.0)
    name, schema = postgres_url.rpartition("/")[2], "SET search_path = website_availability"
    found = postgres_server.execute
    expected = migrate.columns(migrate.load())
    async with opened(DatabaseSettings(url=postgres_url, connections=1)) as store:
        rows = found(
            "SELECT table_name, column_name, data_type FROM information_schema.columns c"
            " JOIN pg_class ON relname = table_name AND NOT relispartition"
            " WHERE table_schema = 'website_availability' AND table_name <> 'schema_migration'",
            name,
        )
        assert expected == {(table, column): kind for table, column, kind in rows}
        for (table, column), kind in expected.items():
            other = "numeric" if kind in ("text", "jsonb") else "text"
            found(
                f'{schema}; ALTER TABLE {table} RENAME "{column}" TO kept;'
                f'ALTER TABLE {table} ADD "{column}" {other}',
                name,
            )
            said = f"table {table}: the column {column} is {other}, not {kind}"
            look = methodcaller("query", f"SELECT 1 FROM {table}")
            with pytest.raises(TablesError, match=said):
                await store.read(look)
            assert await store.read(float_of) == FLOAT
            found(
                f'{schema}; ALTER TABLE {table} DROP "{column}";'
                f'ALTER TABLE {table} RENAME kept TO "{column}"',
                name,
            )
            await store.read(look)


def float_of(connection: Connection) -> Any:
    ((found,),) = connection.query("SELECT %s::double precision", (FLOAT,))
    return found


async def read_back(store: Store) -> None:
    row = (7, 1700000000.1234567, math.nextafter(1.0, 2.0))

    def write(connection: Connection) -> None:
        connection.query("SELECT pg_sleep(0.01)")
        connection.execute(
            "INSERT INTO job_state (job_id, stopped_at) VALUES (%s, %s)", (row[0], row[1])
        )

    await store.transaction(write)
    found = await store.read(
        lambda c: c.query(
            "SELECT job_id, stopped_at, %s::double precision, current_setting('TimeZone'),"
            " current_schema(), current_setting('transaction_isolation'),"
            " current_setting('synchronous_commit') FROM job_state",
            (row[2],),
        )
    )
    texts = "SELECT %s, %s, %s, %s, %s, %s::bytea"
    for run in (store.read, store.transaction):
        ((*read, raw),) = await run(lambda c: c.query(texts, (*TEXTS, b"\\\xff\0'")))
        assert (read, bytes(raw)) == (TEXTS, b"\\\xff\0'")
    assert found == [(*row, "UTC", "website_availability", "repeatable read", "local")]


@pytest.mark.parametrize("pooled", [False, True])
async def test_what_a_database_sets_for_its_sessions_changes_nothing(
    postgres_server: PostgresServer, postgres_url: str, start_pooler: StartPooler, pooled: bool
) -> None:
    name = postgres_url.rpartition("/")[2]
    for setting, value in SETTINGS.items():
        postgres_server.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
    # Nor what an earlier client left, if the pooler does not forget it.
    url = start_pooler(postgres_url, server_reset_query="") if pooled else postgres_url
    for _ in range(2):
        async with opened(DatabaseSettings(url=url, connections=1)) as store:
            await read_back(store)
            await store.transaction(lambda c: c.execute("DELETE FROM job_state"))
            listening = store.listen("tests")
            assert await anext(listening) is None
            await listening.aclose()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_mixes_up_sessions_is_refused_until_it_does_not(
    postgres_url: str, start_pooler: StartPooler, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(DatabaseSettings(url=postgres_url)):
        pass
    store = open_store(DatabaseSettings(url=start_pooler(postgres_url, pool_mode=mode)))
    await store.start()

    def sleep(connection: Connection) -> None:
        connection.query("SELECT pg_sleep(0.02)")
        connection.query("SELECT 1 FROM job_state")

    async def problems() -> set[str]:
        found = await asyncio.gather(*(store.read(sleep) for _ in range(6)), return_exceptions=True)
        assert all(isinstance(each, UnavailableError | None) for each in found), found
        return {each.problem for each in found if isinstance(each, UnavailableError)}

    with caplog.at_level(logging.INFO, "monitor.store"):
        async with asyncio.timeout(LIMIT_S):
            # By chance, each client may have the same connection for a while.
            while not (refused := await problems()):
                pass
            for _ in range(10):
                refused |= await problems()
            start_pooler.reload(f"pool_mode = {mode}", "pool_mode = session")
            while await problems():
                await asyncio.sleep(0.1)
        for _ in range(10):
            assert not await problems()
    await store.close()
    (said,) = refused
    assert "(PgBouncer: pool_mode = session)" in said
    # By chance, two clients may look as if they had connections of their own.
    lines = [message.partition(": ")[2] for message in caplog.messages]
    assert len(lines) <= 6
    assert lines == [f"{said}; trying again", "available again"] * (len(lines) // 2)


async def test_a_server_that_waits_for_its_standbys_still_does(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        shown = await store.read(lambda c: c.query("SHOW synchronous_commit"))
    assert shown == [("remote_apply",)]


async def test_a_read_only_session_is_not_kept_and_said_once(
    postgres_server: PostgresServer,
    postgres_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.store.postgres_connecting._SETTLE_S", 0.0)
    name = postgres_url.rpartition("/")[2]
    stop = "INSERT INTO job_state (job_id, stopped_at) VALUES (1, 1)"
    async with opened(DatabaseSettings(url=postgres_url, connections=1)):
        pass
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = open_store(DatabaseSettings(url=postgres_url, connections=1))
    await store.start()
    try:
        for statement in (stop, "DELETE FROM job_state", "CREATE TABLE a ()"):
            with pytest.raises(UnavailableError, match="a standby, or read-only"):
                await store.transaction(lambda c, s=statement: c.execute(s))  # type: ignore[misc]
        assert len(caplog.messages) == 1, caplog.messages
        # As after a failover: the same address, another server behind it.
        postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert await store.transaction(lambda c: c.execute(stop)) == 1
    finally:
        await store.close()


async def test_what_is_mended_for_new_sessions_reaches_one_in_which_something_failed(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.store.postgres._KEEP_FAILED_S", 0.0)
    name = postgres_url.rpartition("/")[2]
    async with opened(DatabaseSettings(url=postgres_url, connections=1)):
        pass
    postgres_server.execute(f"CREATE ROLE clerk_{name}")
    postgres_server.execute(f"ALTER DATABASE {name} SET role = clerk_{name}")
    store = open_store(DatabaseSettings(url=postgres_url, connections=1))
    try:
        with pytest.raises(TablesError, match="grant USAGE"):
            await store.read(float_of)
        postgres_server.execute(f"ALTER DATABASE {name} RESET role")
        assert await store.read(float_of) == FLOAT
    finally:
        await store.close()


async def test_a_rotated_password_is_read_at_the_next_connection(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first")
    settings = DatabaseSettings(url=postgres_url, password_file=str(file), connections=1)
    used: list[Any] = []
    connect = psycopg2.connect

    def note(*arguments: Any, **keywords: Any) -> Any:
        used.append(keywords.get("password"))
        return connect(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg2, "connect", note)
        async with opened(settings) as store:
            file.write_text("second")
            postgres_server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'recodex-monitor'"
            )
            with contextlib.suppress(UnavailableError):
                # The server may end the connection only now.
                await store.read(float_of)
            await store.read(float_of)
    assert (used[0], used[-1]) == ("first", "second")
