"""The relay's WebSocket side in the test's own loop, for what cannot be seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection, connect

from monitor.relay.channels import Channels
from monitor.relay.delivery import Delivery
from monitor.relay.feed import Feed
from monitor.relay.protocol import decode
from monitor.relay.server import Server
from monitor.relay.settings import RelaySettings


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Listen on a free port of this host."""
    delivery = Delivery(Channels(RelaySettings(max_clients=10)), Feed(), time.monotonic)
    server = Server(("127.0.0.1", 0), delivery, tls=None, clock=time.monotonic)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def say(server: Server, channel: str, task: str) -> None:
    """Publish a message as the receiver does."""
    message = decode([channel.encode(), b"TASK", task.encode(), b"COMPLETED"])
    delivery = server.delivery
    found = delivery.channels.publish(message.channel, message.command, message.frame, 0.0)
    assert found is not None
    delivery.received(found, len(message.frame))
    asyncio.get_running_loop().call_soon(delivery.received_all)


async def reader(server: Server, channel: str) -> ClientConnection:
    """Connect with the old protocol, and wait until the subscription stands."""
    host, port = server.addresses[0]
    client = await connect(f"ws://{host}:{port}/", compression=None)
    before = server.delivery.channels.subscriber_count
    await client.send(channel)
    while server.delivery.channels.subscriber_count == before:
        await asyncio.sleep(0.01)
    return client
