"""A way through an HTTP proxy, for kinds over plain sockets. Source: RFC 9110, 9.3.6."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from dataclasses import dataclass

from monitor.errors import SettingError
from monitor.probes.check import OS_ERRORS
from monitor.probes.connection import Connection, ProbeError
from monitor.probes.no_result import own_trouble
from monitor.probes.resolver import ResolveError
from monitor.probes.urls import Url, parse_url

__all__ = ["Tunnel"]

_MOST_BYTES = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The proxy."""

    proxy: Url

    @classmethod
    def of(cls, url: str) -> Tunnel:
        """Return it for a job's ``proxy``; raise SettingError."""
        try:
            return cls(parse_url(url, ("http",), path=False))
        except SettingError:
            # Its own words would show the proxy's password where there is no scheme.
            raise SettingError(("proxy",), "must be http://HOST:PORT and nothing more") from None

    async def connect(self, connection: Connection, host: str, port: int) -> None:
        """Connect to the host through the proxy; raise ProbeError. The caller bounds the time."""
        try:
            plain = await connection.connect(self.proxy.host, self.proxy.port)
            await self._ask(plain, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except ResolveError as error:
            raise ProbeError(f"proxy: {error}") from None
        except OSError as error:
            if own_trouble(error) is not None:
                raise
            word = OS_ERRORS.get(error.errno or 0, "unreachable")
            raise ProbeError(f"proxy: {word}: cannot connect to the proxy") from None

    async def _ask(self, plain: socket.socket, place: str) -> None:
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if self.proxy.credentials is not None:
            encoded = base64.b64encode(b":".join(self.proxy.credentials)).decode()
            lines.append(f"Proxy-Authorization: Basic {encoded}")
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(plain, "\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            # Byte by byte: what follows is the host's.
            piece = await loop.sock_recv(plain, 1)
            if not piece or len(answer) > _MOST_BYTES:
                raise ProbeError("proxy: the proxy closed the connection")
            answer += piece
        status = _STATUS.match(answer)
        if status is None:
            raise ProbeError("proxy: its answer is not HTTP")
        if not status[1].startswith(b"2"):
            raise ProbeError(f"proxy: the proxy answered {status[1].decode()}")
