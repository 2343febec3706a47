"""All open connections: how many there may be, and which ends if there are too many."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from monitor.log_limits import RateLimitedLog
from monitor.settings import Address
from monitor.transport.crowds import Crowds
from monitor.transport.proxies import forwarded_for, is_trusted
from monitor.web.settings import ApiSettings

__all__ = ["CONNECTION", "Connections"]

logger = logging.getLogger("monitor.web")

# Connections over max_connections, for health checks and valid tokens.
_RESERVE = 64
CONNECTION = "connection"
"""The key in a request's ``state`` of the connection that it came on."""


class Counted(Protocol):
    """What is counted."""

    transport: asyncio.Transport
    client: Address | None


class Connections:
    """All open connections, HTTP and WebSocket, by their transports.

    When there are ``max_connections``, one makes room that has no valid token, of the host that has
    most of these: first one that waits for a request, then one whose request or answer takes
    longest. If all have valid tokens, a few more are accepted, but only health checks and valid
    tokens get an answer on them.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        self.faults_log = RateLimitedLog(logger)
        self._transports: set[Any] = set()
        self._reserved: set[Any] = set()
        # Those that wait for a request, and those with one of which no valid token is known.
        self._idle: Crowds[Any] = Crowds()
        self._unknown: Crowds[Any] = Crowds()
        # The clients that proxies named by the PROXY protocol.
        self._named: dict[Any, Address] = {}

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, http: Counted) -> bool:
        """Count a new connection; return False if there are too many."""
        if len(self) >= self.settings.max_connections:
            self._make_room()
        excess = len(self) - self.settings.max_connections
        if excess >= _RESERVE:
            return False
        if excess >= 0:
            self._reserved.add(http.transport)
        self._transports.add(http.transport)
        self.idle(http)
        return True

    def idle(self, http: Counted) -> None:
        """Note that a connection waits for a request."""
        self._unknown.discard(http.transport)
        if http.transport in self._transports:
            self._idle.add(http.transport, "" if http.client is None else http.client[0])

    def busy(self, http: Counted) -> None:
        """Note that a connection has a request, or the beginning of one, of somebody."""
        if http.transport in self._idle:
            self.unknown(http)

    def unknown(self, http: Counted) -> None:
        """Note that nobody knows who made the request of a connection."""
        self._idle.discard(http.transport)
        if http.transport in self._transports:
            self._unknown.add(http.transport, "" if http.client is None else http.client[0])

    def known(self, transport: asyncio.BaseTransport) -> None:
        """Note that the request of a connection has a valid token: it stays."""
        self._unknown.discard(transport)

    def is_reserved(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a connection is for health checks and valid tokens."""
        return transport in self._reserved

    def _make_room(self) -> None:
        crowd = self._idle.largest() or self._unknown.largest()
        oldest = next(iter(crowd), None)
        if oldest is None:
            return
        waits = oldest in self._idle and not oldest.get_write_buffer_size()
        self.discard(oldest)
        if waits:
            oldest.close()
        else:
            oldest.abort()

    def discard(self, transport: asyncio.BaseTransport) -> None:
        """Count a connection out."""
        self._transports.discard(transport)
        self._reserved.discard(transport)
        self._idle.discard(transport)
        self._unknown.discard(transport)
        self._named.pop(transport, None)

    def name(self, transport: asyncio.BaseTransport, client: Address) -> None:
        """Remember the client for which a proxy connected."""
        self._named[transport] = client

    def named(self, transport: asyncio.BaseTransport) -> Address | None:
        """Return the client for which a proxy connected, if it named one."""
        return self._named.get(transport)

    def is_proxy(self, address: str) -> bool:
        """Return whether an address is one of a proxy that may name clients."""
        proxies = self.settings.trusted_proxies
        return bool(proxies) and is_trusted(address, proxies)

    def forwarded(self, peer: Address | None, header: str | None) -> Address | None:
        """Return the client that a proxy ``peer`` names by X-Forwarded-For; else ``peer``."""
        if header is None or peer is None or not self.is_proxy(peer[0]):
            return peer
        return forwarded_for([header], self.settings.trusted_proxies) or peer
