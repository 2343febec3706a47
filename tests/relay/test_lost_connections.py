"""What is left of a connection that is gone: nothing that would need the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.server import ServerProtocol

from monitor.relay.connection import Reader, SubscriberConnection
from monitor.relay.protocol_v2 import SUBPROTOCOL
from monitor.relay.server import Server
from tests.relay.serving import serving

pytestmark = pytest.mark.integration_test

CLOSE_1000 = b"\x88\x82\0\0\0\0\x03\xe8"


@contextmanager
def garbage() -> Iterator[list[Any]]:
    """Give what the collector finds meanwhile, and what only it would have found."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    found: list[Any] = []
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def come_and_go(server: Server, *, recovering: bool, politely: bool) -> None:
    tasks = len(asyncio.all_tasks())
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    offer = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n" if recovering else ""
    writer.write(
        f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert (b"Sec-WebSocket-Protocol" in head) == recovering
    name = json.dumps({"type": "subscribe", "channel": "c"}) if recovering else "c"
    writer.write(bytes((0x81, 0x80 | len(name))) + bytes(4) + name.encode())
    while server.delivery.channels.subscriber_count == 0:
        await asyncio.sleep(0.01)
    if politely:
        writer.write(CLOSE_1000)
        while CLOSE_1000[-2:] not in await reader.read(1000):
            pass
    else:
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    writer.close()
    while server.client_count:
        await asyncio.sleep(0.01)
    # The library's own task ends a few turns later.
    while len(asyncio.all_tasks()) > tasks:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("politely", [True, False], ids=["closed", "reset"])
@pytest.mark.parametrize("recovering", [True, False], ids=["recovering", "old protocol"])
async def test_a_lost_connection_is_freed_without_the_collector(
    recovering: bool, politely: bool
) -> None:
    async with serving() as server:
        with garbage() as found:
            for _ in range(3):
                await come_and_go(server, recovering=recovering, politely=politely)
    kinds = (SubscriberConnection, ServerProtocol, Reader)
    assert [type(one).__name__ for one in found if isinstance(one, kinds)] == []
