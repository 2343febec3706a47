"""Connections of ZeroMQ peers without security: who is connected is known, and all is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from monitor.log_limits import RateLimitedLog
from monitor.settings import address_text
from monitor.transport.crowds import holder
from monitor.transport.fair import FairReading
from monitor.transport.listen import listening_sockets
from monitor.transport.zmtp import Zmtp, ZmtpError, message

__all__ = ["ZmtpConnection", "ZmtpServer"]

logger = logging.getLogger("monitor.transport")

_BACKLOG: Final = 1024
_HANDSHAKE_S: Final = 10.0
# Bytes of unfinished messages in all connections together.
_MAX_HELD_BYTES: Final = 64 * 1024 * 1024
# Past it this many connections are dropped at once, until this share of it is held.
_DROPPED_AT_ONCE: Final = 16
_HELD_SHARE: Final = 7 / 8
# A peer that reads nothing may have this many bytes waiting, and one message more.
_MAX_UNSENT_BYTES: Final = 1024 * 1024
_STALL_S: Final = 60.0
_UNACKNOWLEDGED_S: Final = 60.0
_CLOSE_S: Final = 0.5
# When connections are read for the last time: of each, and s for all together.
_LAST_READ_BYTES: Final = 65536
_LAST_READS: Final = 64
_LAST_S: Final = 0.25
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
# Of a peer that may be gone.
_DOUBTED: Final = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000),
)


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
        self._waits = not read
        loop = asyncio.get_running_loop()
        for listener in await listening_sockets(
            self._address, key=self._key, unacknowledged_s=_UNACKNOWLEDGED_S
        ):
            server = await loop.create_server(
                lambda: ZmtpConnection(self), sock=listener, backlog=_BACKLOG
            )
            self._servers.append(server)
            self.endpoints.append(f"tcp://{address_text(listener.getsockname()[:2])}")

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


class ZmtpConnection(FairReading):
    """One peer."""

    # A peer that sends much waits, and is not closed: what it sent would be lost.
    burst_s = math.inf

    def __init__(self, server: ZmtpServer) -> None:
        super().__init__()
        self._server = server
        self._zmtp = server.zmtp()
        self.number = b""
        self.address = "unknown"
        self.identity = b""
        """The name that the peer set for itself, which others may have, too."""
        self.is_ready = False
        """Whether the handshake is complete."""
        self.is_known = False
        """Whether the server's owner knows who it is."""
        self.held_bytes = 0
        # What is wrong with what it sent after the messages that are complete.
        self._problem = ""
        self.fault = ""
        """Why it is closed."""
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self.closed = asyncio.Event()

    @property
    def peer(self) -> str:
        """The peer, for the log."""
        return f"the ZeroMQ peer {self.address}"

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or refuse."""
        super().connection_made(transport)
        found = transport.get_extra_info("peername")
        self.address = str(found[0]) if isinstance(found, tuple) else "unknown"
        if not (self._server.reading and self._server.admit(self)):
            self.transport.abort()
            return
        self._set_options(_KEEPALIVE)
        self.number = self._server.connected(self)
        if not self._held:
            self._expect_handshake()
        self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take what was read, and forget the connection; in later turns if that takes long."""
        del exc
        self.turns.end(self._end)

    def _end(self) -> bool:
        """Take a slice of what was read, or forget the connection; return whether there is more."""
        try:
            if self.number and self.has_work and not self._held and not self.fault:
                self.step()
                return True
        except BaseException:
            self.drop_input()
            self._forget()
            raise
        self._forget()
        return False

    def _forget(self) -> None:
        self._hold(0)
        for handle in (self._deadline, self._stall):
            if handle is not None:
                handle.cancel()
        self.closed.set()
        self._server.disconnected(self)

    def pause_writing(self) -> None:
        """Limit the time for which a peer reads nothing."""
        if self._stall is None:
            self._stall = self.loop.call_later(_STALL_S, self.drop, "it reads nothing")

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # What the server's owner calls.

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send a message at once; False if the peer reads too little or is gone."""
        transport = self.transport
        if transport.is_closing() or transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            return False
        transport.write(message(frames))
        return True

    def pause(self) -> None:
        """Read nothing more until :meth:`resume`."""
        if not self._held:
            self.hold(True)

    def resume(self) -> None:
        """Read on, from the next turn of the loop."""
        if self._held and self._server.reading and not self.transport.is_closing():
            if not self.is_ready:
                self._expect_handshake()
            self.hold(False)

    def read_rest(self) -> None:
        """Take what the peer has sent up to now, without waiting for turns."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        for _ in range(_LAST_READS):
            self._finish_input()
            if self.is_blocked:
                return
            try:
                data = os.read(descriptor, _LAST_READ_BYTES)
            except OSError:
                return
            if not data:
                return
            self._input = data

    def drop(self, problem: str) -> None:
        """Close the connection because of a fault."""
        if not self.fault:
            self.fault = problem
            self._server.fault(self, problem)
            self.transport.abort()
            # Its memory is free now, not when the loop closes the socket.
            self.drop_input()
            self._zmtp = self._server.zmtp()
            self._hold(0)

    def ask_kernel(self) -> None:
        """Find out in 3 s whether the peer is still there; if it is, nothing is lost."""
        if not self.transport.is_closing():
            self._set_options(_DOUBTED)

    def _set_options(self, options: Sequence[tuple[int, int, int]]) -> None:
        raw = self.transport.get_extra_info("socket")
        for level, option, value in options:
            raw.setsockopt(level, option, value)

    # What the turns call.

    @property
    def has_work(self) -> bool:
        """Whether something that was read is still to be parsed, or passed on."""
        return bool(self._zmtp.messages) or super().has_work

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be parsed now."""
        return self._held or self.transport.is_closing()

    def step(self) -> None:
        """Parse a slice, and pass its messages on."""
        zmtp = self._zmtp
        if not zmtp.messages:
            try:
                zmtp.receive(self.next_slice())
            except ZmtpError as error:
                self._problem = str(error)
            if zmtp.ready and not self.is_ready:
                self._be_ready()
        messages = zmtp.messages
        if messages and not self._server.received(self, messages):
            self.pause()
        if zmtp.outgoing:
            self._answer()
        if self._problem and not messages:
            self.drop(self._problem)

    def served(self) -> None:
        """Count what is held, and tell that some messages came."""
        self._hold(self._zmtp.held_bytes)
        self._server.served()

    def over_budget(self) -> None:
        """Nothing: it only waits for its turns."""

    def _finish_input(self) -> None:
        while self.has_work and not self._held and not self.fault:
            self.step()

    def _expect_handshake(self) -> None:
        if self._deadline is None:
            problem = "no handshake in time"
            self._deadline = self.loop.call_later(_HANDSHAKE_S, self.drop, problem)

    def _be_ready(self) -> None:
        self.is_ready = True
        self.identity = self._zmtp.identity
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._server.ready(self)

    def _answer(self) -> None:
        outgoing = self._zmtp.outgoing
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.drop("it reads nothing")
            return
        self.transport.write(bytes(outgoing))
        outgoing.clear()

    def _hold(self, size: int) -> None:
        change, self.held_bytes = size - self.held_bytes, size
        if change:
            self._server.hold(change)
