"""The relay's input without CURVE: each peer has its share, counted in turns of the loop."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq

from monitor.relay import open_receiver
from monitor.relay.open_receiver import OpenReceiver
from monitor.transport.zmtp import message
from tests.relay.broker import Broker
from tests.relay.telling import Telling
from tests.waiting import until

pytestmark = pytest.mark.integration_test

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
# Sixteen others use a share of half a millisecond each, of 2 in a turn.
MOST_TURNS = 40


class Told(Telling[OpenReceiver]):
    def __init__(self) -> None:
        super().__init__(OpenReceiver)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.receiver.endpoints[0].removeprefix("tcp://").split(":")
        return host, int(port)

    async def broker(self) -> Broker:
        # It waits for the handshake, for which the loop must turn.
        return await asyncio.to_thread(Broker, self.receiver.endpoints[0])

    def peer(self) -> socket.socket:
        """Return a peer by hand, after its handshake."""
        raw = socket.create_connection(self.address)
        raw.sendall(GREETING + READY)
        return raw


@pytest.fixture
async def telling() -> AsyncIterator[Told]:
    found = Told()
    await found.receiver.start()
    yield found
    found.receiver.close()


def unread_bytes(raw: socket.socket) -> int:
    """Return how many bytes wait at a socket."""
    (found,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.FIONREAD, bytes(4)))
    return int(found)


async def test_a_broker_is_told_before_its_messages_and_again_when_it_is_lost(
    telling: Told,
) -> None:
    broker = await telling.broker()
    for channel in "abc":
        broker.send(channel, "STARTED")
    await until(lambda: "c" in telling.told)
    broker.close()
    await until(lambda: "0 brokers" in telling.told)
    assert telling.told[0] == "1 brokers"
    assert telling.words == ["a", "b", "c"]
    assert telling.told[-2:] == ["delivered", "0 brokers"]


async def test_what_came_while_the_loop_stood_still_is_read_before_the_stop(
    telling: Told,
) -> None:
    broker = await telling.broker()
    await until(lambda: "1 brokers" in telling.told)
    (connection,) = telling.receiver._server.connections.values()
    raw = socket.fromfd(
        connection.transport.get_extra_info("socket").fileno(), socket.AF_INET, socket.SOCK_STREAM
    )
    with raw:
        for channel in "abc":
            broker.send(channel, "STARTED")
        # The loop does not turn here.
        while unread_bytes(raw) < 3 * len(message([b"a", b"STARTED"])):
            pass
        telling.receiver.stop()
    broker.close()
    assert telling.told == ["1 brokers", "a", "b", "c", "delivered"]


async def test_a_message_that_fails_does_not_hold_up_those_behind_it(telling: Told) -> None:
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    telling.defect = b"b"
    broker = await telling.broker()
    for channel in "abcd":
        broker.send(channel, "STARTED")
    await until(lambda: "d" in telling.told)
    broker.close()
    assert telling.words == ["a", "b", "c", "d"]
    assert [str(context["exception"]) for context in wrong] == ["a defect"]


@pytest.mark.parametrize(
    "rage",
    [
        message([b"x", *[b"f"] * 900]),
        b"\x01\x01f" * 5000,
        message([b"x", *[b"f" * 65536] * 8]),
        message([b"x", b"STARTED"]) * 100,
        message([b""]) * 1000,
        b"\x04\x08\x04PING\0\0x" * 500,
    ],
    ids=["many frames", "no end", "long frames", "messages", "rubbish", "pings"],
)
async def test_a_broker_waits_a_few_turns_whatever_sixteen_others_send(
    telling: Told, rage: bytes
) -> None:
    others = [telling.peer() for _ in range(16)]
    broker = telling.peer()
    await until(lambda: "17 brokers" in telling.told)
    for other in others:
        other.setblocking(False)
    rest = [memoryview(rage)] * len(others)

    def send() -> None:
        for number, other in enumerate(others):
            try:
                while True:
                    sent = other.send(rest[number])
                    rest[number] = rest[number][sent:] or memoryview(rage)
            except OSError:
                # Full, or closed: a bound that it met.
                continue

    for _ in range(20):
        telling.told.clear()
        # It is there when the call returns.
        broker.sendall(message([b"a", b"STARTED"]))
        turns = 0
        while "a" not in telling.told:
            send()
            await asyncio.sleep(0)
            turns += 1
        assert turns <= MOST_TURNS
    for each in (*others, broker):
        each.close()


async def test_connections_are_limited_and_a_broker_keeps_its_place(
    telling: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_receiver, "MOST_PEERS", 10)
    broker = await telling.broker()
    others = [socket.create_connection(telling.address) for _ in range(50)]
    connections = telling.receiver._server.connections
    await until(lambda: len(connections) == 10)
    ready = [telling.peer() for _ in range(20)]
    await until(lambda: len(connections) == 10 and all(c.is_ready for c in connections.values()))
    broker.send("a", "STARTED")
    await until(lambda: "a" in telling.told)
    for each in (*others, *ready):
        each.close()
    broker.close()


async def test_two_brokers_of_one_name_lose_nothing_and_a_lost_one_is_found_out(
    telling: Told,
) -> None:
    def named(socket: Any) -> None:
        socket.setsockopt(zmq.IDENTITY, b"broker")

    first = await asyncio.to_thread(Broker, telling.receiver.endpoints[0], prepare=named)
    await until(lambda: "1 brokers" in telling.told)
    (former,) = telling.receiver._server.connections.values()
    second = await asyncio.to_thread(Broker, telling.receiver.endpoints[0], prepare=named)
    await until(lambda: "2 brokers" in telling.told)
    # The kernel asks every second whether it is there, and gives up after three.
    raw = former.transport.get_extra_info("socket")
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
    for number in range(200):
        first.send(f"a{number}", "STARTED")
        second.send(f"b{number}", "STARTED")
    await until(lambda: {"a199", "b199"} <= set(telling.told))
    for broker, name in ((first, "a"), (second, "b")):
        broker.close()
        told = [word for word in telling.told if word.startswith(name)]
        assert told == [f"{name}{number}" for number in range(200)]


async def test_brokers_wait_until_it_begins_and_while_it_holds(telling: Told) -> None:
    later = Told()
    await later.receiver.start(read=False)
    with socket.create_connection(later.address) as raw:
        raw.sendall(GREETING + READY + message([b"a", b"STARTED"]))
        await until(lambda: bool(later.receiver._server.connections))
        assert later.told == []
        later.receiver.begin()
        await until(lambda: "a" in later.told)
        later.receiver.hold()
        raw.sendall(message([b"b", b"STARTED"]))
        (connection,) = later.receiver._server.connections.values()
        await until(lambda: unread_bytes(connection.transport.get_extra_info("socket")) > 0)
        assert later.words == ["a"]
        later.receiver.begin()
        await until(lambda: later.words == ["a", "b"])
    later.receiver.close()
