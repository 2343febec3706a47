"""Reads that consumers of one process share: as if each had read alone, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.bus import Record
from monitor.bus.spool_shared import SharedReads

Step = tuple[int, int]


class File:
    """Messages of one topic, with gaps in the offsets; counts the reads."""

    def __init__(self, size: int = 10) -> None:
        self.records: list[Record] = []
        self.reads = 0
        self._size = size

    def append(self, count: int) -> None:
        for _ in range(count):
            offset = self.records[-1].offset + 3 if self.records else 7
            self.records.append(Record("t", 0, offset, None, {}, bytes(self._size), 0.0))

    def read(self, start: int, limit: int) -> list[Record]:
        self.reads += 1
        return [record for record in self.records if record.offset >= start][:limit]


class Reader:
    """A consumer."""

    def __init__(self, file: File, shared: SharedReads) -> None:
        self._file = file
        self._shared = shared
        self.position = 0
        self.found: list[Record] = []
        shared.join()

    def poll(self, limit: int) -> None:
        start = self.position
        found = self._shared.read(start, limit, lambda: self._file.read(start, limit))
        assert len(found) <= limit
        if found:
            self.position = found[-1].offset + 1
        self.found += found


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(-1), st.integers(1, 5)),
            st.tuples(st.integers(0, 2), st.integers(1, 8)),
        ),
        max_size=40,
    )
)
def test_each_consumer_gets_every_message_once_and_in_order(steps: list[Step]) -> None:
    file, shared = File(), SharedReads()
    readers = [Reader(file, shared) for _ in range(3)]
    for who, count in steps:
        if who < 0:
            file.append(count)
        else:
            readers[who].poll(count)
    for reader in readers:
        for _ in file.records:
            reader.poll(5)
        assert reader.found == file.records


def test_consumers_at_one_place_read_the_file_once() -> None:
    file, shared = File(), SharedReads()
    readers = [Reader(file, shared) for _ in range(3)]
    for turn in range(1, 4):
        file.append(5)
        for reader in readers:
            reader.poll(10)
        assert file.reads == turn


def test_a_lone_consumer_reads_for_itself_and_nothing_is_kept() -> None:
    file, shared = File(), SharedReads()
    lone, other = Reader(file, shared), Reader(file, shared)
    file.append(5)
    lone.poll(10)
    shared.leave()
    lone.position = 0
    lone.poll(10)
    assert file.reads == 2
    assert not other.found


def test_large_messages_are_not_kept() -> None:
    file, shared = File(size=1_000_000), SharedReads()
    readers = [Reader(file, shared) for _ in range(2)]
    file.append(10)
    for reader in readers:
        reader.poll(10)
        assert reader.found == file.records
    assert file.reads == 2
