"""Clients by other libraries than ours read both protocols."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import websocket
import websockets.asyncio.client
import websockets.sync.client
from websockets.typing import Subprotocol

from monitor.relay.protocol_v2 import SUBPROTOCOL
from tests.relay.conftest import Relay, everything
from tests.relay.other_clients import go, java, node
from tests.relay.recovering import one_by_one

pytestmark = pytest.mark.integration_test

V1 = ("", "job")
V2 = (SUBPROTOCOL, '{"type": "subscribe", "channel": "job"}')
# Node's own client; it prints each message.
_NODE = """
const [url, protocol, request] = process.argv.slice(1);
const socket = protocol ? new WebSocket(url, protocol) : new WebSocket(url);
socket.onopen = () => socket.send(request);
socket.onmessage = ({ data }) => {
  console.log(data);
  if (protocol && JSON.parse(data).type === 'finished') socket.close();
};
"""
_TORNADO = """
import asyncio, json, sys
import tornado.websocket

async def read(url, protocol, request):
    offered = [protocol] if protocol else None
    connection = await tornado.websocket.websocket_connect(url, subprotocols=offered)
    await connection.write_message(request)
    while (text := await connection.read_message()) is not None:
        print(text)
        if json.loads(text).get("type") == "finished":
            connection.close()

asyncio.run(read(*sys.argv[1:]))
"""


def is_last(text: str) -> bool:
    return bool(json.loads(text).get("type") == "finished")


def by_websockets_sync(url: str, protocol: str, request: str) -> list[str]:
    offered = [Subprotocol(protocol)] if protocol else None
    got: list[str] = []
    with websockets.sync.client.connect(url, subprotocols=offered, proxy=None) as connection:
        connection.send(request)
        for text in connection:
            got.append(str(text))
            if is_last(got[-1]):
                break
    return got


def by_websockets_asyncio(url: str, protocol: str, request: str) -> list[str]:
    async def read() -> list[str]:
        offered = [Subprotocol(protocol)] if protocol else None
        got: list[str] = []
        async with websockets.asyncio.client.connect(
            url, subprotocols=offered, proxy=None
        ) as connection:
            await connection.send(request)
            async for text in connection:
                got.append(str(text))
                if is_last(got[-1]):
                    break
        return got

    return asyncio.run(read())


def by_websocket_client(url: str, protocol: str, request: str) -> list[str]:
    # It sends an Origin that names the relay itself.
    connection: Any = websocket.create_connection(
        url, timeout=60, subprotocols=[protocol] if protocol else None
    )
    connection.send(request)
    got: list[str] = []
    with contextlib.suppress(websocket.WebSocketConnectionClosedException):
        while text := connection.recv():
            got.append(str(text))
            if is_last(got[-1]):
                break
    connection.close()
    # Which does not close the socket if the relay has closed already.
    connection.shutdown()
    return got


def by_aiohttp(url: str, protocol: str, request: str) -> list[str]:
    async def read() -> list[str]:
        got: list[str] = []
        offered = (protocol,) if protocol else ()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=offered) as connection,
        ):
            await connection.send_str(request)
            async for message in connection:
                got.append(str(message.data))
                if is_last(got[-1]):
                    break
        return got

    return asyncio.run(read())


def by_program(*program: str) -> Callable[[str, str, str], list[str]]:
    def read(url: str, protocol: str, request: str) -> list[str]:
        done = subprocess.run(
            [*program, url, protocol, request], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    return read


Find = Callable[..., str]
Read = Callable[[str, str, str], list[str]]
LIBRARIES: dict[str, Callable[[Find], Read]] = {
    "websockets, sync": lambda find: by_websockets_sync,
    "websockets, asyncio": lambda find: by_websockets_asyncio,
    "websocket-client": lambda find: by_websocket_client,
    "aiohttp": lambda find: by_aiohttp,
    # In a process of its own: it leaves its sockets to the end of the process.
    "tornado": lambda find: by_program(sys.executable, "-W", "ignore", "-c", _TORNADO),
    "Node's WebSocket": lambda find: by_program(
        find("node", package="nodejs"), "--experimental-websocket", "-e", _NODE
    ),
    "Node's ws": lambda find: by_program(*node(find, "read")),
    "Java's WebSocket": lambda find: by_program(*java(find, "Read")),
    "Go's gorilla/websocket": lambda find: by_program(*go(find, "gorilla")),
    "Go's coder/websocket": lambda find: by_program(*go(find, "coder")),
    "Go's x/net/websocket": lambda find: by_program(*go(find, "net")),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_reads_both_protocols(library: str, relay: Relay, program: Find) -> None:
    read = LIBRARIES[library](program)
    for number in range(1000):
        relay.broker.task("job", number)
    relay.broker.send("job", "TASK", "ěš\u2028", "FAILED")
    relay.broker.send("job", "FINISHED")
    url = f"ws://127.0.0.1:{relay.websocket_port}/"
    expected = everything(relay.client("job"))[0]
    assert len(expected) == 1002
    assert read(url, *V1) == expected
    told = [each for text in read(url, *V2) for each in one_by_one(json.loads(text))]
    assert [json.dumps(each["data"]) for each in told if each["type"] == "message"] == expected
    assert told[-1]["type"] == "finished"
