from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from monitor.transport import zmtp_connection, zmtp_server
from monitor.transport.zmtp import Zmtp, ZmtpError, hello, message
from monitor.transport.zmtp_connection import ZmtpConnection
from monitor.transport.zmtp_server import ZmtpServer
from tests.waiting import LIMIT_S, until

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def command(name: bytes, content: bytes = b"") -> bytes:
    body = bytes((len(name),)) + name + content
    return bytes((4, len(body))) + body


def ready(kind: bytes = b"DEALER", identity: bytes = b"") -> bytes:
    content = b"\x0bSocket-Type" + struct.pack("!I", len(kind)) + kind
    content += b"\x08Identity" + struct.pack("!I", len(identity)) + identity
    return command(b"READY", content)


def read(data: bytes, *, piece: int | None = None, limit: int = 100_000) -> list[list[bytes]]:
    zmtp = Zmtp(max_frame_bytes=limit, max_message_bytes=limit, max_frames=64)
    for start in range(0, len(data), piece or len(data) or 1):
        zmtp.receive(data[start : start + (piece or len(data))])
    return list(zmtp.messages)


frames = st.lists(st.binary(max_size=400), min_size=1, max_size=4)


@given(st.lists(frames, max_size=5), st.integers(1, 200))
def test_messages_arrive_as_they_were_sent_in_whatever_pieces(
    sent: list[list[bytes]], piece: int
) -> None:
    data = GREETING + ready() + b"".join(map(message, sent))
    assert read(data) == read(data, piece=piece) == sent


@given(st.binary(max_size=300), st.integers(0, 2))
def test_no_bytes_raise_anything_else_than_a_fault_of_the_peer(data: bytes, begun: int) -> None:
    before = (b"", GREETING, GREETING + ready())[begun]
    with contextlib.suppress(ZmtpError):
        read(before + data, piece=7)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GET / HTTP/1.1\r\n", "not ZeroMQ"),
        (b"\x01\x00", "not ZeroMQ"),
        (b"\xff" + bytes(8) + b"\x7f\x01\x05\0\0", "before 4"),
        (GREETING.replace(b"NULL", b"CURV"), "the mechanism 'CURV', not NULL"),
        (GREETING + message([b"x"]), "before READY"),
        (GREETING + ready(b"SUB"), "socket of another type"),
        (GREETING + command(b"READY", b"\xff"), "damaged metadata"),
        (GREETING + command(b"READY", b"\x01a\xff\xff\xff\xff"), "damaged metadata"),
        (GREETING + command(b"ERROR"), "unexpected command"),
        (GREETING + command(b"SUBSCRIBE") + ready(), "unexpected command"),
        (GREETING + ready() + b"\x04\x00", "unexpected command"),
        (GREETING + ready() + b"\x08\x00", "unknown flags"),
        (GREETING + ready() + b"\x02" + b"\xff" * 8, "a frame of 18446744073709551615 bytes"),
        (GREETING + ready() + b"\x06" + b"\0" * 6 + b"\xff\xff", "a frame of 65535 bytes"),
        (GREETING + ready() + b"\x01\x00" * 65, "more than 64 frames"),
        (GREETING + ready() + b"\x01\xff" + b"x" * 255 + b"\x01\xff" + b"x" * 255, "500 bytes"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_said_to(data: bytes, problem: str) -> None:
    with pytest.raises(ZmtpError, match=problem):
        read(data, limit=500)


@pytest.mark.parametrize(
    "data",
    [b"\x00", b"\x00\x01", b"\x01\x01", b"\xff" + bytes(7) + b"\x00\x00", b"\xff" * 9 + b"\x00"],
)
def test_a_greeting_of_zmtp_1_is_a_frame_with_an_identity(data: bytes) -> None:
    zmtp = Zmtp(max_frame_bytes=100, old_peers=True)
    with pytest.raises(ZmtpError, match="not ZeroMQ"):
        for byte in data:
            zmtp.receive(bytes([byte]))


def test_a_ping_is_answered_with_its_context() -> None:
    zmtp = Zmtp(max_frame_bytes=100)
    zmtp.receive(GREETING + ready())
    zmtp.outgoing.clear()
    zmtp.receive(command(b"PING", b"\0\x0acontext" + b"x" * 100))
    assert not zmtp.messages
    assert zmtp.outgoing == command(b"PONG", b"contextxxxxxxxxx")


@pytest.mark.parametrize("begins", [ready(), command(b"READY")], ids=["a type", "no type"])
def test_commands_without_a_meaning_here_cost_no_message(begins: bytes) -> None:
    others = (command(b"SUBSCRIBE", b"x"), command(b"PONG"), command(b"ERROR", b"\x03bad"), ready())
    data = GREETING + begins + b"".join(each + b"\1\1a" + each + b"\0\1b" for each in others)
    assert read(data) == [[b"a", b"b"]] * len(others)


class Peers:
    """A server that echoes, and the fate of its connections."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.greedy = True
        self.server = ZmtpServer(
            ("127.0.0.1", 0),
            key="uri",
            zmtp=lambda: Zmtp(max_frame_bytes=1 << 20, max_message_bytes=1 << 20, max_frames=64),
            admit=lambda _: True,
            received=self._received,
            lost=lambda connection: self.lost.append(connection.address),
        )
        self.received = 0

    def _received(self, connection: ZmtpConnection, messages: deque[list[bytes]]) -> bool:
        while messages:
            self.received += 1
            connection.send(messages.popleft())
            if not self.greedy:
                return False
        return True

    async def raw(
        self, source: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.server.endpoints[0].removeprefix("tcp://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        assert await reader.readexactly(len(hello())) == hello()
        return reader, writer


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    found = Peers()
    await found.server.start()
    yield found
    found.server.close()
    await until(lambda: not found.server.connections)
    assert found.server.held_bytes == 0


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ, zmq.ROUTER])
async def test_libzmq_talks_to_it_with_heartbeats(peers: Peers, kind: int) -> None:
    with zmq.asyncio.Context() as context, context.socket(kind) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.HEARTBEAT_IVL, 20)
        # By default it gives up after as little as that.
        client.setsockopt(zmq.HEARTBEAT_TIMEOUT, LIMIT_S * 1000)
        if kind == zmq.ROUTER:
            client.setsockopt(zmq.CONNECT_ROUTING_ID, b"server")
        client.connect(peers.server.endpoints[0])
        to = [b"server"] if kind == zmq.ROUTER else []
        for size in (1, 255, 256, 1 << 19):
            await client.send_multipart([*to, b"x" * size])
            async with asyncio.timeout(LIMIT_S):
                assert await client.recv_multipart() == [*to, b"x" * size]
            await asyncio.sleep(0.05)
    await until(lambda: len(peers.lost) == 1)


async def test_two_peers_with_one_identity_are_two_peers(peers: Peers) -> None:
    with zmq.asyncio.Context() as context:
        clients = [context.socket(zmq.DEALER) for _ in range(3)]
        for number, client in enumerate(clients):
            client.setsockopt(zmq.LINGER, 0)
            client.setsockopt(zmq.IDENTITY, b"addon-1")
            client.connect(peers.server.endpoints[0])
            await client.send(b"%d" % number)
            async with asyncio.timeout(LIMIT_S):
                assert await client.recv() == b"%d" % number
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("flood", "problem"),
    [
        (b"\x01\x00", "frames"),
        (b"\x01\xff" + b"x" * 255, "frames"),
        (command(b"PING", b"\0\0" + b"x" * 16), "reads nothing"),
    ],
)
async def test_a_flood_is_cut_off_and_costs_little(
    peers: Peers, flood: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await peers.raw()
    writer.write(GREETING + ready())
    with contextlib.suppress(ConnectionError):
        while not peers.lost:
            writer.write(flood * (65536 // len(flood)))
            await writer.drain()
            assert peers.server.held_bytes < 4 << 20
    await until(lambda: bool(peers.lost))
    writer.close()
    assert problem.split("|", maxsplit=1)[0] in caplog.text


async def test_unfinished_messages_are_bounded_in_all(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmtp_server, "_MAX_HELD_BYTES", 1 << 20)
    begun = struct.pack("!BQ", 2, 1 << 20) + b"x" * (400 << 10)
    writers = []
    for _ in range(8):
        _, writer = await peers.raw()
        writers.append(writer)
        writer.write(GREETING + ready() + begun)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
    await until(lambda: len(peers.lost) >= 6)
    assert peers.server.held_bytes <= 1 << 20
    for writer in writers:
        writer.close()


async def test_a_host_with_most_unfinished_bytes_makes_room_and_strangers_first(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmtp_server, "_MAX_HELD_BYTES", 1 << 20)
    begun = struct.pack("!BQ", 2, 1 << 20)
    writers = []

    async def hold(host: str, size: int) -> None:
        _, writer = await peers.raw(host)
        writers.append(writer)
        writer.write(GREETING + ready() + begun + bytes(size))
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    await hold("127.0.0.2", 300 << 10)
    for _ in range(40):
        await hold("127.0.0.3", 40 << 10)
    await until(lambda: len(peers.lost) >= 16)
    assert set(peers.lost) == {"127.0.0.3"}
    for connection in peers.server.connections.values():
        connection.is_known = connection.address == "127.0.0.3"
    await hold("127.0.0.4", 400 << 10)
    await until(lambda: peers.lost[-1] != "127.0.0.3")
    assert peers.server.held_bytes <= 1 << 20
    for writer in writers:
        writer.close()


async def test_a_peer_that_is_not_read_waits_and_loses_nothing(peers: Peers) -> None:
    peers.greedy = False
    reader, writer = await peers.raw()
    writer.write(GREETING + ready() + message([b"one"]) * 5)
    for count in range(1, 6):
        await until(partial(lambda expected: peers.received == expected, count))
        (connection,) = peers.server.connections.values()
        connection.resume()
    answer = message([b"one"]) * 5
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readexactly(len(answer)) == answer
    writer.close()


async def test_a_handshake_that_never_ends_is_closed(
    monkeypatch: pytest.MonkeyPatch, peers: Peers
) -> None:
    monkeypatch.setattr(zmtp_connection, "_HANDSHAKE_S", 0.2)
    began = time.monotonic()
    with socket.socket() as idle:
        host, port = peers.server.endpoints[0].removeprefix("tcp://").split(":")
        idle.connect((host, int(port)))
        await until(lambda: len(peers.lost) == 1)
    assert time.monotonic() - began >= 0.15
