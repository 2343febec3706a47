"""Bounds what kafka-python decompresses.

kafka-python 3.0.12 decompresses a batch whole, whatever its size: a megabyte of zstd may be many
gigabytes of zeros, by mistake or on purpose. Here each codec stops at a limit.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from typing import Any

from kafka import codec
from kafka import errors as kafka_errors
from kafka.record import default_records, legacy_records

__all__ = ["MOST_BYTES", "BatchTooLargeError", "bound_decoding"]

MOST_BYTES = 67_108_864
"""The largest size of a decompressed batch: 64 times what producers send by default."""

# How the Java library of Kafka frames blocks of snappy: a magic of 8 bytes and two versions.
_XERIAL_HEADER = b"\x82SNAPPY\0"
_XERIAL_BYTES = 16
_BLOCK = struct.Struct("!i")


class BatchTooLargeError(kafka_errors.KafkaError):  # type: ignore[misc]
    """A batch is larger than MOST_BYTES when decompressed."""

    def __init__(self) -> None:
        super().__init__(
            f"it is larger than {MOST_BYTES >> 20} MiB when decompressed; if nobody needs it,"
            " delete it from the topic with kafka-delete-records"
        )


def bound_decoding() -> None:
    """Let all clients of this process decompress with a limit."""
    for name, decode in _DECODERS.items():
        for module in (default_records, legacy_records):
            # A later version may decode in another way.
            if hasattr(module, name):
                setattr(module, name, decode)


def _gzip(data: Any) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return _within(file.read(MOST_BYTES + 1))


def _zstd(data: bytes) -> bytes:
    decompressor = codec.zstd.ZstdDecompressor(max_window_size=MOST_BYTES)
    with decompressor.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        return _within(reader.read(MOST_BYTES + 1))


def _lz4(data: bytes) -> bytes:
    decompressor = codec.lz4.LZ4FrameDecompressor()
    found = _within(decompressor.decompress(data, max_length=MOST_BYTES + 1))
    if not decompressor.eof:
        raise kafka_errors.CorruptRecordError("the lz4 frame is truncated")
    return found


def _snappy(data: bytes) -> bytes:
    if not data.startswith(_XERIAL_HEADER):
        return _snappy_block(data, MOST_BYTES)
    found = bytearray()
    place = _XERIAL_BYTES
    while place < len(data):
        (size,) = _BLOCK.unpack_from(data, place)
        place += _BLOCK.size
        found += _snappy_block(data[place : place + size], MOST_BYTES - len(found))
        place += size
    return bytes(found)


def _snappy_block(data: bytes, most: int) -> bytes:
    """Decompress a block, which begins with its size: 7 bits a byte, the lowest first."""
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    if size > most:
        raise BatchTooLargeError
    return bytes(codec.snappy.decompress(data))


def _within(found: bytes) -> bytes:
    if len(found) > MOST_BYTES:
        raise BatchTooLargeError
    return found


_DECODERS: dict[str, Callable[[Any], bytes]] = {
    "gzip_decode": _gzip,
    "snappy_decode": _snappy,
    "lz4_decode": _lz4,
    "zstd_decode": _zstd,
}
