"""How many connections there may be, and how slow a client may be."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor.log_limits import RateLimitedLog
from monitor.settings import address_text
from monitor.web.http.problems import MEDIA_TYPE, problem_body
from monitor.web.settings import ApiSettings

__all__ = ["MAX_HEADER_BYTES", "Connections", "LimitedHttp"]

logger = logging.getLogger("monitor.web")

MAX_HEADER_BYTES = 16 * 1024
"""Bytes of a request's line and headers."""


class Connections:
    """All open connections, HTTP and WebSocket, by their transports."""

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        self.faults_log = RateLimitedLog(logger)
        self._transports: set[Any] = set()

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, transport: asyncio.BaseTransport) -> bool:
        """Count a new connection; return False if there are too many."""
        if len(self._transports) >= self.settings.max_connections:
            return False
        self._transports.add(transport)
        return True

    def discard(self, transport: asyncio.BaseTransport) -> None:
        """Count a connection out."""
        self._transports.discard(transport)


class LimitedHttp(H11Protocol):
    """Uvicorn's HTTP/1.1 with limits on connections and on slow clients.

    A request must be complete ``request_timeout`` after its first byte (or after the connection,
    or after the answer to the request before, if it was pipelined), and a client must read what
    is sent within ``client_stall``. h11 limits headers.
    """

    limits: Connections  # set by the subclass that the server makes for its settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, or refuse where there are too many connections."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        if not self.limits.add(transport):
            self._refuse(503, "too many connections")
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Read data; if it is not HTTP, only this connection ends."""
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except h11.ProtocolError:
            self._say_no_http()
            self.transport.close()
            return
        if self.transport.get_protocol() is not self:  # it became a WebSocket
            self._disarm()
        elif self._reading():
            self._arm()
        else:
            self._disarm()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with a problem."""
        self._say_no_http()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(400, "this is not HTTP/1.1")
        else:  # during an answer
            self.transport.close()

    def on_response_complete(self) -> None:
        """Keep the time limit for a request that began during the answer to the last one."""
        super().on_response_complete()
        if not self.transport.is_closing() and self._reading() and self.conn.trailing_data[0]:
            self._arm()

    def pause_writing(self) -> None:
        """Limit the time for which a client reads nothing."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(
                self.limits.settings.client_stall, self.transport.abort
            )

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        self._disarm()
        if self._stall is not None:
            self._stall.cancel()
        self.limits.discard(self.transport)
        super().connection_lost(exc)

    def _reading(self) -> bool:
        """Whether a request is awaited, or has arrived only in part."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _arm(self) -> None:
        if self._deadline is None:
            timeout = self.limits.settings.request_timeout
            self._deadline = self.loop.call_later(timeout, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.conn.our_state is h11.IDLE:
            self._refuse(408, "the request did not arrive in time")
        else:
            self.transport.abort()

    def _say_no_http(self) -> None:
        peer = "a peer" if self.client is None else address_text(self.client)
        self.limits.faults_log.warning(
            "no HTTP", "closing the connection of %s: not HTTP/1.1", peer
        )

    def _refuse(self, status: int, detail: str) -> None:
        """Answer although there is no whole request, and close."""
        body = problem_body(status, detail)
        later = "retry-after: 5\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"connection: close\r\n{later}\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
