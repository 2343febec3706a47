"""Connections of ZeroMQ peers without security: who is connected is known, and all is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from monitor.log_limits import RateLimitedLog
from monitor.settings import address_text
from monitor.transport.crowds import holder
from monitor.transport.listen import listening_sockets
from monitor.transport.zmtp import Zmtp
from monitor.transport.zmtp_connection import ZmtpConnection

__all__ = ["ZmtpServer"]

logger = logging.getLogger("monitor.transport")

_BACKLOG: Final = 1024
# Bytes of unfinished messages in all connections together.
_MAX_HELD_BYTES: Final = 64 * 1024 * 1024
# Past it this many connections are dropped at once, until this share of it is held.
_DROPPED_AT_ONCE: Final = 16
_HELD_SHARE: Final = 7 / 8
_UNACKNOWLEDGED_S: Final = 60.0
_CLOSE_S: Final = 0.5
# s in which all connections are read for the last time.
_LAST_S: Final = 0.25


class ZmtpServer:
    """Listens like a ROUTER whose peers cannot choose their identities.

    ``zmtp`` makes the parser of a connection. ``received`` takes messages (the first frames of
    each) of a connection out of a queue, and returns whether it may be read on; if not, call
    :meth:`ZmtpConnection.resume` later. ``admit`` is called with each new connection and returns
    whether there is room, ``ready`` after its handshake, ``served`` after some messages of it, and
    ``lost`` when it is lost. ``fault`` gets the reason why one is closed; by default it is logged.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        key: str,
        zmtp: Callable[[], Zmtp],
        admit: Callable[[ZmtpConnection], bool],
        received: Callable[[ZmtpConnection, deque[list[bytes]]], bool],
        lost: Callable[[ZmtpConnection], None],
        ready: Callable[[ZmtpConnection], None] = lambda connection: None,
        served: Callable[[], None] = lambda: None,
        fault: Callable[[ZmtpConnection, str], None] | None = None,
    ) -> None:
        self._address = address
        self._key = key
        self.zmtp = zmtp
        self.admit = admit
        self.received = received
        self.ready = ready
        self.served = served
        self.fault = self._log_fault if fault is None else fault
        self._lost = lost
        self._servers: list[asyncio.Server] = []
        self._numbers = itertools.count(1)
        self.connections: dict[bytes, ZmtpConnection] = {}
        """By number, the longest connected first."""
        self.held_bytes = 0
        self.reading = True
        self._waits = False
        self._log = RateLimitedLog(logger)
        self.endpoints: list[str] = []

    def _log_fault(self, connection: ZmtpConnection, problem: str) -> None:
        text = "closing the ZeroMQ connection of %s: %s"
        self._log.warning("zeromq", text, connection.address, problem)

    async def start(self, *, read: bool = True) -> None:
        """Listen; raises ListenError. Unless it shall ``read``, peers wait for :meth:`begin`."""
        self.reading, self._waits = True, not read
        self._servers.clear()
        self.endpoints.clear()
        loop = asyncio.get_running_loop()
        for listener in await listening_sockets(
            self._address, key=self._key, unacknowledged_s=_UNACKNOWLEDGED_S
        ):
            server = await loop.create_server(
                lambda: ZmtpConnection(self), sock=listener, backlog=_BACKLOG
            )
            self._servers.append(server)
            self.endpoints.append(f"tcp://{address_text(listener.getsockname()[:2])}")

    def hold_all(self) -> None:
        """Read no peer until :meth:`begin`."""
        self._waits = True
        for connection in list(self.connections.values()):
            connection.pause()

    def begin(self) -> None:
        """Read the peers."""
        self._waits = False
        for connection in list(self.connections.values()):
            connection.resume()

    def connected(self, connection: ZmtpConnection) -> bytes:
        """Count a connection, and return its number."""
        number = b"%d" % next(self._numbers)
        self.connections[number] = connection
        if self._waits:
            connection.pause()
        return number

    def disconnected(self, connection: ZmtpConnection) -> None:
        """Count a connection out."""
        if self.connections.pop(connection.number, None) is not None:
            self._lost(connection)

    def hold(self, change: int) -> None:
        """Count bytes of unfinished messages; drops connections if there are too many."""
        self.held_bytes += change
        if change > 0 and self.held_bytes > _MAX_HELD_BYTES:
            self._drop_some()

    def _drop_some(self) -> None:
        """Drop the largest of the host with most bytes; who is known comes last."""
        holding = [each for each in self.connections.values() if each.held_bytes]
        holding = [each for each in holding if not each.is_known] or holding
        by_host: Counter[str] = Counter()
        for each in holding:
            by_host[holder(each.address)] += each.held_bytes
        ((host, _),) = by_host.most_common(1)
        of_host = (each for each in holding if holder(each.address) == host)
        for each in heapq.nlargest(_DROPPED_AT_ONCE, of_host, key=lambda each: each.held_bytes):
            if self.held_bytes <= _MAX_HELD_BYTES * _HELD_SHARE:
                break
            each.drop("too many bytes of unfinished messages")

    def stop_reading(self) -> None:
        """Accept no peer and read nothing more."""
        if not self.reading:
            return
        self.reading = False
        for server in self._servers:
            server.close()
        for connection in list(self.connections.values()):
            connection.pause()

    def read_rest(self) -> None:
        """Take what peers have sent up to now, those of the longest connected ones first."""
        until = time.monotonic() + _LAST_S
        for connection in list(self.connections.values()):
            if time.monotonic() > until:
                return
            connection.read_rest()

    async def finish(self) -> None:
        """Send what is waiting and close, in half a second."""
        connections = list(self.connections.values())
        for connection in connections:
            connection.transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for connection in connections:
                    await connection.closed.wait()

    def close(self) -> None:
        """Close everything at once."""
        self.stop_reading()
        for connection in list(self.connections.values()):
            connection.transport.abort()
