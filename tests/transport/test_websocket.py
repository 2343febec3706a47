"""A WebSocket connection from its handshake to its end, with clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.frames import Frame
from websockets.http11 import Request, Response

from monitor.transport.frames import text_frame
from monitor.transport.websocket import WebSocketConnection
from tests.waiting import LIMIT_S

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CLOSE_1000 = b"\x88\x82\0\0\0\0\x03\xe8"


def masked(opcode: int, data: bytes) -> bytes:
    """Return a client's frame of up to 125 bytes, with a mask that changes nothing."""
    return bytes([0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data


class Echo(WebSocketConnection):
    """Greets, sends each message back, and refuses on request."""

    refused = False

    def answer(self, request: Request) -> Response:
        if self.refused:
            return self.protocol.reject(403, "not you\n")
        return self.protocol.accept(request)

    def opened(self) -> None:
        self.write(text_frame(b"hello"))

    def take(self, frame: Frame) -> None:
        self.write(text_frame(bytes(frame.data)))


@contextlib.asynccontextmanager
async def connected(
    *, refused: bool = False
) -> AsyncIterator[tuple[Echo, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect a client without a library to a connection, in which nothing may fail."""
    served: list[Echo] = []
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def factory() -> Echo:
        served.append(Echo(max_message_bytes=1000))
        served[-1].refused = refused
        return served[-1]

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    try:
        while not served:
            await asyncio.sleep(0)
        yield served[0], reader, writer
    finally:
        writer.close()
        served[0].transport.abort()
        server.close()
    assert not failures


async def test_frames_in_the_segment_of_the_handshake_are_answered_after_it() -> None:
    async with connected() as (_, reader, writer):
        writer.write(HANDSHAKE + masked(0x1, b"first"))
        got = await reader.readuntil(b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(14) == b"\x81\x05hello\x81\x05first"


@pytest.mark.parametrize("cut", [1, len(HANDSHAKE) - 3, len(HANDSHAKE) - 1, len(HANDSHAKE)])
async def test_a_ping_that_does_not_wait_for_the_handshake_is_answered_after_it(cut: int) -> None:
    async with connected() as (_, reader, writer):
        sent = HANDSHAKE + masked(0x9, b"ping") + masked(0x1, b"x" * 100) * 30
        for piece in (sent[:cut], sent[cut:]):
            writer.write(piece)
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(13) == b"\x81\x05hello\x8a\x04ping"
        assert await reader.readexactly(102 * 30) == text_frame(b"x" * 100) * 30


@pytest.mark.parametrize("end", [CLOSE_1000, b"\xff" * 10], ids=["a close", "rubbish"])
async def test_an_end_in_the_segment_of_the_handshake_does_not_lose_the_answer(end: bytes) -> None:
    async with connected() as (echo, reader, writer):
        writer.write(HANDSHAKE + end)
        got = await reader.read()
        assert got.startswith(b"HTTP/1.1 101 ")
        writer.close()
        await echo.wait_closed()
        assert not echo.write(text_frame(b"too late"))


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        (HANDSHAKE, b"not you\n"),
        (HANDSHAKE[:-2] + (b"X-More: " + b"m" * 200 + b"\r\n") * 100 + b"\r\n", b"16 KiB.\n"),
        (b"no request" + HANDSHAKE, b""),
    ],
    ids=["by the server", "as too long", "as no HTTP"],
)
async def test_a_refused_client_gets_the_whole_answer_although_it_sent_more(
    request_: bytes, end: bytes
) -> None:
    async with connected(refused=True) as (_, reader, writer):
        writer.write(request_ + masked(0x1, b"x" * 125) * 1000)
        got = await reader.read()
        assert got[:10] == (b"HTTP/1.1 4" if end else b"")
        assert got.endswith(end)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_close_waits_for_the_client_only_for_a_time(answers: bool) -> None:
    async with connected() as (echo, reader, writer):
        echo.close_timeout_s = LIMIT_S if answers else 0.1
        writer.write(HANDSHAKE)
        await reader.readuntil(b"hello")
        echo.begin_close(1001, "bye")
        echo.begin_close(1002, "too late")
        assert await reader.readexactly(7) == b"\x88\x05" + struct.pack(">H", 1001) + b"bye"
        if answers:
            writer.write(masked(0x8, struct.pack(">H", 1001)))
        await echo.wait_closed()
        assert echo.protocol.close_code == (1001 if answers else 1006)


async def test_a_client_that_breaks_the_protocol_is_closed_with_a_reason() -> None:
    async with connected() as (echo, reader, writer):
        writer.write(HANDSHAKE)
        await reader.readuntil(b"hello")
        writer.write(masked(0x1, b"last") + b"\xff" * 10)
        got = await reader.read()
        assert b"\x81\x04last" not in got
        assert b"\x88" in got
        assert struct.pack(">H", 1002) in got
        writer.close()
        await echo.wait_closed()


async def test_waiting_for_the_end_may_be_cancelled() -> None:
    async with connected() as (echo, reader, writer):
        writer.write(HANDSHAKE)
        await reader.readuntil(b"hello")
        waiting = asyncio.create_task(echo.wait_closed())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await echo.wait_closed(0.01)
        writer.close()
        await echo.wait_closed()
