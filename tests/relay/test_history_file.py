"""Histories on disk: what was saved comes back, damage is noticed, and nothing else is lost."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from array import array
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from monitor.relay import history_file
from monitor.relay.channel import Channel, End
from monitor.relay.history_file import (
    ChannelRow,
    ChunkRow,
    HistoryFile,
    SaveBatch,
    after_a_crash,
)
from monitor.sqlite.own_file import DamagedFileError, ForeignFileError, set_aside
from monitor.transport.frames import text_frame
from tests.examples import examples


def batch_of(
    channel: Channel, start: int, stop: int, *, ended: End | None = None, at: float = 5.0
) -> SaveBatch:
    batch = SaveBatch(at)
    batch.channels.append(
        ChannelRow(
            channel.key,
            channel.name,
            channel.epoch,
            "[]",
            channel.first,
            ended.value if ended else None,
            False,
            at,
        )
    )
    if start < stop:
        frames, sizes, times = channel.cut(start, 1 << 30)
        assert start + len(sizes) == stop
        batch.chunks.append(ChunkRow(channel.key, start, frames, sizes.tobytes(), times.tobytes()))
    return batch


def texts(channel: Channel) -> list[bytes]:
    return [bytes(text) for text in channel.payloads(channel.first, channel.end)]


def a_channel(name: bytes = b"c", *, key: int = 1, messages: int = 0) -> Channel:
    channel = Channel(name, f"epoch-{key}")
    channel.key = key
    for number in range(messages):
        channel.append(text_frame(b"%d" % number * 20), float(number))
    return channel


@settings(max_examples=examples(60))
@given(steps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 40)), min_size=1, max_size=12))
def test_what_was_saved_comes_back_whole(steps: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "history.db"
        file = HistoryFile(path)
        assert file.load().at is None
        channel = a_channel()
        for messages, trimmed in steps:
            saved = max(channel.end, channel.first)
            for _ in range(messages):
                channel.append(text_frame(b"%d" % channel.end), float(channel.end))
            channel.trim(min(trimmed, len(channel)))
            file.write(batch_of(channel, max(saved, channel.first), channel.end))
        file.close(9.0)
        again = HistoryFile(path)
        saved_again = again.load()
        again.close(None)
        assert (saved_again.at, saved_again.clean) == (9.0, True)
        (found, at), *rest = saved_again.channels
        assert (rest, at) == ([], 5.0)
        assert (found.name, found.epoch, found.first, found.end) == (
            b"c",
            "epoch-1",
            channel.first,
            channel.end,
        )
        assert texts(found) == texts(channel)
        assert found.times(found.first, found.end) == channel.times(channel.first, channel.end)


def test_a_batch_written_twice_and_channels_forgotten(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "history.db")
    file.load()
    for key in (1, 2):
        batch = batch_of(a_channel(b"%d" % key, key=key, messages=10), 0, 10)
        file.write(batch)
        file.write(batch)
    file.write(SaveBatch(6.0, "[[1.0, 2.0], [3.0, null]]", forgotten=[1]))
    file.close(None)
    opened = HistoryFile(tmp_path / "history.db")
    again = opened.load()
    opened.close(None)
    assert [(channel.name, len(channel)) for channel, _ in again.channels] == [(b"2", 10)]
    assert not again.clean
    assert again.outages == [(1.0, 2.0), (3.0, None)]


def test_deleted_histories_give_their_space_back(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    file = HistoryFile(path)
    file.load()
    for key in range(1, 40):
        channel = a_channel(b"%d" % key, key=key)
        channel.append(text_frame(b"x" * 500_000), 1.0)
        file.write(batch_of(channel, 0, 1))
        file.write(SaveBatch(1.0, forgotten=[key - 1]))
    for _ in range(20):
        file.write(SaveBatch(1.0))
    file.close(1.0)
    assert path.stat().st_size < 2_000_000


def test_after_a_crash_old_positions_mean_the_same_and_later_ones_nothing() -> None:
    channel, finished = a_channel(messages=10), a_channel(b"d", key=2, messages=3)
    finished.end_kind = End.FINISHED
    after_a_crash([channel, finished], "new")
    assert finished.resume("epoch-2", 3) == (3, "")
    assert channel.epoch != "epoch-1"
    assert channel.resume("epoch-1", 7) == (7, "")
    assert channel.resume("epoch-1", 10) == (10, "")
    assert channel.resume("epoch-1", 11) == (0, "ahead")
    # New messages belong to the new epoch alone.
    channel.append(text_frame(b"new"), 1.0)
    assert channel.resume("epoch-1", 11) == (0, "ahead")
    assert channel.resume(channel.epoch, 11) == (11, "")
    for number in range(10):
        after_a_crash([channel], f"new{number}")
    assert len(channel.ancestors) == 4
    assert channel.resume("epoch-1", 7) == (0, "epoch")


def test_damage_anywhere_is_noticed_or_harmless(tmp_path: Path) -> None:
    good = tmp_path / "good.db"
    file = HistoryFile(good)
    file.load()
    expected = {}
    for key in range(1, 6):
        channel = a_channel(b"%d" % key, key=key, messages=200)
        file.write(batch_of(channel, 0, 200))
        expected[channel.name] = texts(channel)
    file.close(1.0)
    data = good.read_bytes()
    chance = random.Random(5)
    noticed = 0
    for number in range(300):
        damaged = bytearray(data)
        if number % 3 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        elif number % 3 == 1:
            for _ in range(chance.randrange(1, 20)):
                # Often in the schema, whose text is in the first page.
                end = chance.choice([4096, len(damaged)])
                damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
        else:
            start = chance.randrange(len(damaged))
            damaged[start : start + 4096] = bytes(len(damaged[start : start + 4096]))
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged)
        try:
            opened = HistoryFile(path)
        except (DamagedFileError, ForeignFileError):
            noticed += 1
            continue
        try:
            saved = opened.load()
        except DamagedFileError:
            noticed += 1
            continue
        finally:
            opened.close(None)
        for channel, _ in saved.channels:
            # A damaged name or number is another channel's; messages are never wrong.
            assert texts(channel) in ([], *expected.values())
    assert noticed > 100


def test_files_that_are_no_histories(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database\n" * 100)
    with pytest.raises(ForeignFileError, match="not an SQLite database"):
        HistoryFile(text)
    assert text.read_text() == "not a database\n" * 100
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(DamagedFileError):
        HistoryFile(damaged)
    assert set_aside(damaged).read_bytes().endswith(b"\xff")
    assert not damaged.exists()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE precious (data TEXT)")
    database.close()
    with pytest.raises(ForeignFileError):
        HistoryFile(other)
    assert other.exists()


def test_another_process_cannot_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "_BUSY_S", 0.1)
    first = HistoryFile(tmp_path / "history.db")
    first.load()
    first.write(SaveBatch(1.0))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        HistoryFile(tmp_path / "history.db")
    first.close(None)


def test_a_cut_is_what_extends() -> None:
    channel = a_channel(messages=100)
    channel.trim(30)
    copy = Channel(b"c", "epoch-1")
    copy.restart(30)
    position = 30
    while position < channel.end:
        frames, sizes, times = channel.cut(position, 200)
        assert len(sizes) == len(times) > 0
        copy.extend(frames, sizes, times)
        position += len(sizes)
    assert texts(copy) == texts(channel)
    assert copy.times(30, 100) == array("d", [float(n) for n in range(30, 100)])
