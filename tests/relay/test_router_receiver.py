"""The order in which the actions of a broker are reported, and messages without an end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from monitor.relay import router_receiver
from monitor.relay.router_receiver import RouterReceiver
from tests.hostile.attacks import greeting
from tests.relay.broker import Broker
from tests.relay.telling import Telling
from tests.waiting import until

pytestmark = pytest.mark.integration_test


class Told(Telling[RouterReceiver]):
    def __init__(self) -> None:
        super().__init__(RouterReceiver, curve=None)

    def broker(self, *channels: str) -> Broker:
        """Connect a broker and wait until what it says is there, while the loop stands still."""
        broker = Broker(self.receiver.endpoints[0])
        for channel in channels:
            broker.send(channel, "STARTED")
        socket = self.receiver._router.socket
        assert socket is not None
        assert socket.poll(10_000)
        return broker


async def test_a_broker_that_came_is_told_before_its_messages_are_written() -> None:
    telling = Told()
    await telling.receiver.start()
    broker = telling.broker("a")
    # It drains the socket first.
    telling.receiver.stop()
    broker.close()
    telling.receiver.close()
    assert telling.told == ["a", "1 brokers", "delivered"]


async def test_a_message_that_fails_does_not_hold_up_those_behind_it() -> None:
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    telling = Told()
    telling.defect = b"b"
    await telling.receiver.start()
    broker = telling.broker("a", "b", "c", "d")
    await until(lambda: "d" in telling.told)
    broker.close()
    telling.receiver.close()
    assert telling.words == ["a", "b", "c", "d"]
    assert [str(context["exception"]) for context in wrong] == ["a defect"]


async def test_brokers_wait_while_it_holds() -> None:
    telling = Told()
    await telling.receiver.start()
    broker = telling.broker("a")
    await until(lambda: "a" in telling.told)
    telling.receiver.hold()
    broker.send("b", "STARTED")
    socket = telling.receiver._router.socket
    assert socket is not None
    assert socket.poll(10_000)
    await asyncio.sleep(0)
    assert telling.words == ["a"]
    telling.receiver.begin()
    await until(lambda: telling.words == ["a", "b"])
    broker.close()
    telling.receiver.close()


async def welcomed(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and shake hands: libzmq refuses a peer that sends messages before it is ready."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(greeting())
    *_, length = await reader.readexactly(66)
    await reader.readexactly(length)
    return reader, writer


async def test_of_messages_without_an_end_the_largest_are_cut_off_beyond_a_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert router_receiver._MOST_UNFINISHED_BYTES == 64 * 1024 * 1024
    monkeypatch.setattr(router_receiver, "_MOST_UNFINISHED_BYTES", 200_000)
    telling = Told()
    await telling.receiver.start()
    port = int(telling.receiver.endpoints[0].rpartition(":")[2])
    broker = telling.broker("a")
    frame = b"\x01\xc8" + bytes(200)
    largest, small = [await welcomed(port) for _ in range(2)]
    small[1].write(b"\x01\x01b" + b"\x01\x07STARTED" + frame)
    largest[1].write(frame * 2000)
    with contextlib.suppress(ConnectionResetError):
        while await largest[0].read(1000):
            pass
    # The other one may finish its message.
    small[1].write(b"\x00\x01c")
    broker.send("d", "STARTED")
    await until(lambda: "d" in telling.words)
    assert not small[0].at_eof()
    for _, writer in (largest, small):
        writer.close()
    broker.close()
    telling.receiver.close()
