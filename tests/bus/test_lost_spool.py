"""The spool deleted, moved and replaced under those who write and read it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from monitor.bus import Assignment, BusSettings, Consumer, create_bus
from monitor.bus.spool import SpoolBus
from monitor.bus.spool_lock import GroupLock
from tests.servers.daemon import ROOT
from tests.waiting import until, wait_for


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await coroutine

    asyncio.run(bounded(), debug=True)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(directory))
    return directory


async def started() -> SpoolBus:
    bus = create_bus(BusSettings())
    assert isinstance(bus, SpoolBus)
    await bus.start()
    return bus


async def put(bus: SpoolBus, *numbers: int) -> None:
    """Publish numbers, and wait until they are on the disk."""
    tickets = [bus.publish("t", value=b"%d" % number, headers={}) for number in numbers]
    assert await bus.committed(*tickets, timeout_s=30)


async def take(consumer: Consumer, count: int) -> list[int]:
    """Read so many and commit."""
    found: list[int] = []
    while len(found) < count:
        records = await consumer.poll()
        found += [int(record.value) for record in records]
        if records:
            await consumer.commit({0: records[-1].offset + 1})
    return found


def delete(state: Path, pattern: str = "spool.db*") -> None:
    for file in state.glob(pattern):
        file.unlink()


def move_away(state: Path) -> Path:
    away = state.rename(state.with_name("away"))
    state.write_text("in the way")
    return away


def put_back(state: Path) -> None:
    state.unlink()
    state.mkdir()


def stored(state: Path) -> list[int]:
    """Return what another process finds in the spool."""
    db = sqlite3.connect(state / "spool.db")
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [int(value) for (value,) in db.execute("SELECT value FROM message ORDER BY offset")]
    finally:
        db.close()


@pytest.mark.parametrize("pattern", ["spool.db", "spool.db*", "spool.db-wal", "spool.db-shm"])
def test_what_is_said_to_be_on_disk_is_in_the_file_that_is_there(
    state: Path, caplog: pytest.LogCaptureFixture, pattern: str
) -> None:
    async def body() -> None:
        bus = await started()
        consumer = bus.consumer("t", group="g")
        for number in range(5):
            await put(bus, number)
            assert await take(consumer, 1) == [number]
            delete(state, pattern)
            await put(bus, number + 100)
            assert number + 100 in stored(state)
            assert await take(consumer, 1) == [number + 100]
            assert bus.state().health == "ok"
        await consumer.close()
        await bus.close()

    run(body())
    assert sum("was deleted or replaced" in text for text in caplog.messages) == 5
    assert not [text for text in caplog.messages if "cannot" in text]


def test_a_group_committed_into_a_spool_that_is_deleted_meanwhile_is_written_once_more(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        bus = await started()
        await put(bus, 0)
        blocker = sqlite3.connect(state / "spool.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        ticket = bus.publish("t", value=b"1", headers={})
        # It waits for the lock by now, or will, with a file that is deleted in the meantime.
        assert not await bus.committed(ticket, timeout_s=0.6)
        delete(state, "spool.db")
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await bus.committed(ticket)
        assert stored(state) == [1]
        await bus.close()

    run(body())
    (line,) = caplog.messages
    assert "was deleted or replaced while in use: what it held is gone" in line


def test_an_idle_spool_is_made_anew_as_well(state: Path) -> None:
    async def body() -> None:
        bus = await started()
        await put(bus, 0)
        delete(state)
        await until((state / "spool.db").exists)
        await bus.close()

    run(body())
    assert stored(state) == []


def test_a_consumer_begins_anew_where_its_store_says(state: Path) -> None:
    known: dict[int, int] = {}
    told: list[str] = []

    async def assigned(partitions: Sequence[int]) -> Mapping[int, int]:
        told.append(f"assigned {list(partitions)}")
        return known

    async def revoked(partitions: Sequence[int]) -> None:
        told.append(f"revoked {list(partitions)}")

    async def body() -> None:
        bus = await started()
        assignment = Assignment(assigned=assigned, revoked=revoked)
        consumer = bus.consumer("t", group="g", assignment=assignment)
        await put(bus, *range(10))
        records = await consumer.poll()
        known[0] = records[-1].offset + 1
        delete(state)
        # An offset of the spool that is gone skips nothing of the new one.
        await put(bus, *range(10, 20))
        assert await take(consumer, 10) == list(range(10, 20))
        assert told == ["assigned [0]", "revoked [0]", "assigned [0]"]
        assert await consumer.lag() == {0: 0}
        await consumer.close()
        await bus.close()

    run(body())


def test_an_older_spool_put_back_is_read_from_its_beginning(state: Path) -> None:
    async def body() -> None:
        bus = await started()
        consumer = bus.consumer("t", group="g")
        await put(bus, 0, 1)
        source, target = sqlite3.connect(state / "spool.db"), sqlite3.connect(state / "backup")
        source.backup(target)
        source.close()
        target.close()
        await put(bus, 2)
        assert await take(consumer, 3) == [0, 1, 2]
        (state / "backup").replace(state / "spool.db")
        await put(bus, 3)
        assert stored(state) == [0, 1, 3]
        assert await take(consumer, 3) == [0, 1, 3]
        await consumer.close()
        await bus.close()

    run(body())


def test_a_directory_that_is_away_is_said_and_messages_wait(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        bus = await started()
        consumer = bus.consumer("t", group="g")
        await put(bus, 0)
        assert await take(consumer, 1) == [0]
        # Where nothing can be made anew: a directory that has no way back.
        away = move_away(state)
        ticket = bus.publish("t", value=b"1", headers={})
        assert not await bus.committed(ticket, timeout_s=0.5)
        await until(lambda: bus.state().health == "degraded")
        assert f"{state}/spool.db" in bus.state().summary
        assert await consumer.poll(timeout_s=0.1) == []
        put_back(state)
        assert await bus.committed(ticket, timeout_s=20)
        assert await take(consumer, 1) == [1]
        assert bus.state().health == "ok"
        assert stored(state) == [1]
        assert stored(away) == [0]
        await consumer.close()
        await bus.close()

    with caplog.at_level(logging.INFO):
        run(body())
    for text in ("was deleted or replaced", "cannot write", "cannot read", "writing"):
        assert sum(text in message for message in caplog.messages) == 1, caplog.text


def test_what_takes_its_place_is_judged_as_at_the_start(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        bus = await started()
        consumer = bus.consumer("t", group="g")
        await put(bus, 0)
        assert await take(consumer, 1) == [0]
        (state / "rubbish").write_bytes(b"not a spool" * 1000)
        (state / "rubbish").replace(state / "spool.db")
        await put(bus, 1)
        assert await take(consumer, 1) == [1]
        assert (state / "spool.db.corrupt-1").stat().st_size == 11000

        foreign = sqlite3.connect(state / "foreign")
        foreign.execute("CREATE TABLE precious (data TEXT)")
        foreign.close()
        (state / "foreign").replace(state / "spool.db")
        bus.publish("t", value=b"2", headers={})
        await until(lambda: "another program's database" in bus.state().summary)
        assert await consumer.poll(timeout_s=0.1) == []
        shutil.move(state / "spool.db", state / "theirs")
        assert await take(consumer, 1) == [2]
        await consumer.close()
        await bus.close()

    run(body())
    theirs = sqlite3.connect(state / "theirs")
    assert theirs.execute("SELECT name FROM sqlite_schema").fetchall() == [("precious",)]
    theirs.close()


def test_a_lock_that_was_deleted_is_taken_anew_or_lost(tmp_path: Path) -> None:
    first, second = (GroupLock(tmp_path / "spool.db", "t", "g") for _ in range(2))
    assert first.acquire()
    assert not second.acquire()
    (lock,) = tmp_path.glob("*.lock")
    lock.unlink()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()
    first.release()


def test_processes_that_share_a_spool_all_follow(state: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from monitor.bus import BusSettings, create_bus\n"
        "async def main():\n"
        "    bus = create_bus(BusSettings())\n"
        "    await bus.start()\n"
        "    for line in sys.stdin:\n"
        "        ticket = bus.publish('t', value=line.strip().encode(), headers={})\n"
        "        print(await bus.committed(ticket), flush=True)\n"
        "    await bus.close()\n"
        "asyncio.run(main())\n"
    )

    def other(process: subprocess.Popen[str], number: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"

    async def body(process: subprocess.Popen[str]) -> None:
        bus = await started()
        consumer = bus.consumer("t", group="g")
        patterns = ("spool.db*", "spool.db", "spool.db-wal", "spool.db-shm")
        rounds = itertools.product(patterns, (True, False))
        # Either may be the first to notice.
        for number, (pattern, other_first) in zip(itertools.count(0, 4), rounds, strict=False):
            await put(bus, number)
            await asyncio.to_thread(other, process, number + 1)
            assert await take(consumer, 2) == [number, number + 1]
            delete(state, pattern)
            if not other_first:
                await put(bus, number + 2)
                await asyncio.to_thread(other, process, number + 3)
                assert await take(consumer, 2) == [number + 2, number + 3]
            else:
                await asyncio.to_thread(other, process, number + 3)
                await put(bus, number + 2)
                assert await take(consumer, 2) == [number + 3, number + 2]
            assert {number + 2, number + 3} <= set(stored(state))
        await consumer.close()
        await bus.close()

    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            run(body(process))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            wait_for(lambda: process.poll() is not None, "the other's end")
    assert process.returncode == 0
