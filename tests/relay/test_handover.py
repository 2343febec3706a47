"""A relay that a broker moves to, and that has not read all that another relay published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from monitor.bus.interface import Assignment, Consumer, Record
from monitor.relay import handover
from monitor.relay.delivery import Delivery
from monitor.relay.feed import Feed, SteadyTime
from monitor.relay.protocol import Message, decode
from monitor.relay.settings import RelaySettings
from monitor.relay.shared_channels import SharedChannels
from monitor.relay.sharing import Sharing
from tests.relay.test_replicas import Log
from tests.waiting import until


class Reading(Consumer):
    """Reads a topic in memory as far as ``flows`` allows."""

    def __init__(self, log: Gated) -> None:
        self._log = log
        self._at = 0

    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        log, at = self._log, self._at
        await asyncio.sleep(0)
        if self._log.flows:
            self._at = len(log.records)
        return [
            Record("relay", 0, at + number, key, {}, value, 0.0)
            for number, (key, value) in enumerate(log.records[at : self._at])
        ]

    async def idle(self) -> None:
        raise NotImplementedError

    async def seek(self, partition: int, offset: int, *, again: int = 0) -> None:
        raise NotImplementedError

    async def commit(self, offsets: Mapping[int, int]) -> None:
        raise NotImplementedError

    def assignment(self) -> frozenset[int]:
        return frozenset((0,))

    def topic_id(self) -> str | None:
        return None

    async def lag(self) -> Mapping[int, int]:
        return {0: 0}

    async def close(self) -> None:
        pass


class Gated(Log):
    """A topic in memory, which one relay at least reads late."""

    def __init__(self, records: list[Any]) -> None:
        super().__init__()
        self.records = records
        self.flows = True
        self.trouble: Callable[[str | None], None] = lambda _: None

    def consumer(
        self, *, since: float, assignment: Assignment, trouble: Callable[[str | None], None]
    ) -> Consumer:
        self.trouble = trouble
        return Reading(self)


class Node:
    """A relay without sockets: what its broker sends waits while ``held``."""

    def __init__(self, records: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        self.topic = Gated(records)
        self.channels = SharedChannels(RelaySettings())
        self.held = False
        delivery = Delivery(self.channels, Feed(), loop.time)
        self.sharing = Sharing(
            self.topic,
            self.channels,
            delivery,
            brokers=lambda: 0,
            publish=lambda name, again: self._publish(Message(name, *again)),
            brokers_changed=lambda _: None,
            ready=lambda: None,
            hold=lambda: self._hold(True),
            deliver=self._publish,
            go_on=lambda: self._hold(False),
            clock=loop.time,
            time=SteadyTime(loop.time),
        )
        self.task = asyncio.create_task(self.sharing.run())

    def _hold(self, held: bool) -> None:
        self.held = held
        self.sharing.wake()

    def _publish(self, message: Message) -> None:
        self.sharing.before_message(message.channel)
        self.channels.publish(message.channel, message.command, message.frame, 0.0, 1.0)

    def tasks(self, *names: int, channel: str = "c") -> None:
        for name in names:
            frames: Sequence[str] = (channel, "TASK", f"{name}", "COMPLETED")
            message = decode([frame.encode() for frame in frames])
            if not self.sharing.keep_waiting(message):
                self._publish(message)
        self.sharing.wake()

    def end(self, name: str = "c") -> int:
        channel = self.channels.get(name.encode())
        return 0 if channel is None else channel.end

    def epoch(self) -> str:
        channel = self.channels.get(b"c")
        return "" if channel is None else channel.epoch

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def a_relay_that_lags() -> tuple[Node, Node]:
    """Return two relays; the second has read seven of the ten messages of the first."""
    records: list[Any] = []
    first, second = Node(records), Node(records)
    first.tasks(*range(7))
    await until(lambda: second.end() == 7)
    second.topic.flows = False
    first.tasks(*range(7, 10))
    await until(lambda: len(records) == 2)
    return first, second


async def test_who_read_more_resumes_at_the_relay_that_the_broker_moved_to() -> None:
    first, second = await a_relay_that_lags()
    epoch = first.epoch()
    second.tasks(10, 11)
    # Whatever comes after it waits, too.
    second.tasks(0, channel="d")
    await until(lambda: len(second.topic.records) == 3)
    assert (second.held, second.end(), second.end("d")) == (True, 7, 0)
    second.topic.flows = True
    await until(lambda: first.end() == second.end() == 12)
    await until(lambda: first.end("d") == 1)
    for node in (first, second):
        channel = node.channels.get(b"c")
        assert channel is not None
        assert channel.epoch.startswith(second.channels.run)
        assert channel.resume(epoch, 10) == (10, "")
    # From here on nothing waits.
    second.tasks(12)
    assert (second.end(), second.held) == (13, False)
    await first.stop()
    await second.stop()


@pytest.mark.parametrize("reason", ["patience", "trouble", "drain"])
async def test_nothing_waits_for_a_topic_that_cannot_be_read(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "patience":
        monkeypatch.setattr(handover, "_PATIENCE_S", 0.01)
        monkeypatch.setattr(handover, "_LEAST_S", 0.001)
    first, second = await a_relay_that_lags()
    if reason == "trouble":
        second.topic.trouble("no connection")
    second.tasks(10)
    if reason == "drain":
        second.sharing.wait_no_more()
    await until(lambda: second.end() == 8 and not second.held)
    second.topic.flows = True
    # What was published meanwhile follows; nothing is lost.
    await until(lambda: first.end() == second.end() == 11)
    await first.stop()
    await second.stop()


class Holding:
    """A handover, and what it does."""

    def __init__(self) -> None:
        self.marks: list[tuple[bytes, int]] = []
        self.delivered: list[bytes] = []
        self.held = False
        self.handover = handover.Handover(
            mark=lambda name, number: self.marks.append((name, number)),
            hold=lambda: self._hold(True),
            deliver=self._deliver,
            go_on=lambda: self._hold(False),
        )

    def _hold(self, held: bool) -> None:
        self.held = held

    def _deliver(self, message: Message) -> None:
        if message.channel == b"bad":
            raise RuntimeError("no such channel")
        self.delivered.append(message.channel)

    def wait(self, name: bytes) -> bool:
        return self.handover.wait(decode([name, b"STARTED"]), mark=True)


async def test_brokers_are_held_for_their_share_of_the_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(handover, "_LEAST_S", 0.001)
    monkeypatch.setattr(handover, "_SHARE", 0.0)
    holding = Holding()
    assert holding.wait(b"c")
    await until(lambda: not holding.held)
    # No mark was read in time: the next channels do not wait for theirs.
    assert not holding.wait(b"d")
    assert (holding.held, holding.marks, holding.delivered) == (False, [(b"c", 1)], [b"c"])


async def test_a_mark_of_an_earlier_wait_says_nothing() -> None:
    holding = Holding()
    assert holding.wait(b"c")
    holding.handover.end()
    assert holding.wait(b"c")
    holding.handover.read(b"c", 1)
    assert holding.held
    holding.handover.read(b"c", 2)
    assert (holding.held, holding.delivered) == (False, [b"c", b"c"])


async def test_a_message_that_fails_does_not_keep_the_brokers_waiting() -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(context["message"])
    )
    holding = Holding()
    for name in (b"c", b"bad", b"d"):
        assert holding.wait(name)
    for name, number in holding.marks:
        holding.handover.read(name, number)
    assert (holding.held, holding.delivered) == (False, [b"c", b"d"])
    assert reported == ["a message that waited failed"]
