"""A daemon with only the relay, its broker, and its clients."""

from __future__ import annotations

import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from monitor.daemon.interpreter import new_event_loop
from monitor.part import counted
from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.daemon import DaemonProcess, StartDaemon
from tests.waiting import wait_for


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """Run the coroutine tests of the relay in the event loop that the daemon has."""
    return {"daemon": new_event_loop}


class Relay:
    """A daemon with only the relay, its broker, and its clients."""

    def __init__(
        self,
        start_daemon: StartDaemon,
        *,
        debug: bool = True,
        brokers: int = 1,
        sections: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.websocket_port, self.zeromq_port = free_port(), free_port()
        self.config = {
            "websocket_uri": ["127.0.0.1", self.websocket_port],
            "zeromq_uri": ["127.0.0.1", self.zeromq_port],
            "relay": settings,
            **(sections or {}),
        }
        self.daemon: DaemonProcess = start_daemon(self.config, debug=debug).wait_ready()
        self.brokers = [Broker(f"tcp://127.0.0.1:{self.zeromq_port}") for _ in range(brokers)]
        if brokers and "curve" not in settings:
            # The relay notices a broker a moment after the broker has connected.
            self.daemon.wait_log("a ZeroMQ peer connected")
        self.clients: list[ClientConnection] = []
        self.peers: list[socket.socket] = []

    @property
    def broker(self) -> Broker:
        return self.brokers[0]

    def another_broker(self) -> Broker:
        self.brokers.append(Broker(f"tcp://127.0.0.1:{self.zeromq_port}"))
        return self.brokers[-1]

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()
        for peer in self.peers:
            peer.close()
        for client in self.clients:
            client.close_timeout = 0.1
            client.close()

    def client(self, channel: str | None, path: str = "/", **options: Any) -> ClientConnection:
        # A connection of its own, not a context: tests decide how each ends.
        manager: Any = connect(
            f"ws://127.0.0.1:{self.websocket_port}{path}",
            compression=None,
            open_timeout=60,
            **options,
        )
        connection: ClientConnection = manager.__enter__()
        self.clients.append(connection)
        if channel is not None:
            connection.send(channel)
        return connection

    def raw_client(self, channel: str, *, receive_buffer: int | None = None) -> socket.socket:
        """Return a WebSocket client by hand, which reads only what the test reads."""
        peer = socket.socket()
        self.peers.append(peer)
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.settimeout(60)
        peer.connect(("127.0.0.1", self.websocket_port))
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = peer.recv(4096)
            assert data, f"refused: {answer!r}"
            answer += data
        assert b" 101 " in answer
        name = channel.encode()
        peer.sendall(bytes((0x81, 0x80 | len(name))) + b"\0\0\0\0" + name)
        return peer

    def is_available(self) -> bool:
        """Ask as a load balancer does."""
        with socket.create_connection(("127.0.0.1", self.websocket_port), timeout=60) as probe:
            probe.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return b" 200 " in probe.recv(100)

    def wait_subscribed(self, channel: str, count: int = 1) -> None:
        wait_for(
            lambda: self.daemon.log.count(f"subscribed to {channel}\n") >= count, "subscriptions"
        )

    def wait_received(self, count: int) -> None:
        wait_for(
            lambda: any(
                f" {counted(count, 'message')}" in status
                for status in self.daemon.notices("STATUS")[-1:]
            ),
            f"{count} messages received",
        )


def everything(client: ClientConnection) -> tuple[list[str], int | None]:
    """Return all messages until the close, and its code."""
    got: list[str] = []
    try:
        while True:
            got.append(str(client.recv(timeout=60)))
    except ConnectionClosed:
        return got, client.close_code


StartRelay = Callable[..., Relay]


@pytest.fixture
def start_relay(start_daemon: StartDaemon) -> Iterator[StartRelay]:
    """Return a function that starts a daemon with these relay settings, and its broker."""
    made: list[Relay] = []

    def start(**settings: Any) -> Relay:
        made.append(Relay(start_daemon, **settings))
        return made[-1]

    yield start
    for relay in made:
        relay.close()


@pytest.fixture
def relay(start_relay: StartRelay) -> Relay:
    return start_relay()
