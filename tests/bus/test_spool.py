"""The bus on the spool: nothing lost, nothing twice, in order, bounded."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monitor.bus import Assignment, BusSettings, Consumer, Record, create_bus
from monitor.bus.spool import SpoolBus
from monitor.bus.spool_opening import open_spool
from monitor.errors import SettingError
from tests.conftest import missing
from tests.waiting import until


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return tmp_path


def make(max_bytes: int = 100 << 20) -> SpoolBus:
    bus = create_bus(BusSettings(max_bytes=max_bytes))
    assert isinstance(bus, SpoolBus)
    return bus


def put(bus: SpoolBus, topic: str, number: int, size: int = 0) -> int:
    value = str(number).encode().ljust(size)
    return bus.publish(topic, value=value, key=f"k{number}", headers={"ce_id": f"id-{number}"})


def forget(state: Path) -> None:
    for file in state.glob("spool.db*"):
        file.unlink()


async def take(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(60):
        while len(records) < count:
            records += await consumer.poll(max_records=100)
    return records


def numbers(records: list[Record]) -> list[int]:
    return [int(record.value) for record in records]


async def test_what_is_published_is_consumed_in_order_with_key_and_headers() -> None:
    bus = make()
    await bus.start()
    consumer = bus.consumer("t", group="g")
    for number in range(1000):
        put(bus, "t", number)
    records = await take(consumer, 1000)
    assert numbers(records) == list(range(1000))
    assert records[7].key == "k7"
    assert records[7].headers == {"ce_id": "id-7"}
    assert records[7].partition == 0
    assert await consumer.poll(timeout_s=0.01) == []
    assert await consumer.lag() == {0: 0}
    await consumer.close()
    await bus.close()


async def test_topics_are_apart() -> None:
    bus = make()
    await bus.start()
    for number in range(10):
        put(bus, f"t{number % 2}", number)
    odd = bus.consumer("t1", group=None)
    assert numbers(await take(odd, 5)) == [1, 3, 5, 7, 9]
    await odd.close()
    await bus.close()


async def test_a_group_goes_on_after_its_commit_when_everything_was_closed() -> None:
    bus = make()
    await bus.start()
    first = bus.consumer("t", group="g")
    for number in range(10):
        put(bus, "t", number)
    records = await take(first, 10)
    await first.commit({0: records[3].offset + 1})
    await first.close()
    await bus.close()

    bus = make()
    await bus.start()
    second = bus.consumer("t", group="g")
    assert numbers(await take(second, 6)) == [4, 5, 6, 7, 8, 9]
    await second.close()
    await bus.close()


async def test_groups_of_one_process_each_get_every_message_once_and_in_order() -> None:
    bus = make()
    await bus.start()
    consumers = [bus.consumer("t", group=name) for name in ("a", "b", "c")]
    found: list[list[int]] = [[], [], []]

    last = 0

    async def read(which: int, count: int) -> None:
        nonlocal last
        # They are never quite at the same place.
        async with asyncio.timeout(60):
            while len(found[which]) < count:
                records = await consumers[which].poll(max_records=40 + 30 * which)
                found[which] += numbers(records)
                last = max([last, *(record.offset for record in records)])

    for begun in range(0, 600, 100):
        put_now = [put(bus, "t", number) for number in range(begun, begun + 100)]
        await bus.committed(*put_now)
        if begun % 200 == 0:
            await read(2, begun + 50)
        await asyncio.gather(read(0, begun + 100), read(1, begun + 80))
    await asyncio.gather(*(read(which, 600) for which in range(3)))
    assert found == [list(range(600))] * 3

    await consumers[0].seek(0, 0)
    found[0].clear()
    await read(0, 600)
    assert found[0] == list(range(600))

    await consumers[0].seek(0, last + 1, again=30)
    found[0].clear()
    await read(0, 30)
    assert found[0] == list(range(570, 600))
    for consumer in consumers:
        await consumer.close()
    await bus.close()


async def test_a_store_that_knows_better_decides_where_to_start() -> None:
    bus = make()
    await bus.start()
    for number in range(10):
        put(bus, "t", number)
    look = bus.consumer("t", group=None)
    offsets = [record.offset for record in await take(look, 10)]
    revoked: list[int] = []

    async def assigned(partitions: Any) -> dict[int, int]:
        assert list(partitions) == [0]
        return {0: offsets[8]}

    async def gone(partitions: Any) -> None:
        revoked.extend(partitions)

    consumer = bus.consumer("t", group="g", assignment=Assignment(assigned=assigned, revoked=gone))
    assert numbers(await take(consumer, 2)) == [8, 9]
    assert consumer.assignment() == {0}
    await consumer.close()
    assert revoked == [0]
    await look.close()
    await bus.close()


async def test_a_group_has_one_consumer_and_the_next_takes_over() -> None:
    bus, other = make(), make()
    await bus.start()
    await other.start()
    first = bus.consumer("t", group="g")
    second = other.consumer("t", group="g")
    put(bus, "t", 1)
    records = await take(first, 1)
    put(bus, "t", 2)
    assert await second.poll(timeout_s=0.6) == []
    assert second.assignment() == frozenset()
    await first.commit({0: records[0].offset + 1})
    await first.close()
    assert numbers(await take(second, 1)) == [2]
    await second.close()
    await other.close()
    await bus.close()


async def test_an_offset_of_a_spool_that_was_deleted_skips_nothing_of_the_new_one(
    state: Path,
) -> None:
    bus = make()
    await bus.start()
    for number in range(100):
        put(bus, "t", number)
    consumer = bus.consumer("t", group=None)
    stored = (await take(consumer, 100))[-1].offset + 1
    await consumer.close()
    await bus.close()
    forget(state)

    bus = make()
    await bus.start()
    put(bus, "t", 100)
    consumer = bus.consumer("t", group=None)
    await consumer.seek(0, stored)
    assert numbers(await take(consumer, 1)) == [100]
    # and the other way round: an offset from the future
    await consumer.seek(0, stored + (1 << 40))
    assert numbers(await take(consumer, 1)) == [100]
    await consumer.close()
    await bus.close()


async def test_what_every_group_has_read_is_trimmed_but_for_the_newest(state: Path) -> None:
    bus = make()
    await bus.start()
    fast, slow = bus.consumer("t", group="fast"), bus.consumer("t", group="slow")
    for number in range(3000):
        put(bus, "t", number)
    records = await take(fast, 3000)
    await take(slow, 3000)
    await fast.commit({0: records[-1].offset + 1})
    await slow.commit({0: records[500].offset})
    await fast.close()
    await slow.close()
    await bus.close()
    bus = make()
    await bus.start()
    put(bus, "t", 3000)  # the writer tidies up after its first group
    assert await bus.committed()
    look = bus.consumer("t", group=None)
    async with asyncio.timeout(60):
        while (found := numbers(await look.poll(max_records=5000)))[0] == 0:
            await look.seek(0, 0)
    assert found[0] == 500
    await look.close()
    await bus.close()


async def test_a_full_spool_loses_the_oldest_and_counts_them(state: Path) -> None:
    bus = make(max_bytes=1 << 20)
    await bus.start()
    for number in range(6000):
        put(bus, "t", number, size=1000)
        if number % 500 == 499:
            assert await bus.committed()
    look = bus.consumer("t", group=None)
    kept = numbers(await look.poll(max_records=10000))
    assert kept == list(range(kept[0], 6000))
    metrics = {metric.name: metric.samples for metric in bus.metrics()}
    assert metrics["bus_dropped_total"] == [({}, float(kept[0]))]
    await look.close()
    await bus.close()
    # one group more than the bound at most, and WAL's own
    assert (state / "spool.db").stat().st_size < 3 << 20


async def test_waiting_for_tickets_says_what_is_on_disk(state: Path) -> None:
    bus = make()
    await bus.start()
    tickets = [put(bus, "t", number) for number in range(3)]
    assert await bus.committed(*tickets)
    with sqlite3.connect(state / "spool.db") as db:
        assert db.execute("SELECT count(*) FROM message").fetchone() == (3,)
    db.close()
    await bus.close()
    late = put(bus, "t", 4)
    assert not await bus.committed(late, timeout_s=0.05)


async def test_a_disk_that_takes_nothing_costs_the_oldest_and_is_said(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make()
    await bus.start()
    assert await bus.committed(put(bus, "t", 0))
    blocker = sqlite3.connect(state / "spool.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    first = put(bus, "t", 1, size=1 << 20)
    for number in range(2, 40):
        put(bus, "t", number, size=1 << 20)
    assert not await bus.committed(first, timeout_s=0.2)
    await until(lambda: bus.state().health == "degraded")
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await bus.committed(timeout_s=20)
    assert not await bus.committed(first)
    look = bus.consumer("t", group=None)
    kept = numbers(await look.poll(max_records=100))
    assert kept[0] == 0
    assert kept[1:] == list(range(kept[1], 40))
    metrics = {metric.name: metric.samples for metric in bus.metrics()}
    assert metrics["bus_dropped_total"] == [({}, float(kept[1] - 1))]
    await look.close()
    await bus.close()
    assert bus.state().health == "ok"
    assert sum("cannot write" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("content", [b"not a database" * 100, None])
async def test_a_file_that_is_no_spool_is_refused_and_kept(
    state: Path, content: bytes | None
) -> None:
    # A good database of another program, also where ours would be; text anywhere else.
    file = state / ("spool.db" if content is None else "notes.txt")
    if content is None:
        db = sqlite3.connect(file)
        db.execute("CREATE TABLE precious (a)")
        db.close()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(SettingError, match=r"^bus\.file: "):
        await create_bus(BusSettings(file=file.name)).start()
    assert file.read_bytes() == before


@pytest.mark.parametrize("file", ["spool.db", "other.db"])
async def test_a_damaged_spool_is_set_aside_and_said(
    state: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    # Where the default spool lies, any bytes are a damaged one; elsewhere SQLite's mark is wanted.
    rubbish = bytes(range(256)) * 20
    damaged = (
        [rubbish, b"SQLite format 3\0" + rubbish]
        if file == "spool.db"
        else [b"SQLite format 3\0" + rubbish]
    )

    for number, data in enumerate(damaged, start=1):
        forget(state)
        (state / file).write_bytes(data)
        caplog.clear()
        bus = create_bus(BusSettings(file=file))
        await bus.start()
        consumer = bus.consumer("t", group=None)
        assert isinstance(bus, SpoolBus)
        put(bus, "t", 7)
        assert await bus.committed()
        await consumer.close()
        await bus.close()
        aside = state / f"{file}.corrupt"
        assert aside.read_bytes() == data
        assert f"set aside as {aside}, " in caplog.text, number
        aside.unlink()


def test_only_the_newest_damaged_spool_stays(state: Path) -> None:
    for data in (b"first" * 1000, b"second" * 1000):
        file = state / "spool.db"
        file.write_bytes(data)
        open_spool(file, max_bytes=1 << 20).close()
    assert [path.name for path in state.glob("*.corrupt*")] == ["spool.db.corrupt"]
    assert (state / "spool.db.corrupt").read_bytes() == b"second" * 1000


@pytest.mark.integration_test
def test_a_full_disk_is_not_the_configs_fault(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        "import sys; from pathlib import Path\n"
        "from monitor.bus.spool_opening import open_spool\n"
        "from monitor.errors import MonitorError\n"
        "try:\n    open_spool(Path(sys.argv[1], 'spool.db'), max_bytes=1 << 20)\n"
        "except MonitorError as error:\n    print(error.exit_status, error)\n"
    )
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"]).returncode:
        missing("user namespaces, for a disk that is full")
    full = 'mount -t tmpfs -o size=16k tmpfs "$1" && exec "$0" -c "$2" "$1"'
    done = subprocess.run(
        [*namespace, "sh", "-c", full, sys.executable, str(disk), script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(f"1 cannot use the spool {disk}/spool.db: "), done.stderr
    assert "; check its disk and permissions" in done.stdout


@pytest.mark.parametrize("what", ["long name", "directory"])
async def test_a_path_that_waiting_cannot_mend_is_bad_config(state: Path, what: str) -> None:
    (state / "taken").mkdir()
    file = "taken" if what == "directory" else "x" * 300 + "/spool.db"
    with pytest.raises(SettingError, match=r"^bus\.file: cannot use .*"):
        await create_bus(BusSettings(file=file)).start()


async def test_a_directory_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file" / "below"))
    with pytest.raises(SettingError, match=r"^bus\.file: cannot use .*: Not a directory"):
        await make().start()
