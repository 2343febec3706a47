"""Handshakes that fail, that never come and that are too many, in both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest
import trustme

from monitor.daemon.interpreter import new_event_loop
from monitor.settings import Address
from monitor.transport import tls_server
from monitor.transport.tls_server import TLSServer
from tests.transport.test_proxies import HEADERS, TCP4
from tests.waiting import LIMIT_S, until

pytestmark = pytest.mark.integration_test

AUTHORITY = trustme.CA()
# How a handshake begins.
HELLO = b"\x16\x03\x01\x02\x00\x01"


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Listening:
    """A server, and what it refused."""

    def __init__(self, **options: Any) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("localhost").configure_cert(context)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.refused: list[tuple[str, str]] = []
        self.peers: list[Address] = []
        self.opened: list[socket.socket] = []
        self.clients: list[Address | None] = []
        self.server = TLSServer(
            listener,
            self._echo,
            context,
            **{"limit_s": LIMIT_S, "refused": self._refuse, **options},
        )
        self.server.start(100)

    def _echo(self, client: Address | None) -> Echo:
        self.clients.append(client)
        return Echo()

    def _refuse(self, kind: str, text: str, peer: Address) -> None:
        self.refused.append((kind, text))
        self.peers.append(peer)

    async def wait_refused(self, count: int = 1) -> list[tuple[str, str]]:
        await until(lambda: len(self.refused) >= count)
        return self.refused

    def has_read(self, count: int) -> bool:
        """Whether one client is connected that sent this many bytes, and none waits to be read."""
        handshakes = list(self.server._handshakes)
        if len(handshakes) != 1:
            return False
        connection = handshakes[0].connection
        # struct tcp_info of linux/tcp.h: tcpi_bytes_received.
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
        if struct.unpack_from("Q", info, 128)[0] != count:
            return False
        try:
            connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        to = ("127.0.0.1", self.port)
        self.opened.append(socket.create_connection(to, LIMIT_S, source_address=(host, 0)))
        return self.opened[-1]

    async def say(self, data: bytes) -> socket.socket:
        client = self.connect()
        await asyncio.to_thread(client.sendall, data)
        return client

    async def echo(self, *header: bytes, trusted: bool = True, host: str = "127.0.0.1") -> None:
        context = ssl.create_default_context()
        if trusted:
            AUTHORITY.configure_trust(context)

        def talk() -> None:
            connection = self.connect(host)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in header:
                connection.sendall(piece)
            with context.wrap_socket(connection, server_hostname="localhost") as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"

        await asyncio.to_thread(talk)


@contextlib.asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Listening]:
    made = Listening(**options)
    try:
        yield made
    finally:
        made.server.close()
        await made.server.wait_closed()
        for client in made.opened:
            client.close()


def both_loops(**options: Any) -> Callable[[Callable[[Listening], Awaitable[None]]], Any]:
    """Run a test with a server, in the daemon's event loop and in asyncio's own."""

    def decorate(test: Callable[[Listening], Awaitable[None]]) -> Any:
        async def run() -> None:
            async with asyncio.timeout(LIMIT_S), listening(**options) as server:
                await test(server)

        @pytest.mark.parametrize(
            "factory", [new_event_loop, asyncio.new_event_loop], ids=["daemon's", "asyncio's"]
        )
        def both(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
            with asyncio.Runner(loop_factory=factory, debug=True) as runner:
                runner.run(run())

        both.__name__ = test.__name__
        return both

    return decorate


@both_loops()
async def test_who_speaks_tls_is_served(server: Listening) -> None:
    await server.echo()
    await asyncio.gather(*(server.echo() for _ in range(20)))
    assert server.refused == []


@both_loops()
async def test_what_is_no_tls_is_told_apart(server: Listening) -> None:
    await server.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await server.wait_refused(1) == [("tls-plain", "plain HTTP where TLS is spoken")]
    await server.say(b"\xff" * 100)
    kind, text = (await server.wait_refused(2))[1]
    assert kind == "tls"
    assert text.startswith("the TLS handshake failed: ")
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.echo(trusted=False)
    kind, text = (await server.wait_refused(3))[2]
    assert kind == "tls"
    assert "unknown ca" in text
    (await server.say(HELLO)).close()
    assert (await server.wait_refused(4))[3] == (
        "tls",
        "the client left during the TLS handshake",
    )
    assert [host for host, _ in server.peers] == ["127.0.0.1"] * 4
    await server.echo()


@both_loops()
async def test_who_leaves_without_a_word_is_only_counted(server: Listening) -> None:
    server.connect().close()
    assert await server.wait_refused() == [("tls-silent", "")]


@both_loops(limit_s=0.1)
async def test_handshakes_have_a_limit(server: Listening) -> None:
    silent = server.connect()
    assert await server.wait_refused() == [("tls-silent", "nothing in 0 s")]
    assert await asyncio.to_thread(silent.recv, 1) == b""
    slow = await server.say(HELLO)
    assert (await server.wait_refused(2))[1] == ("tls", "no TLS handshake in 0 s")
    assert await asyncio.to_thread(slow.recv, 1) == b""


def from_proxies(address: str) -> bool:
    return address == "127.0.0.1"


@both_loops(is_proxy=from_proxies)
async def test_a_proxy_names_the_client_before_tls(server: Listening) -> None:
    for header, client in HEADERS:
        await server.echo(header)
        await server.echo(*(header[at : at + 1] for at in range(len(header))))
        assert server.clients[-2:] == [client] * 2
    await server.echo()
    assert server.clients[-1] is None
    await server.say(TCP4 + b"\xff" * 100)
    await server.wait_refused(1)
    assert server.peers == [("192.0.2.7", 5)]


@both_loops(is_proxy=from_proxies)
async def test_a_header_before_tls_that_is_none_is_refused(server: Listening) -> None:
    for header in (b"PROXY nonsense\r\n", TCP4[:12] + b"\x11\x11\0\x0c" + bytes(12)):
        await server.say(header)
    await server.wait_refused(2)
    split = await server.say(TCP4[:3])
    # What has arrived is taken, so the loop has nothing to do until there is more.
    await until(lambda: server.has_read(3))
    await asyncio.to_thread(split.sendall, HELLO)
    (await server.say(TCP4[:20])).close()
    kinds = [kind for kind, _ in await server.wait_refused(4)]
    assert kinds == ["proxy"] * 4
    # A check of a load balancer says whose it is, and leaves.
    (await server.say(TCP4)).close()
    assert (await server.wait_refused(5))[4] == ("tls-silent", "")


@both_loops()
async def test_nobody_else_names_the_client_before_tls(server: Listening) -> None:
    await server.say(TCP4)
    assert [kind for kind, _ in await server.wait_refused(1)] == ["tls"]
    assert server.clients == [None]
    assert server.peers[0][0] == "127.0.0.1"


@both_loops(full=lambda address: address == "127.0.0.1")
async def test_where_there_is_no_room_there_is_no_handshake(server: Listening) -> None:
    client = server.connect()
    assert await server.wait_refused() == [("max-clients", "too many clients")]
    assert await asyncio.to_thread(client.recv, 1) == b""


def few(most: int) -> Any:
    """Allow so few handshakes at once, and each little time where more wait."""
    return patch.multiple(tls_server, MOST_HANDSHAKES=most, _LEAST_S=0.1)


@both_loops()
async def test_who_says_nothing_makes_room_for_others(server: Listening) -> None:
    with few(20):
        silent = [server.connect() for _ in range(10)]
        for _ in range(10):
            await server.say(HELLO)
        await server.echo()
        assert [kind for kind, _ in server.refused] == ["tls-silent"]
        assert await asyncio.to_thread(silent[0].recv, 1) == b""


@both_loops()
async def test_who_never_ends_a_handshake_makes_room_for_others(server: Listening) -> None:
    with few(20):
        for _ in range(20):
            await server.say(HELLO)
        await server.echo()
        assert len(server.refused) == 1


@both_loops()
async def test_clients_that_come_all_at_once_are_served_one_after_the_other(
    server: Listening,
) -> None:
    with patch.multiple(tls_server, MOST_HANDSHAKES=3):
        await asyncio.gather(*(server.echo() for _ in range(30)))
    assert server.refused == []


@both_loops()
async def test_a_host_with_most_handshakes_makes_room_or_waits(server: Listening) -> None:
    with patch.multiple(tls_server, MOST_HANDSHAKES=10, MOST_WAITING=5, _LEAST_S=10 * LIMIT_S):
        for _ in range(30):
            server.connect()
        assert (
            await server.wait_refused(15)
            == [("tls-many", "too many handshakes from one host")] * 15
        )
        await server.echo(host="127.0.0.2")
        ((reason, text),) = server.refused[15:]
        assert (reason, text.rstrip("0123456789 s")) == ("tls-silent", "nothing in")


@both_loops()
async def test_a_server_that_closes_ends_its_handshakes(server: Listening) -> None:
    silent, slow = server.connect(), await server.say(HELLO)
    await server.echo()
    server.server.close()
    await server.server.wait_closed()
    assert await asyncio.to_thread(silent.recv, 1) == b""
    assert await asyncio.to_thread(slow.recv, 1) == b""
    assert server.refused == []
