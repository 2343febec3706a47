"""The log service with both of its transports, and what its clients send and get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from websockets.sync.client import ClientConnection

from monitor.logs.part import Logs
from monitor.logs.settings import LogsSettings
from monitor.store import DatabaseSettings, open_store
from monitor.tokens import TokenFile
from tests.waiting import LIMIT_S
from tests.web.serving import Serving, serving

__all__ = ["Service", "ask", "entry", "peer", "receive", "service", "texts"]


class Service:
    """The log service with both of its transports."""

    def __init__(self, server: Serving, logs: Logs) -> None:
        self.server = server
        self.logs = logs
        self.url = f"{server.websocket_url}/ws"
        self.endpoint = logs.zeromq.endpoints[0] if logs.zeromq is not None else ""


@contextlib.contextmanager
def service(
    directory: Path,
    *,
    tokens: TokenFile | None = None,
    api: Any = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> Iterator[Service]:
    tokens = tokens or TokenFile(None)
    logs = Logs(
        LogsSettings(zeromq_uri=("127.0.0.1", 0), **options),
        open_store(DatabaseSettings(file=str(directory / "monitor.db"))),
        tokens=tokens,
        clock=clock,
    )
    with serving(parts=[logs], tokens=tokens, **(api or {})) as server:
        yield Service(server, logs)
    asyncio.run(logs._store.close())


@contextlib.contextmanager
def peer(
    endpoint: str, kind: int = zmq.DEALER, *, comes_back: bool = True
) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, LIMIT_S * 1000)
        if not comes_back:
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.connect(endpoint)
        yield socket


def ask(client: ClientConnection | zmq.Socket[bytes], action: str, **message: Any) -> Any:
    text = json.dumps({"action": action, **message})
    client.send(text.encode()) if isinstance(client, zmq.Socket) else client.send(text)
    return receive(client)


def receive(client: ClientConnection | zmq.Socket[bytes]) -> Any:
    if isinstance(client, zmq.Socket):
        return json.loads(client.recv())
    return json.loads(client.recv(timeout=LIMIT_S))


def entry(message: str, **fields: Any) -> dict[str, Any]:
    return {"level": "info", "time": time.time(), "sender": "a", "message": message} | fields


def texts(answer: Any) -> list[str]:
    return [each["message"] for each in answer["logs"]]
