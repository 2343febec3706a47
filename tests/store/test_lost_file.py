"""The embedded store's file deleted, moved and replaced while the store is open."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import MonitorError, UnavailableError
from monitor.store import Connection, DatabaseSettings, Store
from monitor.store.sqlite import SqliteConnection
from tests.store.opened import opened


def notify(connection: Connection, text: str) -> None:
    connection.insert(
        "notification",
        ("level", "time", "sender", "message", "received_at"),
        [(20, 1.0, "s", text, 1.0)],
    )


def messages(connection: Connection) -> list[str]:
    return [text for (text,) in connection.query("SELECT message FROM notification ORDER BY id")]


async def put(store: Store, text: str) -> None:
    await store.transaction(lambda connection: notify(connection, text))


def stored(file: Path) -> list[str]:
    """Return what is in the file as another process finds it."""
    raw = sqlite3.connect(file)
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [text for (text,) in raw.execute("SELECT message FROM notification ORDER BY id")]
    finally:
        raw.close()


def delete(file: Path, what: str = "*") -> None:
    for each in file.parent.glob(f"{file.name}{what}"):
        each.unlink()


def put_aside(file: Path) -> Path:
    return file.rename(file.with_name("aside"))


def run(tmp_path: Path, test: Callable[[Store, Path], Awaitable[None]]) -> None:
    async def main() -> None:
        file = tmp_path / "state" / "monitor.db"
        file.parent.mkdir()
        async with opened(DatabaseSettings(file=str(file))) as store, asyncio.timeout(60):
            await test(store, file)

    asyncio.run(main(), debug=True)


async def read_with_both(store: Store) -> list[list[str]]:
    """Read in both threads at once: each waits for the other to have begun."""
    both = threading.Barrier(2, timeout=20)

    def read(connection: Connection) -> list[str]:
        both.wait()
        return messages(connection)

    return list(await asyncio.gather(store.read(read), store.read(read)))


@pytest.mark.parametrize("what", ["", "-wal", "-shm", "*"])
def test_a_commit_into_a_deleted_file_is_no_commit(tmp_path: Path, what: str) -> None:
    async def test(store: Store, file: Path) -> None:
        await put(store, "before")

        def delete_in_between(connection: Connection) -> None:
            notify(connection, "lost")
            delete(file, what)

        with pytest.raises(UnavailableError, match="was deleted or replaced while in use"):
            await store.transaction(delete_in_between)
        await put(store, "after")
        assert stored(file)[-1] == "after"

    run(tmp_path, test)


def test_writer_and_readers_follow_to_the_new_file_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(store: Store, file: Path) -> None:
        for number in range(3):
            await put(store, "old")
            assert await read_with_both(store) == [["old"], ["old"]]
            caplog.clear()
            delete(file)
            if number == 1:
                # Readers can't make the tables in what they come to first, and do.
                assert await read_with_both(store) == [[], []]
            else:
                await put(store, "new")
                assert await read_with_both(store) == [["new"], ["new"]]
            assert [text for text in caplog.messages if "deleted or replaced" in text] == [
                f"{file} was deleted or replaced while in use: what it held is gone"
            ]
            delete(file)

    with caplog.at_level(logging.INFO):
        run(tmp_path, test)


def test_a_backup_put_back_under_the_running_store_is_used(tmp_path: Path) -> None:
    async def test(store: Store, file: Path) -> None:
        await put(store, "in the backup")
        backup = file.with_name("backup.db")
        source, target = sqlite3.connect(file), sqlite3.connect(backup)
        source.backup(target)
        source.close()
        target.execute("PRAGMA journal_mode=DELETE")
        target.close()
        await put(store, "since")
        backup.replace(file)
        assert await read_with_both(store) == [["in the backup"]] * 2
        await put(store, "after")
        assert stored(file) == ["in the backup", "after"]

    run(tmp_path, test)


def test_a_deleted_log_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(store: Store, file: Path) -> None:
        for number in range(100):
            await put(store, str(number))
        delete(file, "-wal")
        await put(store, "100")
        wanted = [str(number) for number in range(101)]
        assert await read_with_both(store) == [wanted] * 2
        assert stored(file) == wanted

    with caplog.at_level(logging.INFO):
        run(tmp_path, test)
    assert [text for text in caplog.messages if "deleted" in text] == [
        f"{tmp_path}/state/monitor.db-wal was deleted or replaced while in use:"
        " the database is written whole, and opened anew"
    ]


def test_a_directory_that_is_away_is_said_and_waited_for(tmp_path: Path) -> None:
    async def test(store: Store, file: Path) -> None:
        await put(store, "before")
        away = file.parent.rename(tmp_path / "away")
        for call in (store.transaction, store.read):
            with pytest.raises(MonitorError, match=f"there is no directory {file.parent}$"):
                await call(messages)
        file.parent.mkdir()

        async def tries_again() -> bool:
            try:
                await put(store, "after")
            except MonitorError:
                return False
            return True

        while not await tries_again():
            await asyncio.sleep(0.05)
        assert stored(file) == ["after"]
        # What was moved is whole where it is now.
        assert stored(away / file.name) == ["before"]

    run(tmp_path, test)


def test_another_programs_file_is_refused_until_it_is_gone(tmp_path: Path) -> None:
    async def test(store: Store, file: Path) -> None:
        await put(store, "before")
        rubbish = b"no database at all, but some text. " * 500
        file.with_name("rubbish").write_bytes(rubbish)
        file.with_name("rubbish").replace(file)

        async def outcome(call: Callable[[], Awaitable[Any]]) -> str:
            try:
                await call()
            except MonitorError as error:
                return str(error)
            return "done"

        said = await outcome(lambda: put(store, "after"))
        assert "not a database; move it aside" in said
        assert "not a database" in await outcome(lambda: store.read(messages))
        aside = put_aside(file)
        while await outcome(lambda: put(store, "after")) != "done":
            await asyncio.sleep(0.05)
        assert stored(file) == ["after"]
        assert (await asyncio.to_thread(aside.read_bytes)) == rubbish

    run(tmp_path, test)


def test_the_log_is_copied_into_the_new_file_too(tmp_path: Path) -> None:
    def copied(file: Path) -> list[str]:
        """Return what is in the file itself, without its log."""
        raw = sqlite3.connect(f"file:{file}?immutable=1", uri=True)
        try:
            return messages(SqliteConnection(raw))
        except sqlite3.OperationalError:  # no tables yet
            return []
        finally:
            raw.close()

    async def test(store: Store, file: Path) -> None:
        # The thread that copies has to follow as well.
        for text in ("old", "new"):
            await put(store, text)
            while copied(file) != [text]:
                await asyncio.sleep(0.02)
            delete(file)

    run(tmp_path, test)
