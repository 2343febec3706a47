"""Sockets wait in the loop, each separately."""

from __future__ import annotations

import asyncio
import socket

import pytest

from monitor.probes.sockets import Sockets


async def test_each_socket_gets_what_comes_to_it(sockets: Sockets) -> None:
    pairs = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(100)]
    for here, _ in pairs:
        here.setblocking(False)
    waiting = [asyncio.create_task(sockets.receive(here, 100)) for here, _ in pairs]
    await asyncio.sleep(0)
    for number, (_, there) in reversed([*enumerate(pairs)]):
        there.send(str(number).encode())
    assert await asyncio.gather(*waiting) == [str(number).encode() for number in range(100)]
    for here, there in pairs:
        here.close()
        there.close()


async def test_a_wait_that_was_cancelled_leaves_the_socket_usable(sockets: Sockets) -> None:
    here, there = socket.socketpair(type=socket.SOCK_DGRAM)
    here.setblocking(False)
    with here, there:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await sockets.receive(here, 100)
        there.send(b"late")
        assert await sockets.receive(here, 100) == b"late"


async def test_a_datagram_waits_until_there_is_room_for_it(sockets: Sockets) -> None:
    here, there = socket.socketpair(type=socket.SOCK_DGRAM)
    here.setblocking(False)
    with here, there:
        count = 0
        with pytest.raises(BlockingIOError):
            while True:
                here.send(b"filler")
                count += 1
        sending = asyncio.create_task(sockets.send(here, b"last"))
        await asyncio.sleep(0)
        assert not sending.done()
        received = [there.recv(100) for _ in range(count)]
        await sending
        assert [*received, there.recv(100)] == [b"filler"] * count + [b"last"]


async def test_a_connection_that_is_refused_is_an_error_of_the_system(sockets: Sockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with socket.socket() as connection:
        connection.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await sockets.connect(connection, "127.0.0.1", port)
