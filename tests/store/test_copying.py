"""A store that moves from SQLite to PostgreSQL, with rows in every table."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from monitor.errors import MonitorError
from monitor.store import Connection, DatabaseSettings, JsonText, TablesError, copying, open_store
from monitor.store.copying import copy_file, opened_alone
from tests.servers.postgres import PostgresServer
from tests.store.opened import opened
from tests.store.test_escapes import TEXTS
from tests.store.test_migrations import fill, tables
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test

RESULTS = 12_000
DAY = 86400


def fill_all(connection: Connection, booleans: Sequence[tuple[str, str]]) -> None:
    fill(connection)
    # SQLite calls them integers, for which fill() has another number.
    for table, column in booleans:
        connection.execute(f"UPDATE {table} SET {column} = 1")
    connection.insert(
        "availability_result",
        ("job_id", "scheduled_at", "checked_at", "url", "kind", "up", "error", "phases"),
        (
            (1 + n % 7, n * 33.25, n + 0.1, "a\tb\\c\n", "http", n % 2, None, '{"tls": 0.5}')
            for n in range(1, RESULTS)
        ),
    )
    connection.insert(
        "notification",
        ("id", "level", "time", "sender", "message", "received_at"),
        [(99, "info", 1.0, "a", "\N{SNOWMAN} \\N", 1.0)],
    )


def comparable(
    connection: Connection, columns: Mapping[str, Sequence[str]]
) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table, names in columns.items():
        chosen = ", ".join(
            'extract(epoch FROM "dt")::bigint'
            if name == "dt" and connection.dialect == "postgresql"
            else f'"{name}"'
            for name in names
        )
        rows = connection.query(f"SELECT {chosen} FROM {table}")
        found[table] = sorted((tuple(map(_plain, row)) for row in rows), key=repr)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview | bytes):
        return bytes(value)
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(json.loads(value), sort_keys=True)
    return int(value) if isinstance(value, bool) else value


def columns_of(connection: Connection) -> dict[str, list[str]]:
    return {table: [name for name, _ in columns] for table, columns in tables(connection).items()}


def begin(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    config = folder / "config.yml"
    config.write_text(json.dumps({"database": {"url": url}}))
    return subprocess.Popen(
        [sys.executable, "-m", "monitor", "configure-database", "-c", str(config), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STATE_DIRECTORY": str(folder)},
    )


def configure(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = begin(url, folder, *arguments)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


async def test_every_row_arrives_also_after_an_interruption_and_ids_continue(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "monitor.db"
    settings = DatabaseSettings(url=postgres_url)
    async with opened(settings) as store:
        booleans = await store.read(
            lambda c: c.query(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND data_type = 'boolean'"
            )
        )
    async with opened(DatabaseSettings(file=str(file))) as old:
        await old.transaction(lambda c: fill_all(c, booleans))
        columns = await old.read(columns_of)
        before = await old.read(lambda c: comparable(c, columns))
    widths = {"availability_result": DAY, "log_entry": 3600}
    write, calls = copying._write, 0

    def interrupted(
        connection: Connection,
        table: Any,
        rows: Sequence[tuple[Any, ...]],
        widths_s: Mapping[str, int],
    ) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise LookupError
        write(connection, table, rows, widths_s)

    async with opened(settings) as store:
        with monkeypatch.context() as patch:
            patch.setattr(copying, "_write", interrupted)
            with pytest.raises(LookupError), opened_alone(file) as source:
                await copy_file(source, store, widths_s=widths, said=print)
    # A daemon that starts meanwhile would count on what is not there yet.
    daemons = open_store(settings)
    with pytest.raises(TablesError, match=r"not complete; run: .* --copy-from FILE"):
        await daemons.read(lambda c: c.query("SELECT 1"))
    done = configure(postgres_url, tmp_path, "--copy-from", str(file))
    assert done.returncode == 0, done.stderr
    assert f"availability_result: {RESULTS} rows" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("every table has as many rows")
    await daemons.read(lambda c: c.query("SELECT 1"))
    await daemons.close()
    async with opened(settings) as store:
        assert await store.read(lambda c: comparable(c, columns)) == before
        insert = (
            "INSERT INTO notification (level, time, sender, message, received_at)"
            " VALUES ('info', 1, 'a', 'b', 1) RETURNING id"
        )
        assert await store.transaction(lambda c: c.query(insert)) == [(100,)]
    again = configure(postgres_url, tmp_path, "--copy-from", str(file))
    assert again.returncode == 1
    assert "it has rows already, in " in again.stderr
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_an_interruption_is_a_failure_and_messages_of_megabytes_go_in_small_transactions(
    tmp_path: Path, postgres_url: str, how: signal.Signals
) -> None:
    file = tmp_path / "monitor.db"
    columns = ("level", "time", "sender", "message", "received_at")
    rows = [("info", 1.0, "a", str(n) * 1_000_000, 1.0) for n in range(30)]
    async with opened(DatabaseSettings(file=str(file))) as old:
        await old.transaction(lambda c: c.insert("notification", columns, rows))
    async with opened(DatabaseSettings(url=postgres_url)):
        pass
    with contextlib.closing(psycopg2.connect(postgres_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE website_availability.notification IN SHARE MODE")
        process = begin(postgres_url, tmp_path, "--copy-from", str(file))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = "
        waiting += "'website_availability.notification'::regclass"
        with contextlib.closing(psycopg2.connect(postgres_url)) as third, third.cursor() as look:
            third.autocommit = True

            def waits() -> bool:
                look.execute(waiting)
                return bool(look.fetchall())

            wait_for(waits, "the copy waits")
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert (process.returncode, errors) == (1, "recodex-monitor: interrupted; run this again\n")
    assert configure(postgres_url, tmp_path, "--copy-from", str(file)).returncode == 0
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        ((count, transactions),) = await store.read(
            lambda c: c.query("SELECT count(*), count(DISTINCT xmin::text) FROM notification")
        )
    assert count == 30
    assert 3 <= transactions <= 6


async def test_text_arrives_in_a_database_that_lacks_its_characters(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    name = f"{postgres_server.create_database()}_latin1"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0")
    file, url = tmp_path / "monitor.db", postgres_server.url(name)
    texts = json.dumps({text: text for text in TEXTS}, ensure_ascii=False)
    columns = ("amc_id", "amc_name", "amc_url", "amc_options")
    rows = [(number, text, "http://a", JsonText(texts)) for number, text in enumerate(TEXTS)]
    async with opened(DatabaseSettings(file=str(file))) as old:
        await old.transaction(lambda c: c.insert("availability_monitor_config", columns, rows))
    async with opened(DatabaseSettings(url=url)) as store:
        with opened_alone(file) as source:
            # As no daemon stores it.
            source.execute(
                "INSERT INTO availability_monitor_config (amc_id, amc_name, amc_url)"
                " VALUES (99, 'a' || char(0), '')"
            )
            with pytest.raises(TablesError) as raised:
                await copy_file(source, store, widths_s={}, said=print)
            assert "cannot copy the row whose amc_id is 99: invalid byte" in str(raised.value)
            source.execute("DELETE FROM availability_monitor_config WHERE amc_id = 99")
            await copy_file(source, store, widths_s={}, said=print)
        found = await store.read(
            lambda c: c.query(
                "SELECT amc_name, amc_options FROM availability_monitor_config ORDER BY amc_id"
            )
        )
    assert [(text, json.loads(options)) for text, options in found] == [
        (text, json.loads(texts)) for text in TEXTS
    ]


@pytest.mark.parametrize("other", ["CREATE TABLE message (id)", None])
def test_another_file_is_refused_and_stays_as_it_is(tmp_path: Path, other: str | None) -> None:
    file = tmp_path / "spool.db"
    with contextlib.closing(sqlite3.connect(file)) as raw:
        raw.execute(other or "SELECT 1")
    before = file.read_bytes()
    with pytest.raises(MonitorError, match="does not have the daemon's tables"), opened_alone(file):
        pass
    assert file.read_bytes() == before


async def test_a_file_that_a_daemon_uses_is_refused(tmp_path: Path, postgres_url: str) -> None:
    file = tmp_path / "monitor.db"
    store = open_store(DatabaseSettings(file=str(file)))
    try:
        await store.start()
        done = configure(postgres_url, tmp_path, "--copy-from", str(file))
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"recodex-monitor: database {file}: it is in use; stop the daemon first"
        ]
    finally:
        await store.close()
    sqlite3.connect(file).close()
    assert configure(postgres_url, tmp_path, "--copy-from", str(tmp_path / "no.db")).returncode == 1
