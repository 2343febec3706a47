"""A job's SOCKS5 proxy, with a user and a password. Sources: RFC 1928, RFC 1929."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.ports import free_port
from tests.probes.attempts import check
from tests.probes.certificates import Certificates
from tests.probes.misbehaving import Misbehaving

pytestmark = pytest.mark.integration_test

_NONE_ACCEPTED = 0xFF
_PASSWORD, _NAME = 2, 3


class Socks:
    """A proxy that lets in one user, and leads every name to this machine."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            site = await self._led(reader, writer)
            if site is not None:
                others_reader, others_writer = site
                with contextlib.closing(others_writer):
                    await asyncio.gather(
                        _passed_on(reader, others_writer), _passed_on(others_reader, writer)
                    )

    async def _led(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        _, count = await reader.readexactly(2)
        if _PASSWORD not in await reader.readexactly(count):
            writer.write(bytes([5, _NONE_ACCEPTED]))
            return None
        writer.write(bytes([5, _PASSWORD]))
        await reader.readexactly(1)
        known = [await _text(reader), await _text(reader)] == [b"me", b"p:\xc3\xa4ss"]
        writer.write(bytes([1, not known]))
        if not known:
            return None
        _, _, _, kind = await reader.readexactly(4)
        name = await _text(reader) if kind == _NAME else await reader.readexactly(4)
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(name.decode() if kind == _NAME else ".".join(map(str, name)))
        try:
            site = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            writer.write(bytes([5, 5, 0, 1, *bytes(6)]))
            return None
        writer.write(bytes([5, 0, 0, 1, *bytes(6)]))
        return site


async def _text(reader: asyncio.StreamReader) -> bytes:
    (length,) = await reader.readexactly(1)
    return await reader.readexactly(length)


async def _passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def socks() -> AsyncIterator[Socks]:
    proxy = Socks()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()


async def test_a_proxy_resolves_the_name_only_if_its_scheme_says_so(server: Misbehaving) -> None:
    async with socks() as proxy:
        place = f"me:p%3A%C3%A4ss@127.0.0.1:{proxy.port}"
        for host, scheme in (("nowhere.invalid", "socks5h"), ("127.0.0.1", "socks5")):
            url = f"http://{host}:{server.port}/ok"
            assert (await check(url, proxy=f"{scheme}://{place}", timeout=30)).error is None
        assert proxy.asked == ["nowhere.invalid", "127.0.0.1"]
        lost = await check("http://nowhere.invalid/", proxy=f"socks5://{place}", timeout=30)
        assert (lost.error or "").startswith("no-such-host")


async def test_tls_through_socks_is_the_sites_own(certificates: Certificates) -> None:
    tls = Misbehaving(tls=certificates.context("good"))
    try:
        async with socks() as proxy:
            outcome = await check(
                tls.url("/ok", "localhost"),
                proxy=f"socks5h://me:p%3A%C3%A4ss@127.0.0.1:{proxy.port}",
                ca_file=certificates.file,
                timeout=30,
            )
            assert outcome.error is None
            assert proxy.asked == ["localhost"]
    finally:
        tls.close()


@pytest.mark.parametrize("who", ["", "me:wrong@"])
async def test_a_socks_proxy_that_lets_nobody_in_is_named(who: str, server: Misbehaving) -> None:
    async with socks() as proxy:
        place = f"socks5h://{who}127.0.0.1:{proxy.port}"
        outcome = await check(server.url("/ok"), proxy=place, timeout=30)
        assert (outcome.error or "").startswith("proxy: ")
        assert "wrong" not in (outcome.error or "")
        assert proxy.asked == []


async def test_what_a_socks_proxy_says_of_a_site_is_shown() -> None:
    async with socks() as proxy:
        place = f"socks5h://me:p%3A%C3%A4ss@127.0.0.1:{proxy.port}"
        outcome = await check(f"http://127.0.0.1:{free_port()}/", proxy=place, timeout=30)
        # 5: refused
        assert (outcome.error or "").startswith("proxy: ")
        assert "(5)" in (outcome.error or "")
