"""What becomes of histories whose file is damaged while it is in use."""

from __future__ import annotations

import time
from pathlib import Path

from monitor.relay.channels import Channels
from monitor.relay.feed import Feed, SteadyTime
from monitor.relay.history_file import HistoryFile
from monitor.relay.saving import Saving
from monitor.relay.settings import RelaySettings


async def test_a_file_damaged_in_use_is_set_aside_and_all_histories_are_saved_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.db"
    channels = Channels(RelaySettings(max_messages=1000))
    saving = Saving(path, channels, Feed(), clock=time.monotonic, time=SteadyTime(time.time))

    def publish(name: bytes, count: int) -> None:
        for number in range(count):
            channels.publish(name, b"TASK", b"message %d" % number, time.monotonic())

    def damage() -> None:
        assert saving._file is not None
        # What is cached would hide the damage.
        saving._file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        saving._file._database.execute("PRAGMA shrink_memory")
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))

    await saving.start()
    publish(b"old", 500)
    assert await saving.save()
    damage()
    publish(b"new", 1)
    assert not await saving.save()
    assert await saving.save()
    assert saving.outage.problem is None
    await saving.close()
    assert path.with_name("history.db.corrupt-1").exists()
    file = HistoryFile(path)
    try:
        saved = file.load()
    finally:
        file.close(None)
    assert {channel.name: len(channel) for channel, _ in saved.channels} == {b"old": 500, b"new": 1}
