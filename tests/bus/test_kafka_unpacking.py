"""What the daemon decodes of Kafka's batches is what kafka-python decodes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from monitor.bus.kafka_records import record_of
from monitor.bus.kafka_unpacking import decode_in_one_pass, poll_records
from tests.bus.recorded import BATCHES, DECODED

_HEADER_BYTES = 61
_CHECKED_FROM = 21
_PLACE = TopicPartition("topic", 3)
_DATA = st.none() | st.binary(max_size=300)
_MESSAGES = st.lists(
    st.tuples(
        st.integers(-1, 2**41),
        _DATA,
        _DATA,
        st.lists(st.tuples(st.text(max_size=80), _DATA), max_size=5),
    ),
    min_size=1,
    max_size=5,
)


class _Consumer:
    """As much of a KafkaConsumer as is needed without Kafka."""

    def __init__(self, fetcher: Any = Fetcher) -> None:
        self._fetcher = fetcher.__new__(fetcher)


class _WithoutTheClass:
    """The fetcher of a version that calls the class something else."""


class _WithoutTheMethod:
    """The fetcher of a version whose class has a method of another name."""

    class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
        def __init__(self, offset: int, place: Any, records: Any, **options: Any) -> None:
            super().__init__(offset, place, records, **options)
            self.record_iterator = super()._unpack_records(place, records, None, None)


class _WithOtherArguments:
    """The fetcher of a version whose class wants to know more."""

    class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
        def __init__(self, *arguments: Any, more: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)


def _batch(messages: list[Any], magic: int = 2, codec: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(magic=magic, compression_type=codec, batch_size=1 << 20)
    for ms, key, value, headers in messages:
        assert builder.append(ms, key, value, headers if magic == 2 else []) is not None
    builder.close()
    return bytes(builder.buffer())


def _checked(data: bytearray) -> bytes:
    """Return a batch with its checksum corrected."""
    data[17:_CHECKED_FROM] = calc_crc32c(memoryview(data)[_CHECKED_FROM:]).to_bytes(4, "big")
    return bytes(data)


def _read(kind: Any, data: bytes) -> tuple[list[Any], int]:
    fetched = kind(0, _PLACE, MemoryRecords(data))
    messages = []
    while fetched:
        messages += fetched.take(2)
    return messages, fetched.next_fetch_offset


def _ours() -> Any:
    consumer = _Consumer()
    decode_in_one_pass(consumer)
    assert consumer._fetcher.PartitionRecords is not Fetcher.PartitionRecords
    return consumer._fetcher.PartitionRecords


@given(messages=_MESSAGES, codec=st.sampled_from([0, 1]), magic=st.sampled_from([1, 2]))
def test_all_that_kafka_python_decodes_is_decoded_to_the_same(
    messages: list[Any], codec: int, magic: int
) -> None:
    data = _batch(messages, magic, codec)
    theirs, position = _read(Fetcher.PartitionRecords, data)
    assert _read(_ours(), data) == ([record_of(_PLACE, message) for message in theirs], position)


@pytest.mark.parametrize("codec", BATCHES)
def test_a_batch_that_another_producer_compressed_is_decoded(codec: str) -> None:
    records, _ = _read(_ours(), base64.b64decode(BATCHES[codec]))
    assert [record.value.decode() for record in records] == DECODED
    assert [record.headers for record in records] == [{"ce_id": str(n)} for n in range(5)]


@given(messages=_MESSAGES, at=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_damage_that_the_checksum_does_not_show_ends_in_messages_or_in_one_kind_of_error(
    messages: list[Any], at: int, byte: int
) -> None:
    data = bytearray(_batch(messages))
    at = _HEADER_BYTES + at % (len(data) - _HEADER_BYTES)
    data[at] ^= byte
    with pytest.raises(kafka_errors.CorruptRecordError, match="CRC"):
        _read(_ours(), bytes(data))
    try:
        _read(_ours(), _checked(data))
    except kafka_errors.CorruptRecordError as error:
        assert "the batch at offset 0" in str(error)


def test_a_header_whose_name_is_not_utf8_spoils_no_batch() -> None:
    # librdkafka sends any bytes.
    data = _batch([(0, b"k", b"v", [("caf\xe9", b"x"), ("h", b"w")])])
    records, _ = _read(_ours(), _checked(bytearray(data.replace(b"\xc3\xa9", b"\xe9\xe9"))))
    assert [record.headers for record in records] == [{"caf\ufffd\ufffd": "x", "h": "w"}]


@pytest.mark.parametrize("fetcher", [_WithoutTheClass, _WithoutTheMethod, _WithOtherArguments])
def test_a_version_that_differs_inside_decodes_itself(
    fetcher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "monitor.bus")
    data = _batch([(1000, b"k", b"v", [("h", b"w")]), (1001, None, None, [])])
    theirs, _ = _read(Fetcher.PartitionRecords, data)
    consumer: Any = _Consumer(fetcher)
    before = vars(fetcher).get("PartitionRecords")
    decode_in_one_pass(consumer)
    assert getattr(consumer._fetcher, "PartitionRecords", None) is before
    consumer.poll = lambda **_: {_PLACE: theirs, TopicPartition("topic", 4): []}
    assert poll_records(consumer) == [record_of(_PLACE, message) for message in theirs]
    (message,) = caplog.messages
    assert "decodes messages itself" in message
