"""Relays that read one topic have the same channels, in whatever order they publish and read."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.bus.interface import Assignment, Consumer, DirectTopic
from monitor.relay.channel import Channel, End
from monitor.relay.protocol import decode
from monitor.relay.publishing import Publishing
from monitor.relay.replicas import Replicas
from monitor.relay.settings import RelaySettings
from monitor.relay.shared_channels import SharedChannels
from monitor.relay.topic_records import ChannelRecord, channel_record, decode_record

NAME = "c"


class Log(DirectTopic):
    """A topic of one partition, in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[str | None, bytes]] = []

    async def send(self, messages: Sequence[tuple[str | None, bytes]]) -> int:
        self.records += messages
        return 0

    def consumer(
        self, *, since: float, assignment: Assignment, trouble: Callable[[str | None], None]
    ) -> Consumer:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class Node:
    """What a relay does with channels, without sockets."""

    def __init__(self, log: Log, **limits: Any) -> None:
        self._log = log
        self._read = 0
        self._numbers = itertools.count(1)
        self.channels = SharedChannels(RelaySettings(**limits))
        self.publishing = Publishing(log, self.channels, brokers=lambda: 0, time=lambda: 1.0)
        self.replicas = Replicas(self.channels)

    def message(self, *fields: str, name: str = NAME) -> None:
        message = decode([name.encode(), *(field.encode() for field in fields)])
        self._add(message.channel, message.command, message.frame)

    def _add(self, name: bytes, command: bytes, frame: bytes) -> None:
        channel = self.channels.get(name)
        goes_on = channel is not None and channel.end and not channel.ended
        if channel is not None and goes_on and not self.channels.is_own(channel):
            self.channels.take_over(channel)
        self.channels.publish(name, command, frame, 1.0, float(next(self._numbers)))

    def flush(self) -> None:
        assert asyncio.run(self.publishing.publish())

    def read(self, count: int = 2**31) -> bool:
        """Read this many records; return whether there was one."""
        records = self._log.records[self._read : self._read + count]
        self._read += len(records)
        for key, value in records:
            record = decode_record(key, value)
            assert isinstance(record, ChannelRecord)
            assert key is not None
            for again in self.replicas.take(key.encode(), record, 1.0).again:
                self._add(key.encode(), *again)
        return bool(records)

    def channel(self, name: str = NAME) -> Channel:
        channel = self.channels.get(name.encode())
        assert channel is not None
        return channel

    def texts(self, name: str = NAME) -> list[bytes]:
        channel = self.channel(name)
        return [bytes(text) for text in channel.payloads(channel.first, channel.end)]

    def seen(self, name: str = NAME) -> tuple[str, int, End | None, list[bytes]]:
        channel = self.channel(name)
        return channel.epoch, channel.first, channel.end_kind, self.texts(name)


def settle(nodes: Sequence[Node]) -> None:
    """Let everybody publish and read until nothing more comes."""
    for _ in range(100):
        for node in nodes:
            node.flush()
        news = [node.read() for node in nodes]
        if not any(news):
            return
    raise AssertionError("they never agree")


def test_a_relay_that_only_reads_has_the_same_bytes_and_memory() -> None:
    log = Log()
    one, two = Node(log), Node(log)
    one.message("INIT")
    one.message("TASK", 'é"', "COMPLETED")
    one.message("FINISHED")
    one.flush()
    two.read()
    assert two.seen() == one.seen()
    assert two.channel().times(0, 3) == one.channel().times(0, 3)
    assert two.channels.history_bytes == one.channels.history_bytes
    assert two.channel().end_kind is End.FINISHED


def test_a_burst_beyond_an_end_reaches_the_others() -> None:
    log = Log()
    one, two = Node(log), Node(log)
    one.message("TASK", "1", "COMPLETED")
    one.message("FINISHED")
    first = one.channel()
    one.message("TASK", "2", "COMPLETED")
    one.flush()
    two.read(1)
    assert (two.channel().epoch, two.channel().end_kind) == (first.epoch, End.FINISHED)
    two.read()
    assert two.seen() == one.seen()


def test_who_goes_on_with_a_channel_says_where() -> None:
    log = Log()
    one, two, three = Node(log), Node(log), Node(log)
    one.message("TASK", "1", "COMPLETED")
    one.flush()
    two.read()
    epoch = one.channel().epoch
    two.message("TASK", "2", "COMPLETED")
    two.flush()
    three.read()
    one.read()
    assert one.seen() == two.seen() == three.seen()
    assert three.channel().resume(epoch, 1) == (1, "")
    assert three.channel().resume(epoch, 2) == (0, "ahead")


def test_what_was_dropped_before_it_was_published_is_a_gap() -> None:
    log = Log()
    one, two = Node(log, max_messages=2), Node(log)
    one.message("TASK", "1", "COMPLETED")
    one.flush()
    two.read()
    for number in range(2, 7):
        one.message("TASK", f"{number}", "COMPLETED")
    one.flush()
    two.read()
    assert two.seen() == one.seen()
    assert two.channel().first == 4
    assert one.publishing.lost == 3


def test_records_that_come_twice_change_nothing() -> None:
    log = Log()
    one, two = Node(log), Node(log)
    for number in range(5):
        one.message("TASK", f"{number}", "COMPLETED")
        one.flush()
    log.records += log.records[2:]
    two.read()
    assert two.seen() == one.seen()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b'{"relay":"r","epoch":"e","seq":0}',
        b'{"relay":"r","epoch":"e","seq":1,"at":[1.0],"data":[]}',
        b'{"relay":"r","epoch":"e","seq":1,"at":[1.0],"data":[1]}',
        b'{"relay":"r","epoch":"e","seq":1,"at":[1.0],"data":[{"command":7}]}',
        b'{"relay":"r","epoch":"e","seq":1,"at":[],"data":[],"end":"never"}',
        b'{"relay":"r","epoch":"e","seq":1,"at":[1e300],"data":[{"command":"A"}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_record_that_no_relay_wrote_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_record("c", value)


def test_a_record_is_json() -> None:
    node = Node(Log())
    node.message("TASK", "1", "COMPLETED")
    epoch = node.channel().epoch
    assert channel_record("r", node.channel(), 0, 1, end=None).decode() == (
        f'{{"relay":"r","epoch":"{epoch}","seq":1,"begins":true,"at":[1.0],"data":'
        '[{"command": "TASK", "task_id": "1", "task_state": "COMPLETED"}]}'
    )


KINDS = ("message", "message", "flush", "read one", "read")


def steps(*kinds: str) -> st.SearchStrategy[list[tuple[int, str]]]:
    return st.lists(st.tuples(st.integers(0, 2), st.sampled_from(kinds)), max_size=40)


@given(steps(*KINDS, "restart"))
def test_all_agree_whoever_publishes(steps: list[tuple[int, str]]) -> None:
    log = Log()
    nodes = [Node(log) for _ in range(3)]
    for number, (which, step) in enumerate(steps):
        node = nodes[which]
        match step:
            case "message":
                node.message("TASK", f"{number}", "COMPLETED")
            case "flush":
                node.flush()
            case "read one":
                node.read(1)
            case "read":
                node.read()
            case "restart":
                # After kill -9: what was not published is gone.
                nodes[which] = Node(log)
                nodes[which].read()
    settle(nodes)
    late = Node(log)
    late.read()
    if log.records:
        assert nodes[0].seen() == nodes[1].seen() == nodes[2].seen() == late.seen()


@given(steps(*KINDS))
def test_nothing_is_lost_where_several_publish(steps: list[tuple[int, str]]) -> None:
    said, found = after(steps)
    assert set(found) == set(said)


@given(steps(*KINDS))
def test_nothing_is_doubled_where_two_publish(steps: list[tuple[int, str]]) -> None:
    said, found = after(
        [(which, "read" if which == 2 and step == "message" else step) for which, step in steps]
    )
    assert sorted(found) == sorted(said)


def after(steps: list[tuple[int, str]]) -> tuple[list[str], list[str]]:
    """Return what was sent, and what everybody has at the end."""
    log = Log()
    nodes = [Node(log) for _ in range(3)]
    nodes[0].message("TASK", "first", "COMPLETED")
    said = ["first"]
    settle(nodes)
    for number, (which, step) in enumerate(steps):
        node = nodes[which]
        match step:
            case "message":
                node.message("TASK", f"{number}", "COMPLETED")
                said.append(f"{number}")
            case "flush":
                node.flush()
            case "read one":
                node.read(1)
            case "read":
                node.read()
    settle(nodes)
    late = Node(log)
    late.read()
    assert nodes[0].seen() == nodes[1].seen() == nodes[2].seen() == late.seen()
    return said, [json.loads(text)["task_id"] for text in late.texts()]
