"""After a clean stop each SQLite file is complete by itself, and nobody else may read it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.bus import BusSettings, create_bus
from monitor.sqlite.connection import settle, write_ahead
from monitor.store import Connection, DatabaseSettings, open_store
from tests.waiting import LIMIT_S

INSERT = (
    "INSERT INTO notification (level, time, sender, message, received_at)"
    " VALUES ('info', 1.0, 'a', %s, 1.0)"
)


@pytest.fixture(autouse=True)
def open_to_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


@pytest.mark.parametrize("attempt", range(8))
async def test_the_store_alone_is_complete_after_a_stop(tmp_path: Path, attempt: int) -> None:
    store = open_store(DatabaseSettings(file=str(tmp_path / "monitor.db")))
    await store.start()

    def write(connection: Connection) -> None:
        for _ in range(200):
            connection.execute(INSERT, ("m" * 100,))

    async def write_some() -> None:
        for _ in range(10 + attempt):
            await store.transaction(write)

    async def read_some() -> None:
        for _ in range(10):
            await store.read(lambda connection: connection.query("SELECT * FROM notification"))

    await asyncio.gather(write_some(), read_some(), read_some())
    assert set(modes(tmp_path).values()) == {0o640}
    await store.close()
    assert modes(tmp_path) == {"monitor.db": 0o640}
    (tmp_path / "monitor.db").rename(tmp_path / "copy.db")
    raw = sqlite3.connect(tmp_path / "copy.db")
    assert raw.execute("SELECT count(*) FROM notification").fetchone() == ((10 + attempt) * 200,)
    raw.close()


async def test_the_spool_alone_is_complete_after_a_stop(tmp_path: Path) -> None:
    bus = create_bus(BusSettings())
    await bus.start()
    consumer = bus.consumer("t", group="g")
    tickets = [bus.publish("t", value=b"x" * 1000, headers={}) for _ in range(500)]
    assert await bus.committed(*tickets, timeout_s=LIMIT_S)
    while not await consumer.poll():
        pass
    assert set(modes(tmp_path).values()) == {0o640}
    await asyncio.gather(consumer.close(), bus.close())
    assert {"spool.db-wal", "spool.db-shm"}.isdisjoint(modes(tmp_path))


def test_a_log_that_another_connection_still_uses_is_emptied_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a file?.db"
    raw = sqlite3.connect(path, isolation_level=None)
    write_ahead(raw, patience=LIMIT_S)
    raw.execute("CREATE TABLE t AS SELECT 1 AS one")
    settle(path, patience=LIMIT_S)
    assert Path(f"{path}-wal").stat().st_size == 0
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("INSERT INTO t VALUES (2)")
    settle(path, patience=0.01)
    raw.execute("COMMIT")
    raw.close()
    settle(path, patience=0.01)
    path.unlink()
    Path(f"{path}-wal").touch()
    settle(path, patience=0.01)
    assert not path.exists()
