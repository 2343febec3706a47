"""A spool that is damaged before it is opened, and while it is in use."""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest

from monitor.bus import BusSettings, create_bus
from monitor.bus.spool_file import Outgoing, SpoolFile
from monitor.bus.spool_opening import open_spool, set_aside_if_damaged
from monitor.sqlite.own_file import DamagedFileError
from tests.examples import examples
from tests.waiting import LIMIT_S

MAX_BYTES = 100 << 20


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed spool with 500 messages of one topic."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    path = tmp_path / "spool.db"
    file = SpoolFile(path, max_bytes=MAX_BYTES)
    file.append([Outgoing("t", "key", b"{}", b"%d" % n * 100, 1.0) for n in range(500)])
    file.commit("t", "g", 3)
    file.close()
    return path


def use(file: SpoolFile) -> None:
    """Do all that a daemon does."""
    file.read("t", 0, 1000)
    file.count("t")
    file.committed("t", "g")
    file.append([Outgoing("t", None, b"{}", b"new", 1.0)])
    file.commit("t", "g", 4)
    file.trim_read()
    file.delete("t", range(1, 1000))


def test_damage_anywhere_is_found_at_the_opening_or_by_the_first_that_meets_it(
    spool: Path,
) -> None:
    data = spool.read_bytes()
    chance = random.Random(5)
    found = 0
    tried = examples(300)
    for number in range(tried):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.randrange(100, chance.choice([1000, len(data)]))
            damaged[at] = chance.choice([0xFF, 0x80, chance.randrange(256)])
        path = spool.with_name(f"{number}.db")
        path.write_bytes(damaged)
        file = open_spool(path, max_bytes=MAX_BYTES)
        try:
            use(file)
        except (sqlite3.Error, UnicodeDecodeError, DamagedFileError) as error:
            set_aside_if_damaged(file, error)
            assert file.opened.lost(), error
            file.close()
            file = open_spool(path, max_bytes=MAX_BYTES)
        if path.with_name(f"{path.name}.corrupt").exists():
            found += 1
            use(file)
        file.close()
    assert found > tried / 6


async def test_a_spool_damaged_in_use_is_set_aside_so_that_the_daemon_starts_again_with_a_new_one(
    spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(spool.read_bytes())
    data[4096 * 2 :] = b"\xff" * (len(data) - 4096 * 2)

    bus = create_bus(BusSettings())
    await bus.start()
    consumer = bus.consumer("t", group=None)
    # Into the very file that is open.
    descriptor = os.open(spool, os.O_WRONLY)
    os.write(descriptor, data)
    os.close(descriptor)
    assert await consumer.poll(timeout_s=0.1) == []
    (file,) = bus.open_files()
    assert file.lost()
    await consumer.close()
    await bus.close()
    assert spool.with_name("spool.db.corrupt").exists()
    assert sum("is damaged" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("replacement", [None, b"", b"a backup"])
async def test_a_spool_deleted_or_replaced_in_use_is_not_made_again(
    spool: Path, replacement: bytes | None
) -> None:
    bus = create_bus(BusSettings())
    await bus.start()
    consumer = bus.consumer("t", group=None)
    assert len(await consumer.poll(max_records=1000)) == 500
    spool.unlink()
    if replacement is not None:
        spool.write_bytes(replacement)
    ticket = bus.publish("t", value=b"after", headers={})
    assert await bus.committed(ticket, timeout_s=LIMIT_S)
    while not (records := await consumer.poll()):
        pass
    assert [record.value for record in records] == [b"after"]
    assert [file.lost() for file in bus.open_files()] == [True]
    assert (spool.read_bytes() if spool.exists() else None) == replacement
    await consumer.close()
    await bus.close()
