"""Batches as another producer sent them, and a program that decodes them with an installed daemon.

Each is the segment of a topic of Kafka 4.1 to which librdkafka 2.16 sent five messages.
"""

from __future__ import annotations

import json

__all__ = ["BATCHES", "DECODED", "decode_command"]

BATCHES = {
    "gzip": (
        "AAAAAAAAAAAAAAClAAAAAAKswQhSAAEAAAAEAAABmtRlTQAAAAGa1GVNBP//////////////////AAAA"
        "BR+LCAAAAAAAAAObwcjAwMBkWFWtlFeam5RapGSlYKCjoFSSWlECZCoVpSbnF6WkpijgYSjVMnElp8Zn"
        "pjAZzGBkYGJCNc2QbNMMgaaxsKCaZkS2aUZA09jYUE0zJts0Y6BpHByoppmQbZoJAOf4QYmGAQAA"
    ),
    "snappy": (
        "AAAAAAAAAAAAAACoAAAAAAKEnwYsAAIAAAAEAAABmtRlTQAAAAGa1GVNBP//////////////////AAAA"
        "BYYDoJgBAAAAAjF6eyJudW1iZXIiOiAwLCAidGV4dCI6ICJyZWNvcmRlZCByZgkAPCJ9AgpjZV9pZAIw"
        "mAEAAgI2TgAAMeJOABQxmAEABAQ2TgAAMuJOABQymAEABgY2TgAAM+JOABQzmAEACAg2TgAANOJOAAA0"
    ),
    "lz4": (
        "AAAAAAAAAAAAAAC2AAAAAAIk9NTpAAMAAAAEAAABmtRlTQAAAAGa1GVNBP//////////////////AAAA"
        "BQQiTRhgQIJ2AAAA/xmYAQAAAAIxensibnVtYmVyIjogMCwgInRleHQiOiAicmVjb3JkZWQgCQAI+gEi"
        "fQIKY2VfaWQCMJgBAAICTgAfMU4AJmoxmAEABAROAB8yTgAmajKYAQAGBk4AHzNOACZqM5gBAAgITgAf"
        "NE4AIlBfaWQCNAAAAAA="
    ),
    "zstd": (
        "AAAAAAAAAAAAAACfAAAAAALdFHj5AAQAAAAEAAABmtRlTQAAAAGa1GVNBP//////////////////AAAA"
        "BSi1L/0AWC0DAPLEEhqgNQ//4KN/fIn+SsbQGgCk5IoLp35ZCukppYydk/prGZP6SpWS+intpj7adxTu"
        "hi00P38Q4Bw2t44Cj80E4tbQDSSQNGGQNjP1AwkABqcAchmcF8hlcF4gl+G8oiAvMCxl"
    ),
}
"""In base64, by codec."""

DECODED = [json.dumps({"number": number, "text": "recorded " * 4}) for number in range(5)]
"""The values of each batch."""

_PROGRAM = """
import base64, json, sys, types
sys.path.insert(0, "/usr/share/recodex-monitor")
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from monitor.bus import kafka_client  # bounds what is decompressed
from monitor.bus.kafka_unpacking import decode_in_one_pass

consumer = types.SimpleNamespace(_fetcher=Fetcher.__new__(Fetcher))
decode_in_one_pass(consumer)
values = {}
for codec, batch in json.loads(sys.argv[1]).items():
    records = MemoryRecords(base64.b64decode(batch))
    fetched = consumer._fetcher.PartitionRecords(0, TopicPartition("topic", 0), records)
    values[codec] = [record.value.decode() for record in fetched.take()]
print(json.dumps(values))
"""


def decode_command() -> tuple[str, ...]:
    """Return what prints, as JSON, the values of all batches as the package decodes them."""
    return ("/usr/bin/python3", "-IB", "-c", _PROGRAM, json.dumps(BATCHES))
