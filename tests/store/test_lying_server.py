"""Servers at the database's address that are not PostgreSQL, or speak another language."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from monitor.errors import UnavailableError
from monitor.store import DatabaseSettings, open_store
from tests.waiting import LIMIT_S


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Answer each client's messages with ``answers`` in turn; yield a URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    for answer in answers:
                        client.recv(65536)
                        client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        port = listener.getsockname()[1]
        yield f"postgresql://m@127.0.0.1:{port}/shop?sslmode=disable&gssencmode=disable"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a client keeps its connection"


def message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!I", len(content) + 4) + content


def error(text: bytes, code: bytes = b"28000") -> bytes:
    return message(b"E", b"SFATAL\0C" + code + b"\0M" + text + b"\0\0")


WELCOME = message(b"R", struct.pack("!I", 0)) + message(b"Z", b"I")


@pytest.mark.parametrize(
    "answers",
    [
        (error(b"u\xbeivatel \xe9\xb9 neexistuje"),),
        (error(b"\xff\xfe" * 40_000),),
        (b"HTTP/1.1 400 \xe9\r\n\r\n",),
        (b"\xff" * 4096,),
        (WELCOME, error(b"\xe9\xb9", b"XX000") + message(b"Z", b"I")),
        (WELCOME, b"\xff" * 100),
        (b"",),
    ],
)
async def test_what_it_answers_is_an_unavailable_database_in_one_line(
    answers: tuple[bytes, ...],
) -> None:
    with answering(*answers) as url:
        store = open_store(DatabaseSettings(url=url, connect_timeout=2))
        try:
            await store.start()
            for _ in range(2):
                with pytest.raises(UnavailableError) as caught:
                    await store.transaction(lambda c: c.query("SELECT 1"), timeout=LIMIT_S)
                text = str(caught.value)
                assert "\n" not in text
                assert text.isprintable()
                assert len(text) < 1000
            # A listener tries again and again, and its thread lives.
            listening = store.listen("channel")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await anext(listening)
            await listening.aclose()
            assert store._notifications._thread.is_alive()  # type: ignore[attr-defined]
        finally:
            await store.close()
