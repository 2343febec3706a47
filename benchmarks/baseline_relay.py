"""The relay in its plain form: the same libraries, used the way their introductions show.

A thread blocks in ``recv_multipart`` and hands each message to the loop with
``call_soon_threadsafe``; every client has an ``asyncio.Queue`` and a handler that sends
what it takes from there, one ``await`` a message; the WebSocket server has the
library's defaults. It reads the daemon's config file, tells systemd when it is ready,
and keeps to the same wire contract, so that both take the same load. It is here to be
a baseline to measure against, not to be used: it has none of the limits.

Usage: ``baseline_relay.py -c FILE``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import sdnotify
import yaml
import zmq
from websockets.asyncio.server import ServerConnection, serve

KEEP_FINISHED_S = 300
FIELDS = ("command", "task_id", "task_state")


class Channels:
    """Every channel's history, and the queue of each of its subscribers; None ends one."""

    def __init__(self) -> None:
        self.history: defaultdict[str, list[str | None]] = defaultdict(list)
        self.queues: defaultdict[str, list[asyncio.Queue[str | None]]] = defaultdict(list)

    def publish(self, channel: str, text: str, finished: bool) -> None:
        """Put a message into the history and into all queues."""
        for item in [text, None] if finished else [text]:
            self.history[channel].append(item)
            for queue in self.queues[channel]:
                queue.put_nowait(item)
        if finished:
            loop = asyncio.get_running_loop()
            loop.call_later(KEEP_FINISHED_S, self.history.pop, channel, None)

    def subscribe(self, channel: str) -> asyncio.Queue[str | None]:
        """Return a queue that holds the history and gets everything new."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        for item in self.history[channel]:
            queue.put_nowait(item)
        self.queues[channel].append(queue)
        return queue


def receive(channels: Channels, address: str, loop: asyncio.AbstractEventLoop) -> None:
    """Receive from ZeroMQ without end; runs in a thread."""
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    router.setsockopt(zmq.IDENTITY, b"recodex-monitor")
    router.bind(address)
    while True:
        _, channel, *fields = (frame.decode(errors="replace") for frame in router.recv_multipart())
        message = dict(zip(FIELDS, fields, strict=False))
        text = json.dumps(message, sort_keys=True)
        finished = message["command"] == "FINISHED"
        loop.call_soon_threadsafe(channels.publish, channel, text, finished)


async def relay(config: dict[str, Any]) -> None:
    """Serve until killed."""
    channels = Channels()
    loop = asyncio.get_running_loop()

    async def handler(connection: ServerConnection) -> None:
        channel = str(await connection.recv())
        queue = channels.subscribe(channel)
        try:
            while (text := await queue.get()) is not None:
                await connection.send(text)
        finally:
            channels.queues[channel].remove(queue)

    host, port = config["zeromq_uri"]
    thread = threading.Thread(
        target=receive, args=(channels, f"tcp://{host}:{port}", loop), daemon=True
    )
    thread.start()
    host, port = config["websocket_uri"]
    async with serve(handler, host, port) as server:
        sdnotify.SystemdNotifier().notify("READY=1")
        await server.serve_forever()


def run() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio")
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    if arguments.uvloop:
        import uvloop

        uvloop.run(relay(config))
    asyncio.run(relay(config))


if __name__ == "__main__":
    run()
